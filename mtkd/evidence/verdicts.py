"""From tests to verdicts: what a claim about several settings, each with some replicates, may be called.

*On average*, the verdict: per replicate the mean over the settings that the paper's sentence names, one test over replicates,
one of five words (`word`). *As stated*: how many settings pass by themselves, for a sentence that says all of them. `judge`
makes both, `decide` corrects for having tested many claims. Nothing else here or in a table has a verdict's word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import pandas as pd

from mtkd.evidence.stats import beyond, holm, replicates_needed, spread, t_half, t_interval, two_way_interval

SUPPORTED, CONTRADICTED, NO_EFFECT = "supported", "contradicted", "no relevant effect"
OPEN, NOT_TESTABLE, NOT_TESTED = "open", "not testable", "not tested"
WEAKEST = (CONTRADICTED, NO_EFFECT, OPEN, NOT_TESTABLE, NOT_TESTED, SUPPORTED)  # of several parts the first counts
HOLDS, FAILS = "holds", "fails"
MIN_REPLICATES, TWO_WAY_FROM = 8, 10


@dataclass(frozen=True)
class Member:
    """One setting that a claim speaks of. differences: one per replicate, positive where the claim says so; a Series names its
    replicates. test: "greater" (the mean is above zero), "not worse" (above -delta) or "equal" (between -delta and delta).
    delta: the smallest effect of interest, in `unit`. items: what the differences are means of, by data set, [replicates,
    items] in points, items the same for all replicates. step: the least by which a difference can change (one test item). own:
    results that are not from a t-test. where: what the assay gate tells apart, its line for this setting. left_out: why it can
    show nothing."""

    label: str
    differences: Sequence[float] | pd.Series
    test: str = "greater"
    delta: float = 1.0
    unit: str = "points"
    items: Mapping[str, np.ndarray] | None = None
    step: float = 0.0
    part: str = ""
    own: Mapping[str, object] = field(default_factory=dict)
    where: tuple = ()
    left_out: str = ""

    def by_replicate(self) -> pd.Series:
        return pd.Series(self.differences, dtype=float).dropna()


@dataclass(frozen=True)
class Verdict:
    """What came out for one claim. effect, interval, delta, lowest and highest (over settings) are in `unit`; level is the
    interval's; needed: replicates that an open claim would need; tag: what belongs to the verdict's word. passed of members
    settings pass by themselves; p: for what is claimed, p_holm: the same among all claims of the tier; printed: the settings
    of the paper's own tables, which fail the sentence where one does; beside: averages over fair controls and exceptions,
    which take no part; lines: the averages that decide; parts: the settings."""

    claim: str
    verdict: str = OPEN
    tag: str = ""
    test: str = ""
    effect: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    p_against: float | None = None
    p_holm: float | None = None
    n: int = 0
    tier: str = ""
    unit: str = ""
    delta: float | None = None
    needed: int | None = None
    note: str = ""
    level: float = 0.9
    members: int = 0
    passed: int = 0
    as_stated: str = ""
    weaker: str = ""
    lowest: float | None = None
    highest: float | None = None
    left_out: tuple[str, ...] = ()
    printed: tuple[dict, ...] = field(default=(), repr=False)
    beside: tuple[dict, ...] = field(default=(), repr=False)
    lines: tuple[dict, ...] = field(default=(), repr=False)
    parts: tuple[dict, ...] = field(default=(), repr=False)

    @property
    def words(self) -> str:
        """The verdict with its tag, such as "supported, but below 1 point", or "not tested: too few"."""
        return (": " if self.verdict == NOT_TESTED else ", ").join(filter(None, [self.verdict, self.tag]))

    def brief(self) -> dict:
        """What a program wants to know first, JSON-safe."""
        names = ("tier", "verdict", "tag", "as_stated", "effect", "interval", "unit", "n", "p", "p_holm", "needed", "passed",
                 "members")
        fails = sum(setting["fails"] for setting in self.printed)
        found = {name: getattr(self, name) for name in names}
        return _json_safe(found | {"printed": len(self.printed), "printed_fails": fails})

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


# --- one setting, and the mean of several ---------------------------------------------------------------------------------


def examine(member: Member, alpha: float = 0.05, whole: bool = False) -> dict:
    """One result: n, effect, interval of level 1 - 2 alpha, sd, p for the claim and p_against it.

    With `whole`, as an average that decides: the sd is at least what the test items allow (the sampling error of the
    differences, or one item), so that a lucky agreement among few replicates decides nothing; and from `TWO_WAY_FROM`
    replicates on the interval is the wider one of Student's and the two-way bootstrap's. The p values follow the interval.
    """
    found = member.by_replicate()
    values, n, level = found.to_numpy(), len(found), 1 - 2 * alpha
    mean, sd = (float(values.mean()) if n else math.nan), spread(values)
    interval, by = t_interval(values, level), "Student's t"
    if whole and n > 1:
        least = member.step
        if member.items:
            least = math.sqrt(sum((table.var(axis=1) / table.shape[1]).mean() for table in member.items.values()))
        if least > sd:
            half, by = t_half(n, least, level), "Student's t with the sampling error of the test items for sd"
            interval = (mean - half, mean + half)
        if member.items and n >= TWO_WAY_FROM:
            both = two_way_interval(list(member.items.values()), level)
            if both[1] - both[0] > interval[1] - interval[0]:
                interval, by = both, "two-way bootstrap over replicates and test items"

    def above(bound: float) -> float:
        return beyond(n, mean - bound, mean - interval[0], level)

    def below(bound: float) -> float:
        return beyond(n, bound - mean, interval[1] - mean, level)

    d = member.delta
    if member.test == "equal":
        p, against = max(above(-d), below(d)), min(1.0, 2 * min(below(-d), above(d)))
    else:
        bound = 0.0 if member.test == "greater" else -d
        p, against = above(bound), below(bound)
    return {"label": member.label, "test": member.test, "delta": d, "unit": member.unit, "n": n, "effect": mean, "sd": sd,
            "interval": interval, "interval_by": by, "p": p, "p_against": against, "differences": values.tolist(),
            "part": member.part, "left_out": member.left_out} | dict(member.own)  # fmt: skip


def mean_of(members: Sequence[Member]) -> Member:
    """The mean over settings per replicate, of the replicates that all settings have, as one setting."""
    first, number = members[0], len(members)
    if number == 1:
        return first
    table = pd.concat([member.by_replicate() for member in members], axis=1, join="inner")
    items: dict[str, np.ndarray] | None = None
    if all(member.items for member in members):
        items = {}
        for member in members:
            rows = member.by_replicate().index.get_indexer(table.index)
            for name, found in member.items.items():
                items[name] = items.get(name, 0) + found[rows] / number
    return replace(first, label=f"mean of {number} settings", differences=table.mean(axis=1), items=items, own={},
                   delta=sum(m.delta for m in members) / number, step=sum(m.step for m in members) / number**2)


# --- a claim --------------------------------------------------------------------------------------------------------------


def judge(claim: str, members: Sequence[Member], *, holds: str = "every", alpha: float = 0.05, replicate: str = "repeat",
          beside: Mapping[str, Sequence[Member]] | None = None, required: Sequence[str] = (), **known) -> Verdict:
    """The verdict on a claim that says something of `every` one of its settings, or that `some` setting shows something.

    every   The settings are averaged per replicate (`mean_of`) and tested once. A sentence of several statements (parts, tests
            or units: "better, and three times as fast") has an average of each and needs all of them: its p is the largest,
            and of several words the weakest counts (`WEAKEST`).
    some    The setting with the strongest evidence after Holm's correction over settings decides; contradicted where every one
            goes the other way.

    Settings that can show nothing (`left_out`), and those without data, are out of the mean and listed. required: parts of the
    sentence without data, which keep it from "supported". As stated, the sentence holds where every setting passes by itself
    (an intersection-union test, so without correction), fails where one goes the other way after Holm's correction over
    settings, and is open otherwise; for `some` the other way round. The words are `word`'s, for this claim alone: `decide`
    corrects them for the other claims of its tier. known: other fields of the verdict.
    """
    usable = [m for m in members if not m.left_out and len(m.by_replicate())]
    parts = [examine(m, alpha) for m in members]
    live = [part for part in parts if not part["left_out"] and part["n"]]
    out = [part["left_out"] or f"{part['label']}: no data" for part in parts if part["left_out"] or not part["n"]]
    gated = "; ".join(part["left_out"] for part in parts if part["left_out"])
    if holds == "some":
        lines = [strongest([examine(m, alpha, whole=True) for m in usable])] if usable else []
    else:
        of = {(m.part, m.test, m.unit): [] for m in members}
        for m in usable:
            of[m.part, m.test, m.unit].append(m)
        lines = [examine(mean_of(found) if found else Member(part, [], left_out=gated), alpha, whole=True)
                 for (part, _, _), found in of.items()]
    lines += [examine(Member(part, []), alpha) for part in required]
    whole = bool(lines) and all(line["n"] >= MIN_REPLICATES for line in lines)
    means = [(name, examine(mean_of(found), alpha, whole=True), [m.by_replicate().mean() for m in found])
             for name, found in (beside or {}).items() if found]
    verdict = Verdict(
        claim, parts=tuple(parts), lines=tuple(lines), left_out=tuple(dict.fromkeys(out)), members=len(live),
        level=1 - 2 * alpha, test=_test_words(lines, live, f"{replicate}s", holds),
        p=max(line["p"] for line in lines) if whole else None,
        p_against=min(1.0, len(lines) * min(line["p_against"] for line in lines)) if whole else None,
        lowest=min((part["effect"] for part in live), default=None),
        highest=max((part["effect"] for part in live), default=None),
        beside=tuple({"label": name, "members": len(every), "lowest": min(every), "highest": max(every)}
                     | {key: line[key] for key in ("n", "effect", "interval", "unit")} for name, line, every in means),
        **_as_stated(live, holds, alpha, bool(out or required)), **known)  # fmt: skip
    return decide([verdict], alpha=alpha)[0]


def strongest(parts: Sequence[dict]) -> dict:
    """What decides a claim that some setting shows something: the part with the smallest p, after Holm's correction over
    settings, or over groups of readings that exclude each other. upper: what no setting's interval exceeds."""
    first = one_reading(parts)
    best = min(first, key=lambda part: part["p"])
    return best | best.get("shown", {}) | {
        "p": float(min(holm([part["p"] for part in first]))), "n": min(part["n"] for part in parts), "among": len(first),
        "p_against": max(part["p_against"] for part in first),
        "upper": max(part.get("upper", part["interval"][1]) for part in parts)}


