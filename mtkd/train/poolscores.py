"""What the teachers say of a pool: one Arrow file of logits per teacher and shard, beside the shard's tokens.

Scoring goes shard by shard, so that an interruption loses one shard's work, a bigger pool scores only what is new, and no
table of the whole pool is ever in memory. Logits carry the ids of their rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from mtkd.data import poolfiles
from mtkd.errors import KitError
from mtkd.measure.meter import Meter
from mtkd.tokens.batches import Batch
from mtkd.tokens.streamed import Shards, StreamedData, mapped, write
from mtkd.train import loop as train
from mtkd.train import outputs

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
    own = prepared.of(teacher)
    data, device = own.data(name), train.device_at_hand()
    say = table(teacher, prepared.task.classes) if teacher.info.get("table") else running(teacher, device)

    def make(number: int, folder: Path) -> dict:
        shard = data.shard(number)
        with Meter(device) as meter:
            logits = say(data, number)
            meter.count(len(logits))
        if logits.shape[-1] != prepared.task.outputs:
            raise KitError(f"the teacher {teacher.name} has {logits.shape[-1]} outputs and the task {prepared.task.name} has "
                           f"{prepared.task.outputs}.")
        values = pa.FixedSizeListArray.from_arrays(pa.array(logits.flatten().numpy()), logits.shape[-1])
        write(folder / "logits.arrow", {"id": shard.ids, "logits": values})
        return meter.record()

    made = [prepared.store.get("logits", {"teacher": teacher.key, "data": spec}, lambda folder, k=k: make(k, folder))
            for k, spec in enumerate(data.specs)]
    return Scores([m.folder / "logits.arrow" for m in made], {"seconds": sum(m.info["seconds"] for m in made)},
                  all(m.reused for m in made))


def running(teacher: Model, device: torch.device):
    """Logits from the teacher's network, which is loaded when the first shard needs it."""
    loaded = []

    def say(data: StreamedData, number: int) -> torch.Tensor:
        if not loaded:
            loaded.append(teacher.answering().to(device))
        return outputs.evaluate_logits(loaded[0], data.shard(number), device)

    return say


def table(teacher: Model, classes: tuple[str, ...]):
    """Logits from a table with a column `id` and one per class. It is read forward, so its rows must be in the pool's order;
    rows beyond the pool's are left alone."""
    path = Path(teacher.info["table"])
    cursor = poolfiles.Cursor([path], ("id", *classes))

    def say(data: StreamedData, number: int) -> torch.Tensor:
        start, stop = data.ends[number], data.ends[number + 1]
        rows, ids = cursor.take(start, stop), data.shard(number).ids
        named = rows["id"].cast(pa.string()).combine_chunks() if len(rows) else pa.array([], pa.string())
        if len(named) < len(ids):
            raise KitError(f"the table {path.name} ends after {start + len(named):,} rows, and the pool has {len(data):,}.")
        if not (same := pc.equal(named, ids).fill_null(False)).to_numpy(zero_copy_only=False).all():
            at = pc.index(same, False).as_py()
            raise KitError(f"the table {path.name} has the id {named[at].as_py()!r} in row {start + at + 1:,} where the pool "
                           f"has {ids[at].as_py()!r}; a table for a pool must be in the pool's order.")
        try:
            values = np.stack([rows[c].cast(pa.float32()).to_numpy() for c in classes], axis=1)
        except pa.ArrowInvalid as error:
            raise KitError(f"the table {path.name} holds values that are not numbers: {str(error).splitlines()[0]}.") from error
        if not np.isfinite(values).all():
            raise KitError(f"{path.name} holds values that are not numbers.")
        return torch.from_numpy(values)

    return say


class StreamedOutputs:
    """What T teachers said of a pool, read shard by shard; `batch` is that of mtkd.train.outputs.StoredOutputs.

    files[t]: the logits files of teacher t, one per shard of `data`, or None where nobody listens to it (zeros).
    control: what is done to the logits [rows, T, C] of a shard when it is opened (mtkd.train.teachers.control).
    """

    def __init__(self, data: StreamedData, files: list[list[Path] | None], width: int, control: Callable | None = None):
        self.data, self.files, self.width, self.control = data, files, width, control
        self.shards = Shards(self._load)

    def _load(self, number: int) -> torch.Tensor:
        """Logits [rows of the shard, T, C], copied: a shard's worth is small."""
        mine = self.data.shard(number).ids
        found = torch.zeros(len(mine), len(self.files), self.width)
        for t, files in enumerate(self.files):
            if files is not None:
                batch = mapped(files[number])
                if not batch.column("id").equals(mine):
                    raise KitError(f"the logits in {files[number]} are those of other samples than the pool's.")
                found[:, t] = torch.from_numpy(batch.column("logits").values.to_numpy().reshape(found[:, t].shape).copy())
        return found if self.control is None else self.control(found)

    def batch(self, batch: Batch) -> outputs.TeacherBatch:
        where = zip(*(found.tolist() for found in self.data.locate(batch.rows)))
        logits = torch.stack([self.shards[number][place] for number, place in where])                  # [B, T, C]
        return outputs.TeacherBatch(logits.to(batch.labels.device))
