"""What the experiments of all papers share: the task, seeds, finished teachers, what models say, the bill, a row's cost.

A paper's own module (mtkd/papers/*_run.py) says which models there are and how each one is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from mtkd.data.tasks import Task, load_task, subset
from mtkd.errors import KitError
from mtkd.evidence.outcomes import sum_or_none
from mtkd.measure.metrics import compute_metrics, pack_right
from mtkd.train import floors, rates, teachers
from mtkd.train.prepare import Prepared
from mtkd.train.recipes import Optimisation
from mtkd.train.teachers import Model

STRIDE = 100_000  # seeds per repeat
STUDENT = 1_000  # the students' seed within a repeat; teachers have the numbers below it
FINISHED = "finished:"  # before a folder: a teacher that is not trained here
TABLES = (".parquet", ".csv")


def is_table(name: str) -> bool:
    """Whether a teacher's name is that of a table of logits."""
    return name.endswith(TABLES)


def is_finished(name: str) -> bool:
    """Whether a teacher's name is that of one that needs no training: a folder ("finished:PATH") or a table of logits.

    >>> is_finished("finished:my-teacher"), is_finished("logits.parquet"), is_finished("bert-base-uncased")
    (True, True, False)
    """
    return name.startswith(FINISHED) or is_table(name)


def finished_teacher(prepared: Prepared, name: str) -> Model:
    """The teacher that a finished one's name says."""
    return teachers.teacher_from_table(name) if is_table(name) else teachers.teacher_from_folder(prepared, name[len(FINISHED):])


def stages(model: Model | None) -> list[Model]:
    """A model and the stages that it went through, the last first."""
    chain = []
    while model is not None:
        chain.append(model)
        model = model.before
    return chain


def cost(model: Model, followed: Sequence[Model] = (), prepared: Prepared | None = None, split: str = "train") -> dict:
    """The part of a row that says what a model is and what it took: parameters, times in seconds, energy, memory, folder.

    followed: the teachers it learned from, whose training and whose scoring of `split` are on its bill.
    """
    chain = stages(model)
    scored = sum(teachers.score(prepared, t, split).info["seconds"] for t in followed)
    return {
        "parameters": model.info.get("parameters"),
        "time": {"train_s": model.seconds, "score_s": scored, "intermediate_s": sum(m.seconds for m in chain[1:]),
                 "teachers_s": sum(t.seconds for t in followed)},
        "energy_kwh": sum_or_none(m.info.get("energy_kwh") for m in chain),
        "peak_memory_mib": model.info.get("peak_memory_mib"),
        "samples_per_second": model.info.get("samples_per_second"),
        "folder": f"model/{model.key[:2]}/{model.key}" if model.info.get("history") else None,
    }


def floor_rows(prepared: Prepared, name: str, replicate: dict[str, int]) -> list[dict]:
    """A record's rows of both floors of a task called `name`; none for a span task, whose units are tokens."""
    task, rows = prepared.task, []
    for method in floors.FLOORS if task.kind != "span" else ():
        said = {part: logits.numpy() for part, logits in floors.floor(prepared, method).items()}
        found = {part: compute_metrics(said[part], task.splits[part].labels, task.metrics) for part in floors.PARTS}
        rows.append({"arm": "floor", "task": name, "kind": "floor", "method": method, **replicate, "metric": task.metric,
                     "score": found["test"][task.metric], "metrics": found["test"], "split": "test",
                     "validation": found["validation"][task.metric], "n_test": len(task.splits["test"]),
                     "n_train": len(task.splits["train"]), **answered(task, said["test"])})
    return rows


def answers(prepared: Prepared, model: Model, split: str) -> Tensor:
    """A model's logits [n, C] on a split: those stored when it was trained, else scored now. What lies in the folder of a
    finished teacher is not read: it may be of another run's samples."""
    stored = "seconds" in model.info and (model.folder / f"logits-{split}.safetensors").is_file()
    return model.logits(split) if stored else teachers.logits_of(prepared, model, split)


def answered(task: Task, logits: np.ndarray | Tensor, split: str = "test") -> dict:
    """The part of a row that says what a model answered, from its logits [n, C] on a split: right, which items were right
    (evaluate.pack_right; None without classes per item), and one_answer, whether it gave the same answer to all."""
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
    mark it.

    Raises KitError too for another value of weak.
    """
    if weak not in ("stop", "mark"):
        raise KitError(f"weak_teachers is {weak!r}; there are stop, mark.")
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
            raise KitError(f"the teacher {model.name} {what}, so there is nothing to learn from it.{tried} To go on all the "
                           "same: weak_teachers mark.")
    return list(models)


def advice(model: Model, rate: float) -> str:
    """What to try with a model that has learned nothing at this rate."""
    fits = rates.fitted(model.name, model.info.get("optimiser", "adamw"))
    if rate > 3 * fits or rate < fits / 3:
        return f"try {fits:g}, which fits this model (a learning rate of 0 lets the kit choose)."
    return "try more epochs or more training data, a longer max_length, or the encoder mean-pooled (NAME + mean)."


def measured(prepared: Prepared, model: Model) -> Model:
    """A finished teacher of one's own has no metrics yet: they are computed from what it says."""
    if model.metrics:
        return model
    task = prepared.task
    found = {part: compute_metrics(answers(prepared, model, part).numpy(), task.splits[part].labels, task.metrics)
             for part in ("validation", "test")}
    return replace(model, info={**model.info, "metrics": found})


