"""Rows of big text files, a record batch at a time: what a pool is built from without ever being in memory.

    questions.parquet  pairs.arrow  pairs.csv  pairs.tsv  pairs.jsonl, or a folder of such files, read in the order of names

Arrow files may be of the file or the stream format (the `datasets` library writes the latter). CSV and TSV are UTF-8 with
a header, and "NA" is a text there. In a CSV a value in quotation marks may hold commas, line breaks and doubled quotation
marks; a TSV has no quoting: a line is a row, and a quotation mark is a character like any other. The order of the rows is the
files' own: whoever wants a prefix of a pool to be a fair sample of it shuffles the file once.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mtkd.errors import KitError
from mtkd.store.files import file_hash, text_hash

SUFFIXES = (".parquet", ".arrow", ".feather", ".csv", ".tsv", ".jsonl")
ROWS = 4096       # in memory at a time
BLOCK = 1 << 20   # bytes of a file read at a time

_hashes: dict[tuple[str, int, int], str] = {}  # (path, bytes, time of the last change) -> sha256, of this process


def files_of(path: Path | str) -> list[Path]:
    """The file itself, or the files of a folder. KitError where there is none that can be read as a table."""
    path = Path(path).expanduser()
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        if not found:
            raise KitError(f"the folder {str(path)!r} has no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file to make a pool "
                           "of.")
        return found
    if not path.is_file():
        raise KitError(f"there is no file or folder {str(path)!r} to make a pool of.")
    if path.suffix.lower() not in SUFFIXES:
        raise KitError(f"{str(path)!r} is not a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file.")
    return [path]


def content(files: Sequence[Path]) -> str:
    """sha256 (hex) of what the files hold; their names count for nothing but the order."""
    found = []
    for path in files:
        stat = path.stat()
        key = (str(path.absolute()), stat.st_size, stat.st_mtime_ns)
        if key not in _hashes:
            try:
                _hashes[key] = file_hash(path)
            except OSError as error:
                raise KitError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
        found.append(_hashes[key])
    return text_hash("\n".join(found))


def batches(files: Sequence[Path], columns: Sequence[str], optional: str | None = None) -> Iterator[pa.Table]:
    """The named columns of all files as tables of at most ROWS rows; `optional` is a column that a file may lack.

    Raises KitError, in one sentence, for a file that is damaged or of another kind than its name says, and for a column
    that is not there.
    """
    for path in files:
        try:
            for table in READERS[path.suffix.lower()](path, tuple(columns), optional):
                for start in range(0, len(table), ROWS):
                    yield table.slice(start, ROWS)
        except (OSError, ValueError, pa.ArrowException) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise KitError(f"{str(path)!r} cannot be read as {path.suffix[1:].upper()}: {first}") from error


class Cursor:
    """Reads ranges of rows forward: taking [0, 10), [10, 30), [50, 60) reads the files once; going back starts anew."""

    def __init__(self, files: Sequence[Path], columns: Sequence[str], optional: str | None = None):
        self.arguments, self.position, self.left, self.stream = (files, columns, optional), 0, None, None

    def take(self, start: int, stop: int) -> pa.Table:
        """Rows start..stop-1; fewer where the files end."""
        if self.stream is None or start < self.position:
            self.stream, self.position, self.left = batches(*self.arguments), 0, None
        found = []
        while self.position < stop:
            table = self.left if self.left is not None else next(self.stream, None)
            if table is None:
                break
            skip = min(max(start - self.position, 0), len(table))
            part = table.slice(skip, max(stop - self.position - skip, 0))
            if len(part):
                found.append(part)
            used = skip + len(part)
            self.left = table.slice(used) if used < len(table) else None
            self.position += used
        try:  # a file without the optional column gives nulls; a text is a text whatever the width of its offsets
            return pa.concat_tables(found, promote_options="permissive") if found else pa.table({})
        except pa.ArrowException as error:
            names = ", ".join(path.name for path in self.arguments[0])
            raise KitError(f"the files {names} cannot be read as one table: {str(error).splitlines()[0]}") from error


def _columns(path: Path, there: Sequence[str], columns: Sequence[str], optional: str | None) -> list[str]:
    missing = [c for c in columns if c not in there]
    if missing:
        raise KitError(f"{str(path)!r} has no column {' or '.join(map(repr, missing))}; its columns are "
                       f"{', '.join(map(repr, there)) or 'none'}: say which to use with columns=...")
    return [*columns, *([optional] if optional in there else [])]


def _parquet(path: Path, columns, optional) -> Iterator[pa.Table]:
    with pq.ParquetFile(path, buffer_size=BLOCK, pre_buffer=False) as file:
        names = _columns(path, file.schema_arrow.names, columns, optional)
        for batch in file.iter_batches(ROWS, columns=names):
            yield pa.Table.from_batches([batch]).select(names)


def _arrow(path: Path, columns, optional) -> Iterator[pa.Table]:
    with pa.OSFile(str(path)) as file:  # not mapped: pages of a map stay resident until the whole file is closed
        try:
            reader = pa.ipc.open_file(file)
            read = (reader.get_batch(i) for i in range(reader.num_record_batches))
        except pa.ArrowInvalid:
            file.seek(0)
            reader = read = pa.ipc.open_stream(file)
        names = _columns(path, reader.schema.names, columns, optional)
        for batch in read:
            yield pa.Table.from_batches([batch]).select(names)


def _csv(path: Path, columns, optional) -> Iterator[pa.Table]:
    """Strict about quotation marks: one that is never closed would otherwise swallow the rows up to the next one."""
    csv.field_size_limit(max(csv.field_size_limit(), BLOCK))
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            yield from _rows(((reader.line_num, row) for row in reader), path, columns, optional)
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error} (a value that starts with a quotation mark must end with one; "
                             "marks inside it are doubled)") from error


def _tsv(path: Path, columns, optional) -> Iterator[pa.Table]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        lines = ((number, line.rstrip("\r\n")) for number, line in enumerate(file, start=1))
        yield from _rows(((number, line.split("\t") if line else []) for number, line in lines), path, columns, optional)


def _rows(lines: Iterator[tuple[int, list[str]]], path: Path, columns, optional) -> Iterator[pa.Table]:
    """Tables of texts from (number, values) of lines, the first of them the header; empty lines are no rows."""
    filled = (line for line in lines if line[1])
    _, header = next(filled, (0, None))
    if header is None:
        raise ValueError("it is empty")
    names = _columns(path, header, columns, optional)
    where = [header.index(name) for name in names]
    while chunk := list(itertools.islice(filled, ROWS)):
        for number, values in chunk:
            if len(values) != len(header):
                raise ValueError(f"line {number} has {len(values)} values and the header {len(header)}")
        yield pa.table({name: pa.array([values[i] for _, values in chunk], pa.string()) for name, i in zip(names, where)})


def _jsonl(path: Path, columns, optional) -> Iterator[pa.Table]:
    with path.open(encoding="utf-8-sig") as file:
        lines = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
        names: list[str] = []
        while chunk := list(itertools.islice(lines, ROWS)):
            rows = []
            for number, line in chunk:
                try:
                    rows.append(json.loads(line))
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from error
                if not isinstance(rows[-1], dict):
                    raise ValueError(f"line {number} is not an object with named values")
            names = names or _columns(path, list(rows[0]), columns, optional)
            yield pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


READERS = {".parquet": _parquet, ".arrow": _arrow, ".feather": _arrow, ".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl}
