"""Teachers that are tables: logits, probabilities or bare answers, by sample.

    id,bad,good            id,label          text,label               the second and third hold what a large model answered
    7,-2.1,3.4             7,good            "two hours lost",bad

Rows are found by `id`, or without that column by `text` (and `text_pair`). One column per class, by its name whatever the case
and order, or numbered ("0", "logit_1"); or one column `label` with the name or the number of the answer. Whatever is read as
something else than logits is said in a warning.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtkd.data.files import rows
from mtkd.data.splits import content_hash
from mtkd.errors import KitError

SURE = 0.9       # probability of an answer that comes without one
LEAST = 1e-4     # probability that stands for 0, whose logarithm no model can learn
SCALES = {1: "probabilities", 100: "percentages"}


@dataclass(frozen=True)
class Layout:
    """The columns of a table that are read: what rows are found by, and what holds the answers (one per class, or `label`)."""

    keys: tuple[str, ...]
    answers: tuple[str, ...]
    bare: bool = False


def layout(there: Sequence[str], classes: Sequence[str], name: str) -> Layout:
    """Which of the columns are read. KitError where that would be a guess."""
    keys = ("id",) if "id" in there else tuple(c for c in ("text", "text_pair") if c in there)
    if not keys or keys[0] == "text_pair":
        raise KitError(f"{name} has no column 'id' (or 'text'); it has {', '.join(there)}.")
    names = [c for c in there if c not in keys]
    if not classes:
        names = ["label"] if "label" in names else names
        if len(names) != 1:
            raise KitError(f"{name} has the columns {', '.join(names)}: a table for a regression has one beside the id.")
        return Layout(keys, tuple(names))
    lower = [c.strip().casefold() for c in names]
    found = [lower.index(c.strip().casefold()) if c not in names else names.index(c) for c in classes
             if c in names or lower.count(c.strip().casefold()) == 1]
    if len(set(found)) == len(classes):
        return Layout(keys, tuple(names[i] for i in found))
    if "label" in names:
        return Layout(keys, ("label",), bare=True)
    if [re.search(r"\d*$", c)[0] for c in names] == [str(i) for i in range(len(classes))]:
        return Layout(keys, tuple(names))
    raise KitError(f"{name} has the columns {', '.join(names)}, and the task's classes are {', '.join(classes)}: name its "
                   f"columns like them, or number them from 0 to {len(classes) - 1} in the classes' order; bare answers stand "
                   "in a column label.")


def header(path: Path) -> list[str]:
    """The names of a table's columns."""
    seen: list[str] = []
    next(rows(path, lambda there: seen.extend(there) or [None]), None)
    return seen


def read_table(path: Path, classes: tuple[str, ...]) -> tuple[bool, list[str], np.ndarray]:
    """Whether rows are found by text instead of id, their ids (hashes of texts), and logits, float32 [n, C].

    KitError for a table that cannot be read, lacks columns, holds anything but finite numbers (or known answers), or gives two
    different answers for one id.
    """
    plan = layout(header(path), classes, path.name)
    found = list(rows(path, lambda there: [*plan.keys, *plan.answers]))
    by_text, width = plan.keys[0] != "id", len(plan.keys)
    ids = [content_hash(*map(str, row[:width])) if by_text else str(row[0]) for row in found]
    first: dict[str, tuple] = {}
    for number, (i, row) in enumerate(zip(ids, found), start=1):
        if first.setdefault(i, row[width:]) != row[width:]:
            raise KitError(f"{path.name} has {row[0]!r} more than once with different answers, again in row {number:,} (the "
                           "first row of data is row 1): keep one row for each.")
    return by_text, ids, as_logits([row[width:] for row in found], plan, classes, path.name)


def as_logits(answers: Sequence[tuple], plan: Layout, classes: Sequence[str], name: str) -> np.ndarray:
    """What rows of a table say, as logits [n, C]. Probabilities and bare answers become logarithms of probabilities."""
    if plan.bare:
        return smoothed(np.array(numbers_of([row[0] for row in answers], classes, name)), len(classes), name)
    try:
        values = np.array(answers, dtype=np.float32).reshape(len(answers), len(plan.answers))
    except (ValueError, TypeError):
        values = np.array([np.nan])
    if not np.isfinite(values).all():
        raise KitError(f"{name} holds values that are not numbers.")
    if len(classes) < 2 or not len(values):
        return values
    if set(np.unique(values)) <= {0, 1} and (values.sum(1) == 1).all():
        return smoothed(values.argmax(1), len(classes), name)
    for whole, words in SCALES.items():  # a rounded value is off by half a hundredth at most
        if values.min() >= 0 and np.abs(values.sum(1) - whole).max() <= whole * (0.005 * len(classes) + 1e-4):
            warnings.warn(f"{name} holds {words} (its rows sum to {whole}): their logarithms are taken as logits, with "
                          f"{LEAST:g} for 0.", stacklevel=2)
            return np.log(np.maximum(values / whole, LEAST))
    if values.min() >= 0 and values.max() <= 1:
        warnings.warn(f"{name} holds values from 0 to 1 whose rows do not sum to 1: they are taken as logits, which makes a "
                      "nearly undecided teacher; if they are scores of single classes, give their logits log(p / (1 - p)).",
                      stacklevel=2)
    return values


def smoothed(numbers: np.ndarray, outputs: int, name: str) -> np.ndarray:
    """Answers without probabilities as logits: SURE on the answer, the rest shared alike."""
    warnings.warn(f"{name} holds answers without probabilities: each is taken as {SURE:g} sure, with {1 - SURE:.2g} shared by "
                  "the other classes.", stacklevel=3)
    made = np.full((len(numbers), outputs), np.log((1 - SURE) / (outputs - 1)), dtype=np.float32)
    made[np.arange(len(numbers)), numbers] = np.log(SURE)
    return made


def numbers_of(labels: Sequence, classes: Sequence[str], name: str) -> list[int]:
    """The classes' numbers of answers by name (in any case), or all of them by number. KitError for another answer."""
    words = [re.sub(r"^(\d+)\.0+$", r"\1", str(v).strip()) for v in labels]  # 1.0 is a number that went through a spreadsheet
    exact, folded = {c: i for i, c in enumerate(classes)}, {c.strip().casefold(): i for i, c in enumerate(classes)}
    known = exact | {w: folded[w.casefold()] for w in set(words) if w not in exact and w.casefold() in folded
                     and len(folded) == len(classes)}
    if not any(word in known for word in words):
        known = {str(i): i for i in range(len(classes))}
    for number, word in enumerate(words, start=1):
        if word not in known:
            raise KitError(f"{name} has the answer {word!r} in row {number:,} (the first row of data is row 1), outside the "
                           f"classes {', '.join(classes)}: leave such rows out, or give them one of these.")
    return [known[word] for word in words]
