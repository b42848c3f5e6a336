"""What TMKD's study asks for, as data: what students learn by (recipes), and which students there are.

A method says whom the soft heads learn from: "one" (1-o-1: one head, the best teacher), "average" (1avg-o-1: one head, the
mean of the teachers' logits) or "many" (m-o-1: a head per teacher).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from types import SimpleNamespace

from mtkd.errors import KitError
from mtkd.papers.tmkd import POOLS
from mtkd.rules.selection import Primary, Uniform
from mtkd.study import CONTROLS
from mtkd.study import Student as AnyStudent
from mtkd.train.recipes import Independent, Optimisation, Recipe, Stage, Term

ARMS = {"layers": "layers", "alpha": "alpha", "pools": "pools", "largest": "largest"}  # every other section: "methods"
DEPTH = re.compile(r"(scratch-|bottom-)(\d+)")


# --- recipes ---------------------------------------------------------------------------------------------------------------


def heads(method: str, teachers: int) -> int:
    """How many soft heads a method's student has."""
    return teachers if method == "many" else 1


def soft(method: str, best: int = 0, weight: float = 1.0) -> Term:
    """Eq. 4: squared error between raw logits, the mean over classes and heads. best: the teacher that "one" follows."""
    if method == "many":
        return Term("logit_mse", Uniform(), combine="heads", weight=weight)
    if method == "average":
        return Term("logit_mse", Uniform(), combine="one_head", weight=weight)
    if method == "one":
        return Term("logit_mse", Primary(best), combine="one_head", weight=weight)
    raise KitError(f"no such method: {method!r}; there are one, average and many.")


def stage_1(method: str, pool: str, optimisation: Optimisation, *, best: int = 0, control: str | None = None) -> Recipe:
    """Distillation pre-training: the soft heads alone (Eq. 4) on a pool without labels. The task does not come into it, so
    its student is stored once and shared by all tasks."""
    stage = Stage("pre-training", (soft(method, best),), optimisation, data=pool)
    return Recipe("tmkd/stage 1", (stage,), Independent(control), predictor="heads")


def stage_2(
    method: str, alpha: float, optimisation: Optimisation, *, best: int = 0, new_heads: bool = False,
    control: str | None = None,
) -> Recipe:
    """Eq. 5 on the task: (1 - alpha) x gold + alpha x soft; Eq. 6 predicts. Without stage 1 this is KD or MKD.

    A share of 0 leaves its term out: at alpha = 1 the golden head learns nothing, and the soft heads predict alone.
    new_heads: start with new heads, because those of stage 1 belong to other classes. KitError unless 0 < alpha <= 1.
    """
    if not 0 < alpha <= 1:
        raise KitError(f"the share alpha of the soft labels must be above 0 and at most 1, not {alpha:g}.")
    gold = (Term("cross_entropy", weight=round(1 - alpha, 6)),) if alpha < 1 else ()
    terms = (*gold, soft(method, best, alpha))
    stage = Stage("task", terms, optimisation, reset=("heads",) if new_heads else ())
    return Recipe("tmkd/stage 2", (stage,), Independent(control), predictor="heads")


# --- which students --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Student(AnyStudent):
    """One student, or one ensemble of students (method "each"), on one task. student: the name of its model; pool: the name of
    the pool of its first stage, "" for none."""

    section: str = ""
    task: str = ""
    student: str = ""
    alpha: float = 0.0
    pool: str = ""


def pool_names(sizes: Sequence[int]) -> dict[str, int]:
    """Names of the pools by size. KitError unless the sizes grow.

    >>> pool_names([400, 1600])
    {'base': 400, 'large': 1600}
    """
    if any(a >= b for a, b in pairwise(sizes)) or any(n < 1 for n in sizes):
        raise KitError(f"pool_sizes must grow and be at least 1, not {list(sizes)}.")
    return {POOLS[i] if i < len(POOLS) else f"pool of {n}": n for i, n in enumerate(sizes)}


def with_depth(student: str, layers: int) -> str:
    """The same student with another number of layers. KitError for a name that does not say how many it has.

    >>> with_depth("scratch-1x32h2f64", 3), with_depth("bottom-3 of minilm", 1)
    ('scratch-3x32h2f64', 'bottom-1 of minilm')
    """
    if not DEPTH.search(student):
        raise KitError(f"the section layers needs a student whose name says its layers (scratch-3x64, bottom-3 of ...), and "
                       f"{student!r} does not.")
    return DEPTH.sub(lambda match: f"{match[1]}{layers}", student, count=1)


def students(p: SimpleNamespace) -> Iterator[Student]:
    """Every student of one replicate: all sections on the target task, `transfer_sections` on the others, none of them twice in
    the same arm. The first pool is what the paper calls base, the second large.

    >>> p = SimpleNamespace(task="rte", transfer=(), sections=("stages",), student="scratch-1x32", alpha=0.9,
    ...                     pool_sizes=(400, 1600), bilstm="", depths=(), alphas=())
    >>> [(s.method, s.pool) for s in students(p)]
    [('plain', ''), ('one', ''), ('many', ''), ('one', 'large'), ('many', 'large')]
    """
    pools = tuple(pool_names(p.pool_sizes))
    base, large = pools[:1], pools[1:2]
    small, big = base or ("",), large or base or ("",)

    def ask(section: str, methods: Sequence[str] = ("many",), pools: Sequence[str] = ("",), layers: int = 0, **changes):
        for name in pools if section in sections else ():
            for method in methods:
                student = {"student": with_depth(p.student, layers)} if layers else {}
                kind = {"kind": "undistilled"} if method == "plain" else {}
                yield Student(ARMS.get(section, "methods"), method, section=section, task=task, pool=name, **{
                    "student": p.student, "alpha": p.alpha, **student, **kind, **changes})

    for task in (p.task, *p.transfer):
        sections = p.sections if task == p.task else [s for s in p.sections if s in p.transfer_sections]
        found = {}
        for s in (
            *ask("main", ("plain", "one", "average", "each", "many")), *ask("main", pools=(*base, *large)),
            *ask("stages", ("plain",)), *ask("stages", ("one", "many"), ("", *(large or base))),  # two by two
            *ask("averages", ("one", "average", "many"), base),
            *(ask("bilstm", ("one", "average", "each"), student=p.bilstm) if p.bilstm else ()),
            *(ask("bilstm", ("one", "average", "many"), base, student=p.bilstm) if p.bilstm else ()),
            *(s for layers in p.depths for s in ask("layers", pools=small, layers=layers)),
            *(s for share in p.alphas for s in ask("alpha", pools=small, alpha=share)),
            *ask("pools", pools=("", *pools)), *ask("largest", ("one", "many")), *ask("largest", pools=pools[-1:]),
            *(s for name in (*CONTROLS, "plain_ce") for s in ask("controls", pools=big, kind="control", variant=name)),
        ):  # fmt: skip
            found.setdefault(replace(s, section=""), s)
        yield from found.values()
    if "largest" in p.sections:  # the best teacher has a row of its own there
        yield Student("largest", "", (), "best", "teacher", section="largest", task=p.task, alpha=p.alpha)
