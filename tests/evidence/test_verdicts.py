"""The rule: what a claim is called, on average and as stated, and what must not decide it."""

import base64
import json

import numpy as np
import pandas as pd
import pytest

from mtkd import papers
from mtkd.errors import KitError
from mtkd.evidence.contrasts import Contrast, Setting, bits, delta, member
from mtkd.evidence.paper import printed_settings
from mtkd.evidence.verdicts import (
    CONTRADICTED,
    FAILS,
    HOLDS,
    NO_EFFECT,
    NOT_TESTABLE,
    NOT_TESTED,
    OPEN,
    SUPPORTED,
    Member,
    decide,
    examine,
    judge,
    mean_of,
)


def around(mean: float, sd: float = 0.3, n: int = 10) -> np.ndarray:
    """n numbers with exactly this mean and sample standard deviation."""
    values = np.linspace(-1, 1, n)
    return mean + sd * values / values.std(ddof=1)


@pytest.mark.parametrize(("test", "mean", "sd", "word"), [
    ("greater", 2.0, 0.3, "supported"),
    ("greater", 0.5, 0.3, "supported, but below 1 point"),
    ("greater", 0.1, 0.3, NO_EFFECT),
    ("greater", 0.9, 2.0, OPEN),
    ("greater", -0.5, 0.3, "contradicted, but by below 1 point"),
    ("greater", -2.0, 0.3, CONTRADICTED),
    ("not worse", 5.0, 0.3, SUPPORTED),
    ("not worse", -0.5, 0.3, SUPPORTED),
    ("not worse", -1.0, 0.3, OPEN),
    ("not worse", -2.0, 0.3, CONTRADICTED),
    ("equal", 0.5, 0.3, SUPPORTED),
    ("equal", 0.0, 3.0, OPEN),
    ("equal", 2.0, 0.3, CONTRADICTED),
    ("equal", -2.0, 0.3, CONTRADICTED),
])
def test_every_word(test, mean, sd, word):
    verdict = judge("X1", [Member("a", around(mean, sd), test)])
    assert verdict.words == word
    assert verdict.effect == pytest.approx(mean)
    assert verdict.delta == 1.0
    assert (verdict.needed is not None) == (word == OPEN)


def test_the_mean_over_settings_decides_and_the_settings_stand_beside():
    verdict = judge("X1", [Member("a", around(3.0)), Member("b", around(-1.0)), Member("c", around(0.05))])
    assert verdict.verdict == SUPPORTED
    assert verdict.effect == pytest.approx((3.0 - 1.0 + 0.05) / 3)
    assert (verdict.passed, verdict.members, verdict.as_stated) == (1, 3, FAILS)
    assert (verdict.lowest, verdict.highest) == pytest.approx((-1.0, 3.0))
    assert judge("X1", [Member("a", around(3.0)), Member("c", around(0.05))]).as_stated == OPEN
    assert judge("X1", [Member("a", around(3.0)), Member("c", around(0.5))]).as_stated == HOLDS


def test_the_mean_is_over_replicates_that_all_settings_have():
    some = pd.Series([1.0, 2.0, 3.0], index=[1, 2, 3])
    mean = mean_of([Member("a", some), Member("b", pd.Series([4.0, 0.0, 9.0], index=[2, 3, 7]))])
    assert mean.by_replicate().to_dict() == {2: 3.0, 3: 1.5}


def test_a_claim_of_several_statements_needs_all_of_them():
    good = Member("a", around(3.0), part="better")
    speed = Member("b", around(50.0, 20.0), unit="per cent", part="faster")
    assert judge("X1", [good, speed]).verdict == SUPPORTED
    assert judge("X1", [good, Member("c", around(0.0), part="faster")]).verdict == NO_EFFECT
    assert judge("X1", [good, Member("c", around(-3.0), part="faster")]).verdict == CONTRADICTED
    missing = judge("X1", [good], required=["faster"])
    assert missing.words == "not tested: no data for faster"
    assert missing.as_stated == OPEN


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_fewer_than_eight_replicates_are_too_few(n):
    verdict = judge("X1", [Member("a", around(3.0, n=8)[:n])])
    assert verdict.words == ("not tested: too few" if n else "not tested: no data")
    assert verdict.as_stated == NOT_TESTED
    assert judge("X1", [Member("a", around(3.0, n=8))]).verdict == SUPPORTED
    assert json.dumps(verdict.to_dict(), allow_nan=False)


