"""Is a run what the committed one was? Row by row and field by field, and against the spread of its replicates.

    found = compare(record, twin, replicates)     # twin: the committed record of the same parameters
    found.words                                   # "the same: 74 rows, every score and every item", or what differs

Two machines need not agree in the last bit, and one item more or less moves a score. So a score that differs is set against
the other replicates of the same row: it lies within their spread where it is inside the 99% prediction interval for one more
of them, which new seeds and another training subset would leave once in a hundred times.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from mtkd.runs.records import VOLATILE

OUTCOMES = ("score", "validation", "metrics", "right", "one_answer", "ece", "agreement", "seconds", "folder")
REPLICATE = ("repeat", "repeats", "pool", "pools")  # what parts two replicates of one cell, in rows and in parameters
LEVEL = 0.99


@dataclass
class Comparison:
    """What a run and its committed twin have in common. rows: how many; other: fields that differ and are no outcome, by row;
    scores: (what the row is of, ours, theirs, whether ours lies within the replicates' spread) where scores differ; items: in
    how many rows other items were right though the score is the same."""

    paper: str
    rows: int
    n: int
    other: list[str] = field(default_factory=list)
    scores: list[tuple[str, float, float, bool]] = field(default_factory=list)
    items: int = 0

    @property
    def verdict(self) -> str:
        """the same | within the spread | different"""
        if self.other or not all(within for *_, within in self.scores):
            return "different"
        return "within the spread" if self.scores or self.items else "the same"

    @property
    def words(self) -> str:
        """One sentence: the verdict and what it rests on."""
        if self.verdict == "the same":
            return f"the same as the committed record: {self.rows} rows, every score and every item."
        if self.other:
            return f"different from the committed record in {self.other[0]}" + (
                f" and {len(self.other) - 1} more." if len(self.other) > 1 else ".")
        if not self.scores:
            return f"the same scores as the committed record in all {self.rows} rows; in {self.items} other items are right."
        far = [entry for entry in self.scores if not entry[3]]
        what, ours, theirs, _ = max(far or self.scores, key=lambda entry: abs(entry[1] - entry[2]))
        most = f"{100 * ours:.2f} and not {100 * theirs:.2f} for {what}"
        if far:
            return f"outside the spread of {self.n} replicates in {len(far)} of {self.rows} rows; most in {most}."
        return f"within the spread of {self.n} replicates: {len(self.scores)} of {self.rows} rows differ, most in {most}."


def alike(parameters: dict) -> str:
    """What the replicates of one cell have in common: its parameters without the list of replicates."""
    return json.dumps({k: v for k, v in parameters.items() if k not in REPLICATE}, sort_keys=True)


def twin_of(record: dict, committed: Iterable[dict]) -> dict | None:
    """The committed record with the same parameters; None where there is none."""
    return next((r for r in committed if (r["paper"], r["parameters"]) == (record["paper"], record["parameters"])), None)


def fields_of(row: dict) -> dict:
    """What says which row it is: all but its outcomes, its replicate, and what differs from run to run."""
    return {k: v for k, v in row.items() if k not in (*OUTCOMES, *REPLICATE, *VOLATILE)}


def name_of(row: dict) -> str:
    words = [str(row[k]) for k in ("arm", "task", "kind", "method", "variant", "model") if row.get(k) not in (None, "")]
    return ", ".join(dict.fromkeys(words))


def within(value: float, others: list[float]) -> bool:
    """Whether one more replicate may well be this one: inside the 99% prediction interval of the others; of fewer than three
    nothing can be said, and nothing is.

    >>> within(0.62, [0.60, 0.61, 0.63, 0.62]), within(0.70, [0.60, 0.61, 0.63, 0.62]), within(0.9, [0.1])
    (True, False, True)
    """
    n = len(others)
    if n < 3:
        return True
    reach = stats.t.ppf((1 + LEVEL) / 2, n - 1) * np.std(others, ddof=1) * math.sqrt(1 + 1 / n)
    return bool(abs(value - np.mean(others)) <= reach + 1e-9)


def compare(record: dict, twin: dict, committed: Iterable[dict]) -> Comparison:
    """A record beside its committed twin; `committed`: all records of its paper, of which the twin's replicates count."""
    others = [r for r in committed if r["paper"] == twin["paper"] and alike(r["parameters"]) == alike(twin["parameters"])]
    found = Comparison(record["paper"], len(record["rows"]), len(others))
    if len(record["rows"]) != len(twin["rows"]):
        found.other.append(f"the number of rows, {len(record['rows'])} and not {len(twin['rows'])}")
        return found
    for at, (ours, theirs) in enumerate(zip(record["rows"], twin["rows"])):
        mine, known = fields_of(ours), fields_of(theirs)
        if differs := [k for k in {**mine, **known} if mine.get(k) != known.get(k)]:
            what = f"{differs[0]}: {mine.get(differs[0])} and not {known.get(differs[0])}"
            found.other.append(f"row {at} ({name_of(theirs)}), {what}")
        elif ours["score"] != theirs["score"]:
            spread = [r["rows"][at]["score"] for r in others if len(r["rows"]) == len(twin["rows"])]
            found.scores.append((name_of(ours), ours["score"], theirs["score"], within(ours["score"], spread)))
        elif ours.get("right") != theirs.get("right"):
            found.items += 1
    return found