def one_reading(parts: Sequence[dict]) -> list[dict]:
    """Of parts with the same "group", which exclude each other, the one with the smallest p, and the smallest p against."""
    groups: dict[object, list[dict]] = {}
    for number, part in enumerate(parts):
        groups.setdefault(part.get("group", number), []).append(part)
    return [min(found, key=lambda part: part["p"]) | {"p_against": min(part["p_against"] for part in found)}
            for found in groups.values()]


def _as_stated(live: Sequence[dict], holds: str, alpha: float, gaps: bool) -> dict:
    """as_stated and passed of a verdict: see `judge`."""
    live = one_reading(live) if holds == "some" else live
    tested = [part for part in live if part["n"] >= MIN_REPLICATES]
    if not tested:
        return {"as_stated": NOT_TESTED, "passed": 0}
    one, all_of = ("p_against", "p") if holds == "every" else ("p", "p_against")
    some = holm([part[one] for part in tested]) <= alpha
    every = [part[all_of] <= alpha for part in tested]
    whole = all(every) and len(tested) == len(live) and not gaps
    says = {(False, True): HOLDS, (True, False): FAILS}.get((bool(some.any()), whole), OPEN)
    if holds == "every":
        return {"as_stated": says, "passed": sum(every)}
    return {"as_stated": {HOLDS: FAILS, FAILS: HOLDS}.get(says, says), "passed": int(some.sum())}


