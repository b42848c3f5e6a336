"""The multiple-teacher paper's study: pools of teachers that differ in their seeds, every combination, every primary, controls.

Recipes are those of mtkd/train/recipes.py. A replicate is a pool of teachers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from mtkd.data.tasks import Split, Task
from mtkd.errors import KitError
from mtkd.study import CONTROLS, Study, known
from mtkd.study import Student as AnyStudent
from mtkd.study.rows import total
from mtkd.train import distil, recipes
from mtkd.train.prepare import Augmentation, Prepared, Views
from mtkd.train.recipes import Recipe
from mtkd.train.teachers import Model, pretrained

ARMS = ("tinybert", "distilbert", "resnet")
TERM_SETS = ("CE", "KD", "CE+KD", "CE+cos", "KD+cos", "CE+KD+cos")


@dataclass(frozen=True)
class Student(AnyStudent):
    """primary: position of the teacher whose inner layers it matches (None: no such thing); repeat: which of several students
    of the same teachers and primary. kind "terms" is a set of loss terms (its variant)."""

    primary: int | None = None
    repeat: int = 0


def students(p: SimpleNamespace) -> Iterator[Student]:
    """Every student of one pool: every k-combination of the teachers with every primary in it and every repeat; an undistilled
    one per seed that these had; the controls; DistilBERT's sets of loss terms (claim S5).

    A ResNet has no primary, so its combination of k is repeated k times to give k scores as well. 6 teachers make
    63 combinations and 192 combination-primary pairs:

    >>> paper = {"n_teachers": 6, "repeats": 1, "controls": False}
    >>> [len([s for s in students(SimpleNamespace(arm=arm, **paper)) if s.kind == "student"]) for arm in ("tinybert", "resnet")]
    [192, 192]
    """
    everyone = tuple(range(p.n_teachers))
    first = None if p.arm == "resnet" else 0
    for members in (chosen for k in everyone for chosen in combinations(everyone, k + 1)):
        if p.arm == "resnet":
            yield from (Student(p.arm, members=members, repeat=r) for r in range(len(members) * p.repeats))
        else:
            yield from (Student(p.arm, members=members, primary=i, repeat=r) for i in members for r in range(p.repeats))
    yield from (Student(p.arm, members=(i,), kind="undistilled", primary=None if p.arm == "resnet" else i) for i in everyone)
    full = Student(p.arm, members=everyone, primary=first)
    for name in (*CONTROLS, "plain_ce") if p.controls else ():
        yield replace(full, kind="control", variant=name)
    for terms in TERM_SETS if p.arm == "distilbert" else ():
        yield replace(full, kind="terms", variant=terms)


class Experiment(Study):
    """The parameters of notebooks/seed_ensemble.ipynb, and the models they ask for."""

    replicates = "pools"
    students_of = staticmethod(students)

    def check(self) -> None:
        p = self.p
        known("arm", [p.arm], ARMS)
        if p.n_teachers < 1 or p.repeats < 1:
            raise KitError("n_teachers and repeats must be at least 1.")
        if p.student_seeds not in ("per_primary", "shared"):
            raise KitError(f"student_seeds is 'per_primary' or 'shared', not {p.student_seeds!r}.")
        if p.arm == "tinybert" and not p.intermediate_epochs:
            raise KitError("the tinybert arm needs an intermediate stage: set intermediate_epochs above 0.")

    def fitting(self, task: Task) -> Task:
        text = self.p.general_text
        return replace(task, splits={**task.splits, "unlabelled": read_text(text)}) if text else task

    def read_by(self, task: Task) -> Prepared:
        p = self.p
        return self.prepare(task, p.teacher, views=Views(p.views, p.crop, p.flip), augmentation=Augmentation(
            p.augmentation, p.augmentation_model, p.augmentation_vectors, seed=p.seed))

    @property
    def everyone(self) -> tuple[int, ...]:
        return tuple(range(self.p.n_teachers))

    @property
    def numbers(self) -> tuple[int, ...]:
        return self.everyone

    def seed_for(self, s: Student) -> int:
        """The seed of a student. "per_primary": the k students of a combination differ in seed as well as in primary, so
        that single- and multi-teacher students play the same lottery with the same tickets; "shared": one per repeat."""
        slot, repeat = s.primary, s.repeat
        if s.primary is None:
            slot, repeat = s.members[s.repeat % len(s.members)], s.repeat // len(s.members)
        if self.p.student_seeds == "shared" and self.p.arm != "resnet":  # a ResNet's repeats differ in nothing but the seed
            slot = 0
        return self.seed_of(s.replicate, 100 * (1 + repeat) + slot)

    # --- models --------------------------------------------------------------------------------------------------------

    def teacher(self, replicate: int, position: int) -> Model:
        return self.sound(replicate, [self.fine_tuned(replicate, self.p.teacher, position)])[0]

    @cached_property
    def general(self) -> Model | None:
        """TinyBERT's general distillation (option): Eq. 5 from the pre-trained encoder on unlabelled text, once."""
        if not self.p.general_epochs:
            return None
        recipe = recipes.tinybert_general(self.optimisation("general", lr=self.p.intermediate_lr))
        return distil.distill(self.prepared, [pretrained(self.prepared, self.p.teacher)], self.p.student, recipe, self.p.seed)

    def recipe(self, s: Student) -> Recipe:
        """What a student learns by."""
        p, last = self.p, self.optimisation("student")
        if p.arm == "tinybert":
            made = recipes.tinybert(s.members, s.primary, intermediate=self.optimisation("intermediate"), prediction=last,
                                    temperature=p.temperature)
        elif p.arm == "distilbert":
            made = recipes.distilbert(s.members, s.primary, optimisation=last, temperature=p.temperature,
                                      weights=(1.0, p.loss_weight, 1.0), **({"terms": s.variant} if s.kind == "terms" else {}))
        else:
            made = recipes.resnet(s.members, optimisation=last, lam=p.loss_weight, temperature=p.temperature)
        return replace(made, teachers=recipes.Independent(CONTROLS[s.variant])) if s.variant in CONTROLS else made

    def make(self, s: Student) -> Model:
        p, prepared, seed = self.p, self.prepared_for(s.replicate), self.seed_for(s)
        if s.kind == "undistilled" or s.variant == "plain_ce":  # as many epochs as all stages of the distillation together
            epochs = p.student_epochs + (p.intermediate_epochs if p.arm == "tinybert" else 0)
            opt = self.optimisation("student", epochs=epochs)
            return distil.undistilled(prepared, p.student, opt, seed, self.general, self.data)
        return distil.distill(prepared, self.teacher_set(s.replicate), p.student, self.recipe(s), seed,
                              s.repeat if p.augmentation else 0, self.general)

    @property
    def data(self) -> str:
        """What students read."""
        return "augmented" if self.p.arm == "tinybert" else "train"

    # --- rows ----------------------------------------------------------------------------------------------------------

    def columns(self, s: Student, model: Model) -> dict:
        members, primary, repeat = s.members, s.primary, s.repeat
        if s.kind == "undistilled":  # its teacher says which seed it had, no more
            members, primary, repeat = (), None, s.members[0]
        return {"pool": s.replicate, "members": list(members), "k": len(members), "primary": primary, "repeat": repeat,
                "variant": s.variant or None}

    def student_rows(self, s: Student) -> Iterator[dict]:
        model = self.make(s)
        if model.before is not None and model.before is self.general:
            model = replace(model, before=None)  # made once for all, on nobody's bill
        yield self.row(s, [model], data=self.prepared_for(s.replicate).name(self.data, s.repeat))

    def teacher_rows(self, replicate: int) -> Iterator[dict]:
        """Every teacher, and all of them voting with their mean logits: what the students try to match, scored."""
        models = self.teacher_set(replicate)
        for i, model in enumerate(models):
            yield self.row(Student(self.p.arm, members=(i,), kind="teacher", replicate=replicate), [model])
        every = Student(self.p.arm, members=self.everyone, kind="ensemble", replicate=replicate)
        joined = replace(models[0], info={**models[0].info, "parameters": total(m.info["parameters"] for m in models),
                                          "seconds": 0.0, "energy_kwh": 0.0, "history": None})
        row = self.row(every, [joined], partial(self.row_logits, every, models))
        yield row | {"time": row["time"] | {"teachers_s": sum(m.seconds for m in models)}}

    def own(self, replicate: int) -> Student:
        """The first student of the whole pool."""
        return next(s for s in self.students(replicate) if s.members == self.everyone)

    def candidates(self) -> list[Student]:
        """The students of whole pools."""
        return [s for r in self.p.pools for s in self.students(r) if s.kind == "student" and s.members == self.everyone]


from_parameters = Experiment


def read_text(file: str) -> Split:
    """Unlabelled text for general distillation: one passage per line, empty lines skipped."""
    try:
        lines = [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise KitError(f"the text {file} cannot be read: {getattr(error, 'strerror', error)}.") from error
    if not lines:
        raise KitError(f"the text {file} is empty.")
    return Split([f"text/{i}" for i in range(len(lines))], [(line,) for line in lines], np.full(len(lines), -1))
