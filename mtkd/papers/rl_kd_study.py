"""RL-KD's study: teachers of different families, their ensembles, students of each, RL-KD with three rewards, controls.

In the order of the text: what students learn by (recipes), which students there are, how each one is made. Every
distillation has the same two terms (Eq. 3) and differs in whom it follows. RL-KD is three stages, of which the first is the
student of U-Ensemble: the store makes it once for all rewards, and for the controls that go on from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor

from mtkd.data.tasks import Task
from mtkd.errors import KitError
from mtkd.papers.rl_kd import AGAIN, CONTROLS, ENSEMBLES, READINGS, REWARDS, RL, SECTIONS, short_name
from mtkd.papers.rl_kd_curves import written_down
from mtkd.rules import ensembles
from mtkd.rules.ensembles import BestSingle, DevWeighted, LogisticWeighted
from mtkd.rules.experts import RandomTeacher, accuracies
from mtkd.rules.policy import Policy
from mtkd.rules.selection import Primary, Selection, Uniform
from mtkd.study import Student as AnyStudent
from mtkd.study import Study, known
from mtkd.study.rows import best, stages
from mtkd.train import distil, teachers
from mtkd.train.answers import is_finished
from mtkd.train.outputs import TeacherBatch
from mtkd.train.prepare import Prepared
from mtkd.train.rates import settled
from mtkd.train.recipes import Independent, Optimisation, Recipe, Stage, Term
from mtkd.train.teachers import Model

# --- recipes ---------------------------------------------------------------------------------------------------------------

FIXED = {"u": Uniform(), "w": DevWeighted(), "rand": RandomTeacher(per="step"), "lr_train": LogisticWeighted(fit_split="train"),
         "lr_dev": LogisticWeighted(fit_split="validation"), "best_single": BestSingle()}  # fmt: skip
READ = {"printed": {"gradient": "printed"}, "no_baseline": {"baseline": "none"}, "batch_credit": {"credit": "batch"},
        "batchwise": {"alternation": "batch"}, "student_reward": {"pretrain_reward": "student"},
        "loss_scale": {"reward_scale": "loss"}}  # what a reading changes of the policy  # fmt: skip


@dataclass(frozen=True)
class Loss:
    """Eq. 3's settings. t_squared scales the distillation loss by T squared, so that it weighs the same at every T."""

    alpha: float = 0.5
    temperature: float = 10.0
    t_squared: bool = True

    def __post_init__(self):
        if not 0 <= self.alpha <= 1:
            raise KitError(f"alpha is the distillation loss's share and lies between 0 and 1, not at {self.alpha:g}.")
        if not self.temperature > 0:
            raise KitError(f"the temperature must be above 0, and is {self.temperature:g}.")

    def terms(self, selection: Selection) -> tuple[Term, ...]:
        """Eq. 3: (1 - alpha) L_CE + alpha L_DL, the target being the mean probability of whom the selection follows."""
        return (Term("cross_entropy", weight=1 - self.alpha),
                Term("soft_cross_entropy", selection, combine="probabilities", weight=self.alpha,
                     temperature=self.temperature, t_squared=self.t_squared))


def vanilla(method: str, loss: Loss, optimisation: Optimisation, teacher: int = 0) -> Recipe:
    """KD from one teacher ("v_kd", by position) or from an ensemble with fixed weights ("u", "w", "rand", "lr_train",
    "lr_dev") or from the best teacher of each sample ("best_single")."""
    if method != "v_kd" and method not in FIXED:
        raise KitError(f"no such method: {method!r}; there are v_kd, {', '.join(FIXED)}.")
    selection = Primary(teacher) if method == "v_kd" else FIXED[method]
    return Recipe(f"rl_kd/{method}", (Stage("kd", loss.terms(selection), optimisation),))


def rl_kd(policy: Policy, loss: Loss, optimisation: Optimisation, policy_optimisation: Optimisation,
          rl_optimisation: Optimisation, control: str | None = None) -> Recipe:
    """Algorithm 1: the student learns from the average of all teachers; the policy learns, the student staying as it is; both
    learn in turn (Algorithm 2). control: None, "shuffled" or "uniform" teachers. Where they alternate batch by batch every
    other batch is the policy's: twice as many epochs then, so that the student learns from as many batches either way."""
    if policy.alternation == "batch":
        rl_optimisation = replace(rl_optimisation, epochs=2 * rl_optimisation.epochs)
    return Recipe("rl_kd", (
        Stage("kd", loss.terms(Uniform()), optimisation),
        Stage("policy", loss.terms(policy.trained_in("selection")), policy_optimisation, learns="selection"),
        Stage("alternate", loss.terms(policy.trained_in("alternate")), rl_optimisation, learns="alternate"),
    ), Independent(control))  # fmt: skip


