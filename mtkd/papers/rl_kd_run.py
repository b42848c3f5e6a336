"""The paper's experiment, asked of the store: teachers, their ensembles, students of each, RL-KD with three rewards, controls.

Nothing is trained here; every line asks mtkd.train.distil for a finished model and writes down a row about it. A `Plan`
(mtkd/papers/rl_kd_plans.py) says which model, in words that a row repeats; `Experiment.make` turns it into the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from mtkd import study as experiments
from mtkd.data.tasks import Task
from mtkd.errors import KitError
from mtkd.evidence.frames import TIMES
from mtkd.measure.metrics import compute_metrics
from mtkd.papers import rl_kd_recipes as make_recipe
from mtkd.papers.rl_kd_curves import written_down
from mtkd.papers.rl_kd_plans import Plan, plans, reward_of
from mtkd.papers.rl_kd_recipes import FIXED, READ, Loss
from mtkd.papers.rl_kd_scores import AGAIN, CONTROLS, ENSEMBLES, SECTIONS, short_name
from mtkd.rules import ensembles
from mtkd.rules.experts import accuracies
from mtkd.rules.policy import Policy
from mtkd.rules.selection import Primary, Selection
from mtkd.train import distil, teachers
from mtkd.train.outputs import TeacherBatch
from mtkd.train.prepare import Prepared, prepare
from mtkd.train.rates import settled
from mtkd.train.recipes import Optimisation, Recipe
from mtkd.train.teachers import Model

NO_MODEL = dict.fromkeys(("parameters", "energy_kwh", "peak_memory_mib", "samples_per_second", "folder"))
NO_MODEL["time"] = dict.fromkeys(TIMES, 0.0)  # what an ensemble of teachers costs beyond them


@dataclass
class Experiment(experiments.Repeats):
    """The parameters of notebooks/rl_kd.ipynb, and the models they ask for."""

    task: str
    teachers: tuple[str, ...]
    students: tuple[str, ...]
    teacher_optimisations: tuple[Optimisation, ...]
    student_optimisation: Optimisation
    policy_optimisation: Optimisation
    rl_optimisation: Optimisation
    loss: Loss = field(default_factory=Loss)
    policy: Policy = field(default_factory=Policy)
    sizes: dict[str, int] = field(default_factory=dict)
    protocol: str = "honest"
    max_length: int = 128
    vocab: int = 4000
    repeats: tuple[int, ...] = (0,)
    sections: tuple[str, ...] = SECTIONS
    controls: tuple[str, ...] = tuple(CONTROLS)
    seed: int = 0
    task_options: dict = field(default_factory=dict)
    weak_teachers: str = "stop"
    _made: dict = field(default_factory=dict, repr=False)
    used: dict[str, dict] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        for name, words in (("sections", SECTIONS), ("controls", tuple(CONTROLS))):
            if unknown := [word for word in getattr(self, name) if word not in words]:
                raise KitError(f"no such entry of {name}: {unknown[0]!r}; there are {', '.join(words)}.")
        if len(self.teachers) < 2 or not self.students or not self.teacher_optimisations:
            raise KitError("choosing teachers needs at least two of them, a learning rate for them, and a student.")
        for name in ("teachers", "students"):  # tables could not tell them apart
            if len({short_name(model) for model in getattr(self, name)}) < len(getattr(self, name)):
                raise KitError(f"the {name} must differ, in their short names too (the last part of a path; family and size "
                               "of a model from scratch).")
        if not self.repeats or len(set(self.repeats)) < len(self.repeats):
            raise KitError(f"repeats must be different numbers, at least one, and are {list(self.repeats)}.")

    @cached_property
    def whole(self) -> Task:
        """The task; KitError, before anything is trained, where it is none that a policy can choose teachers for."""
        task = experiments.read_task(self.task, self.protocol, self.task_options)
        if task.regression or task.kind not in ("text", "pair"):
            raise KitError(f"a policy chooses among teachers that classify texts, and the task {self.task} is another.")
        return task

    def read_by(self, task: Task) -> Prepared:
        """The task as the first student reads it; everyone else gets a tokeniser of its own by `of`."""
        return prepare(task, self.students[0], max_length=self.max_length, vocab=self.vocab)

    # --- teachers --------------------------------------------------------------------------------------------------

    def teacher(self, repeat: int, position: int) -> Model:
        """A teacher: fine-tuned in each way of `teacher_optimisations`, the best on validation kept; or a finished one, a
        folder ("finished:PATH") or a table of logits."""
        name, place, prepared = self.teachers[position], (repeat, position), self.prepared_for(repeat)
        if place not in self._made and experiments.is_finished(name):
            found = experiments.finished_teacher(prepared, name)
            self._made[place] = experiments.sound(prepared, [found], self.weak_teachers)[0]
        elif place not in self._made:
            tried = [distil.finetune(prepared.of(name), name, [self.teacher_seed(*place)], way)[0]
                     for way in self.teacher_optimisations]
            self.count(*tried)
            found = experiments.best(tried, self.loaded.metric)
            self._made[place] = experiments.sound(prepared, [found], self.weak_teachers)[0]
        return self._made[place]

    def teacher_set(self, repeat: int) -> list[Model]:
        return [self.teacher(repeat, position) for position in self.everyone]

    def said(self, repeat: int, split: str) -> Tensor:
        """The logits of all teachers on a split, [n, K, C], in the order of its samples."""
        prepared = self.prepared_for(repeat)
        return torch.stack([teachers.logits_of(prepared, model, split) for model in self.teacher_set(repeat)], dim=1)

    def labels(self, split: str, repeat: int) -> Tensor:
        return torch.from_numpy(self.drawn(repeat).splits[split].labels)

    def ensemble(self, repeat: int, method: str, split: str) -> Tensor:
        """The logits [n, C] of the teachers joined by one of rl_kd_scores.ENSEMBLES, fitted where its weights are learned."""
        if method == "rand":
            rng = torch.Generator().manual_seed(self.student_seed(repeat))
            return ensembles.random_single(self.said(repeat, split), rng, self.student_optimisation.batch_size)
        return ensembles.ensemble(self.fitted(repeat, method), self.said(repeat, split))

    def fitted(self, repeat: int, method: str) -> Selection:
        """An ensemble's selection with the weights it learns from the teachers' outputs on its own split."""
        selection = FIXED[method]
        if isinstance(selection, ensembles.Fixed):
            selection = replace(selection, _learned={})
            selection.fit(TeacherBatch(self.said(repeat, selection.fit_split)), self.labels(selection.fit_split, repeat))
        return selection

    def best_teacher(self, repeat: int) -> int:
        """The position of the teacher that is the best model on validation, among equals the first."""
        return int(accuracies(self.said(repeat, "validation"), self.labels("validation", repeat)).argmax())

    # --- students --------------------------------------------------------------------------------------------------

    def plans(self, repeat: int) -> list[Plan]:
        """Every student of one repeat."""
        return plans(len(self.teachers), self.students, self.sections, self.controls, repeat)

    def make(self, plan: Plan) -> Model:
        """The student of a plan, from the store or trained now."""
        prepared, seed, name = self.prepared_for(plan.repeat).of(plan.student), self.student_seed(plan.repeat), plan.student
        if not plan.members:
            fine = distil.undistilled(prepared, name, self.student_optimisation, seed)
            return distil.undistilled(prepared, name, self.rl_optimisation, seed, fine) if plan.variant == "plain_ce" else fine
        return distil.distill(prepared, self.teacher_set(plan.repeat), name, self.recipe(plan), seed)

    def recipe(self, plan: Plan) -> Recipe:
        """What a plan's student learns by."""
        first, last = self.student_optimisation, self.rl_optimisation
        if plan.method != "rl":
            return make_recipe.vanilla(plan.method, self.loss, first, plan.members[0])
        policy = replace(self.policy, reward=reward_of(plan), **READ.get(plan.variant, {}), _learned={})
        if plan.variant in AGAIN:
            method = AGAIN[plan.variant]
            teacher = self.best_teacher(plan.repeat) if method == "v_kd" else 0
            followed = FIXED.get(method, Primary(teacher))
            return make_recipe.without_policy(method, followed, self.loss, first, last, teacher)
        if plan.variant == "random_policy":
            return make_recipe.without_policy("u", policy.trained_in("student"), self.loss, first, last)
        loss = replace(self.loss, t_squared=False) if plan.variant == "unscaled" else self.loss
        control = plan.variant if plan.variant in ("shuffled", "uniform") else None
        return make_recipe.rl_kd(policy, loss, first, self.policy_optimisation, last, control)

    # --- rows ------------------------------------------------------------------------------------------------------

    @property
    def scored(self) -> dict[str, str]:
        """The splits that are reported, with the name of the task in their rows: MNLI has two."""
        return {"test": self.task} | ({"mismatched": f"{self.task}-mm"} if "mismatched" in self.loaded.splits else {})

    def rows(self, plan: Plan, said: Callable[[str], Tensor], model: Model | None = None, **known) -> Iterator[dict]:
        """A row per reported split. said: logits [n, C] by split; model: None for an ensemble of teachers."""
        metric = self.loaded.metric
        validation = self.metrics(said("validation"), "validation")[metric]
        distilled = plan.arm != "teachers" and bool(plan.members)
        followed = [self.teacher(plan.repeat, p) for p in plan.members] if distilled else []
        for split, name in self.scored.items():
            found = self.metrics(said(split), split)
            yield {
                "arm": plan.arm, "task": name, "kind": plan.kind, "method": plan.method, "variant": plan.variant or None,
                "repeat": plan.repeat, "student": plan.student or None,
                "layers": model.shape.get("layers") if model else None,
                "teachers": [self.teachers[p] for p in plan.members], "model": model.name if model else plan.method,
                "metric": metric, "score": found[metric], "metrics": found, "split": split, "validation": validation,
                "n_test": len(self.loaded.splits[split]),
                "lr": settled(self.student_optimisation, plan.student).lr if plan.student else None,
                "temperature": self.loss.temperature if distilled else None,
                "alpha": self.loss.alpha if distilled else None,
                "gamma": self.policy.gamma if plan.method == "rl" and distilled and reward_of(plan) == 3 else None,
                "epochs": self.epochs(plan) if plan.student else None,
                "curve": model.info.get("history", {}).get("validation") if model else None,
                "policy": written_down(experiments.stages(model)),
            } | experiments.answered(self.loaded, said(split), split) | (
                experiments.cost(model, followed, self.prepared_for(plan.repeat)) if model else NO_MODEL) | known

    def epochs(self, plan: Plan) -> int:
        """How often the student has seen the training data."""
        longer = plan.method == "rl" or plan.variant == "plain_ce"
        return self.student_optimisation.epochs + (self.rl_optimisation.epochs if longer else 0)

    def metrics(self, logits: Tensor, split: str) -> dict[str, float]:
        return compute_metrics(logits.numpy(), self.loaded.splits[split].labels, self.loaded.metrics)

    def teacher_rows(self, repeat: int) -> Iterator[dict]:
        """Every teacher on its own, and every ensemble that can be asked about new samples."""
        for position, model in enumerate(self.teacher_set(repeat)):
            plan = Plan("teachers", "single", repeat, "", (position,), kind="teacher")
            yield from self.rows(plan, partial(experiments.answers, self.prepared_for(repeat), model), model)
        for method in ENSEMBLES:
            plan = Plan("teachers", method, repeat, "", self.everyone, kind="ensemble")
            learned = self.fitted(repeat, method).state().get("weights")
            weights = None if learned is None else learned.tolist()
            yield from self.rows(plan, partial(self.ensemble, repeat, method), weights=weights)

    def student_rows(self, plan: Plan) -> Iterator[dict]:
        model = self.make(plan)
        self.count(model)
        yield from self.rows(plan, partial(experiments.answers, self.prepared_for(plan.repeat), model), model)

    def floor_rows(self, repeat: int) -> list[dict]:
        """What any model must beat: the majority class and a linear model of word counts (mtkd/train/floors.py)."""
        return experiments.floor_rows(self.prepared_for(repeat), self.task, {"repeat": repeat})

    def result_rows(self, repeat: int, *sections: str) -> Iterator[dict]:
        """Rows of the students of the given sections, or of all."""
        for plan in self.plans(repeat):
            if not sections or plan.arm in sections:
                yield from self.student_rows(plan)

    def jobs(self) -> list[list[Callable]]:
        """Everything that takes time, as calls: teachers, then students of one stage, then those that go on from one."""
        every = [plan for repeat in self.repeats for plan in self.plans(repeat)]
        longer = [plan for plan in every if self.epochs(plan) > self.student_optimisation.epochs]
        return [[partial(self.teacher, repeat, p) for repeat in self.repeats for p in self.everyone],
                [partial(self.make, plan) for plan in every if plan not in longer],
                [partial(self.make, plan) for plan in longer]]


