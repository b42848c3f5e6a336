"""Which students a notebook's parameters ask for, which parameters are refused, and what a teacher is called in tables.

A variant says nothing of how: mtkd/papers/domain_expertise_run.py makes it into a model, domain_expertise_rows.py into a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtkd.data.tasks import Task, unique_ids
from mtkd.errors import KitError
from mtkd.papers.domain_expertise_scores import CLASSES, SPAN
from mtkd.rules.experts import NONE, PER, SEVERAL, SPLITS, TIES
from mtkd.study import is_finished, is_table, shown, source_name

OTHERS = "other questions"
SECTIONS = ("methods", "others", "temperature", "variants", "controls")
METHODS = {CLASSES: ("expertise", "average", "random"), SPAN: ("average", "camkd", "average+teacher")}
OTHER_METHODS = {CLASSES: ("camkd", "mixture"), SPAN: ()}
SWITCHES = {"several": (SEVERAL, "expertise", "several experts: {}"), "none": (NONE, "expertise", "no expert: {}"),
            "fit_split": (SPLITS, "expertise", "fit on {}"), "random_per": (PER, "random", "one draw per {}")}
ALLOWED = {name: values for name, (values, _, _) in SWITCHES.items()} | {"ties": TIES, "camkd_combine": ("losses", "logits")}


@dataclass(frozen=True)
class Variant:
    """One student to be made: a method, and what is changed about it (name "" for nothing)."""

    method: str
    name: str = ""
    changes: tuple[tuple[str, str | float], ...] = ()
    control: str | None = None


def variants(arm: str, sections: Sequence[str], temperatures: Sequence[float], settings: dict[str, str], teachers: int,
             start: str = "plain") -> list[Variant]:
    """Every student of one repeat and start, in the order of the notebook. settings: the run's own value of every switch.

    With fewer than three teachers several experts are all there are, the best of them is the best overall, and the other
    reading of `several` would train the same student again: it is left out.

    >>> own = {"several": "overall", "none": "overall", "fit_split": "validation", "random_per": "sample"}
    >>> [v.name for v in variants("classes", ["variants"], [1.0], own, teachers=2)]
    ['no expert: average', 'fit on test', 'one draw per step']
    """
    found = []
    if "methods" in sections:
        found += [Variant(method) for method in METHODS[arm]]
    if "others" in sections:
        found += [Variant(method) for method in OTHER_METHODS[arm]]
    if "temperature" in sections:
        found += [Variant(method, f"temperature {t:g}", (("temperature", t),))
                  for method in METHODS[arm][:2] for t in temperatures[1:]]
    if "variants" in sections and arm == CLASSES:
        for name, (values, method, words) in SWITCHES.items():
            other = next(value for value in values if value != settings[name])
            if name != "several" or teachers > 2:
                found.append(Variant(method, words.format(other), ((name, other),)))
    if "controls" in sections and start == "plain":
        main = METHODS[arm][0]
        found += [Variant(main, "plain_ce"), Variant(main, "shuffled_teacher", control="shuffled"),
                  Variant(main, "uniform_teacher", control="uniform")]
    return found


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


def check(e) -> None:
    """KitError where the parameters of an experiment (domain_expertise_run.Experiment) contradict each other or mean
    nothing; seen without reading any data."""
    if e.arm not in METHODS:
        raise KitError(f"no such arm: {e.arm!r}; there are {', '.join(METHODS)}.")
    if not e.teachers:
        raise KitError("name at least one teacher.")
    for what, names in (("teacher", e.teachers), ("model fine-tuned beside the teachers", e.also_finetuned)):
        if len(set(names)) < len(names):
            raise KitError(f"every {what} must be another one: {', '.join(names)}.")
    if e.teacher_lrs and len(e.teacher_lrs) != len(e.teachers):
        raise KitError(f"teacher_lrs has {len(e.teacher_lrs)} learning rates for {len(e.teachers)} teachers.")
    if not e.repeats or len(set(e.repeats)) < len(e.repeats):
        raise KitError(f"repeats must be distinct numbers, at least one: {list(e.repeats)}.")
    if not e.temperatures or not min(e.temperatures) > 0:
        raise KitError("name at least one temperature above 0; the first is the run's own.")
    if not 0 <= e.alpha <= 1:
        raise KitError(f"alpha, the weight of the loss on labels, is between 0 and 1; this one is {e.alpha}.")
    for section in e.sections:
        if section not in SECTIONS:
            raise KitError(f"no such section: {section!r}; there are {', '.join(SECTIONS)}.")
    for name, values in ALLOWED.items():
        if getattr(e, name) not in values:
            raise KitError(f"{name} is {' or '.join(values)}, not {getattr(e, name)!r}.")
    if e.tuned_student == OTHERS and not e.questions:
        raise KitError(f"tuned_student {OTHERS!r} needs questions: how many of the task's questions are its own.")
    if e.arm == CLASSES and e.tuned_student:
        raise KitError("the arm 'classes' has one student: tuned_student is for the arm 'span'.")
    if e.arm == SPAN and (tables := [name for name in (*e.teachers, *e.also_finetuned) if is_table(name)]):
        raise KitError(f"{tables[0]} is a table of logits with one row per sample, and the arm 'span' needs one per token.")


def check_task(arm: str, task: Task) -> Task:
    """The task, if the arm can be run on it; else KitError."""
    if arm == SPAN and task.kind != "span":
        raise KitError(f"the arm 'span' marks words, and the task {task.name} has none marked: use the arm 'classes'.")
    if arm == CLASSES and task.kind == "span":
        raise KitError(f"the arm 'classes' needs a class per sample, and the task {task.name} marks words: use the arm 'span'.")
    if task.regression:
        raise KitError(f"the task {task.name} is a regression: it has no classes that a teacher could be an expert of.")
    return task


def check_margin(margin: float) -> None:
    """KitError for a margin that no test could use."""
    if not margin > 0:
        raise KitError(f"margin, the difference that counts as none, is above 0; this one is {margin}.")
