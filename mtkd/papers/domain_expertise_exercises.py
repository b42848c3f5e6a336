"""Checks of the exercises at the end of notebooks/domain_expertise.ipynb (their answers are in the tests)."""

import math

import torch

from mtkd.lecture import Exercises
from mtkd.rules import experts

# The worked example of exercise 1: three classes, three teachers; teacher 2 is the best overall.
BEST, ACCURACY = torch.tensor([0, 1, 1]), torch.tensor([0.70, 0.75, 0.80])
PREDICTIONS = torch.tensor([[0, 0, 2], [0, 1, 2], [1, 2, 0], [2, 0, 1]])   # four samples, what each teacher predicts
COUNTS = {"anger": 558, "joy": 358, "optimism": 123, "sadness": 382}       # TweetEval emotion, official test split


def followed() -> list[int]:
    """Whom the thesis's rule follows on the four samples of exercise 1."""
    return experts.choose(PREDICTIONS, BEST, ACCURACY).argmax(-1).tolist()


def printable(value: float, samples: int) -> bool:
    """Whether value per cent, with one decimal, can be k of `samples`, rounded or cut off.

    >>> printable(17.1, 123), printable(17.1, 558)
    (True, False)
    """
    return any(abs(value - shown) < 1e-9 for k in range(samples + 1)
               for shown in (round(100 * k / samples, 1), math.floor(1000 * k / samples) / 10))


def follows_the_expert(function) -> bool:
    """Whether function(predictions [n, T], best [C], accuracy [T]) gives the teacher to follow [n] as 4.7 has it.

    Drawn at random, so that every case comes up: one expert, several (best overall, even if none of them), none.
    """
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        teachers, classes = 4, 5
        predictions = torch.randint(classes, (50, teachers), generator=generator)
        best = torch.randint(teachers, (classes,), generator=generator)
        accuracy = torch.rand(teachers, generator=generator)
        right = experts.choose(predictions, best, accuracy).argmax(-1)
        if torch.as_tensor(function(predictions, best, accuracy)).tolist() != right.tolist():
            return False
    return True


def weighs_by_recall(function) -> bool:
    """Whether function(recalls [T, C], predictions [n]) gives weights [n, T], in proportion to recall on that class."""
    recalls = torch.tensor([[0.9, 0.2, 0.5], [0.3, 0.6, 0.5]])
    w = function(recalls, torch.tensor([0, 1, 2, 0]))
    wanted = torch.tensor([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5], [0.75, 0.25]])
    return bool(w.shape == (4, 2) and torch.allclose(w.float(), wanted, atol=1e-4))


exercises = Exercises({
    "1": lambda answer: list(answer) == followed(),
    "2": follows_the_expert,
    "3": lambda answer: str(answer).strip().lower() == "optimism",
    "4": weighs_by_recall,
})
