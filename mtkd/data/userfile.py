"""A table of your own as a task: a CSV, TSV, JSONL or Parquet file, or a folder with one file per split.

    reviews.csv                      or    reviews/train.csv  reviews/validation.csv  reviews/test.csv
    text,label
    "a fine film",good                     load_task("reviews.csv", text="text", label="label")
    "two hours lost",bad

In a folder `valid`, `val` and `dev` also mean validation, and `unlabelled` (no labels needed) is a pool of further
texts. Splits that are missing are taken from train by the hash of the text, a tenth of the rows each.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtkd.data.tasks import Split, Task, content_hash, hash_order, unique_ids
from mtkd.errors import KitError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation",
                "dev": "validation", "test": "test", "unlabelled": "unlabelled", "unlabeled": "unlabelled"}

Table = dict[str, list]  # column -> its values


def load_own(path: str, text: str = "text", text_pair: str | None = None, label: str = "label", id: str | None = None,
             classes: Sequence[str] | None = None, regression: bool = False, metric: str | None = None) -> Task:
    """A file or folder of your own as a task.

    text, text_pair, label, id   names of columns. Without `id`, a row's id is the hash of its text.
    classes      class names in the order of their numbers; by default every label of the training rows, sorted
                 (as numbers if all are whole numbers). Labels are these names, or their positions 0, 1, ...
    regression   labels are numbers to predict, scored with Pearson's and Spearman's correlation
    metric       the main metric (default: accuracy, or pearson for regression)

    Raises KitError, in one sentence, for a file that cannot be read, a column that is not there, an empty or non-text
    value, a label that is missing or outside the classes, a repeated id, an empty split, and one class only.
    """
    tables = _tables(Path(path))
    wanted = {"text": text, "text_pair": text_pair, "label": label, "id": id}
    for name, table in tables.items():
        needed = {o: c for o, c in wanted.items() if c is not None and not (o == "label" and name == "unlabelled")}
        _need_columns(_place(path, tables, name), table, needed)
    raw = {}
    for name, table in tables.items():
        where = _place(path, tables, name)
        columns = [_texts(where, column, table[column]) for column in (text, text_pair) if column is not None]
        inputs = list(zip(*columns))
        keys = [content_hash(*sample) for sample in inputs]
        ids = unique_ids(keys) if id is None else _ids(where, id, table[id])
        labels = None if name == "unlabelled" else [_value(where, label, i, v) for i, v in enumerate(table[label])]
        raw[name] = (ids, inputs, labels, keys)
    names = () if regression else _classes(raw["train"][2], classes)
    splits, content = {}, {}
    for name, (ids, inputs, labels, keys) in raw.items():
        where = _place(path, tables, name)
        if not ids:
            raise KitError(f"{where} has no rows")
        if labels is None:
            numbers = np.full(len(ids), np.nan if regression else -1, dtype=np.float32 if regression else np.int64)
        else:
            numbers = _numbers(where, label, labels, names)
        # two files may both number their rows from 0
        splits[name] = Split(ids if len(tables) == 1 or id is None else [f"{name}/{i}" for i in ids], inputs, numbers)
        content[name] = keys
    notes = _fill(splits, content)
    kind = "pair" if text_pair else "text"
    metrics = ("pearson", "spearman") if regression else ("accuracy", "macro_f1", "mcc")
    metrics += ("f1",) if len(names) == 2 else ()
    if metric is not None and metric not in metrics:
        raise KitError(f"metric must be one of {', '.join(metrics)} for {Path(path).name}, not {metric!r}")
    return Task(Path(path).name, kind, names, splits, metric or metrics[0], metrics, tuple(notes))


def _tables(path: Path) -> dict[str, Table]:
    if path.is_file():
        return {"train": read_table(path)}
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
    return {split: read_table(file) for split, file in found.items()}


def read_table(path: Path) -> Table:
    """Columns of a CSV, TSV, JSONL or Parquet file. CSV and TSV are UTF-8 and their values all text; in TSV a line is a row and
    a quotation mark a character, as in GLUE's files, where a single one would otherwise swallow the rows up to the next."""
    import pandas as pd
    import pyarrow as pa

    suffix = path.suffix.lower()
    try:
        if suffix in (".csv", ".tsv"):
            # without these options the texts "NA" and "null" would turn into missing values
            form = {"sep": "\t", "quoting": csv.QUOTE_NONE} if suffix == ".tsv" else {}
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False, **form)
            return {str(column): frame[column].tolist() for column in frame.columns}
        if suffix == ".parquet":
            import pyarrow.parquet as pq

            return pq.read_table(path).to_pydict()
        if suffix == ".jsonl":
            return _read_jsonl(path)
    except (OSError, ValueError, pd.errors.ParserError, pa.ArrowException) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise KitError(f"{str(path)!r} cannot be read as {suffix[1:].upper()}: {first}") from error
    raise KitError(f"{str(path)!r} is not a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file")


