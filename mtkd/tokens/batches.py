"""From texts or pixels to batches: tokenised once, stored packed, batched by length.

Packed means one long array of tokens and the offsets of the samples in it: no padding is stored. A batch is made of
samples of similar length, so that little padding is computed either. Every batch carries `rows`, the positions of its
samples in the table of teacher outputs, which is what keeps stored logits aligned under shuffling. A pool
(mtkd/tokens/pool.py) differs from a split in nothing but where its arrays lie.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mtkd.data import images
from mtkd.data.splits import Split
from mtkd.errors import KitError
from mtkd.tokens.align import Places, places
from mtkd.tokens.spans import token_targets

AT_ONCE = 1024  # texts tokenised at a time: what a tokeniser returns is a hundred times as big as the numbers kept
GROUP = 64000   # rows of a pool that are shuffled together
OPEN = 16       # shards of a pool that may be mapped at a time; more than any group has


class Chain:
    """Arrays in .npy files, one after the other, read as one by row numbers (file k holds ends[k] .. ends[k + 1] - 1). The
    last few files used stay mapped; pages that nobody touches are never read."""

    def __init__(self, files: list[Path], ends: np.ndarray):
        self.files, self.ends, self.part = files, ends, lru_cache(OPEN)(self._map)

    def _map(self, number: int) -> np.ndarray:
        try:
            return np.load(self.files[number], mmap_mode="r")
        except (OSError, ValueError) as error:
            raise KitError(f"the shard {self.files[number]} cannot be read: {str(error).splitlines()[0]}.") from error

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        where, found = np.searchsorted(self.ends, index, side="right") - 1, None
        for number in np.unique(where).tolist():
            mine = where == number
            values = self.part(number)[index[mine] - self.ends[number]]
            found = np.empty((len(index), *values.shape[1:]), values.dtype) if found is None else found
            found[mine] = values
        return found


@dataclass
class Batch:
    """rows [B]: row numbers into the teacher-output table; inputs: what the network takes (for a set of co-finetuned
    teachers one such dictionary per teacher); labels [B], or [B, L] per token in a span task (-1: none); mask [B, L] of
    real tokens (None for images)."""

    rows: np.ndarray
    inputs: dict[str, Tensor]
    labels: Tensor
    mask: Tensor | None = None

    @property
    def unit_mask(self) -> Tensor | None:
        """Which units count in a mean: the labelled tokens of a span task, else the real tokens."""
        return self.labels >= 0 if self.labels.dim() > 1 else self.mask

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self
        def move(t):
            return {k: move(v) for k, v in t.items()} if isinstance(t, dict) else t.pin_memory().to(device, non_blocking=True)

        return Batch(self.rows, move(self.inputs), move(self.labels), None if self.mask is None else move(self.mask))


@dataclass
class TextData:
    """A tokenised split: tokens [total], types [total], offsets [n + 1], labels [n]; targets [total] are the labels of
    single tokens in a span task (-1 outside the passage); left pads on the left, as XLNet wants it."""

    ids: list[str]
    tokens: np.ndarray | Chain
    types: np.ndarray | Chain
    offsets: np.ndarray
    labels: np.ndarray
    pad: int
    tokenizer: str  # fingerprint: hidden states only match between equal tokenisers, others are aligned (mtkd.tokens.align)
    left: bool = False
    targets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def row_ids(self) -> list[str]:
        """One view per text: the table of teacher outputs has one row per sample."""
        return self.ids

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def batch(self, index: np.ndarray, view: int = 0) -> Batch:
        """Samples `index` padded to the longest of them."""
        lengths = self.offsets[index + 1] - self.offsets[index]
        width = int(lengths.max())
        place = np.arange(width)
        mask = place >= width - lengths[:, None] if self.left else place < lengths[:, None]
        ids = np.full(mask.shape, self.pad, dtype=np.int64)
        types = np.zeros(mask.shape, dtype=np.int64)
        source = (self.offsets[index][:, None] + mask.cumsum(1) - 1)[mask]
        ids[mask], types[mask] = self.tokens[source], self.types[source]
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64)),
                  "token_type_ids": torch.from_numpy(types)}
        labels = self.labels[index]
        if self.targets is not None:
            labels = np.full(mask.shape, -1, dtype=np.int64)
            labels[mask] = self.targets[source]
        return Batch(index, inputs, torch.from_numpy(labels), torch.from_numpy(mask))


@dataclass
class Pooled(TextData):
    """A pool's rows: shard k holds the rows ends[k] .. ends[k + 1] - 1, has the spec specs[k] and lies in folders[k]. Labels
    are -1 (NaN in a regression); ids are only numbers here, the names are with the shards."""

    ends: np.ndarray | None = None
    specs: list[dict] | None = None
    folders: list[Path] | None = None

    def shard(self, number: int) -> TextData:
        """One shard as a split in memory, but for its tokens, which are mapped."""
        start, stop = self.ends[number:number + 2]
        ids = json.loads((self.folders[number] / "ids.json").read_text(encoding="utf-8"))
        return TextData(ids, self.tokens.part(number), self.types.part(number),
                        self.offsets[start:stop + 1] - self.offsets[start], self.labels[start:stop], self.pad, self.tokenizer,
                        self.left)

    def groups(self, rng: np.random.Generator | None) -> Iterator[np.ndarray]:
        """The rows of the shards in random order (without rng in their own), of as many shards at a time as have GROUP rows
        together. A pool of one group draws nothing."""
        sizes, group, rows = np.diff(self.ends), [], 0
        small = rng is None or len(self) <= GROUP
        for number in range(len(sizes)) if small else rng.permutation(len(sizes)).tolist():
            if group and rows + sizes[number] > GROUP:
                yield np.concatenate(group)
                group, rows = [], 0
            group.append(np.arange(self.ends[number], self.ends[number + 1]))
            rows += sizes[number]
        yield np.concatenate(group)


@dataclass
class JointData:
    """One split tokenised by several tokenisers, for teachers that are trained together: inputs {"0": ..., "1": ...}."""

    parts: list[TextData]

    def __len__(self) -> int:
        return len(self.parts[0])

    @property
    def ids(self) -> list[str]:
        return self.parts[0].ids

    row_ids = ids

    @property
    def labels(self) -> np.ndarray:
        return self.parts[0].labels

    @property
    def lengths(self) -> np.ndarray:
        return sum(part.lengths for part in self.parts)

    def batch(self, index: np.ndarray, view: int = 0) -> Batch:
        batches = [part.batch(index, view) for part in self.parts]
        return Batch(index, {str(i): b.inputs for i, b in enumerate(batches)}, batches[0].labels, batches[0].mask)


@dataclass
class ImageData:
    """Images with a finite, seeded set of views: row i * views + v is view v of image i. views = 1 is the plain image."""

    ids: list[str]
    pixels: np.ndarray  # uint8 [n, H, W, C]
    labels: np.ndarray
    views: int
    crop: int
    flip: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def row_ids(self) -> list[str]:
        return self.ids if self.views == 1 else [f"{i}/view{v}" for i in self.ids for v in range(self.views)]

    def batch(self, index: np.ndarray, view: int = 0) -> Batch:
        pixels = self.pixels[index]
        view = view % self.views
        if self.views > 1:
            pixels = images.views(pixels, [self.ids[i] for i in index], view, self.crop, self.flip)
        return Batch(index * self.views + view, {"pixels": torch.from_numpy(images.normalise(pixels, self.mean, self.std))},
                     torch.from_numpy(self.labels[index]))


def encode(split: Split, tokenizer, max_length: int, fingerprint: str, where: Places | None = None) -> TextData:
    """Tokenise a split once. Texts longer than max_length tokens are cut (pairs: the longer one first).
    where: the places of its tokens, if they are known already (only a span task needs them)."""
    if not len(split):
        raise KitError("there is nothing to read: the split is empty.")
    flat = lambda rows, kind: np.fromiter((t for row in rows for t in row), dtype=kind)  # noqa: E731
    lengths, tokens, types = [], [], []
    for start in range(0, len(split), AT_ONCE):
        columns = [list(column) for column in zip(*split.inputs[start:start + AT_ONCE])]
        out = tokenizer(*columns, truncation=True, max_length=max_length, padding=False,
                        return_token_type_ids=True, return_attention_mask=False)
        lengths += [len(x) for x in out["input_ids"]]
        tokens.append(flat(out["input_ids"], np.int32))
        types.append(flat(out["token_type_ids"], np.int8))
    targets = None if split.spans is None else token_targets(split, where or places(split, tokenizer, max_length))
    return TextData(split.ids, np.concatenate(tokens), np.concatenate(types),
                    np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), split.labels,
                    tokenizer.pad_token_id or 0, fingerprint, tokenizer.padding_side == "left", targets)


def plan(data: TextData | JointData | ImageData, batch_size: int, rng: np.random.Generator | None) -> Iterable[np.ndarray]:
    """The batches of one epoch as index arrays, every row once. Without rng: in order of length (text) or of storage (images).

    With rng, texts are shuffled, cut into windows of 32 batches, sorted by length within a window, and the batches are
    shuffled again: random enough to train on, and most of the padding is gone. A pool plans one group of shards after the
    other, each with what was left of the one before, so that all batches but one are full.
    """
    if not len(data):
        raise KitError("there is nothing to train on: the split is empty.")
    lengths = None if isinstance(data, ImageData) else data.lengths
    if isinstance(data, Pooled):
        return _plan_groups(data, lengths, batch_size, rng)
    order = np.arange(len(data)) if rng is None else rng.permutation(len(data))
    return arrange(order, lengths, batch_size, rng)


def _plan_groups(data: Pooled, lengths: np.ndarray, batch_size: int, rng: np.random.Generator | None) -> Iterator[np.ndarray]:
    left, seen = np.zeros(0, dtype=np.int64), 0
    for group in data.groups(rng):
        rows, seen = np.concatenate([left, group]), seen + len(group)
        order = np.arange(len(rows)) if rng is None else rng.permutation(len(rows))
        full = len(order) if seen == len(data) else len(order) // batch_size * batch_size
        left = rows[order[full:]]
        for places_ in arrange(order[:full], lengths[rows], batch_size, rng) if full else ():
            yield rows[places_]


def arrange(order: np.ndarray, lengths: np.ndarray | None, batch_size: int, rng: np.random.Generator | None
            ) -> list[np.ndarray]:
    """The rows of `order` as batches; where there are lengths (by row), sorted by them within windows (see `plan`)."""
    n = len(order)
    if lengths is not None:
        window = max(n, 1) if rng is None else 32 * batch_size
        order = np.concatenate([part[np.argsort(lengths[part], kind="stable")]
                                for part in np.split(order, range(window, n, window))])
    batches = np.split(order, range(batch_size, n, batch_size))
    if rng is not None:
        batches = [batches[i] for i in rng.permutation(len(batches))]
    return batches


def iterate(data: TextData | JointData | ImageData, batch_size: int, rng: np.random.Generator | None = None,
            view: int = 0, device: torch.device | None = None) -> Iterator[Batch]:
    for index in plan(data, batch_size, rng):
        batch = data.batch(index, view)
        yield batch if device is None else batch.to(device)


def padding_share(data: TextData, batch_size: int, rng: np.random.Generator | None) -> float:
    """Share of computed positions that are padding in one epoch; 0 is none."""
    computed = sum(len(b) * int(data.lengths[b].max()) for b in plan(data, batch_size, rng))
    return 1 - int(data.lengths.sum()) / computed
