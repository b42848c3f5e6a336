"""The paper's experiment, asked of the store: sets of teachers, MT-BERT at every depth, baselines, ablations, controls.

Nothing is trained here; every line asks mtkd.train.distil for a finished model and writes down a row about it. A `Plan`
(mtkd/papers/mt_bert_plans.py) says which model, in words that a row repeats; `Experiment.make` turns it into the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from mtkd.data.tasks import Task
from mtkd.measure.metrics import compute_metrics, ensemble_logits
from mtkd.papers import mt_bert_checks as check
from mtkd.papers import mt_bert_recipes as make_recipe
from mtkd.papers.mt_bert_plans import Plan, plans
from mtkd.papers.mt_bert_scores import SECTIONS
from mtkd.study import (
    Repeats,
    answered,
    answers,
    cost,
    finished_teacher,
    floor_rows,
    is_finished,
    measured,
    optimisation,
    sizes,
    sound,
    source_name,
)
from mtkd.train import distil
from mtkd.train.cofinetune import cofinetune
from mtkd.train.distil import Init
from mtkd.train.prepare import Prepared, prepare
from mtkd.train.recipes import CoFinetuned, Optimisation, Recipe
from mtkd.train.teachers import Model

CHANGES = {"no_weighting": {"weighting": False}, "no_hidden": {"hidden": 0.0}, "no_distillation": {"distillation": 0.0},
           "no_task": {"task": 0.0}}


@dataclass
class Experiment(Repeats):
    """The parameters of notebooks/mt_bert.ipynb, and the models they ask for."""

    task: str
    teachers: tuple[str, ...]
    student_depths: tuple[int, ...]
    teacher_optimisation: Optimisation
    student_optimisation: Optimisation
    intermediate_optimisation: Optimisation
    student_from: int = -1
    baseline_teacher: int = 0
    student_init: str = "teacher"
    student_head: str = "shared"
    combination_start: str = "own"
    pooler: str = "attentive"
    query_size: int = 200
    temperature: float = 1.0
    weights: dict[str, float] = field(default_factory=lambda: {"task": 1.0, "distillation": 1.0, "hidden": 1.0})
    pkd: dict = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    protocol: str = "honest"
    max_length: int = 128
    vocab: int = 4000
    repeats: tuple[int, ...] = (0,)
    sections: tuple[str, ...] = SECTIONS
    controls: bool = True
    seed: int = 0
    task_options: dict = field(default_factory=dict)
    weak_teachers: str = "stop"
    _sets: dict = field(default_factory=dict, repr=False)
    _finished: dict[tuple[int, int], Model] = field(default_factory=dict, repr=False)
    used: dict[str, dict] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        check.parameters(self)
        for name in ("student_from", "baseline_teacher"):
            setattr(self, name, getattr(self, name) % len(self.teachers))

    def read_by(self, task: Task) -> Prepared:
        """The task as the student reads it: with the tokeniser of the teacher that it comes from. All training asks for it, so
        depths that do not fit are refused here."""
        check.depths(self)
        return prepare(task, source_name(self.teachers[self.student_from]), max_length=self.max_length, vocab=self.vocab)

    # --- teachers --------------------------------------------------------------------------------------------------

    def finished(self, repeat: int, position: int) -> Model | None:
        """A teacher that needs no training: a folder ("finished:PATH") or a table of logits; None for any other."""
        key = (repeat, position)
        if key not in self._finished and is_finished(self.teachers[position]):  # read and hashed once
            self._finished[key] = finished_teacher(self.prepared_for(repeat), self.teachers[position])
        return self._finished.get(key)

    def teacher_set(self, repeat: int, positions: tuple[int, ...], joint: bool = True, pooler: str = "") -> dict[int, Model]:
        """Teachers by position: co-finetuned as one set, or (joint=False) each one on a pooler and head of its own. A teacher
        starts from the same weights in every set of a repeat."""
        pooler = pooler or self.pooler
        key = (repeat, positions, joint, pooler)
        if key not in self._sets:
            prepared = self.prepared_for(repeat)
            found = {p: model for p in positions if (model := self.finished(repeat, p)) is not None}
            fresh = [p for p in positions if p not in found]
            for group in ([fresh] if joint else [[p] for p in fresh]):
                if group:
                    seeds = [self.teacher_seed(repeat, p) for p in group]
                    seed = seeds[0] if len(group) == 1 else self.teacher_seed(repeat)
                    names, how = [self.teachers[p] for p in group], CoFinetuned(pooler, self.query_size)
                    found |= dict(zip(group, cofinetune(prepared, names, how, seed, self.teacher_optimisation, seeds)))
            self._sets[key] = dict(zip(positions, sound(prepared, [found[p] for p in positions], self.weak_teachers)))
        return self._sets[key]

    # --- students --------------------------------------------------------------------------------------------------

    def plans(self, repeat: int) -> list[Plan]:
        """Every student of one repeat."""
        return plans(self.teachers, self.student_from, self.student_depths, self.sections, self.controls, repeat,
                     self.baseline_teacher, self.combination_start)

    def reads(self, plan: Plan) -> Prepared:
        """The task in the tokens of the student's source."""
        prepared = self.prepared_for(plan.repeat)
        if plan.source == self.student_from:
            return prepared
        return prepared.of(self.finished(plan.repeat, plan.source) or self.teachers[plan.source])

    def set_of(self, plan: Plan) -> dict[int, Model]:
        """The teachers that a plan's student follows or starts from, by position."""
        return self.teacher_set(plan.repeat, plan.set_of or plan.members, plan.joint, plan.pooler)

    def head_of(self, plan: Plan) -> Model | None:
        """The teacher whose pooler and dense layer a student starts from: its source, or one of its set if the start is fixed;
        None where that one was finished elsewhere and has none of the kit's, or new ones are asked for."""
        models = self.set_of(plan)
        members = (plan.source, *reversed(plan.members)) if plan.fixed else (plan.source,)
        fresh = [p for p in members if p in models and self.finished(plan.repeat, p) is None]
        return models[fresh[0]] if fresh and self.student_head == "shared" else None

    def make(self, plan: Plan) -> Model:
        """The student of a plan, from the store or trained now."""
        prepared, seed = self.reads(plan), self.student_seed(plan.repeat)
        pooler = plan.pooler or self.pooler
        pooler += f"-{self.query_size}" if pooler == "attentive" else ""
        fresh = f"bottom-{plan.depth} of {source_name(self.teachers[plan.source])} + {pooler}"
        if plan.kind == "undistilled":  # no teacher had a part in it (but a finished one has been fine-tuned before)
            return distil.undistilled(prepared, fresh, self.student_optimisation, seed)
        models = self.set_of(plan)
        name, init = fresh, Init(head_of=self.head_of(plan))
        if self.student_init == "teacher" and not plan.fixed:
            name, init = f"bottom-{plan.depth} of teacher + {pooler}", replace(init, layers_of=models[plan.source])
        if plan.variant == "plain_ce":
            return distil.undistilled(prepared, name, self.student_optimisation, seed, init=init)
        followed = [models[p] for p in plan.members]
        return distil.distill(prepared, followed, name, self.recipe(plan, followed), seed, init=init)

    def recipe(self, plan: Plan, followed: list[Model]) -> Recipe:
        """What a plan's student learns by. The shuffled and uniform controls leave the hidden loss out: it would show the
        student the right states of every sample."""
        opt, heat, first = self.student_optimisation, self.temperature, followed[0]
        layered = tuple(i for i, m in enumerate(followed) if m.shape)
        layered = None if len(layered) == len(followed) else layered
        if plan.method == "distilbert":
            return make_recipe.distilbert(opt, heat)
        if plan.method == "pkd":
            return make_recipe.pkd(opt, pairs=max(1, plan.depth - 1), width=first.shape["width"], **self.pkd)
        if plan.method == "tinybert":
            return make_recipe.tinybert(self.intermediate_optimisation, opt, check.shows_attention(first))
        if plan.method == "you_2017":
            return make_recipe.you_2017(opt, temperature=heat, layered=layered)
        if plan.method == "liu_2020":
            width = self.set_of(plan)[plan.source].shape["width"]
            return make_recipe.liu_2020(opt, classes=self.loaded.outputs, width=width, temperature=heat, layered=layered)
        control = {"shuffled_teacher": "shuffled", "uniform_teacher": "uniform"}.get(plan.variant)
        changes = {"hidden": 0.0} if control else CHANGES.get(plan.variant, {})
        how = CoFinetuned(plan.pooler or self.pooler, self.query_size, control)
        return make_recipe.mt_bert(opt, **{**self.weights, **changes}, temperature=heat, teachers=how, layered=layered)

    # --- rows ------------------------------------------------------------------------------------------------------

    def row(self, plan: Plan, model: Model, followed: list[Model], said: np.ndarray | None = None) -> dict:
        """One line of the record; said: the logits on test where they are not the model's own."""
        prepared = self.prepared_for(plan.repeat)
        metric, store = self.loaded.metric, prepared.store.folder
        said = answers(self.reads(plan), model, "test") if said is None else said
        inside = model.folder.is_relative_to(store) and plan.kind != "ensemble"
        return {
            "arm": plan.arm, "task": self.task, "kind": plan.kind, "method": plan.method, "variant": plan.variant or None,
            "repeat": plan.repeat, "layers": plan.depth or None, "teachers": [self.teachers[p] for p in plan.members],
            "model": model.name, "metric": metric, "score": model.metrics["test"][metric], "metrics": model.metrics["test"],
            "split": "test", "validation": model.metrics["validation"][metric], "n_test": len(self.loaded.splits["test"]),
            **answered(self.loaded, said), **cost(model, followed, prepared),
            "folder": str(model.folder.relative_to(store)) if inside else None,  # of a set: the member's own
        }

    def teacher_rows(self, repeat: int) -> Iterator[dict]:
        """Every teacher from the set of all and on its own, and the mean of the set's logits."""
        task, prepared = self.loaded, self.prepared_for(repeat)
        for joint, method in ((True, "cofinetuned"), (False, "independent")):
            models = {p: measured(prepared, m) for p, m in self.teacher_set(repeat, self.everyone, joint).items()}
            self.count(*models.values())
            for p, model in models.items():
                plan = Plan("teachers", method, repeat, model.shape.get("layers", 0), (p,), p, kind="teacher")
                yield self.row(plan, model, [])
            logits = {part: ensemble_logits([answers(prepared, m, part).numpy() for m in models.values()])
                      for part in ("validation", "test")}
            scores = {part: compute_metrics(z, task.splits[part].labels, task.metrics) for part, z in logits.items()}
            mean = Model(next(iter(models.values())).folder, "mean of logits", "", {"metrics": scores})
            plan = Plan("teachers", method, repeat, 0, self.everyone, self.student_from, kind="ensemble")
            size = sum(m.info.get("parameters") or 0 for m in models.values())
            yield {**self.row(plan, mean, [], logits["test"]), "parameters": size or None}

    def floor_rows(self, repeat: int) -> list[dict]:
        """What any model must beat: the majority class and a linear model of word counts (mtkd/train/floors.py)."""
        return floor_rows(self.prepared_for(repeat), self.task, {"repeat": repeat})

    def student_row(self, plan: Plan) -> dict:
        model = self.make(plan)
        followed = []
        if plan.kind != "undistilled" and plan.variant != "plain_ce":
            models = self.set_of(plan)
            followed = [models[p] for p in plan.members]
            self.count(*models.values())
        self.count(model)
        return self.row(plan, model, followed)

    def result_rows(self, repeat: int, *sections: str) -> Iterator[dict]:
        """Rows of the students of the given sections, or of all."""
        for plan in self.plans(repeat):
            if not sections or plan.arm in sections:
                yield self.student_row(plan)

    def jobs(self) -> list[list[Callable]]:
        """Everything that takes time, as calls: first the sets of teachers of all repeats, then what is distilled."""
        every = [plan for repeat in self.repeats for plan in self.plans(repeat)]
        sets = [(r, self.everyone, joint, "") for r in self.repeats for joint in (True, False)]
        sets += [(p.repeat, p.set_of or p.members, p.joint, p.pooler) for p in every if p.members]
        return [[partial(self.teacher_set, *key) for key in dict.fromkeys(sets)], [partial(self.make, plan) for plan in every]]


