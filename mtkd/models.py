"""Networks by name: encoders from the hub, a folder or from scratch; students cut from a bigger model; ResNets.

A name is a short text that a params file can hold:

    scratch-2x64            BERT with 2 layers of width 64, random, 4 heads; h12 and f1200 set heads and feed-forward width
    distilbert-scratch-1x64 DistilBERT's shape (no token types, no pooler), random
    tinybert                scratch-4x312h12f1200, the 4-layer TinyBERT
    minilm | org/name | folder      a checkpoint with its own tokeniser (hub, mirror or disk)
    bottom-2 of NAME        the lowest 2 layers of NAME           every-3 of NAME   layers 3, 6, 9, ... counted from 1
    uniform-6 of NAME       6 layers spread from first to last    distilbert-6 of NAME   the same, in DistilBERT's shape
    resnet-20, resnet-8w8   CIFAR ResNet-(6n+2), optionally with another first width
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mtkd import hub, students
from mtkd.errors import KitError

transformers.logging.set_verbosity_error()  # "some weights are newly initialised" is what fine-tuning means
transformers.logging.disable_progress_bar()

SCORES = "mtkd_scores"


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
    """What a network returns. logits [B, C]; hidden: layers + 1 times [B, L, d] (0 is the embedding output);
    attention: per layer [B, h, L, L] scores before the softmax; heads [B, T, C] where a student has several."""

    logits: Tensor
    hidden: tuple[Tensor, ...] | None = None
    attention: tuple[Tensor, ...] | None = None
    heads: Tensor | None = None


class TextNetwork(nn.Module):
    """A transformers sequence classifier behind the kit's one call signature."""

    kind = "text"

    def __init__(self, hf: transformers.PreTrainedModel):
        super().__init__()
        self.hf = hf
        self.takes_types = getattr(hf.config, "type_vocab_size", 0) > 0
        self.plain_attention = hf.config._attn_implementation

    def forward(self, inputs: dict[str, Tensor], want: frozenset[str] = frozenset()) -> Outputs:
        needed = SCORES if "attention" in want else self.plain_attention
        if self.hf.config._attn_implementation != needed:
            self.hf.set_attn_implementation(needed)
        if not self.takes_types:
            inputs = {k: v for k, v in inputs.items() if k != "token_type_ids"}
        out = self.hf(**inputs, output_hidden_states="hidden" in want, output_attentions="attention" in want)
        return Outputs(out.logits, out.hidden_states if "hidden" in want else None,
                       out.attentions if "attention" in want else None)

    @property
    def shape(self) -> dict[str, int]:
        c = self.hf.config
        return {"layers": c.num_hidden_layers, "width": c.hidden_size, "heads": c.num_attention_heads}

    def freeze_embeddings(self) -> None:
        for p in self.hf.get_input_embeddings().parameters():
            p.requires_grad_(False)

    def save(self, folder: Path, tokenizer=None) -> None:
        """A folder that plain `transformers` loads: model, config and, if given, tokeniser."""
        self.hf.set_attn_implementation(self.plain_attention)
        self.hf.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)


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


SCRATCH = re.compile(r"(distilbert-)?scratch-(\d+)x(\d+)(?:h(\d+))?(?:f(\d+))?")
RESNET = re.compile(r"resnet-(\d+)(?:w(\d+))?")
CUT = re.compile(r"(bottom|every|uniform|distilbert)-(\d+) of (.+)")
ALIASES = {"tinybert": "scratch-4x312h12f1200"}


def root(name: str) -> str | None:
    """The checkpoint a name is built on, which also owns the tokeniser; None where the model is made from scratch."""
    name = ALIASES.get(name, name)
    if cut := CUT.fullmatch(name):
        return root(cut[3])
    return None if SCRATCH.fullmatch(name) or RESNET.fullmatch(name) else name


def build(name: str, outputs: int, *, seed: int, vocab: int | None = None, channels: int = 3, regression: bool = False,
          labels: tuple[str, ...] = ()) -> TextNetwork | ImageNetwork:
    """A network by name with a fresh head of `outputs` logits; random parts drawn from `seed`.

    vocab: size of the tokeniser's vocabulary, for scratch models. labels name the outputs in the saved config.
    Raises KitError for a name that means nothing, a missing checkpoint or a depth that does not fit.
    """
    name = ALIASES.get(name, name)
    torch.manual_seed(seed)
    if match := RESNET.fullmatch(name):
        from mtkd.resnet import CifarResNet

        return ImageNetwork(CifarResNet(int(match[1]), width=int(match[2] or 16), channels=channels, classes=outputs))
    head = {"num_labels": outputs, "problem_type": "regression" if regression else "single_label_classification"}
    if labels:
        head |= {"id2label": dict(enumerate(labels)), "label2id": {c: i for i, c in enumerate(labels)}}
    if match := SCRATCH.fullmatch(name):
        return TextNetwork(from_scratch(match, vocab, head))
    if match := CUT.fullmatch(name):
        big = build(match[3], outputs, seed=seed, vocab=vocab).hf
        torch.manual_seed(seed)
        return TextNetwork(students.cut(match[1], int(match[2]), big, head))
    return TextNetwork(checkpoint(name, head))


def no_dropout(*names: str) -> dict[str, float]:
    """Tiny models that see a few thousand sentences underfit; dropout costs them accuracy and a third of the time."""
    return dict.fromkeys(names, 0.0)


def from_scratch(match: re.Match, vocab: int | None, head: dict):
    distil, layers, width, heads, ffn = match[1], *(int(g) if g else None for g in match.groups()[1:])
    heads = heads or 4
    if width % heads:
        raise KitError(f"a width of {width} cannot be split into {heads} heads in {match[0]!r}.")
    if distil:
        config = transformers.DistilBertConfig(vocab_size=vocab or 30522, n_layers=layers, dim=width, n_heads=heads,
                                               hidden_dim=ffn or 4 * width, initializer_range=0.02 * (768 / width) ** 0.5,
                                               **no_dropout("dropout", "attention_dropout", "seq_classif_dropout"), **head)
        return transformers.DistilBertForSequenceClassification(config)
    config = transformers.BertConfig(vocab_size=vocab or 30522, num_hidden_layers=layers, hidden_size=width,
                                     num_attention_heads=heads, intermediate_size=ffn or 4 * width,
                                     initializer_range=0.02 * (768 / width) ** 0.5,  # BERT's 0.02 at BERT's width
                                     **no_dropout("hidden_dropout_prob", "attention_probs_dropout_prob"), **head)
    return transformers.BertForSequenceClassification(config)


def checkpoint(name: str, head: dict):
    """A pre-trained (or fine-tuned) encoder with a classification head, in float32."""
    place = hub.find(name, "model")
    try:
        return transformers.AutoModelForSequenceClassification.from_pretrained(
            place, dtype=torch.float32, ignore_mismatched_sizes=True, **head)
    except (OSError, ValueError) as error:
        raise hub.unreachable(error, name) from error


def load(folder: Path | str) -> TextNetwork | ImageNetwork:
    """A saved network: a transformers folder or one written by CifarResNet.save."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise KitError(f"there is no model in {folder}: config.json is missing.")
    if "depth" in (text := (folder / "config.json").read_text(encoding="utf-8")) and '"model_type"' not in text:
        from mtkd.resnet import CifarResNet

        return ImageNetwork(CifarResNet.load(folder))
    try:
        return TextNetwork(transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32))
    except (OSError, ValueError) as error:
        raise KitError(f"{folder} holds no model that transformers can load: {str(error).splitlines()[0]}") from error


def count_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
