"""The notebook's teaching aids: source display, and claims tables."""

import doctest

from mtkd import lecture
from mtkd.rules import losses
from mtkd.runs import helpers


def test_doctests():
    for module in (lecture, helpers):
        result = doctest.testmod(module)
        assert result.attempted
        assert not result.failed


def test_show_displays_the_source_that_runs(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda item: shown.append(item.data))
    lecture.show(losses.original_kd)
    assert "`mtkd/rules/losses.py`" in shown[0]
    assert "return ce + lam * kd" in shown[0]


def test_claims_frame_lists_all_five():
    assert all(f"S{i}" in lecture.claims_frame("seed_ensemble").to_html() for i in range(1, 6))
