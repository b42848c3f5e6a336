"""What TMKD's record holds: a row for every model of an experiment, for every teacher, and for what was timed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mtkd import speed, teachers, train, wikiqa
from mtkd.evaluate import compute_metrics, ensemble_logits
from mtkd.papers.outcomes import sum_or_none
from mtkd.papers.tmkd_plans import Plan
from mtkd.papers.tmkd_run import Experiment
from mtkd.prepare import Prepared
from mtkd.teachers import Model


def answers(experiment: Experiment, task: str, models: list[Model], split: str) -> np.ndarray:
    """Logits [n, C] of one model on a split, or of several: the logarithm of their mean probabilities (m-o-m, teachers)."""
    found = [experiment.logits(task, model, split) for model in models]
    return ensemble_logits(found, "probabilities") if len(found) > 1 else found[0]


def scores(experiment: Experiment, task: str, models: list[Model], split: str, ranked: bool = False) -> dict[str, float]:
    """The task's metrics on a split; with `ranked` also MAP, where the task has a split to rank."""
    loaded = experiment.loaded(task)
    found = compute_metrics(answers(experiment, task, models, split), loaded.splits[split].labels, loaded.metrics)
    if ranked and "ranking" in loaded.splits:
        found["map"] = wikiqa.ranking_score(loaded, answers(experiment, task, models, "ranking"))
    return found


def row(experiment: Experiment, plan: Plan, models: list[Model], followed: list[Model], arm: str = "",
        measured: dict | None = None) -> dict:
    """One row of the record. models: one, or the members of an ensemble; followed: the teachers that were listened to."""
    e = experiment
    e.count(*models, *followed)
    loaded, store = e.loaded(plan.task), e.target.store.folder
    before = [m.before for m in models if m.before is not None]
    ranked = measured is None and (plan.section in e.ranking or (plan.section == "teachers" and bool(e.ranking)))
    validation, test = scores(e, plan.task, models, "validation"), scores(e, plan.task, models, "test", ranked)
    scored = [teachers.score(e.prepared(plan.task), t, "train") for t in followed]
    if plan.pool and followed:
        scored += [teachers.score(e.target, t, f"pool-{e.pools[plan.pool]}") for t in e.teacher_set(e.task, plan.repeat)]
    inside = len(models) == 1 and models[0].folder.is_relative_to(store)
    return {
        "arm": arm or plan.arm, "task": plan.task, "role": "target" if plan.task == e.task else "transfer", "kind": plan.kind,
        "method": plan.method, "pool": plan.pool or None, "pool_size": e.pools.get(plan.pool), "student": plan.student or None,
        "layers": models[0].shape.get("layers"), "alpha": plan.alpha if plan.kind == "student" else None,
        "variant": plan.variant or None, "repeat": plan.repeat, "n": len(e.teachers), "model": models[0].name,
        "metric": loaded.metric, "score": test[loaded.metric], "metrics": test, "split": "test",
        "validation": validation[loaded.metric], "n_test": len(loaded.splits["test"]),
        "parameters": sum(m.info.get("parameters") or 0 for m in models) or None, "speed": measured,
        "time": {"train_s": sum(m.seconds for m in models), "score_s": sum(s.info["seconds"] for s in scored),
                 "intermediate_s": sum(m.seconds for m in before), "teachers_s": sum(t.seconds for t in followed)},
        "energy_kwh": sum_or_none(m.info.get("energy_kwh") for m in [*models, *before]),
        "peak_memory_mib": models[0].info.get("peak_memory_mib"),
        "samples_per_second": models[0].info.get("samples_per_second"),
        "folder": str(models[0].folder.relative_to(store)) if inside else None,
    }


def teacher_plan(experiment: Experiment, task: str, repeat: int, kind: str, variant: str = "") -> Plan:
    return Plan("teachers", task, repeat, "", "", experiment.alpha, kind=kind, variant=variant)


def teacher_rows(experiment: Experiment, repeat: int) -> Iterator[dict]:
    """Every teacher of every task, the one that is best on validation marked, and the mean of their probabilities."""
    for task in experiment.tasks:
        models, best = experiment.teacher_set(task, repeat), experiment.best(task, repeat)
        for p, model in enumerate(models):
            plan = teacher_plan(experiment, task, repeat, "teacher", "best" if p == best else f"number {p}")
            yield row(experiment, plan, [model], [], "teachers")
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
    """Speed of every kind of network on the target task's texts: the best teacher, all of them, and, of the students that the
    other sections have: without soft heads, with one, with N, N students; Bi-LSTMs; other depths. A pool changes a student's
    weights and not its speed, so these rows name none."""
    e, seen = experiment, set()
    if "speed" not in e.sections:
        return
    every = e.teacher_set(e.task, repeat)
    for kind, models in (("teacher", [every[e.best(e.task, repeat)]]), ("ensemble", every)):
        plan = teacher_plan(e, e.task, repeat, kind, "best" if kind == "teacher" else "")
        yield row(e, plan, models, [], "speed", ask(e, models, e.target))
    for plan in e.plans(repeat):
        timed = plan.section in ("main", "stages", "bilstm", "layers") and plan.method != "average"  # it is built like "one"
        if timed and plan.task == e.task and (key := (plan.method, plan.student)) not in seen:
            seen.add(key)
            models = e.members(plan)
            yield row(e, replace(plan, pool=""), models, [], "speed", ask(e, models, e.prepared(e.task, plan.student)))


def ask(experiment: Experiment, models: list[Model], prepared: Prepared) -> dict:
    """The ruler of mtkd.speed on the test texts in the models' own tokens."""
    return speed.ask([m.network() for m in models], prepared.of(models[0]).data("test"), texts=experiment.speed_texts,
                     singles=min(32, experiment.speed_texts), repeats=experiment.speed_repeats, device=train.device_at_hand())
