"""Networks by name (mtkd/models/grammar.py says what the names mean), and networks from folders."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from torch import nn

from mtkd.data import hub
from mtkd.errors import KitError
from mtkd.models import bilstm, students
from mtkd.models.families import from_scratch
from mtkd.models.grammar import BILSTM, CUT, HEADED, POOLED, RESNET, SCRATCH, core, parse, root, soft_heads
from mtkd.models.heads import HeadsNetwork, load_heads
from mtkd.models.networks import ImageNetwork, TextNetwork
from mtkd.models.pooling import QUERY, PooledNetwork, Pooler, bare, listed, load_pooled, whole
from mtkd.models.resnet import CifarResNet

__all__ = ["build", "content", "count_parameters", "load", "load_plain", "root", "soft_heads"]

TEXTS, TOKENS = transformers.AutoModelForSequenceClassification, transformers.AutoModelForTokenClassification
transformers.logging.set_verbosity_error()  # "some weights are newly initialised" is what fine-tuning means
transformers.logging.disable_progress_bar()


def content(name: str) -> dict[str, str]:
    """Checksums of what a name points to, for the store's keys: a checkpoint, word vectors; {} where it names neither."""
    if core(name) == "teacher":  # what is cut from a finished teacher has that teacher's key
        return {}
    return bilstm.content(core(name)) | ({"checkpoint": hub.content(source)} if (source := root(name)) else {})


def build(name: str, outputs: int, *, seed: int, vocab: int | None = None, tokens: dict[str, int] | None = None,
          channels: int = 3, regression: bool = False, labels: tuple[str, ...] = (), per_token: bool = False,
          source: TextNetwork | PooledNetwork | None = None, words: dict[str, int] | None = None) -> nn.Module:
    """A network by name with a fresh head of `outputs` logits; random parts drawn from `seed`.

    vocab, tokens: size of the tokeniser's vocabulary and its special ids, for scratch models; words: the vocabulary itself,
    for a Bi-LSTM that starts from a file of word vectors. labels name the outputs in
    the saved config. per_token: logits for every token (span tasks). source: the finished teacher that "... of teacher"
    takes layers from. Raises KitError for a name that means nothing, a missing checkpoint or a depth that does not fit.
    """
    match = parse(name)
    kind = match.re if match else None
    own = {"seed": seed, "vocab": vocab, "tokens": tokens, "words": words}
    if kind is HEADED:
        return HeadsNetwork(build(match["inner"], outputs, channels=channels, regression=regression, labels=labels,
                                  per_token=per_token, source=source, **own), int(match[2]))
    torch.manual_seed(seed)
    if kind is RESNET:
        return ImageNetwork(CifarResNet(int(match[1]), width=int(match[2] or 16), channels=channels, classes=outputs))
    if kind in (POOLED, BILSTM) and per_token:
        raise KitError(f"{name!r} pools a text into one vector, and this task asks about every token.")
    head = {"num_labels": outputs, "problem_type": "regression" if regression else "single_label_classification"}
    if labels:
        head |= {"id2label": dict(enumerate(labels)), "label2id": {c: i for i, c in enumerate(labels)}}
    if kind is POOLED:
        encoder = bare(build(match["inner"], outputs, source=source, **own).hf)
    elif kind is CUT:
        if match["inner"] == "teacher" and source is not None:
            body = getattr(source, "base", source).body  # without soft heads
            big = with_head(body, type(body.config).from_dict({**body.config.to_dict(), **head}), TEXTS)
        else:
            big = build(match["inner"], outputs, **own).hf
    torch.manual_seed(seed)  # once more: what is inside has drawn some numbers
    if kind is POOLED:
        width = encoder.config.hidden_size
        return PooledNetwork(encoder, Pooler(match[2], width, int(match[3] or QUERY)), nn.Linear(width, outputs), labels=labels)
    if kind is SCRATCH:
        hf = from_scratch(match, vocab, head, tokens)
    elif kind is BILSTM:
        hf = bilstm.from_name(match, vocab, head, tokens, words)
    elif kind is CUT:
        hf = students.cut(match[1], int(match[2]), big, head)
    else:
        hf = checkpoint(name, head)
    hf.__dict__["mtkd_scratch"] = source is None and root(name) is None  # random: see mtkd.models.networks.freeze_embeddings
    return TextNetwork(with_head(hf, hf.config, TOKENS) if per_token else hf)


def with_head(body: transformers.PreTrainedModel, config: transformers.PretrainedConfig, auto) -> transformers.PreTrainedModel:
    """The encoder of a transformers model behind a new head of the kind that `auto` makes."""
    made = auto.from_config(config)
    made.base_model.load_state_dict(body.base_model.state_dict(), strict=False)
    made.__dict__["mtkd_scratch"] = body.__dict__.get("mtkd_scratch", False)
    return made


def checkpoint(name: str, head: dict) -> transformers.PreTrainedModel:
    """A pre-trained (or fine-tuned) encoder with a classification head, in float32."""
    place = hub.find(name, "model")
    try:
        made, report = TEXTS.from_pretrained(place, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True,
                                             **head)
    except (OSError, ValueError) as error:
        raise hub.unreachable(error, name) from error
    # The head is new, and so may the pooler be; a layer or a table of the encoder that is drawn at random is no checkpoint.
    inner = [key for key in report["missing_keys"] if students.LAYER.search(key) or "embeddings" in key]
    if inner:
        raise KitError(f"the weights of {name} do not hold the encoder that its config.json describes: {listed(inner)} are "
                       "missing.")
    return made


def load(folder: Path | str) -> nn.Module:
    """A saved network: a transformers folder (of texts or of tokens), a pooled one, or one written by CifarResNet.save; with
    the soft heads that lie beside it."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise KitError(f"there is no model in {folder}: config.json is missing.")
    network = load_plain(folder)
    return load_heads(folder, network) if (folder / "heads.json").is_file() else network


def load_plain(folder: Path) -> TextNetwork | PooledNetwork | ImageNetwork:
    """A saved network without soft heads."""
    if (folder / "head.json").is_file():
        return load_pooled(folder)
    if "depth" in (text := (folder / "config.json").read_text(encoding="utf-8")) and '"model_type"' not in text:
        return ImageNetwork(CifarResNet.load(folder))
    return TextNetwork(whole(folder, TOKENS if "ForTokenClassification" in text else TEXTS))


def count_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
