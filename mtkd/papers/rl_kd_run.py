"""The paper's experiment, asked of the store: teachers, their ensembles, students of each, RL-KD with three rewards, controls.

Nothing is trained here; every line asks mtkd.distil for a finished model and writes down a row about it. A `Plan`
(mtkd/papers/rl_kd_plans.py) says which model, in words that a row repeats; `Experiment.make` turns it into the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from mtkd import distil, ensembles, teachers
from mtkd.errors import KitError
from mtkd.evaluate import compute_metrics
from mtkd.outputs import TeacherBatch
from mtkd.papers import rl_kd_recipes as make_recipe
from mtkd.papers.outcomes import sum_or_none
from mtkd.papers.rl_kd_curves import chain_of, written_down
from mtkd.papers.rl_kd_plans import Plan, plans, reward_of
from mtkd.papers.rl_kd_recipes import FIXED, Loss
from mtkd.papers.rl_kd_scores import AGAIN, CONTROLS, ENSEMBLES, SECTIONS, short_name
from mtkd.policy import Policy
from mtkd.prepare import Prepared, prepare
from mtkd.recipes import Optimisation, Recipe
from mtkd.selection import Selection
from mtkd.tasks import Task, load_task
from mtkd.teachers import Model

STRIDE = 100_000  # seeds per repeat
STUDENT = 1_000  # the students' seed within a repeat; teachers have the numbers below it
READ = {"printed": {"gradient": "printed"}, "no_baseline": {"baseline": "none"}, "batch_credit": {"credit": "batch"},
        "batchwise": {"alternation": "batch"}, "student_reward": {"pretrain_reward": "student"}}  # fmt: skip


@dataclass
class Experiment:
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

    @cached_property
    def loaded(self) -> Task:
        options = {"protocol": self.protocol} if self.task.startswith("glue/") else {}
        return load_task(self.task, limit=self.sizes or None, seed=self.seed, **{**options, **self.task_options})

    @cached_property
    def prepared(self) -> Prepared:
        """The task as the first student reads it; everyone else gets a tokeniser of its own by `prepared.of`."""
        return prepare(self.loaded, self.students[0], max_length=self.max_length, vocab=self.vocab)

    @property
    def everyone(self) -> tuple[int, ...]:
        return tuple(range(len(self.teachers)))

    # --- teachers --------------------------------------------------------------------------------------------------

    def teacher_seed(self, repeat: int, position: int = 0) -> int:
        return STRIDE * (100 * self.seed + repeat) + position

    def student_seed(self, repeat: int) -> int:
        """One for all students of a repeat, so that they differ in nothing but what is compared."""
        return self.teacher_seed(repeat) + STUDENT

    def teacher(self, repeat: int, position: int) -> Model:
        """A teacher: fine-tuned in each way of `teacher_optimisations`, the best on validation kept; or a finished one, a
        folder ("finished:PATH") or a table of logits."""
        name, metric = self.teachers[position], self.loaded.metric
        if (repeat, position) not in self._made:
            if name.endswith((".parquet", ".csv")):
                found = teachers.teacher_from_table(name)
            elif name.startswith("finished:"):
                found = teachers.teacher_from_folder(self.prepared, name.removeprefix("finished:"))
            else:
                tried = [distil.finetune(self.prepared.of(name), name, [self.teacher_seed(repeat, position)], optimisation)[0]
                         for optimisation in self.teacher_optimisations]
                self.count(*tried)
                found = max(tried, key=lambda model: model.metrics["validation"][metric])
            self._made[repeat, position] = found
        return self._made[repeat, position]

    def teacher_set(self, repeat: int) -> list[Model]:
        return [self.teacher(repeat, position) for position in self.everyone]

    def said(self, repeat: int, split: str) -> Tensor:
        """The logits of all teachers on a split, [n, K, C], in the order of its samples."""
        return torch.stack([teachers.logits_of(self.prepared, model, split) for model in self.teacher_set(repeat)], dim=1)

    def ensemble(self, repeat: int, method: str, split: str) -> Tensor:
        """The logits [n, C] of the teachers joined by one of rl_kd_scores.ENSEMBLES, fitted where its weights are learned."""
        if method == "rand":
            rng = torch.Generator().manual_seed(self.student_seed(repeat))
            return ensembles.random_single(self.said(repeat, split), rng, self.student_optimisation.batch_size)
        return ensembles.ensemble(self.fitted(repeat, method), self.said(repeat, split))

    def fitted(self, repeat: int, method: str) -> Selection:
        """An ensemble's selection with the weights it learns from the teachers' outputs on its own split."""
        selection = replace(FIXED[method], _learned={}) if isinstance(FIXED[method], ensembles.Fixed) else FIXED[method]
        if isinstance(selection, ensembles.Fixed):
            labels = torch.from_numpy(self.loaded.splits[selection.fit_split].labels)
            selection.fit(TeacherBatch(self.said(repeat, selection.fit_split)), labels)
        return selection

    # --- students --------------------------------------------------------------------------------------------------

    def plans(self, repeat: int) -> list[Plan]:
        """Every student of one repeat."""
        return plans(len(self.teachers), self.students, self.sections, self.controls, repeat)

    def make(self, plan: Plan) -> Model:
        """The student of a plan, from the store or trained now."""
        prepared, seed, name = self.prepared.of(plan.student), self.student_seed(plan.repeat), plan.student
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
            return make_recipe.without_policy(AGAIN[plan.variant], FIXED[AGAIN[plan.variant]], self.loss, first, last)
        if plan.variant == "random_policy":
            return make_recipe.without_policy("u", policy, self.loss, first, last)
        loss = replace(self.loss, t_squared=False) if plan.variant == "unscaled" else self.loss
        control = plan.variant if plan.variant in ("shuffled", "uniform") else None
        return make_recipe.rl_kd(policy, loss, first, self.policy_optimisation, last, control)

    # --- rows ------------------------------------------------------------------------------------------------------

    @property
    def scored(self) -> dict[str, str]:
        """The splits that are reported, with the name of the task in their rows: MNLI has two."""
        return {"test": self.task} | ({"mismatched": f"{self.task}-mm"} if "mismatched" in self.loaded.splits else {})

    def logits(self, model: Model, split: str) -> Tensor:
        stored = model.folder / f"logits-{split}.safetensors"
        return model.logits(split) if stored.is_file() else teachers.logits_of(self.prepared, model, split)

    def rows(self, plan: Plan, said: Callable[[str], Tensor], model: Model | None = None, **known) -> Iterator[dict]:
        """A row per reported split. said: logits [n, C] by split; model: None for an ensemble of teachers."""
        chain = chain_of(model)
        info, metric = (model.info if model else {}), self.loaded.metric
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
                "n_test": len(self.loaded.splits[split]), "parameters": info.get("parameters"),
                "lr": self.student_optimisation.lr if plan.student else None,
                "temperature": self.loss.temperature if distilled else None,
                "alpha": self.loss.alpha if distilled else None,
                "gamma": self.policy.gamma if plan.method == "rl" and distilled and reward_of(plan) == 3 else None,
                "epochs": self.epochs(plan) if plan.student else None, "curve": info.get("history", {}).get("validation"),
                "policy": written_down(chain),
                "time": {"train_s": info.get("seconds", 0.0), "intermediate_s": sum(m.seconds for m in chain[1:]),
                         "score_s": sum(teachers.score(self.prepared, t, "train").info["seconds"] for t in followed),
                         "teachers_s": sum(t.seconds for t in followed)},
                "energy_kwh": sum_or_none(m.info.get("energy_kwh") for m in chain),
                "peak_memory_mib": info.get("peak_memory_mib"), "samples_per_second": info.get("samples_per_second"),
                "folder": f"model/{model.key[:2]}/{model.key}" if info.get("history") else None,
            } | known

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
            yield from self.rows(plan, partial(self.logits, model), model)
        for method in ENSEMBLES:
            plan = Plan("teachers", method, repeat, "", self.everyone, kind="ensemble")
            learned = self.fitted(repeat, method).state().get("weights")
            weights = None if learned is None else learned.tolist()
            yield from self.rows(plan, partial(self.ensemble, repeat, method), weights=weights)

    def student_rows(self, plan: Plan) -> Iterator[dict]:
        model = self.make(plan)
        self.count(model)
        yield from self.rows(plan, partial(self.logits, model), model)

    def result_rows(self, repeat: int, *sections: str) -> Iterator[dict]:
        """Rows of the students of the given sections, or of all."""
        for plan in self.plans(repeat):
            if not sections or plan.arm in sections:
                yield from self.student_rows(plan)

    def count(self, *models: Model) -> None:
        """Put models on the bill, with the stages they went through."""
        self.used |= {m.key: m.info for model in models for m in chain_of(model) if "seconds" in m.info}

    def jobs(self) -> list[list[Callable]]:
        """Everything that takes time, as calls: teachers, then students of one stage, then those that go on from one."""
        every = [plan for repeat in self.repeats for plan in self.plans(repeat)]
        longer = [plan for plan in every if self.epochs(plan) > self.student_optimisation.epochs]
        return [[partial(self.teacher, repeat, p) for repeat in self.repeats for p in self.everyone],
                [partial(self.make, plan) for plan in every if plan not in longer],
                [partial(self.make, plan) for plan in longer]]

    def seeds(self) -> list[int]:
        """Every seed of this experiment, for the record."""
        found = {self.teacher_seed(repeat, p) for repeat in self.repeats for p in self.everyone}
        return sorted(found | {self.student_seed(repeat) for repeat in self.repeats})


def from_parameters(p: dict) -> Experiment:
    """The experiment that a notebook's parameters describe; KitError where they contradict each other."""
    def optimisation(epochs: int, lr: float) -> Optimisation:
        return Optimisation(epochs=epochs, batch_size=p["batch_size"], lr=lr, optimiser=p["optimiser"], decay=p["decay"],
                            weight_decay=p["weight_decay"], keep=p["keep"], freeze_embeddings=p["freeze_embeddings"])

    policy = Policy(encoder=p["encoder"], lr=p["policy_lr"], gamma=p["gamma"],
                    **{name: p[name] for name in ("gradient", "baseline", "credit", "pretrain_reward", "alternation", "empty",
                                                  "dev_size", "dev_every")})
    return Experiment(
        task=p["task"], teachers=tuple(p["teachers"]), students=tuple(p["students"]),
        teacher_optimisations=tuple(optimisation(p["teacher_epochs"], lr) for lr in p["teacher_lrs"]),
        student_optimisation=optimisation(p["student_epochs"], p["student_lr"]),
        policy_optimisation=replace(optimisation(p["policy_epochs"], p["student_lr"]), keep="last"),
        rl_optimisation=optimisation(p["rl_epochs"], p["student_lr"]),
        loss=Loss(p["alpha"], p["temperature"], p["t_squared"]), policy=policy,
        sizes={k: p[f"{k}_size"] for k in ("train", "validation", "test") if p[f"{k}_size"]}, protocol=p["protocol"],
        max_length=p["max_length"], vocab=p["vocab"], repeats=tuple(p["repeats"]), sections=tuple(p["sections"]),
        controls=tuple(p["controls"]), seed=p["seed"], task_options=p["task_options"])
