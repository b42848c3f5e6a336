"""Statistics against closed forms, scipy and simulation; the rules by which a verdict is reached are in test_verdicts.py."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from mtkd import report
from mtkd.evidence import stats

values = st.lists(st.integers(-500, 500).map(lambda i: i / 100), min_size=3, max_size=7)
pvalues = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def upper_tail_2df(t: float) -> float:
    """P(T > t) for two degrees of freedom, where Student's distribution has a closed form."""
    return 0.5 - t / (2 * math.sqrt(2 + t * t))


def test_docstring_examples():
    for module in (stats, report):
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
    assert stats.beyond(3, 0.1, 0.0) == pytest.approx(1 / 8)
    assert stats.beyond(3, -0.1, 0.0) == stats.beyond(3, 0.0, 0.0) == 1.0
    assert math.isnan(stats.beyond(1, 0.1, 0.0))
    assert math.isnan(stats.detectable_effect(3, 0.0))
    assert stats.replicates_needed(0.0, 1.0) is None


@given(values, st.floats(-3, 3), st.sampled_from([0.8, 0.9, 0.95]))
def test_beyond_is_the_t_test_of_students_interval(differences, bound, level):
    assume(np.ptp(differences) > 0)
    low, high = stats.t_interval(differences, level)
    mean, shifted = np.mean(differences), np.subtract(differences, bound)
    assert stats.beyond(len(differences), mean - bound, mean - low, level) == pytest.approx(stats.t_test_p(shifted, "greater"))
    assert stats.beyond(len(differences), bound - mean, high - mean, level) == pytest.approx(stats.t_test_p(shifted, "less"))


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
    assert stats.detectable_effect(n, sd, test="equal") > effect > stats.detectable_effect(8, sd)


def test_the_margin_of_not_worse_has_its_power_and_not_that_of_equal():
    n, sd = 6, 1.0
    draws = np.random.default_rng(0).normal(0, sd, size=(20000, n))
    low, high = (scipy_stats.ttest_1samp(draws, 0, axis=1).confidence_interval(0.9)[i] for i in (0, 1))
    margin = stats.detectable_effect(n, sd, test="not worse")
    assert (low > -margin).mean() == pytest.approx(0.8, abs=0.012)
    margin = stats.detectable_effect(n, sd, test="equal")
    assert ((low > -margin) & (high < margin)).mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("test", ["greater", "not worse", "equal"])
def test_replicates_needed_is_the_first_n_that_suffices(test):
    n = stats.replicates_needed(1.7, 1.0, test)
    assert stats.detectable_effect(n, 1.7, test=test) <= 1.0 < stats.detectable_effect(n - 1, 1.7, test=test)
    assert stats.replicates_needed(1.7, 1.0, test, alpha=0.001) > n
    assert stats.replicates_needed(1.7, 0.001, test) is None


def plain_two_way(tables, level, resamples, seed):
    """The two-way bootstrap as one would write it down: draw replicates, draw each set's items, average what is left."""
    means = []
    drawn = [np.random.default_rng([seed + i, size]).integers(0, size, size=(resamples, size))
             for i, size in enumerate([len(tables[0]), *(table.shape[1] for table in tables)])]
    for number in range(resamples):
        rows = drawn[0][number]
        means.append(sum(np.mean([[table[r][i] for i in items[number]] for r in rows])
                         for table, items in zip(tables, drawn[1:])))
    return tuple(np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))


def test_the_two_way_bootstrap_is_that_of_a_plain_loop():
    rng = np.random.default_rng(5)
    tables = [rng.integers(-1, 2, size=(5, size)) * 100.0 for size in (11, 7)]
    fast = stats.two_way_interval(tables, 0.9, resamples=60, seed=3)
    assert fast == pytest.approx(plain_two_way(tables, 0.9, 60, 3), abs=1e-3)
    assert stats.two_way_interval(tables[:1], 0.9, 60) != pytest.approx(fast)
    with pytest.raises(ValueError, match="same replicates"):
        stats.two_way_interval([tables[0], tables[1][:4]])


def test_the_two_way_bootstrap_sees_items_that_all_replicates_share():
    rng = np.random.default_rng(1)
    common = rng.normal(0, 5, size=200)  # hard items are hard for every replicate
    table = common + rng.normal(0, 0.5, size=(12, 200))
    low, high = stats.two_way_interval([table], resamples=1000)
    t_low, t_high = stats.t_interval(table.mean(axis=1), 0.9)
    assert high - low == pytest.approx(2 * 1.645 * common.std() / np.sqrt(200), rel=0.15)
    assert t_high - t_low < 0.2 * (high - low)


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
