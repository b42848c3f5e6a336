"""Which students a notebook's parameters ask for, in words: plans, section by section.

A plan says nothing of how: mtkd/papers/rl_kd_run.py makes it into a model, mtkd/papers/rl_kd_scores.py names it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mtkd.papers.rl_kd_scores import READINGS, REWARDS, RL

FIXED = ("u", "w", "rand", "lr_train", "lr_dev", "best_single")


@dataclass(frozen=True)
class Plan:
    """One student: members are positions of the teachers it follows, none for one that learns from gold labels alone."""

    arm: str
    method: str
    repeat: int
    student: str
    members: tuple[int, ...]
    variant: str = ""
    kind: str = "student"


def plans(n: int, students: tuple[str, ...], sections: tuple[str, ...], controls: tuple[str, ...], repeat: int) -> list[Plan]:
    """Every student of one repeat, with n teachers. Controls and readings are of the first student only.

    The paper's Table 4 per student: fine-tuning, four single teachers, six ensembles (U and LR-Train are ours), three rewards.

    >>> [len([p for p in plans(4, ("BERT 3", "BERT 6"), ("main",), (), 0) if p.student == s]) for s in ("BERT 3", "BERT 6")]
    [14, 14]
    """
    everyone = tuple(range(n))
    found = []
    if "main" in sections:
        for student in students:
            full = Plan("main", "rl", repeat, student, everyone)
            found.append(replace(full, method="ft", kind="undistilled", members=()))
            found += [replace(full, method="v_kd", members=(position,)) for position in everyone]
            found += [replace(full, method=method) for method in FIXED]
            found += [replace(full, variant=variant) for variant in REWARDS]
        first = Plan("main", "rl", repeat, students[0], everyone, kind="control")
        found += [replace(first, variant=name, members=() if name == "plain_ce" else everyone) for name in controls]
    if "readings" in sections:
        found += [Plan("readings", "rl", repeat, students[0], everyone, variant) for variant in READINGS]
    return found


def reward_of(plan: Plan) -> int:
    """Which of Eq. 7's three rewards a plan's policy is paid by: its own, or the one that stands for RL-KD."""
    return int((plan.variant if plan.variant in REWARDS else RL)[-1])