def test_settings_that_can_show_nothing_are_out_of_the_mean_and_listed():
    dead = Member("dead", around(0.0), left_out="dead: the teachers are +0.1 points from the undistilled student")
    verdict = judge("X1", [Member("a", around(2.0)), dead])
    assert (verdict.verdict, verdict.effect, verdict.members) == (SUPPORTED, pytest.approx(2.0), 1)
    assert verdict.left_out == (dead.left_out,)
    assert verdict.as_stated == OPEN
    assert judge("X1", [dead]).verdict == NOT_TESTABLE


def test_no_data_is_said():
    verdict = judge("X1", [])
    assert verdict.words == "not tested: no data"
    assert json.dumps(verdict.to_dict(), allow_nan=False)


# --- the floor of resolution ----------------------------------------------------------------------------------------------


def table(rng, n: int, items: int, differ: int) -> np.ndarray:
    """Differences per item in points: in every replicate `differ` items are won and as many lost, and three more are lost."""
    found = np.zeros((n, items))
    for row in found:
        row[rng.permutation(items)[: 2 * differ + 3]] = [100.0] * differ + [-100.0] * (differ + 3)
    return found


def test_a_lucky_agreement_among_replicates_does_not_decide():
    # 9 replicates that all differ by -0.3 points, three sentences of a thousand, though 83 answers of each differ
    items = table(np.random.default_rng(0), 9, 1000, 40)
    exact = Member("a", items.mean(axis=1))
    assert examine(exact)["sd"] == 0.0
    assert judge("X1", [exact]).verdict == CONTRADICTED  # with n alone: 2 ** -9
    verdict = judge("X1", [Member("a", items.mean(axis=1), items={"t": items})])
    assert verdict.verdict == NO_EFFECT
    assert "sampling error of the test items" in verdict.test
    half = (verdict.interval[1] - verdict.interval[0]) / 2
    assert half == pytest.approx(1.8595 * 100 * np.sqrt(0.083 / 1000) / 3, rel=0.01)  # t of 8 df, sd of McNemar


def test_without_marks_one_item_is_the_floor():
    members = [Member("a", [0.1] * 9, step=0.5), Member("b", [0.1] * 9, step=0.5)]
    assert examine(members[0], whole=True)["interval"] == pytest.approx((0.1 - 0.62 * 0.5, 0.1 + 0.62 * 0.5), abs=1e-3)
    assert mean_of(members).step == 0.25  # the mean of two settings changes by half as little


def test_from_ten_replicates_on_the_wider_interval_counts():
    rng = np.random.default_rng(2)
    items = rng.normal(0.5, 30, size=400) + rng.normal(0, 1, size=(10, 400))
    items += around(2.0, 0.3)[:, None] - items.mean()
    known = Member("a", pd.Series(items.mean(axis=1)), items={"t": items})
    ten, nine = examine(known, whole=True), examine(Member("a", items[:9].mean(axis=1), items={"t": items[:9]}), whole=True)
    assert ten["interval_by"].startswith("two-way")
    assert not nine["interval_by"].startswith("two-way")
    assert ten["interval"][1] - ten["interval"][0] > examine(known)["interval"][1] - examine(known)["interval"][0]
    assert ten["p"] > examine(known)["p"]


# --- marks of right answers -----------------------------------------------------------------------------------------------


def packed(right) -> str:
    return base64.b64encode(np.packbits(np.asarray(right, bool)).tobytes()).decode()


def answers(rights, **more) -> pd.DataFrame:
    return pd.DataFrame([{"repeat": r, "task": "t", "metric": "accuracy", "score": float(np.mean(right)), "n_test": len(right),
                          "right": packed(right)} | more for r, right in enumerate(rights)])


