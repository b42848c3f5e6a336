"""Which students a pool of teachers is asked for: every combination, every primary, every repeat."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class Plan:
    """One student to be made: its members (positions in the pool), its primary (None: no such thing) and its repeat."""

    members: tuple[int, ...]
    primary: int | None
    repeat: int = 0


def plans(arm: str, n_teachers: int, repeats: int = 1) -> list[Plan]:
    """Every student of one pool: every k-combination of the teachers, every primary in it, every repeat.

    A ResNet has no primary, so its combination of k is repeated k times to give k scores as well. 6 teachers make
    63 combinations and 192 combination-primary pairs:

    >>> len(plans("tinybert", 6)), len(plans("resnet", 6)), len(plans("tinybert", 6, repeats=3))
    (192, 192, 576)
    """
    found = []
    for k in range(1, n_teachers + 1):
        for members in combinations(range(n_teachers), k):
            if arm == "resnet":
                found += [Plan(members, None, r) for r in range(k * repeats)]
            else:
                found += [Plan(members, p, r) for p in members for r in range(repeats)]
    return found
