"""Encoders behind the kit's own pooler and dense layer, alone or as a set that shares both (mt_bert, section 2.1).

    PooledNetwork    encoder -> pooler -> dense                    a student, or one teacher
    JointNetwork     N encoders -> ONE pooler -> ONE dense         teachers that are fine-tuned together

On disk a pooled network is its encoder in plain transformers layout (AutoModel loads it) with head.safetensors and
head.json beside it. A set is one folder: teacher-0/, teacher-1/ ... and the shared head, once, above them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn

from mtkd.errors import KitError
from mtkd.models.grammar import POOLERS
from mtkd.models.networks import EncoderNetwork, Outputs, cls_place
from mtkd.store.files import tensors_load, tensors_save

QUERY = 200  # size of the attention query (the paper, 3.1)


class Pooler(nn.Module):
    """Token states to one vector per text. attentive: additive attention with one learned query (Yang et al. 2016), the
    paper's choice; mean: over the real tokens; cls: the state of the [CLS] token."""

    def __init__(self, kind: str, width: int, query: int = QUERY):
        super().__init__()
        if kind not in POOLERS:
            raise KitError(f"no such pooler: {kind!r}; there are {', '.join(POOLERS)}.")
        self.kind, self.size = kind, query if kind == "attentive" else QUERY
        if kind == "attentive":
            self.key = nn.Linear(width, query)
            self.query = nn.Linear(query, 1, bias=False)

    def weights(self, states: Tensor, mask: Tensor, cls: int = 0) -> Tensor:
        """How much every token counts; 0 for padding, rows sum to 1. [B, L, d], [B, L] -> [B, L]"""
        mask = mask.to(states.dtype)
        if self.kind == "mean":
            return mask / mask.sum(-1, keepdim=True)
        if self.kind == "cls":
            only = torch.zeros_like(mask)
            only[:, cls] = 1
            return only
        scores = self.query(torch.tanh(self.key(states))).squeeze(-1)                          # [B, L]
        return scores.masked_fill(mask == 0, torch.finfo(scores.dtype).min).softmax(-1)

    def forward(self, states: Tensor, mask: Tensor, cls: int = 0) -> Tensor:
        return torch.einsum("bl,bld->bd", self.weights(states, mask, cls), states)


