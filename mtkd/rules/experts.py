"""Selections that know who is good at what: the expert of a class, a mixture of experts, and chance as their baseline.

The rule is that of Hossain, "Multi-Teacher Knowledge Distillation Using Teacher's Domain Expertise" (`domain_expertise`);
section numbers are the thesis's. First the rule as pure functions, then the selections. Shapes: T = teachers,
C = classes, n = units. Everything is counted among the members of a selection; the others do not exist for it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from mtkd.errors import KitError
from mtkd.rules.selection import Chosen, selection

TIES, SEVERAL, NONE = ("random", "overall"), ("overall", "matched"), ("overall", "average")
HOW, BY, PER, SPLITS = ("proportional", "softmax"), ("prediction", "label"), ("sample", "step"), ("validation", "test")


def one_of(value: str, allowed: tuple[str, ...], what: str) -> None:
    if value not in allowed:
        raise KitError(f"no such value of {what}: {value!r}; there are {' and '.join(allowed)}.")


# --- the rule ------------------------------------------------------------------------------------------------------------


def recalls(logits: Tensor, labels: Tensor) -> Tensor:
    """The thesis's "per-class accuracy" of every teacher: of the units of a class, the share it calls that class.

    [n, T, C], [n] -> [T, C] (or token units [n, L, T, C], [n, L]). Units labelled -1 do not count. A class without
    units is NaN for everyone: nobody is known to be good at it.

    >>> z = F.one_hot(torch.tensor([[0, 0], [0, 1], [1, 1]]), 3).float()     # two teachers on three samples
    >>> recalls(z, torch.tensor([0, 0, 1]))
    tensor([[1.0000, 1.0000,    nan],
            [0.5000, 1.0000,    nan]])
    """
    hits, labels = correct(logits, labels)
    of_class = F.one_hot(labels, logits.shape[-1]).float()                               # [n, C]
    return hits.T @ of_class / of_class.sum(0)


def accuracies(logits: Tensor, labels: Tensor) -> Tensor:
    """Overall accuracy of every teacher. [n, T, C], [n] -> [T]; units labelled -1 do not count."""
    return correct(logits, labels)[0].mean(0)


def correct(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which teacher is right about which labelled unit (1.0 or 0.0), and those units' labels. -> [m, T], [m]."""
    if labels.is_floating_point() or not bool((labels >= 0).any()):
        raise KitError("expertise is learned from class labels, and the split it is learned on has none.")
    known = labels >= 0
    return (logits[known].argmax(-1) == labels[known].unsqueeze(-1)).float(), labels[known]


def best_per_class(recalls: Tensor, accuracy: Tensor, ties: str = "random", seed: int = 0, tolerance: float = 0.0) -> Tensor:
    """The best teacher of every class (4.5). [T, C], [T] -> [C].

    Recalls within `tolerance` of a class's highest are a tie ("similar accuracy"). ties: "random" takes any one of them
    (4.5), drawn with `seed`, or "overall" the one with the better overall accuracy (then the first). A class without
    units (NaN) goes to the best overall.

    >>> recall = torch.tensor([[0.9, 0.5, 0.6], [0.9, 0.7, 0.6]])
    >>> best_per_class(recall, torch.tensor([0.7, 0.8]), ties="overall")
    tensor([1, 1, 1])
    """
    one_of(ties, TIES, "ties")
    unknown = recalls.isnan().all(0)                                                     # [C]
    ours = recalls.nan_to_num(nan=-1.0)
    tied = ours >= ours.amax(0) - tolerance - 1e-6                                       # [T, C]; 1e-6 is for rounding
    if ties == "overall":
        best = torch.where(tied, accuracy.unsqueeze(-1), -1.0).argmax(0)
    else:  # one draw per class, tied or not: a tie elsewhere does not change this one
        rng = torch.Generator().manual_seed(seed)
        draw = torch.rand(tied.shape[1], generator=rng).to(tied.device)
        wanted = (draw * tied.sum(0)).long().clamp(max=len(tied) - 1)                    # which of the tied: 0, 1, ..
        best = (tied & (tied.cumsum(0) == wanted + 1)).int().argmax(0)
    return torch.where(unknown, accuracy.argmax(), best)


