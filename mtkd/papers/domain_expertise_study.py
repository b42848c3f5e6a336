"""The thesis's studies (Hossain): a fine-tuned student is distilled once more, and whom it follows is the question.

Which students there are and what they learn by is in domain_expertise_students.py; here is how each one is made. One replicate
is one independent set of teachers and students: every seed differs from replicate to replicate, and within one all students
share seed and start, so that they differ in whom they follow and in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from mtkd.data.tasks import Split, Task, unique_ids
from mtkd.errors import KitError
from mtkd.papers.domain_expertise import CLASSES, SPAN
from mtkd.papers.domain_expertise_students import METHODS, STUDENTS, SWITCHES, Student, students
from mtkd.rules import experts
from mtkd.study import CONTROLS, Study, known
from mtkd.study.rows import joined
from mtkd.train import distil, teachers
from mtkd.train.answers import is_finished, is_table, shown, source_name
from mtkd.train.prepare import Prepared
from mtkd.train.recipes import Independent, Recipe
from mtkd.train.teachers import Model

STRIDE = 1000  # seeds per replicate: teachers from 0, models beside them from 100, students from 200. The kit's committed runs
BESIDE, DISTILLED = 100, 201  # name them, so they stay as they are (mtkd/study has others)
OTHERS = "other questions"
SECTIONS = ("methods", "others", "temperature", "variants", "controls")
ALLOWED = {**{name: values for name, (values, *_) in SWITCHES.items()}, "ties": experts.TIES,
           "camkd_combine": ("losses", "logits")}


class Experiment(Study):
    """The parameters of notebooks/domain_expertise.ipynb, and the models they ask for."""

    students_of = staticmethod(students)
    STUDENT = 200

    def check(self) -> None:
        refuse(self.p)

    # --- data ------------------------------------------------------------------------------------------------------------

    def fitting(self, task: Task) -> Task:
        if self.p.arm == SPAN and task.kind != "span":
            raise KitError(f"the arm 'span' marks words, and the task {task.name} has none marked: use the arm 'classes'.")
        if self.p.arm == CLASSES and task.kind == "span":
            raise KitError(f"the arm 'classes' needs a class per sample, and the task {task.name} marks words: use the arm "
                           "'span'.")
        if task.regression:
            raise KitError(f"the task {task.name} is a regression: it has no classes that a teacher could be an expert of.")
        return task

    def drawn(self, replicate: int) -> Task:
        """A replicate's task; in the span arm, of its `questions` alone."""
        task = super().drawn(replicate)
        return about(task, self.p.questions) if self.p.questions else task

    def related(self, replicate: int) -> Prepared:
        """The questions that are left out, read by the student's tokeniser: the related task of the offline demo."""
        task, own = about(super().drawn(replicate), self.p.questions, others=True), self.prepared_for(replicate)
        return Prepared(task, own.store, own.tokenizer, self.p.max_length, vocab_size=self.p.vocab)

    def reads(self, s: Student) -> Prepared:
        prepared, name = self.prepared_for(s.replicate), self.student_name(s.start)
        return prepared if name == self.p.student else prepared.of(name)

    # --- models ------------------------------------------------------------------------------------------------------------

    def seed_of(self, replicate: int, number: int) -> int:
        return STRIDE * (1000 * self.p.seed + replicate) + number

    @property
    def numbers(self) -> tuple[int, ...]:
        return (*self.everyone, *range(BESIDE, BESIDE + len(self.p.also_finetuned)), self.STUDENT, DISTILLED)

    def teacher(self, replicate: int, position: int) -> Model:
        lr = {"lr": self.p.teacher_lrs[position]} if self.p.teacher_lrs else {}
        made = self.fine_tuned(replicate, self.p.teachers[position], position, **lr)
        return self.sound(replicate, [made])[0]

    def beside(self, replicate: int, number: int) -> Model:
        """A model that is fine-tuned beside the teachers and teaches nobody."""
        return self.fine_tuned(replicate, self.p.also_finetuned[number], BESIDE + number)

    @cached_property
    def names(self) -> dict[str, str]:
        """What every teacher and every model beside them is called in tables."""
        return shown_names([*self.p.teachers, *self.p.also_finetuned])

    @property
    def teacher_names(self) -> list[str]:
        return [self.names[name] for name in self.p.teachers]

    def student_name(self, start: str) -> str:
        return self.p.tuned_student if start == "tuned" and self.p.tuned_student != OTHERS else self.p.student

    def shown_name(self, start: str) -> str:
        name = self.student_name(start)
        return f"{name} after {OTHERS}" if start == "tuned" and self.p.tuned_student == OTHERS else name

    def make(self, s: Student) -> Model:
        """The student before distillation (4.3), from which every distillation goes on; or what goes on from it: as many steps
        on labels alone where it is the control "plain_ce"."""
        name, prepared, seed, opt = self.student_name(s.start), self.reads(s), self.student_seed(s.replicate), self.optimisation
        if s.kind == "undistilled":
            related = s.start == "tuned" and self.p.tuned_student == OTHERS
            before = distil.undistilled(self.related(s.replicate), name, opt("student"), seed) if related else None
            return distil.undistilled(prepared, name, opt("student"), seed, before)
        fine, seed = self.make(replace(s, kind="undistilled")), self.seed_of(s.replicate, DISTILLED)
        if s.variant == "plain_ce":
            return distil.undistilled(prepared, name, opt("distil"), seed, fine)
        return distil.distill(prepared, self.teacher_set(s.replicate), name, self.recipe(s), seed, start=fine)

    def temperature(self, s: Student) -> float:
        return dict(s.changes).get("temperature", self.p.temperatures[0])

    def recipe(self, s: Student) -> Recipe:
        """What a student learns by: the run's parameters, then what its variant changes."""
        p = {**vars(self.p), **dict(s.changes)}
        own = {"expertise": {name: p[name] for name in ("several", "none", "ties", "fit_split", "seed")},
               "mixture": {"fit_split": p["fit_split"]}, "random": {"per": p["random_per"]},
               "camkd": {"combine": p["camkd_combine"]}}
        made = METHODS[s.method](alpha=p["alpha"], temperature=self.temperature(s), optimisation=self.optimisation("distil"),
                                 **own.get(s.method, {}))
        return replace(made, teachers=Independent(CONTROLS[s.variant])) if s.variant in CONTROLS else made

    def step(self, s: Student) -> int:
        return int(s.kind != "undistilled")

    def first_jobs(self) -> list[Callable]:
        return super().first_jobs() + [partial(self.beside, r, n) for r in self.p.repeats
                                       for n in range(len(self.p.also_finetuned))]

    # --- rows --------------------------------------------------------------------------------------------------------------

    def columns(self, s: Student, model: Model) -> dict:
        made = s.kind in ("student", "control", "undistilled")
        return {
            "method": s.method or None, "variant": s.variant, "temperature": self.temperature(s) if s.method else None,
            "repeat": s.replicate, "start": s.start if made else None, "position": None,
            "teachers": [] if s.kind in ("undistilled", "finetuned") else list(self.p.teachers),
            "layers": model.shape.get("layers"),
        }

    def row(self, s: Student, models: Sequence[Model], said: Callable[[str], Tensor] | None = None, **known) -> dict:
        said = cache(said or partial(self.row_logits, s, models))
        return super().row(s, models, said, recalls=self.recalls(said("test")), **known)

    def recalls(self, logits: Tensor, split: str = "test") -> dict[str, float | None]:
        """Recall of every class; None for a class that the split has no sample of, and nothing in a span task."""
        if self.p.arm == SPAN:
            return {}
        found = experts.recalls(logits.unsqueeze(1), torch.from_numpy(self.loaded.splits[split].labels))[0]
        return {name: None if np.isnan(value) else value for name, value in zip(self.loaded.classes, found.tolist())}

    def student_rows(self, s: Student) -> Iterator[dict]:
        yield self.row(s, [self.make(s)], model=self.shown_name(s.start))

    def teacher_rows(self, replicate: int) -> Iterator[dict]:
        """Every teacher, every model that was fine-tuned beside them, and the mean of all teachers' logits: what the averaged
        student is shown (on its own tokens in a span task)."""
        models, prepared = self.teacher_set(replicate), self.prepared_for(replicate)
        one = Student(self.p.arm, kind="teacher", replicate=replicate)
        for position, (name, model) in enumerate(zip(self.teacher_names, models)):
            yield self.row(one, [model], position=position, model=name)
        for number, name in enumerate(self.p.also_finetuned):
            yield self.row(replace(one, kind="finetuned"), [self.beside(replicate, number)], model=self.names[name])

        def mean(split: str) -> Tensor:
            return torch.stack([teachers.logits_of(prepared, model, split) for model in models]).mean(0)

        yield self.row(replace(one, kind="ensemble"), [joined(models)], mean)

    def own(self, replicate: int) -> Student:
        """The thesis's student: "our approach", or in a span task the averaged logits."""
        return Student(self.p.arm, STUDENTS[self.p.arm][0], self.everyone, replicate=replicate)