def _test_words(lines: Sequence[dict], live: Sequence[dict], replicates: str, holds: str) -> str:
    words = []
    for line in (line for line in lines if line["n"]):
        test = {"greater": "one-sided paired t-test", "not worse": f"one-sided paired t-test above -{line['delta']:g}",
                "equal": f"two one-sided paired t-tests within ±{line['delta']:g}"}[line["test"]]
        what = line["label"] if holds == "every" else f"strongest of {len(live)} settings, Holm"
        words.append(f"{test} over {replicates}, {what}; interval: {line['interval_by']}")
    return "; and ".join(words)


# --- words ----------------------------------------------------------------------------------------------------------------


def word(line: dict, shown: bool, against: bool) -> str:
    """What one average is called. shown, against: whether the claim's p, and the p against it, survive Holm's correction. [lo,
    hi] is the average's interval and delta the smallest effect of interest.

                            greater                    not worse                  equal
    supported               lo > 0, and shown          lo > -delta, and shown     -delta < lo and hi < delta, and shown
    contradicted            hi < 0, and against        hi < -delta, and against   beyond delta on one side, and against
    no relevant effect      hi < delta otherwise       (it is worse, or open)     (it is different, or open)
    open                    the rest                   the rest                   the rest
    not testable            no setting passes the assay gate
    not tested              fewer than `MIN_REPLICATES` replicates, or none

    So of a non-inferiority claim "not worse" is supported and "worse" contradicted, of an equivalence claim "equal" is
    supported and "different" contradicted, and neither knows "no relevant effect": that is what they claim.
    """
    if line["n"] < MIN_REPLICATES:
        return NOT_TESTABLE if line["left_out"] else NOT_TESTED
    if shown:
        return SUPPORTED
    if against:
        return CONTRADICTED
    return NO_EFFECT if line["test"] == "greater" and line.get("upper", line["interval"][1]) < line["delta"] else OPEN


