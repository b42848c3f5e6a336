"""A study of any paper: a notebook's parameters, the students that they ask for, and a row of the record for each.

Nothing is trained here: every line asks mtkd.train.distil for a finished model and writes down what came out. A paper
(mtkd/papers/<paper>_study.py) says which students there are, as data, and how each one is made:

    students(p)                       every student of one replicate, in words that its row repeats
    Experiment.teacher(r, position)   one teacher, fit to be followed
    Experiment.make(student)          the model of a student, from the store or trained now
    Experiment.columns(student, model)   what its row says besides
    Experiment.teacher_rows(r)        the rows of every teacher, and of what they say together
    Experiment.own(r)                 the student that stands for the paper's method, of which the best is exported

and the rest is here: tasks and seeds by replicate, rows, jobs for the other cores, the bill, the exported student.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from mtkd.data import glue
from mtkd.data.tasks import Task, load_task, subset
from mtkd.errors import KitError
from mtkd.measure.metrics import ensemble_logits
from mtkd.study.rows import best, cost, data_rows, floor_rows, sizes, stages, total
from mtkd.train import distil
from mtkd.train.answers import answered, answers, finished_teacher, is_finished, sound
from mtkd.train.prepare import Prepared, prepare
from mtkd.train.recipes import Optimisation
from mtkd.train.teachers import Model

STRIDE = 100_000  # seeds per replicate
CONTROLS = {"shuffled_teacher": "shuffled", "uniform_teacher": "uniform"}  # variants whose teachers know nothing: their control
ALIKE = ("batch_size", "optimiser", "decay", "weight_decay", "warmup", "keep", "freeze_embeddings")  # in all stages of a run


@dataclass(frozen=True)
class Student:
    """One student (or teacher, ensemble, control) in the words that its row repeats; a paper adds its own. replicate: which
    repeat, or pool of teachers, it is of; members: positions of the teachers that it follows."""

    arm: str
    method: str = ""
    members: tuple[int, ...] = ()
    variant: str = ""
    kind: str = "student"
    replicate: int = 0


class Study:
    """The parameters of a notebook, as attributes of p, and the models they ask for. KitError where they contradict each
    other. Whatever is an attribute of p is one of a study too, for notebooks that look inside."""

    replicates = "repeats"  # the parameter that lists the replicates: every one has its own seeds and training subset
    joined_by = "logits"  # what of several models is averaged
    STUDENT = 1_000  # the students' seed within a replicate; teachers have the numbers below it
    students_of: Callable[[SimpleNamespace], Iterable[Student]]  # a paper's students(p)

    def __init__(self, parameters: dict):
        for name, value in parameters.items():
            if isinstance(value, str) and value.startswith(("[", "{")):
                raise KitError(f"{name} is the text {value!r}: papermill takes a list with -y '{name}: {value}', and "
                               f"`mtkd run -p {name} ...` reads it as one.")
        self.p = SimpleNamespace(**{k: tuple(v) if isinstance(v, list) else v for k, v in parameters.items()})
        self.used: dict[str, dict] = {}  # key of a model on the bill to what was measured of it
        self.drawn, self.prepared_for, self.teacher_set = map(cache, (self.drawn, self.prepared_for, self.teacher_set))
        self.asked: list[int] = list(getattr(self.p, self.replicates))  # the replicates
        if not self.asked or len(set(self.asked)) < len(self.asked):
            raise KitError(f"{self.replicates} must be different numbers, at least one, and are {self.asked}.")
        self.first = self.asked[0]
        one_of(self.p, weak_teachers=("stop", "mark"))
        self.check()

    def __getattr__(self, name: str):
        if name == "p":  # not there yet
            raise AttributeError(name)
        return getattr(self.p, name)

    def check(self) -> None:
        """A paper's own refusals, before any data is read."""

    # --- tasks and seeds ---------------------------------------------------------------------------------------------

    @cached_property
    def whole(self) -> Task:
        """The task with all its samples; KitError where it is none for this paper."""
        return self.fitting(read_task(self.p.task, self.p.protocol, self.p.task_options))

    def fitting(self, task: Task) -> Task:
        """The task; a paper raises KitError here for one that it cannot be run on."""
        return task

    def drawn(self, replicate: int) -> Task:
        """The task with the training subset of this replicate (all of them alike where `train_size` keeps all); validation and
        test are the same for all."""
        return subset(self.whole, sizes(self.p) or None, seed=self.p.seed, replicate=replicate)

    def prepare(self, task: Task, model: str, **options) -> Prepared:
        return prepare(task, model, max_length=self.p.max_length, vocab=self.p.vocab, **options)

    def read_by(self, task: Task) -> Prepared:
        """The task as the student reads it; other models get theirs by its `of`."""
        return self.prepare(task, self.p.student)

    def prepared_for(self, replicate: int) -> Prepared:
        return self.read_by(self.drawn(replicate))

    @property
    def loaded(self) -> Task:
        """The first replicate's task: classes, metric and all splits but train are those of every replicate."""
        return self.drawn(self.first)

    @property
    def prepared(self) -> Prepared:
        return self.prepared_for(self.first)

    def reads(self, s: Student) -> Prepared:
        """The task in the tokens of a student."""
        return self.prepared_for(s.replicate)

    @property
    def everyone(self) -> tuple[int, ...]:
        return tuple(range(len(self.p.teachers)))

    def seed_of(self, replicate: int, number: int) -> int:
        return STRIDE * (100 * self.p.seed + replicate) + number

    def student_seed(self, replicate: int) -> int:
        """One for all students of a replicate, so that they differ in nothing but what is compared."""
        return self.seed_of(replicate, self.STUDENT)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The seeds within a replicate."""
        return (*self.everyone, self.STUDENT)

    def seeds(self) -> list[int]:
        """Every seed of this study, for the record."""
        return sorted({self.seed_of(r, n) for r in self.asked for n in self.numbers})

    # --- models --------------------------------------------------------------------------------------------------------

    def optimisation(self, prefix: str, **changes) -> Optimisation:
        """What the parameters say of a stage: student_epochs, student_lr (0 where there is none), and what all stages share."""
        own = {"epochs": getattr(self.p, f"{prefix}_epochs"), "lr": getattr(self.p, f"{prefix}_lr", 0.0)}
        return Optimisation(**{**own, **{n: getattr(self.p, n) for n in ALIKE if hasattr(self.p, n)}, **changes})

    def fine_tuned(self, replicate: int, name: str, number: int, **changes) -> Model:
        """A teacher trained alone, with its own tokeniser; or a finished one, a folder ("finished:PATH") or a table of logits.
        changes: of the optimisation, where they differ from teacher_epochs and teacher_lr."""
        prepared, seed = self.prepared_for(replicate), self.seed_of(replicate, number)
        if is_finished(name):
            return finished_teacher(prepared, name)
        return distil.finetune(prepared.of(name), name, [seed], self.optimisation("teacher", **changes))[0]

    def sound(self, replicate: int, models: Sequence[Model]) -> list[Model]:
        """The teachers as they are given; KitError where one has learned nothing (mtkd.train.answers.sound)."""
        return sound(self.prepared_for(replicate), models, self.p.weak_teachers)

    def teacher_set(self, replicate: int) -> list[Model]:
        """All teachers, the same for every student of a replicate."""
        return [self.teacher(replicate, position) for position in self.everyone]

    def students(self, replicate: int) -> list[Student]:
        return [replace(s, replicate=replicate) for s in type(self).students_of(self.p)]

    def models(self, s: Student) -> list[Model]:
        """The models behind a row: one, or the members of an ensemble."""
        return [self.make(s)]

    def taught(self, s: Student) -> bool:
        """Whether a student learned from teachers, and not from labels alone."""
        return s.kind in ("student", "control", "terms") and s.variant not in ("plain_ce", "CE")

    def followed(self, s: Student) -> list[Model]:
        """The teachers that a student learned from, whose training and scoring are on its bill."""
        return [self.teacher_set(s.replicate)[i] for i in s.members] if self.taught(s) else []

    # --- rows, jobs and the bill --------------------------------------------------------------------------------------

    def row_logits(self, s: Student, models: Sequence[Model], split: str) -> Tensor:
        """The logits behind a row: a model's own, or several models' joined (metrics.ensemble_logits)."""
        found = [answers(self.reads(s), model, split) for model in models]
        return found[0] if len(found) == 1 else torch.from_numpy(ensemble_logits([z.numpy() for z in found], self.joined_by))

    def scores(self, s: Student, model: Model, said: Callable[[str], Tensor], split: str) -> dict[str, float]:
        return distil.metrics(self.reads(s).of(model), split, said(split))

    def row(self, s: Student, models: Sequence[Model], said: Callable[[str], Tensor] | None = None, split: str = "test",
            data: str = "train", **known) -> dict:
        """One line of the record. said: logits by split, where they are not the models' own; data: what the student read;
        known: columns that differ from what the student's words say."""
        model, reads, followed = models[0], self.reads(s), self.followed(s)
        said = cache(said or partial(self.row_logits, s, models))
        if s.kind != "ensemble":
            self.count(*models, *followed)
        task, test = reads.task, self.scores(s, model, said, split)
        return {
            "arm": s.arm, "task": self.p.task, "kind": s.kind, **self.columns(s, model), "model": model.name,
            "metric": task.metric, "score": test[task.metric], "metrics": test, "split": split,
            "validation": self.scores(s, model, said, "validation")[task.metric], "n_test": len(task.splits[split]),
            **answered(task, said(split), split), **cost(models, followed, reads, data),
        } | known  # fmt: skip

    def floor_rows(self, replicate: int) -> list[dict]:
        """What any model must beat: the majority class and a linear model of word counts (mtkd/train/floors.py)."""
        return floor_rows(self.prepared_for(replicate), self.p.task, {self.replicates.removesuffix("s"): replicate})

    def student_rows(self, s: Student) -> Iterator[dict]:
        yield self.row(s, self.models(s))

    def result_rows(self, replicate: int, *arms: str) -> Iterator[dict]:
        """Rows of the students of the given arms, or of all."""
        for s in self.students(replicate):
            if not arms or s.arm in arms:
                yield from self.student_rows(s)

    def first_jobs(self) -> list[Callable]:
        """What must be there before any student is made: all teachers."""
        return [partial(self.teacher, r, p) for r in self.asked for p in self.everyone]

    def step(self, s: Student) -> int:
        """Students of a higher step go on from those of a lower one."""
        return 0

    def jobs(self) -> list[list[Callable]]:
        """Everything that takes time, as calls, those that others need first (mtkd/runs/helpers.py)."""
        every = sorted((s for r in self.asked for s in self.students(r)), key=self.step)
        return [self.first_jobs(), *([partial(self.models, s) for s in step] for _, step in groupby(every, self.step))]

    def count(self, *models: Model) -> None:
        """Put models on the bill, with the stages they went through."""
        self.used |= {m.key: m.info for model in models for m in stages(model) if "seconds" in m.info}

    def bill(self) -> dict:
        """What making all models used so far cost, each counted once, whenever it was made."""
        infos = self.used.values()
        return {"models": len(infos), "training_s": sum(i["seconds"] for i in infos),
                **{name: total(i.get(name) for i in infos) for name in ("energy_kwh", "co2_kg")},
                "energy_method": next((i["energy_method"] for i in infos if i.get("energy_method")), None)}

    def data_rows(self) -> list[dict]:
        """The table of the data."""
        return data_rows(self.loaded, self.p.task)

    def candidates(self) -> list[Student]:
        """The students of which the best is exported; none where no section asked for students."""
        return [self.own(r) for r in self.asked] if self.p.sections else []

    def best_student(self) -> Model | None:
        """Of the candidates the one that did best on validation, of equals the first."""
        models = [self.make(s) for s in self.candidates()]
        return best(models, self.loaded.metric) if models else None

    def export(self, folder: Path) -> Path | None:
        """Copy the best student to folder/student without what only the store needs, replacing an earlier one; the new path."""
        if (model := self.best_student()) is None:
            return None
        shutil.rmtree(folder / "student", ignore_errors=True)
        return Path(shutil.copytree(model.folder, folder / "student",
                                    ignore=shutil.ignore_patterns("logits-*", "artifact.json")))

    def write_submissions(self, folder: Path) -> list[Path]:
        """GLUE submission files of the best student, where the task has hidden test rows (protocol "paper")."""
        hidden = [name for name in self.loaded.splits if name.startswith("hidden_test")]
        if not hidden or (model := self.best_student()) is None:
            return []
        return [glue.write_submission(self.loaded, name, answers(self.prepared, model, name).numpy(), folder)
                for name in hidden]


def one_of(p: SimpleNamespace, **words: Sequence[str]) -> None:
    """KitError where a parameter is none of its words."""
    for name, allowed in words.items():
        if getattr(p, name) not in allowed:
            raise KitError(f"{name} is {getattr(p, name)!r}; there are {', '.join(allowed)}.")


def known(what: str, names: Iterable[str], words: Sequence[str]) -> None:
    """KitError where one of the names is none of the words."""
    if unknown := [name for name in names if name not in words]:
        raise KitError(f"no such {what}: {unknown[0]!r}; there are {', '.join(words)}.")


def read_task(name: str, protocol: str, options: dict) -> Task:
    """A task by name, whole; `protocol` goes to the loaders that have one."""
    own = {"protocol": protocol} if name.startswith(("glue/", "tweet_eval/")) else {}
    return load_task(name, **{**own, **options})
