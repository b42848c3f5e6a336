"""What models answer, and whether a teacher has learned enough to be listened to; teachers made elsewhere, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mtkd.data.files import SUFFIXES
from mtkd.data.tasks import Task
from mtkd.errors import KitError
from mtkd.measure.metrics import compute_metrics, pack_right
from mtkd.store.artifacts import tensors_load
from mtkd.train import floors, rates, teachers
from mtkd.train.prepare import Prepared
from mtkd.train.teachers import Model

FINISHED = "finished:"  # before a folder: a teacher that is not trained here


def is_table(name: str) -> bool:
    """Whether a teacher's name is that of a table of logits."""
    return name.lower().endswith(SUFFIXES)


def is_finished(name: str) -> bool:
    """Whether a teacher's name is that of one that needs no training: a folder ("finished:PATH") or a table of logits.

    >>> is_finished("finished:my-teacher"), is_finished("logits.parquet"), is_finished("bert-base-uncased")
    (True, True, False)
    """
    return name.startswith(FINISHED) or is_table(name)


def source_name(name: str) -> str:
    """A teacher's name as a model's: without the mark of a finished one."""
    return name.removeprefix(FINISHED)


def shown(name: str) -> str:
    """A teacher's name in tables: the name itself, or what a finished one's file or folder is called."""
    return Path(source_name(name)).name if is_finished(name) else name


def finished_teacher(prepared: Prepared, name: str) -> Model:
    """The teacher that a finished one's name says."""
    return teachers.teacher_from_table(name) if is_table(name) else teachers.teacher_from_folder(prepared, source_name(name))


def answers(prepared: Prepared, model: Model, split: str) -> Tensor:
    """A model's logits on a split, [n, C], or [tokens, C] on its own tokens in a span task: those stored when it was trained,
    else scored now. What lies in the folder of a finished teacher is not read: it may be of another run's samples."""
    if "seconds" in model.info and (model.folder / f"logits-{split}.safetensors").is_file():
        return model.logits(split)
    if prepared.task.kind == "span":
        return tensors_load(teachers.score(prepared, model, split).folder / "logits.safetensors")["logits"]
    return teachers.logits_of(prepared, model, split)


def answered(task: Task, logits: np.ndarray | Tensor, split: str = "test") -> dict:
    """The part of a row that says what a model answered, from its logits [n, C] on a split: right, which items were right
    (metrics.pack_right; None without classes per item), and one_answer, whether it gave the same answer to all."""
    logits = np.asarray(logits)
    if task.kind == "span":
        return {"right": None, "one_answer": bool(np.ptp(logits.argmax(-1)) == 0)}
    if task.regression:
        return {"right": None, "one_answer": bool(np.ptp(logits) == 0)}
    said = logits.argmax(-1)
    return {"right": pack_right(said == task.splits[split].labels), "one_answer": bool(np.ptp(said) == 0)}


def sound(prepared: Prepared, models: Sequence[Model], weak: str = "stop") -> list[Model]:
    """The teachers as they are given, if each has learned something: on validation it gives more than one answer and is better
    than the class most frequent in train. Else KitError, before anybody learns from it; weak="mark" lets it pass, and tables
    mark it."""
    task = prepared.task
    if weak == "mark" or task.kind == "span":
        return list(models)
    labels, metric = task.splits["validation"].labels, task.metric
    least = compute_metrics(floors.majority(task)["validation"], labels, (metric,))[metric]
    for model in models:
        said = answers(prepared, model, "validation").numpy()
        score = compute_metrics(said, labels, (metric,))[metric]
        one = answered(task, said, "validation")["one_answer"]
        if one or score <= least:
            what = "gives the same answer to every validation sample" if one else (
                f"is no better on validation ({metric} {score:.3f}) than the most frequent class ({least:.3f})")
            rate = model.info.get("lr")
            tried = f" It was trained at the learning rate {rate:g}; {advice(model, rate)}" if rate else ""
            if not rate and (why := floors.unfit(task, prepared.data("validation"), torch.from_numpy(said))):  # made elsewhere
                tried = f" It {why}"
            raise KitError(f"the teacher {model.name} {what}, so there is nothing to learn from it.{tried} To go on all the "
                           "same: weak_teachers mark.")
    return list(models)


def advice(model: Model, rate: float) -> str:
    """What to try with a model that has learned nothing at this rate."""
    fits = rates.fitted(model.name, model.info.get("optimiser", "adamw"))
    if rate > 3 * fits or rate < fits / 3:
        return f"try {fits:g}, which fits this model (a learning rate of 0 lets the kit choose)."
    return "try more epochs or more training data, a longer max_length, or the encoder mean-pooled (NAME + mean)."