def decide(verdicts: Sequence[Verdict], family: int = 0, alpha: float = 0.05) -> list[Verdict]:
    """The verdicts of one tier with their words: Holm's correction runs over all of them, once for "supported" and once for
    "contradicted"; over `family` claims if that is more, of which those that are not here count as p = 1."""
    family = max(family, len(verdicts))
    shown, against = ([float(p) for p in holm([1.0 if getattr(v, name) is None else getattr(v, name) for v in verdicts]
                                              + [1.0] * (family - len(verdicts)))] for name in ("p", "p_against"))
    return [_worded(v, p, p <= alpha, q <= alpha, alpha, family) if v.lines else
            replace(v, verdict=NOT_TESTABLE if any(part["left_out"] for part in v.parts) else NOT_TESTED, tag="" if v.parts else
                    "no data")
            for v, p, q in zip(verdicts, shown, against)]


def _needed(line: dict, alpha: float, level: float, family: int) -> int | None:
    """Replicates that would decide an open average with power 0.8, at its sd: those that see an effect of delta; where there
    are as many already, it lies near a bound, and those that see how far it is from the bounds. An effect, or equality, has to
    be shown at the level of Holm's first step."""
    (low, high), d, e = line["interval"], line["delta"], line["effect"]
    sd, strict = (high - low) / 2 / t_half(line["n"], 1.0, level), alpha / max(family, 1) / line.get("among", 1)
    if (planned := replicates_needed(sd, d, line["test"], alpha)) is None or planned > line["n"]:
        return max(planned, MIN_REPLICATES) if planned else None
    ways = {"greater": [(e, strict), (-e, strict), (d - e, alpha)], "not worse": [(e + d, strict), (-d - e, strict)],
            "equal": [(d - abs(e), strict), (abs(e) - d, strict)]}[line["test"]]
    counts = [replicates_needed(sd, apart, "greater", level) for apart, level in ways if apart > 0]
    return max(line["n"] + 1, min((count for count in counts if count), default=0))


def _worded(v: Verdict, p_holm: float, shown: bool, against: bool, alpha: float, family: int) -> Verdict:
    several = len(v.lines) > 1  # of which one may be shown and the claim not: then after Bonferroni's correction
    words = [word(line, shown or (several and family * line["p"] <= alpha), against and line["p_against"] <= alpha)
             for line in v.lines]
    verdict = min(words, key=WEAKEST.index)
    line = max((line for line, said in zip(v.lines, words) if said == verdict), key=lambda line: (line["p"], -line["n"]))
    (low, high), delta, tag, needed = line["interval"], line["delta"], "", None
    small = f"below {delta:g} {line['unit'].removesuffix('s') if delta == 1 else line['unit']}"
    if line["test"] == "greater":
        tag = f"but {small}" if verdict == SUPPORTED and high < delta else tag
        tag = f"but by {small}" if verdict == CONTRADICTED and low > -delta else tag
    if verdict == NOT_TESTED:
        tag = "too few" if line["n"] else f"no data for {line['label']}" if line["label"] else "no data"
    if verdict in (OPEN, NOT_TESTED) and line["n"] > 1:
        needed = _needed(line, alpha, v.level, family)
    return replace(v, verdict=verdict, tag=tag, needed=needed, effect=line["effect"] if line["n"] else None, n=line["n"],
                   interval=line["interval"] if line["n"] > 1 else None, delta=delta, unit=line["unit"],
                   p_holm=p_holm if v.p is not None else None)
