"""Tests and intervals over replicates: pure functions on arrays of paired differences (verdicts are in `verdicts`).

A *replicate* is whatever was trained independently (for `seed_ensemble` a pool of teachers), and a *difference* is one
number per replicate: this arm minus that arm. All functions work in the unit of the differences they are given.

Which interval is the main one. With three to six replicates the bootstrap of a mean is too narrow: three values have
only ten distinct resamples, and the nominal 95% percentile interval covers the truth about three times in four. The
interval from Student's t is exact for normal differences at any n, so it is the one reported; the percentile bootstrap
and the exact sign-flip p stand beside it as a check that does not assume a shape. From ten replicates on `two_way_interval`
also counts the chance of the test items. Note what sign-flipping cannot do:
with n replicates its smallest one-sided p is 2**-n, which is 0.125 for n = 3.
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize, stats


@dataclass(frozen=True)
class Paired:
    """What `paired` found."""

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


def spread(values: np.ndarray) -> float:
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


def t_half(n: int, sd: float, level: float = 0.95) -> float:
    """Half the width of Student's interval of a mean of n values with this sample standard deviation."""
    return float(stats.t.ppf((1 + level) / 2, n - 1) * sd / math.sqrt(n))


def t_interval(differences, level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean: mean -+ t * sd / sqrt(n); (nan, nan) below two replicates."""
    values = _values(differences)
    if len(values) < 2:
        return (math.nan, math.nan)
    half = t_half(len(values), spread(values), level)
    return (float(values.mean() - half), float(values.mean() + half))


def beyond(n: int, distance: float, half: float, level: float = 0.9) -> float:
    """One-sided p that a mean lies beyond a bound: it is `distance` away from it, and its interval of this level reaches `half`
    as far towards it. For Student's interval this is the t-test's p. Where there is no spread, so that t would turn a coarse
    score into certainty, it is that of the exact sign-flip test, which n alone bounds; nan below two replicates.

    >>> differences = [1.0, 2.0, 3.0]
    >>> round(beyond(3, 2.0, 2.0 - t_interval(differences, 0.9)[0]), 6) == round(t_test_p(differences, "greater"), 6)
    True
    """
    if n < 2:
        return math.nan
    if half == 0:
        return max(2.0**-n, 1e-4) if distance > 0 else 1.0
    return float(stats.t.sf(stats.t.ppf((1 + level) / 2, n - 1) * distance / half, n - 1))


def bootstrap_interval(differences, level: float = 0.95, resamples: int = 4000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean, seeded; too narrow for small n (see the module's first lines)."""
    values = _values(differences)
    if len(values) < 2:
        return (math.nan, math.nan)
    picks = np.random.default_rng(seed).integers(0, len(values), size=(resamples, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return (float(low), float(high))


@cache
def _counts(size: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of `size` things is drawn in each resample, over `size`, [resamples, size]."""
    drawn = np.random.default_rng([seed, size]).integers(0, size, size=(resamples, size))
    drawn += size * np.arange(resamples)[:, None]
    return (np.bincount(drawn.ravel(), minlength=resamples * size) / size).reshape(resamples, size).astype(np.float32)


def two_way_interval(tables: Sequence[np.ndarray], level: float = 0.9, resamples: int = 1000,
                     seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean over replicates and test items, both drawn anew in every resample.

    tables: one per set of test items, [n replicates, N items], whose means are added up; all replicates answer the same items,
    and one draw of replicates serves all tables. It is a little wide where what is neither the replicate's nor the item's
    dominates, which errs on the careful side (Owen and Eckles 2012).
    """
    n = len(tables[0])
    if any(len(table) != n for table in tables):
        raise ValueError("all tables need the same replicates")
    rows, means = _counts(n, resamples, seed), 0.0
    for number, table in enumerate(tables):
        items = _counts(table.shape[1], resamples, seed + 1 + number)
        means = means + np.einsum("bn,bn->b", rows, items @ np.asarray(table, np.float32).T)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return (float(low), float(high))


def detectable_effect(n: int, sd: float, *, test: str = "greater", alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true mean that a one-sided t-test of n differences with this sd finds with the given power (noncentral t).

    For "not worse" the smallest margin that a true mean of zero passes, which is the same number; for "equal" the smallest
    margin that passes on both sides, (t[1 - alpha] + t[(1 + power) / 2]) * sd / sqrt(n), the usual approximation. nan where
    there is no spread to judge by: an sd of zero among a few coarse scores does not mean that n sees all.
    """
    if n < 2 or not sd > 0:
        return math.nan
    critical = stats.t.ppf(1 - alpha, n - 1)
    if test == "equal":
        return float((critical + stats.t.ppf((1 + power) / 2, n - 1)) * sd / math.sqrt(n))
    shift = optimize.brentq(lambda nc: stats.nct.sf(critical, n - 1, nc) - power, 0.0, 100 * critical)
    return float(shift * sd / math.sqrt(n))


def replicates_needed(sd: float, delta: float, test: str = "greater", alpha: float = 0.05, most: int = 9999) -> int | None:
    """The smallest n at which `detectable_effect` is at most delta; None without spread, or where `most` do not suffice.

    >>> replicates_needed(1.0, 1.0), replicates_needed(2.0, 1.0), replicates_needed(1.0, 1.0, "equal")
    (8, 27, 11)
    """
    def enough(n: int) -> bool:
        return detectable_effect(n, sd, test=test, alpha=alpha) <= delta

    return bisect.bisect_left(range(most), True, lo=2, key=enough) if sd > 0 and enough(most) else None


def paired(differences, alternative: str = "two-sided", *, level: float = 0.95, seed: int = 0) -> Paired:
    """Everything said about one set of paired differences (one number per replicate, shape [n]); level: of the intervals.

    >>> result = paired([1.0, 2.0, 3.0], "greater")
    >>> round(result.mean, 2), round(result.sd, 2), round(result.p, 4)      # t = 2 / (1 / sqrt(3)) = 3.46, 2 df
    (2.0, 1.0, 0.0371)
    """
    values = _values(differences)
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    sd = spread(values)
    dz = mean / sd if sd > 0 else math.nan
    return Paired(
        n, mean, sd, dz, alternative, t_test_p(values, alternative), sign_flip_p(values, alternative, seed), level,
        t_interval(values, level), bootstrap_interval(values, level, seed=seed),
    )  # fmt: skip


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
