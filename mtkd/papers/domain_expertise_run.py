"""The thesis's experiments, asked of the store: teachers, a fine-tuned student, the same student after every selection.

Two arms. "classes": teachers of different families on a task of several classes (5.1 to 5.4). "span": two teachers of
different tokenisers on a token task (NBME, 5.6), two students. One repeat is one independent set of teachers and students:
every seed differs from repeat to repeat, and within one all students share seed and start, so that they differ in whom
they follow and in nothing else. Nothing is trained here; every line asks mtkd.distil for a finished model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch

from mtkd import distil, experts, teachers
from mtkd.errors import KitError
from mtkd.papers import domain_expertise_recipes
from mtkd.papers.domain_expertise_scores import CLASSES, SPAN
from mtkd.papers.outcomes import sum_or_none
from mtkd.prepare import Prepared, prepare
from mtkd.recipes import Optimisation, Recipe
from mtkd.store import tensors_load
from mtkd.tasks import Split, Task, load_task
from mtkd.teachers import Model

STRIDE = 1000  # seeds per repeat: teachers from 0, models beside them from 100, students from 200
FINISHED, OTHERS = "finished:", "other questions"
SECTIONS = ("methods", "others", "temperature", "variants", "controls")
METHODS = {CLASSES: ("expertise", "average", "random"), SPAN: ("average", "camkd", "average+teacher")}
OTHER_METHODS = {CLASSES: ("camkd", "mixture"), SPAN: ()}
OTHER_VALUE = {"several": ("overall", "matched"), "none": ("overall", "average"), "fit_split": ("validation", "test"),
               "random_per": ("sample", "step")}  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """One student to be made: a method, and what is changed about it (name "" for nothing)."""

    method: str
    name: str = ""
    changes: tuple[tuple[str, str | float], ...] = ()
    control: str | None = None


@dataclass
class Experiment:
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
    used: dict[str, dict] = field(default_factory=dict, repr=False)
    _made: dict = field(default_factory=dict, repr=False)

    def __post_init__(self):
        if self.arm not in METHODS:
            raise KitError(f"no such arm: {self.arm!r}; there are {', '.join(METHODS)}.")
        if not self.teachers:
            raise KitError("name at least one teacher.")
        if len(set(self.teachers)) < len(self.teachers):
            raise KitError(f"every teacher must be another one: {', '.join(self.teachers)}.")
        if self.teacher_lrs and len(self.teacher_lrs) != len(self.teachers):
            raise KitError(f"teacher_lrs has {len(self.teacher_lrs)} learning rates for {len(self.teachers)} teachers.")
        if not self.repeats or len(set(self.repeats)) < len(self.repeats):
            raise KitError(f"repeats must be distinct numbers, at least one: {list(self.repeats)}.")
        if not self.temperatures or min(self.temperatures) <= 0:
            raise KitError("name at least one temperature above 0; the first is the run's own.")
        for section in self.sections:
            if section not in SECTIONS:
                raise KitError(f"no such section: {section!r}; there are {', '.join(SECTIONS)}.")
        for name, allowed in OTHER_VALUE.items():
            if getattr(self, name) not in allowed:
                raise KitError(f"{name} is {' or '.join(allowed)}, not {getattr(self, name)!r}.")
        if self.tuned_student == OTHERS and not self.questions:
            raise KitError(f"tuned_student {OTHERS!r} needs questions: how many of the task's questions are its own.")

    # --- data ------------------------------------------------------------------------------------------------------

    @cached_property
    def whole(self) -> Task:
        options = {"protocol": self.protocol} if self.task.startswith(("glue/", "tweet_eval/")) else {}
        return load_task(self.task, limit=self.sizes or None, seed=self.seed, **{**options, **self.task_options})

    @cached_property
    def loaded(self) -> Task:
        return about(self.whole, self.questions) if self.questions else self.whole

    @cached_property
    def prepared(self) -> Prepared:
        """The task as the student reads it; every teacher gets its own tokeniser by `prepared.of`."""
        return prepare(self.loaded, self.student, max_length=self.max_length, vocab=self.vocab)

    @cached_property
    def related(self) -> Prepared:
        """The questions that are left out, read by the student's tokeniser: the related task of the offline demo."""
        task = about(self.whole, self.questions, others=True)
        return Prepared(task, self.prepared.store, self.prepared.tokenizer, self.max_length, vocab_size=self.vocab)

    # --- models ----------------------------------------------------------------------------------------------------

    def seed_of(self, repeat: int, number: int) -> int:
        return STRIDE * (1000 * self.seed + repeat) + number

    def model(self, name: str, repeat: int, number: int) -> Model:
        """A model by name, fine-tuned on the task with its own tokeniser; or a finished one, the same in every repeat."""
        if name.startswith(FINISHED):
            return teachers.teacher_from_folder(self.prepared, name.removeprefix(FINISHED))
        if name.endswith((".parquet", ".csv")):
            return teachers.teacher_from_table(name)
        own = self.teacher_optimisation
        if number < len(self.teacher_lrs):
            own = replace(own, lr=self.teacher_lrs[number])
        return distil.finetune(self.prepared.of(name), name, [self.seed_of(repeat, number)], own)[0]

    def teacher(self, repeat: int, position: int) -> Model:
        key = (repeat, position)
        if key not in self._made:
            self._made[key] = self.model(self.teachers[position], repeat, position)
        return self._made[key]

    def teacher_set(self, repeat: int) -> list[Model]:
        return [self.teacher(repeat, position) for position in range(len(self.teachers))]

    @property
    def starts(self) -> tuple[str, ...]:
        return ("plain", "tuned") if self.tuned_student else ("plain",)

    def reads(self, start: str) -> Prepared:
        """The task as this student reads it."""
        if start == "tuned" and self.tuned_student != OTHERS:
            return self.prepared.of(self.tuned_student)
        return self.prepared

    def student_name(self, start: str) -> str:
        return self.tuned_student if start == "tuned" and self.tuned_student != OTHERS else self.student

    def shown_name(self, start: str) -> str:
        name = self.student_name(start)
        return f"{name} after {OTHERS}" if start == "tuned" and self.tuned_student == OTHERS else name

    def finetuned_student(self, repeat: int, start: str = "plain") -> Model:
        """The student before distillation (4.3), and the model that every distillation goes on from."""
        seed = self.seed_of(repeat, 200)
        before = None
        if start == "tuned" and self.tuned_student == OTHERS:
            before = distil.undistilled(self.related, self.student, self.student_optimisation, seed)
        return distil.undistilled(self.reads(start), self.student_name(start), self.student_optimisation, seed, before)

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
        fine, seed = self.finetuned_student(repeat, start), self.seed_of(repeat, 201)
        name, prepared = self.student_name(start), self.reads(start)
        if variant.name == "plain_ce":
            return distil.undistilled(prepared, name, self.distil_optimisation, seed, fine)
        return distil.distill(prepared, self.teacher_set(repeat), name, self.recipe(variant), seed, start=fine)

    def variants(self, start: str = "plain") -> list[Variant]:
        """Every student of one repeat and start, in the order of the notebook."""
        found = []
        if "methods" in self.sections:
            found += [Variant(method) for method in METHODS[self.arm]]
        if "others" in self.sections:
            found += [Variant(method) for method in OTHER_METHODS[self.arm]]
        if "temperature" in self.sections:
            found += [Variant(method, f"temperature {t:g}", (("temperature", t),))
                      for method in METHODS[self.arm][:2] for t in self.temperatures[1:]]
        if "variants" in self.sections and self.arm == CLASSES:
            for name, words in (("several", "several experts: {}"), ("none", "no expert: {}"), ("fit_split", "fit on {}"),
                                ("random_per", "one draw per {}")):
                other = next(value for value in OTHER_VALUE[name] if value != getattr(self, name))
                method = "random" if name == "random_per" else "expertise"
                found.append(Variant(method, words.format(other), ((name, other),)))
        if "controls" in self.sections and start == "plain":
            main = METHODS[self.arm][0]
            found += [Variant(main, "plain_ce"), Variant(main, "shuffled_teacher", control="shuffled"),
                      Variant(main, "uniform_teacher", control="uniform")]
        return found

    # --- rows ------------------------------------------------------------------------------------------------------

    def logits(self, model: Model, split: str, prepared: Prepared | None = None) -> torch.Tensor:
        """A model's logits on a split in the model's own units: samples, or its own tokens."""
        if model.metrics:
            return model.logits(split)
        path = teachers.score(prepared or self.prepared, model, split).folder / "logits.safetensors"
        return tensors_load(path)["logits"]

    def scores(self, model: Model, split: str, prepared: Prepared | None = None) -> dict[str, float]:
        own = (prepared or self.prepared).of(model)
        return model.metrics.get(split) or distil.metrics(own, split, self.logits(model, split))

    def recalls(self, logits: torch.Tensor, split: str = "test") -> dict[str, float | None]:
        """Recall of every class; None for a class that the split has no sample of, and nothing in a span task."""
        if self.arm == SPAN:
            return {}
        labels = torch.from_numpy(self.loaded.splits[split].labels)
        found = experts.recalls(logits.unsqueeze(1), labels)[0]
        return {name: None if np.isnan(value) else value for name, value in zip(self.loaded.classes, found.tolist())}

    def row(self, kind: str, repeat: int, model: Model, /, **known) -> dict:
        """One line of the record. known: whatever differs from a plain student that follows nobody."""
        task, chain = self.loaded, [m for m in (model, model.before, getattr(model.before, "before", None)) if m is not None]
        test = known.pop("test", None) or self.scores(model, "test")
        validation = known.pop("validation", None) or self.scores(model, "validation")
        recalls = known.pop("recalls", None)
        return {
            "arm": self.arm, "task": self.task, "kind": kind, "method": None, "variant": "", "temperature": None,
            "repeat": repeat, "start": None, "position": None, "teachers": list(self.teachers), "model": model.name,
            "metric": task.metric, "score": test[task.metric], "metrics": test, "split": "test",
            "validation": validation[task.metric], "n_test": len(task.splits["test"]),
            "recalls": self.recalls(self.logits(model, "test")) if recalls is None else recalls,
            "parameters": model.info.get("parameters"), "layers": model.shape.get("layers"),
            "time": {"train_s": model.seconds, "intermediate_s": sum(m.seconds for m in chain[1:]), "score_s": 0.0,
                     "teachers_s": 0.0},
            "energy_kwh": sum_or_none(m.info.get("energy_kwh") for m in chain),
            "peak_memory_mib": model.info.get("peak_memory_mib"),
            "samples_per_second": model.info.get("samples_per_second"),
            "folder": f"model/{model.key[:2]}/{model.key}" if model.info.get("history") else None,
        } | known

    def count(self, *models: Model) -> None:
        """Put models on the bill, with the stages they started from."""
        for model in models:
            while model is not None:
                if model.info.get("history"):
                    self.used[model.key] = model.info
                model = model.before

    def teacher_rows(self, repeat: int) -> Iterator[dict]:
        for position, (name, model) in enumerate(zip(self.teachers, self.teacher_set(repeat))):
            self.count(model)
            yield self.row("teacher", repeat, model, position=position, model=shown(name))
        for number, name in enumerate(self.also_finetuned):
            model = self.model(name, repeat, 100 + number)
            self.count(model)
            yield self.row("finetuned", repeat, model, model=shown(name), teachers=[])

    def ensemble_row(self, repeat: int) -> dict:
        """The mean of all teachers' logits, scored: what the averaged student is shown (on its own tokens in a span task)."""
        made = {split: torch.stack([teachers.logits_of(self.prepared, m, split) for m in self.teacher_set(repeat)]).mean(0)
                for split in ("validation", "test")}
        found = {split: distil.metrics(self.prepared, split, logits) for split, logits in made.items()}
        models = self.teacher_set(repeat)
        joint = replace(models[0], info={"parameters": sum_or_none(m.info.get("parameters") for m in models), "shape": {}},
                        before=None)
        return self.row("ensemble", repeat, joint, test=found["test"], validation=found["validation"],
                        recalls=self.recalls(made["test"]), model="mean of logits")

    def student_row(self, repeat: int, variant: Variant | None, start: str = "plain") -> dict:
        """A distilled student's or control's line; the fine-tuned student's where there is no variant."""
        where = {"start": start, "model": self.shown_name(start)}
        if variant is None:
            model = self.finetuned_student(repeat, start)
            self.count(model)
            return self.row("undistilled", repeat, model, **where, teachers=[])
        model = self.distill(repeat, variant, start)
        self.count(model)
        control = variant.control is not None or variant.name == "plain_ce"
        temperature = dict(variant.changes).get("temperature", self.temperatures[0])
        row = self.row("control" if control else "student", repeat, model, **where, method=variant.method,
                       variant=variant.name, temperature=temperature)
        if variant.name != "plain_ce":
            said = [teachers.score(self.reads(start), m, "train").info["seconds"] for m in self.teacher_set(repeat)]
            row["time"] |= {"score_s": sum(said), "teachers_s": sum(m.seconds for m in self.teacher_set(repeat))}
        return row

    def result_rows(self, repeat: int) -> Iterator[dict]:
        """All rows of a repeat but the teachers'."""
        for start in self.starts:
            yield self.student_row(repeat, None, start)
            for variant in self.variants(start):
                yield self.student_row(repeat, variant, start)

    def jobs(self) -> list[list[Callable]]:
        """Everything that takes time, as calls: teachers and fine-tuned students first, then what is distilled."""
        first = [partial(self.model, name, repeat, number) for repeat in self.repeats
                 for number, name in (*enumerate(self.teachers), *enumerate(self.also_finetuned, 100))]
        first += [partial(self.finetuned_student, repeat, start) for repeat in self.repeats for start in self.starts]
        second = [partial(self.student_row, repeat, variant, start) for repeat in self.repeats for start in self.starts
                  for variant in self.variants(start)]
        return [first, second]


