"""R5 and R6 with care: the paper's own t-test, a paired one with its effect size, and a test of equal spread.

"The variance of our approach is similar" is a claim of equivalence, and an equivalence needs a margin: here a ratio of
standard deviations between 1/2 and 2, stated before any run. Runs of one repeat share their seeds, so the two samples are
paired, and the test is that of Pitman and Morgan: where X and Y have equal variances X + Y and X - Y do not correlate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from mtkd.evidence.stats import holm
from mtkd.evidence.verdicts import INCONCLUSIVE, MIN_REPLICATES, NOT_SUPPORTED, NOT_TESTED, SUPPORTED, Verdict

RATIO = 2.0  # standard deviations within this factor of each other count as alike


@dataclass(frozen=True)
class Compared:
    """Two samples of runs: theirs is the rival's. p_two_sample is the paper's test, p_paired and dz the better one."""

    n: int
    mean: float
    p_two_sample: float
    p_paired: float
    dz: float


def compared(ours, theirs) -> Compared:
    """Two-sided tests that the means of two samples of equal length differ, the samples being paired position by position.

    The two-sample test (Student's, equal variances) is the paper's. dz is the mean difference in standard deviations of
    the differences. nan where there are fewer than two, or no spread.

    >>> found = compared([3.0, 5.0, 7.0], [2.0, 4.5, 5.5])      # the differences are 1, 0.5 and 1.5
    >>> round(found.p_two_sample, 3), round(found.p_paired, 3), round(found.dz, 2)
    (0.555, 0.074, 2.0)
    """
    x, y = np.asarray(ours, float), np.asarray(theirs, float)
    d = x - y
    if len(d) < 2 or np.ptp(x) == np.ptp(y) == 0:
        return Compared(len(d), float(d.mean()) if len(d) else math.nan, math.nan, math.nan, math.nan)
    spread = d.std(ddof=1)
    paired = float(stats.ttest_1samp(d, 0.0).pvalue) if spread > 1e-12 else math.nan
    return Compared(len(d), float(d.mean()), float(stats.ttest_ind(x, y).pvalue), paired,
                    float(d.mean() / spread) if spread > 1e-12 else math.nan)


def spread_test(ours, theirs, ratio: float = RATIO, alpha: float = 0.05) -> dict:
    """Are two paired samples' standard deviations within a factor `ratio` of each other (Pitman and Morgan, one-sided twice)?

    effect: log2 of ours / theirs; interval: of level 1 - 2 alpha, on the same scale; p: for "within the factor"; p_against:
    for "ours is larger by more than the factor". All nan below three pairs or where a sample has no spread. Five pairs
    are few for a variance:

    >>> found = spread_test([71.0, 73, 75, 74, 72], [72.0, 73.5, 75.5, 73, 71])
    >>> [round(float(2**x), 2) for x in (found["effect"], *found["interval"])]
    [0.93, 0.47, 1.85]
    """
    x, y = np.asarray(ours, float), np.asarray(theirs, float)
    n, nothing = len(x), {"effect": math.nan, "interval": (math.nan, math.nan), "p": math.nan, "p_against": math.nan}
    if n < MIN_REPLICATES or np.ptp(x) == 0 or np.ptp(y) == 0:
        return {"n": n, **nothing}
    effect = math.log2(x.std(ddof=1) / y.std(ddof=1))
    above = _larger(x, y, 1 / ratio)                                    # evidence that the ratio is above 1 / factor
    p_against = _larger(x, y, ratio)
    r2 = float(np.corrcoef(x, y)[0, 1] ** 2)
    k = 1 + 2 * (1 - r2) * stats.t.ppf(1 - alpha, n - 2) ** 2 / (n - 2)
    half = 0.5 * math.log2(k + math.sqrt(k * k - 1))                    # of the log2 of a ratio of standard deviations
    return {"n": n, "effect": effect, "interval": (effect - half, effect + half), "p": max(above, 1 - p_against),
            "p_against": p_against}


def _larger(x: np.ndarray, y: np.ndarray, factor: float) -> float:
    """One-sided p of "the standard deviation of x is more than `factor` times that of y"."""
    x = x / factor
    r = np.corrcoef(x + y, x - y)[0, 1]
    return float(stats.t.sf(r * math.sqrt((len(x) - 2) / max(1e-15, 1 - r * r)), len(x) - 2))


def alike(claim: str, pairs: list[tuple[str, pd.Series, pd.Series]], *, ratio: float = RATIO, alpha: float = 0.05,
          tier: str = "", note: str = "") -> Verdict:
    """The verdict on R6: every pair (label, our scores by repeat, the rival's by repeat) has spreads within the ratio.

    supported: each pair passes its test at alpha; not supported: in some pair ours is larger by more than the factor,
    after Holm's correction; else inconclusive. Effects are in doublings of the standard deviation.
    """
    parts = []
    for label, ours, theirs in pairs:
        both = pd.concat([ours, theirs], axis=1, join="inner").dropna()
        found = spread_test(100 * both.iloc[:, 0], 100 * both.iloc[:, 1], ratio, alpha)
        parts.append({"label": label, "margin": math.log2(ratio), "kind": "equal spread", "level": 1 - 2 * alpha, **found})
    test = f"two one-sided tests of Pitman and Morgan: standard deviations over repeats within a factor {ratio:g}"
    test += f" (alpha {alpha:g}; contradiction Holm-corrected)"
    common = {"claim": claim, "tier": tier, "unit": "doublings of the standard deviation", "margin": math.log2(ratio),
              "members": len(parts), "test": test, "parts": tuple(parts), "level": 1 - 2 * alpha}
    if not any(part["n"] for part in parts):
        return Verdict(verdict=NOT_TESTED, note=note or "no data", **common)
    tested = [part for part in parts if not math.isnan(part["p"])]
    if len(tested) < len(parts):
        note = f"{note}; fewer than {MIN_REPLICATES} repeats, or no spread at all, in some pair".removeprefix("; ")
    if not tested:
        return Verdict(verdict=INCONCLUSIVE, n=max(part["n"] for part in parts), note=note, **common)
    for part, adjusted in zip(tested, holm([part["p_against"] for part in tested])):
        part["p_against_holm"] = float(adjusted)
    worst = min(tested, key=lambda part: part["p_against_holm"])
    passed = sum(part["p"] <= alpha for part in tested)
    if worst["p_against_holm"] <= alpha:
        verdict, chosen, p = NOT_SUPPORTED, worst, worst["p_against_holm"]
    else:
        chosen = max(tested, key=lambda part: part["p"])
        verdict, p = SUPPORTED if passed == len(parts) else INCONCLUSIVE, chosen["p"]
    return Verdict(verdict=verdict, effect=chosen["effect"], interval=chosen["interval"], p=p, n=chosen["n"], note=note,
                   decided_by=chosen["label"], passed=passed, **common)
