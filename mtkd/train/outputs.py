"""What the teachers said, by sample: stored once, or computed on the fly.

Logits are always stored. Hidden states and attention scores are stored packed, without padding, while they fit a size
budget; beyond it the teacher runs along with the student. Both roads give the same numbers (tests/test_outputs.py).
Rows are found by sample id and view, never by batch order. A teacher that reads other tokens than the student is brought
to the student's tokens by characters (mtkd/tokens/align.py), on both roads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from mtkd.errors import KitError
from mtkd.rules.registry import Needs, TeacherBatch
from mtkd.tokens import align as alignment
from mtkd.tokens.batches import Batch, ImageData, JointData, TextData, iterate

SCORING_BATCH = 64


@dataclass
class Packed:
    """Inner states of one teacher on one split. hidden [tokens, layers, d]; attention [pairs, layers, h], where the
    pairs (query, key) of a sample of n tokens are n * n consecutive rows. seen [tokens]: None means all."""

    needs: Needs
    tokenizer: str
    hidden: Tensor | None
    attention: Tensor | None
    seen: Tensor | None = None


@dataclass
class Other:
    """The data of a teacher with its own tokeniser, and A [student tokens, its tokens] of the whole split."""

    data: TextData
    matrix: sparse.csr_matrix


def check_lengths(network: nn.Module, *splits: TextData | ImageData | JointData) -> None:
    """KitError where a text has more tokens than the network has positions for."""
    for data in splits:
        if isinstance(data, JointData):
            for number, part in enumerate(data.parts):
                check_lengths(network.member(number), part)
        elif (most := getattr(network, "positions", None)) and (longest := int(data.lengths.max())) > most:
            raise KitError(f"a text has {longest} tokens and {network.name} reads at most {most}: set max_length to {most}, or "
                           "take a model that reads more.")


def evaluate_logits(network: nn.Module, data: TextData | ImageData, device: torch.device, view: int = 0) -> Tensor:
    """Logits [n, C] of a network in eval mode, in the data's own order, or of every token [tokens, C] where the network
    labels tokens; float32 on the CPU."""
    check_lengths(network, data)
    network.to(device).eval()
    found: Tensor | None = None
    with torch.inference_mode():
        for batch in iterate(data, 4 * SCORING_BATCH, None, view, device):
            logits = network(batch.inputs).logits.float().cpu()
            rows = torch.from_numpy(batch.rows // getattr(data, "views", 1))
            if logits.dim() == 3:
                mask = batch.mask.cpu()
                rows, logits = token_rows(data.offsets, batch)[mask], logits[mask]
            if found is None:
                found = torch.empty(int(data.offsets[-1]) if batch.labels.dim() == 2 else len(data), logits.shape[-1])
            found[rows] = logits
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
    check_lengths(network, data)
    network.to(device).eval()
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
            where = token_rows(data.offsets, batch)
            if needs.hidden:
                states = torch.stack([out.hidden[k] for k in needs.hidden], 2)                   # [B, L, layers, d]
                kept["hidden"][where[batch.mask.cpu()]] = states[batch.mask].float().cpu()
            if needs.attention:
                pairs, real = pair_rows(pair_offsets, lengths, batch)
                scores = torch.stack([out.attention[k - 1] for k in needs.attention], 1)         # [B, layers, h, L, L]
                kept["attention"][pairs[real]] = scores.permute(0, 3, 4, 1, 2)[real.to(device)].float().cpu()
    return kept


def token_rows(offsets: np.ndarray, batch: Batch) -> Tensor:
    """Row of every token of a padded batch in the packed array. [B, L]; meaningless where the mask is off."""
    return torch.from_numpy(offsets[batch.rows])[:, None] + batch.mask.cpu().cumsum(1) - 1


def pair_rows(pair_offsets: np.ndarray, lengths: np.ndarray, batch: Batch) -> tuple[Tensor, Tensor]:
    """Rows of every (query, key) pair [B, L, L], and which pairs are real."""
    mask = batch.mask.cpu()
    place = mask.cumsum(1) - 1
    n = torch.from_numpy(lengths[batch.rows])[:, None, None]
    rows = torch.from_numpy(pair_offsets[batch.rows])[:, None, None] + place[:, :, None] * n + place[:, None, :]
    return rows, mask[:, :, None] & mask[:, None, :]


class StoredOutputs:
    """Outputs of T teachers read from tables made beforehand.

    logits [rows, T, C] in the data's row order; states: per teacher position its packed inner states; features [samples, d].
    """

    def __init__(self, data: TextData | ImageData, logits: Tensor, states: dict[int, Packed] | None = None,
                 seen: Tensor | None = None, features: Tensor | None = None):
        self.per_token = getattr(data, "targets", None) is not None
        rows = int(data.offsets[-1]) if self.per_token else len(data.row_ids)
        if logits.shape[0] != rows:
            unit = "tokens" if self.per_token else "samples and views"
            raise KitError(f"teacher outputs have {logits.shape[0]} rows for {rows} {unit}.")
        self.data, self.logits, self.states, self.seen, self.features = data, logits, states or {}, seen, features
        for packed in self.states.values():
            if packed.tokenizer != data.tokenizer:
                raise KitError("a teacher's hidden states were made with another tokeniser than the student's; align them "
                               "first.")
        if self.states:
            self.lengths = data.lengths
            self.pair_offsets = np.concatenate([[0], np.cumsum(self.lengths**2)])

    def batch(self, batch: Batch) -> TeacherBatch:
        device = batch.labels.device
        if self.per_token:
            found = TeacherBatch(self.padded(self.logits, batch).to(device))                      # [B, L, T, C]
            if self.seen is not None:
                found.seen = dict(enumerate(self.padded(self.seen, batch).to(device).unbind(-1)))
        else:
            found = TeacherBatch(self.logits[batch.rows].to(device))
        if self.features is not None:
            found.features = self.features[batch.rows].to(device)
        for t, packed in self.states.items():
            if packed.hidden is not None:
                dense = self.padded(packed.hidden, batch)                                        # [B, L, layers, d]
                found.hidden[t] = dict(zip(packed.needs.hidden, dense.to(device).unbind(2)))
                if packed.seen is not None:
                    found.seen[t] = self.padded(packed.seen, batch).to(device)
            if packed.attention is not None:
                rows, real = pair_rows(self.pair_offsets, self.lengths, batch)
                dense = packed.attention.new_zeros(*real.shape, *packed.attention.shape[1:])     # [B, L, L, layers, h]
                dense[real] = packed.attention[rows[real]]
                layers = dense.permute(3, 0, 4, 1, 2).to(device)                                 # [layers, B, h, L, L]
                found.attention[t] = dict(zip(packed.needs.attention, layers))
        return found

    def padded(self, packed: Tensor, batch: Batch) -> Tensor:
        """Rows of a batch's tokens, zero at the padding. [tokens, ...] -> [B, L, ...]"""
        mask = batch.mask.cpu()
        dense = packed.new_zeros(*mask.shape, *packed.shape[1:])
        dense[mask] = packed[token_rows(self.data.offsets, batch)[mask]]
        return dense


