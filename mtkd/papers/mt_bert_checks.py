"""What mt_bert's parameters must satisfy, said before anything is trained: contradictions among them, and depths that do not
fit, as far as names and configs tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import transformers

from mtkd.data import hub
from mtkd.errors import KitError
from mtkd.models.families import SCRATCH
from mtkd.models.names import ALIASES, CUT
from mtkd.models.networks import NO_SCORES
from mtkd.models.students import layer_choice
from mtkd.papers.mt_bert_scores import POOLERS, SECTIONS, short_name
from mtkd.study import is_finished, is_table, source_name

if TYPE_CHECKING:
    from mtkd.papers.mt_bert_run import Experiment
    from mtkd.train.teachers import Model

WORDS = {"student_init": ("teacher", "pretrained"), "student_head": ("shared", "new"), "pooler": tuple(POOLERS),
         "combination_start": ("own", "fixed")}


def parameters(e: Experiment) -> None:
    """KitError where parameters contradict each other or cannot be."""
    for name, words in WORDS.items():
        if getattr(e, name) not in words:
            raise KitError(f"{name} is {getattr(e, name)!r}; there are {', '.join(words)}.")
    if unknown := [s for s in e.sections if s not in SECTIONS]:
        raise KitError(f"no such section: {unknown[0]!r}; there are {', '.join(SECTIONS)}.")
    if not e.teachers or not e.student_depths or min(e.student_depths) < 1:
        raise KitError("there must be at least one teacher and one student depth of at least 1.")
    if not e.repeats:
        raise KitError("repeats is empty, and there must be at least one.")
    for name in ("repeats", "student_depths"):
        if len(set(getattr(e, name))) < len(getattr(e, name)):
            raise KitError(f"{name} is {list(getattr(e, name))}, in which one number comes twice.")
    if e.temperature <= 0:
        raise KitError(f"temperature is {e.temperature:g}, and it must be above 0.")
    if e.query_size < 1:
        raise KitError(f"query_size is {e.query_size}, and an attention query needs a size of at least 1.")
    weights(e)
    if len({short_name(name) for name in e.teachers}) < len(e.teachers):  # tables could not tell them apart
        raise KitError("the teachers must differ, in their short names too (the last part of a path, family and size of a "
                       "model from scratch); for several seeds of one model see the notebook seed_ensemble.")
    for name in ("student_from", "baseline_teacher"):
        if not -len(e.teachers) <= getattr(e, name) < len(e.teachers):
            raise KitError(f"{name} is {getattr(e, name)}, and there are {len(e.teachers)} teachers.")
    source = e.teachers[e.student_from]
    if is_table(source):
        raise KitError("student_from names a table of logits, which has no layers for the student to take.")
    if e.combination_start == "fixed" and "combinations" in e.sections and is_finished(source):
        raise KitError("combination_start is 'fixed', which starts from student_from as it was before fine-tuning, and "
                       f"{short_name(source)} is a finished teacher: name the model that it was made from, or use 'own'.")


def weights(e: Experiment) -> None:
    """KitError where a student's pooler and dense layer would have nothing to learn from."""
    if low := [name for name, weight in e.weights.items() if weight < 0]:
        raise KitError(f"{low[0]}_weight is {e.weights[low[0]]:g}, and a weight cannot be below 0.")
    if not e.weights["task"] and not e.weights["distillation"]:
        raise KitError("task_weight and distillation_weight are both 0; the student's pooler and dense layer learn from these "
                       "two, so at least one must be above 0.")
    if "ablations" in e.sections and not (e.weights["task"] and e.weights["distillation"]):
        raise KitError("the section ablations leaves out the task loss and the distillation loss in turn, so task_weight and "
                       "distillation_weight must both be above 0.")


def depths(e: Experiment) -> None:
    """KitError where a student is to have more layers than a teacher: of its source it takes the lowest ones, and the hidden
    loss pairs each of its layers with one of every teacher."""
    most = max(e.student_depths if "main" in e.sections else e.student_depths[:1])
    for name in e.teachers if e.sections else ():
        if (layers := layers_of(name)) is not None and layers < most:
            raise KitError(f"student_depths asks for {most} layers, and the teacher {short_name(name)} has {layers}.")


def layers_of(name: str) -> int | None:
    """How many layers a teacher has, by its name or its config; None for a table of logits, and for what has no layers.

    >>> layers_of("roberta-scratch-2x64"), layers_of("every-2 of scratch-6x64"), layers_of("said.parquet")
    (2, 3, None)
    """
    if is_table(name):
        return None
    name = ALIASES.get(name, name)
    if match := SCRATCH.fullmatch(name):
        return int(match[2])
    if match := CUT.fullmatch(name):
        whole = layers_of(match[3])
        return None if whole is None else len(layer_choice(match[1], int(match[2]), whole))
    if is_finished(name):
        try:
            config = json.loads((Path(source_name(name)) / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None  # loading it says what is wrong
        return config.get("num_hidden_layers") or config.get("n_layers") or config.get("n_layer")
    try:
        return getattr(transformers.AutoConfig.from_pretrained(hub.find(name, "model")), "num_hidden_layers", None)
    except (OSError, ValueError) as error:
        raise hub.unreachable(error, name) from error


def shows_attention(model: Model) -> bool:
    """Whether a finished model's family shows its attention scores (MPNet, XLNet and DeBERTa do not)."""
    config = json.loads((model.folder / "config.json").read_text(encoding="utf-8"))
    return config["model_type"] not in NO_SCORES