def choose(predictions: Tensor, best: Tensor, accuracy: Tensor, several: str = "overall", none: str = "overall") -> Tensor:
    """The one teacher to follow on every unit (4.6, 4.7). Hard predictions [.., T], [C], [T] -> one-hot [.., T].

    A teacher matches where it predicts a class it is the best at. One matches: that one. Several match: the teacher
    with the best overall accuracy, even if it is none of them (4.7, several="overall"), or the best of those that match
    (1.3 reads so, several="matched"). None matches, of which the thesis is silent: the best overall (none="overall"),
    or the average of all, 1/T each (none="average").

    The thesis's straightforward example (4.7.1.1), with apple = 0, orange = 1, grass = 2:

    >>> best, accuracy = torch.tensor([0, 1, 2]), torch.tensor([0.7, 0.8, 0.9])
    >>> choose(torch.tensor([0, 0, 1]), best, accuracy)
    tensor([1., 0., 0.])
    """
    one_of(several, SEVERAL, "several")
    one_of(none, NONE, "none")
    n = predictions.shape[-1]
    matched = best[predictions] == torch.arange(n, device=predictions.device)            # [.., T]
    overall = F.one_hot(accuracy.argmax(), n).float().expand(matched.shape)
    many = overall if several == "overall" else F.one_hot(torch.where(matched, accuracy, -1.0).argmax(-1), n).float()
    nobody = overall if none == "overall" else torch.full_like(overall, 1 / n)
    count = matched.sum(-1, keepdim=True)
    return torch.where(count == 1, matched.float(), torch.where(count == 0, nobody, many))


def shares_of(recalls: Tensor, accuracy: Tensor, how: str = "proportional", temperature: float = 0.1) -> Tensor:
    """What share of each class comes from which teacher. [T, C], [T] -> [C, T], rows sum to 1.

    how: "proportional" to the recalls, or "softmax" of recall / temperature, which favours the better ones more. A
    class without units, or one that nobody ever gets right, goes by overall accuracy instead (or equally).

    >>> shares_of(torch.tensor([[0.9, 0.0], [0.3, 0.5]]), torch.tensor([0.5, 0.4]))
    tensor([[0.7500, 0.2500],
            [0.0000, 1.0000]])
    """
    one_of(how, HOW, "how")
    skill = torch.where(recalls.nan_to_num().amax(0) > 0, recalls, accuracy.unsqueeze(-1)).T     # [C, T]
    if how == "softmax":
        return (skill / temperature).softmax(-1)
    skill = torch.where(skill.amax(-1, keepdim=True) > 0, skill, 1.0)
    return skill / skill.sum(-1, keepdim=True)


# --- the selections ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ByClass(Chosen):
    """What Expertise and ClassMixture share: recalls and accuracies of the members, learned on `fit_split`.

    fit_split: "validation", or "test" as in the thesis (4.5, Figure 4.3), where the split that is reported chooses the
    teachers; the kit then warns of the leak. `state` holds what was learned, with teachers at their own positions and
    NaN (or 0, for shares) for those left out: recalls [T, C], accuracy [T], and what the subclass adds.
    """

    fit_split: str = "validation"
    _learned: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False, kw_only=True)

    def __post_init__(self):
        one_of(self.fit_split, SPLITS, "fit_split")

    def fit(self, teachers, labels):
        n, logits = teachers.logits.shape[-2], self.of_members(teachers.logits)
        recall, accuracy = recalls(logits, labels), accuracies(logits, labels)
        places = list(self.members(n))
        everyone = recall.new_full((n, recall.shape[1] + 1), torch.nan)
        everyone[places] = torch.cat([recall, accuracy.unsqueeze(-1)], 1)
        found = self.learn(recall, accuracy, places, n)
        self._learned.update(recalls=everyone[:, :-1].contiguous(), accuracy=everyone[:, -1].contiguous(), **found)

    def learn(self, recall: Tensor, accuracy: Tensor, places: list[int], n: int) -> dict[str, Tensor]:
        """What follows from the members' recalls [k, C] and accuracies [k]; their places are among n teachers."""
        raise NotImplementedError

    def state(self):
        return dict(self._learned)

    def learned(self, name: str, device: torch.device) -> Tensor:
        if name not in self._learned:
            raise KitError(f"{type(self).__name__} has not looked at the teachers yet: call fit with their logits and labels.")
        return self._learned[name].to(device)


