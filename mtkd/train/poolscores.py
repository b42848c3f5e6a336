"""What the teachers say of a pool: one file of logits per teacher and shard, beside the shard's tokens.

Scoring goes shard by shard, so that an interruption loses one shard's work, a bigger pool scores only what is new, and no
table of the whole pool is ever in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mtkd.data.files import Cursor
from mtkd.errors import KitError
from mtkd.measure.meter import Meter
from mtkd.tokens.batches import OPEN, Batch, Pooled
from mtkd.train import loop as train
from mtkd.train import outputs
from mtkd.train.tables import as_logits, header, layout

if TYPE_CHECKING:
    from mtkd.train.prepare import Prepared
    from mtkd.train.teachers import Model


@dataclass(frozen=True)
class Scores:
    """The logits files of one teacher on a pool, one per shard, and what making them took (info["seconds"], summed)."""

    files: list[Path]
    info: dict
    reused: bool


def score(prepared: Prepared, teacher: Model, name: str) -> Scores:
    """A teacher's logits on a pool, on its own tokens; shards that are scored already are not scored again.

    Raises KitError where the teacher has another number of outputs than the task, and where a table of ready logits does
    not hold the pool's rows in the pool's order.
    """
    data, device = prepared.of(teacher).data(name), train.device_at_hand()
    network = None
    say = table(teacher, prepared.task.classes, data) if teacher.info.get("table") else None

    def make(number: int, folder: Path) -> dict:
        nonlocal network
        with Meter(device) as meter:
            if say is None:  # the network is loaded when the first shard needs it
                network = network or teacher.answering().to(device)
                logits = outputs.evaluate_logits(network, data.shard(number), device).numpy()
            else:
                logits = say(number)
            meter.count(len(logits))
        if logits.shape[-1] != prepared.task.outputs:
            raise KitError(f"the teacher {teacher.name} has {logits.shape[-1]} outputs and the task {prepared.task.name} has "
                           f"{prepared.task.outputs}.")
        np.save(folder / "logits.npy", logits)
        return meter.record()

    made = [prepared.store.get("logits", {"teacher": teacher.key, "data": spec}, lambda folder, k=k: make(k, folder))
            for k, spec in enumerate(data.specs)]
    return Scores([m.folder / "logits.npy" for m in made], {"seconds": sum(m.info["seconds"] for m in made)},
                  all(m.reused for m in made))


def table(teacher: Model, classes: tuple[str, ...], data: Pooled) -> Callable[[int], np.ndarray]:
    """A function that reads a shard's logits [rows, C] from a table with a column `id` and one per class. The table is read
    forward, so its rows must be in the pool's order; rows beyond the pool's are left alone."""
    path = Path(teacher.info["table"])
    plan = layout(header(path), classes, path.name)
    if plan.keys != ("id",):
        raise KitError(f"the table {path.name} has no column 'id', by which the rows of a pool are found.")
    cursor = Cursor([path], ("id", *plan.answers))

    def say(number: int) -> np.ndarray:
        start, stop = data.ends[number:number + 2].tolist()
        rows, ids = cursor.take(start, stop), data.shard(number).ids
        if len(rows) < len(ids):
            raise KitError(f"the table {path.name} ends after {start + len(rows):,} rows, and the pool has {len(data):,}.")
        for at, (row, known) in enumerate(zip(rows, ids), start=start + 1):
            if row[0] is None or str(row[0]) != known:
                raise KitError(f"the table {path.name} has the id {row[0]!r} in row {at:,} where the pool has {known!r}; a "
                               "table for a pool must be in the pool's order.")
        return as_logits([row[1:-1] for row in rows], plan, classes, path.name)

    return say


class StreamedOutputs:
    """What T teachers said of a pool, read shard by shard; `batch` is that of mtkd.train.outputs.StoredOutputs.

    files[t]: the logits files of teacher t, one per shard of `data`, or None where nobody listens to it (zeros).
    control: what is done to the logits [rows, T, C] of a shard when it is opened (mtkd.train.teachers.control).
    """

    def __init__(self, data: Pooled, files: list[list[Path] | None], width: int, control: Callable | None = None):
        self.data, self.files, self.width, self.control = data, files, width, control
        self.shard = lru_cache(OPEN)(self._load)

    def _load(self, number: int) -> torch.Tensor:
        """Logits [rows of the shard, T, C], copied: a shard's worth is small."""
        found = torch.zeros(int(np.diff(self.data.ends)[number]), len(self.files), self.width)
        for t, files in enumerate(self.files):
            if files is not None:
                found[:, t] = torch.from_numpy(np.load(files[number]))
        return found if self.control is None else self.control(found)

    def batch(self, batch: Batch) -> outputs.TeacherBatch:
        where = np.searchsorted(self.data.ends, batch.rows, side="right") - 1
        places = zip(where.tolist(), (batch.rows - self.data.ends[where]).tolist())
        logits = torch.stack([self.shard(number)[place] for number, place in places])                  # [B, T, C]
        return outputs.TeacherBatch(logits.to(batch.labels.device))