def bare(hf: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """The encoder of a classifier, without the pooler that some families bring along and that nothing here would train."""
    encoder = hf.base_model
    encoder.__dict__["mtkd_scratch"] = hf.__dict__.get("mtkd_scratch", False)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder


class PooledNetwork(EncoderNetwork):
    """encoder -> (a bias-free map where the widths differ) -> pooler -> dense."""

    def __init__(self, encoder: transformers.PreTrainedModel, pooler: Pooler, dense: nn.Linear,
                 adapt: nn.Linear | None = None, labels: tuple[str, ...] = ()):
        super().__init__()
        self.encoder, self.pooler, self.dense, self.adapt, self.labels = encoder, pooler, dense, adapt, tuple(labels)

    @property
    def body(self) -> transformers.PreTrainedModel:
        return self.encoder

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """[B, L, d], [B, L] -> [B, d of the dense layer]"""
        return self.pooler(states if self.adapt is None else self.adapt(states), mask, cls_place(self.encoder.config))

    def forward(self, inputs: dict[str, Tensor], want: frozenset[str] = frozenset()) -> Outputs:
        out = self.encode(inputs, want)
        return self.shown(self.dense(self.pool(out.last_hidden_state, inputs["attention_mask"])), out, want)

    def take_head(self, other: PooledNetwork) -> None:
        """Start from another network's pooler and dense layer. Where the widths differ a map is put before them: the other's
        own, learned one where it fits (a narrow member of a co-finetuned set has one), else a new one."""
        if other.dense.out_features != self.dense.out_features:
            raise KitError(f"a head of {other.dense.out_features} outputs cannot start one of {self.dense.out_features}.")
        width, own = other.dense.in_features, self.encoder.config.hidden_size
        self.pooler = Pooler(other.pooler.kind, width, other.pooler.size)
        self.dense = nn.Linear(width, other.dense.out_features)
        self.adapt = None if width == own else nn.Linear(own, width, bias=False)
        if self.adapt is not None and other.adapt is not None and other.adapt.weight.shape == self.adapt.weight.shape:
            self.adapt.load_state_dict(other.adapt.state_dict())
        self.pooler.load_state_dict(other.pooler.state_dict())
        self.dense.load_state_dict(other.dense.state_dict())

    def save(self, folder: Path, tokenizer=None) -> None:
        self.save_beside(folder, tokenizer, "head.safetensors")
        save_head(self.pooler, self.dense, folder / "head.safetensors")

    def save_beside(self, folder: Path, tokenizer, head: str) -> None:
        """All but pooler and dense layer, which are in the file `head`, seen from the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.save_body(folder, tokenizer)
        if self.adapt is not None:
            tensors_save(folder / "adapt.safetensors", {"weight": self.adapt.weight})
        about = {"pooler": self.pooler.kind, "query": self.pooler.size, "width": self.dense.in_features,
                 "outputs": self.dense.out_features, "labels": list(self.labels), "head": head}
        (folder / "head.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


class JointNetwork(nn.Module):
    """N encoders on ONE pooler and ONE dense layer. forward gives heads [B, N, C], one row of logits per teacher, and
    their mean as the set's own logits."""

    kind = "text"
    shape: dict[str, int] = {}  # noqa: RUF012 - a set has no single stack of layers

    def __init__(self, encoders: list[transformers.PreTrainedModel], outputs: int, pooler: str = "attentive",
                 query: int = QUERY, labels: tuple[str, ...] = ()):
        super().__init__()
        widths = [e.config.hidden_size for e in encoders]
        width = max(widths)  # the paper's teachers are all 768 wide; a narrower one is mapped to the widest's width
        self.encoders, self.labels = nn.ModuleList(encoders), tuple(labels)
        self.pooler, self.dense = Pooler(pooler, width, query), nn.Linear(width, outputs)
        self.adapts = nn.ModuleList(nn.Identity() if w == width else nn.Linear(w, width, bias=False) for w in widths)

    def member(self, i: int) -> PooledNetwork:
        """Teacher i as a network of its own; pooler and dense layer are the shared ones, not copies."""
        adapt = self.adapts[i] if isinstance(self.adapts[i], nn.Linear) else None
        return PooledNetwork(self.encoders[i], self.pooler, self.dense, adapt, self.labels)

    def forward(self, inputs: dict[str, dict[str, Tensor]], want: frozenset[str] = frozenset()) -> Outputs:
        heads = torch.stack([self.member(i)(inputs[str(i)]).logits for i in range(len(self.encoders))], dim=1)
        return Outputs(heads.mean(1), heads=heads)

    def freeze_embeddings(self) -> None:
        for i in range(len(self.encoders)):
            self.member(i).freeze_embeddings()

    def save(self, folder: Path, tokenizers) -> None:
        """folder/teacher-i for every member, the shared head once in folder/head.safetensors."""
        for i, tokenizer in enumerate(tokenizers):
            self.member(i).save_beside(folder / f"teacher-{i}", tokenizer, "../head.safetensors")
        save_head(self.pooler, self.dense, folder / "head.safetensors")


def save_head(pooler: Pooler, dense: nn.Linear, path: Path) -> None:
    tensors_save(path, nn.ModuleDict({"pooler": pooler, "dense": dense}).state_dict())


def load_pooled(folder: Path) -> PooledNetwork:
    """A network that `PooledNetwork.save` or `JointNetwork.save` wrote. KitError where a part of it is missing."""
    about = json.loads((folder / "head.json").read_text(encoding="utf-8"))
    head = Path(os.path.normpath(folder / about["head"]))
    if not head.is_file():
        raise KitError(f"the pooler and dense layer of {folder} are missing: there is no {about['head']}.")
    encoder = whole(folder, transformers.AutoModel, spare="pooler")  # `bare` takes the encoder's own away
    pooler, dense = Pooler(about["pooler"], about["width"], about["query"]), nn.Linear(about["width"], about["outputs"])
    nn.ModuleDict({"pooler": pooler, "dense": dense}).load_state_dict(tensors_load(head))
    adapt = None
    if (folder / "adapt.safetensors").is_file():
        weight = tensors_load(folder / "adapt.safetensors")["weight"]
        adapt = nn.Linear(*weight.T.shape, bias=False)
        adapt.load_state_dict({"weight": weight})
    return PooledNetwork(bare(encoder), pooler, dense, adapt, tuple(about["labels"]))


def whole(folder: Path, auto, spare: str = "") -> transformers.PreTrainedModel:
    """A finished model from its folder, in float32.

    KitError, with their names, where weights are missing or of another size, which transformers would draw at random; but for
    those whose name has `spare` in it."""
    try:
        model, report = auto.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    except Exception as error:  # a damaged file raises whatever its reader does
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise KitError(f"{folder} holds no model that transformers can load: {first}") from error
    if missing := [key for key in report["missing_keys"] if not spare or spare not in key]:
        raise KitError(f"the model in {folder} is not whole: its weights lack {listed(missing)}, which would be random "
                       "numbers. Save the fine-tuned classifier itself there, with save_pretrained.")
    return model


def listed(keys) -> str:
    """The first names of weights, and how many more there are."""
    keys = sorted(map(str, keys))
    return ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
