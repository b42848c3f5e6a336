"""Checks of the exercises at the end of notebooks/rl_kd.ipynb (their answers are in tests/test_rl_kd.py)."""

import math

import torch
from scipy import stats
from torch import Tensor

from mtkd.lecture import Exercises
from mtkd.papers.rl_kd_spread import RATIO


def parameters(d: int, classes: int, teachers: int) -> int:
    """Numbers that the agents learn: A and b of Eq. 6, for every teacher."""
    return teachers * (d + (classes + 1) * teachers + 1)


def runs_needed(ratio: float = RATIO, alpha: float = 0.05) -> int:
    """Runs of each of two methods with equal spread and independent runs, until the interval of level 1 - 2 alpha around an
    observed ratio of exactly 1 lies within the factor."""
    n = 2
    while math.sqrt(stats.f.ppf(1 - alpha, n - 1, n - 1)) > ratio:
        n += 1
    return n


def right_update(function) -> bool:
    """Whether function(logit, actions, ce, dl) is the slope of one step on reward 2, [n, K], that samples without a teacher
    have no part in, neither in the mean that rewards count from nor in the slope."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        logit = torch.randn(6, 3, generator=generator)
        actions = torch.bernoulli(torch.full((6, 3), 0.5), generator=generator)
        actions[1], actions[4, 0] = 0.0, 1.0
        ce, dl = torch.rand(6, generator=generator), 2 + torch.rand(6, generator=generator)
        some = (actions.sum(-1, keepdim=True) > 0).float()
        paid = -ce - dl
        wanted = (actions - logit.sigmoid()) * (paid - paid[some[:, 0] > 0].mean()).unsqueeze(-1) * some
        if not torch.allclose(function(logit, actions, ce, dl), wanted, atol=1e-5):
            return False
    return True


def right_expectation(function) -> bool:
    """Whether function(p, rewards) is the expected reward over all 2^K selections. p [K]; rewards: a function of a tuple of
    0s and 1s."""
    def paid(actions) -> float:
        return sum(v * a for v, a in zip((3.0, -1.0, 0.5), actions)) - 2.0 * actions[0] * actions[1]

    for values in ((0.5, 0.5), (0.9, 0.2, 0.7)):
        p: Tensor = torch.tensor(values)
        mean = sum(v * q for v, q in zip((3.0, -1.0, 0.5), values)) - 2.0 * values[0] * values[1]
        if not math.isclose(float(function(p, paid)), mean, abs_tol=1e-5):
            return False
    return True


exercises = Exercises({
    "1": lambda answer: answer == parameters(768, 3, 4),
    "2": right_update,
    "3": lambda answer: answer == runs_needed(),
    "4": right_expectation,
})
