"""What TMKD's record holds: a row for every model of an experiment, for every teacher, and for what was timed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mtkd.data import wikiqa
from mtkd.evidence.outcomes import sum_or_none
from mtkd.measure.metrics import compute_metrics, ensemble_logits
from mtkd.papers.tmkd_plans import Plan
from mtkd.papers.tmkd_run import SECOND, Experiment
from mtkd.study import answered, cost
from mtkd.train import loop as train
from mtkd.train import speed, teachers
from mtkd.train.prepare import Prepared
from mtkd.train.teachers import Model


def answers(experiment: Experiment, task: str, repeat: int, models: list[Model], split: str) -> np.ndarray:
    """Logits [n, C] of one model on a split, or of several: the logarithm of their mean probabilities (m-o-m, teachers)."""
    found = [experiment.logits(task, repeat, model, split) for model in models]
    return ensemble_logits(found, "probabilities") if len(found) > 1 else found[0]


def scores(experiment: Experiment, task: str, repeat: int, models: list[Model], split: str,
           ranked: bool = False) -> dict[str, float]:
    """The task's metrics on a split; with `ranked` also MAP, where the task has a split to rank.

    Where the test has two sets (MNLI), each metric is the mean of both, as in the paper's Table 4, and both stand beside it.
    """
    loaded = experiment.loaded(task)
    sets = ["test", SECOND] if split == "test" and SECOND in loaded.splits else [split]
    each = [compute_metrics(answers(experiment, task, repeat, models, part), loaded.splits[part].labels, loaded.metrics)
            for part in sets]
    found = {name: sum(one[name] for one in each) / len(each) for name in each[0]}
    if len(each) > 1:
        found |= {f"{name}_{part}": value for part, one in zip(("matched", SECOND), each) for name, value in one.items()}
    if ranked and "ranking" in loaded.splits:
        found["map"] = wikiqa.ranking_score(loaded, answers(experiment, task, repeat, models, "ranking"))
    return found


def price(experiment: Experiment, plan: Plan, models: list[Model], followed: list[Model]) -> dict:
    """`experiments.cost`, of an ensemble that of all members together. Stage 1 was taught by all teachers of the target task,
    whose scoring of the pool is on the bill."""
    e, each = experiment, [cost(m) for m in models]
    whole = cost(models[0], followed, e.prepared(plan.task, plan.repeat))
    time = whole["time"] | {name: sum(one["time"][name] for one in each) for name in ("train_s", "intermediate_s")}
    if plan.pool and followed:
        taught = e.teacher_set(e.task, plan.repeat)
        read, name = e.prepared_for(plan.repeat), f"pool-{e.pools[plan.pool]}"
        time["score_s"] += sum(teachers.score(read, t, name).info["seconds"] for t in taught)
    return whole | {
        "parameters": sum(one["parameters"] or 0 for one in each) or None, "time": time,
        "energy_kwh": sum_or_none(one["energy_kwh"] for one in each), "folder": whole["folder"] if len(models) == 1 else None}


def row(experiment: Experiment, plan: Plan, models: list[Model], followed: list[Model], arm: str = "",
        measured: dict | None = None) -> dict:
    """One row of the record. models: one, or the members of an ensemble; followed: the teachers that were listened to."""
    e = experiment
    e.count(*models, *followed)
    loaded = e.loaded(plan.task)
    ranked = measured is None and (plan.section in e.ranking or (plan.section == "teachers" and bool(e.ranking)))
    validation = scores(e, plan.task, plan.repeat, models, "validation")
    test = scores(e, plan.task, plan.repeat, models, "test", ranked)
    return {
        "arm": arm or plan.arm, "task": plan.task, "role": "target" if plan.task == e.task else "transfer", "kind": plan.kind,
        "method": plan.method, "pool": plan.pool or None, "pool_size": e.pools.get(plan.pool), "student": plan.student or None,
        "layers": models[0].shape.get("layers"), "alpha": plan.alpha if plan.kind == "student" else None,
        "variant": plan.variant or None, "repeat": plan.repeat, "n": len(e.teachers), "model": models[0].name,
        "metric": loaded.metric, "score": test[loaded.metric], "metrics": test, "split": "test",
        "validation": validation[loaded.metric], "n_test": sum(len(loaded.splits.get(part, ())) for part in ("test", SECOND)),
        "speed": measured, **answered(loaded, answers(e, plan.task, plan.repeat, models, "test")),
    } | price(e, plan, models, followed)


def teacher_plan(experiment: Experiment, task: str, repeat: int, kind: str, variant: str = "") -> Plan:
    return Plan("teachers", task, repeat, "", "", experiment.alpha, kind=kind, variant=variant)


def teacher_rows(experiment: Experiment, repeat: int) -> Iterator[dict]:
    """Every teacher of every task, the one that is best on validation marked, and, of several, the mean of their
    probabilities."""
    for task in experiment.tasks:
        models, best = experiment.teacher_set(task, repeat), experiment.best(task, repeat)
        for p, model in enumerate(models):
            plan = teacher_plan(experiment, task, repeat, "teacher", "best" if p == best else f"number {p}")
            yield row(experiment, plan, [model], [], "teachers")
        if len(models) > 1:
            yield row(experiment, teacher_plan(experiment, task, repeat, "ensemble"), models, [], "teachers")


def student_row(experiment: Experiment, plan: Plan) -> dict:
    models, followed = experiment.members(plan), []
    if plan.kind != "undistilled" and plan.variant != "plain_ce":
        every, best = experiment.teacher_set(plan.task, plan.repeat), experiment.best(plan.task, plan.repeat)
        followed = [every[best]] if plan.method == "one" else every
    return row(experiment, plan, models, followed)


def result_rows(experiment: Experiment, repeat: int, *sections: str) -> Iterator[dict]:
    """Rows of the students of the given sections, or of all; in "largest" the best teacher has a row of its own."""
    e = experiment
    for plan in e.plans(repeat):
        if not sections or plan.section in sections:
            yield student_row(e, plan)
    if "largest" in e.sections and "largest" in (sections or e.sections):
        best = e.teacher_set(e.task, repeat)[e.best(e.task, repeat)]
        yield row(e, teacher_plan(e, e.task, repeat, "teacher", "best"), [best], [], "largest")


def speed_rows(experiment: Experiment, repeat: int) -> Iterator[dict]:
    """Speed of every kind of network on the target task's texts: the best teacher, all of them if there are several, and, of
    the students that the other sections have: without soft heads, with one, with N, N students; Bi-LSTMs; other depths. A pool
    changes a student's weights and not its speed, so these rows name none. A teacher that is a table of logits has no speed."""
    e, seen = experiment, set()
    if "speed" not in e.sections:
        return
    every = e.teacher_set(e.task, repeat)
    for kind, models in (("teacher", [every[e.best(e.task, repeat)]]), ("ensemble", every)):
        plan = teacher_plan(e, e.task, repeat, kind, "best" if kind == "teacher" else "")
        if (kind == "teacher" or len(models) > 1) and not any("table" in m.info for m in models):
            yield row(e, plan, models, [], "speed", ask(e, models, e.prepared_for(repeat)))
    for plan in e.plans(repeat):
        timed = plan.section in ("main", "stages", "bilstm", "layers") and plan.method != "average"  # it is built like "one"
        if timed and plan.task == e.task and (key := (plan.method, plan.student)) not in seen:
            seen.add(key)
            models = e.members(plan)
            yield row(e, replace(plan, pool=""), models, [], "speed", ask(e, models, e.prepared(e.task, repeat, plan.student)))


def ask(experiment: Experiment, models: list[Model], prepared: Prepared) -> dict:
    """The ruler of mtkd.train.speed on the test texts in the models' own tokens."""
    return speed.ask([m.network() for m in models], prepared.of(models[0]).data("test"), texts=experiment.speed_texts,
                     singles=min(32, experiment.speed_texts), repeats=experiment.speed_repeats, device=train.device_at_hand())
