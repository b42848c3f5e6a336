"""Networks by name: encoders from the hub, a folder or from scratch; students cut from a bigger model; ResNets.

A name is a short text that a params file can hold:

    scratch-2x64            BERT with 2 layers of width 64, random, 4 heads; h12 and f1200 set heads and feed-forward width
    F-scratch-2x64          the same size in family F's layout, with a tokeniser of F's kind (models/families.py):
        distilbert              no token types, no pooler             roberta     byte-level BPE, one token type
        albert                  one layer used L times, narrow        electra     narrow embeddings (at most 128)
                                embeddings (at most 128), Unigram     mpnet       relative position buckets, <s> A </s>
        xlnet                   relative positions, padded on the     deberta     disentangled attention, byte-level BPE
                                left, read at the last token          deberta-v3  the same in buckets, shared keys, Unigram
    tinybert                scratch-4x312h12f1200, the 4-layer TinyBERT
    minilm | org/name | folder      a checkpoint with its own tokeniser (hub, mirror or disk)
    bottom-2 of NAME        the lowest 2 layers of NAME           every-3 of NAME   layers 3, 6, 9, ... counted from 1
    uniform-6 of NAME       6 layers spread from first to last    distilbert-6 of NAME   the same, in DistilBERT's shape
    bottom-2 of teacher     the same, cut from a finished teacher that is handed over (mtkd.train.distil.Init)
    NAME + attentive        NAME's encoder behind the kit's own pooler (attentive, mean or cls; attentive-200 sets the size
                            of the query) and one dense layer, see mtkd/models/pooling.py
    NAME + heads-3          NAME with three soft heads beside its classifier, one per teacher (mtkd/models/heads.py)
    bilstm-2x256e300        2 bidirectional LSTM layers of 256 units on word vectors of size 300; "... with FILE" starts from
                            word vectors in GloVe's format (mtkd/models/bilstm.py)
    resnet-20, resnet-8w8   CIFAR ResNet-(6n+2), optionally with another first width
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
import transformers
from torch import nn

from mtkd.data import hub
from mtkd.errors import KitError
from mtkd.models import bilstm, students
from mtkd.models.bilstm import BILSTM
from mtkd.models.families import FAMILIES, SCRATCH, from_scratch
from mtkd.models.heads import HeadsNetwork, load_heads
from mtkd.models.networks import SCORES, ImageNetwork, Outputs, TextNetwork, attention_with_scores
from mtkd.models.pooling import POOLERS, QUERY, PooledNetwork, Pooler, bare, load_pooled

__all__ = ["SCORES", "ImageNetwork", "Outputs", "TextNetwork", "attention_with_scores", "build", "count_parameters", "load",
           "root"]

transformers.logging.set_verbosity_error()  # "some weights are newly initialised" is what fine-tuning means
transformers.logging.disable_progress_bar()

RESNET = re.compile(r"resnet-(\d+)(?:w(\d+))?")
CUT = re.compile(r"(bottom|every|uniform|distilbert)-(\d+) of (.+)")
POOLED = re.compile(rf"(.+) \+ ({'|'.join(POOLERS)})(?:-(\d+))?")
HEADED = re.compile(r"(.+) \+ heads-(\d+)")
ALIASES = {"tinybert": "scratch-4x312h12f1200"}


def root(name: str) -> str | None:
    """The checkpoint a name is built on, which also owns the tokeniser; None where the model is made from scratch."""
    name = ALIASES.get(name, name)
    if wrapped := HEADED.fullmatch(name) or POOLED.fullmatch(name):
        return root(wrapped[1])
    if cut := CUT.fullmatch(name):
        if cut[3] == "teacher":
            raise KitError(f"{name!r} takes its layers from a finished teacher, and none is given here.")
        return root(cut[3])
    return None if any(made.fullmatch(name) for made in (SCRATCH, RESNET, BILSTM)) else name


def tokenizer_kind(name: str) -> str | None:
    """The kind of tokeniser (mtkd.tokens.vocabulary) that a model from scratch, or one cut from it, reads; None for others.

    >>> tokenizer_kind("bottom-1 of albert-scratch-2x64"), tokenizer_kind("electra-scratch-2x64"), tokenizer_kind("minilm")
    ('albert', 'bert', None)
    """
    name = core(name)
    if BILSTM.fullmatch(name):
        return "words"
    match = SCRATCH.fullmatch(name)
    return FAMILIES[match[1] or "bert"].tokenizer if match else None


def core(name: str) -> str:
    """The innermost name: without soft heads, without a pooler, and what a cut is cut from.

    >>> core("bottom-3 of minilm + attentive + heads-3"), core("tinybert + heads-1")
    ('minilm', 'scratch-4x312h12f1200')
    """
    name = ALIASES.get(name, name)
    if match := HEADED.fullmatch(name) or POOLED.fullmatch(name) or CUT.fullmatch(name):
        return core(match[3] if match.re is CUT else match[1])
    return name


def soft_heads(name: str) -> int:
    """How many soft heads a name asks for.

    >>> soft_heads("minilm + heads-3"), soft_heads("minilm")
    (3, 0)
    """
    return int(match[2]) if (match := HEADED.fullmatch(name)) else 0


def vocabulary_size(name: str, vocab: int) -> int:
    """Entries of the vocabulary that a model from scratch learns: `vocab`, or what a Bi-LSTM's own name says."""
    match = BILSTM.fullmatch(core(name))
    return int(match[4] or bilstm.WORDS) if match else vocab