def without_policy(first: str, second: Selection, loss: Loss, optimisation: Optimisation,
                   rl_optimisation: Optimisation, teacher: int = 0) -> Recipe:
    """RL-KD's first and last stage without what is between: as many epochs, and whom to follow decided as in `vanilla` in the
    first stage, by `second` in the other (the same again; or an untrained Policy: the toss of a coin)."""
    return Recipe("rl_kd/without_policy", (*vanilla(first, loss, optimisation, teacher).stages,
                                           Stage("alternate", loss.terms(second), rl_optimisation)))


# --- which students --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Student(AnyStudent):
    """student: the name of its model. One without members learns from gold labels alone."""

    student: str = ""


def students(p: SimpleNamespace) -> Iterator[Student]:
    """Every student of one replicate. Controls and readings are of the first student only.

    The paper's Table 4 per student: fine-tuning, four single teachers, six ensembles (U and LR-Train are ours), three rewards.

    >>> p = SimpleNamespace(teachers=range(4), students=("BERT 3", "BERT 6"), sections=("main",), controls=())
    >>> [len([s for s in students(p) if s.student == name]) for name in p.students]
    [14, 14]
    """
    everyone = tuple(range(len(p.teachers)))
    if "main" in p.sections:
        for name in p.students:
            full = Student("main", "rl", everyone, student=name)
            yield replace(full, method="ft", kind="undistilled", members=())
            yield from (replace(full, method="v_kd", members=(position,)) for position in everyone)
            yield from (replace(full, method=method) for method in FIXED)
            yield from (replace(full, variant=variant) for variant in REWARDS)
        for name in p.controls:
            yield Student("main", "rl", () if name == "plain_ce" else everyone, name, "control", student=p.students[0])
    for name in READINGS if "readings" in p.sections else ():
        yield Student("readings", "rl", everyone, name, student=p.students[0])


def reward_of(s: Student) -> int:
    """Which of Eq. 7's three rewards a student's policy is paid by: its own, or the one that stands for RL-KD."""
    return int((s.variant if s.variant in REWARDS else RL)[-1])


# --- how each one is made --------------------------------------------------------------------------------------------------


