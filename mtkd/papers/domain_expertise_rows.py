"""What the thesis's record holds: a row for every teacher, for the mean of them, and for every student and control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from mtkd.evidence.outcomes import sum_or_none
from mtkd.papers.domain_expertise_plans import Variant
from mtkd.papers.domain_expertise_run import Experiment
from mtkd.papers.domain_expertise_scores import SPAN
from mtkd.rules import experts
from mtkd.study import answered, cost, floor_rows
from mtkd.train import distil, teachers
from mtkd.train.teachers import Model


def recalls(e: Experiment, logits: torch.Tensor, split: str = "test") -> dict[str, float | None]:
    """Recall of every class; None for a class that the split has no sample of, and nothing in a span task."""
    if e.arm == SPAN:
        return {}
    labels = torch.from_numpy(e.loaded.splits[split].labels)
    found = experts.recalls(logits.unsqueeze(1), labels)[0]
    return {name: None if np.isnan(value) else value for name, value in zip(e.loaded.classes, found.tolist())}


def row(e: Experiment, kind: str, repeat: int, model: Model, /, followed: Sequence[Model] = (), **known) -> dict:
    """One line of the record. followed: the teachers it learned from; known: whatever differs from a plain student that
    follows nobody; `said`, `test` and `validation` among it are the logits on test and scores of what is no single model."""
    task, reads = e.loaded, e.reads(repeat, known.get("start") or "plain")
    test = known.pop("test", None) or e.scores(model, "test", reads)
    validation = known.pop("validation", None) or e.scores(model, "validation", reads)
    said = known.pop("said", None)
    said = e.logits(model, "test", reads) if said is None else said
    return {
        "arm": e.arm, "task": e.task, "kind": kind, "method": None, "variant": "", "temperature": None,
        "repeat": repeat, "start": None, "position": None, "teachers": list(e.teachers), "model": model.name,
        "metric": task.metric, "score": test[task.metric], "metrics": test, "split": "test",
        "validation": validation[task.metric], "n_test": len(task.splits["test"]),
        "recalls": recalls(e, said), **answered(task, said), "layers": model.shape.get("layers"),
        **cost(model, followed, reads),
    } | known


def teacher_rows(e: Experiment, repeat: int) -> Iterator[dict]:
    """Every teacher, and every model that was fine-tuned beside them."""
    for position, (name, model) in enumerate(zip(e.teacher_names, e.teacher_set(repeat))):
        e.count(model)
        yield row(e, "teacher", repeat, model, position=position, model=name)
    for number, name in enumerate(e.also_finetuned):
        model = e.beside(repeat, number)
        e.count(model)
        yield row(e, "finetuned", repeat, model, model=e.names[name], teachers=[])


def ensemble_row(e: Experiment, repeat: int) -> dict:
    """The mean of all teachers' logits, scored: what the averaged student is shown (on its own tokens in a span task)."""
    models = e.teacher_set(repeat)
    prepared = e.prepared_for(repeat)
    made = {split: torch.stack([teachers.logits_of(prepared, m, split) for m in models]).mean(0)
            for split in ("validation", "test")}
    found = {split: distil.metrics(prepared, split, logits) for split, logits in made.items()}
    joint = replace(models[0], info={"parameters": sum_or_none(m.info.get("parameters") for m in models), "shape": {}},
                    before=None)
    return row(e, "ensemble", repeat, joint, test=found["test"], validation=found["validation"],
               said=made["test"], model="mean of logits")


def floors(e: Experiment, repeat: int) -> list[dict]:
    """What any model must beat: the majority class and a linear model of word counts (mtkd/train/floors.py)."""
    return floor_rows(e.prepared_for(repeat), e.task, {"repeat": repeat})


def student_row(e: Experiment, repeat: int, variant: Variant | None, start: str = "plain") -> dict:
    """A distilled student's or control's line; the fine-tuned student's where there is no variant."""
    where = {"start": start, "model": e.shown_name(start)}
    if variant is None:
        model = e.finetuned_student(repeat, start)
        e.count(model)
        return row(e, "undistilled", repeat, model, **where, teachers=[])
    model = e.distill(repeat, variant, start)
    e.count(model)
    control = variant.control is not None or variant.name == "plain_ce"
    temperature = dict(variant.changes).get("temperature", e.temperatures[0])
    followed = [] if variant.name == "plain_ce" else e.teacher_set(repeat)
    return row(e, "control" if control else "student", repeat, model, followed, **where, method=variant.method,
               variant=variant.name, temperature=temperature)


def result_rows(e: Experiment, repeat: int) -> Iterator[dict]:
    """All rows of a repeat but the teachers'."""
    for start in e.starts:
        yield student_row(e, repeat, None, start)
        for variant in e.variants(start):
            yield student_row(e, repeat, variant, start)
