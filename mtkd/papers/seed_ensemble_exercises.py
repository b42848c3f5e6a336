"""Checks of the exercises at the end of notebooks/seed_ensemble.ipynb (their answers are in tests/test_lecture.py)."""

from types import SimpleNamespace

import torch

from mtkd.lecture import Exercises
from mtkd.papers.seed_ensemble_study import students
from mtkd.rules import losses

EIGHT = SimpleNamespace(arm="tinybert", n_teachers=8, repeats=1, controls=False)  # teachers in a pool
LOGITS = torch.tensor([[[4.0, 0.0], [0.0, 1.0]]])  # one sample, two teachers, two classes


def right_distillation_loss(function) -> bool:
    """Whether function(student, teacher, t) is Eq. 2 averaged over the batch (soft cross-entropy or KL, any scaling).

    Seen through the gradient, where cross-entropy and KL agree: a swapped teacher and student, or a mean that also
    divides by the number of classes, give another one.
    """
    generator = torch.Generator().manual_seed(0)
    for temperature in (1.0, 2.0):
        student, teacher = (torch.randn(5, 4, generator=generator) for _ in range(2))
        ours, theirs = (student.clone().requires_grad_() for _ in range(2))
        losses.soft_cross_entropy(ours, teacher, temperature).mean().backward()
        function(theirs, teacher, temperature).backward()
        if not torch.allclose(ours.grad, theirs.grad, atol=1e-6):
            return False
    return True


def follows_the_sure(function) -> bool:
    """Whether function(logits [B, T, C]) gives each teacher a weight that grows with its largest probability, sum 1."""
    z = torch.tensor([[[5.0, 0.0, 0.0], [1.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.0, 0.0, 3.0]]])
    w = function(z)
    return bool(w.shape == (2, 2) and torch.allclose(w.sum(-1), torch.ones(2)) and w[0, 0] > w[0, 1] and w[1, 1] > w[1, 0])


exercises = Exercises({
    "1": lambda answer: abs(answer - losses.mean_probabilities(LOGITS)[0, 0].item()) < 5e-4,
    "2": right_distillation_loss,
    "3": lambda answer: answer == sum(s.kind == "student" for s in students(EIGHT)),
    "4": follows_the_sure,
})
