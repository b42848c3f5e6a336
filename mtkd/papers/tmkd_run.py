"""The paper's experiment, asked of the store: teachers, stage 1 once per pool, students on every task, controls, speed.

Nothing is trained here; every line asks mtkd.train.distil for a finished model. A `Plan` (mtkd/papers/tmkd_plans.py) says which
one, in words that a row repeats; `Experiment.make` turns it into the model, mtkd/papers/tmkd_rows.py into a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from mtkd import study as experiments
from mtkd.data.tasks import Task, hash_order, subset
from mtkd.errors import KitError
from mtkd.models.names import root, tokenizer_kind
from mtkd.papers import tmkd_recipes as make_recipe
from mtkd.papers.tmkd_plans import Plan, plans, pool_names
from mtkd.papers.tmkd_scores import SECTIONS, is_bilstm
from mtkd.train import distil, pool
from mtkd.train.prepare import Prepared, prepare
from mtkd.train.recipes import Optimisation
from mtkd.train.teachers import Model

SECOND = "mismatched"  # a test split beside the first: MNLI's
CONTROLS = {"shuffled_teacher": "shuffled", "uniform_teacher": "uniform"}


@dataclass
class Experiment(experiments.Repeats):
    """The parameters of notebooks/tmkd.ipynb, and the models they ask for."""

    task: str
    teachers: tuple[str, ...]
    teacher_lrs: tuple[float, ...]
    student: str
    teacher_optimisation: Optimisation
    pool_optimisation: Optimisation
    student_optimisation: Optimisation
    bilstm_lr: float = 1e-3
    transfer: tuple[str, ...] = ()
    bilstm: str = ""
    depths: tuple[int, ...] = ()
    pool_sizes: tuple[int, ...] = ()
    pool_source: str = ""
    pool_columns: tuple[str, ...] = ()
    alpha: float = 0.9
    alphas: tuple[float, ...] = ()
    heads_after_pool: str = "kept"
    sizes: dict[str, int] = field(default_factory=dict)
    transfer_sizes: dict[str, int] = field(default_factory=dict)
    protocol: str = "honest"
    max_length: int = 128
    vocab: int = 4000
    repeats: tuple[int, ...] = (0,)
    sections: tuple[str, ...] = SECTIONS
    transfer_sections: tuple[str, ...] = ("stages",)
    ranking: tuple[str, ...] = ("main",)
    speed_texts: int = 128
    speed_repeats: int = 3
    seed: int = 0
    task_options: dict = field(default_factory=dict)
    weak_teachers: str = "stop"
    _read: dict = field(default_factory=dict, repr=False)
    _models: dict = field(default_factory=dict, repr=False)
    used: dict[str, dict] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        for sections in (self.sections, self.transfer_sections, self.ranking):
            if unknown := [s for s in sections if s not in SECTIONS]:
                raise KitError(f"no such section: {unknown[0]!r}; there are {', '.join(SECTIONS)}.")
        if not self.teachers or (self.teacher_lrs and len(self.teachers) != len(self.teacher_lrs)):
            raise KitError("there must be a learning rate per teacher, or none at all, and there are "
                           f"{len(self.teachers)} teachers and {len(self.teacher_lrs)} teacher_lrs.")
        if self.transfer and any(map(experiments.is_finished, self.teachers)):
            raise KitError("a finished teacher knows one task only: leave transfer empty, or fine-tune teachers here.")
        if len(set(self.tasks)) < len(self.tasks):
            raise KitError("task and transfer must name different tasks.")
        if self.heads_after_pool not in ("kept", "new"):
            raise KitError(f"heads_after_pool is {self.heads_after_pool!r}; there are kept, new.")
        self.pools = pool_names(self.pool_sizes)
        if "bilstm" in self.sections and self.bilstm and not is_bilstm(self.bilstm):
            raise KitError(f"bilstm is {self.bilstm!r}, which names no Bi-LSTM (bilstm-2x256e300).")

    # --- tasks and how they are read -------------------------------------------------------------------------------------

    @property
    def tasks(self) -> tuple[str, ...]:
        return (self.task, *self.transfer)

    def loaded(self, name: str, repeat: int | None = None) -> Task:
        """A task with the training subset of a repeat (the first where none is named); the target's own text, options and
        limits differ from those of the tasks that it is transferred to.

        A second test split (MNLI's mismatched rows) is cut as the first is. KitError for a task without classes of texts.
        """
        repeat = self.repeats[0] if repeat is None else repeat
        if (name, repeat) not in self._read:
            sizes, options = (self.sizes, self.task_options) if name == self.task else (self.transfer_sizes, {})
            if name not in self._read:
                self._read[name] = task = experiments.read_task(name, self.protocol, options)
                if task.regression or task.kind not in ("text", "pair"):
                    what = "asks for a number" if task.regression else f"is a task of kind {task.kind!r}"
                    raise KitError(f"TMKD needs tasks that sort a text, or a pair of texts, into classes, and {name!r} {what}.")
            task = subset(self._read[name], sizes or None, seed=self.seed, replicate=repeat)
            if "test" in sizes and (second := task.splits.get(SECOND)):
                kept = second.take(hash_order(second.ids, salt=str(self.seed))[:sizes["test"]])
                task = replace(task, splits={**task.splits, SECOND: kept})
            self._read[name, repeat] = task
        return self._read[name, repeat]

    def read_by(self, task: Task) -> Prepared:
        """The target task in the student's tokens, with its pools, which are the same in all repeats."""
        made = prepare(task, self.student, max_length=self.max_length, vocab=self.vocab)
        for size in self.pools.values():
            pool.attach(made, f"pool-{size}", self.pool_source or None, size, self.pool_columns or None)
        return made

    def drawn(self, replicate: int) -> Task:
        return self.loaded(self.task, replicate)

    @property
    def target(self) -> Prepared:
        """The first repeat's target task in the student's tokens, with its pools."""
        return self.prepared_for(self.repeats[0])

    def prepared(self, task: str, repeat: int, student: str = "") -> Prepared:
        """A task as a student reads it: by the tokeniser that it had in stage 1 already, or a Bi-LSTM by its words."""
        key = (task, repeat, is_bilstm(student) and student)
        if key not in self._read:
            if task == self.task:
                own = self.prepared_for(repeat)
                self._read[key] = own.of(student) if is_bilstm(student) else own
            else:
                self._read[key] = self.prepared(self.task, repeat, student).with_task(self.loaded(task, repeat))
        return self._read[key]

    # --- teachers ----------------------------------------------------------------------------------------------------------

    def teacher(self, task: str, repeat: int, position: int) -> Model:
        name, prepared = self.teachers[position], self.prepared(task, repeat)
        if experiments.is_finished(name):
            return experiments.measured(prepared, experiments.finished_teacher(prepared, name))
        optimisation = replace(self.teacher_optimisation, lr=self.teacher_lrs[position] if self.teacher_lrs else 0.0)
        shared = root(name) is None and root(self.student) is None and tokenizer_kind(name) == tokenizer_kind(self.student)
        own = prepared if shared else prepared.of(name)  # models from scratch learn from the target's vocabulary
        return distil.finetune(own, name, [self.teacher_seed(repeat, position)], optimisation)[0]

    def teacher_set(self, task: str, repeat: int) -> list[Model]:
        """The teachers of a task: the same in all stages and for all students of a repeat."""
        if (task, repeat) not in self._models:
            made = [self.teacher(task, repeat, p) for p in self.everyone]
            self._models[task, repeat] = experiments.sound(self.prepared(task, repeat), made, self.weak_teachers)
        return self._models[task, repeat]

    def best(self, task: str, repeat: int) -> int:
        """Position of the teacher that is best on validation, whom 1-o-1 follows."""
        models = self.teacher_set(task, repeat)
        return models.index(experiments.best(models, self.loaded(task).metric))

    # --- students ----------------------------------------------------------------------------------------------------------

    def plans(self, repeat: int) -> list[Plan]:
        """Every student of one repeat: all sections on the target task, `transfer_sections` on the others."""
        return [plan for task in self.tasks for plan in plans(
            task, repeat, self.sections if task == self.task else [s for s in self.sections if s in self.transfer_sections],
            self.student, self.alpha, tuple(self.pools), bilstm=self.bilstm, depths=self.depths, alphas=self.alphas)]

    def optimised(self, student: str, optimisation: Optimisation) -> Optimisation:
        return replace(optimisation, lr=self.bilstm_lr) if is_bilstm(student) else optimisation

    def pretrained(self, plan: Plan) -> Model:
        """Stage 1: one student per pool, method, architecture and repeat, whatever task it is for."""
        models, recipe = self.teacher_set(self.task, plan.repeat), make_recipe.stage_1(
            plan.method, f"pool-{self.pools[plan.pool]}", self.optimised(plan.student, self.pool_optimisation),
            best=self.best(self.task, plan.repeat), control=CONTROLS.get(plan.variant))
        return distil.distill(self.prepared(self.task, plan.repeat, plan.student), models, self.with_heads(plan), recipe,
                              self.student_seed(plan.repeat))

    def with_heads(self, plan: Plan) -> str:
        return f"{plan.student} + heads-{make_recipe.heads(plan.method, len(self.teachers))}"

    def make(self, plan: Plan, follow: int | None = None) -> Model:
        """The student of a plan, from the store or trained now. follow: the teacher that a member of m-o-m learns from."""
        prepared, seed = self.prepared(plan.task, plan.repeat, plan.student), self.student_seed(plan.repeat)
        optimisation = self.optimised(plan.student, self.student_optimisation)
        if plan.kind == "undistilled":
            return distil.undistilled(prepared, plan.student, optimisation, seed)
        if plan.variant == "plain_ce":
            return distil.undistilled(prepared, plan.student, replace(optimisation, epochs=self.same_compute(plan)), seed)
        start = self.pretrained(plan) if plan.pool else None
        new = start is not None and (plan.task != self.task or self.heads_after_pool == "new")
        best = self.best(plan.task, plan.repeat) if follow is None else follow
        method = "one" if plan.method == "each" else plan.method
        control = CONTROLS.get(plan.variant)
        recipe = make_recipe.stage_2(method, plan.alpha, optimisation, best=best, new_heads=new, control=control)
        models = self.teacher_set(plan.task, plan.repeat)
        return distil.distill(prepared, models, self.with_heads(plan), recipe, seed, start=start)

    def members(self, plan: Plan) -> list[Model]:
        """The models behind a row: one, or for m-o-m one student per teacher."""
        return [self.make(plan, p) for p in self.everyone] if plan.method == "each" else [self.make(plan)]

    def same_compute(self, plan: Plan) -> int:
        """Epochs of plain cross-entropy on the task that take at least as many steps as both stages of a plan."""
        steps = lambda n: math.ceil(n / self.student_optimisation.batch_size)  # noqa: E731
        own = steps(len(self.loaded(plan.task).splits["train"]))
        before = self.pool_optimisation.epochs * steps(self.pools[plan.pool]) if plan.pool else 0
        return self.student_optimisation.epochs + math.ceil(before / own)

    def logits(self, task: str, repeat: int, model: Model, split: str) -> np.ndarray:
        """What a model answers on a split [n, C]: of a student with several heads, their vote."""
        return experiments.answers(self.prepared(task, repeat), model, split).numpy()

    def floor_rows(self, repeat: int) -> list[dict]:
        """What any model of each task must beat: the majority class and a linear model of word counts (train/floors.py)."""
        return [row for task in self.tasks
                for row in experiments.floor_rows(self.prepared(task, repeat), task, {"repeat": repeat})]

    def jobs(self) -> list[list[Callable]]:
        """Everything that takes time, as calls: the teachers of all tasks, then stage 1, then the students."""
        every = [plan for repeat in self.repeats for plan in self.plans(repeat)]
        first = {(p.method, p.pool, p.student, p.variant, p.repeat): p for p in every if p.pool and p.variant != "plain_ce"}
        asked = [(task, repeat, p) for repeat in self.repeats for task in self.tasks for p in self.everyone]
        return [[partial(self.teacher, *key) for key in asked], [partial(self.pretrained, plan) for plan in first.values()],
                [partial(self.members, plan) for plan in every]]


def from_parameters(p: dict) -> Experiment:
    """The experiment that a notebook's parameters describe; KitError where they contradict each other."""
    plain = ("task", "student", "bilstm_lr", "bilstm", "pool_source", "alpha", "heads_after_pool", "protocol", "max_length",
             "vocab", "speed_texts", "speed_repeats", "seed", "task_options", "weak_teachers")
    lists = ("teachers", "teacher_lrs", "transfer", "depths", "pool_sizes", "pool_columns", "alphas", "repeats", "sections",
             "transfer_sections", "ranking")
    return Experiment(
        **{name: p[name] for name in plain}, **{name: tuple(p[name]) for name in lists},
        sizes=experiments.sizes(p), transfer_sizes=experiments.sizes(p, "transfer_"),
        teacher_optimisation=experiments.optimisation(p, p["teacher_epochs"], 0.0),
        pool_optimisation=experiments.optimisation(p, p["pool_epochs"], p["pool_lr"]),
        student_optimisation=experiments.optimisation(p, p["student_epochs"], p["student_lr"]))
