"""Students cut from a bigger encoder: which layers they take, and how the weights are carried over."""

from __future__ import annotations

import re

import transformers
from torch import Tensor

from mtkd.errors import KitError

LAYER = re.compile(r"(?:^|\.)layer\.(\d+)\.")  # in the names of weights: encoder.layer.3.output.dense.weight


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
    weights = {}
    for key, value in pick_layers(bert.bert.state_dict(), chosen).items():
        if key.startswith("pooler") or "token_type" in key or "position_ids" in key:
            continue
        key = key.replace("encoder.layer.", "transformer.layer.")
        for old, new in BERT_TO_DISTILBERT.items():
            if re.search(rf"layer\.\d+\.{re.escape(old)}\.", key):
                key = key.replace(old, new)
                break
        weights[key] = value
    return small, weights