def compared(ours, theirs) -> Member:
    contrast = Contrast("", "", label="{task}")
    return member(contrast, Setting({"task": "t"}, {"task": "t"}, ours, theirs), lambda row: "", "repeat", 0.01)


def test_marks_make_the_differences():
    rng = np.random.default_rng(0)
    ours, theirs = (rng.random((3, 21)) < p for p in (0.7, 0.5))
    found = compared(answers(ours), answers(theirs[:2]))  # the third replicate has no rival
    (items,) = found.items.values()
    assert items == pytest.approx(100.0 * (ours[:2].astype(int) - theirs[:2].astype(int)))
    assert found.by_replicate().to_numpy() == pytest.approx(items.mean(axis=1), abs=1e-5)
    assert found.step == pytest.approx(100 / 21)


def test_marks_of_other_items_are_refused():
    right = np.arange(24) % 3 == 0
    with pytest.raises(KitError, match="not those of its score"):
        compared(answers([right], right=packed(~right)), answers([right]))
    with pytest.raises(KitError, match="different numbers of test items"):
        compared(answers([right]), answers([right[:21]]))
    with pytest.raises(KitError, match="24 test items and marks for 16"):
        bits(packed(right[:16]), 24)
    both = pd.concat([answers([right]), answers([right[:21]])])
    with pytest.raises(KitError, match="answered different test items"):
        compared(both, answers([right]))


def test_without_marks_there_are_no_items():
    right = np.arange(24) % 3 == 0
    assert compared(answers([right]), answers([right], right=None)).items is None
    assert compared(answers([right], metric="mcc"), answers([right], metric="mcc")).items is None


def test_the_smallest_effect_of_interest():
    assert [delta(metric, 0.01) for metric in ("accuracy", "mcc", "char_f1")] == [1.0, 2.0, 2.0]
    assert all(papers.raw(name)["smallest_effect"] == 0.01 for name in papers.FIVE)


# --- some setting -----------------------------------------------------------------------------------------------------------


def test_some_setting_after_holm():
    strong, weak, bad = Member("a", around(1.0, 0.3)), Member("b", around(0.0)), Member("c", around(-2.0))
    verdict = judge("X1", [strong, weak, bad], holds="some")
    assert (verdict.verdict, verdict.as_stated, verdict.effect) == (SUPPORTED, HOLDS, pytest.approx(1.0))
    assert judge("X1", [weak, bad], holds="some").verdict == NO_EFFECT
    against = judge("X1", [bad, Member("d", around(-3.0))], holds="some")
    assert (against.verdict, against.as_stated) == (CONTRADICTED, FAILS)


def test_readings_that_exclude_each_other_are_one_test():
    p = examine(Member("a", around(0.2, 0.3)))["p"]
    pair = [Member("a", around(0.2, 0.3), own={"group": "x"}), Member("a back", around(-0.2, 0.3), own={"group": "x"})]
    assert judge("X1", pair, holds="some").p == pytest.approx(p)
    assert judge("X1", [Member(m.label, m.differences) for m in pair], holds="some").p == pytest.approx(2 * p)


# --- Holm over a tier, and simulation -------------------------------------------------------------------------------------


def test_holm_runs_over_the_claims_of_a_tier():
    claims = [judge(f"X{i}", [Member("a", around(mean, 1.0, 12))]) for i, mean in enumerate([3.0, 0.75, 0.0])]
    assert [v.verdict for v in claims] == [SUPPORTED, SUPPORTED, NO_EFFECT]
    assert [v.verdict for v in decide(claims)] == [SUPPORTED, SUPPORTED, NO_EFFECT]  # 0.75: p = 0.012, twice that
    many = decide(claims, family=36)
    assert [v.verdict for v in many] == [SUPPORTED, OPEN, NO_EFFECT]
    assert many[1].p == claims[1].p
    assert many[1].p_holm == pytest.approx(35 * claims[1].p)
    assert [v.verdict for v in decide(many)] == [v.verdict for v in claims]  # from the p values, not from the words


