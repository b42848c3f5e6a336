"""Claims that something *happens* (R1, R7): one setting of many is enough, so it is the evidence *for* that is corrected.

`verdicts.universal` is for claims about every setting. Here it is the other way round: "a stronger teacher can make a
weaker student" is shown by one pair of teachers, and refuted only if every pair goes the other way. Among twenty pairs
one looks like an inversion by chance; so a pair counts only after Holm's correction over all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import pandas as pd

from mtkd.evidence.frames import differences
from mtkd.evidence.stats import holm
from mtkd.evidence.verdicts import INCONCLUSIVE, MIN_REPLICATES, NOT_SUPPORTED, NOT_TESTED, SUPPORTED, Member, Verdict, examine

Rows = tuple[pd.DataFrame, pd.DataFrame]


def some(claim: str, parts: list[dict], groups: list[list[int]], *, test: str, alpha: float = 0.05, tier: str = "",
         note: str = "") -> Verdict:
    """The verdict on a claim that is true as soon as one of its parts is.

    parts: results of `verdicts.examine` with `p` (for) and `p_against` (that this part goes the other way). groups:
    positions of parts that are readings of one thing (the two directions of a pair); the claim is refuted only if in
    every group some part goes the other way, at alpha shared among the group's parts.

    supported      the smallest p is at most alpha after Holm's correction over all parts with 3 replicates or more
    not supported  every group goes the other way (all of them must, so no correction between groups is due)
    inconclusive   anything else
    """
    common = {"claim": claim, "tier": tier, "unit": "points", "members": len(parts), "test": test, "parts": tuple(parts)}
    if not any(part["n"] for part in parts):
        return Verdict(verdict=NOT_TESTED, note=note or "no data", **common)
    tested = [part for part in parts if part["n"] >= MIN_REPLICATES]
    for part, adjusted in zip(tested, holm([part["p"] for part in tested])):
        part["p_holm"] = float(adjusted)
    passed = [part for part in tested if part["p_holm"] <= alpha]
    chosen = min(tested or parts, key=lambda part: part["p"] if part in tested else -part["effect"])
    verdict, p = INCONCLUSIVE, chosen.get("p_holm")
    if passed:
        verdict = SUPPORTED
    elif len(tested) == len(parts):
        against = [min(parts[i]["p_against"] * len(group) for i in group) for group in groups]
        if max(against) <= alpha:
            verdict, p = NOT_SUPPORTED, max(against)
    if len(tested) < len(parts):
        note = f"{note}; fewer than {MIN_REPLICATES} repeats for {len(parts) - len(tested)} settings".removeprefix("; ")
    return Verdict(verdict=verdict, effect=chosen["effect"], p=p, n=chosen["n"], note=note, level=chosen["level"],
                   interval=chosen["interval"] if chosen["n"] > 1 else None, decided_by=chosen["label"],
                   detectable=chosen["detectable"] if chosen["n"] > 1 else None, passed=len(passed), **common)


def exists(claim: str, members: list[Member], *, words: str, alpha: float = 0.05, **options) -> Verdict:
    """`some` for plain differences, positive where the claim says so."""
    parts = [examine(member, alpha) for member in members]
    test = f"one-sided paired t-test over repeats in {words}, one must pass (alpha {alpha:g}, Holm-corrected; contradicted if "
    return some(claim, parts, [[i] for i in range(len(parts))], test=test + "all go the other way)", alpha=alpha, **options)


def inversion(label: str, stronger: Rows, weaker: Rows, alpha: float = 0.05) -> dict:
    """One ordered pair of teachers: is the first the better model, and the second the better teacher?

    stronger, weaker: a frame of the teacher's own rows and one of its students', of each. Both must hold, so the part's p is
    the larger of the two (an intersection-union test), and so is the p of the opposite: better model and better teacher.
    """
    (model_a, student_a), (model_b, student_b) = stronger, weaker
    model = examine(Member(label, differences(model_a, model_b, "repeat")), alpha)
    student = examine(Member(label, differences(student_b, student_a, "repeat")), alpha)
    p, p_against = (max(model["p"], student[name]) for name in ("p", "p_against"))
    return student | {"label": f"{label} (itself {model['effect']:+.1f})", "p": p, "p_against": p_against}


def inversions(
    teachers: pd.DataFrame, students: pd.DataFrame, names: Callable[[str], str], alpha: float = 0.05
) -> tuple[list[dict], list[list[int]]]:
    """R1's parts: every ordered pair of teachers per task and student, and which two parts are one pair.

    teachers, students: rows of the teachers and of the students of vanilla KD; names: function from a teacher's name to
    what a label calls it.
    """
    parts, groups = [], []
    for (task, student), mine in students.groupby(["task", "student"], sort=True):
        by = {names(t[0]): (teachers[(teachers["task"] == task) & (teachers["teachers"] == t)], rows)
              for t, rows in mine.groupby("teachers", sort=True)}  # fmt: skip
        for a, b in combinations(by, 2):
            groups.append([len(parts), len(parts) + 1])
            for x, y in ((a, b), (b, a)):
                words = f"{task}, {names(student)}: {x} the better model, {y} the better teacher"
                parts.append(inversion(words, by[x], by[y], alpha))
    return parts, groups
