"""MT-BERT's study: teachers tuned together on one head; students at every depth, baselines, ablations, controls.

Which students there are and what they learn by is in mt_bert_students.py; here is how each one is made, and what is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import transformers

from mtkd.data import hub
from mtkd.data.tasks import Task
from mtkd.errors import KitError
from mtkd.models.grammar import ALIASES, CUT, SCRATCH, layer_choice
from mtkd.models.networks import NO_SCORES
from mtkd.papers.mt_bert_scores import POOLERS, SECTIONS, short_name
from mtkd.papers.mt_bert_students import Student, distilbert, liu_2020, mt_bert, pkd, students, tinybert, you_2017
from mtkd.study import CONTROLS, Study, known, one_of
from mtkd.study.rows import joined
from mtkd.train import distil
from mtkd.train.answers import finished_teacher, is_finished, is_table, source_name
from mtkd.train.cofinetune import cofinetune
from mtkd.train.distil import Init
from mtkd.train.prepare import Prepared
from mtkd.train.recipes import CoFinetuned, Recipe
from mtkd.train.teachers import Model

WITHOUT = {"no_weighting": {"weighting": False}, "no_hidden": {"hidden": 0.0}, "no_distillation": {"distillation": 0.0},
           "no_task": {"task": 0.0}}  # what an ablation changes


class Experiment(Study):
    """The parameters of notebooks/mt_bert.ipynb, and the models they ask for."""

    students_of = staticmethod(students)

    def __init__(self, parameters: dict):
        super().__init__(parameters)
        self.finished = cache(self.finished)

    def check(self) -> None:
        refuse(self.p)

    @property
    def source(self) -> int:
        return self.p.student_from % len(self.p.teachers)

    def read_by(self, task: Task) -> Prepared:
        """The task in the tokens of the teacher that the student comes from. All training asks for it, so depths that do not
        fit are refused here."""
        depths(self.p)
        return self.prepare(task, source_name(self.p.teachers[self.source]))

    def finished(self, replicate: int, position: int) -> Model | None:
        """A teacher that needs no training: a folder ("finished:PATH") or a table of logits; None for any other."""
        name = self.p.teachers[position]
        return finished_teacher(self.prepared_for(replicate), name) if is_finished(name) else None

    def teacher_set(self, replicate: int, positions: tuple[int, ...] | None = None, joint: bool = True,
                    pooler: str = "") -> dict[int, Model]:
        """Teachers by position: co-finetuned as one set, or (joint=False) each one on a pooler and head of its own. A teacher
        starts from the same weights in every set of a replicate."""
        positions, how = positions or self.everyone, CoFinetuned(pooler or self.p.pooler, self.p.query_size)
        found = {i: model for i in positions if (model := self.finished(replicate, i)) is not None}
        fresh = [i for i in positions if i not in found]
        for group in [fresh] if joint else [[i] for i in fresh]:
            if group:
                seeds = [self.seed_of(replicate, i) for i in group]
                seed, names = seeds[0] if len(group) == 1 else self.seed_of(replicate, 0), [self.p.teachers[i] for i in group]
                found |= dict(zip(group, cofinetune(self.prepared_for(replicate), names, how, seed,
                                                    self.optimisation("teacher"), seeds)))
        return dict(zip(positions, self.sound(replicate, [found[i] for i in positions])))

    def set_of(self, s: Student) -> dict[int, Model]:
        """The teachers that a student follows or starts from, by position."""
        return self.teacher_set(s.replicate, s.set_of, s.joint, s.pooler)

    def followed(self, s: Student) -> list[Model]:
        return [self.set_of(s)[i] for i in s.members] if self.taught(s) else []

    def reads(self, s: Student) -> Prepared:
        """The task in the tokens of the student's source."""
        prepared = self.prepared_for(s.replicate)
        if s.source == self.source:
            return prepared
        return prepared.of(self.finished(s.replicate, s.source) or self.p.teachers[s.source])

    def head_of(self, s: Student) -> Model | None:
        """The teacher whose pooler and dense layer a student starts from: its source, or one of its set if the start is fixed;
        None where that one was finished elsewhere and has none of the kit's, or new ones are asked for."""
        models = self.set_of(s)
        places = (s.source, *reversed(s.members)) if s.fixed else (s.source,)
        fresh = [i for i in places if i in models and self.finished(s.replicate, i) is None]
        return models[fresh[0]] if fresh and self.p.student_head == "shared" else None

    def make(self, s: Student) -> Model:
        prepared, seed, opt = self.reads(s), self.student_seed(s.replicate), self.optimisation("student")
        pooler = s.pooler or self.p.pooler
        tail = f"bottom-{s.depth} of {{}} + {pooler}" + (f"-{self.p.query_size}" if pooler == "attentive" else "")
        name = tail.format(source_name(self.p.teachers[s.source]))
        if s.kind == "undistilled":  # no teacher had a part in it (but a finished one has been fine-tuned before)
            return distil.undistilled(prepared, name, opt, seed)
        init = Init(head_of=self.head_of(s))
        if self.p.student_init == "teacher" and not s.fixed:
            name, init = tail.format("teacher"), replace(init, layers_of=self.set_of(s)[s.source])
        if s.variant == "plain_ce":
            return distil.undistilled(prepared, name, opt, seed, init=init)
        return distil.distill(prepared, self.followed(s), name, self.recipe(s), seed, init=init)

    def recipe(self, s: Student) -> Recipe:
        """What a student learns by. The shuffled and uniform controls leave the hidden loss out: it would show the student the
        right states of every sample."""
        p, opt, heat, followed = self.p, self.optimisation("student"), self.p.temperature, self.followed(s)
        layered = tuple(i for i, m in enumerate(followed) if m.shape)
        layered = None if len(layered) == len(followed) else layered
        control = CONTROLS.get(s.variant)
        weights = {"task": p.task_weight, "distillation": p.distillation_weight, "hidden": p.hidden_weight}
        weights |= {"hidden": 0.0} if control else WITHOUT.get(s.variant, {})
        how = CoFinetuned(s.pooler or p.pooler, p.query_size, control)
        return {
            "mt_bert": lambda: mt_bert(opt, **weights, temperature=heat, teachers=how, layered=layered),
            "distilbert": lambda: distilbert(opt, heat),
            "pkd": lambda: pkd(opt, pairs=max(1, s.depth - 1), width=followed[0].shape["width"], how=p.pkd_layers,
                               alpha=p.pkd_alpha, temperature=p.pkd_temperature, beta=p.pkd_beta),
            "tinybert": lambda: tinybert(self.optimisation("intermediate"), opt, shows_attention(followed[0])),
            "you_2017": lambda: you_2017(opt, temperature=heat, layered=layered),
            "liu_2020": lambda: liu_2020(opt, classes=self.loaded.outputs, width=self.set_of(s)[s.source].shape["width"],
                                         temperature=heat, layered=layered),
        }[s.method]()

    def columns(self, s: Student, model: Model) -> dict:
        return {"method": s.method, "variant": s.variant or None, "repeat": s.replicate, "layers": s.depth or None,
                "teachers": [self.p.teachers[i] for i in s.members]}

    def teacher_rows(self, replicate: int) -> Iterator[dict]:
        """Every teacher from the set of all and on its own, and the mean of each set's logits."""
        for joint, method in ((True, "cofinetuned"), (False, "independent")):
            models = self.teacher_set(replicate, self.everyone, joint, "")
            for i, model in models.items():
                one = Student("teachers", method, (i,), "", "teacher", replicate, model.shape.get("layers", 0), i)
                yield self.row(one, [model])
            every = Student("teachers", method, self.everyone, "", "ensemble", replicate, source=self.source)
            several = list(models.values())
            yield self.row(every, [joined(several)], partial(self.row_logits, every, several))

    def first_jobs(self) -> list[Callable]:
        """All sets of teachers."""
        every = [(r, self.everyone, joint, "") for r in self.p.repeats for joint in (True, False)]
        every += [(s.replicate, s.set_of, s.joint, s.pooler) for r in self.p.repeats for s in self.students(r) if s.members]
        return [partial(self.teacher_set, *key) for key in dict.fromkeys(every)]

    def own(self, replicate: int) -> Student:
        """MT-BERT itself, from all teachers, at the first depth."""
        return Student("main", "mt_bert", self.everyone, "", "student", replicate, self.p.student_depths[0], self.source,
                       self.everyone)


