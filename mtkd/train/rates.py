"""Learning rates that fit the model: what an `Optimisation` with the rate 0 is trained at.

A rate that suits a random model of 64 units destroys a checkpoint of 384 (it answers one class ever after), and one that
suits the checkpoint teaches the small model nothing. Both fall with the width and with the root of the depth:

    from scratch     0.35 / width / sqrt(layers)      2 x 64: 3.9e-3     1 x 8: 4.4e-2      4 x 312: 5.6e-4
    checkpoints      0.095 / width / sqrt(layers)     6 x 384: 1e-4      2 x 384: 1.7e-4    12 x 768: 3.6e-5

The constants are round numbers: the first from validation scores of small models on PyDocs, the second so that
BERT-base and BERT-large come out where their authors' grids lie (2e-5 to 5e-5).
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

from mtkd.data import hub
from mtkd.errors import KitError
from mtkd.models.grammar import ALIASES, BILSTM, CUT, HEADED, POOLED, RESNET, SCRATCH, layer_choice
from mtkd.train.recipes import Optimisation

FRESH, TRAINED = 0.35, 0.095  # see above
RESNET_SGD, RESNET_ADAMW, BILSTM_ADAMW = 0.1, 1e-3, 1e-2
SGD = 30.0  # how much larger a rate momentum SGD takes than AdamW, for the same text model: a guess, not measured


def fitted(name: str, optimiser: str = "adamw", source: str = "") -> float:
    """The learning rate that fits a model by name. source: the name behind the "teacher" in "bottom-2 of teacher".

    Raises KitError for a name that means nothing and a checkpoint that is not at hand.

    >>> fitted("scratch-2x64"), fitted("bottom-1 of albert-scratch-4x64 + mean + heads-3"), fitted("resnet-8", "sgd")
    (0.0039, 0.0055, 0.1)
    """
    name = ALIASES.get(name, name)
    if match := HEADED.fullmatch(name) or POOLED.fullmatch(name):
        return fitted(match[1], optimiser, source)
    if RESNET.fullmatch(name):
        return RESNET_SGD if optimiser == "sgd" else RESNET_ADAMW
    if BILSTM.fullmatch(name):
        return BILSTM_ADAMW * (SGD if optimiser == "sgd" else 1)
    layers, width, fresh = size(name, source)
    rate = (FRESH if fresh else TRAINED) / width / math.sqrt(layers) * (SGD if optimiser == "sgd" else 1)
    return float(f"{rate:.1e}")


def size(name: str, source: str = "") -> tuple[int, int, bool]:
    """(layers, width, whether it starts from random weights) of an encoder by name.

    >>> size("every-2 of scratch-6x128"), size("bottom-1 of teacher", "tinybert + attentive")
    ((3, 128, True), (1, 312, True))
    """
    name = ALIASES.get(name, name)
    if match := HEADED.fullmatch(name) or POOLED.fullmatch(name):
        return size(match[1], source)
    if match := SCRATCH.fullmatch(name):
        return int(match[2]), int(match[3]), True
    if match := CUT.fullmatch(name):
        whole, width, fresh = size(source if match[3] == "teacher" and source else match[3])
        return len(layer_choice(match[1], int(match[2]), whole)), width, fresh
    layers, width = of_checkpoint(name)
    return layers, width, False


@cache
def of_checkpoint(name: str) -> tuple[int, int]:
    """Layers and width of a checkpoint, from its config; (12, 768) where the config names neither."""
    import transformers

    place = hub.find(name, "model")
    try:
        if (config := Path(place) / "config.json").is_file():
            found = json.loads(config.read_text(encoding="utf-8"))
        else:
            found = transformers.AutoConfig.from_pretrained(place).to_dict()
    except (OSError, ValueError) as error:
        raise hub.unreachable(error, name) from error
    layers = next((found[k] for k in ("num_hidden_layers", "n_layers", "n_layer") if found.get(k)), 12)
    return layers, next((found[k] for k in ("hidden_size", "d_model", "dim") if found.get(k)), 768)


def settled(optimisation: Optimisation, name: str, source: str = "") -> Optimisation:
    """The same with a learning rate: its own, or where that is 0 the one that fits the model. KitError below 0."""
    if optimisation.lr < 0:
        raise KitError(f"a learning rate is {optimisation.lr:g}, and it cannot be below 0 (0: the kit chooses one that fits "
                       "the model).")
    return optimisation if optimisation.lr else replace(optimisation, lr=fitted(name, optimisation.optimiser, source))
