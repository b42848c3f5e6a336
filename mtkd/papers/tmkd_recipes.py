"""TMKD and what it is compared with, as recipes: plain data for mtkd.train.distil.

A method says whom the soft heads learn from: "one" (1-o-1: one head, the best teacher), "average" (1avg-o-1: one head, the
mean of the teachers' logits) or "many" (m-o-1: a head per teacher). The student is called "NAME + heads-1" for the first two
and "NAME + heads-N" for the third.
"""

from __future__ import annotations

from mtkd.errors import KitError
from mtkd.rules.selection import Primary, Uniform
from mtkd.train.recipes import Independent, Optimisation, Recipe, Stage, Term


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
