"""From tests to verdicts: what a claim about several settings, each with a few replicates, may be called.

A verdict is one of "supported", "not supported", "inconclusive" and "not tested". It always says which test, effect,
interval and n it stands on, and it never rests on fewer than three replicates; `judge` states the rules.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from mtkd.evidence.stats import equivalence, holm, paired, t_interval, t_test_p

SUPPORTED, NOT_SUPPORTED = "supported", "not supported"
INCONCLUSIVE, NOT_TESTED = "inconclusive", "not tested"
MIN_REPLICATES = 3  # fewer than this never gives more than "inconclusive"


@dataclass(frozen=True)
class Member:
    """One setting that a claim speaks of: its differences, [n replicates], positive where the claim says so.

    margin None: the claim is that the mean is above zero. A margin: that it lies within -margin .. +margin, and
    `bad` says which side beyond the margin would contradict it ("lower", or "both"). A margin with `or_better`: that the
    mean is above -margin, however far (non-inferiority).
    """

    label: str
    differences: Sequence[float]
    margin: float | None = None
    bad: str = "lower"
    or_better: bool = False


@dataclass(frozen=True)
class Verdict:
    """What came out for one claim. effect, interval, margin and detectable are in `unit`; `level` is the interval's."""

    claim: str
    verdict: str
    test: str = ""
    effect: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    n: int = 0
    tier: str = ""
    unit: str = ""
    margin: float | None = None
    detectable: float | None = None
    note: str = ""
    level: float = 0.9
    decided_by: str = ""
    members: int = 0
    passed: int = 0
    parts: tuple[dict, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict:
        """JSON-safe dictionary: tuples become lists, and numbers that are not finite become null."""
        return _json_safe(asdict(self))


def _json_safe(value):
    if isinstance(value, dict):
        return {key: _json_safe(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_json_safe(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def examine(member: Member, alpha: float = 0.05) -> dict:
    """One setting's result: p for the claim, p_against (before Holm), effect, interval, n, sd, detectable ..."""
    values = np.asarray(member.differences, dtype=float)
    part = {"label": member.label, "margin": member.margin, "n": len(values)}
    if member.margin is None:
        result = paired(values, "greater", level=1 - 2 * alpha, alpha=alpha)
        part |= {"kind": "superiority", "p_sign_flip": result.p_sign_flip, "bootstrap": result.bootstrap}
        part |= {"dz": result.dz, "p_against": t_test_p(values, "less")}
    else:
        result = equivalence(values, member.margin, alpha=alpha)
        worse, better = t_test_p(values + member.margin, "less"), t_test_p(values - member.margin, "greater")
        against = worse if member.bad == "lower" else min(1.0, 2 * min(worse, better))
        part |= {"kind": "equivalence", "p_not_worse": result.p_not_worse, "p_better": better, "p_against": against}
        if member.or_better:
            part |= {"kind": "non-inferiority", "p_against": worse}
    p = result.p_not_worse if part["kind"] == "non-inferiority" else result.p
    part |= {"p": p, "effect": result.mean, "sd": result.sd, "level": result.level}
    part |= {"interval_95": t_interval(values), "differences": values.tolist()}
    return part | {"interval": result.interval, "detectable": result.detectable}


def judge(
    claim: str, parts: Sequence[dict], *, holds: str = "every", alpha: float = 0.05, tier: str = "", unit: str = "points",
    note: str = "", replicate: str = "repeat", test: str = "",
) -> Verdict:  # fmt: skip
    """The verdict on a claim that says something of `every` one of its settings, or that `some` setting shows something.

    parts: results of `examine`. For "every" (an intersection-union test):

    supported      every part passes its own test at alpha: the one-sided paired t-test for superiority, both one-sided t-tests
                   (TOST) for equivalence, the lower one alone for non-inferiority. No correction is due: the claim's null
                   hypothesis is that at least one part fails, and calling all of them good when that one is not has a chance
                   of at most alpha, whichever it is. The claim's p is the largest of the parts.
    not supported  some part goes significantly the other way after Holm's correction over all parts: its mean is below zero
                   (superiority), or beyond the margin on the bad side (equivalence). Correction *is* due here, since one such
                   part among many suffices. Being beyond the margin on the good side does not contradict an equivalence claim
                   whose members say bad = "lower"; it only keeps it from "supported".
    inconclusive   anything else; in particular a part with fewer than three replicates is not tested, which rules out
                   "supported".
    not tested     there are no differences at all.

    "some" is the mirror image: supported where one part passes after Holm's correction; not supported where every part goes
    the other way. Parts with the same "group" are readings of one thing (the two directions of a pair), of which one must go
    the other way, at alpha shared among them.

    Effect, interval, n and detectable are those of the part that decides: the one with the strongest evidence against the claim
    if not supported, else the one with the weakest evidence for it (for "some": the strongest). The interval has level
    1 - 2 alpha (90%), the one that matches one-sided tests: it lies above zero, or within the margin, exactly when the part's
    p is at most alpha. The 95% interval is in `parts`.
    """
    parts = list(parts)
    seen, tested = ([part for part in parts if part["n"] >= least] for least in (1, MIN_REPLICATES))
    whole, one = ("p", "p_against") if holds == "every" else ("p_against", "p")
    for part, adjusted in zip(tested, holm([part[one] for part in tested])):
        part[f"{one}_holm"] = float(adjusted)
    passed = sum(part["p" if holds == "every" else "p_holm"] <= alpha for part in tested)
    common = {"claim": claim, "tier": tier, "unit": unit, "members": len(parts), "passed": passed, "parts": tuple(parts),
              "test": test or _test_words(parts, alpha, f"{replicate}s", holds)}
    if not seen:
        return Verdict(verdict=NOT_TESTED, note=note or "no data", **common)
    hit = min(tested, key=lambda part: part[one], default=None)  # the one that decides by itself, if any does
    yes, no = (SUPPORTED, NOT_SUPPORTED) if holds == "every" else (NOT_SUPPORTED, SUPPORTED)
    verdict, p = INCONCLUSIVE, None
    if hit and hit[f"{one}_holm"] <= alpha:
        verdict, chosen, p = no, hit, hit[f"{one}_holm"]
    elif not tested:
        chosen = min(seen, key=lambda part: part["effect"]) if holds == "every" else max(seen, key=lambda part: part["effect"])
    else:
        chosen = max(tested, key=lambda part: part["p"]) if holds == "every" else hit
        p = chosen["p"] if holds == "every" else chosen["p_holm"]
        if len(tested) == len(parts):
            worst = max(_by_group(parts, whole))
            if worst <= alpha:
                verdict, p = yes, worst
        elif holds == "every":
            p = None
    short = [part["label"] for part in parts if part["n"] < MIN_REPLICATES]
    if short:
        listed = "; ".join(short[:3]) + (f" and {len(short) - 3} more" if len(short) > 3 else "")
        note = f"{note}; fewer than {MIN_REPLICATES} {replicate}s for: {listed}".removeprefix("; ")
    return Verdict(verdict=verdict, effect=chosen["effect"], p=p, n=chosen["n"], margin=chosen["margin"], note=note,
                   interval=chosen["interval"] if chosen["n"] > 1 else None, level=chosen["level"],
                   detectable=chosen["detectable"] if chosen["n"] > 1 else None, decided_by=chosen["label"], **common)


def _by_group(parts: list[dict], name: str) -> list[float]:
    """A p value per group of parts: the smallest, times the number of parts; of a part without a group its own."""
    groups: dict[object, list[float]] = {}
    for number, part in enumerate(parts):
        groups.setdefault(part.get("group", f"part {number}"), []).append(part[name])
    return [min(found) * len(found) for found in groups.values()]


def _test_words(parts: list[dict], alpha: float, replicates: str, holds: str) -> str:
    def margins(kind: str) -> list[str]:
        return [f"{margin:g}" for margin in sorted({part["margin"] for part in parts if part["kind"] == kind})]

    kinds, words = {part["kind"] for part in parts}, []
    if "superiority" in kinds:
        words.append(f"one-sided paired t-test over {replicates}")
    if "equivalence" in kinds:
        words.append("two one-sided t-tests within ±" + " or ±".join(margins("equivalence")))
    if "non-inferiority" in kinds:
        words.append("one-sided t-test above -" + " or -".join(margins("non-inferiority")))
    if not words:
        return ""
    rule = "all must pass" if holds == "every" else "one must pass"
    many = f" in each of {len(parts)} settings, {rule}" if len(parts) > 1 else ""
    end = "contradiction Holm-corrected" if holds == "every" else "Holm-corrected; contradicted if all go the other way"
    return f"{' and '.join(words)}{many} (alpha {alpha:g}; {end})"


def universal(claim: str, members: Sequence[Member], *, alpha: float = 0.05, replicate: str = "replicates",
              **options) -> Verdict:
    """`judge` for a claim about every one of some members that were not examined yet."""
    return judge(claim, [examine(member, alpha) for member in members], alpha=alpha, replicate=replicate.removesuffix("s"),
                 unit=options.pop("unit", ""), **options)
