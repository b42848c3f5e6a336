"""A run beside its committed twin: the same, within the spread of the replicates, or different, and in what."""

import copy

import pytest

from mtkd import cli
from mtkd.report import read_committed
from mtkd.runs.verify import compare, twin_of


@pytest.fixture(scope="module")
def committed():
    found = [r for r in read_committed("mt_bert") if r["tier"] == "demo"]
    assert len(found) >= 10
    return found


def again(committed, change=lambda row: None, at=slice(None)):
    mine = copy.deepcopy(next(r for r in committed if r["parameters"]["repeats"] == [0]))
    for row in mine["rows"][at]:
        row["time"] = {"train_s": 1e9}
        change(row)
    return mine, compare(mine, twin_of(mine, committed), committed)


def test_times_do_not_count(committed):
    mine, found = again(committed)
    assert found.verdict == "the same"
    assert found.words == f"the same as the committed record: {len(mine['rows'])} rows, every score and every item."


def test_an_item_more_is_within_the_spread_and_ten_points_are_not(committed):
    def better(points):
        def change(row):
            row["score"] += points / 100
        return change

    students = slice(-3, None)
    _, found = again(committed, better(0.03), students)
    assert found.verdict == "within the spread"
    assert "within the spread of 20 replicates: 3 of" in found.words
    _, found = again(committed, better(10), students)
    assert found.verdict == "different"
    assert "outside the spread of 20 replicates in 3 of" in found.words


def test_other_items_with_the_same_score_are_told(committed):
    _, found = again(committed, lambda row: row.update(right="AA=="), slice(-1, None))
    assert found.verdict == "within the spread"
    assert "in 1 other items are right" in found.words


def test_what_is_no_outcome_must_be_equal(committed):
    _, found = again(committed, lambda row: row.update(n_test=7), slice(-1, None))
    assert found.verdict == "different"
    assert "n_test: 7 and not" in found.words
    mine, _ = again(committed)
    mine["rows"].pop()
    assert "the number of rows" in compare(mine, twin_of(mine, committed), committed).words


def test_a_run_with_other_parameters_has_no_twin(committed):
    mine, _ = again(committed)
    mine["parameters"]["student_epochs"] = 99
    assert twin_of(mine, committed) is None


def test_the_command_line_sets_a_run_beside_its_twin_and_leaves_others_alone(committed, capsys):
    mine, _ = again(committed)
    assert cli.beside_the_committed([mine])
    said = capsys.readouterr().out
    assert f"{len(mine['rows'])} rows, every score and every item" in said
    assert "; yours " in said
    assert "●: mean effect over all committed replicates" in said
    mine["parameters"]["student_epochs"] = 99
    assert not cli.beside_the_committed([mine])
    assert capsys.readouterr().out == ""