class Experiment(Study):
    """The parameters of notebooks/rl_kd.ipynb, and the models they ask for."""

    students_of = staticmethod(students)

    def check(self) -> None:
        p = self.p
        known("entry of sections", p.sections, SECTIONS)
        known("entry of controls", p.controls, tuple(CONTROLS))
        if len(p.teachers) < 2 or not p.students:
            raise KitError("choosing teachers needs at least two of them, a learning rate for them, and a student.")
        for name in ("teachers", "students"):  # tables could not tell them apart
            if len({short_name(model) for model in getattr(p, name)}) < len(getattr(p, name)):
                raise KitError(f"the {name} must differ, in their short names too (the last part of a path; family and size "
                               "of a model from scratch).")
        self.loss = Loss(p.alpha, p.temperature, p.t_squared)
        self.policy = Policy(lr=p.policy_lr, **{name: getattr(p, name) for name in (
            "encoder", "gamma", "reward_scale", "gradient", "baseline", "credit", "pretrain_reward", "alternation", "empty",
            "dev_size", "dev_every")})

    def fitting(self, task: Task) -> Task:
        if task.regression or task.kind not in ("text", "pair"):
            raise KitError(f"a policy chooses among teachers that classify texts, and the task {self.p.task} is another.")
        return task

    def read_by(self, task: Task) -> Prepared:
        """The task as the first student reads it; everyone else gets a tokeniser of its own by `of`."""
        return self.prepare(task, self.p.students[0])

    # --- teachers ------------------------------------------------------------------------------------------------------

    def teacher(self, replicate: int, position: int) -> Model:
        """A teacher: fine-tuned at each of teacher_lrs, the best on validation kept; or a finished one."""
        name = self.p.teachers[position]
        rates = (0.0,) if is_finished(name) or not self.p.teacher_lrs else self.p.teacher_lrs
        tried = [self.fine_tuned(replicate, name, position, lr=lr) for lr in rates]
        self.count(*tried)
        return self.sound(replicate, [best(tried, self.loaded.metric) if len(tried) > 1 else tried[0]])[0]

    def said(self, replicate: int, split: str) -> Tensor:
        """The logits of all teachers on a split, [n, K, C], in the order of its samples."""
        prepared = self.prepared_for(replicate)
        return torch.stack([teachers.logits_of(prepared, model, split) for model in self.teacher_set(replicate)], dim=1)

    def labels(self, split: str, replicate: int) -> Tensor:
        return torch.from_numpy(self.drawn(replicate).splits[split].labels)

    def ensemble(self, replicate: int, method: str, split: str) -> Tensor:
        """The logits [n, C] of the teachers joined by one of rl_kd.ENSEMBLES, fitted where its weights are learned."""
        if method == "rand":
            rng = torch.Generator().manual_seed(self.student_seed(replicate))
            return ensembles.random_single(self.said(replicate, split), rng, self.p.batch_size)
        return ensembles.ensemble(self.fitted(replicate, method), self.said(replicate, split))

    def fitted(self, replicate: int, method: str) -> Selection:
        """An ensemble's selection with the weights it learns from the teachers' outputs on its own split."""
        selection = FIXED[method]
        if isinstance(selection, ensembles.Fixed):
            selection, split = replace(selection, _learned={}), selection.fit_split
            selection.fit(TeacherBatch(self.said(replicate, split)), self.labels(split, replicate))
        return selection

    def best_teacher(self, replicate: int) -> int:
        """The position of the teacher that is the best model on validation, among equals the first."""
        return int(accuracies(self.said(replicate, "validation"), self.labels("validation", replicate)).argmax())

    # --- students ------------------------------------------------------------------------------------------------------

    def rl_optimisation(self) -> Optimisation:
        return self.optimisation("rl", lr=self.p.student_lr)

    def make(self, s: Student) -> Model:
        prepared, seed = self.prepared_for(s.replicate).of(s.student), self.student_seed(s.replicate)
        if not s.members:
            made = distil.undistilled(prepared, s.student, self.optimisation("student"), seed)
            if s.variant == "plain_ce":
                made = distil.undistilled(prepared, s.student, self.rl_optimisation(), seed, made)
            return made
        return distil.distill(prepared, self.teacher_set(s.replicate), s.student, self.recipe(s), seed)

    def recipe(self, s: Student) -> Recipe:
        """What a student learns by."""
        first, last = self.optimisation("student"), self.rl_optimisation()
        if s.method != "rl":
            return vanilla(s.method, self.loss, first, s.members[0])
        policy = replace(self.policy, reward=reward_of(s), **READ.get(s.variant, {}), _learned={})
        if s.variant in AGAIN:
            method = AGAIN[s.variant]
            teacher = self.best_teacher(s.replicate) if method == "v_kd" else 0
            return without_policy(method, FIXED.get(method, Primary(teacher)), self.loss, first, last, teacher)
        if s.variant == "random_policy":
            return without_policy("u", policy.trained_in("student"), self.loss, first, last)
        loss = replace(self.loss, t_squared=False) if s.variant == "unscaled" else self.loss
        control = s.variant if s.variant in ("shuffled", "uniform") else None
        return rl_kd(policy, loss, first, self.optimisation("policy", lr=self.p.student_lr, keep="last"), last, control)

    def step(self, s: Student) -> int:
        """1 for students that go on after their first stage."""
        return int(s.method == "rl" or s.variant == "plain_ce")

    # --- rows ----------------------------------------------------------------------------------------------------------

    def columns(self, s: Student, model: Model) -> dict:
        p, taught = self.p, s.arm != "teachers" and bool(s.members)
        return {
            "method": s.method, "variant": s.variant or None, "repeat": s.replicate, "student": s.student or None,
            "layers": model.shape.get("layers"), "teachers": [p.teachers[i] for i in s.members],
            "lr": settled(self.optimisation("student"), s.student).lr if s.student else None,
            "temperature": p.temperature if taught else None, "alpha": p.alpha if taught else None,
            "gamma": p.gamma if s.method == "rl" and taught and reward_of(s) == 3 else None,
            "epochs": p.student_epochs + self.step(s) * p.rl_epochs if s.student else None,
            "curve": model.info.get("history", {}).get("validation"), "policy": written_down(stages(model)),
        }

    def split_rows(self, s: Student, model: Model, said=None, **known) -> Iterator[dict]:
        """A row per split that is reported: MNLI has two."""
        yield self.row(s, [model], said, **known)
        if "mismatched" in self.loaded.splits:
            yield self.row(s, [model], said, "mismatched", task=f"{self.p.task}-mm", **known)

    def student_rows(self, s: Student) -> Iterator[dict]:
        return self.split_rows(s, self.make(s))

    def teacher_rows(self, replicate: int) -> Iterator[dict]:
        """Every teacher on its own, and every ensemble that can be asked about new samples."""
        models = self.teacher_set(replicate)
        for i, model in enumerate(models):
            yield from self.split_rows(Student("teachers", "single", (i,), "", "teacher", replicate), model)
        for method in ENSEMBLES:
            learned = self.fitted(replicate, method).state().get("weights")
            every = Student("teachers", method, self.everyone, "", "ensemble", replicate)
            yield from self.split_rows(every, Model(models[0].folder, method, ""), partial(self.ensemble, replicate, method),
                                       weights=None if learned is None else learned.tolist())

    def own(self, replicate: int, variant: str = RL) -> Student:
        """RL-KD itself, with all teachers and the first student."""
        return Student("main", "rl", self.everyone, variant, "student", replicate, self.p.students[0])

    def start(self, replicate: int) -> Student:
        """The student that RL-KD starts from: U-Ensemble's."""
        return replace(self.own(replicate), method="u", variant="")


from_parameters = Experiment