def _read_jsonl(path: Path) -> Table:
    rows = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from error
                if not isinstance(row, dict):
                    raise ValueError(f"line {number} is not an object with named values")
                rows.append(row)
    columns = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in columns}


def _place(path: str, tables: dict[str, Table], split: str) -> str:
    return repr(str(path)) + (f" ({split})" if len(tables) > 1 else "")


def _need_columns(where: str, table: Table, wanted: dict[str, str]) -> None:
    missing = {option: column for option, column in wanted.items() if column not in table}
    if missing:
        there = ", ".join(repr(c) for c in table) or "none"
        options = " and ".join(f"{option}=..." for option in missing)
        absent = " or ".join(repr(c) for c in missing.values())
        raise KitError(f"{where} has no column {absent}; its columns are {there}: say which to use with {options}")


def _row(index: int) -> str:
    return f"row {index + 1} (the first row of data is row 1)"


def _texts(where: str, column: str, values: list) -> list[str]:
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise KitError(f"{where} has {value!r}, which is not text, in column {column!r}, {_row(i)}")
        if not value.strip():
            raise KitError(f"{where} has an empty text in column {column!r}, {_row(i)}")
    return values


def _value(where: str, column: str, index: int, value):
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        raise KitError(f"{where} has no label in column {column!r}, {_row(index)}")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.strip() if isinstance(value, str) else value


def _ids(where: str, column: str, values: list) -> list[str]:
    seen: dict[str, int] = {}
    for i, value in enumerate(values):
        if value is None or not str(value).strip():
            raise KitError(f"{where} has an empty id in column {column!r}, {_row(i)}")
        if str(value) in seen:
            raise KitError(f"{where} has the id {str(value)!r} in {_row(seen[str(value)])} and again in row {i + 1}; "
                           "ids must be unique")
        seen[str(value)] = i
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


def _numbers(where: str, column: str, labels: list, names: tuple[str, ...]) -> np.ndarray:
    if not names:
        for i, value in enumerate(labels):
            try:
                finite = np.isfinite(float(value))
            except (TypeError, ValueError):
                finite = False
            if not finite:
                raise KitError(f"{where} has {value!r}, which is not a number, in column {column!r}, {_row(i)}")
        return np.array([float(value) for value in labels], dtype=np.float32)
    number = {name: i for i, name in enumerate(names)}
    if not any(str(value) in number for value in labels):  # positions instead of names
        number = {str(i): i for i in range(len(names))}
    for i, value in enumerate(labels):
        if str(value) not in number:
            raise KitError(f"{where} has the label {str(value)!r} in column {column!r}, {_row(i)}, outside the "
                           f"{len(names)} classes ({', '.join(names[:20])})")
    return np.array([number[str(value)] for value in labels], dtype=np.int64)


def _fill(splits: dict[str, Split], content: dict[str, list[str]]) -> list[str]:
    """Take the missing splits out of train, a tenth of its different texts each, and say what happened."""
    notes = []
    missing = [name for name in ("validation", "test") if name not in splits]
    if missing:
        train, keys = splits["train"], content["train"]
        different = sorted(set(keys))
        order = [different[i] for i in hash_order(different, salt="own")]
        share = max(1, round(len(order) / 10))
        if len(order) < 3 * (len(missing) + 1):
            raise KitError(f"{len(order)} different texts are too few to take {' and '.join(missing)} from")
        part = {key: missing[i // share] if i // share < len(missing) else "train" for i, key in enumerate(order)}
        for name in (*missing, "train"):
            rows = [i for i, key in enumerate(keys) if part[key] == name]
            splits[name], content[name] = train.take(rows), [keys[i] for i in rows]
        notes.append(f"{' and '.join(missing)} were taken from train by hash: "
                     + ", ".join(f"{len(splits[name]):,} {name}" for name in ("train", *missing)))
    for name in ("validation", "test"):
        shared = len(set(content[name]) & set(content["train"]))
        if shared:
            notes.append(f"{shared:,} texts of {name} are also in train")
    return notes
