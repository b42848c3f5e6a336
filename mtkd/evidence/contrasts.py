"""A claim's settings as data: which rows of a frame are set against which.

A contrast is two queries of a frame (`ours`, `theirs`) and the columns that part them: `by` must be equal on both sides, `each`
parts ours further, `over` theirs. Every pair of groups with rows on both sides is one setting, paired over replicates.

    {ours: 'arm == "main" and method == "mt_bert"', theirs: 'arm == "main" and method == "pkd"', by: [task, layers],
     over: [variant], label: "{task}: {ours} against {theirs}"}
"""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import pandas as pd

from mtkd.errors import KitError
from mtkd.evidence.frame import differences
from mtkd.evidence.verdicts import Member

TESTS = ("greater", "equal", "not worse")
FACTORS = {"mcc": 2.0, "char_f1": 2.0}  # smallest effects of interest that are not that of accuracy, times it: see `delta`


@dataclass(frozen=True)
class Contrast:
    """One line of a claim. test: what is claimed of ours minus theirs: "greater" (above zero), "equal" (within the smallest
    effect of interest), "not worse" (above minus that). pairs: name of a function (keys of ours, keys of theirs, our rows)
    that says which settings are compared. label: may name `ours` and `theirs` (what tables call them), columns of by and each,
    and their_<column of over>. every: theirs come from all runs, not only from those shown. value: the column compared. part:
    what stated part of the claim this is; required: a part without data keeps the claim from "supported". beside: these
    settings take no part in the verdict and have a line of their own under this name: a fair control that the paper lacks, an
    exception that it makes. Raises TypeError for a word that is no field, ValueError for a test that does not exist."""

    ours: str
    theirs: str
    by: tuple[str, ...] = ("task",)
    each: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    test: str = "greater"
    pairs: str = ""
    label: str = "{task}: {ours} against {theirs}"
    every: bool = False
    value: str = "score"
    part: str = ""
    required: bool = False
    beside: str = ""

    def __post_init__(self):
        if self.test not in TESTS:
            raise ValueError(f"there is no test {self.test!r}; there are {', '.join(TESTS)}")

    @classmethod
    def read(cls, entry: dict) -> "Contrast":
        """A contrast as a YAML file has it."""
        known = {field.name for field in fields(cls)}
        if unknown := set(entry) - known:
            raise TypeError(f"a contrast has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()})


@dataclass(frozen=True)
class Setting:
    """One pair of groups of a contrast: the values of its columns, and both sides' rows."""

    ours_at: dict
    theirs_at: dict
    ours: pd.DataFrame
    theirs: pd.DataFrame


def settings(contrast: Contrast, shown: pd.DataFrame, every: pd.DataFrame | None = None,
             pairs: dict[str, Callable] | None = None) -> Iterator[Setting]:
    """The settings of a contrast that have rows on both sides, sorted by the columns that name them."""
    by, each, over = list(contrast.by), list(contrast.each), list(contrast.over)
    mine = shown.query(contrast.ours)
    theirs = (every if contrast.every and every is not None else shown).query(contrast.theirs)
    groups = dict(list(theirs.groupby([*by, *over], sort=True)))
    for key, ours in mine.groupby([*by, *each], sort=True):
        for other, rivals in groups.items():
            if key[: len(by)] == other[: len(by)]:
                at, there = dict(zip([*by, *each], key)), dict(zip([*by, *over], other))
                if not contrast.pairs or pairs[contrast.pairs](at, there, mine):
                    yield Setting(at, there, ours, rivals)


def delta(metric: str, margin: float) -> float:
    """The smallest effect of interest in points of a metric, which is also the margin of equivalence and non-inferiority.

    margin: that of accuracy, in units of accuracy (0.01 = one point). It is twice as wide for MCC, whose scale from -1 to 1 is
    twice as long, and for the F1 of marked characters, which changes more from run to run.
    """
    return 100 * margin * FACTORS.get(metric, 1.0)


@lru_cache(maxsize=20_000)
def bits(text: str, number: int) -> np.ndarray:
    """Which of a row's test items were right, [number] of 0 and 1 (the row's `right`: bits, eight to a byte, base64). KitError
    where that is another number of items."""
    packed = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    if len(packed) != -(-number // 8):
        raise KitError(f"A row has {number} test items and marks for {8 * len(packed)}, so they are not its own.")
    return np.unpackbits(packed, count=number)


def answered(rows: pd.DataFrame, replicate: str, value: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The replicates in order, and per replicate the mean over its models of which test items were right times 100,
    [replicates, items]; a model that is the mean of several has a tuple of marks. None where the value is not the share of
    right items, or no row says which they were. KitError where marks do not belong to their score: they are of other items."""
    if value != "score" or "right" not in rows or rows["n_test"].isna().any() or not (rows["metric"] == "accuracy").all():
        return None
    texts = [text if isinstance(text, tuple) else (text,) for text in rows["right"]]
    if not all(isinstance(text, str) for several in texts for text in several):
        return None
    if rows["n_test"].nunique() > 1:
        raise KitError(f"Models of one setting answered different test items: {sorted(rows['n_test'].unique())} of them.")
    number = int(rows["n_test"].iloc[0])
    marks = np.stack([np.mean([bits(text, number) for text in several], axis=0) for several in texts])
    if not np.allclose(marks.mean(axis=1), rows["score"].to_numpy(float), atol=1e-6):
        raise KitError("The marks of a row (`right`) are not those of its score, so they are of other test items.")
    names, at = np.unique(rows[replicate].to_numpy(), return_inverse=True)
    table = np.zeros((len(names), number))
    np.add.at(table, at, marks)
    return names, 100 * table / np.bincount(at)[:, None]


def member(contrast: Contrast, setting: Setting, name: Callable[[pd.Series], str], replicate: str, margin: float) -> Member:
    """A setting as something to test. margin: the smallest effect of interest (see `delta`). name: what tables call a row's
    model. KitError where the two sides answered different numbers of test items."""
    ours, theirs = setting.ours, setting.theirs
    values = {"ours": name(ours.iloc[0]), "theirs": name(theirs.iloc[0]), **setting.ours_at,
              **{f"their_{k}": v for k, v in setting.theirs_at.items()}}
    found = differences(ours, theirs, replicate, contrast.value)
    sides, items = [answered(rows, replicate, contrast.value) for rows in (ours, theirs)], None
    if all(side is not None for side in sides):
        (mine, our_marks), (other, their_marks) = sides
        if our_marks.shape[1] != their_marks.shape[1]:
            raise KitError(f"{contrast.label.format(**values)}: the two sides answered different numbers of test items.")
        apart = our_marks[np.isin(mine, found.index)] - their_marks[np.isin(other, found.index)]
        items = {f"{ours['task'].iloc[0]}, {apart.shape[1]} items": apart.astype(np.float32)}
    least = ours["n_test"].max()
    return Member(contrast.label.format(**values), found, contrast.test, delta(ours["metric"].iloc[0], margin), items=items,
                  step=100 / least if least > 0 else 0.0, part=contrast.part)
