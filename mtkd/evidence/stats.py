"""Tests and intervals over replicates: pure functions on arrays of paired differences (verdicts are in `verdicts`).

A *replicate* is whatever was trained independently (for `seed_ensemble` a pool of teachers), and a *difference* is one
number per replicate: this arm minus that arm. All functions work in the unit of the differences they are given.

Which interval is the main one. With three to six replicates the bootstrap of a mean is too narrow: three values have
only ten distinct resamples, and the nominal 95% percentile interval covers the truth about three times in four. The
interval from Student's t is exact for normal differences at any n, so it is the one reported; the percentile bootstrap
and the exact sign-flip p stand beside it as a check that does not assume a shape. Note what sign-flipping cannot do:
with n replicates its smallest one-sided p is 2**-n, which is 0.125 for n = 3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats


@dataclass(frozen=True)
class Paired:
    """What `paired` found. `detectable` is the smallest true mean seen with 80% power at this n and sd."""

    n: int
    mean: float
    sd: float
    dz: float
    alternative: str
    p: float
    p_sign_flip: float
    level: float
    interval: tuple[float, float]
    bootstrap: tuple[float, float]
    detectable: float


@dataclass(frozen=True)
class Equivalence:
    """What `equivalence` found: p of the two one-sided tests, and the interval of level 1 - 2 alpha that matches."""

    n: int
    mean: float
    sd: float
    margin: float
    p: float
    p_not_worse: float
    level: float
    interval: tuple[float, float]
    equivalent: bool
    detectable: float


def _values(differences) -> np.ndarray:
    values = np.asarray(differences, dtype=float)
    if values.ndim != 1:
        raise ValueError(f"differences must be one-dimensional, one per replicate, not of shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("differences must be finite numbers")
    return values


def _no_spread(values: np.ndarray) -> bool:
    """True where the values differ by no more than rounding, so that t would be infinite or undefined."""
    return float(np.ptp(values)) <= 1e-12 * max(1.0, float(np.abs(values).max()))


def _sd(values: np.ndarray) -> float:
    """Sample standard deviation; exactly 0 without spread, nan below two values."""
    return math.nan if len(values) < 2 else 0.0 if _no_spread(values) else float(values.std(ddof=1))


def sign_flip_p(differences, alternative: str = "two-sided", seed: int = 0) -> float:
    """p of the sign-flip permutation test of a mean; every one of the 2**n flips for n <= 13, else 9,999 seeded ones.

    >>> sign_flip_p([1.0, 2.0, 3.0], "greater")      # only one flip in eight reaches a sum of 6
    0.125
    """
    values = _values(differences)
    if len(values) < 2:
        return math.nan
    rng = np.random.default_rng(seed)
    result = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", alternative=alternative, n_resamples=9999, rng=rng, axis=0
    )
    return float(result.pvalue)


def t_test_p(differences, alternative: str = "two-sided") -> float:
    """p of the one-sample t-test of the differences against zero; nan below two replicates.

    Where all differences are the same t is infinite and would turn a coarse score into certainty, so the exact
    sign-flip p is returned instead, which n alone bounds.
    """
    values = _values(differences)
    if len(values) < 2:
        return math.nan
    if _no_spread(values):
        return sign_flip_p(values, alternative)
    return float(stats.ttest_1samp(values, 0.0, alternative=alternative).pvalue)


def t_interval(differences, level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean: mean -+ t * sd / sqrt(n); (nan, nan) below two replicates."""
    values = _values(differences)
    if len(values) < 2:
        return (math.nan, math.nan)
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * _sd(values) / math.sqrt(len(values))
    return (float(values.mean() - half), float(values.mean() + half))


def bootstrap_interval(differences, level: float = 0.95, resamples: int = 4000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean, seeded; too narrow for small n (see the module's first lines)."""
    values = _values(differences)
    if len(values) < 2:
        return (math.nan, math.nan)
    picks = np.random.default_rng(seed).integers(0, len(values), size=(resamples, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return (float(low), float(high))


def detectable_effect(n: int, sd: float, *, alpha: float = 0.05, power: float = 0.8, two_sided: bool = False) -> float:
    """Smallest true mean that a t-test of n differences with this sd finds with the given power (noncentral t).

    nan where there is no spread to judge by: an sd of zero among a few coarse scores does not mean that n sees all.
    """
    if n < 2 or not sd > 0:
        return math.nan
    critical = stats.t.ppf(1 - (alpha / 2 if two_sided else alpha), n - 1)
    shift = optimize.brentq(lambda nc: stats.nct.sf(critical, n - 1, nc) - power, 0.0, 100 * critical)
    return float(shift * sd / math.sqrt(n))


def paired(
    differences, alternative: str = "two-sided", *, level: float = 0.95, alpha: float = 0.05, seed: int = 0
) -> Paired:
    """Everything said about one set of paired differences (one number per replicate, shape [n]).

    `level` is the intervals', `alpha` the test's that `detectable` is about.

    >>> result = paired([1.0, 2.0, 3.0], "greater")
    >>> round(result.mean, 2), round(result.sd, 2), round(result.p, 4)      # t = 2 / (1 / sqrt(3)) = 3.46, 2 df
    (2.0, 1.0, 0.0371)
    """
    values = _values(differences)
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    sd = _sd(values)
    dz = mean / sd if sd > 0 else math.nan
    two_sided = alternative == "two-sided"
    return Paired(
        n, mean, sd, dz, alternative, t_test_p(values, alternative), sign_flip_p(values, alternative, seed), level,
        t_interval(values, level), bootstrap_interval(values, level, seed=seed),
        detectable_effect(n, sd, alpha=alpha, two_sided=two_sided),
    )  # fmt: skip


def equivalence(differences, margin: float, *, alpha: float = 0.05) -> Equivalence:
    """Two one-sided t-tests (TOST): is the mean difference both above -margin and below +margin?

    p is the larger of the two p values, so `p <= alpha` exactly when the 1 - 2 alpha t interval lies inside the margin.
    `p_not_worse` is the lower of the two tests alone (non-inferiority). `detectable` is the smallest margin that would
    have passed with 80% power had the true difference been zero: (t[1-alpha] + t[0.9]) * sd / sqrt(n), the usual
    approximation.
    """
    if not margin > 0:
        raise ValueError("an equivalence margin must be positive and stated before looking")
    values = _values(differences)
    n = len(values)
    not_worse = t_test_p(values + margin, "greater")
    not_better = t_test_p(values - margin, "less")
    p = max(not_worse, not_better) if n > 1 else math.nan
    sd = _sd(values)
    detectable = math.nan
    if sd > 0:
        detectable = float((stats.t.ppf(1 - alpha, n - 1) + stats.t.ppf(0.9, n - 1)) * sd / math.sqrt(n))
    mean = float(values.mean()) if n else math.nan
    level = 1 - 2 * alpha
    return Equivalence(
        n, mean, sd, margin, p, not_worse, level, t_interval(values, level), bool(p <= alpha), detectable
    )


def holm(pvalues: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjusted p values, in the order given, shape [m].

    >>> [float(round(p, 3)) for p in holm([0.01, 0.04, 0.03])]      # 3 * 0.01; then 2 * 0.03; 0.04 may not fall below
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(pvalues, dtype=float)
    order = np.argsort(p, kind="stable")
    steps = (len(p) - np.arange(len(p))) * p[order]
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(p) else steps
    return adjusted
