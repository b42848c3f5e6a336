"""Checks of the exercises at the end of notebooks/mt_bert.ipynb (their answers are in tests/test_mt_bert.py)."""

import math
from itertools import combinations

import torch
from torch import Tensor

from mtkd.lecture import Exercises
from mtkd.rules import losses

FIRST = [(0, 4), (4, 7), (8, 13)]  # a word in two pieces, then another word
SECOND = [(0, 2), (2, 7), (8, 10), (10, 12), (12, 13)]  # the same text cut otherwise


def weighted_distillation(student: Tensor, teachers: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Eq. 2 over a batch, the way it is meant: [B, C], [B, N, C], [B] -> one number."""
    total = torch.zeros(len(labels))
    for i in range(teachers.shape[1]):
        soft = losses.soft_cross_entropy(student, teachers[:, i], temperature)          # [B]
        total = total + soft / (1 + losses.cross_entropy(teachers[:, i], labels))
    return total.mean()


def right_weighting(function) -> bool:
    """Whether function(student, teachers, labels, t) is Eq. 2 with one weight per teacher and sample."""
    generator = torch.Generator().manual_seed(0)
    for temperature in (1.0, 2.0):
        student, teachers = (3 * torch.randn(*shape, generator=generator) for shape in ((6, 4), (6, 3, 4)))
        labels = torch.tensor([0, 1, 2, 3, 0, 1])
        ours = weighted_distillation(student, teachers, labels, temperature)
        if not torch.allclose(ours, function(student, teachers, labels, temperature), atol=1e-5):
            return False
    return True


def encoders(n: int) -> int:
    """Encoders that are fine-tuned for Table 3: every combination of n teachers is co-finetuned anew."""
    return sum(len(chosen) for k in range(1, n + 1) for chosen in combinations(range(n), k))


def averages_what_overlaps(function) -> bool:
    """Whether function(student spans, teacher spans) gives rows of equal weights on the teacher tokens that overlap."""
    for mine, theirs in ((FIRST, SECOND), (SECOND, FIRST)):
        answer = torch.as_tensor(function(mine, theirs), dtype=torch.float)
        for row, (start, end) in zip(answer, mine, strict=True):
            over = torch.tensor([float(a < end and start < b) for a, b in theirs])
            if not torch.allclose(row, over / over.sum()):
                return False
    return True


exercises = Exercises({
    "1": lambda answer: abs(answer - 1 / (1 + math.log(2))) < 5e-4,
    "2": right_weighting,
    "3": lambda answer: answer == encoders(5),
    "4": averages_what_overlaps,
})
