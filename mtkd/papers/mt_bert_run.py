"""The paper's experiment, asked of the store: sets of teachers, MT-BERT at every depth, baselines, ablations, controls.

Nothing is trained here; every line asks mtkd.distil for a finished model and writes down a row about it. A `Plan`
(mtkd/papers/mt_bert_plans.py) says which model, in words that a row repeats; `Experiment.make` turns it into the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from mtkd import distil, teachers
from mtkd.cofinetune import cofinetune
from mtkd.distil import Init
from mtkd.errors import KitError
from mtkd.evaluate import compute_metrics, ensemble_logits
from mtkd.networks import NO_SCORES
from mtkd.papers import mt_bert_recipes as make_recipe
from mtkd.papers.mt_bert_plans import Plan, is_table, plans
from mtkd.papers.mt_bert_scores import POOLERS, SECTIONS, short_name
from mtkd.papers.outcomes import sum_or_none
from mtkd.prepare import Prepared, prepare
from mtkd.recipes import CoFinetuned, Optimisation, Recipe
from mtkd.tasks import Task, load_task
from mtkd.teachers import Model

STRIDE = 100_000  # seeds per repeat
STUDENT = 1_000  # the students' seed within a repeat; teachers have the numbers below it
CHANGES = {"no_weighting": {"weighting": False}, "no_hidden": {"hidden": 0.0}, "no_distillation": {"distillation": 0.0},
           "no_task": {"task": 0.0}}


@dataclass
class Experiment:
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
    _sets: dict = field(default_factory=dict, repr=False)
    used: dict[str, dict] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        def one_of(name: str, words) -> None:
            if getattr(self, name) not in words:
                raise KitError(f"{name} is {getattr(self, name)!r}; there are {', '.join(words)}.")

        one_of("student_init", ("teacher", "pretrained"))
        one_of("student_head", ("shared", "new"))
        one_of("pooler", tuple(POOLERS))
        if unknown := [s for s in self.sections if s not in SECTIONS]:
            raise KitError(f"no such section: {unknown[0]!r}; there are {', '.join(SECTIONS)}.")
        if not self.teachers or not self.student_depths or min(self.student_depths) < 1:
            raise KitError("there must be at least one teacher and one student depth of at least 1.")
        if len({short_name(name) for name in self.teachers}) < len(self.teachers):  # tables could not tell them apart
            raise KitError("the teachers must differ, in their short names too (the last part of a path, family and size of a "
                           "model from scratch); for several seeds of one model see the notebook seed_ensemble.")
        for name in ("student_from", "baseline_teacher"):
            if not -len(self.teachers) <= getattr(self, name) < len(self.teachers):
                raise KitError(f"{name} is {getattr(self, name)}, and there are {len(self.teachers)} teachers.")
            setattr(self, name, getattr(self, name) % len(self.teachers))
        if is_table(self.teachers[self.student_from]):
            raise KitError("student_from names a table of logits, which has no layers for the student to take.")

    @cached_property
    def loaded(self) -> Task:
        options = {"protocol": self.protocol} if self.task.startswith("glue/") else {}
        return load_task(self.task, limit=self.sizes or None, seed=self.seed, **{**options, **self.task_options})

    @cached_property
    def prepared(self) -> Prepared:
        """The task as the student reads it: with the tokeniser of the teacher that it comes from."""
        name = self.teachers[self.student_from].removeprefix("finished:")
        return prepare(self.loaded, name, max_length=self.max_length, vocab=self.vocab)

    @property
    def everyone(self) -> tuple[int, ...]:
        return tuple(range(len(self.teachers)))

    # --- teachers --------------------------------------------------------------------------------------------------

    def teacher_seed(self, repeat: int, position: int = 0) -> int:
        return STRIDE * (100 * self.seed + repeat) + position

    def student_seed(self, repeat: int) -> int:
        """One for all students of a repeat, so that they differ in nothing but what is compared."""
        return self.teacher_seed(repeat) + STUDENT

    def finished(self, position: int) -> Model | None:
        """A teacher that needs no training: a folder ("finished:PATH") or a table of logits; None for any other."""
        name = self.teachers[position]
        if is_table(name):
            return teachers.teacher_from_table(name)
        return teachers.teacher_from_folder(self.prepared, name[9:]) if name.startswith("finished:") else None

    def teacher_set(self, repeat: int, positions: tuple[int, ...], joint: bool = True, pooler: str = "") -> dict[int, Model]:
        """Teachers by position: co-finetuned as one set, or (joint=False) each one on a pooler and head of its own."""
        pooler = pooler or self.pooler
        key = (repeat, positions, joint, pooler)
        if key not in self._sets:
            found = {p: model for p in positions if (model := self.finished(p)) is not None}
            fresh = [p for p in positions if p not in found]
            for group in ([fresh] if joint else [[p] for p in fresh]):
                if group:
                    seed = self.teacher_seed(repeat, group[0] if len(group) == 1 else 0)
                    names, how = [self.teachers[p] for p in group], CoFinetuned(pooler, self.query_size)
                    made = cofinetune(self.prepared, names, how, seed, self.teacher_optimisation)
                    found |= dict(zip(group, made))
            self._sets[key] = {p: found[p] for p in positions}
        return self._sets[key]

    # --- students --------------------------------------------------------------------------------------------------

    def plans(self, repeat: int) -> list[Plan]:
        """Every student of one repeat."""
        return plans(self.teachers, self.student_from, self.student_depths, self.sections, self.controls, repeat,
                     self.baseline_teacher)

    def reads(self, plan: Plan) -> Prepared:
        """The task in the tokens of the student's source."""
        if plan.source == self.student_from:
            return self.prepared
        finished = self.finished(plan.source)
        return self.prepared.of(finished or self.teachers[plan.source])

    def set_of(self, plan: Plan) -> dict[int, Model]:
        """The teachers that a plan's student follows or starts from, by position."""
        return self.teacher_set(plan.repeat, plan.set_of or plan.members, plan.joint, plan.pooler)

    def make(self, plan: Plan) -> Model:
        """The student of a plan, from the store or trained now."""
        prepared, seed = self.reads(plan), self.student_seed(plan.repeat)
        pooler = plan.pooler or self.pooler
        pooler += f"-{self.query_size}" if pooler == "attentive" else ""
        fresh = f"bottom-{plan.depth} of {self.teachers[plan.source].removeprefix('finished:')} + {pooler}"
        if plan.kind == "undistilled":  # no teacher had a part in it (but a finished one has been fine-tuned before)
            return distil.undistilled(prepared, fresh, self.student_optimisation, seed)
        models = self.set_of(plan)
        name, init = fresh, Init()
        if self.student_init == "teacher":
            name, init = f"bottom-{plan.depth} of teacher + {pooler}", Init(layers_of=models[plan.source])
        if self.student_head == "shared" and self.finished(plan.source) is None:
            init = replace(init, head_of=models[plan.source])
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
            return make_recipe.tinybert(self.intermediate_optimisation, opt, shows_attention(first))
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

    def row(self, plan: Plan, model: Model, followed: list[Model], parameters: int | None = None) -> dict:
        metric, chain = self.loaded.metric, [m for m in (model, model.before) if m is not None]
        store = self.prepared.store.folder
        inside = model.folder.is_relative_to(store) and plan.kind != "ensemble"
        return {
            "arm": plan.arm, "task": self.task, "kind": plan.kind, "method": plan.method, "variant": plan.variant or None,
            "repeat": plan.repeat, "layers": plan.depth or None, "teachers": [self.teachers[p] for p in plan.members],
            "model": model.name, "metric": metric, "score": model.metrics["test"][metric], "metrics": model.metrics["test"],
            "split": "test", "validation": model.metrics["validation"][metric], "n_test": len(self.loaded.splits["test"]),
            "parameters": parameters or model.info.get("parameters"),
            "time": {"train_s": model.seconds,
                     "score_s": sum(teachers.score(self.prepared, t, "train").info["seconds"] for t in followed),
                     "intermediate_s": sum(m.seconds for m in chain[1:]),
                     "teachers_s": sum(t.seconds for t in followed)},
            "energy_kwh": sum_or_none(m.info.get("energy_kwh") for m in chain),
            "peak_memory_mib": model.info.get("peak_memory_mib"),
            "samples_per_second": model.info.get("samples_per_second"),
            "folder": str(model.folder.relative_to(store)) if inside else None,
        }

    def teacher_rows(self, repeat: int) -> Iterator[dict]:
        """Every teacher from the set of all and on its own, and the mean of the set's logits."""
        task = self.loaded
        for joint, method in ((True, "cofinetuned"), (False, "independent")):
            models = {p: self.measured(m) for p, m in self.teacher_set(repeat, self.everyone, joint).items()}
            self.count(*models.values())
            for p, model in models.items():
                plan = Plan("teachers", method, repeat, model.shape.get("layers", 0), (p,), p, kind="teacher")
                yield self.row(plan, model, [])
            logits = {part: ensemble_logits([self.logits(m, part) for m in models.values()]) for part in ("validation", "test")}
            scores = {part: compute_metrics(z, task.splits[part].labels, task.metrics) for part, z in logits.items()}
            mean = Model(next(iter(models.values())).folder, "mean of logits", "", {"metrics": scores})
            plan = Plan("teachers", method, repeat, 0, self.everyone, self.student_from, kind="ensemble")
            size = sum(m.info.get("parameters") or 0 for m in models.values())
            yield {**self.row(plan, mean, []), "parameters": size or None}

    def logits(self, model: Model, split: str):
        """A teacher's logits [n, C] on validation or test, as numpy."""
        if (model.folder / f"logits-{split}.safetensors").is_file():
            return model.logits(split).numpy()
        return teachers.logits_of(self.prepared, model, split).numpy()

    def measured(self, model: Model) -> Model:
        """A finished teacher of one's own has no metrics yet: they are computed from what it says."""
        if model.metrics:
            return model
        task = self.loaded
        found = {part: compute_metrics(self.logits(model, part), task.splits[part].labels, task.metrics)
                 for part in ("validation", "test")}
        return replace(model, info={**model.info, "metrics": found})

    def count(self, *models: Model) -> None:
        """Put models on the bill."""
        self.used |= {m.key: m.info for model in models for m in (model, model.before) if m is not None and "seconds" in m.info}

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

    def seeds(self) -> list[int]:
        """Every seed of this experiment, for the record."""
        teachers_seeds = {self.teacher_seed(r, p) for r in self.repeats for p in self.everyone}
        return sorted(teachers_seeds | {self.student_seed(r) for r in self.repeats})


