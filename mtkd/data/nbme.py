"""NBME's clinical patient notes (Yaneva et al., 2022) from your own copy: where does a note say what the rubric asks?

The data are behind an account, so the kit cannot fetch them: accept the terms of the competition "NBME - Score Clinical
Patient Notes" (or apply at NBME's data sharing portal), unpack the download, and name its folder with the option `folder`
or the environment variable MTKD_NBME.

    nbme/patient_notes.csv   pn_num, case_num, pn_history
    nbme/features.csv        feature_num, case_num, feature_text
    nbme/train.csv           id, case_num, pn_num, feature_num, annotation, location

The competition's own test notes are not public, so the 1,000 annotated notes are split here, by note.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import numpy as np

from mtkd.data.files import rows
from mtkd.data.splits import Split, Task, hashed
from mtkd.data.tasks import task
from mtkd.errors import KitError

VARIABLE = "MTKD_NBME"
FILES = {"patient_notes.csv": ("pn_num", "pn_history"), "features.csv": ("feature_num", "feature_text"),
         "train.csv": ("id", "pn_num", "feature_num", "location")}
Spans = tuple[tuple[int, int], ...]


@task("nbme")
def load(folder: str | None = None) -> Task:
    """A span task of pairs (feature, note). Metric: F1 over characters, the competition's.

    A tenth of the annotated notes, by hash of their number, is test, another validation, the rest train; so all samples
    of a note are in one split, while the features of the ten cases are in all three. ids are those of train.csv.

    Raises KitError for a folder, file or column that is missing, and for a row whose location cannot be read or whose
    note or feature is not there.
    """
    root = _folder(folder)
    notes, features, train = (_read(root / name, columns) for name, columns in FILES.items())
    histories = dict(zip(notes["pn_num"], notes["pn_history"]))
    questions = {number: feature_text(text) for number, text in zip(features["feature_num"], features["feature_text"])}
    ids, inputs, spans = [], [], []
    for row, note, feature, location in zip(*(train[column] for column in FILES["train.csv"])):
        for number, known, column, file in ((note, histories, "pn_num", "patient_notes.csv"),
                                            (feature, questions, "feature_num", "features.csv")):
            if number not in known:
                raise KitError(f"row {row!r} of train.csv has the {column} {number!r}, which is not in {file}")
        ids.append(row)
        inputs.append((questions[feature], histories[note]))
        spans.append(_within(row, location, len(histories[note])))
    order = hashed(set(train["pn_num"]), "nbme")
    if len(order) < 3:
        raise KitError(f"train.csv has {len(order)} annotated notes, too few for three splits")
    held = max(1, round(len(order) / 10))
    part = {note: "test" if i < held else "validation" if i < 2 * held else "train" for i, note in enumerate(order)}
    whole = Split(ids, inputs, np.array([int(bool(s)) for s in spans], dtype=np.int64), spans)
    splits = {name: whole.take([i for i, note in enumerate(train["pn_num"]) if part[note] == name])
              for name in ("train", "validation", "test")}
    said = ("the competition's test notes are not public: the annotated notes are split by hash of their number, "
            f"{len(order) - 2 * held} train, {held} validation, {held} test")
    return Task("nbme", "span", ("outside", "inside"), splits, "char_f1", ("char_f1",), (said,))


def feature_text(text: str) -> str:
    """A feature of the rubric as words.

    >>> feature_text("Prior-episodes-of-diarrhea-OR-loose-stools")
    'Prior episodes of diarrhea; or loose stools'
    """
    return " ".join(text.replace("-OR-", "; or ").replace("-", " ").split())


def read_location(location: str) -> Spans:
    """Spans of a `location` of train.csv, sorted; those that touch or overlap become one. ValueError if it is none.

    Each string of the list is one annotation, whose parts are joined by ";".

    >>> read_location("['203 217;321 340', '10 20', '15 25']")
    ((10, 25), (203, 217), (321, 340))
    >>> read_location("[]")
    ()
    """
    try:
        listed = ast.literal_eval(location)
    except (SyntaxError, TypeError) as error:
        raise ValueError(f"{location!r} is not a list") from error
    if not isinstance(listed, list):
        raise ValueError(f"{location!r} is not a list")
    found = []
    for part in (part for annotation in listed for part in str(annotation).split(";")):
        match = re.fullmatch(r"\s*(\d+) (\d+)\s*", part)
        if not match or int(match[1]) >= int(match[2]):
            raise ValueError(f"{part!r} is not a start and an end")
        found.append((int(match[1]), int(match[2])))
    spans: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    return tuple(spans)


def _within(row: str, location: str, length: int) -> Spans:
    where = f"the location {location!r} of row {row!r} of train.csv"
    try:
        spans = read_location(location)
    except ValueError as error:
        raise KitError(f"{where} cannot be read: {error}") from error
    if spans and spans[-1][1] > length:
        raise KitError(f"{where} ends after its note, which has {length} characters")
    return spans


def _folder(folder: str | None) -> Path:
    place = folder or os.environ.get(VARIABLE)
    if not place:
        raise KitError("NBME's patient notes are behind an account and not part of the kit: download them from the "
                       "competition 'NBME - Score Clinical Patient Notes' and name the folder with the option folder or "
                       f"the environment variable {VARIABLE}")
    path = Path(place).expanduser()
    if not path.is_dir():
        raise KitError(f"there is no folder {str(place)!r} (the current folder is {os.getcwd()}); it must hold "
                       f"{', '.join(FILES)} of NBME's patient notes, which are behind an account")
    return path


def _read(path: Path, columns: tuple[str, ...]) -> dict[str, list[str]]:
    """Columns of a file as text: locations count the characters of a note as written, line ends (\\r\\n) and all."""
    def choose(there):
        for column in columns:
            if column not in there:
                raise KitError(f"{str(path)!r} has no column {column!r}; it has {', '.join(there)}")
        return columns

    if not path.is_file():
        raise KitError(f"{str(path.parent)!r} has no {path.name}; it must hold {', '.join(FILES)}")
    return dict(zip(columns, map(list, zip(*rows(path, choose)))))
