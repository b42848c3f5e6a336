"""The paper's experiment, asked of the store: pools of teachers, every combination, every primary, the controls.

Nothing is trained here; every line asks mtkd.train.distil for a finished model and writes down a row about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from mtkd.data.tasks import Split, Task
from mtkd.errors import KitError
from mtkd.measure.metrics import compute_metrics, ensemble_logits
from mtkd.papers.seed_ensemble_plans import Plan, plans
from mtkd.study import STRIDE, Draws, answered, cost, floor_rows, optimisation, read_task, sizes, sound, stages
from mtkd.train import distil, recipes
from mtkd.train.prepare import Augmentation, Prepared, Views, prepare
from mtkd.train.recipes import Optimisation, Recipe
from mtkd.train.teachers import Model

ARMS = ("tinybert", "distilbert", "resnet")
TERM_SETS = ("CE", "KD", "CE+KD", "CE+cos", "KD+cos", "CE+KD+cos")


@dataclass
class Experiment(Draws):
    """The parameters of notebooks/seed_ensemble.ipynb, and the models they ask for."""

    arm: str
    task: str
    teacher: str
    student: str
    n_teachers: int
    repeats: int
    teacher_optimisation: Optimisation
    student_optimisation: Optimisation
    intermediate_optimisation: Optimisation | None = None
    temperature: float = 1.0
    loss_weight: float = 1.0
    sizes: dict[str, int] = field(default_factory=dict)
    protocol: str = "honest"
    max_length: int = 128
    vocab: int = 4000
    views: Views = Views()
    augmentation: Augmentation = Augmentation()
    general_optimisation: Optimisation | None = None
    general_text: str = ""
    student_seeds: str = "per_primary"
    seed: int = 0
    pools: tuple[int, ...] = (0,)
    controls: bool = True
    task_options: dict = field(default_factory=dict)
    weak_teachers: str = "stop"
    _pools: dict[int, list[Model]] = field(default_factory=dict, repr=False)
    used: dict[str, dict] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        if self.arm not in ARMS:
            raise KitError(f"no such arm: {self.arm!r}; there are {', '.join(ARMS)}.")
        if self.n_teachers < 1 or self.repeats < 1:
            raise KitError("n_teachers and repeats must be at least 1.")
        if self.student_seeds not in ("per_primary", "shared"):
            raise KitError(f"student_seeds is 'per_primary' or 'shared', not {self.student_seeds!r}.")
        if self.arm == "tinybert" and self.intermediate_optimisation is None:
            raise KitError("the tinybert arm needs an intermediate stage: set intermediate_epochs above 0.")

    @cached_property
    def whole(self) -> Task:
        task = read_task(self.task, self.protocol, self.task_options)
        return replace(task, splits={**task.splits, "unlabelled": read_text(self.general_text)}) if self.general_text else task

    @property
    def loaded(self) -> Task:
        """The first pool's task: classes, metric and all splits but train are those of every pool."""
        return self.drawn(self.pools[0])

    def read_by(self, task: Task) -> Prepared:
        return prepare(task, self.teacher, max_length=self.max_length, vocab=self.vocab, views=self.views,
                       augmentation=self.augmentation)

    @property
    def prepared(self) -> Prepared:
        return self.prepared_for(self.pools[0])

    # --- seeds -----------------------------------------------------------------------------------------------------

    def teacher_seed(self, pool: int, number: int) -> int:
        return STRIDE * (100 * self.seed + pool) + number

    def student_seed(self, pool: int, plan: Plan) -> int:
        """The seed of a student. "per_primary": the k students of a combination differ in seed as well as in primary, so
        that single- and multi-teacher students play the same lottery with the same tickets; "shared": one per repeat."""
        slot, repeat = plan.primary, plan.repeat
        if plan.primary is None:
            slot, repeat = plan.members[plan.repeat % len(plan.members)], plan.repeat // len(plan.members)
        if self.student_seeds == "shared" and self.arm != "resnet":  # a ResNet's repeats differ in nothing but the seed
            slot = 0
        return STRIDE * (100 * self.seed + pool) + 100 * (1 + repeat) + slot

    # --- models ----------------------------------------------------------------------------------------------------

    def teachers(self, pool: int) -> list[Model]:
        if pool not in self._pools:
            seeds = [self.teacher_seed(pool, i) for i in range(self.n_teachers)]
            prepared = self.prepared_for(pool)
            made = distil.finetune(prepared, self.teacher, seeds, self.teacher_optimisation)
            self._pools[pool] = sound(prepared, made, self.weak_teachers)
        return self._pools[pool]

    @cached_property
    def general(self) -> Model | None:
        """TinyBERT's general distillation (option): Eq. 5 from the pre-trained encoder on unlabelled text, once."""
        if self.general_optimisation is None:
            return None
        from mtkd.train.teachers import pretrained

        return distil.distill(self.prepared, [pretrained(self.prepared, self.teacher)], self.student,
                              recipes.tinybert_general(self.general_optimisation), self.seed)

    def recipe(self, plan: Plan, terms: str = "CE+KD+cos", control: str | None = None) -> Recipe:
        if self.arm == "tinybert":
            made = recipes.tinybert(plan.members, plan.primary, intermediate=self.intermediate_optimisation,
                                    prediction=self.student_optimisation, temperature=self.temperature)
        elif self.arm == "distilbert":
            made = recipes.distilbert(plan.members, plan.primary, optimisation=self.student_optimisation, terms=terms,
                                      temperature=self.temperature, weights=(1.0, self.loss_weight, 1.0))
        else:
            made = recipes.resnet(plan.members, optimisation=self.student_optimisation, lam=self.loss_weight,
                                  temperature=self.temperature)
        return replace(made, teachers=recipes.Independent(control)) if control else made

    def distill(self, pool: int, plan: Plan, **changes) -> Model:
        return distil.distill(self.prepared_for(pool), self.teachers(pool), self.student, self.recipe(plan, **changes),
                              self.student_seed(pool, plan), plan.repeat if self.augmentation.factor else 0, self.general)

    def undistilled(self, pool: int, plan: Plan) -> Model:
        """The student on gold labels alone, for as many epochs as all stages of the distillation together."""
        inner = self.intermediate_optimisation
        epochs = self.student_optimisation.epochs + (inner.epochs if inner else 0)
        return distil.undistilled(self.prepared_for(pool), self.student, replace(self.student_optimisation, epochs=epochs),
                                  self.student_seed(pool, plan), self.general,
                                  "augmented" if self.arm == "tinybert" else "train")

    # --- rows ------------------------------------------------------------------------------------------------------

    def row(self, kind: str, pool: int, model: Model, plan: Plan, variant: str | None = None,
            said: np.ndarray | None = None) -> dict:
        """One line of the record; said: the logits on test where they are not the model's own."""
        task, prepared, members = self.drawn(pool), self.prepared_for(pool), plan.members
        pool_models = self.teachers(pool) if members else []
        split = prepared.name("augmented" if self.arm == "tinybert" else "train", plan.repeat)
        followed = [pool_models[i] for i in members] if self.follows(kind, variant) else []
        own = replace(model, before=None) if model.before is self.general else model  # made once for all, on nobody's bill
        self.used |= {m.key: m.info for m in [*stages(own), *pool_models] if kind != "ensemble"}
        return {
            "arm": self.arm, "task": self.task, "pool": pool, "kind": kind, "members": list(members), "k": len(members),
            "primary": plan.primary, "repeat": plan.repeat, "variant": variant, "model": model.name, "metric": task.metric,
            "score": model.metrics["test"][task.metric], "metrics": model.metrics["test"], "split": "test",
            "validation": model.metrics["validation"][task.metric], "n_test": len(task.splits["test"]),
        } | answered(task, said if said is not None else model.logits("test")) | cost(own, followed, prepared, split)

    @staticmethod
    def follows(kind: str, variant: str | None) -> bool:
        """Whether a row's model learned from the teachers it names."""
        return kind in ("student", "control", "terms") and variant not in ("plain_ce", "CE")

    def teacher_rows(self, pool: int) -> Iterator[dict]:
        for i, model in enumerate(self.teachers(pool)):
            yield self.row("teacher", pool, model, Plan((i,), None))

    def floor_rows(self, pool: int) -> list[dict]:
        """What any model must beat: the majority class and a linear model of word counts (mtkd/train/floors.py)."""
        return floor_rows(self.prepared_for(pool), self.task, {"pool": pool})

    def ensemble_row(self, pool: int) -> dict:
        """All teachers of a pool voting with their mean logits: what the students try to match, scored."""
        models, task = self.teachers(pool), self.drawn(pool)
        said = {split: ensemble_logits([m.logits(split).numpy() for m in models]) for split in ("validation", "test")}
        scores = {split: compute_metrics(logits, task.splits[split].labels, task.metrics) for split, logits in said.items()}
        info = {**models[0].info, "metrics": scores, "parameters": sum(m.info["parameters"] for m in models),
                "seconds": 0.0, "energy_kwh": 0.0}
        joint = replace(models[0], info=info)
        row = self.row("ensemble", pool, joint, Plan(tuple(range(self.n_teachers)), None), said=said["test"])
        return row | {"folder": None, "time": row["time"] | {"teachers_s": sum(m.seconds for m in models)}}

    def student_rows(self, pool: int) -> Iterator[dict]:
        for plan in plans(self.arm, self.n_teachers, self.repeats):
            yield self.row("student", pool, self.distill(pool, plan), plan)

    def undistilled_rows(self, pool: int) -> Iterator[dict]:
        """One undistilled student per seed that the distilled ones had."""
        for i in range(self.n_teachers):
            plan = Plan((i,), None if self.arm == "resnet" else i)
            yield {**self.row("undistilled", pool, self.undistilled(pool, plan), plan), "members": [], "k": 0,
                   "primary": None, "repeat": i}

    def control_rows(self, pool: int) -> Iterator[dict]:
        """What a student gets from teachers without knowledge: logits of other samples, or uniform ones; and from no
        teacher at all for the same number of steps. Seed and primary are those of the student they are compared with."""
        everyone = tuple(range(self.n_teachers))
        plan = Plan(everyone, None if self.arm == "resnet" else 0)
        yield self.row("control", pool, self.distill(pool, plan, control="shuffled"), plan, "shuffled_teacher")
        yield self.row("control", pool, self.distill(pool, plan, control="uniform"), plan, "uniform_teacher")
        yield self.row("control", pool, self.undistilled(pool, plan), plan, "plain_ce")

    def term_rows(self, pool: int) -> Iterator[dict]:
        """DistilBERT's sets of loss terms (claim S5), all teachers of the pool, primary 0."""
        if self.arm == "distilbert":
            plan = Plan(tuple(range(self.n_teachers)), 0)
            for terms in TERM_SETS:
                yield self.row("terms", pool, self.distill(pool, plan, terms=terms), plan, terms)

    def result_rows(self, pool: int) -> Iterator[dict]:
        """All rows of a pool but the teachers': students, undistilled students, controls, sets of terms."""
        yield from self.student_rows(pool)
        yield from self.undistilled_rows(pool)
        if self.controls:
            yield from self.control_rows(pool)
        yield from self.term_rows(pool)

    def jobs(self) -> list[list[Callable]]:
        """Everything that takes time, as calls: first the teachers of all pools, then what is distilled from them."""
        def teacher(pool: int, number: int) -> None:
            distil.finetune(self.prepared_for(pool), self.teacher, [self.teacher_seed(pool, number)], self.teacher_optimisation)

        first = [partial(teacher, pool, i) for pool in self.pools for i in range(self.n_teachers)]
        second = []
        for pool in self.pools:
            second += [partial(self.distill, pool, plan) for plan in plans(self.arm, self.n_teachers, self.repeats)]
            second += [partial(list, rows(pool)) for rows in (self.undistilled_rows, self.control_rows, self.term_rows)
                       if self.controls or rows != self.control_rows]
        return [first, second]


