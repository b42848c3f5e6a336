"""A claim's settings as data: which rows of a frame are set against which.

A contrast is two queries of a frame (`ours`, `theirs`) and the columns that part them: `by` must be equal on both sides, `each`
parts ours further, `over` theirs. Every pair of groups with rows on both sides is one setting, paired over replicates.

    {ours: 'arm == "main" and method == "mt_bert"', theirs: 'arm == "main" and method == "pkd"', by: [task, layers],
     over: [variant], label: "{task}: {ours} against {theirs}"}
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import pandas as pd

from mtkd.evidence.frame import differences
from mtkd.evidence.verdicts import Member

TESTS = ("greater", "equal", "equal or better", "not worse")


@dataclass(frozen=True)
class Contrast:
    """One line of a claim. test: what is claimed of ours minus theirs: "greater" (above zero), "equal" (within the margin, and
    beyond it on either side contradicts), "equal or better" (within the margin, only worse contradicts), "not worse" (above
    minus the margin). pairs: name of a function (keys of ours, keys of theirs, our rows) that says which settings are
    compared. label: may name `ours` and `theirs` (what tables call them), columns of by and each, and their_<column of over>.
    every: theirs come from all runs, not only from those shown. value: the column compared. part: what stated part of the
    claim this is; required: a part without data stands among the settings, without differences, and keeps the claim from
    "supported". aside: these settings take no part; the note says under this name what came out there. Raises TypeError for
    a word that is no field, ValueError for a test that does not exist."""

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
    aside: str = ""

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


def member(contrast: Contrast, setting: Setting, name: Callable[[pd.Series], str], replicate: str, margin: float) -> Member:
    """A setting as something to test. margin: in units of accuracy (0.01 = one point); twice as wide for MCC, whose scale from
    -1 to 1 is twice as long. name: what tables call a row's model."""
    values = {"ours": name(setting.ours.iloc[0]), "theirs": name(setting.theirs.iloc[0]), **setting.ours_at,
              **{f"their_{k}": v for k, v in setting.theirs_at.items()}}
    found = differences(setting.ours, setting.theirs, replicate, contrast.value)
    label = contrast.label.format(**values)
    if contrast.test == "greater":
        return Member(label, found)
    wide = 100 * margin * (2 if setting.ours["metric"].iloc[0] == "mcc" else 1)
    bad = "both" if contrast.test == "equal" else "lower"
    return Member(label, found, wide, bad, or_better=contrast.test == "not worse")
