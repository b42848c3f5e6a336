"""The notebook's teaching aids: source display, claims tables, and exercises whose right answers pass and wrong ones don't."""

import doctest

import torch
import torch.nn.functional as F

from mtkd import lecture
from mtkd.papers.seed_ensemble_exercises import exercises
from mtkd.rules import losses
from mtkd.runs import helpers


def test_doctests():
    for module in (lecture, helpers):
        result = doctest.testmod(module)
        assert result.attempted
        assert not result.failed


def test_exercise_answers():
    def repaired(student, teacher, t):
        return F.kl_div(F.log_softmax(student / t, dim=-1), F.softmax(teacher / t, dim=-1), reduction="batchmean")

    def swapped(student, teacher, t):
        return F.kl_div(F.log_softmax(teacher / t, dim=-1), F.softmax(student / t, dim=-1), reduction="batchmean")

    def over_classes(student, teacher, t):
        return -(F.softmax(teacher / t, dim=-1) * F.log_softmax(student / t, dim=-1)).mean()

    def sure(logits):
        p = logits.softmax(-1).max(-1).values
        return p / p.sum(-1, keepdim=True)

    right = {"1": 0.6255, "2": repaired, "3": 8 * 2**7, "4": sure}
    wrong = {"1": 0.8176, "2": swapped, "3": 255, "4": lambda z: torch.full(z.shape[:2], 0.5)}
    for name, answer in right.items():
        assert exercises.check(name, answer) == f"exercise {name}: correct"
        assert exercises.check(name, wrong[name]) == f"exercise {name}: not yet"
    assert exercises.check("2", over_classes) == "exercise 2: not yet"
    assert "TypeError" in exercises.check("1", "six")


def test_show_displays_the_source_that_runs(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda item: shown.append(item.data))
    lecture.show(losses.original_kd)
    assert "`mtkd/rules/losses.py`" in shown[0]
    assert "return ce + lam * kd" in shown[0]


def test_claims_frame_lists_all_five():
    assert all(f"S{i}" in lecture.claims_frame("seed_ensemble").to_html() for i in range(1, 6))