def test_the_family_is_the_claims_of_the_five_papers():
    assert sum(len(papers.load(name).claims) for name in papers.FIVE) == papers.FAMILY
    assert {papers.paper(name).family for name in papers.FIVE} == {papers.FAMILY}


def tier_of(rng, mean: float, n: int = 20, sd: float = 1.0) -> list[str]:
    return [v.verdict for v in decide([judge(f"X{i}", [Member("a", rng.normal(mean, sd, n))]) for i in range(papers.FAMILY)])]


def test_noise_alone_decides_nothing_and_one_point_is_found():
    rng = np.random.default_rng(0)
    noise = [tier_of(rng, 0.0) for _ in range(60)]
    chance = 2 * np.sqrt(0.05 * 0.95 / 60)  # twice the standard error of a share of 5%
    assert np.mean([SUPPORTED in tier for tier in noise]) <= 0.05 + chance  # in a whole tier, not per claim
    assert np.mean([CONTRADICTED in tier for tier in noise]) <= 0.05 + chance
    assert {word for tier in noise for word in tier} <= {NO_EFFECT, OPEN, SUPPORTED, CONTRADICTED}
    assert np.mean([word == NO_EFFECT for tier in noise for word in tier]) > 0.95
    found = [word for _ in range(10) for word in tier_of(rng, 1.0)]
    assert found.count(SUPPORTED) >= 0.95 * len(found)


def test_one_claim_by_itself_keeps_its_level_and_its_power():
    rng = np.random.default_rng(3)
    words = {mean: [judge("X1", [Member("a", rng.normal(mean, 1.0, 20))]).verdict for _ in range(600)] for mean in (0.0, 1.0)}
    assert words[0.0].count(SUPPORTED) / 600 < 0.05 + 0.02  # 5% and twice the standard error of 600 draws
    assert words[1.0].count(SUPPORTED) / 600 >= 0.95


def test_noise_of_items_that_all_replicates_share_does_not_decide():
    # two models equally good in the long run, on 300 items of which every replicate finds the same ones hard
    rng, words = np.random.default_rng(4), []
    for _ in range(100):
        hard = rng.normal(0, 1.5, size=(2, 300))
        ours, theirs = (rng.random((12, 300)) < 1 / (1 + np.exp(-h)) for h in hard)
        items = 100.0 * (ours.astype(int) - theirs)
        words.append(judge("X1", [Member("a", items.mean(axis=1), items={"t": items})]).verdict)
    assert words.count(SUPPORTED) / 100 <= 0.05 + 0.04
    assert words.count(CONTRADICTED) / 100 <= 0.05 + 0.04


# --- the papers' own tables -----------------------------------------------------------------------------------------------


def test_eight_claims_fail_in_the_papers_own_tables():
    failing = {claim for name in papers.FIVE for claim in papers.raw(name)["claims"]
               if any(setting["fails"] for setting in papers.paper(name).said(claim, 0.01)["printed"])}
    assert failing == {"D1", "D3", "M7", "R2", "T1", "T2", "T4", "T8"}


def test_printed_settings_by_hand():
    numbers = [("ours", "A", 71.0), ("ours", "B", 60.0), ("theirs", "A", 70.0), ("theirs", "B", 60.5), ("ours", "AVG.", 65.5),
               ("theirs", "AVG.", 65.25)]
    published = [{"exhibit": "t", "row": r, "column": c, "value": v} for r, c, v in numbers]
    entry = {"table": "t", "ours": "ours", "theirs": "theirs"}
    found = {f["label"]: (f["difference"], f["fails"]) for f in printed_settings(published, [entry], 0.01)}
    assert found == {"A: ours against theirs": (1.0, False), "B: ours against theirs": (-0.5, True)}
    assert not any(f["fails"] for f in printed_settings(published, [entry | {"test": "not worse"}], 0.01))
    assert [f["difference"] for f in printed_settings(published, [entry | {"columns": ["AVG."]}], 0.01)] == [0.25]
    assert len(printed_settings(published, [entry | {"but": ["ours B"]}], 0.01)) == 1
