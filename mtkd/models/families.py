"""Encoders from scratch: small random models of the families that the papers take their teachers from.

    [family-]scratch-LxW[hH][fF]     L layers of width W, H heads (4 unless said), feed-forward width F (4 W unless said)

Layouts follow the families' base checkpoints; sizes come from the name. There is no dropout: tiny models that see a few
thousand sentences underfit, and dropout costs them accuracy and a third of the time. Weights start at the family's spread
scaled to the width. Every family reads up to 512 tokens.
"""

from __future__ import annotations

import re

import transformers

from mtkd.errors import KitError
from mtkd.models.grammar import TOKENIZERS
from mtkd.tokens.vocabulary import SPECIAL

LENGTH = 512
SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
OTHER_SIZES = {"distilbert": ("n_layers", "dim", "n_heads", "hidden_dim"), "xlnet": ("n_layer", "d_model", "n_head", "d_inner")}
DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
DISENTANGLED = {**DROPOUT, "relative_attention": True, "position_biased_input": False, "pos_att_type": ["c2p", "p2c"]}
FAMILIES = {  # transformers' class, and what makes the family what it is besides sizes
    "bert": (transformers.BertConfig, DROPOUT),
    "distilbert": (transformers.DistilBertConfig, {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0}),
    "roberta": (transformers.RobertaConfig, {**DROPOUT, "type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "albert": (transformers.AlbertConfig, {**DROPOUT, "classifier_dropout_prob": 0.0}),
    "xlnet": (transformers.XLNetConfig, {"dropout": 0.0, "summary_last_dropout": 0.0, "mem_len": None, "use_mems_eval": False}),
    "deberta": (transformers.DebertaConfig, DISENTANGLED),
    "deberta-v3": (transformers.DebertaV2Config, {
        **DISENTANGLED, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True}),
    "electra": (transformers.ElectraConfig, {**DROPOUT, "summary_last_dropout": 0.0}),
    "mpnet": (transformers.MPNetConfig, {**DROPOUT, "layer_norm_eps": 1e-5}),
}


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
    if tokens is None:
        tokens = {special: i for i, special in enumerate(SPECIAL[TOKENIZERS[name]])}
    pad = tokens.get("pad", 0)
    if name == "mpnet" and pad != 1:
        raise KitError(f"{match[0]!r} needs a tokeniser of MPNet's kind, whose padding token has number 1 and not {pad}.")
    kind, layout = FAMILIES[name]
    options = layout | dict(zip(OTHER_SIZES.get(name, SIZES), (layers, width, heads, ffn or 4 * width)))
    options |= {f"{special}_token_id": tokens[special] for special in ("bos", "eos") if special in tokens}
    if name in ("albert", "electra"):
        options["embedding_size"] = min(width, 128)
    if name in ("roberta", "mpnet"):
        options["max_position_embeddings"] = LENGTH + pad + 1
    config = kind(vocab_size=vocab or 30522, pad_token_id=pad, **options, **head,
                  initializer_range=0.02 * (768 / width) ** 0.5)  # 0.02 at the base checkpoints' width
    return transformers.AutoModelForSequenceClassification.from_config(config)
