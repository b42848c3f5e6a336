"""Plug-point 1, whom to follow: weights for every unit and teacher.

A selection answers `weights(batch, teachers, step, rng) -> [unit, teacher]`. Most are a pure function and nothing else;
one that learns (RL-KD's policy, LR-Dev) also has `fit`, `update` and a saved `state`. A selection belongs to one
*term* of a recipe, not to the recipe: TinyBERT follows the primary in the intermediate layers and everyone at the end.
Here are the selections that learn nothing; those that learn who is good at what are in mtkd/rules/experts.py.

Weights are given to every unit, padding and unlabelled ones too (label -1); which units count is the loss's business.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mtkd.errors import KitError
from mtkd.rules import losses
from mtkd.rules.registry import Rule, TeacherBatch, register
from mtkd.store.keys import KIT, describe

if TYPE_CHECKING:
    from mtkd.tokens.batches import Batch


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

    def update(self, state: Tensor, actions: Tensor, reward: Tensor) -> None:
        """Learn from rewards [B] for what was chosen [B, k] in the states [B, D]; called in stages that learn a selection
        (mtkd/train/episodes.py). Default: nothing to learn."""

    def state(self) -> dict[str, Tensor]:
        """What has been learned, saved beside the student. Default: nothing."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from the `state` of the same selection in the stage before. Default: every stage learns for itself."""

    def spec(self, names: list[str]) -> dict:
        """A description for the store's keys in which teachers go by artifact name, so that positions do not matter. Fields
        whose name starts with an underscore hold what is learned and do not count; of a class that is not the kit's all that
        it holds counts, and its code."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "of" and not f.name.startswith("_")}
        if not type(self).__module__.startswith(f"{KIT}."):
            own = {k: v for k, v in vars(self).items() if k != "of"} | {"code": describe(type(self), type(self).__name__)}
        return {"selection": type(self).__name__, "teachers": [names[i] for i in self.members(len(names))], **own}


@dataclass(frozen=True)
class Chosen(Selection):
    """A selection among a set of teachers that is named: `of` holds their positions, counted from 0 (None = all).

    The teachers left out get the weight 0 and have no part in anything that is learned or compared. Where something
    goes "to the first", or is drawn by number, it goes by the order of `of`, which is also the order in `spec`.
    """

    of: tuple[int, ...] | None = None

    def members(self, n: int) -> tuple[int, ...]:
        chosen = tuple(range(n)) if self.of is None else tuple(self.of)
        if not chosen or min(chosen) < 0 or max(chosen) >= n or len(set(chosen)) < len(chosen):
            raise KitError(f"the members {chosen} are not distinct positions among {n} teachers (counted from 0).")
        return chosen

    def of_members(self, logits: Tensor) -> Tensor:
        """The members' logits in the order of `of`. [.., T, C] -> [.., k, C]."""
        return logits[..., list(self.members(logits.shape[-2])), :]

    def to_all(self, weights: Tensor, n: int) -> Tensor:
        """Weights of the k members put at their places among n teachers, 0 elsewhere. [.., k] -> [.., n]."""
        everyone = weights.new_zeros(*weights.shape[:-1], n)
        everyone[..., list(self.members(n))] = weights
        return everyone


@dataclass(frozen=True)
class Ruled(Chosen):
    """A function that was registered with @selection, among the teachers `of`: f(said, batch, *, options) -> weights [B, k].

    said: a TeacherBatch with the members' logits [B, k, C] (or [B, L, k, C]); batch.labels are the gold ones, -1 where there
    are none. A function that asks for `rng` (the loop's generator) or `step` by keyword gets them. Raises KitError where what
    comes back is no weight for every unit and member.
    """

    rule: Rule | None = None

    def weights(self, batch, teachers, step, rng):
        said = replace(teachers, logits=self.of_members(teachers.logits))
        found = self.rule.function(said, batch, **self.rule.options, **self.rule.given(step=step, rng=rng))
        if not isinstance(found, Tensor) or found.shape != said.logits.shape[:-1]:
            raise KitError(f"the selection {self.rule.name!r} gave {tuple(getattr(found, 'shape', ()))}, where weights of the "
                           f"shape {tuple(said.logits.shape[:-1])} are wanted: one for every sample and teacher.")
        return self.to_all(found.to(said.logits), teachers.logits.shape[-2])

    def spec(self, names):
        return {"teachers": [names[i] for i in self.members(len(names))], **self.rule.spec()}


def selection(thing=None, *, name: str = ""):
    """Decorator: a function f(said, batch, *, options) -> weights [B, T], or a subclass of Selection, becomes one that a term
    can follow and a grid file can name. Called with options (and `of`, positions of teachers) the function gives the selection.

    >>> @selection
    ... def loudest(said, batch, *, power=1.0):
    ...     "Weights by the largest logit."
    ...     return said.logits.amax(-1).clamp(min=0) ** power
    >>> loudest(power=2.0).weights(None, TeacherBatch(torch.tensor([[[1.0, 3.0], [2.0, 0.0]]])), 0, None)
    tensor([[9., 4.]])
    """
    if thing is None:
        return partial(selection, name=name)
    if not isinstance(thing, type) and len([p for p in inspect.signature(thing).parameters.values()
                                            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]) != 2:
        raise KitError(f"the selection {thing.__name__!r} should take two arguments, said and batch, its options by keyword.")
    return register("selection", thing, name=name, bind=lambda rule: Ruled(rule=rule))