def shown(name: str) -> str:
    """A teacher's name in tables: the name itself, or what a finished one's file or folder is called."""
    return Path(name.removeprefix(FINISHED)).name if name.startswith(FINISHED) or name.endswith((".parquet", ".csv")) else name


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
    def optimisation(epochs: int, lr: float) -> Optimisation:
        return Optimisation(epochs=epochs, batch_size=p["batch_size"], lr=lr, warmup=p["warmup"],
                            weight_decay=p["weight_decay"], keep=p["keep"], freeze_embeddings=p["freeze_embeddings"])

    return Experiment(
        arm=p["arm"], task=p["task"], teachers=tuple(p["teachers"]), student=p["student"],
        teacher_optimisation=optimisation(p["teacher_epochs"], p["teacher_lr"]),
        student_optimisation=optimisation(p["student_epochs"], p["student_lr"]),
        distil_optimisation=optimisation(p["distil_epochs"], p["distil_lr"]),
        sizes={k: p[f"{k}_size"] for k in ("train", "validation", "test") if p[f"{k}_size"]},
        **{name: tuple(p[name]) for name in ("repeats", "sections", "temperatures", "also_finetuned", "teacher_lrs")},
        **{name: p[name] for name in ("alpha", "several", "none", "ties", "random_per", "fit_split", "camkd_combine",
                                      "tuned_student", "questions", "protocol", "max_length", "vocab", "seed",
                                      "task_options")},
    )
