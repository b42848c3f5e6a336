"""Teachers joined with weights that stay fixed, and the two choices by sample that they are compared with (`rl_kd`, Baseline
Models and Table 3).

As teachers of a student they are selections, for Term("soft_cross_entropy", DevWeighted(), combine="probabilities"); as
classifiers they are `ensemble(selection, logits)`. U-Ensemble is mtkd.rules.selection.Uniform, Rand-Single-Ensemble is
mtkd.rules.experts.RandomTeacher(per="step"): a teacher per mini-batch, as Fukuda et al. (2017) have it.
Shapes: n samples, T teachers, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mtkd.errors import KitError
from mtkd.rules import losses
from mtkd.rules.experts import accuracies, one_of
from mtkd.rules.registry import TeacherBatch
from mtkd.rules.selection import Chosen, Selection, selection, teacher_losses
from mtkd.tokens.batches import Batch

# --- pure functions ------------------------------------------------------------------------------------------------------


def dev_weights(logits: Tensor, labels: Tensor) -> Tensor:
    """W-Ensemble: weights proportional to accuracy, here on the development set. [n, T, C], [n] -> [T], sum 1.

    The paper says only that the weights differ and are fixed; the three papers it follows leave them to the user too.
    """
    accuracy = accuracies(logits, labels)
    return accuracy / accuracy.sum() if accuracy.sum() > 0 else torch.full_like(accuracy, 1 / len(accuracy))


def logistic_weights(logits: Tensor, labels: Tensor) -> Tensor:
    """LR-Ensemble: w_k of sum_k w_k P_k(y = c | x), by logistic regression. [n, T, C], [n] -> [T], none negative, sum 1.

    Every pair of sample and class is a case: its features are what the T teachers give the class, its answer whether the class
    is right. The paper names the model and not its cases. Negative coefficients are set to 0, since no mean has them;
    nothing positive gives equal weights.

    >>> z = torch.tensor([[[4.0, 0.0], [0.0, 0.0]], [[0.0, 4.0], [0.0, 0.0]]])       # the first knows, the second does not
    >>> logistic_weights(z, torch.tensor([0, 1]))
    tensor([1., 0.])
    """
    from sklearn.linear_model import LogisticRegression

    known = labels >= 0
    if labels.is_floating_point() or not known.any():
        raise KitError("the weights of an ensemble are learned from class labels, and the split they are learned on has none.")
    logits, labels = logits[known], labels[known]
    cases = logits.softmax(-1).transpose(1, 2).flatten(0, 1).double().cpu().numpy()                # [n C, T]
    answers = F.one_hot(labels, logits.shape[-1]).flatten().cpu().numpy()
    found = np.clip(LogisticRegression(max_iter=1000).fit(cases, answers).coef_[0], 0, None)
    found = found / found.sum() if found.sum() > 0 else np.full(len(found), 1 / len(found))
    return torch.from_numpy(found).to(logits)


def weighted_logits(logits: Tensor, weights: Tensor) -> Tensor:
    """Log of the weighted mean probability: what an ensemble says, as logits. [n, T, C], [T] or [n, T] -> [n, C]

    >>> weighted_logits(torch.tensor([[[0.0, 0.0], [9.0, 0.0]]]), torch.tensor([1.0, 0.0])).exp()
    tensor([[0.5000, 0.5000]])
    """
    mean = losses.mean_probabilities(logits, weights.expand(logits.shape[:-1]))
    return mean.clamp(min=torch.finfo(mean.dtype).tiny).log()


def random_single(logits: Tensor, rng: torch.Generator, batch_size: int = 1) -> Tensor:
    """Rand-Single-Ensemble as a classifier: a teacher drawn for every batch_size samples in a row. [n, T, C] -> [n, C]"""
    n, t, _ = logits.shape
    drawn = torch.randint(t, (-(-n // batch_size),), generator=rng).repeat_interleave(batch_size)[:n]
    return logits[torch.arange(n), drawn]


def ensemble(selection: Selection, logits: Tensor, seed: int = 0) -> Tensor:
    """What the teachers say together on samples whose labels nobody knows, weighed as a selection does. [n, T, C] -> [n, C]

    KitError for a selection that needs the labels (BestSingle).
    """
    n = len(logits)
    batch = Batch(np.arange(n), {}, torch.full((n,), -1, device=logits.device))
    return weighted_logits(logits, selection.weights(batch, TeacherBatch(logits), 0, torch.Generator().manual_seed(seed)))


# --- the selections ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fixed(Chosen):
    """What the weighted ensembles share: one weight per teacher, learned before the stage, then fixed. State: weights [T]."""

    fit_split: str = "validation"
    _learned: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False, kw_only=True)

    def __post_init__(self):
        one_of(self.fit_split, ("validation", "train"), "fit_split")

    def learn(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Weights [k] of the members from their logits [n, k, C]."""
        raise NotImplementedError

    def fit(self, teachers, labels):
        self._learned["weights"] = self.to_all(self.learn(self.of_members(teachers.logits), labels), teachers.logits.shape[-2])

    def weights(self, batch, teachers, step, rng):
        if not self._learned:
            raise KitError(f"{type(self).__name__} has not looked at the teachers yet: call fit with their logits and labels.")
        return self._learned["weights"].to(teachers.logits.device).expand(teachers.logits.shape[:-1])

    def state(self):
        return dict(self._learned)


@selection
@dataclass(frozen=True)
class DevWeighted(Fixed):
    """W-Ensemble, see `dev_weights`."""

    def learn(self, logits, labels):
        return dev_weights(logits, labels)


@selection
@dataclass(frozen=True)
class LogisticWeighted(Fixed):
    """LR-Dev-Ensemble (fit_split="validation") and LR-Train-Ensemble (fit_split="train"), see `logistic_weights`."""

    def learn(self, logits, labels):
        return logistic_weights(logits, labels)


@selection
@dataclass(frozen=True)
class BestSingle(Chosen):
    """Best-Single-Ensemble: on every training sample the teacher with the lowest cross-entropy on its gold label, alone.

    The paper's bound for choosing one teacher by sample. It reads the label, so there is no such thing at test time: KitError
    on any sample without one, which is how `ensemble` shows it samples. Of equals, the first in the order of `of`.
    """

    def weights(self, batch, teachers, step, rng):
        z = teachers.logits
        if bool((batch.labels < 0).any()):
            raise KitError("BestSingle follows the teacher with the lowest loss on the label: it cannot be used where there "
                           "are no labels, nor be evaluated as a model.")
        best = teacher_losses(self.of_members(z), batch.labels).argmin(-1)
        return self.to_all(F.one_hot(best, len(self.members(z.shape[-2]))).to(z.dtype), z.shape[-2])
