"""What a row of a record says of the models behind it besides their scores: what they took; and rows of data and floors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from types import SimpleNamespace

from mtkd.data.tasks import Task
from mtkd.train import distil, floors, teachers
from mtkd.train.answers import answered
from mtkd.train.prepare import Prepared
from mtkd.train.teachers import Model

SPLITS = ("train", "validation", "test")


def sizes(p: SimpleNamespace, prefix: str = "") -> dict[str, int]:
    """The sizes to which a notebook's parameters cut the splits; 0 keeps all.

    >>> sizes(SimpleNamespace(train_size=100, validation_size=0, test_size=50))
    {'train': 100, 'test': 50}
    """
    return {part: n for part in SPLITS if (n := getattr(p, f"{prefix}{part}_size"))}


def total(values: Iterable[float | None]) -> float | None:
    """The sum of what is known; None where nothing is."""
    found = [v for v in values if v is not None]
    return sum(found) if found else None


def stages(model: Model | None) -> list[Model]:
    """A model and the stages that it went through, the last first."""
    return [model, *stages(model.before)] if model else []


def joined(models: Sequence[Model]) -> Model:
    """Several models as one, for a row: the mean of their logits."""
    return Model(models[0].folder, "mean of logits", "", {"parameters": total(m.info.get("parameters") for m in models)})


def best(models: Sequence[Model], metric: str) -> Model:
    """The model that did best on validation; of equals the first."""
    return max(models, key=lambda model: model.metrics["validation"][metric])


def cost(models: Sequence[Model], followed: Sequence[Model], prepared: Prepared, split: str = "train") -> dict:
    """The part of a row that says what a model, or the members of an ensemble, took: parameters, times in seconds, energy,
    memory, folder. followed: the teachers, whose training and whose scoring of `split` are on the bill."""
    model, before = models[0], [m for member in models for m in stages(member)[1:]]
    single = len(models) == 1 and model.info.get("history")  # trained here
    return {
        "parameters": total(m.info.get("parameters") for m in models),
        "time": {"train_s": sum(m.seconds for m in models), "intermediate_s": sum(m.seconds for m in before),
                 "score_s": sum(teachers.score(prepared, t, split).info["seconds"] for t in followed),
                 "teachers_s": sum(t.seconds for t in followed)},
        "energy_kwh": total(m.info.get("energy_kwh") for m in (*models, *before)),
        "peak_memory_mib": model.info.get("peak_memory_mib"), "samples_per_second": model.info.get("samples_per_second"),
        "folder": str(model.folder.relative_to(prepared.store.folder)) if single else None,
    }  # fmt: skip


def floor_rows(prepared: Prepared, name: str, replicate: dict[str, int]) -> list[dict]:
    """A record's rows of both floors of a task called `name`; none for a span task, whose units are tokens."""
    task, rows = prepared.task, []
    for method in floors.FLOORS if task.kind != "span" else ():
        said = floors.floor(prepared, method)
        found = {part: distil.metrics(prepared, part, said[part]) for part in floors.PARTS}
        rows.append({"arm": "floor", "task": name, "kind": "floor", "method": method, **replicate, "metric": task.metric,
                     "score": found["test"][task.metric], "metrics": found["test"], "split": "test",
                     "validation": found["validation"][task.metric], "n_test": len(task.splits["test"]),
                     "n_train": len(task.splits["train"]), **answered(task, said["test"])})
    return rows


def data_rows(task: Task, name: str) -> list[dict]:
    """The table of the data of a task called `name`: samples per split and the mean number of words and punctuation marks."""
    rows = []
    for part in SPLITS:
        split, words = task.splits[part], None
        if task.kind != "image":
            words = sum(len(re.findall(r"\w+|[^\w\s]", text)) for row in split.inputs for text in row) / len(split)
        rows.append({"task": name, "split": part, "samples": len(split), "tokens_mean": words,
                     "classes": len(task.classes), "metric": task.metric})
    return rows
