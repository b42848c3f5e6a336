"""The thesis's experiments, asked of the store: teachers, a fine-tuned student, the same student after every selection.

Two arms. "classes": teachers of different families on a task of several classes (5.1 to 5.4). "span": two teachers of
different tokenisers on a token task (NBME, 5.6), two students. One repeat is one independent set of teachers and students:
every seed differs from repeat to repeat, and within one all students share seed and start, so that they differ in whom
they follow and in nothing else. Nothing is trained here; every line asks mtkd.train.distil for a finished model. A `Variant`
(mtkd/papers/domain_expertise_plans.py) says which student; mtkd/papers/domain_expertise_rows.py makes models into rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import torch

from mtkd.data.tasks import Split, Task
from mtkd.errors import KitError
from mtkd.papers import domain_expertise_plans as plans
from mtkd.papers import domain_expertise_recipes
from mtkd.papers.domain_expertise_plans import OTHERS, SECTIONS, SWITCHES, Variant
from mtkd.store.artifacts import tensors_load
from mtkd.study import Draws, finished_teacher, is_finished, optimisation, read_task, sizes, sound, stages
from mtkd.train import distil, teachers
from mtkd.train.prepare import Prepared, prepare
from mtkd.train.recipes import Optimisation, Recipe
from mtkd.train.teachers import Model

STRIDE = 1000  # seeds per repeat: teachers from 0, models beside them from 100, students from 200. The kit's committed runs
BESIDE, STUDENT, DISTILLED = 100, 200, 201  # name them, so they stay as they are (mtkd/study.py has others)


@dataclass
class Experiment(Draws):
    """The parameters of notebooks/domain_expertise.ipynb, and the models they ask for."""

    arm: str
    task: str
    teachers: tuple[str, ...]
    student: str
    teacher_optimisation: Optimisation
    student_optimisation: Optimisation
    distil_optimisation: Optimisation
    teacher_lrs: tuple[float, ...] = ()
    repeats: tuple[int, ...] = (0,)
    sections: tuple[str, ...] = SECTIONS
    temperatures: tuple[float, ...] = (1.0, 2.0)
    alpha: float = 0.5
    several: str = "overall"
    none: str = "overall"
    ties: str = "random"
    random_per: str = "sample"
    fit_split: str = "validation"
    camkd_combine: str = "losses"
    tuned_student: str = ""
    questions: int = 0
    also_finetuned: tuple[str, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)
    protocol: str = "honest"
    max_length: int = 128
    vocab: int = 4000
    seed: int = 0
    task_options: dict = field(default_factory=dict)
    weak_teachers: str = "stop"
    used: dict[str, dict] = field(default_factory=dict, repr=False)
    _made: dict = field(default_factory=dict, repr=False)

    def __post_init__(self):
        plans.check(self)

    # --- data ------------------------------------------------------------------------------------------------------

    @cached_property
    def whole(self) -> Task:
        return plans.check_task(self.arm, read_task(self.task, self.protocol, self.task_options))

    @property
    def loaded(self) -> Task:
        """The first repeat's task: classes, metric and all splits but train are those of every repeat."""
        return self.asked(self.repeats[0])

    @property
    def prepared(self) -> Prepared:
        return self.prepared_for(self.repeats[0])

    def asked(self, repeat: int) -> Task:
        """A repeat's task; in the span arm, of its `questions` alone."""
        return about(self.drawn(repeat), self.questions) if self.questions else self.drawn(repeat)

    def read_by(self, task: Task) -> Prepared:
        """The task as the student reads it; every teacher gets its own tokeniser by `of`."""
        asked = about(task, self.questions) if self.questions else task
        return prepare(asked, self.student, max_length=self.max_length, vocab=self.vocab)

    def related(self, repeat: int) -> Prepared:
        """The questions that are left out, read by the student's tokeniser: the related task of the offline demo."""
        task, own = about(self.drawn(repeat), self.questions, others=True), self.prepared_for(repeat)
        return Prepared(task, own.store, own.tokenizer, self.max_length, vocab_size=self.vocab)

    # --- models ----------------------------------------------------------------------------------------------------

    def seed_of(self, repeat: int, number: int) -> int:
        return STRIDE * (1000 * self.seed + repeat) + number

    def seeds(self) -> list[int]:
        """Every seed of this experiment, for the record."""
        numbers = (*range(len(self.teachers)), *range(BESIDE, BESIDE + len(self.also_finetuned)), STUDENT, DISTILLED)
        return sorted({self.seed_of(repeat, number) for repeat in self.repeats for number in numbers})

    def model(self, name: str, repeat: int, number: int) -> Model:
        """A model by name, fine-tuned on the task with its own tokeniser; or a finished one, the same in every repeat."""
        prepared = self.prepared_for(repeat)
        if is_finished(name):
            return finished_teacher(prepared, name)
        own = self.teacher_optimisation
        if number < len(self.teacher_lrs):
            own = replace(own, lr=self.teacher_lrs[number])
        return distil.finetune(prepared.of(name), name, [self.seed_of(repeat, number)], own)[0]

    def teacher(self, repeat: int, position: int) -> Model:
        key = (repeat, position)
        if key not in self._made:
            made = self.model(self.teachers[position], repeat, position)
            self._made[key] = sound(self.prepared_for(repeat), [made], self.weak_teachers)[0]
        return self._made[key]

    def teacher_set(self, repeat: int) -> list[Model]:
        return [self.teacher(repeat, position) for position in range(len(self.teachers))]

    def beside(self, repeat: int, number: int) -> Model:
        """A model that is fine-tuned beside the teachers and teaches nobody."""
        return self.model(self.also_finetuned[number], repeat, BESIDE + number)

    @cached_property
    def names(self) -> dict[str, str]:
        """What every teacher and every model beside them is called in tables."""
        return plans.shown_names([*self.teachers, *self.also_finetuned])

    @property
    def teacher_names(self) -> list[str]:
        return [self.names[name] for name in self.teachers]

    @property
    def starts(self) -> tuple[str, ...]:
        return ("plain", "tuned") if self.tuned_student else ("plain",)

    def reads(self, repeat: int, start: str) -> Prepared:
        """The task as this student reads it."""
        prepared = self.prepared_for(repeat)
        return prepared.of(self.tuned_student) if start == "tuned" and self.tuned_student != OTHERS else prepared

    def student_name(self, start: str) -> str:
        return self.tuned_student if start == "tuned" and self.tuned_student != OTHERS else self.student

    def shown_name(self, start: str) -> str:
        name = self.student_name(start)
        return f"{name} after {OTHERS}" if start == "tuned" and self.tuned_student == OTHERS else name

    def finetuned_student(self, repeat: int, start: str = "plain") -> Model:
        """The student before distillation (4.3), and the model that every distillation goes on from."""
        seed = self.seed_of(repeat, STUDENT)
        before = None
        if start == "tuned" and self.tuned_student == OTHERS:
            before = distil.undistilled(self.related(repeat), self.student, self.student_optimisation, seed)
        return distil.undistilled(self.reads(repeat, start), self.student_name(start), self.student_optimisation, seed, before)

    def recipe(self, variant: Variant) -> Recipe:
        """The recipe of a student: the run's parameters, then what the variant changes."""
        settings = {"several": self.several, "none": self.none, "ties": self.ties, "fit_split": self.fit_split,
                    "random_per": self.random_per, "temperature": self.temperatures[0]} | dict(variant.changes)
        loss = {"alpha": self.alpha, "temperature": settings["temperature"], "optimisation": self.distil_optimisation}
        if variant.method == "expertise":
            loss |= {name: settings[name] for name in ("several", "none", "ties", "fit_split")} | {"seed": self.seed}
        elif variant.method == "random":
            loss["per"] = settings["random_per"]
        elif variant.method == "camkd":
            loss["combine"] = self.camkd_combine
        elif variant.method == "mixture":
            loss["fit_split"] = settings["fit_split"]
        made = domain_expertise_recipes.METHODS[variant.method](**loss)
        return domain_expertise_recipes.controlled(made, variant.control) if variant.control else made

    def distill(self, repeat: int, variant: Variant, start: str = "plain") -> Model:
        """A student; as many steps on labels alone where the variant is the control "plain_ce"."""
        fine, seed = self.finetuned_student(repeat, start), self.seed_of(repeat, DISTILLED)
        name, prepared = self.student_name(start), self.reads(repeat, start)
        if variant.name == "plain_ce":
            return distil.undistilled(prepared, name, self.distil_optimisation, seed, fine)
        return distil.distill(prepared, self.teacher_set(repeat), name, self.recipe(variant), seed, start=fine)

    def variants(self, start: str = "plain") -> list[Variant]:
        """Every student of one repeat and start, in the order of the notebook."""
        settings = {name: getattr(self, name) for name in SWITCHES}
        return plans.variants(self.arm, self.sections, self.temperatures, settings, len(self.teachers), start)

    # --- what they say -----------------------------------------------------------------------------------------------

    def logits(self, model: Model, split: str, prepared: Prepared) -> torch.Tensor:
        """A model's logits on a split in the model's own units: samples, or its own tokens."""
        if model.metrics:
            return model.logits(split)
        return tensors_load(teachers.score(prepared, model, split).folder / "logits.safetensors")["logits"]

    def scores(self, model: Model, split: str, prepared: Prepared) -> dict[str, float]:
        own = prepared.of(model)
        return model.metrics.get(split) or distil.metrics(own, split, self.logits(model, split, prepared))

    def count(self, *models: Model) -> None:
        """Put models on the bill, with the stages they started from."""
        self.used |= {m.key: m.info for model in models for m in stages(model) if m.info.get("history")}

    def jobs(self) -> list[list[Callable]]:
        """Everything that takes time, as calls: teachers and fine-tuned students first, then what is distilled."""
        first = [partial(self.teacher, repeat, position) for repeat in self.repeats for position in range(len(self.teachers))]
        first += [partial(self.beside, repeat, n) for repeat in self.repeats for n in range(len(self.also_finetuned))]
        first += [partial(self.finetuned_student, repeat, start) for repeat in self.repeats for start in self.starts]
        second = [partial(self.distill, repeat, variant, start) for repeat in self.repeats for start in self.starts
                  for variant in self.variants(start)]
        return [first, second]


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


def from_parameters(p: dict) -> Experiment:
    """The experiment that a notebook's parameters describe; KitError where they contradict each other."""
    plans.check_margin(p["margin"])
    return Experiment(
        arm=p["arm"], task=p["task"], teachers=tuple(p["teachers"]), student=p["student"],
        teacher_optimisation=optimisation(p, p["teacher_epochs"], p["teacher_lr"]),
        student_optimisation=optimisation(p, p["student_epochs"], p["student_lr"]),
        distil_optimisation=optimisation(p, p["distil_epochs"], p["distil_lr"]), sizes=sizes(p),
        **{name: tuple(p[name]) for name in ("repeats", "sections", "temperatures", "also_finetuned", "teacher_lrs")},
        **{name: p[name] for name in ("alpha", "several", "none", "ties", "random_per", "fit_split", "camkd_combine",
                                      "tuned_student", "questions", "protocol", "max_length", "vocab", "seed",
                                      "task_options", "weak_teachers")},
    )
