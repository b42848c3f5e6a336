"""What the teachers said, by sample: stored once, or computed on the fly.

Logits are always stored. Hidden states and attention scores are stored packed, without padding, while they fit a size
budget; beyond it the teacher runs along with the student. Both roads give the same numbers (tests/test_outputs.py).
Rows are found by sample id and view, never by batch order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mtkd.data import Batch, ImageData, TextData, iterate
from mtkd.errors import KitError

SCORING_BATCH = 64


@dataclass(frozen=True)
class Needs:
    """Which inner states of one teacher a stage reads: hidden layers (0 = embeddings) and attention layers (1-based)."""

    hidden: tuple[int, ...] = ()
    attention: tuple[int, ...] = ()

    @property
    def want(self) -> frozenset[str]:
        return frozenset(w for w in ("hidden", "attention") if getattr(self, w))


@dataclass
class TeacherBatch:
    """logits [B, T, C]; hidden[t][layer] [B, L, d]; attention[t][layer] [B, h, L, L]; only what was asked for."""

    logits: Tensor
    hidden: dict[int, dict[int, Tensor]] = field(default_factory=dict)
    attention: dict[int, dict[int, Tensor]] = field(default_factory=dict)


@dataclass
class Packed:
    """Inner states of one teacher on one split. hidden [tokens, layers, d]; attention [pairs, layers, h], where the
    pairs (query, key) of a sample of n tokens are n * n consecutive rows."""

    needs: Needs
    tokenizer: str
    hidden: Tensor | None
    attention: Tensor | None


def evaluate_logits(network: nn.Module, data: TextData | ImageData, device: torch.device, view: int = 0) -> Tensor:
    """Logits [n, C] of a network in eval mode, in the data's own order; float32 on the CPU."""
    network.eval()
    found: Tensor | None = None
    with torch.inference_mode():
        for batch in iterate(data, 4 * SCORING_BATCH, None, view, device):
            logits = network(batch.inputs).logits.float().cpu()
            if found is None:
                found = torch.empty(len(data), logits.shape[-1])
            found[batch.rows // getattr(data, "views", 1)] = logits
    return found


def score_all_views(network: nn.Module, data: TextData | ImageData, device: torch.device) -> Tensor:
    """Logits [rows, C], one row per sample and view."""
    views = getattr(data, "views", 1)
    per_view = [evaluate_logits(network, data, device, view) for view in range(views)]
    return torch.stack(per_view, dim=1).flatten(0, 1)


def packed_bytes(data: TextData, needs: Needs, shape: dict[str, int]) -> int:
    """Bytes that the packed float32 states of one teacher take."""
    lengths = data.lengths.astype(np.int64)
    return 4 * (int(lengths.sum()) * len(needs.hidden) * shape["width"]
                + int((lengths**2).sum()) * len(needs.attention) * shape["heads"])


def pack_states(network: nn.Module, data: TextData, needs: Needs, device: torch.device) -> dict[str, Tensor]:
    """Run a teacher once over a split and keep its inner states packed; {"hidden": ..., "attention": ...}."""
    network.eval()
    c = network.shape
    lengths = data.lengths
    pair_offsets = np.concatenate([[0], np.cumsum(lengths**2)])
    kept = {}
    if needs.hidden:
        kept["hidden"] = torch.empty(int(lengths.sum()), len(needs.hidden), c["width"])
    if needs.attention:
        kept["attention"] = torch.empty(int(pair_offsets[-1]), len(needs.attention), c["heads"])
    with torch.inference_mode():
        for batch in iterate(data, SCORING_BATCH, None, 0, device):
            out = network(batch.inputs, needs.want)
            where = token_rows(data.offsets, lengths, batch)
            if needs.hidden:
                states = torch.stack([out.hidden[k] for k in needs.hidden], 2)                   # [B, L, layers, d]
                kept["hidden"][where[batch.mask.cpu()]] = states[batch.mask].float().cpu()
            if needs.attention:
                pairs, real = pair_rows(pair_offsets, lengths, batch)
                scores = torch.stack([out.attention[k - 1] for k in needs.attention], 1)         # [B, layers, h, L, L]
                kept["attention"][pairs[real]] = scores.permute(0, 3, 4, 1, 2)[real.to(device)].float().cpu()
    return kept


def token_rows(offsets: np.ndarray, lengths: np.ndarray, batch: Batch) -> Tensor:
    """Row of every token of a padded batch in the packed array. [B, L]; meaningless where the mask is off."""
    return torch.from_numpy(offsets[batch.rows][:, None] + np.arange(batch.mask.shape[1]))


def pair_rows(pair_offsets: np.ndarray, lengths: np.ndarray, batch: Batch) -> tuple[Tensor, Tensor]:
    """Rows of every (query, key) pair [B, L, L], and which pairs are real."""
    n, width = lengths[batch.rows][:, None, None], np.arange(batch.mask.shape[1])
    rows = pair_offsets[batch.rows][:, None, None] + width[:, None] * n + width
    real = (width[:, None] < n) & (width < n)
    return torch.from_numpy(rows), torch.from_numpy(np.broadcast_to(real, rows.shape).copy())


class StoredOutputs:
    """Outputs of T teachers read from tables made beforehand.

    logits [rows, T, C] in the data's row order; states: per teacher position its packed inner states.
    """

    def __init__(self, data: TextData | ImageData, logits: Tensor, states: dict[int, Packed] | None = None):
        if logits.shape[0] != len(data.row_ids):
            raise KitError(f"teacher outputs have {logits.shape[0]} rows for {len(data.row_ids)} samples and views.")
        self.data, self.logits, self.states = data, logits, states or {}
        for packed in self.states.values():
            if packed.tokenizer != data.tokenizer:
                raise KitError("a teacher's hidden states were made with another tokeniser than the student's; "
                               "they cannot be matched token by token.")
        if self.states:
            self.lengths = data.lengths
            self.pair_offsets = np.concatenate([[0], np.cumsum(self.lengths**2)])

    def batch(self, batch: Batch) -> TeacherBatch:
        device = batch.labels.device
        found = TeacherBatch(self.logits[batch.rows].to(device))
        for t, packed in self.states.items():
            mask = batch.mask.cpu()
            if packed.hidden is not None:
                rows = token_rows(self.data.offsets, self.lengths, batch)
                dense = packed.hidden.new_zeros(*mask.shape, *packed.hidden.shape[1:])           # [B, L, layers, d]
                dense[mask] = packed.hidden[rows[mask]]
                found.hidden[t] = dict(zip(packed.needs.hidden, dense.to(device).unbind(2)))
            if packed.attention is not None:
                rows, real = pair_rows(self.pair_offsets, self.lengths, batch)
                dense = packed.attention.new_zeros(*real.shape, *packed.attention.shape[1:])     # [B, L, L, layers, h]
                dense[real] = packed.attention[rows[real]]
                layers = dense.permute(3, 0, 4, 1, 2).to(device)                                 # [layers, B, h, L, L]
                found.attention[t] = dict(zip(packed.needs.attention, layers))
        return found


class LiveOutputs:
    """Outputs of T teachers computed batch by batch, in eval mode and without gradient. Needs a network per position."""

    def __init__(self, networks: Sequence[nn.Module | None], needs: dict[int, Needs], device: torch.device,
                 logits: StoredOutputs | None = None):
        self.networks, self.needs, self.logits = networks, needs, logits
        for network in networks:
            if network is not None:
                network.to(device).eval().requires_grad_(False)

    def batch(self, batch: Batch) -> TeacherBatch:
        found = TeacherBatch(torch.empty(0)) if self.logits is None else self.logits.batch(batch)
        logits: list[Tensor | None] = [None] * len(self.networks)
        with torch.no_grad():
            for t, network in enumerate(self.networks):
                needs = self.needs.get(t, Needs())
                if network is None or (self.logits is not None and not needs.want):
                    continue
                out = network(batch.inputs, needs.want)
                logits[t] = out.logits
                if needs.hidden:
                    found.hidden[t] = {k: out.hidden[k] for k in needs.hidden}
                if needs.attention:
                    found.attention[t] = {k: out.attention[k - 1] for k in needs.attention}
        if self.logits is None:
            some = next(z for z in logits if z is not None)
            found.logits = torch.stack([torch.zeros_like(some) if z is None else z for z in logits], dim=1)
        return found


def align(row_ids: list[str], table_ids: list[str], table: Tensor, what: str) -> Tensor:
    """Rows of `table` [m, C] put in the order of row_ids. KitError naming an id that the table does not have."""
    where = {name: i for i, name in enumerate(table_ids)}
    if missing := [i for i in row_ids if i not in where]:
        raise KitError(f"{what} has no logits for sample {missing[0]!r} (and {len(missing) - 1} more).")
    return table[[where[i] for i in row_ids]]


def ids_tensor(ids: list[str]) -> Tensor:
    """Ids as bytes, so that they travel in the same safetensors file as the numbers they belong to."""
    return torch.frombuffer(bytearray("\n".join(ids).encode()), dtype=torch.uint8)


def ids_from(tensor: Tensor) -> list[str]:
    return bytes(tensor.numpy()).decode().split("\n")


def read_logits(path: Path, row_ids: list[str]) -> Tensor:
    """Logits [rows, C] stored under `ids` and `logits`, aligned to row_ids."""
    from mtkd.store import tensors_load

    stored = tensors_load(path)
    return align(row_ids, ids_from(stored["ids"]), stored["logits"], f"the stored table {path.name}")
