"""Checks of the exercises at the end of notebooks/tmkd.ipynb (their answers are in tests/test_tmkd.py)."""

import torch
from torch import Tensor

from mtkd.lecture import Exercises
from mtkd.models import heads
from mtkd.rules import losses

GOLD, SOFT = (0.0, 1.0), ((2.0, 0.0), (0.0, 0.0))  # logits of a golden head and two soft ones


def combined_loss(golden: Tensor, soft: Tensor, labels: Tensor, teachers: Tensor, alpha: float) -> Tensor:
    """Eq. 5 over a batch, head i against teacher i: [B, C], [B, N, C], [B], [B, N, C] -> one number."""
    gold = losses.cross_entropy(golden, labels)                              # Eq. 2, [B]
    matched = losses.squared_error(soft, teachers).mean(-1)                  # Eq. 4, [B, N] -> [B]
    return ((1 - alpha) * gold + alpha * matched).mean()


def right_loss(function) -> bool:
    """Whether function(golden, soft, labels, teachers, alpha) is Eq. 5 with a teacher of its own for every head."""
    generator = torch.Generator().manual_seed(0)
    for alpha in (0.0, 0.9, 1.0):
        golden, soft, teachers = (2 * torch.randn(*shape, generator=generator) for shape in ((6, 4), (6, 3, 4), (6, 3, 4)))
        labels = torch.tensor([0, 1, 2, 3, 0, 1])
        wanted = combined_loss(golden, soft, labels, teachers, alpha)
        if not torch.allclose(wanted, torch.as_tensor(function(golden, soft, labels, teachers, alpha)), atol=1e-5):
            return False
    return True


def vote() -> float:
    """Probability of class 0 after Eq. 6 for GOLD and SOFT."""
    return heads.vote(torch.tensor([GOLD]), torch.tensor([SOFT])).exp()[0, 0].item()


def trainings(tasks: int, teachers: int) -> int:
    """Distillations behind the rows of the 3-layer student in Tables 4 to 7: TMKD at two pools, TKD with one teacher at two
    pools and with the mean at one, each with a first stage that all tasks share; 1-o-1, 1avg-o-1, MKD and m-o-m without."""
    with_pool, without = 5, 3
    ensemble = teachers - 1  # 1-o-1 from the best teacher is one of its members already
    return with_pool + tasks * (with_pool + without + ensemble)


def more_parameters(width: int, classes: int, teachers: int) -> int:
    """What N soft heads add to a student: a matrix and a bias each."""
    return teachers * (width * classes + classes)


exercises = Exercises({
    "1": lambda answer: abs(answer - vote()) < 5e-4,
    "2": right_loss,
    "3": lambda answer: answer == trainings(5, 3),
    "4": lambda function: all(function(*case) == more_parameters(*case) for case in ((768, 2, 3), (768, 3, 3), (16, 8, 5))),
})