class LiveOutputs:
    """Outputs of T teachers computed batch by batch, in eval mode and without gradient. Needs a network per position;
    `others` holds the data and the alignment of teachers with their own tokeniser, `data` is then the student's."""

    def __init__(self, networks: Sequence[nn.Module | None], needs: dict[int, Needs], device: torch.device,
                 logits: StoredOutputs | None = None, data: TextData | None = None, others: dict[int, Other] | None = None):
        self.networks, self.needs, self.logits, self.data, self.others = networks, needs, logits, data, others or {}
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
                other = self.others.get(t)
                own = batch if other is None else other.data.batch(batch.rows).to(batch.labels.device)
                out = network(own.inputs, needs.want)
                logits[t] = out.logits
                if needs.hidden:
                    found.hidden[t] = {k: out.hidden[k] for k in needs.hidden}
                if needs.hidden and other is not None:
                    matrix = alignment.dense(other.matrix, batch.rows, self.data, other.data, batch.mask.cpu(), own.mask.cpu())
                    matrix = matrix.to(batch.labels.device)                                      # [B, L, L of the teacher]
                    found.hidden[t] = {k: matrix @ h.float() for k, h in found.hidden[t].items()}
                    found.seen[t] = matrix.sum(-1) > 0
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
    from mtkd.store.artifacts import tensors_load

    stored = tensors_load(path)
    return align(row_ids, ids_from(stored["ids"]), stored["logits"], f"the stored table {path.name}")