def content(name: str) -> dict[str, str]:
    """Checksums of the files that a name points to besides checkpoints, for the store's keys."""
    return bilstm.content(core(name))


def build(name: str, outputs: int, *, seed: int, vocab: int | None = None, tokens: dict[str, int] | None = None,
          channels: int = 3, regression: bool = False, labels: tuple[str, ...] = (), per_token: bool = False,
          source: TextNetwork | PooledNetwork | None = None, words: dict[str, int] | None = None) -> nn.Module:
    """A network by name with a fresh head of `outputs` logits; random parts drawn from `seed`.

    vocab, tokens: size of the tokeniser's vocabulary and its special ids, for scratch models; words: the vocabulary itself,
    for a Bi-LSTM that starts from a file of word vectors. labels name the outputs in
    the saved config. per_token: logits for every token (span tasks). source: the finished teacher that "... of teacher"
    takes layers from. Raises KitError for a name that means nothing, a missing checkpoint or a depth that does not fit.
    """
    name = ALIASES.get(name, name)
    if match := HEADED.fullmatch(name):
        return HeadsNetwork(build(match[1], outputs, seed=seed, vocab=vocab, tokens=tokens, channels=channels, words=words,
                                  regression=regression, labels=labels, per_token=per_token, source=source), int(match[2]))
    torch.manual_seed(seed)
    if match := RESNET.fullmatch(name):
        from mtkd.models.resnet import CifarResNet

        return ImageNetwork(CifarResNet(int(match[1]), width=int(match[2] or 16), channels=channels, classes=outputs))
    head = {"num_labels": outputs, "problem_type": "regression" if regression else "single_label_classification"}
    if labels:
        head |= {"id2label": dict(enumerate(labels)), "label2id": {c: i for i, c in enumerate(labels)}}
    if match := POOLED.fullmatch(name):
        if per_token:
            raise KitError(f"{name!r} pools a text into one vector, and this task asks about every token.")
        encoder = bare(build(match[1], outputs, seed=seed, vocab=vocab, tokens=tokens, source=source, words=words).hf)
        torch.manual_seed(seed)
        width = encoder.config.hidden_size
        return PooledNetwork(encoder, Pooler(match[2], width, int(match[3] or QUERY)), nn.Linear(width, outputs), labels=labels)
    if match := SCRATCH.fullmatch(name):
        hf = from_scratch(match, vocab, head, tokens)
    elif match := BILSTM.fullmatch(name):
        if per_token:
            raise KitError(f"{name!r} pools a text into one vector, and this task asks about every token.")
        hf = bilstm.from_name(match, vocab, head, tokens, words)
    elif match := CUT.fullmatch(name):
        big = with_head(source, head) if match[3] == "teacher" and source is not None else build(
            match[3], outputs, seed=seed, vocab=vocab, tokens=tokens, words=words).hf
        torch.manual_seed(seed)
        hf = students.cut(match[1], int(match[2]), big, head)
    else:
        hf = checkpoint(name, head)
    hf.__dict__["mtkd_scratch"] = source is None and root(name) is None  # random: see mtkd.models.networks.freeze_embeddings
    return TextNetwork(with_token_head(hf) if per_token else hf)


def with_head(network: TextNetwork | PooledNetwork, head: dict) -> transformers.PreTrainedModel:
    """A text classifier around a finished network's encoder; its head is new."""
    network = getattr(network, "base", network)  # without soft heads
    encoder = getattr(network, "encoder", None) or network.hf.base_model
    config = type(encoder.config).from_dict({**encoder.config.to_dict(), **head})
    made = transformers.AutoModelForSequenceClassification.from_config(config)
    made.base_model.load_state_dict(encoder.state_dict(), strict=False)
    return made


def with_token_head(hf: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """The same encoder with a head that classifies every token."""
    made = transformers.AutoModelForTokenClassification.from_config(hf.config)
    made.base_model.load_state_dict(hf.base_model.state_dict(), strict=False)
    made.__dict__["mtkd_scratch"] = hf.__dict__.get("mtkd_scratch", False)
    return made


def checkpoint(name: str, head: dict):
    """A pre-trained (or fine-tuned) encoder with a classification head, in float32."""
    place = hub.find(name, "model")
    try:
        return transformers.AutoModelForSequenceClassification.from_pretrained(
            place, dtype=torch.float32, ignore_mismatched_sizes=True, **head)
    except (OSError, ValueError) as error:
        raise hub.unreachable(error, name) from error


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
        from mtkd.models.resnet import CifarResNet

        return ImageNetwork(CifarResNet.load(folder))
    auto = (transformers.AutoModelForTokenClassification if "ForTokenClassification" in text
            else transformers.AutoModelForSequenceClassification)
    try:
        return TextNetwork(auto.from_pretrained(folder, dtype=torch.float32))
    except (OSError, ValueError) as error:
        raise KitError(f"{folder} holds no model that transformers can load: {str(error).splitlines()[0]}") from error


def count_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