def shows_attention(model: Model) -> bool:
    """Whether a finished model's family shows its attention scores (MPNet, XLNet and DeBERTa do not)."""
    config = json.loads((Path(model.folder) / "config.json").read_text(encoding="utf-8"))
    return config["model_type"] not in NO_SCORES


def from_parameters(p: dict) -> Experiment:
    """The experiment that a notebook's parameters describe; KitError where they contradict each other."""
    def optimisation(epochs: int, lr: float) -> Optimisation:
        return Optimisation(epochs=epochs, batch_size=p["batch_size"], lr=lr, optimiser=p["optimiser"], decay=p["decay"],
                            weight_decay=p["weight_decay"], keep=p["keep"], freeze_embeddings=p["freeze_embeddings"])

    return Experiment(
        task=p["task"], teachers=tuple(p["teachers"]), student_depths=tuple(p["student_depths"]),
        teacher_optimisation=optimisation(p["teacher_epochs"], p["teacher_lr"]),
        student_optimisation=optimisation(p["student_epochs"], p["student_lr"]),
        intermediate_optimisation=optimisation(p["intermediate_epochs"], p["intermediate_lr"]),
        student_from=p["student_from"], baseline_teacher=p["baseline_teacher"], student_init=p["student_init"],
        student_head=p["student_head"], pooler=p["pooler"], query_size=p["query_size"], temperature=p["temperature"],
        weights={name: p[f"{name}_weight"] for name in ("task", "distillation", "hidden")},
        pkd={"how": p["pkd_layers"], "alpha": p["pkd_alpha"], "temperature": p["pkd_temperature"], "beta": p["pkd_beta"]},
        sizes={k: p[f"{k}_size"] for k in ("train", "validation", "test") if p[f"{k}_size"]}, protocol=p["protocol"],
        max_length=p["max_length"], vocab=p["vocab"], repeats=tuple(p["repeats"]), sections=tuple(p["sections"]),
        controls=p["controls"], seed=p["seed"], task_options=p["task_options"])
