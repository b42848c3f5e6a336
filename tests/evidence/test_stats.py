"""Statistics against closed forms, scipy and simulation, and the rules by which a verdict is reached."""

import doctest
import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from mtkd.evidence import stats, verdicts
from mtkd.evidence.verdicts import INCONCLUSIVE, NOT_SUPPORTED, NOT_TESTED, SUPPORTED, Member, universal

values = st.lists(st.integers(-500, 500).map(lambda i: i / 100), min_size=3, max_size=7)
pvalues = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def upper_tail_2df(t: float) -> float:
    """P(T > t) for two degrees of freedom, where Student's distribution has a closed form."""
    return 0.5 - t / (2 * math.sqrt(2 + t * t))


def test_docstring_examples():
    for module in (stats, verdicts):
        assert doctest.testmod(module).failed == 0
    assert doctest.testmod(stats).attempted >= 4


def test_paired_by_hand():
    # mean 2, sd 1, t = 2 / (1 / sqrt 3) = 3.4641 on 2 df; the 97.5% point of t on 2 df is 4.302653
    result = stats.paired([1.0, 2.0, 3.0], "greater")
    assert (result.n, result.mean, result.sd, result.dz) == (3, 2.0, 1.0, 2.0)
    assert result.p == pytest.approx(upper_tail_2df(2 * math.sqrt(3)))
    assert result.interval == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-5)
    assert result.p_sign_flip == pytest.approx(1 / 8)
    assert stats.paired([1.0, 2.0, 3.0], "less").p == pytest.approx(1 - result.p)
    assert stats.paired([1.0, 2.0, 3.0]).p == pytest.approx(2 * result.p)


def test_sign_flip_by_hand():
    # sums over the 8 flips of (1, 2, -0.5): +-3.5 +-2.5 +-1.5 +-0.5; the observed 2.5 is reached by 3.5 and 2.5
    assert stats.sign_flip_p([1.0, 2.0, -0.5], "greater") == pytest.approx(2 / 8)
    assert stats.sign_flip_p([1.0, 2.0, -0.5]) == pytest.approx(4 / 8)
    many = np.linspace(-0.4, 1.0, 20)  # 2**20 flips: a seeded sample of them
    assert stats.sign_flip_p(many, seed=1) == stats.sign_flip_p(many, seed=1)
    assert stats.sign_flip_p(many) == pytest.approx(stats.t_test_p(many), abs=0.02)


def test_tost_by_hand():
    differences = [0.1, -0.2, 0.05]
    mean, error = np.mean(differences), np.std(differences, ddof=1) / math.sqrt(3)
    result = stats.equivalence(differences, 1.0)
    assert result.p == pytest.approx(max(upper_tail_2df((mean + 1) / error), upper_tail_2df((1 - mean) / error)))
    assert result.p_not_worse == pytest.approx(upper_tail_2df((mean + 1) / error))
    assert result.equivalent
    assert not stats.equivalence(differences, 0.2).equivalent
    with pytest.raises(ValueError, match="positive"):
        stats.equivalence(differences, 0.0)


@given(values, st.floats(0.1, 5))
def test_tost_is_the_90_percent_interval_inside_the_margin(differences, margin):
    assume(np.ptp(differences) > 0)
    result = stats.equivalence(differences, margin)
    low, high = result.interval
    assume(min(abs(low + margin), abs(high - margin)) > 1e-9)
    assert result.equivalent == (-margin < low and high < margin)
    assert stats.equivalence(differences, margin + 1).p <= result.p


@given(values, st.floats(0.01, 100))
def test_paired_does_not_depend_on_the_unit_and_mirrors(differences, scale):
    assume(np.ptp(differences) > 0)
    result, scaled = stats.paired(differences, "greater"), stats.paired(np.multiply(differences, scale), "greater")
    assert scaled.p == pytest.approx(result.p)
    assert scaled.dz == pytest.approx(result.dz)
    assert stats.paired(np.negative(differences), "less").p == pytest.approx(result.p)
    assert result.interval[0] <= result.mean <= result.interval[1]
    assert result.p_sign_flip >= 2.0 ** -len(differences) - 1e-12


def test_equal_differences_are_not_certainty():
    # a coarse score can give the same difference in every pool: t is infinite, n alone must bound the p value
    assert stats.t_test_p([0.1, 0.1, 0.1], "greater") == pytest.approx(1 / 8)
    assert stats.t_test_p([0.0, 0.0, 0.0], "greater") == 1.0
    assert math.isnan(stats.paired([0.1, 0.1, 0.1]).detectable)
    assert not stats.equivalence([0.0, 0.0, 0.0], 1.0).equivalent
    assert stats.equivalence([0.0] * 5, 1.0).equivalent  # 1/32


@pytest.mark.parametrize("bad", [[1.0, math.nan], [[1.0], [2.0]], [math.inf, 1.0]])
def test_bad_differences_are_refused(bad):
    with pytest.raises(ValueError, match="differences must be"):
        stats.paired(bad)


def test_detectable_effect_has_its_power():
    n, sd = 4, 1.5
    effect = stats.detectable_effect(n, sd)
    draws = np.random.default_rng(0).normal(effect, sd, size=(20000, n))
    found = scipy_stats.ttest_1samp(draws, 0, axis=1, alternative="greater").pvalue <= 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.012)
    assert stats.detectable_effect(n, sd, two_sided=True) > effect > stats.detectable_effect(8, sd)