from_parameters = Experiment


# --- what is refused before anything is trained ----------------------------------------------------------------------------


def refuse(p: SimpleNamespace) -> None:
    """KitError where parameters contradict each other or cannot be."""
    one_of(p, student_init=("teacher", "pretrained"), student_head=("shared", "new"), pooler=tuple(POOLERS),
           combination_start=("own", "fixed"))
    known("section", p.sections, SECTIONS)
    n, weights = len(p.teachers), {"task": p.task_weight, "distillation": p.distillation_weight, "hidden": p.hidden_weight}
    if not n or not p.student_depths or min(p.student_depths) < 1:
        raise KitError("there must be at least one teacher and one student depth of at least 1.")
    if len(set(p.student_depths)) < len(p.student_depths):
        raise KitError(f"student_depths is {list(p.student_depths)}, in which one number comes twice.")
    if p.temperature <= 0:
        raise KitError(f"temperature is {p.temperature:g}, and it must be above 0.")
    if p.query_size < 1:
        raise KitError(f"query_size is {p.query_size}, and an attention query needs a size of at least 1.")
    if low := [name for name, weight in weights.items() if weight < 0]:
        raise KitError(f"{low[0]}_weight is {weights[low[0]]:g}, and a weight cannot be below 0.")
    if not p.task_weight and not p.distillation_weight:
        raise KitError("task_weight and distillation_weight are both 0; the student's pooler and dense layer learn from these "
                       "two, so at least one must be above 0.")
    if "ablations" in p.sections and not (p.task_weight and p.distillation_weight):
        raise KitError("the section ablations leaves out the task loss and the distillation loss in turn, so task_weight and "
                       "distillation_weight must both be above 0.")
    if len({short_name(name) for name in p.teachers}) < n:  # tables could not tell them apart
        raise KitError("the teachers must differ, in their short names too (the last part of a path, family and size of a "
                       "model from scratch); for several seeds of one model see the notebook seed_ensemble.")
    for name in ("student_from", "baseline_teacher"):
        if not -n <= getattr(p, name) < n:
            raise KitError(f"{name} is {getattr(p, name)}, and there are {n} teachers.")
    source = p.teachers[p.student_from]
    if is_table(source):
        raise KitError("student_from names a table of logits, which has no layers for the student to take.")
    if p.combination_start == "fixed" and "combinations" in p.sections and is_finished(source):
        raise KitError("combination_start is 'fixed', which starts from student_from as it was before fine-tuning, and "
                       f"{short_name(source)} is a finished teacher: name the model that it was made from, or use 'own'.")


