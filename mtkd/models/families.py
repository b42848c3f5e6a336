"""Encoders from scratch: small random models of the families that the papers take their teachers from.

    [family-]scratch-LxW[hH][fF]     L layers of width W, H heads (4 unless said), feed-forward width F (4 W unless said)

Layouts follow the families' base checkpoints; sizes come from the name. There is no dropout, and weights start at the
family's spread scaled to the width. Every family reads up to 512 tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import transformers

from mtkd.errors import KitError
from mtkd.tokens.vocabulary import SPECIAL

LENGTH = 512


def no_dropout(*names: str) -> dict[str, float]:
    """Tiny models that see a few thousand sentences underfit; dropout costs them accuracy and a third of the time."""
    return dict.fromkeys(names, 0.0)


@dataclass(frozen=True)
class Family:
    """config: transformers' class; tokenizer: a kind of tokens.vocabulary; sizes: what the config calls layers, width, heads
    and feed-forward width; layout: everything else that makes the family what it is."""

    config: type
    tokenizer: str
    sizes: tuple[str, str, str, str] = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    layout: dict = field(default_factory=lambda: no_dropout("hidden_dropout_prob", "attention_probs_dropout_prob"))


PLAIN = no_dropout("hidden_dropout_prob", "attention_probs_dropout_prob")
DISENTANGLED = {**PLAIN, "relative_attention": True, "position_biased_input": False, "pos_att_type": ["c2p", "p2c"]}

FAMILIES = {
    "bert": Family(transformers.BertConfig, "bert"),
    "distilbert": Family(transformers.DistilBertConfig, "bert", ("n_layers", "dim", "n_heads", "hidden_dim"),
                         no_dropout("dropout", "attention_dropout", "seq_classif_dropout")),
    "roberta": Family(transformers.RobertaConfig, "roberta", layout={**PLAIN, "type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "albert": Family(transformers.AlbertConfig, "albert", layout={**PLAIN, **no_dropout("classifier_dropout_prob")}),
    "xlnet": Family(transformers.XLNetConfig, "xlnet", ("n_layer", "d_model", "n_head", "d_inner"),
                    {**no_dropout("dropout", "summary_last_dropout"), "mem_len": None, "use_mems_eval": False}),
    "deberta": Family(transformers.DebertaConfig, "deberta", layout=DISENTANGLED),
    "deberta-v3": Family(transformers.DebertaV2Config, "deberta-v3", layout={
        **DISENTANGLED, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True}),
    "electra": Family(transformers.ElectraConfig, "bert", layout={**PLAIN, **no_dropout("summary_last_dropout")}),
    "mpnet": Family(transformers.MPNetConfig, "mpnet", layout={**PLAIN, "layer_norm_eps": 1e-5}),
}
SCRATCH = re.compile(rf"(?:({'|'.join(FAMILIES)})-)?scratch-(\d+)x(\d+)(?:h(\d+))?(?:f(\d+))?")


def from_scratch(match: re.Match, vocab: int | None, head: dict, tokens: dict[str, int] | None = None):
    """A random classifier for a name that SCRATCH matches.

    vocab: rows of the token table (30522 unless given); tokens: ids of the special tokens ("pad", "bos", "eos" are used),
    those of the family's own learned vocabulary unless given. ALBERT and ELECTRA have embeddings of at most 128. RoBERTa
    and MPNet number positions from pad + 1, and MPNet's code takes 1 for the pad whatever its config says.
    Raises KitError where the heads do not divide the width, or MPNet meets another family's tokeniser.
    """
    name = match[1] or "bert"
    layers, width, heads, ffn = (int(g) if g else None for g in match.groups()[1:])
    heads = heads or 4
    if width % heads:
        raise KitError(f"a width of {width} cannot be split into {heads} heads in {match[0]!r}.")
    family = FAMILIES[name]
    if tokens is None:
        tokens = {special: i for i, special in enumerate(SPECIAL[family.tokenizer])}
    pad = tokens.get("pad", 0)
    options = dict(family.layout) | dict(zip(family.sizes, (layers, width, heads, ffn or 4 * width)))
    options |= {f"{special}_token_id": tokens[special] for special in ("bos", "eos") if special in tokens}
    if name in ("albert", "electra"):
        options["embedding_size"] = min(width, 128)
    if name in ("roberta", "mpnet"):
        options["max_position_embeddings"] = LENGTH + pad + 1
    if name == "mpnet" and pad != 1:
        raise KitError(f"{match[0]!r} needs a tokeniser of MPNet's kind, whose padding token has number 1 and not {pad}.")
    config = family.config(vocab_size=vocab or 30522, pad_token_id=pad, **options, **head,
                           initializer_range=0.02 * (768 / width) ** 0.5)  # 0.02 at the base checkpoints' width
    return transformers.AutoModelForSequenceClassification.from_config(config)
