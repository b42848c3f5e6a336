"""The kit's one call signature: network(inputs, want) -> Outputs, around transformers' models and the ResNets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mtkd.errors import KitError

SCORES = "mtkd_scores"
NO_SCORES = ("xlnet", "deberta", "deberta-v2", "mpnet")  # their attention is not exchangeable in transformers


def attention_with_scores(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    """Eager attention that reports its scores *before* mask and softmax, where `eager` reports probabilities.

    TinyBERT matches scores. transformers lets a model choose its attention function by name, so this one is registered
    under "mtkd_scores" and asked for with `set_attn_implementation`; nothing is patched. Output [B, L, h, d/h] and
    scores [B, h, L, L].
    """
    scores = torch.matmul(query, key.transpose(2, 3)) * (query.size(-1) ** -0.5 if scaling is None else scaling)
    masked = scores if attention_mask is None else scores + attention_mask
    weights = nn.functional.dropout(masked.softmax(-1), p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), scores


ALL_ATTENTION_FUNCTIONS.register(SCORES, attention_with_scores)
ALL_MASK_ATTENTION_FUNCTIONS.register(SCORES, eager_mask)


@dataclass
class Outputs:
    """What a network returns. logits [B, C], or [B, L, C] in a span task; hidden: layers + 1 times [B, L, d] (0 is the
    embedding output); attention: per layer [B, h, L, L] scores before the softmax; heads [B, T, C] where a network has
    several: one per teacher of a co-finetuned set, or a student's soft heads (mtkd/models/heads.py)."""

    logits: Tensor
    hidden: tuple[Tensor, ...] | None = None
    attention: tuple[Tensor, ...] | None = None
    heads: Tensor | None = None


def cls_place(config: transformers.PretrainedConfig) -> int:
    """Position of the [CLS] token in a batch: XLNet writes it last (and is padded on the left), the others first."""
    return -1 if config.model_type == "xlnet" else 0


def positions(model: nn.Module) -> int | None:
    """How many tokens a model reads at most, where it has a table of positions; None where positions are relative."""
    for name, table in model.named_modules():
        if isinstance(table, nn.Embedding) and re.search(r"(^|\.)(position_embeddings|embed_positions|wpe)$", name):
            first = getattr(table, "offset", 0) if table.padding_idx is None else table.padding_idx + 1  # RoBERTa's way
            return table.num_embeddings - first
    return None


class EncoderNetwork(nn.Module):
    """What all networks of text share: a transformers model, `body`, that they run, describe and save."""

    kind = "text"
    body: transformers.PreTrainedModel

    def encode(self, inputs: dict[str, Tensor], want: frozenset[str]):
        """Run the body and show the inner states that are wanted ("hidden", "attention")."""
        config = self.body.config
        plain = self.body.__dict__.setdefault("mtkd_plain", config._attn_implementation)
        if "attention" in want and config.model_type in NO_SCORES:
            raise KitError(f"a {config.model_type} does not show its attention scores; match its hidden states instead.")
        needed = SCORES if "attention" in want else plain
        if config._attn_implementation != needed:
            self.body.set_attn_implementation(needed)
        # XLNet compares the types of two tokens instead of embedding them, so its config counts none
        if not getattr(config, "type_vocab_size", 0) and config.model_type != "xlnet":
            inputs = {k: v for k, v in inputs.items() if k != "token_type_ids"}
        elif getattr(config, "type_vocab_size", 2) == 1:  # RoBERTa: one type for everything
            inputs = {**inputs, "token_type_ids": torch.zeros_like(inputs["input_ids"])}
        return self.body(**inputs, output_hidden_states="hidden" in want, output_attentions="attention" in want)

    @staticmethod
    def shown(logits: Tensor, out, want: frozenset[str]) -> Outputs:
        """The logits, with what was wanted of what the body returned."""
        return Outputs(logits, out.hidden_states if "hidden" in want else None, out.attentions if "attention" in want else None)

    @property
    def shape(self) -> dict[str, int]:
        """What terms that match layers need to know: layers, width, heads, and "cls" where [CLS] is not the first token."""
        config = self.body.config
        if not getattr(config, "num_attention_heads", 0):
            return {}  # a Bi-LSTM: no layers to match
        shape = {"layers": config.num_hidden_layers, "width": config.hidden_size, "heads": config.num_attention_heads}
        return shape | ({"cls": place} if (place := cls_place(config)) else {})

    @property
    def positions(self) -> int | None:
        """How many tokens it reads at most; None where nothing limits it."""
        return positions(self.body)

    @property
    def name(self) -> str:
        """What a sentence calls it: its family, and where it was loaded from."""
        return f"the {self.body.config.model_type} model {self.body.config.name_or_path}".rstrip()

    def freeze_embeddings(self) -> None:
        """Stop training the token embeddings of a pre-trained model; random ones (from scratch) have yet to be learned."""
        if not self.body.__dict__.get("mtkd_scratch", False):
            self.body.get_input_embeddings().requires_grad_(False)

    def save_body(self, folder: Path, tokenizer=None) -> None:
        """A folder that plain `transformers` loads: model, config and, if given, tokeniser, which cuts texts where the model
        ends."""
        self.body.set_attn_implementation(self.body.__dict__.get("mtkd_plain", self.body.config._attn_implementation))
        self.body.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.model_max_length = min(tokenizer.model_max_length, self.positions or tokenizer.model_max_length)
            tokenizer.save_pretrained(folder)


class TextNetwork(EncoderNetwork):
    """A transformers classifier, of texts or (span tasks) of tokens."""

    save = EncoderNetwork.save_body

    def __init__(self, hf: transformers.PreTrainedModel):
        super().__init__()
        self.hf = hf

    @property
    def body(self) -> transformers.PreTrainedModel:
        return self.hf

    def forward(self, inputs: dict[str, Tensor], want: frozenset[str] = frozenset()) -> Outputs:
        out = self.encode(inputs, want)
        return self.shown(out.logits, out, want)


class ImageNetwork(nn.Module):
    """A CIFAR ResNet behind the same signature; inputs {"pixels": float [B, C, H, W]}."""

    kind = "image"
    shape: dict[str, int] = {}  # noqa: RUF012 - no layers to match

    def __init__(self, resnet: nn.Module):
        super().__init__()
        self.resnet = resnet

    def forward(self, inputs: dict[str, Tensor], want: frozenset[str] = frozenset()) -> Outputs:
        return Outputs(self.resnet(inputs["pixels"]))

    def save(self, folder: Path, tokenizer=None) -> None:
        self.resnet.save(folder)
