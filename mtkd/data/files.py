"""Rows of tables from files, one by one: what user files, pools and tables of logits are read from, whatever their size.

    questions.parquet  pairs.arrow  pairs.feather  pairs.csv  pairs.tsv  pairs.jsonl

Arrow files may be of the file or the stream format (the `datasets` library writes the latter). CSV and TSV are UTF-8 with
a header, their values are texts, and "NA" is a text like others. In a CSV a value in quotation marks may hold commas, line
breaks and doubled quotation marks; a TSV has no quoting: a line is a row, and a quotation mark is a character like any other.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mtkd.errors import KitError
from mtkd.store.files import content_hash, text_hash

SUFFIXES = (".parquet", ".arrow", ".feather", ".csv", ".tsv", ".jsonl")
ROWS = 4096       # of a columnar file in memory at a time
BLOCK = 1 << 20   # bytes of a file read at a time
Choose = Callable[[Sequence[str]], Sequence[str | None]]  # the columns there -> the wanted ones (None: a column of None)


def suffix_list() -> str:
    return f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"


def files_of(path: Path | str) -> list[Path]:
    """The file itself, or the files of a folder in the order of their names. KitError where there is none that can be read as a
    table."""
    path = Path(path).expanduser()
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        if not found:
            raise KitError(f"the folder {str(path)!r} has no {suffix_list()} file to make a pool of.")
        return found
    if not path.is_file():
        raise KitError(f"there is no file or folder {str(path)!r} to make a pool of.")
    if path.suffix.lower() not in SUFFIXES:
        raise KitError(f"{str(path)!r} is not a {suffix_list()} file.")
    return [path]


def content(files: Sequence[Path]) -> str:
    """sha256 (hex) of what the files hold; their names count for nothing but the order. KitError where one cannot be read."""
    return text_hash("\n".join(map(content_of, files)))


def content_of(path: Path) -> str:
    """sha256 (hex) of a file's bytes, read again only when its size or time of change is another. KitError as `content`."""
    try:
        return content_hash(path)
    except OSError as error:
        raise KitError(f"{str(path)!r} cannot be read: {error.strerror}.") from error


def rows(path: Path, choose: Choose) -> Iterator[tuple]:
    """The rows of one file: the values of the columns that `choose` picks from those there, in its order.

    Raises KitError, in one sentence, for a file that is damaged or of another kind than its name says; what `choose` raises
    passes through.
    """
    try:
        yield from READERS[path.suffix.lower()](path, choose)
    except (OSError, ValueError, pa.ArrowException) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, UnicodeDecodeError):
            first = f"it is not UTF-8 ({error.reason}): save it with that encoding"
        raise KitError(f"{str(path)!r} cannot be read as {path.suffix[1:].upper()}: {first}") from error


def check_values(where: str, column: str, values: Iterable, fault: Callable, after: str = "", start: int = 0) -> None:
    """KitError at the first value of a column that `fault` has words for, which say what is there."""
    for number, value in enumerate(values, start=start + 1):
        if said := fault(value):
            raise KitError(f"{where} has {said} in column {column!r}, row {number:,} (the first row of data is row 1){after}")


def no_text(value) -> str:
    """What is wrong with a value that should be a text; nothing where it is one."""
    if value is not None and not isinstance(value, str):
        return f"{value!r}, which is not text,"
    return "" if value and value.strip() else "an empty text"


class Cursor:
    """Reads ranges of the rows of files forward: taking [0, 10), [10, 30), [50, 60) reads them once; going back starts anew.
    Rows are tuples of the named columns, and last of the `optional` one (None where a file lacks it)."""

    def __init__(self, files: Sequence[Path], columns: Sequence[str], optional: str | None = None):
        self.files, self.columns, self.optional, self.at, self.stream = files, columns, optional, 0, None

    def take(self, start: int, stop: int) -> list[tuple]:
        """Rows start..stop-1; fewer where the files end. KitError for a file that cannot be read or lacks a column."""
        if self.stream is None or start < self.at:
            self.at = 0
            self.stream = itertools.chain.from_iterable(rows(path, self._chooser(path)) for path in self.files)
        found = list(itertools.islice(self.stream, start - self.at, max(stop, start) - self.at))
        self.at = max(stop, start)
        return found

    def _chooser(self, path: Path) -> Choose:
        def choose(there: Sequence[str]) -> list[str | None]:
            if missing := [c for c in self.columns if c not in there]:
                raise KitError(f"{str(path)!r} has no column {' or '.join(map(repr, missing))}; its columns are "
                               f"{', '.join(map(repr, there)) or 'none'}: say which to use with columns=...")
            return [*self.columns, self.optional if self.optional in there else None]

        return choose