def read_text(file: str) -> Split:
    """Unlabelled text for general distillation: one passage per line, empty lines skipped."""
    try:
        lines = [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise KitError(f"the text {file} cannot be read: {getattr(error, 'strerror', error)}.") from error
    if not lines:
        raise KitError(f"the text {file} is empty.")
    return Split([f"text/{i}" for i in range(len(lines))], [(line,) for line in lines], np.full(len(lines), -1))


def from_parameters(p: dict) -> Experiment:
    """The experiment that a notebook's parameters describe; KitError where they contradict each other."""
    optimise = partial(optimisation, p)
    return Experiment(
        arm=p["arm"], task=p["task"], teacher=p["teacher"], student=p["student"], n_teachers=p["n_teachers"],
        repeats=p["repeats"], teacher_optimisation=optimise(p["teacher_epochs"], p["teacher_lr"]),
        student_optimisation=optimise(p["student_epochs"], p["student_lr"]),
        intermediate_optimisation=(optimise(p["intermediate_epochs"], p["intermediate_lr"])
                                   if p["arm"] == "tinybert" and p["intermediate_epochs"] else None),
        temperature=p["temperature"], loss_weight=p["loss_weight"], sizes=sizes(p), protocol=p["protocol"],
        max_length=p["max_length"], vocab=p["vocab"], views=Views(p["views"], p["crop"], p["flip"]),
        augmentation=Augmentation(p["augmentation"], p["augmentation_model"], p["augmentation_vectors"], seed=p["seed"]),
        general_optimisation=(optimise(p["general_epochs"], p["intermediate_lr"]) if p["general_epochs"] else None),
        general_text=p["general_text"],
        student_seeds=p["student_seeds"], pools=tuple(p["pools"]), controls=p["controls"], seed=p["seed"],
        task_options=p["task_options"], weak_teachers=p["weak_teachers"])
