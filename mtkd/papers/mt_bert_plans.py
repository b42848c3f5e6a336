"""Which students a notebook's parameters ask for, in words: plans, section by section.

A plan says nothing of how: mtkd/papers/mt_bert_run.py makes it into a model, mtkd/papers/mt_bert_scores.py names it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

from mtkd.papers.mt_bert_scores import ABLATIONS, BASELINES, POOLERS
from mtkd.study import is_table


@dataclass(frozen=True)
class Plan:
    """One student. members: positions of the teachers it follows; set_of: of those that were fine-tuned with them (empty:
    the members themselves), together if `joint`; source: position of the one whose lower layers and head it takes; fixed:
    the layers as they were before fine-tuning, whoever is in the set, and the head of a teacher that is in it."""

    arm: str
    method: str
    repeat: int
    depth: int
    members: tuple[int, ...]
    source: int
    variant: str = ""
    kind: str = "student"
    set_of: tuple[int, ...] = ()
    joint: bool = True
    pooler: str = ""
    fixed: bool = False


def plans(teachers: tuple[str, ...], source: int, depths: tuple[int, ...], sections: tuple[str, ...], controls: bool,
          repeat: int, own: int = 0, start: str = "own") -> list[Plan]:
    """Every student of one repeat. `source` is the teacher whose lower layers students start from, `own` the one that the
    baselines have to themselves, depths[0] the depth of all but the section "main".

    A combination without that teacher takes its last one instead (start "own"), so that its student owes nothing to a
    teacher that is no part of it; or all combinations take its layers as they were before fine-tuning (start "fixed"), so
    that their students differ in nothing but their teachers. Three teachers make 7 combinations:

    >>> names = ("scratch-2x64", "roberta-scratch-2x64", "mpnet-scratch-2x64")
    >>> [(plan.members, plan.source) for plan in plans(names, 2, (1,), ("combinations",), True, 0)][:4]
    [((0,), 0), ((1,), 1), ((2,), 2), ((0, 1), 1)]
    >>> {plan.source for plan in plans(names, 2, (1,), ("combinations",), True, 0, start="fixed")}
    {2}
    """
    everyone = tuple(range(len(teachers)))
    full = Plan("", "mt_bert", repeat, depths[0], everyone, source)
    found = []
    if "main" in sections:
        for depth in depths:
            here = replace(full, arm="main", depth=depth)
            found += [here, replace(here, method="plain", kind="undistilled", members=())]
            for name in BASELINES:
                if not is_table(teachers[own]):  # a table has no layers to start from
                    found.append(replace(here, method=name, variant="own", members=(own,), source=own))
                found.append(replace(here, method=name, variant="same", members=(source,), set_of=everyone))
        if controls:
            found += [replace(full, arm="main", kind="control", variant=name)
                      for name in ("shuffled_teacher", "uniform_teacher", "plain_ce")]
    if "combinations" in sections:
        for members in (chosen for k in everyone for chosen in combinations(everyone, k + 1)):
            layered = [p for p in members if not is_table(teachers[p])]
            if start == "fixed":
                found.append(replace(full, arm="combinations", members=members, fixed=True))
            elif layered:
                here = source if source in members else layered[-1]
                found.append(replace(full, arm="combinations", members=members, source=here))
    if "ablations" in sections:
        found += [replace(full, arm="ablations", variant=name, joint=name != "no_cofinetuning") for name in ABLATIONS]
    if "ensembles" in sections:
        found += [replace(full, arm="ensembles", method=name) for name in ("mt_bert", "you_2017", "liu_2020")]
    if "poolers" in sections:
        found += [replace(full, arm="poolers", variant=name, pooler=name) for name in POOLERS]
    return found