def _columns(batches, names: Sequence[str | None]) -> Iterator[tuple]:
    """Rows of Arrow record batches."""
    for batch in batches:
        yield from zip(*([None] * len(batch) if n is None else batch.column(n).to_pylist() for n in names))


def _parquet(path: Path, choose: Choose) -> Iterator[tuple]:
    with pq.ParquetFile(path, buffer_size=BLOCK, pre_buffer=False) as file:
        names = choose(file.schema_arrow.names)
        yield from _columns(file.iter_batches(ROWS, columns=[n for n in names if n is not None]), names)


def _arrow(path: Path, choose: Choose) -> Iterator[tuple]:
    with pa.OSFile(str(path)) as file:  # not mapped: pages of a map stay resident until the whole file is closed
        try:
            reader = pa.ipc.open_file(file)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        except pa.ArrowInvalid:
            file.seek(0)
            reader = batches = pa.ipc.open_stream(file)
        names = choose(reader.schema.names)
        parts = (batch.slice(start, ROWS) for batch in batches for start in range(0, len(batch), ROWS))
        yield from _columns(parts, names)


def _csv(path: Path, choose: Choose) -> Iterator[tuple]:
    """Strict about quotation marks: one that is never closed would otherwise swallow the rows up to the next one."""
    csv.field_size_limit(max(csv.field_size_limit(), BLOCK))
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            yield from _lines(((reader.line_num, row) for row in reader), choose,
                              "; a value that holds a comma must stand in quotation marks")
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error} (a value that starts with a quotation mark must end with one; "
                             "marks inside it are doubled)") from error


def _tsv(path: Path, choose: Choose) -> Iterator[tuple]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        lines = (line.rstrip("\r\n") for line in file)
        yield from _lines(enumerate((line.split("\t") if line else [] for line in lines), start=1), choose)


def _lines(lines: Iterator[tuple[int, list[str]]], choose: Choose, advice: str = "") -> Iterator[tuple]:
    """Rows of texts from (number, values) of lines, the first of them the header; empty lines are no rows."""
    filled = (line for line in lines if line[1])
    _, header = next(filled, (0, None))
    if header is None:
        raise ValueError("it is empty")
    if len(header) == 1 and (other := next((mark for mark in ";\t" if mark in header[0]), None)):
        raise ValueError(f"its columns are separated by {other!r}: separate them by commas, or save it as .tsv with tabs")
    where = [None if name is None else header.index(name) for name in choose(header)]
    for number, values in filled:
        if len(values) != len(header):
            raise ValueError(f"line {number} has {len(values)} values and the header {len(header)}{advice}")
        yield tuple(None if i is None else values[i] for i in where)


def _jsonl(path: Path, choose: Choose) -> Iterator[tuple]:
    with path.open(encoding="utf-8-sig") as file:
        objects = (_object(number, line) for number, line in enumerate(file, start=1) if line.strip())
        first = list(itertools.islice(objects, ROWS))  # names come from these; a row may lack some
        if not first:
            raise ValueError("it is empty")
        names = choose(list(dict.fromkeys(name for row in first for name in row)))
        for row in itertools.chain(first, objects):
            yield tuple(None if name is None else row.get(name) for name in names)


def _object(number: int, line: str) -> dict:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is not an object with named values")
    return row


READERS = {".parquet": _parquet, ".arrow": _arrow, ".feather": _arrow, ".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl}
