"""Plug-point 1, whom to follow: weights for every unit and teacher.

A selection answers `weights(batch, teachers, step, rng) -> [unit, teacher]`. Most are a pure function and nothing else;
one that learns (RL-KD's policy, LR-Dev) also has `fit`, `update` and a saved `state`. A selection belongs to one
*term* of a recipe, not to the recipe: TinyBERT follows the primary in the intermediate layers and everyone at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mtkd.errors import KitError

if TYPE_CHECKING:
    from mtkd.data import Batch
    from mtkd.outputs import TeacherBatch


@dataclass(frozen=True)
class Selection:
    """What every selection offers. Subclasses override `weights` and, rarely, the rest."""

    needs = frozenset({"logits"})  # what it reads of the teachers; a class attribute, not a field

    def members(self, n: int) -> tuple[int, ...]:
        """Which of n teachers can ever get a weight above zero; the others are neither scored nor loaded."""
        return tuple(range(n))

    def weights(self, batch: Batch, teachers: TeacherBatch, step: int, rng: torch.Generator) -> Tensor:
        """Weights [B, T] (or [B, L, T] for token units). `batch.labels` only where the paper's own selection uses them."""
        raise NotImplementedError

    def fit(self, teachers: TeacherBatch, labels: Tensor) -> None:
        """Look at the teachers' logits [n, T, C] on the whole validation split, before the stage. Default: nothing to learn."""

    def update(self, reward: Tensor) -> None:
        """Called after every step with the per-unit training loss of the student, negated. Default: nothing."""

    def state(self) -> dict[str, Tensor]:
        """What has been learned, saved beside the student. Default: nothing."""
        return {}

    def spec(self, names: list[str]) -> dict:
        """A JSON-able description in which teachers go by artifact name, so that positions do not matter. Fields whose
        name starts with an underscore hold what is learned and do not count."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "of" and not f.name.startswith("_")}
        return {"selection": type(self).__name__, "teachers": [names[i] for i in self.members(len(names))], **own}


@dataclass(frozen=True)
class Uniform(Selection):
    """Every teacher (or every one of `of`) with equal weight: 1/k each.

    >>> Uniform((0, 2)).members(4)
    (0, 2)
    """

    needs = frozenset()
    of: tuple[int, ...] | None = None

    def members(self, n: int) -> tuple[int, ...]:
        chosen = tuple(range(n)) if self.of is None else tuple(self.of)
        if not chosen or min(chosen) < 0 or max(chosen) >= n or len(set(chosen)) < len(chosen):
            raise KitError(f"the members {chosen} are not distinct positions among {n} teachers (counted from 0).")
        return chosen

    def weights(self, batch, teachers, step, rng):
        *units, n, _ = teachers.logits.shape                            # [B, T, C], or [B, L, T, C] for token units
        row = torch.zeros(n, device=teachers.logits.device)
        chosen = self.members(n)
        row[list(chosen)] = 1.0 / len(chosen)
        return row.expand(*units, n)


@dataclass(frozen=True)
class Primary(Uniform):
    """One teacher alone, the *primary* one of the paper (its section 5.1). `of` is that teacher's position."""

    of: tuple[int, ...] = field(default=(0,))

    def __init__(self, teacher: int = 0):
        object.__setattr__(self, "of", (teacher,))
