"""A tokenised pool on disk as the loop reads it: memory-mapped shards, a batch at a time (see mtkd/train/pool.py).

What is open at any time is one group of shards. Rows of one group are shuffled together; a batch may hold rows of any of its
shards, and of those that the group before has left over.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mtkd.errors import KitError
from mtkd.tokens.batches import Batch, TextData, arrange

GROUP = 64000  # rows that are shuffled together
OPEN = 16      # shards that may be mapped at a time; more than any group has


def write(path: Path, columns: dict[str, pa.Array]) -> None:
    """One record batch as an Arrow file."""
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def mapped(path: Path) -> pa.RecordBatch:
    """What `write` wrote, in place: its arrays are views of the mapped file, which is unmapped when the last one is gone."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    except (OSError, pa.ArrowException) as error:
        raise KitError(f"the shard {path} cannot be read: {str(error).splitlines()[0]}.") from error


class Shards:
    """Opens shards by number and keeps the last few open."""

    def __init__(self, load: Callable):
        self.load, self.open = load, OrderedDict()

    def __getitem__(self, number: int):
        if number not in self.open:
            while len(self.open) >= OPEN:
                self.open.popitem(last=False)
            self.open[number] = self.load(number)
        self.open.move_to_end(number)
        return self.open[number]


@dataclass
class StreamedData:
    """A tokenised pool on disk: n rows in shards, shard k holding the rows ends[k] .. ends[k + 1] - 1. It offers what the
    loop asks of mtkd.tokens.batches.TextData, a batch at a time. labels [0]: a pool has none (in a batch they are -1)."""

    files: list[Path]
    ends: np.ndarray
    specs: list[dict]
    pad: int
    tokenizer: str
    left: bool = False
    regression: bool = False

    def __post_init__(self):
        self.labels = np.zeros(0, dtype=np.float32 if self.regression else np.int64)
        self.shards = Shards(self._load)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def _load(self, number: int) -> TextData:
        batch = mapped(self.files[number])
        tokens, types = batch.column("tokens"), batch.column("types")
        labels = np.full(len(batch), np.nan if self.regression else -1, dtype=self.labels.dtype)
        return TextData(batch.column("id"), tokens.values.to_numpy(), types.values.to_numpy(),
                        tokens.offsets.to_numpy().astype(np.int64), labels, self.pad, self.tokenizer, self.left)

    def shard(self, number: int) -> TextData:
        """One shard; its arrays are views of the mapped file, its ids an Arrow array."""
        return self.shards[number]

    def locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shard number and place in the shard of every row."""
        number = np.searchsorted(self.ends, rows, side="right") - 1
        return number, rows - self.ends[number]

    def batch(self, index: np.ndarray, view: int = 0) -> Batch:
        """Rows `index` of any shards, padded to the longest of them."""
        tokens, types = [], []
        for number, place in zip(*(found.tolist() for found in self.locate(index))):
            part = self.shards[number]
            own = slice(part.offsets[place], part.offsets[place + 1])
            tokens.append(part.tokens[own])
            types.append(part.types[own])
        offsets = np.concatenate([[0], np.cumsum([len(t) for t in tokens])])
        labels = np.full(len(index), np.nan if self.regression else -1, dtype=self.labels.dtype)
        picked = TextData(index, np.concatenate(tokens), np.concatenate(types), offsets, labels, self.pad, self.tokenizer,
                          self.left)
        batch = picked.batch(np.arange(len(index)))
        batch.rows = index
        return batch

    def groups(self, rng: np.random.Generator | None) -> Iterator[list[int]]:
        """The shards in random order (without rng in their own), as many at a time as have GROUP rows together. A pool of
        one group draws nothing."""
        sizes, group, rows = np.diff(self.ends), [], 0
        small = rng is None or len(self) <= GROUP
        for number in range(len(sizes)) if small else rng.permutation(len(sizes)).tolist():
            if group and rows + sizes[number] > GROUP:
                yield group
                group, rows = [], 0
            group.append(number)
            rows += sizes[number]
        yield group

    def plan(self, batch_size: int, rng: np.random.Generator | None) -> Iterator[np.ndarray]:
        """The batches of one epoch, every row once, all but one of them full: what a group leaves goes to the next."""
        left, left_lengths, seen = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), 0
        for group in self.groups(rng):
            self.shards.open.clear()  # unmapped here, so that the peak is one group's
            rows = np.concatenate([left, *(np.arange(self.ends[k], self.ends[k + 1]) for k in group)])
            lengths = np.concatenate([left_lengths, *(self.shards[k].lengths for k in group)])
            order = np.arange(len(rows)) if rng is None else rng.permutation(len(rows))
            seen += sum(int(self.ends[k + 1] - self.ends[k]) for k in group)
            full = len(order) if seen == len(self) else len(order) // batch_size * batch_size
            left, left_lengths = rows[order[full:]], lengths[order[full:]]
            for places in arrange(order[:full], lengths, batch_size, rng) if full else ():
                yield rows[places]