def from_parameters(p: dict) -> Experiment:
    """The experiment that a notebook's parameters describe; KitError where they contradict each other."""
    return Experiment(
        task=p["task"], teachers=tuple(p["teachers"]), student_depths=tuple(p["student_depths"]),
        teacher_optimisation=optimisation(p, p["teacher_epochs"], p["teacher_lr"]),
        student_optimisation=optimisation(p, p["student_epochs"], p["student_lr"]),
        intermediate_optimisation=optimisation(p, p["intermediate_epochs"], p["intermediate_lr"]),
        student_from=p["student_from"], baseline_teacher=p["baseline_teacher"], student_init=p["student_init"],
        student_head=p["student_head"], combination_start=p["combination_start"], pooler=p["pooler"],
        query_size=p["query_size"], temperature=p["temperature"],
        weights={name: p[f"{name}_weight"] for name in ("task", "distillation", "hidden")},
        pkd={"how": p["pkd_layers"], "alpha": p["pkd_alpha"], "temperature": p["pkd_temperature"], "beta": p["pkd_beta"]},
        sizes=sizes(p), protocol=p["protocol"], max_length=p["max_length"], vocab=p["vocab"], repeats=tuple(p["repeats"]),
        sections=tuple(p["sections"]), controls=p["controls"], seed=p["seed"], task_options=p["task_options"],
        weak_teachers=p["weak_teachers"])
