"""A table of your own as a task: a file that mtkd/data/files.py reads, or a folder with one such file per split.

    reviews.csv                      or    reviews/train.csv  reviews/validation.csv  reviews/test.csv
    text,label
    "a fine film",good                     load_task("reviews.csv", text="text", label="label")
    "two hours lost",bad

In a folder `valid`, `val` and `dev` also mean validation, and `unlabelled` (no labels needed) is a pool of further
texts. Splits that are missing are taken from train by the hash of the text, a tenth of the rows each.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtkd.data.files import SUFFIXES, check_values, content_of, no_text, rows, suffix_list
from mtkd.data.splits import Split, Task, content_hash, hashed, unique_ids
from mtkd.errors import KitError
from mtkd.store.files import text_hash

_SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation",
                "dev": "validation", "test": "test", "unlabelled": "unlabelled", "unlabeled": "unlabelled"}
DECIMAL = re.compile(r"[+-]?\d*\.?\d+([eE][+-]?\d+)?")


def load_own(path: str, text: str = "text", text_pair: str | None = None, label: str = "label", id: str | None = None,
             classes: Sequence[str] | None = None, regression: bool = False, metric: str | None = None) -> Task:
    """A file or folder of your own as a task.

    text, text_pair, label, id   names of columns. Without `id`, a row's id is the hash of its text.
    classes      class names in the order of their numbers; by default every label of the training rows, sorted
                 (as numbers if all are whole numbers). Labels are these names, or their positions 0, 1, ...
    regression   labels are numbers to predict, scored with Pearson's and Spearman's correlation
    metric       the main metric (default: accuracy, or pearson for regression)

    Raises KitError, in one sentence, for a file that cannot be read, a column that is not there, an empty or non-text
    value, a label that is missing, a list, or outside the classes, a repeated id, an empty split, and one class only.
    """
    files, raw, names = split_files(path), {}, ()
    for name, file in files.items():
        where = repr(str(path)) + (f" ({name})" if len(files) > 1 else "")
        wanted = {"text": text, "text_pair": text_pair, "label": None if name == "unlabelled" else label, "id": id}
        table = _read(where, file, {option: column for option, column in wanted.items() if column is not None})
        columns = [table[option] for option in ("text", "text_pair") if option in table]
        for column, values in zip((text, text_pair), columns):
            check_values(where, column, values, no_text)
        labels = _labels(where, label, table["label"]) if "label" in table else None
        ids = None if id is None else _ids(where, id, table["id"])
        raw[name] = where, list(zip(*columns)), labels, ids
        if name == "train" and not regression:
            names = _classes(labels, classes)
            scores = all(DECIMAL.fullmatch(name) for name in names)
            if classes is None and scores and len(names) > max(20, len(labels) // 5):
                raise KitError(f"{where} has {len(names)} different numbers in {len(labels)} rows of the column {label!r}: "
                               "they look like scores. Say regression: true to predict them, or list them as classes.")
    splits, content = {}, {}
    for name, (where, inputs, labels, ids) in raw.items():
        if not inputs:
            raise KitError(f"{where} has no rows")
        content[name] = [content_hash(*sample) for sample in inputs]
        if ids is None:
            ids = unique_ids(content[name])
        elif len(files) > 1:  # two files may both number their rows from 0
            ids = [f"{name}/{i}" for i in ids]
        if labels is None:
            numbers = np.full(len(ids), np.nan if regression else -1, dtype=np.float32 if regression else np.int64)
        else:
            numbers = _values(where, label, labels) if regression else _numbers(where, label, labels, names)
        splits[name] = Split(ids, inputs, numbers)
    notes = _fill(splits, content) + _doubts(splits, content, names)
    metrics = ("pearson", "spearman") if regression else ("accuracy", "macro_f1", "mcc")
    metrics += ("f1",) if len(names) == 2 else ()
    if metric is not None and metric not in metrics:
        raise KitError(f"metric must be one of {', '.join(metrics)} for {Path(path).name}, not {metric!r}")
    return Task(Path(path).name, "pair" if text_pair else "text", names, splits, metric or metrics[0], metrics, tuple(notes))


def split_files(path: str | Path) -> dict[str, Path]:
    """Split -> its file, "train" first; a file that stands alone is the training split. KitError where there is none."""
    path = Path(path)
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise KitError(f"{str(path)!r} is not a {suffix_list()} file")
        return {"train": path}
    found: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        split = _SPLIT_NAMES.get(file.stem.lower())
        if split and file.suffix.lower() in SUFFIXES:
            if split in found:
                raise KitError(f"{str(path)!r} has two files for the split {split!r}: {found[split].name}, {file.name}")
            found[split] = file
    if "train" not in found:
        raise KitError(f"the folder {str(path)!r} has no train file (train.csv, train.tsv, train.jsonl or "
                       "train.parquet)")
    return {"train": found.pop("train"), **found}


def fingerprint(path: str | Path) -> str:
    """sha256 (hex) of what a file or folder of one's own holds: its splits, its columns and their values, read or not."""
    return text_hash("\n".join(f"{split}{file.suffix.lower()} {content_of(file)}" for split, file in split_files(path).items()))