def from_parameters(p: dict) -> Experiment:
    """The experiment that a notebook's parameters describe; KitError where they contradict each other."""
    optimise = partial(experiments.optimisation, p)
    policy = Policy(lr=p["policy_lr"], **{name: p[name] for name in (
        "encoder", "gamma", "reward_scale", "gradient", "baseline", "credit", "pretrain_reward", "alternation", "empty",
        "dev_size", "dev_every")})
    return Experiment(
        task=p["task"], teachers=tuple(p["teachers"]), students=tuple(p["students"]),
        teacher_optimisations=tuple(optimise(p["teacher_epochs"], lr) for lr in p["teacher_lrs"] or (0.0,)),
        student_optimisation=optimise(p["student_epochs"], p["student_lr"]),
        policy_optimisation=replace(optimise(p["policy_epochs"], p["student_lr"]), keep="last"),
        rl_optimisation=optimise(p["rl_epochs"], p["student_lr"]),
        loss=Loss(p["alpha"], p["temperature"], p["t_squared"]), policy=policy, sizes=experiments.sizes(p),
        repeats=tuple(p["repeats"]), sections=tuple(p["sections"]), controls=tuple(p["controls"]),
        **{name: p[name] for name in ("protocol", "max_length", "vocab", "seed", "task_options", "weak_teachers")})