@selection
@dataclass(frozen=True)
class Expertise(ByClass):
    """Follow the teacher that predicts the class it is the best at (4.5 to 4.7): one teacher per unit, weight 1.

    several, none: see `choose`; ties, seed, tolerance: see `best_per_class`; fit_split: see ByClass. Every default is
    the thesis's, but for fit_split. State: recalls, accuracy, best [C] and overall (positions of teachers). Warns where
    one teacher is the best at every class, since this is then distillation from that teacher alone (6.1).
    """

    several: str = "overall"
    none: str = "overall"
    ties: str = "random"
    seed: int = 0
    tolerance: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        one_of(self.several, SEVERAL, "several")
        one_of(self.none, NONE, "none")
        one_of(self.ties, TIES, "ties")

    def learn(self, recall, accuracy, places, n):
        where = torch.tensor(places, device=recall.device)
        best = where[best_per_class(recall, accuracy, self.ties, self.seed, self.tolerance)]
        if len(places) > 1 and len(best.unique()) == 1:
            warnings.warn(f"teacher {int(best[0])} (counted from 0) is the best one at every class: following the expert is "
                          "following this teacher alone (thesis, 6.1).", stacklevel=2)
        return {"best": best, "overall": where[accuracy.argmax()]}

    def weights(self, batch, teachers, step, rng):
        z = teachers.logits
        n, places = z.shape[-2], torch.tensor(self.members(z.shape[-2]), device=z.device)
        best = (self.learned("best", z.device).unsqueeze(-1) == places).int().argmax(-1)         # [C], among the members
        accuracy = self.learned("accuracy", z.device)[places]
        return self.to_all(choose(self.of_members(z).argmax(-1), best, accuracy, self.several, self.none), n)


@selection
@dataclass(frozen=True)
class ClassMixture(ByClass):
    """The thesis's proposed extension (6.2): for class c take a% from teacher A and b% from teacher B.

    shares: [C, k], one row per class and one column per member in the order of `of`, divided by each row's sum (so
    percentages will do); None learns them, see `shares_of` for how and temperature. by: a unit's class is the one that
    the mean of the members' logits predicts ("prediction"), or the gold label ("label"; unlabelled units go by
    prediction). State: recalls, accuracy, shares [C, T]; nothing where shares are given.

    >>> ClassMixture(shares=((70, 30), (20, 80))).table(2)
    tensor([[0.7000, 0.3000],
            [0.2000, 0.8000]])
    """

    shares: tuple[tuple[float, ...], ...] | None = None
    how: str = "proportional"
    temperature: float = 0.1
    by: str = "prediction"

    def __post_init__(self):
        super().__post_init__()
        one_of(self.how, HOW, "how")
        one_of(self.by, BY, "by")
        if self.temperature <= 0:
            raise KitError(f"the temperature of a softmax must be above 0; this one is {self.temperature}.")
        rows = self.shares
        if rows is not None and (not rows or len({len(row) for row in rows}) > 1
                                 or any(min(row, default=-1) < 0 or sum(row) <= 0 for row in rows)):
            raise KitError(f"shares want one row per class, all of one length, not negative and not all zero: {rows}.")

    def fit(self, teachers, labels):
        if self.shares is None:
            super().fit(teachers, labels)

    def learn(self, recall, accuracy, places, n):
        return {"shares": self.to_all(shares_of(recall, accuracy, self.how, self.temperature), n)}

    def table(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """The shares in use, of n teachers: [C, n]."""
        if self.shares is None:
            return self.learned("shares", device)
        given = torch.tensor(self.shares, dtype=torch.float32, device=device)
        if given.shape[1] != len(self.members(n)):
            raise KitError(f"the shares have {given.shape[1]} columns for {len(self.members(n))} teachers.")
        return self.to_all(given / given.sum(-1, keepdim=True), n)

    def weights(self, batch, teachers, step, rng):
        z = teachers.logits
        shares = self.table(z.shape[-2], z.device)
        if len(shares) != z.shape[-1]:
            raise KitError(f"the shares have {len(shares)} rows for {z.shape[-1]} classes.")
        unit = self.of_members(z).mean(-2).argmax(-1)                                            # [..]
        if self.by == "label":
            unit = torch.where(batch.labels >= 0, batch.labels, unit).long()
        return shares[unit]


@selection
@dataclass(frozen=True)
class RandomTeacher(Chosen):
    """The thesis's baseline: one teacher drawn at random, all alike, for every sample (4.9) or for every step's whole batch
    (per="step", the footnote of Table 5.1). Token units: one teacher for the whole sample. Draws from the loop's rng."""

    needs = frozenset()
    per: str = "sample"

    def __post_init__(self):
        one_of(self.per, PER, "per")

    def weights(self, batch, teachers, step, rng):
        size, *tokens, n, _ = teachers.logits.shape
        k = len(self.members(n))
        drawn = torch.randint(k, (size if self.per == "sample" else 1,), generator=rng, device=rng.device)
        one = F.one_hot(drawn.to(teachers.logits.device), k).float().view(-1, *[1] * len(tokens), k)
        return self.to_all(one.expand(size, *tokens, k), n)