def depths(p: SimpleNamespace) -> None:
    """KitError where a student is to have more layers than a teacher: of its source it takes the lowest ones, and the hidden
    loss pairs each of its layers with one of every teacher."""
    most = max(p.student_depths if "main" in p.sections else p.student_depths[:1])
    for name in p.teachers if p.sections else ():
        if (layers := layers_of(name)) is not None and layers < most:
            raise KitError(f"student_depths asks for {most} layers, and the teacher {short_name(name)} has {layers}.")


def layers_of(name: str) -> int | None:
    """How many layers a teacher has, by its name or its config; None for a table of logits, and for what has no layers.

    >>> layers_of("roberta-scratch-2x64"), layers_of("every-2 of scratch-6x64"), layers_of("said.parquet")
    (2, 3, None)
    """
    if is_table(name):
        return None
    name = ALIASES.get(name, name)
    if match := SCRATCH.fullmatch(name):
        return int(match[2])
    if match := CUT.fullmatch(name):
        whole = layers_of(match[3])
        return None if whole is None else len(layer_choice(match[1], int(match[2]), whole))
    if is_finished(name):
        try:
            config = json.loads((Path(source_name(name)) / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None  # loading it says what is wrong
        return config.get("num_hidden_layers") or config.get("n_layers") or config.get("n_layer")
    try:
        return getattr(transformers.AutoConfig.from_pretrained(hub.find(name, "model")), "num_hidden_layers", None)
    except (OSError, ValueError) as error:
        raise hub.unreachable(error, name) from error


def shows_attention(model: Model) -> bool:
    """Whether a finished model's family shows its attention scores (MPNet, XLNet and DeBERTa do not)."""
    config = json.loads((model.folder / "config.json").read_text(encoding="utf-8"))
    return config["model_type"] not in NO_SCORES
