"""Students cut from a bigger encoder: which layers they take, and how the weights are carried over."""

from __future__ import annotations

import re

import transformers
from torch import Tensor

from mtkd.errors import KitError
from mtkd.models.grammar import layer_choice

LAYER = re.compile(r"(?:^|\.)layer\.(\d+)\.")  # in the names of weights: encoder.layer.3.output.dense.weight


def cut(how: str, n: int, big: transformers.PreTrainedModel, head: dict) -> transformers.PreTrainedModel:
    """A student whose embeddings and layers are copied from the classifier `big`; its head is new.

    how: "bottom", "every" (n-th), "uniform" or "distilbert"; head: num_labels and the like for the new config. What the
    layers of an encoder share goes along: relative positions (DeBERTa, MPNet), and the one layer that an ALBERT uses at
    every depth, so that a cut of an ALBERT has all its weights and uses the layer fewer times.
    Raises KitError where the layers do not exist or cannot be copied one by one.
    """
    if getattr(big.config, "num_hidden_groups", 1) > 1:
        raise KitError("the layers of this ALBERT are shared in several groups, so that a cut would share them differently; "
                       "choose an ALBERT with one group.")
    chosen = layer_choice(how, n, big.config.num_hidden_layers)
    if how == "distilbert":
        small, weights = as_distilbert(big, chosen, head)
    else:
        depth = getattr(big.config, "attribute_map", {}).get("num_hidden_layers", "num_hidden_layers")  # XLNet: n_layer
        config = type(big.config).from_dict({**big.config.to_dict(), depth: len(chosen), **head})
        small, weights = type(big)(config), pick_layers(big.base_model.state_dict(), chosen)
    missing = small.base_model.load_state_dict(weights, strict=False)
    if [m for m in missing.missing_keys if LAYER.search(m)] or missing.unexpected_keys:
        raise KitError(f"layers of a {big.config.model_type} cannot be copied one by one; "
                       "choose a BERT-like checkpoint.")
    return small


def pick_layers(weights: dict[str, Tensor], chosen: list[int]) -> dict[str, Tensor]:
    """Weights of an encoder with only the chosen layers, renumbered from 0."""
    place = {old: new for new, old in enumerate(chosen)}
    kept = {}
    for key, value in weights.items():
        layer = LAYER.search(key)
        if not layer:
            kept[key] = value
        elif int(layer[1]) in place:
            kept[f"{key[:layer.start(1)]}{place[int(layer[1])]}{key[layer.end(1):]}"] = value
    return kept


BERT_TO_DISTILBERT = {
    "attention.self.query": "attention.q_lin", "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin", "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm", "intermediate.dense": "ffn.lin1", "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
PART = re.compile(rf"encoder\.layer\.(\d+)\.({'|'.join(map(re.escape, BERT_TO_DISTILBERT))})\.")


def as_distilbert(bert, chosen: list[int], head: dict):
    """DistilBERT's shape filled from BERT: no token-type embeddings and no pooler to copy."""
    c = bert.config
    if c.model_type != "bert":
        raise KitError(f"a DistilBERT-shaped student needs a BERT checkpoint, not {c.model_type}.")
    small = transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig(
        vocab_size=c.vocab_size, max_position_embeddings=c.max_position_embeddings, n_layers=len(chosen),
        dim=c.hidden_size, n_heads=c.num_attention_heads, hidden_dim=c.intermediate_size,
        dropout=c.hidden_dropout_prob, attention_dropout=c.attention_probs_dropout_prob,
        seq_classif_dropout=c.hidden_dropout_prob, **head))
    kept = {key: value for key, value in pick_layers(bert.bert.state_dict(), chosen).items()
            if not (key.startswith("pooler") or "token_type" in key or "position_ids" in key)}
    return small, {PART.sub(lambda part: f"transformer.layer.{part[1]}.{BERT_TO_DISTILBERT[part[2]]}.", key): value
                   for key, value in kept.items()}