def following(name: str, of: tuple[int, ...] | None = None, **options) -> Selection:
    """A selection by name, the kit's or your own: following("inverse_loss"), following("agreeing", least=0.6).

    Raises KitError for an unknown name or option, with the nearest one."""
    from mtkd.rules.registry import find

    rule = find("selection", name)
    rule.check(options)
    if isinstance(rule.function, type):
        return rule.function(**({"of": of} if of is not None and "of" in rule.known else {}), **options)
    return replace(rule(**options), of=of)


@selection
@dataclass(frozen=True)
class Uniform(Chosen):
    """Every teacher (or every one of `of`) with equal weight: 1/k each.

    >>> Uniform((0, 2)).members(4)
    (0, 2)
    """

    needs = frozenset()

    def weights(self, batch, teachers, step, rng):
        *units, n, _ = teachers.logits.shape                            # [B, T, C], or [B, L, T, C] for token units
        k = len(self.members(n))
        return self.to_all(torch.full((k,), 1.0 / k, device=teachers.logits.device), n).expand(*units, n)


@selection
@dataclass(frozen=True)
class Primary(Uniform):
    """One teacher alone, the *primary* one of the paper (its section 5.1). `of` is that teacher's position."""

    of: tuple[int, ...] = field(default=(0,))

    def __init__(self, teacher: int = 0):
        object.__setattr__(self, "of", (teacher,))


@selection
@dataclass(frozen=True)
class Everyone(Chosen):
    """Every teacher with weight 1: a sum over teachers and not a mean, as in mt_bert's Eq. 1 (the hidden loss).

    With combine="logits" or "probabilities" weights are normalised, and this is Uniform.
    """

    needs = frozenset()

    def weights(self, batch, teachers, step, rng):
        *units, n, _ = teachers.logits.shape
        return self.to_all(torch.ones(len(self.members(n)), device=teachers.logits.device), n).expand(*units, n)


@selection
@dataclass(frozen=True)
class InverseLoss(Chosen):
    """1 / (1 + CE) of each teacher on the unit's label, unnormalised: the weights of mt_bert's Eq. 2.

    For combine="losses", where weights are used as they are. A unit without a label (-1) says nothing against any
    teacher: weight 1, as Everyone. The cross-entropy is taken at t = 1, as printed. Raises KitError on a regression.
    """

    def weights(self, batch, teachers, step, rng):
        own = inverse_loss(teacher_losses(self.of_members(teachers.logits), batch.labels))
        return self.to_all(own, teachers.logits.shape[-2])


@selection
@dataclass(frozen=True)
class Confidence(Chosen):
    """CA-MKD's weights of the teachers' predictions: the lower a teacher's CE on the label, the higher; they sum to 1.

    For combine="losses" (the paper's L_KD is the weighted sum of K losses; a public implementation divides it by K
    once more, which this does not). A unit without a label (-1) gets 1/k. Raises KitError on a regression.
    """

    def weights(self, batch, teachers, step, rng):
        own = confidence(teacher_losses(self.of_members(teachers.logits), batch.labels))
        return self.to_all(own, teachers.logits.shape[-2])


def teacher_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every teacher against the gold labels. [.., T, C], [..] -> [.., T]; 0 where the label is -1."""
    if labels.is_floating_point():
        raise KitError("this selection weighs teachers by their cross-entropy on class labels, and this task is a regression.")
    return losses.cross_entropy(logits, labels.unsqueeze(-1).expand(logits.shape[:-1]))


def inverse_loss(ce: Tensor) -> Tensor:
    """The factor of mt_bert's Eq. 2, 1 / (1 + CE(y, y_i)), from the teachers' cross-entropies. [.., T] -> [.., T].

    >>> inverse_loss(torch.tensor([0.0, 1.0, 3.0]))
    tensor([1.0000, 0.5000, 0.2500])
    """
    return 1 / (1 + ce)


def confidence(ce: Tensor) -> Tensor:
    """w_k = (1 - softmax_k(CE)) / (K - 1), softmax over the K teachers' cross-entropies. [.., K] -> [.., K], sums to 1.

    Zhang, Chen and Wang, "Confidence-Aware Multi-Teacher Knowledge Distillation" (ICASSP 2022, arXiv 2201.00007). A
    teacher alone gets 1. No weight exceeds 1/(K - 1): of two teachers one can be silenced, of three none can be alone.

    >>> confidence(torch.tensor([0.0, 50.0]))
    tensor([1., 0.])
    >>> confidence(torch.tensor([0.0, 0.0, 50.0]))
    tensor([0.5000, 0.5000, 0.0000])
    """
    k = ce.shape[-1]
    return torch.ones_like(ce) if k == 1 else (1 - ce.softmax(-1)) / (k - 1)


def followed(weights: Tensor) -> Tensor:
    """Who is followed: the share of units whose largest weight is at each teacher. [.., T] -> [T].

    Teachers that share the largest weight share the unit; a unit that follows nobody counts for nobody, so the shares
    sum to 1 less the share of such units. Token units with padding: pass weights[mask].

    >>> followed(torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 0.0], [0.9, 0.3]]))
    tensor([0.6250, 0.1250])
    """
    w = weights.reshape(-1, weights.shape[-1])
    top = ((w == w.amax(-1, keepdim=True)) & (w > 0)).float()
    return (top / top.sum(-1, keepdim=True).clamp(min=1)).mean(0)