def read_task(name: str, protocol: str, options: dict) -> Task:
    """A task by name, whole; `protocol` goes to the loaders that have one."""
    own = {"protocol": protocol} if name.startswith(("glue/", "tweet_eval/")) else {}
    return load_task(name, **{**own, **options})


def optimisation(p: dict, epochs: int, lr: float) -> Optimisation:
    """What a notebook's parameters say about training, for so many epochs at this learning rate."""
    names = ("batch_size", "optimiser", "decay", "weight_decay", "warmup", "keep", "freeze_embeddings")
    return Optimisation(epochs=epochs, lr=lr, **{name: p[name] for name in names if name in p})


def sizes(p: dict, prefix: str = "") -> dict[str, int]:
    """The sizes to which a notebook's parameters cut the splits; 0 keeps all.

    >>> sizes({"train_size": 100, "validation_size": 0, "test_size": 50})
    {'train': 100, 'test': 50}
    """
    return {part: p[f"{prefix}{part}_size"] for part in ("train", "validation", "test") if p[f"{prefix}{part}_size"]}


class Draws:
    """Mixed into the dataclass of an experiment, with the fields task, sizes, protocol, seed and task_options: a task for
    every replicate. A replicate has a training subset of its own; validation and test are the same for all."""

    @cached_property
    def whole(self) -> Task:
        return read_task(self.task, self.protocol, self.task_options)

    @cached_property
    def _drawn(self) -> dict[int, Task]:
        return {}

    def drawn(self, replicate: int) -> Task:
        """The task with the training subset of this replicate (all of them alike where `train_size` keeps all)."""
        if replicate not in self._drawn:
            self._drawn[replicate] = subset(self.whole, self.sizes or None, seed=self.seed, replicate=replicate)
        return self._drawn[replicate]

    @cached_property
    def _prepared(self) -> dict[int, Prepared]:
        return {}

    def prepared_for(self, replicate: int) -> Prepared:
        """A replicate's task as the student reads it (`read_by` says how); other models get theirs by its `of`."""
        if replicate not in self._prepared:
            self._prepared[replicate] = self.read_by(self.drawn(replicate))
        return self._prepared[replicate]


class Repeats(Draws):
    """`Draws` where the replicate is a repeat, with the further fields teachers, repeats and `used` (key of a model on the
    bill to what was measured of it)."""

    @property
    def loaded(self) -> Task:
        """The first repeat's task: classes, metric and all splits but train are those of every repeat."""
        return self.drawn(self.repeats[0])

    @property
    def prepared(self) -> Prepared:
        """The first repeat's task as the student reads it."""
        return self.prepared_for(self.repeats[0])

    @property
    def everyone(self) -> tuple[int, ...]:
        return tuple(range(len(self.teachers)))

    def teacher_seed(self, repeat: int, position: int = 0) -> int:
        return STRIDE * (100 * self.seed + repeat) + position

    def student_seed(self, repeat: int) -> int:
        """One for all students of a repeat, so that they differ in nothing but what is compared."""
        return self.teacher_seed(repeat) + STUDENT

    def seeds(self) -> list[int]:
        """Every seed of this experiment, for the record."""
        found = {self.teacher_seed(repeat, p) for repeat in self.repeats for p in self.everyone}
        return sorted(found | {self.student_seed(repeat) for repeat in self.repeats})

    def count(self, *models: Model) -> None:
        """Put models on the bill, with the stages they went through."""
        self.used |= {m.key: m.info for model in models for m in stages(model) if "seconds" in m.info}


def best(models: Sequence[Model], metric: str) -> Model:
    """The model that did best on validation; of equals the first."""
    return max(models, key=lambda model: model.metrics["validation"][metric])


def source_name(name: str) -> str:
    """A teacher's name as a model's: without the mark of a finished one."""
    return name.removeprefix(FINISHED)


def shown(name: str) -> str:
    """A teacher's name in tables: the name itself, or what a finished one's file or folder is called."""
    return Path(source_name(name)).name if is_finished(name) else name
