"""The seed ensemble's aggregation on hand-made scores, equal time, claims on data whose answer is known, exhibits."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from notebook_names import defined_in
from seed_rows import everything, made, record, row

from mtkd.evidence.frame import points
from mtkd.evidence.verdicts import CONTRADICTED, FAILS, HOLDS, NOT_TESTED, OPEN, SUPPORTED
from mtkd.papers import seed_ensemble
from mtkd.papers.seed_ensemble import combinations, equal_time, rows_frame, time_curves

# Three teachers, one pool, every member as primary.
#   one teacher     {0}: 0.60   {1}: 0.70   {2}: 0.80
#   {0,1}: 0.66 (primary 0), 0.68 (1)    {0,2}: 0.70 (0), 0.74 (2)    {1,2}: 0.72 (1), 0.78 (2)
#   {0,1,2}: 0.71 (0), 0.73 (1), 0.75 (2)
HAND = [row([i], 0.6 + i / 10, primary=i) for i in range(3)] + [
    row(members, score, primary=primary)
    for members, primary, score in [
        ((0, 1), 0, 0.66), ((0, 1), 1, 0.68), ((0, 2), 0, 0.70), ((2, 0), 2, 0.74), ((1, 2), 1, 0.72), ((1, 2), 2, 0.78),
        ((0, 1, 2), 0, 0.71), ((0, 1, 2), 1, 0.73), ((0, 1, 2), 2, 0.75),
    ]
]  # fmt: skip


def cells(table: pd.DataFrame, k: int, mode: str) -> dict:
    return table[(table["k"] == k) & (table["mode"] == mode)].iloc[0].to_dict()


def test_aggregate_by_hand():
    table = seed_ensemble.aggregate(rows_frame([record(HAND)]))
    single, multi = cells(table, 2, "single"), cells(table, 2, "multi")
    # single mode, minima of the three pairs 0.60 0.60 0.70, maxima 0.70 0.80 0.80
    assert (single["min"], single["max"]) == pytest.approx((1.9 / 3, 2.3 / 3))
    assert single["min_std"] == pytest.approx(np.sqrt(((0.6 - 1.9 / 3) ** 2 * 2 + (0.7 - 1.9 / 3) ** 2) / 2))
    # multi mode, minima 0.66 0.70 0.72, maxima 0.68 0.74 0.78
    assert (multi["min"], multi["max"]) == pytest.approx((2.08 / 3, 2.2 / 3))
    assert (single["n_scores"], multi["n_scores"], multi["combinations"]) == (2, 2, 3)
    # all three teachers: one combination, so no spread
    assert (cells(table, 3, "single")["min"], cells(table, 3, "single")["max"]) == pytest.approx((0.6, 0.8))
    assert (cells(table, 3, "multi")["min"], cells(table, 3, "multi")["max"]) == pytest.approx((0.71, 0.75))
    assert np.isnan(cells(table, 3, "multi")["min_std"])
    # k = 1 is the same in both modes: the mean of 0.60 0.70 0.80 is both the least and the largest
    for mode in ("single", "multi"):
        assert (cells(table, 1, mode)["min"], cells(table, 1, mode)["max"]) == pytest.approx((0.7, 0.7))


def test_resnet_has_repeats_in_place_of_primaries():
    rows = [row([i], 0.5 + i / 10, arm="resnet") for i in range(2)]
    rows += [row([0, 1], score, arm="resnet", repeat=i) for i, score in enumerate((0.56, 0.58))]
    table = combinations(rows_frame([record(rows)]))
    assert table["equal"].all()
    both = seed_ensemble.aggregate(rows_frame([record(rows)]))
    assert (cells(both, 2, "multi")["min"], cells(both, 2, "single")["max"]) == (0.56, 0.6)


def test_unequal_numbers_of_scores_are_left_out():
    rows = [r for r in HAND if (tuple(r["members"]), r["primary"]) != ((0, 1), 1)]
    table = seed_ensemble.aggregate(rows_frame([record(rows)]))
    assert cells(table, 2, "multi")["combinations"] == 2
    assert cells(table, 2, "multi")["min"] == pytest.approx((0.70 + 0.72) / 2)


def test_order_of_rows_changes_nothing():
    table = seed_ensemble.aggregate(rows_frame([record(HAND)]))
    pd.testing.assert_frame_equal(table, seed_ensemble.aggregate(rows_frame([record(HAND[::-1])])))


def test_time_by_hand():
    # k = 2, either mode: two students at 10 + 2 s, two teachers scored once at 1 s each; two teachers trained in 200 s
    curves = time_curves(combinations(rows_frame([record(HAND)])), count_teachers=False)
    assert cells(curves, 2, "single")["time_s"] == cells(curves, 2, "multi")["time_s"] == pytest.approx(26.0)
    counted = time_curves(combinations(rows_frame([record(HAND)])), count_teachers=True)
    assert cells(counted, 2, "multi")["time_s"] == pytest.approx(226.0)
    assert cells(counted, 1, "single")["time_s"] == pytest.approx(113.0)


def test_equal_time_reads_the_single_curve_between_its_points():
    # multi-teacher students of pairs take 16.5 + 2 s each: 2 * 18.5 + 2 = 39 s, as long as single teachers at k = 3;
    # those of all three 18 + 2 s each: 63 s, 24 s beyond the last single point at 39 s
    slow = [r | {"time": r["time"] | {"train_s": {1: 10.0, 2: 16.5, 3: 18.0}[r["k"]]}} for r in HAND]
    table = equal_time(combinations(rows_frame([record(slow)])), count_teachers=False).set_index("k")
    assert table.loc[2, "min_single"] == pytest.approx(0.6)
    assert table.loc[2, "max_single"] == pytest.approx(0.8)
    assert not table.loc[2, "clipped"]
    assert table.loc[3, "clipped"]
    assert table.loc[3, "overshoot"] == pytest.approx(63 / 39 - 1)
    # half way between k = 1 (13 s: min 0.7) and k = 2 (26 s: min 1.9 / 3), at 19.5 s
    fast = [r | {"time": r["time"] | {"train_s": 6.75 if r["k"] == 2 else 10.0}} for r in HAND]
    table = equal_time(combinations(rows_frame([record(fast)])), count_teachers=False).set_index("k")
    assert table.loc[2, "min_single"] == pytest.approx((0.7 + 1.9 / 3) / 2)


def verdict_of(rows, claim, **options):
    return next(v for v in seed_ensemble.claims([record(rows)], **options) if v.claim == claim)


def test_claims_hold_where_the_data_say_so():
    rows = made() + made(arm="distilbert", seed=1) + made(arm="resnet", task="digits", seed=2)
    verdicts = {v.claim: v for v in seed_ensemble.claims([record(rows)])}
    assert {name: v.verdict for name, v in verdicts.items()} == {
        "S1": SUPPORTED, "S2": SUPPORTED, "S3": SUPPORTED, "S4": SUPPORTED, "S5": NOT_TESTED,
    }  # fmt: skip
    # two text arms, k = 2 and 3; equal time twice, worst and best; ResNet worst and best
    assert [verdicts[name].members for name in ("S1", "S2", "S3", "S4")] == [4, 4, 16, 4]
    assert verdicts["S1"].effect == pytest.approx(3.0, abs=0.2)
    assert (verdicts["S1"].n, verdicts["S1"].unit, verdicts["S1"].tier) == (8, "points", "demo")
    assert [verdicts[name].as_stated for name in ("S1", "S2", "S3", "S4")] == [HOLDS] * 4
    assert verdicts["S2"].delta == 1.0
    assert "8 pools" in verdicts["S1"].note
    assert "standing in" in verdicts["S1"].note


def test_claims_fail_where_the_data_say_so():
    rows = made(worst_gain=-0.03, best_gain=-0.04)
    assert [verdict_of(rows, claim).verdict for claim in ("S1", "S2", "S3")] == [CONTRADICTED] * 3
    assert verdict_of(made(best_gain=0.04), "S2").verdict == SUPPORTED  # about the same, for most even better


def test_one_bad_setting_spoils_a_universal_claim():
    rows = made() + made(arm="distilbert", worst_gain=-0.03)
    verdict = verdict_of(rows, "S1")
    assert (verdict.as_stated, verdict.passed, verdict.members) == (FAILS, 2, 4)
    assert verdict.effect == pytest.approx(0.0, abs=0.1)
    assert min(verdict.parts, key=lambda part: part["effect"])["label"].startswith("distilbert")


def test_an_arm_in_which_students_have_nothing_to_learn_is_left_out():
    rows = made() + made(arm="distilbert", worst_gain=-0.03)
    for arm, alone in (("tinybert", 0.5), ("distilbert", 0.69)):
        rows += [row([0], 0.7, kind="teacher", arm=arm, pool=p) for p in range(8)]
        rows += [row([], alone, kind="undistilled", arm=arm, pool=p) for p in range(8)]
    verdict = verdict_of(rows, "S1")
    assert (verdict.verdict, verdict.members) == (SUPPORTED, 2)
    assert [words.split(",")[0] for words in verdict.left_out] == ["distilbert"] * 2


def test_mcc_gets_twice_the_margin():
    rows = made(best_gain=-0.015, metric="mcc", task="pydocs/acceptability")
    assert (verdict_of(rows, "S2").delta, verdict_of(rows, "S2").verdict) == (2.0, SUPPORTED)
    assert verdict_of(made(best_gain=-0.015), "S2").verdict == CONTRADICTED


def test_no_equal_time_without_equal_time():
    slow = [r | {"time": r["time"] | {"train_s": 10.0 * r["k"]}} for r in made()]
    verdict = verdict_of(slow, "S3")
    assert verdict.verdict == SUPPORTED  # where there is equal time
    assert verdict.as_stated == OPEN
    assert "left out" in verdict.note
    assert all(words.endswith("no data") for words in verdict.left_out)
    assert verdict.left_out


def test_tiers_are_kept_apart():
    records = [record(made()), record(made(worst_gain=-0.03, arm="distilbert", task="glue/sst2"), tier="small")]
    verdicts = {(v.claim, v.tier): v.verdict for v in seed_ensemble.claims(records)}
    assert verdicts["S1", "demo"] == SUPPORTED
    assert verdicts["S1", "small"] == CONTRADICTED
    assert verdicts["S4", ""] == NOT_TESTED


TERMS = ("CE", "KD", "CE+KD", "CE+cos", "KD+cos", "CE+KD+cos")


def terms(pools=8, best="CE+KD+cos", names=TERMS):
    rng = np.random.default_rng(0)
    return [
        row([member], 0.6 + 0.02 * (name == best) + rng.normal(0, 0.001), arm="distilbert", kind="terms", pool=pool,
            primary=member, variant=name)
        for pool in range(pools) for member in range(2) for name in names
    ]  # fmt: skip


def test_best_set_of_terms():
    verdict = verdict_of(terms(), "S5")
    assert (verdict.verdict, verdict.members, verdict.n) == (SUPPORTED, 5, 8)
    assert verdict_of(terms(best="KD"), "S5").as_stated == FAILS
    missing = verdict_of(terms(names=("CE", "KD", "CE+KD+cos")), "S5")
    assert (missing.as_stated, missing.passed, len(missing.left_out)) == (OPEN, 2, 3)  # three of five rivals were never run


def test_plain_ce_without_teachers_is_still_compared():
    rows = [r | ({"members": [], "primary": None, "k": 0} if r["variant"] == "CE" else {}) for r in terms()]
    assert verdict_of(rows, "S5").members == 5
    assert verdict_of(rows, "S5").verdict == SUPPORTED


def test_figure_2_draws_the_aggregated_scores():
    records = [record(HAND)]
    axis = seed_ensemble.exhibit("fig2", records).content.axes[0]
    drawn = [list(np.round(line.get_ydata(), 6)) for line in axis.lines if len(line.get_ydata()) == 3]
    table = seed_ensemble.aggregate(rows_frame(records))
    for mode, name in itertools.product(("single", "multi"), ("min", "max")):
        expected = [round(100 * cells(table, k, mode)[name], 6) for k in (1, 2, 3)]
        assert expected in drawn


def test_tables_put_the_papers_numbers_beside_ours():
    table1 = seed_ensemble.exhibit("table1", everything()).content.set_index("task")
    assert table1.loc["glue/cola", "samples"] == "8551 / 1043 / -"
    assert table1.loc["glue/cola", "tokens"] == "8.9 / - / -"
    assert table1.loc["glue/cola", "paper's tokens"] == "8.9 / 9.3 / 9.1"
    table2 = seed_ensemble.exhibit("table2", everything()).content.set_index(["source", "model"])
    assert table2.loc[("paper", "TinyBERT"), "QQP"] == "71.3 (-0.2)"
    assert table2.loc[("paper", "ResNet-20 (student)"), "CIFAR-10"] == "91.73"
    assert table2.loc[("demo tier", "TinyBERT teacher"), "pydocs/topic"] == "81.0 ± 1.0 n=3"
    assert table2.loc[("demo tier", "TinyBERT student, not distilled"), "pydocs/topic"] == "55.0 ± 0.0 (26.0) n=2"


def test_controls_are_paired_over_pools():
    table = seed_ensemble.exhibit("controls", everything()).content.set_index("control")
    shuffled = table.loc["shuffled teacher"]
    assert shuffled["pools"] == 4
    # students of {0, 1, 2} lie evenly between 0.63 and 0.70, the control at 0.5015 on average
    assert float(shuffled["difference"]) == pytest.approx(100 * (0.665 - 0.5015), abs=0.3)
    assert table.loc["undistilled", "pools"] == 1
    assert table.loc["undistilled", "p (Holm)"] == "n/a"


def test_summary_numbers():
    table = seed_ensemble.summary([record(HAND)])
    assert table.loc[0, "single teacher, worst"] == "60.0"
    assert table.loc[0, "several teachers, best"] == "75.0"
    assert (table.loc[0, "k"], table.loc[0, "teachers"]) == (3, "n/a")


def test_names_and_formats():
    printed = seed_ensemble.PAPER.printed_task
    assert [printed("glue/sst2"), printed("SST-2"), printed("pydocs/topic")] == ["SST-2", "SST-2", None]
    assert points(pd.Series([4.9004, 4.9004])) == "490.0 ± 0.0"
    assert points(pd.Series([], dtype=float)) == "n/a"


# --- exercises -----------------------------------------------------------------------------------------------------------


def test_exercise_answers():
    def repaired(student, teacher, t):
        return F.kl_div(F.log_softmax(student / t, dim=-1), F.softmax(teacher / t, dim=-1), reduction="batchmean")

    def swapped(student, teacher, t):
        return F.kl_div(F.log_softmax(teacher / t, dim=-1), F.softmax(student / t, dim=-1), reduction="batchmean")

    def over_classes(student, teacher, t):
        return -(F.softmax(teacher / t, dim=-1) * F.log_softmax(student / t, dim=-1)).mean()

    def sure(logits):
        p = logits.softmax(-1).max(-1).values
        return p / p.sum(-1, keepdim=True)

    exercises = defined_in("seed_ensemble").exercises
    right = {"1": 0.6255, "2": repaired, "3": 8 * 2**7, "4": sure}
    wrong = {"1": 0.8176, "2": swapped, "3": 255, "4": lambda z: torch.full(z.shape[:2], 0.5)}
    for name, answer in right.items():
        assert exercises.check(name, answer) == f"exercise {name}: correct"
        assert exercises.check(name, wrong[name]) == f"exercise {name}: not yet"
    assert exercises.check("2", over_classes) == "exercise 2: not yet"
    assert "TypeError" in exercises.check("1", "six")
