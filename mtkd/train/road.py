"""The short road: a recipe of terms, teachers, a student, in one call each. What a notebook cell with rules of its own uses.

    from mtkd import distil, finetune, load_task, prepare, recipe, selection, soft_cross_entropy

    prepared = prepare(load_task("pydocs/topic", limit=2000), "scratch-1x64 + mean")
    teachers = finetune(prepared, "scratch-1x64 + mean", seeds=range(3))
    student = distil(prepared, teachers, "scratch-1x16 + mean", recipe("cross_entropy", soft_cross_entropy("inverse_loss")))
    student.metrics["test"]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from mtkd.data.tasks import Task
from mtkd.errors import KitError
from mtkd.rules.registry import Rule, Term, find
from mtkd.rules.selection import Selection, following
from mtkd.store.artifacts import tally
from mtkd.train import distil as stages
from mtkd.train.answers import sound
from mtkd.train.prepare import Prepared, prepare
from mtkd.train.recipes import Optimisation, Recipe, Stage
from mtkd.train.teachers import Model


def recipe(*terms: Term | Rule | str, optimisation: Optimisation | None = None, name: str = "own") -> Recipe:
    """One stage of terms: losses by name, or with whom they follow: recipe("cross_entropy", soft_cross_entropy("uniform")).

    optimisation: how it is trained; None: three epochs at the learning rate that fits the student. A loss of teachers that
    names nobody follows all of them alike. A term's selection may be a name. Raises KitError for an unknown name, with the
    nearest one.
    """
    def made(term: Term | Rule | str) -> Term:
        if not isinstance(term, Term):
            term = (find("loss", term) if isinstance(term, str) else term).term()
        chosen = following(term.selection) if isinstance(term.selection, str) else term.selection
        if chosen is None and find("loss", term.loss).sees != "labels":
            chosen = following("uniform")
        if chosen is not None and not isinstance(chosen, Selection):
            raise KitError(f"a term follows a selection, and {chosen!r} is none: give its name, or one made with @selection.")
        return replace(term, selection=chosen)

    if not terms:
        raise KitError("a recipe needs at least one term, such as 'cross_entropy'.")
    return Recipe(name, (Stage("task", tuple(made(term) for term in terms), optimisation or Optimisation()),))


def finetune(task: Task | Prepared, name: str, seeds: Iterable[int] = (0,), optimisation: Optimisation | None = None,
             ) -> list[Model]:
    """Teachers: a model fine-tuned on the gold labels, once per seed; optimisation as in `recipe`."""
    return stages.finetune(_prepared(task, name), name, seeds, optimisation or Optimisation())


def distil(task: Task | Prepared, teachers: Sequence[Model], student: str, how: Recipe, seed: int = 0,
           weak_teachers: str = "stop") -> Model:
    """A student by a recipe, from the store or trained now; one line says which, and why it was trained anew.

    task: as `load_task` gives it, or prepared for a model's tokeniser; teachers: finished models (`finetune`,
    mtkd.train.teachers); student: a model by name. Raises KitError before any training where a term cannot work, and where a
    teacher is no better on validation than the most frequent class, unless weak_teachers is "mark".
    """
    tally(forget=True)
    prepared = _prepared(task, student)
    made = stages.distill(prepared, sound(prepared, teachers, weak_teachers), student, how, seed)
    print(f"{student} by {how.name}: {tally().partition(': ')[2]}")
    return made


def _prepared(task: Task | Prepared, name: str) -> Prepared:
    return task if isinstance(task, Prepared) else prepare(task, name)