from_parameters = Experiment


def about(task: Task, count: int, others: bool = False) -> Task:
    """The part of a span task that asks its first `count` questions (in alphabetical order), or all the others.

    A question is the first text of a sample. KitError where nothing would be left.
    """
    asked = sorted({pair[0] for pair in task.splits["train"].inputs})
    if task.kind != "span" or not 0 < count < len(asked):
        raise KitError(f"questions is {count}, and {task.name} has {len(asked) if task.kind == 'span' else 'no'} questions: "
                       "some must be asked and some left out.")
    kept = set(asked[count:] if others else asked[:count])

    def part(split: Split) -> Split:
        return split.take(np.flatnonzero([pair[0] in kept for pair in split.inputs]))

    return replace(task, splits={name: part(split) for name, split in task.splits.items()})


def shown_names(names: Sequence[str]) -> dict[str, str]:
    """What each model is called in tables, no two alike: where a finished one's file or folder is called as another model
    is, with the folder it lies in, and where that is equal too, with a number.

    >>> list(shown_names(["finished:bert/best", "finished:roberta/best", "said.csv", "minilm"]).values())
    ['bert/best', 'roberta/best', 'said.csv', 'minilm']
    """
    names = list(dict.fromkeys(names))
    short = [shown(name) for name in names]
    clash = [short.count(word) > 1 and is_finished(name) for name, word in zip(names, short)]
    longer = [f"{Path(source_name(name)).absolute().parent.name}/{word}" if twice else word
              for name, word, twice in zip(names, short, clash)]
    return dict(zip(names, unique_ids(longer)))


