"""Rows of many records as one frame: what is pooled, what is told apart, which of several settings is shown."""

import warnings

import pytest

from mtkd.evidence.frame import Rows, rows_frame

LAYOUT = Rows("toy", identity=("arm", "task", "model", "repeat"), measured=("speed",))


def record(run: str, lr: float, *rows: tuple, tier: str = "demo") -> dict:
    """rows: (arm, model, repeat, score)."""
    named = [{"arm": arm, "task": "t", "model": model, "repeat": repeat, "score": score} for arm, model, repeat, score in rows]
    return {"paper": "toy", "tier": tier, "run": run, "parameters": {"lr": lr, "sections": run}, "rows": named}


FULL = record("full", 1.0, *[("teachers", "big", r, 0.8) for r in (0, 1)], *[("main", "small", r, 0.7) for r in (0, 1)])
COUNTS = record("counts", 2.0, *[("teachers", "throw-away", r, 0.1) for r in (0, 1)])


@pytest.mark.parametrize("records", [[FULL, COUNTS], [COUNTS, FULL]], ids=["first", "last"])
def test_arms_come_from_one_experiment_whatever_the_order(records):
    with pytest.warns(UserWarning, match="2 sets of parameters"):
        frame = rows_frame(LAYOUT, records)
    assert frame["run"].unique().tolist() == ["full"]
    assert set(rows_frame(LAYOUT, records, every=True)["run"]) == {"full", "counts"}


def test_more_replicates_win_over_more_rows():
    more = record("more", 2.0, *[("teachers", "other", r, 0.5) for r in (0, 1, 2)])
    with pytest.warns(UserWarning, match=r"the most repeats \(3\)"):
        frame = rows_frame(LAYOUT, [FULL, more])
    assert frame[frame["arm"] == "teachers"]["run"].unique().tolist() == ["more"]
    assert frame[frame["arm"] == "main"]["run"].unique().tolist() == ["full"]  # nobody else has any


def test_a_model_that_two_runs_share_counts_once_and_its_measurements_twice():
    one = record("one", 1.0, ("main", "small", 0, 0.7), ("speed", "small", 0, 10.0))
    two = record("two", 1.0, ("main", "small", 0, 0.7), ("speed", "small", 0, 30.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # they differ in sections only, so they are one experiment
        frame = rows_frame(LAYOUT, [one, two])
    assert frame[frame["arm"] == "main"]["run"].tolist() == ["one"]
    assert frame[frame["arm"] == "speed"]["score"].tolist() == [10.0, 30.0]


def test_tiers_are_apart_and_other_papers_are_left_out():
    other = {**record("small", 2.0, ("main", "small", 0, 0.9), tier="small"), "paper": "toy"}
    frame = rows_frame(LAYOUT, [FULL, other, {**FULL, "paper": "another"}])
    assert frame.groupby("tier").size().to_dict() == {"demo": 4, "small": 1}


def test_no_records_make_an_empty_frame():
    assert rows_frame(LAYOUT, []).empty
