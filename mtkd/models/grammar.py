"""What the names of networks mean, read without torch.

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

from mtkd.errors import KitError

TOKENIZERS = {  # family: the kind of tokeniser that it reads (mtkd/tokens/vocabulary.py)
    "bert": "bert", "distilbert": "bert", "roberta": "roberta", "albert": "albert", "xlnet": "xlnet", "deberta": "deberta",
    "deberta-v3": "deberta-v3", "electra": "bert", "mpnet": "mpnet",
}
POOLERS = ("attentive", "mean", "cls")
WORDS = 15_000  # of a Bi-LSTM: "Top 15 thousands of words are selected as vocabulary" (tmkd)
ALIASES = {"tinybert": "scratch-4x312h12f1200"}

HEADED = re.compile(r"(?P<inner>.+) \+ heads-(\d+)")
POOLED = re.compile(rf"(?P<inner>.+) \+ ({'|'.join(POOLERS)})(?:-(\d+))?")
CUT = re.compile(r"(bottom|every|uniform|distilbert)-(\d+) of (?P<inner>.+)")
SCRATCH = re.compile(rf"(?:({'|'.join(TOKENIZERS)})-)?scratch-(\d+)x(\d+)(?:h(\d+))?(?:f(\d+))?")
BILSTM = re.compile(r"bilstm-(\d+)x(\d+)e(\d+)(?:v(\d+))?(-last)?(?: with (.+))?")
RESNET = re.compile(r"resnet-(\d+)(?:w(\d+))?")


def parse(name: str) -> re.Match | None:
    """The match of the first pattern (`match.re`) that a name is of; None for a checkpoint."""
    name = ALIASES.get(name, name)
    return next(filter(None, (kind.fullmatch(name) for kind in (HEADED, POOLED, CUT, SCRATCH, BILSTM, RESNET))), None)


def inner(match: re.Match | None) -> str | None:
    """The name that a wrapped name is built on; None where it is none."""
    return match["inner"] if match and match.re in (HEADED, POOLED, CUT) else None


def core(name: str) -> str:
    """The innermost name: without soft heads, without a pooler, and what a cut is cut from.

    >>> core("bottom-3 of minilm + attentive + heads-3"), core("tinybert + heads-1")
    ('minilm', 'scratch-4x312h12f1200')
    """
    return core(within) if (within := inner(parse(name))) else ALIASES.get(name, name)


def root(name: str) -> str | None:
    """The checkpoint a name is built on, which also owns the tokeniser; None where the model is made from scratch."""
    match = parse(name)
    if match and match.re is CUT and match["inner"] == "teacher":
        raise KitError(f"{name!r} takes its layers from a finished teacher, and none is given here.")
    return name if match is None else root(inner(match)) if inner(match) else None


def tokenizer_kind(name: str) -> str | None:
    """The kind of tokeniser (mtkd.tokens.vocabulary) that a model from scratch, or one cut from it, reads; None for others.

    >>> tokenizer_kind("bottom-1 of albert-scratch-2x64"), tokenizer_kind("electra-scratch-2x64"), tokenizer_kind("minilm")
    ('albert', 'bert', None)
    """
    name = core(name)
    if match := SCRATCH.fullmatch(name):
        return TOKENIZERS[match[1] or "bert"]
    return "words" if BILSTM.fullmatch(name) else None


def soft_heads(name: str) -> int:
    """How many soft heads a name asks for.

    >>> soft_heads("minilm + heads-3"), soft_heads("minilm")
    (3, 0)
    """
    return int(match[2]) if (match := HEADED.fullmatch(name)) else 0


def vocabulary_size(name: str, vocab: int) -> int:
    """Entries of the vocabulary that a model from scratch learns: `vocab`, or what a Bi-LSTM's own name says."""
    return int(match[4] or WORDS) if (match := BILSTM.fullmatch(core(name))) else vocab


def layer_choice(how: str, n: int, depth: int) -> list[int]:
    """Which layers (from 0) of a model of `depth` a student takes.

    >>> layer_choice("uniform", 6, 12), layer_choice("every", 3, 12), layer_choice("bottom", 2, 6)
    ([0, 2, 4, 7, 9, 11], [2, 5, 8, 11], [0, 1])
    """
    if how == "every":
        chosen = list(range(n - 1, depth, n)) if 0 < n <= depth else []
    elif how == "bottom":
        chosen = list(range(n))
    else:  # uniform and distilbert: evenly spaced, both ends included
        chosen = [round(i * (depth - 1) / (n - 1)) for i in range(n)] if n > 1 else [0] * n
    if not chosen or max(chosen) >= depth:
        raise KitError(f"a model of {depth} layers has no '{how}-{n}' student; choose fewer layers.")
    return chosen