def refuse(p: SimpleNamespace) -> None:
    """KitError where the parameters contradict each other or mean nothing; seen without reading any data."""
    known("arm", [p.arm], tuple(STUDENTS))
    if not p.teachers:
        raise KitError("name at least one teacher.")
    for what, names in (("teacher", p.teachers), ("model fine-tuned beside the teachers", p.also_finetuned)):
        if len(set(names)) < len(names):
            raise KitError(f"every {what} must be another one: {', '.join(names)}.")
    if p.teacher_lrs and len(p.teacher_lrs) != len(p.teachers):
        raise KitError(f"teacher_lrs has {len(p.teacher_lrs)} learning rates for {len(p.teachers)} teachers.")
    if not p.temperatures or not min(p.temperatures) > 0:
        raise KitError("name at least one temperature above 0; the first is the run's own.")
    if not 0 <= p.alpha <= 1:
        raise KitError(f"alpha, the weight of the loss on labels, is between 0 and 1; this one is {p.alpha}.")
    known("section", p.sections, SECTIONS)
    for name, values in ALLOWED.items():
        if getattr(p, name) not in values:
            raise KitError(f"{name} is {' or '.join(values)}, not {getattr(p, name)!r}.")
    if p.tuned_student == OTHERS and not p.questions:
        raise KitError(f"tuned_student {OTHERS!r} needs questions: how many of the task's questions are its own.")
    if p.arm == CLASSES and p.tuned_student:
        raise KitError("the arm 'classes' has one student: tuned_student is for the arm 'span'.")
    if p.arm == SPAN and (tables := [name for name in (*p.teachers, *p.also_finetuned) if is_table(name)]):
        raise KitError(f"{tables[0]} is a table of logits with one row per sample, and the arm 'span' needs one per token.")
    if not p.margin > 0:
        raise KitError(f"margin, the difference that counts as none, is above 0; this one is {p.margin}.")
