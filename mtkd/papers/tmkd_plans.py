"""Which students a notebook's parameters ask for, in words: plans, section by section.

A plan says nothing of how: mtkd/papers/tmkd_run.py makes it into a model, mtkd/papers/tmkd_scores.py names it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from mtkd.errors import KitError
from mtkd.papers.tmkd_scores import POOLS

ARMS = {"layers": "layers", "alpha": "alpha", "pools": "pools", "largest": "largest"}  # every other section: "methods"
DEPTH = re.compile(r"(scratch-|bottom-)(\d+)")


@dataclass(frozen=True)
class Plan:
    """One student, or one ensemble of students (method "each"), on one task. pool: the name of the pool of its first
    stage, "" for none."""

    section: str
    task: str
    repeat: int
    method: str
    student: str
    alpha: float
    pool: str = ""
    kind: str = "student"
    variant: str = ""

    @property
    def arm(self) -> str:
        return ARMS.get(self.section, "methods")


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


def plans(task: str, repeat: int, sections: Sequence[str], student: str, alpha: float, pools: Sequence[str], *,
          bilstm: str = "", depths: Sequence[int] = (), alphas: Sequence[float] = ()) -> list[Plan]:
    """Every student of one task and repeat, none of them twice in the same arm. pools: names of the pools, smallest first;
    the first is what the paper calls base, the second large.

    >>> asked = plans("rte", 0, ("stages",), "scratch-1x32", 0.9, ("base", "large"))
    >>> [(p.method, p.pool) for p in asked]
    [('plain', ''), ('one', ''), ('many', ''), ('one', 'large'), ('many', 'large')]
    """
    base, large = pools[:1], pools[1:2]
    full = Plan("", task, repeat, "many", student, alpha)
    found: dict[tuple, Plan] = {}

    def ask(section: str, method: str = "many", pool: str = "", **changes) -> None:
        plan = replace(full, section=section, method=method, pool=pool, **changes)
        found.setdefault((plan.arm, *(v for k, v in vars(plan).items() if k != "section")), plan)

    if "main" in sections:
        ask("main", "plain", kind="undistilled")
        for method in ("one", "average", "each", "many"):
            ask("main", method)
        for pool in (*base, *large):
            ask("main", "many", pool)
    if "stages" in sections:  # two by two: one teacher or many, without the pool or with it
        ask("stages", "plain", kind="undistilled")
        for pool in ("", *(large or base)):
            for method in ("one", "many"):
                ask("stages", method, pool)
    if "averages" in sections:
        for method in ("one", "average", "many"):
            for pool in base:
                ask("averages", method, pool)
    if "bilstm" in sections and bilstm:
        for method in ("one", "average", "each"):
            ask("bilstm", method, student=bilstm)
        for method in ("one", "average", "many"):
            for pool in base:
                ask("bilstm", method, pool, student=bilstm)
    if "layers" in sections:
        for layers in depths:
            ask("layers", pool="".join(base), student=with_depth(student, layers))
    if "alpha" in sections:
        for share in alphas:
            ask("alpha", pool="".join(base), alpha=share)
    if "pools" in sections:
        for pool in ("", *pools):
            ask("pools", pool=pool)
    if "largest" in sections:
        for method, pool in (("one", ""), ("many", ""), *(("many", p) for p in pools[-1:])):
            ask("largest", method, pool)
    if "controls" in sections:
        for name in ("shuffled_teacher", "uniform_teacher", "plain_ce"):
            ask("controls", pool="".join(large or base), kind="control", variant=name)
    return list(found.values())