def _read(where: str, file: Path, wanted: dict[str, str]) -> dict[str, list]:
    """Option -> the values of its column."""
    def choose(there: Sequence[str]) -> list[str]:
        if missing := {option: column for option, column in wanted.items() if column not in there}:
            options = " and ".join(f"{option}=..." for option in missing)
            absent = " or ".join(repr(c) for c in missing.values())
            raise KitError(f"{where} has no column {absent}; its columns are {', '.join(map(repr, there)) or 'none'}: "
                           f"say which to use with {options}")
        return list(wanted.values())

    columns = list(zip(*rows(file, choose))) or [()] * len(wanted)
    return {option: list(values) for option, values in zip(wanted, columns)}


def _labels(where: str, column: str, values: list) -> list:
    check_values(where, column, values, lambda v: f"the labels {v!r}" if isinstance(v, (list, dict)) else "",
                 ": a text with several labels cannot be learned from here; give every row one label")
    check_values(where, column, values,
                 lambda v: "no label" if v is None or v != v or (isinstance(v, str) and not v.strip()) else "")
    labels = [int(v) if isinstance(v, float) and v.is_integer() else v.strip() if isinstance(v, str) else v for v in values]
    if all(isinstance(v, str) and re.fullmatch(r"[+-]?\d+(\.0*)?", v) for v in labels):  # 1 and 1.0 are one class
        labels = [v.split(".")[0] for v in labels]
    return labels


def _ids(where: str, column: str, values: list) -> list[str]:
    check_values(where, column, values, lambda v: "" if v is not None and str(v).strip() else "an empty id")
    seen: dict[str, int] = {}
    for row, value in enumerate(map(str, values), start=1):
        if value in seen:
            raise KitError(f"{where} has the id {value!r} in row {seen[value]} (the first row of data is row 1) and again in "
                           f"row {row}; ids must be unique")
        seen[value] = row
    return list(seen)


def _classes(labels: list, classes: Sequence[str] | None) -> tuple[str, ...]:
    if classes is not None:
        if isinstance(classes, str) or len(set(map(str, classes))) < max(2, len(classes)):
            raise KitError(f"classes must be a list of two or more different names, not {classes!r}")
        return tuple(map(str, classes))
    names = {str(value) for value in labels}
    try:
        return tuple(sorted(names, key=int))
    except ValueError:
        return tuple(sorted(names))


def _values(where: str, column: str, labels: list) -> np.ndarray:
    """The labels of a regression, float32 [n]."""
    def fault(value) -> str:
        try:
            return "" if np.isfinite(float(value)) else f"{value!r}, which is not a number,"
        except (TypeError, ValueError):
            return f"{value!r}, which is not a number,"

    check_values(where, column, labels, fault)
    return np.array([float(value) for value in labels], dtype=np.float32)


def _numbers(where: str, column: str, labels: list, names: tuple[str, ...]) -> np.ndarray:
    """The labels as class numbers, int64 [n]."""
    number = {name: i for i, name in enumerate(names)}
    if not any(str(value) in number for value in labels):  # positions instead of names
        number = {str(i): i for i in range(len(names))}
    check_values(where, column, labels, lambda v: "" if str(v) in number else f"the label {str(v)!r}",
                 f", outside the {len(names)} classes ({', '.join(names[:20])})")
    return np.array([number[str(value)] for value in labels], dtype=np.int64)


def _fill(splits: dict[str, Split], content: dict[str, list[str]]) -> list[str]:
    """Take the missing splits out of train, a tenth of its different texts each, and say what happened."""
    notes = []
    missing = [name for name in ("validation", "test") if name not in splits]
    if missing:
        train, keys = splits["train"], content["train"]
        order = hashed(set(keys), "own")
        share = max(1, round(len(order) / 10))
        if len(order) < 3 * (len(missing) + 1):
            raise KitError(f"{len(order)} different texts are too few to take {' and '.join(missing)} from")
        part = {key: missing[i // share] if i // share < len(missing) else "train" for i, key in enumerate(order)}
        for name in (*missing, "train"):
            kept = [i for i, key in enumerate(keys) if part[key] == name]
            splits[name], content[name] = train.take(kept), [keys[i] for i in kept]
        notes.append(f"{' and '.join(missing)} were taken from train by hash: "
                     + ", ".join(f"{len(splits[name]):,} {name}" for name in ("train", *missing)))
    for name in ("validation", "test"):
        if shared := len(set(content[name]) & set(content["train"])):
            notes.append(f"{shared:,} texts of {name} are also in train")
    return notes


def _doubts(splits: dict[str, Split], content: dict[str, list[str]], names: tuple[str, ...]) -> list[str]:
    """What in labels of classes should make one look again: one text with two labels, a class that can hardly be learned."""
    if not names:
        return []
    said: dict[str, set[int]] = {}
    for name, split in splits.items():
        for key, label in zip(content[name], split.labels.tolist()):
            said.setdefault(key, set()).update({label} - {-1})
    notes, counts = [], np.bincount(splits["train"].labels[splits["train"].labels >= 0], minlength=len(names))
    if twice := sum(len(labels) > 1 for labels in said.values()):
        notes.append(f"{twice:,} {'text has' if twice == 1 else 'texts have'} different labels in different rows")
    if rare := [f"{name} ({count})" for name, count in zip(names, counts.tolist()) if count < 2]:
        notes.append(f"classes with fewer than two training texts: {', '.join(rare)}")
    return notes
