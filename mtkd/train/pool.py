"""A pool of unlabelled texts or pairs that may be far bigger than memory, with what the teachers say of it beside it.

    pool.attach(prepared, "pool", "pairs.parquet", size=1_000_000)      # or, without a file, the task's own "unlabelled"
    stage = Stage("stage 1", terms, optimisation, data="pool")          # and from here on it is a split like others

tmkd's first stage distils on millions of question-passage pairs (its section 3.1.1). So the pool is cut into shards: rows
0..999, then up to 2,000, 4,000, 8,000, 16,000, and from there on every 16,000. A shard is tokenised once into an Arrow file
in the store, and so is what each teacher says of it; both are memory-mapped when a batch needs them and unmapped soon
after. What is resident at any time is a few shards, whatever the size of the pool (tests/benchmarks/pool_memory.py).

Sizes are prefixes: a pool of 2,000 rows is the beginning of one of 20,000, and the two share their common shards, since a
shard's key holds the source's content and its own range of rows but not the pool's size.

Order: one epoch takes the shards in random order, some 64,000 rows at a time, and arranges these rows as tokens.batches.plan
does. A pool that fits into one such group is read in exactly the order of the same rows in memory. Every row carries its
id in both files, and they are compared whenever a shard is opened: logits can be missing, but not misplaced.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from mtkd.data import poolfiles
from mtkd.data.tasks import Split, content_hash
from mtkd.errors import KitError
from mtkd.tokens.batches import encode
from mtkd.tokens.streamed import StreamedData, write

if TYPE_CHECKING:
    from mtkd.train.prepare import Prepared

FIRST, LARGEST = 1000, 16000  # rows of the first shard and of the largest ones


def attach(prepared: Prepared, name: str = "pool", source: str | Path | None = None, size: int | None = None,
           columns: tuple[str, ...] | None = None) -> Pool:
    """Give prepared data a pool: `prepared.data(name)` and `Stage(data=name)` then read it. Again with the same name
    replaces it.

    source   None: the task's own "unlabelled" split; else a Parquet, Arrow, CSV, TSV or JSONL file, or a folder of such
             (mtkd.data.poolfiles), which is read in record batches
    size     use the first `size` rows only
    columns  of the files; by default ("text",), or ("question", "passage") where the task's samples are pairs. A column
             "id" is used where there is one; without it, a row's id is the hash of its text

    Raises KitError, in one sentence: images; a name that is a split already; no such split, file or column; a file that
    cannot be read; an empty or non-text value; fewer rows than `size`; no rows.
    """
    task = prepared.task
    if task.kind not in ("text", "pair"):
        raise KitError(f"a pool is made of texts or pairs of texts, and the task {task.name} is one of kind '{task.kind}'.")
    if name in task.splits or name.startswith("augmented"):
        raise KitError(f"the pool cannot be called {name!r}: the task {task.name} has a split of that name.")
    if size is not None and (isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1):
        raise KitError(f"the size of a pool must be a whole number of at least 1, not {size!r}.")
    if source is None:
        rows = SplitRows(prepared.texts("unlabelled"), f"the unlabelled split of {task.name}")
    else:
        columns = columns or (("question", "passage") if task.kind == "pair" else ("text",))
        if len(columns) != 1 + (task.kind == "pair"):
            raise KitError(f"the task {task.name} reads {1 + (task.kind == 'pair')} text(s) per sample, and the pool is to be "
                           f"made of the columns {list(columns)}.")
        rows = FileRows(source, tuple(columns))
    found = rows.count(prepared.store, size)
    if not found:
        raise KitError(f"{rows.name} has no rows to make a pool of.")
    if size is not None and found < size:
        raise KitError(f"{rows.name} has {found:,} rows, and a pool of {size:,} was asked for.")
    prepared.pools[name] = Pool(rows, found)
    return prepared.pools[name]


def boundaries(size: int) -> np.ndarray:
    """Where the shards of a pool begin and end, int64 [shards + 1].

    >>> boundaries(40000).tolist()
    [0, 1000, 2000, 4000, 8000, 16000, 32000, 40000]
    """
    ends, end = [0], FIRST
    while end < size:
        ends.append(end)
        end += min(end, LARGEST)
    return np.array([*ends, size], dtype=np.int64)


class SplitRows:
    """The rows of a split that is in memory anyway."""

    def __init__(self, split: Split, name: str):
        self.split, self.name = split, name
        self.content = content_hash(*(text for i, row in zip(split.ids, split.inputs) for text in (i, *row)))

    def count(self, store, size: int | None) -> int:
        return min(len(self.split), size or len(self.split))

    def take(self, start: int, stop: int) -> Split:
        return self.split.take(np.arange(start, stop))


class FileRows:
    """The rows of files, read forward in record batches."""

    def __init__(self, path: str | Path, columns: tuple[str, ...]):
        self.files, self.columns, self.name = poolfiles.files_of(path), columns, repr(str(path))
        self.content = content_hash(poolfiles.content(self.files), *columns)
        self.cursor = poolfiles.Cursor(self.files, columns, "id")

    def count(self, store, size: int | None) -> int:
        """Rows, at most `size`; all of them are looked at (once: the number is kept in the store)."""

        def make(folder: Path) -> dict:
            start = 0
            while size is None or start < size:
                found = len(self.take(start, min(start + poolfiles.ROWS, size or start + poolfiles.ROWS)))
                start += found
                if found < poolfiles.ROWS:
                    break
            return {"rows": start}

        return store.get("pool", {"content": self.content, "size": size}, make).info["rows"]

    def take(self, start: int, stop: int) -> Split:
        table = self.cursor.take(start, stop)
        if not len(table):
            return Split([], [], np.zeros(0, dtype=np.int64))
        texts = [self.checked(column, table[column].to_pylist(), start) for column in self.columns]
        inputs = list(zip(*texts))
        named = table["id"].to_pylist() if "id" in table.column_names else [None] * len(inputs)
        ids = [content_hash(*row) if i is None else str(i) for i, row in zip(named, inputs)]
        return Split(ids, inputs, np.full(len(inputs), -1, dtype=np.int64))

    def checked(self, column: str, values: list, start: int) -> list[str]:
        for i, value in enumerate(values):
            if not isinstance(value, str) or not value.strip():
                what = "an empty text" if value is None or isinstance(value, str) else f"{value!r}, which is not text,"
                raise KitError(f"{self.name} has {what} in column {column!r}, row {start + i + 1:,} (the first row of data is "
                               "row 1).")
        return values


@dataclass(frozen=True)
class Pool:
    """The first `size` rows of a source. `print(pool)` shows its size, source and number of shards."""

    rows: SplitRows | FileRows = field(repr=False)
    size: int

    def __len__(self) -> int:
        return self.size

    def __str__(self) -> str:
        return f"pool of {self.size:,} rows of {self.rows.name} in {len(boundaries(self.size)) - 1} shards"

    def spec(self) -> dict:
        return {"pool": self.rows.content, "rows": self.size}

    def data(self, prepared: Prepared) -> StreamedData:
        """The pool on the tokens of `prepared`: shards that the store has not are made."""
        ends = boundaries(self.size)
        specs = [{"pool": self.rows.content, "from": int(a), "to": int(b), "input": prepared.fingerprint}
                 for a, b in pairwise(ends)]
        files = [prepared.store.get("pool-tokens", spec, lambda folder, spec=spec: self._tokenise(prepared, spec, folder))
                 .folder / "tokens.arrow" for spec in specs]
        tokenizer = prepared.tokenizer
        return StreamedData(files, ends, specs, tokenizer.pad_token_id or 0, prepared.fingerprint,
                            tokenizer.padding_side == "left", prepared.task.regression)

    def _tokenise(self, prepared: Prepared, spec: dict, folder: Path) -> dict:
        split = self.rows.take(spec["from"], spec["to"])
        if len(split) != spec["to"] - spec["from"]:
            raise KitError(f"{self.rows.name} has changed while the pool was made of it: rows are missing at "
                           f"{spec['from'] + len(split):,}.")
        made = encode(split, prepared.tokenizer, prepared.max_length, prepared.fingerprint)
        offsets = pa.array(made.offsets.astype(np.int32))
        lists = {"tokens": pa.array(made.tokens), "types": pa.array(made.types)}
        write(folder / "tokens.arrow", {"id": pa.array(split.ids, pa.string()),
                                        **{k: pa.ListArray.from_arrays(offsets, v) for k, v in lists.items()}})
        return {"rows": len(split)}