def test_bootstrap_is_too_narrow_for_three_replicates():
    # the reason why the t interval is the main one
    draws = np.random.default_rng(0).normal(0, 1, size=(400, 3))
    bootstrap = [stats.bootstrap_interval(row, resamples=400) for row in draws]
    student = [stats.t_interval(row) for row in draws]
    assert np.mean([low <= 0 <= high for low, high in bootstrap]) < 0.85
    assert np.mean([low <= 0 <= high for low, high in student]) == pytest.approx(0.95, abs=0.03)


@given(pvalues)
def test_holm_properties(p):
    adjusted = stats.holm(p)
    order = np.argsort(p, kind="stable")
    assert np.all(adjusted >= np.asarray(p))
    assert np.all(adjusted <= 1)
    assert np.all(np.diff(adjusted[order]) >= 0)
    assert np.all(adjusted <= np.minimum(1, np.multiply(p, len(p))) + 1e-12)  # never worse than Bonferroni
    assert stats.holm(p[::-1])[::-1] == pytest.approx(adjusted)


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert len(stats.holm([])) == 0


GOOD, BETTER, FLAT, BAD = [1.0, 1.2, 1.1], [2.0, 2.2, 1.9], [0.4, -0.5, 0.1], [-1.0, -1.2, -1.1]


def test_universal_supported_needs_every_member():
    verdict = universal("S1", [Member("a", GOOD), Member("b", BETTER)], unit="points", tier="demo")
    assert (verdict.verdict, verdict.members, verdict.passed, verdict.n) == (SUPPORTED, 2, 2, 3)
    assert verdict.p == max(stats.t_test_p(GOOD, "greater"), stats.t_test_p(BETTER, "greater"))
    weaker = universal("S1", [Member("a", GOOD), Member("b", FLAT)])
    assert (weaker.verdict, weaker.decided_by, weaker.passed) == (INCONCLUSIVE, "b", 1)
    assert weaker.effect == pytest.approx(0.0)


def test_universal_not_supported_after_holm():
    verdict = universal("S1", [Member("a", GOOD), Member("b", BAD)])
    assert (verdict.verdict, verdict.decided_by) == (NOT_SUPPORTED, "b")
    assert verdict.p == pytest.approx(2 * stats.t_test_p(BAD, "less"))
    # p against of (-1, -2, -3) is 0.037: enough alone, not among three members
    borderline = [-1.0, -2.0, -3.0]
    assert universal("S1", [Member("a", borderline)]).verdict == NOT_SUPPORTED
    several = [Member("a", borderline), Member("b", GOOD), Member("c", GOOD)]
    assert universal("S1", several).verdict == INCONCLUSIVE


def test_equivalence_rules():
    inside = Member("inside", [0.1, -0.2, 0.05], margin=1.0)
    worse = Member("worse", [-3.0, -3.2, -3.1], margin=1.0)
    better = Member("better", [3.0, 3.2, 3.1], margin=1.0)
    both = Member("both", [3.0, 3.2, 3.1], margin=1.0, bad="both")
    assert universal("S2", [inside]).verdict == SUPPORTED
    assert universal("S2", [inside, worse]).verdict == NOT_SUPPORTED
    assert universal("S2", [inside, better]).verdict == INCONCLUSIVE  # better does not contradict "about as good"
    assert universal("S2", [inside, both]).verdict == NOT_SUPPORTED
    # below zero but inside the margin says nothing against an equivalence claim
    assert universal("S2", [Member("slightly worse", [-0.5, -0.52, -0.51], margin=1.0)]).verdict == SUPPORTED


@pytest.mark.parametrize("differences", [[5.0], [5.0, 5.1], [-5.0, -5.1]])
def test_fewer_than_three_replicates_decide_nothing(differences):
    verdict = universal("S1", [Member("a", differences)], replicate="pools")
    assert verdict.verdict == INCONCLUSIVE
    assert "fewer than 3 pools for: a" in verdict.note
    assert verdict.p is None
    assert universal("S1", [Member("a", GOOD), Member("b", differences)]).verdict == INCONCLUSIVE


def test_no_data_is_not_tested():
    assert universal("S1", []).verdict == NOT_TESTED
    assert universal("S1", [Member("a", [])]).verdict == NOT_TESTED
    assert universal("S1", [Member("a", GOOD), Member("b", [])]).verdict == INCONCLUSIVE


@settings(max_examples=60)
@given(st.lists(values, min_size=1, max_size=4), values)
def test_one_more_member_never_makes_a_claim_supported(sets, more):
    members = [Member(str(i), v) for i, v in enumerate(sets)]
    before, after = universal("S1", members), universal("S1", [*members, Member("more", more)])
    if before.verdict != SUPPORTED:
        assert after.verdict != SUPPORTED
    if before.verdict == SUPPORTED:
        assert after.verdict == SUPPORTED or after.decided_by == "more"


def test_verdict_is_json():
    verdict = universal("S1", [Member("a", [0.1, 0.1, 0.1]), Member("b", []), Member("c", [0.2], margin=1.0)])
    data = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert data["claim"] == "S1"
    assert data["parts"][0]["dz"] is None
    assert data["parts"][1]["n"] == 0
