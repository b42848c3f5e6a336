"""A pool of unlabelled texts or pairs that may be far bigger than memory: a split like others, with its arrays in files.

    pool.attach(prepared, "pool", "pairs.parquet", size=1_000_000)      # or, without a file, the task's own "unlabelled"
    stage = Stage("stage 1", terms, optimisation, data="pool")          # and from here on it is a split like others

tmkd's first stage distils on millions of question-passage pairs (its section 3.1.1). So the pool is cut into shards: rows
0..999, then up to 2,000, 4,000, 8,000, 16,000, and from there on every 16,000. A shard is tokenised once into the store, and so
is what each teacher says of it (mtkd/train/poolscores.py); both are memory-mapped when a batch needs them and unmapped soon
after. What is resident at any time is a few shards and some twelve bytes a row (tests/benchmarks/pool_memory.py).

Sizes are prefixes: a pool of 2,000 rows is the beginning of one of 20,000, and the two share their common shards, since a
shard's key holds the source's content and its own range of rows but not the pool's size. The order of the rows is the source's
own: whoever wants a prefix to be a fair sample shuffles the file once. Logits are found by row number in a shard whose content
is in their key, so they can be missing, but not misplaced.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from mtkd.data import files
from mtkd.data.splits import Split, check_size, content_hash
from mtkd.errors import KitError
from mtkd.tokens.batches import Chain, Pooled, encode

FIRST, LARGEST = 1000, 16000  # rows of the first shard and of the largest ones


def attach(prepared, name: str = "pool", source: str | Path | None = None, size: int | None = None,
           columns: tuple[str, ...] | None = None) -> Pool:
    """Give prepared data a pool: `prepared.data(name)` and `Stage(data=name)` then read it. Again with the same name
    replaces it.

    source   None: the task's own "unlabelled" split; else a Parquet, Arrow, CSV, TSV or JSONL file, or a folder of such
             (mtkd/data/files.py), in the order of their names
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
    if size is not None:
        check_size("the size of a pool", size)
    if source is None:
        split, where = prepared.texts("unlabelled"), f"the unlabelled split of {task.name}"
        content = content_hash(*(text for i, row in zip(split.ids, split.inputs) for text in (i, *row)))
        take, found = lambda start, stop: split.take(range(start, stop)), min(len(split), size or len(split))
    else:
        columns = tuple(columns or (("question", "passage") if task.kind == "pair" else ("text",)))
        if len(columns) != 1 + (task.kind == "pair"):
            raise KitError(f"the task {task.name} reads {1 + (task.kind == 'pair')} text(s) per sample, and the pool is to be "
                           f"made of the columns {list(columns)}.")
        where, take = repr(str(source)), file_rows(source, columns)
        content = content_hash(files.content(files.files_of(source)), *columns)
        counted = prepared.store.get("pool", {"content": content, "size": size}, lambda _: {"rows": count(take, size)})
        found = counted.info["rows"]
    if not found:
        raise KitError(f"{where} has no rows to make a pool of.")
    if size is not None and found < size:
        raise KitError(f"{where} has {found:,} rows, and a pool of {size:,} was asked for.")
    prepared.pools[name] = Pool(where, content, found, take)
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


def file_rows(source: str | Path, columns: tuple[str, ...]) -> Callable[[int, int], Split]:
    """A function that reads rows start..stop-1 of files as an unlabelled split, fewer where they end. It raises KitError for a
    file that cannot be read or lacks a column, and for a value that is empty or no text."""
    cursor = files.Cursor(files.files_of(source), columns, "id")

    def take(start: int, stop: int) -> Split:
        found = cursor.take(start, stop)
        inputs = [tuple(texts) for *texts, _ in found]
        for column, values in zip(columns, zip(*inputs)):
            files.check_values(repr(str(source)), column, values, files.no_text, ".", start)
        ids = [content_hash(*texts) if named is None else str(named) for *texts, named in found]
        return Split(ids, inputs, np.full(len(ids), -1, dtype=np.int64))

    return take


def count(take: Callable[[int, int], Split], size: int | None) -> int:
    """Rows, at most `size`; all of them are looked at."""
    start = 0
    while size is None or start < size:
        stop = min(start + files.ROWS, size or start + files.ROWS)
        start += (found := len(take(start, stop)))
        if found < files.ROWS:
            break
    return start


@dataclass(frozen=True)
class Pool:
    """The first `size` rows of a source, read by `take(start, stop)`. `print(pool)` shows size, source and number of shards."""

    name: str
    content: str
    size: int
    take: Callable[[int, int], Split] = field(repr=False)

    def __len__(self) -> int:
        return self.size

    def __str__(self) -> str:
        return f"pool of {self.size:,} rows of {self.name} in {len(boundaries(self.size)) - 1} shards"

    def spec(self) -> dict:
        return {"pool": self.content, "rows": self.size}

    def data(self, prepared) -> Pooled:
        """The pool on the tokens of `prepared`: shards that the store has not are made."""
        ends, tokenizer = boundaries(self.size), prepared.tokenizer
        specs = [{"pool": self.content, "from": int(a), "to": int(b), "input": prepared.fingerprint} for a, b in pairwise(ends)]
        made = [prepared.store.get("pool-tokens", spec, lambda folder, spec=spec: self._tokenise(prepared, spec, folder))
                for spec in specs]
        folders = [artifact.folder for artifact in made]
        lengths = np.concatenate([np.load(folder / "lengths.npy") for folder in folders])
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        tokens, types = (Chain([f / name for f in folders], offsets[ends]) for name in ("tokens.npy", "types.npy"))
        none = np.float32("nan") if prepared.task.regression else np.int64(-1)
        return Pooled(range(self.size), tokens, types, offsets, np.broadcast_to(none, self.size), tokenizer.pad_token_id or 0,
                      prepared.fingerprint, tokenizer.padding_side == "left", None, ends, specs, folders)

    def _tokenise(self, prepared, spec: dict, folder: Path) -> dict:
        split = self.take(spec["from"], spec["to"])
        if len(split) != spec["to"] - spec["from"]:
            raise KitError(f"{self.name} has changed while the pool was made of it: rows are missing at "
                           f"{spec['from'] + len(split):,}.")
        made = encode(split, prepared.tokenizer, prepared.max_length, prepared.fingerprint)
        for name, array in {"tokens": made.tokens, "types": made.types, "lengths": made.lengths.astype(np.int32)}.items():
            np.save(folder / f"{name}.npy", array)
        (folder / "ids.json").write_text(json.dumps(split.ids), encoding="utf-8")
        return {"rows": len(split)}
