"""WikiQA from a mirror made here, and mean average precision by hand and against scikit-learn."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from mtkd.data import wikiqa
from mtkd.data.tasks import load_task
from mtkd.errors import KitError
from mtkd.measure.metrics import mean_average_precision

# ---- mean average precision ----

def test_map_by_hand():
    # right on ranks 1 and 3: (1/1 + 2/3) / 2; on rank 2: 1/2; a question with nothing right does not count
    scores, labels = [0.9, 0.8, 0.7, -1.0, 5.0, 3.0], [1, 0, 1, 1, 0, 0]
    assert mean_average_precision(scores, labels, ["a", "a", "a", "b", "b", "c"]) == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert mean_average_precision([2, 1], [1, 0], [0, 0]) == 1.0
    assert mean_average_precision([1, 1, 1, 1], [1, 0, 0, 0], [0] * 4) == 0.25  # all on one rank: no better than its base rate


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 1), st.integers(0, 5)), min_size=1, max_size=40))
def test_map_is_the_mean_of_scikit_learns_average_precision_per_question(rows):
    scores, labels, groups = (np.array(column) for column in zip(*rows))
    own = [average_precision_score(labels[groups == g], scores[groups == g]) for g in set(groups.tolist())
           if labels[groups == g].any()]
    assume(own)
    assert mean_average_precision(scores, labels, groups) == pytest.approx(np.mean(own))


@pytest.mark.parametrize(("scores", "labels", "groups", "said"), [
    ([1, 2], [1], [0, 0], "needs scores"),
    ([1, 2], [1, 0], [0], "needs scores"),
    ([[1, 2]], [[1, 0]], [0], "needs scores"),
    ([1, np.nan], [1, 0], [0, 0], "not finite"),
    ([1, 2], [1, -1], [0, 0], "needs labels 0"),
    ([1, 2], [0, 0], [0, 0], "No group has a right item"),
    ([], [], [], "No group has a right item"),
])
def test_what_cannot_be_ranked(scores, labels, groups, said):
    with pytest.raises(KitError, match=said):
        mean_average_precision(scores, labels, groups)


# ---- the task ----

WORDS = ["old", "red", "big", "far", "low", "new", "odd", "wet", "dry", "hot"]
ANSWERED = {"train": 8, "validation": 3, "test": 4}  # questions with a right answer


def rows(split, right=None, wrong=6):
    """Questions q0, q1, ... of 6 wrong sentences; the first ANSWERED have 1 or 2 right ones too, the last of these only
    right ones; as many again have none."""
    right, found = ANSWERED[split] if right is None else right, []
    for q in range(2 * right):
        question = f"{split} question {q} about {WORDS[q % 10]} things ?"
        good = 1 + q % 2 if q < right else 0
        bad = 0 if q == right - 1 and right > 1 else wrong
        found += [(f"Q{q}", question, f"Answer {i} of {split} {q} is {WORDS[(q + i) % 10]} .", int(i < good), "")
                  for i in range(good + bad)]
    return pd.DataFrame(found, columns=["question_id", "question", "answer", "label", "document_title"])


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    monkeypatch.setenv("MTKD_HUB", str(tmp_path / "mirror"))

    def add(**tables):
        folder = tmp_path / "mirror" / wikiqa.HUB_ID / "data"
        folder.mkdir(parents=True, exist_ok=True)
        for split, table in {name: rows(name) for name in ANSWERED}.items():
            table = tables.get(split, table)
            if table is not None:
                table.to_parquet(folder / f"{split}-00000-of-00001.parquet")

    return add


def asked(split):
    return {q for q, _ in split.inputs}


def test_splits(mirror):
    mirror()
    task = load_task("wiki_qa", unlabelled=100)
    assert (task.name, task.kind, task.classes, task.metric) == ("wiki_qa", "pair", ("wrong", "right"), "accuracy")
    assert set(task.splits) == {"train", "validation", "test", "ranking", "unlabelled"}
    official = {name: rows(name) for name in ANSWERED}
    truth = {(q, a): label for table in official.values() for q, a, label in zip(table.question, table.answer, table.label)}
    for name in ("train", "validation", "test"):
        split = task.splits[name]
        counts = Counter((q, int(label)) for (q, _), label in zip(split.inputs, split.labels))
        assert {q for q, _ in counts} == asked(split)
        assert all(counts[q, 0] == counts[q, 1] > 0 for q in asked(split))  # the question alone says nothing
        assert all(truth[pair] == label for pair, label in zip(split.inputs, split.labels))
        assert all(i.startswith(f"{name}/Q") for i in split.ids)
        assert split.labels.tolist() != sorted(split.labels.tolist())  # in no order of the labels
    assert len(asked(task.splits["test"])) == 3  # the fourth has right answers alone
    assert len(asked(task.splits["train"])) in (5, 6)  # of 8: two are withheld, one has right answers alone
    ranking = task.splits["ranking"]
    whole = official["test"]
    whole = whole[whole.groupby("question_id").label.transform("sum") > 0]
    assert ranking.inputs == list(zip(whole.question, whole.answer))
    assert ranking.labels.tolist() == whole.label.tolist()
    assert ranking.ids[:2] == ["test/Q0/0", "test/Q0/1"]
    assert any("leaves out the 4 of 8 test questions" in note for note in task.notes)
    assert task.notes[-1] == "a local mirror supplied this data set"


def test_the_pool_is_outside_the_labelled_part(mirror):
    mirror()
    task = load_task("wiki_qa", unlabelled=80)
    unlabelled, table = task.splits["unlabelled"], rows("train")
    assert len(unlabelled) == len(set(unlabelled.inputs)) == len(set(unlabelled.ids)) == 80
    assert set(unlabelled.labels.tolist()) == {-1}
    for name in ("train", "validation", "test", "ranking"):
        assert not asked(unlabelled) & asked(task.splits[name])
    own = set(zip(table.question, table.answer))
    foreign = [pair for pair in unlabelled.inputs if pair not in own]
    assert len(foreign) == 40
    assert [("+" in i) for i in unlabelled.ids] == [pair not in own for pair in unlabelled.inputs]
    pool_sentences = {a for q, a in own if q in asked(unlabelled)}
    assert {a for _, a in foreign} <= pool_sentences
    right = set(zip(table[table.label == 1].question, table[table.label == 1].answer))
    assert right & set(unlabelled.inputs)  # what the withheld questions bring
    first = [pair in own for pair in unlabelled.inputs[:20]]
    assert 4 < sum(first) < 16  # any prefix is mixed


def test_one_right_question_of_four_is_withheld(mirror):
    mirror()
    for share, questions in ((0.25, 10), (0, 8), (0.5, 12)):
        task = load_task("wiki_qa", unlabelled=2000, withheld=share)
        assert len(asked(task.splits["unlabelled"])) == questions
        assert len(asked(task.splits["unlabelled"]) & asked(task.splits["train"])) == 0


def test_draws_differ_and_repeat(mirror):
    mirror()
    made = [load_task("wiki_qa", unlabelled=60, draw=draw).splits for draw in (0, 0, 1)]
    for name in ("train", "unlabelled"):
        assert made[0][name].inputs == made[1][name].inputs
        assert made[0][name].inputs != made[2][name].inputs
    assert made[0]["ranking"].inputs == made[2]["ranking"].inputs


def test_a_pool_as_big_as_one_likes_and_none(mirror):
    mirror()
    assert "unlabelled" not in load_task("wiki_qa", unlabelled=0).splits
    sizes = [len(load_task("wiki_qa", unlabelled=n).splits["unlabelled"]) for n in (1, 7, 300)]
    assert sizes == [1, 7, 300]
    task = load_task("wiki_qa", unlabelled=100_000)
    n = len(task.splits["unlabelled"])
    assert 300 < n < 100_000
    assert any("smaller than asked for" in note for note in task.notes)


def test_questions_that_other_splits_ask_too_are_no_part_of_the_pool(mirror):
    table = rows("train")
    table.loc[table.question_id == "Q15", "question"] = rows("test").question[0].upper()
    mirror(train=table)
    found = load_task("wiki_qa", unlabelled=2000).splits["unlabelled"]
    assert not any("/Q15/" in i or "Q15+" in i or "+Q15/" in i for i in found.ids)
    assert any("/Q14/" in i for i in found.ids)


def test_empty_texts_are_left_out_and_keep_the_numbers_of_the_others(mirror):
    table = rows("test")
    table.loc[0, "answer"] = " "
    table.loc[3, "question"] = None
    mirror(test=table)
    task = load_task("wiki_qa")
    assert task.splits["ranking"].ids[:3] == ["test/Q1/0", "test/Q1/1", "test/Q1/2"]  # Q0's only right answer was empty
    assert "2 test rows with an empty text are left out" in task.notes


def refused(said, **options):
    with pytest.raises(KitError, match=said) as caught:
        load_task("wiki_qa", **options)
    assert "\n" not in str(caught.value)


def test_rows_and_options_that_are_not_right(mirror, tmp_path):
    mirror(train=rows("train").drop(columns="answer"))
    refused("microsoft/wiki_qa has no column 'answer'; it has question_id, question, label, document_title")
    mirror(train=rows("train").assign(label=2))
    refused("has the label 2 in its train split, outside 0 and 1")
    mirror(validation=rows("validation").assign(label=0))
    refused("no question with both a right and a wrong answer")
    mirror(train=None)
    (tmp_path / "mirror" / wikiqa.HUB_ID / "data" / "train-00000-of-00001.parquet").unlink()
    refused("has no split 'train'; it has test, validation")
    mirror()
    for size in (-1, 2.5, True):
        refused("size of unlabelled must be a whole number", unlabelled=size)
    for share in (-0.1, 1, "x", True):
        refused("withheld must be a share from 0 to below 1", withheld=share)
    refused("has no option 'witheld', did you mean 'withheld'", witheld=0.5)


def test_ranking_score(mirror):
    mirror()
    task = load_task("wiki_qa")
    split = task.splits["ranking"]
    perfect = np.stack([np.zeros(len(split)), split.labels], axis=1)
    assert wikiqa.ranking_score(task, perfect) == 1.0
    assert wikiqa.ranking_score(task, -perfect) < 0.5
    assert wikiqa.ranking_score(task, perfect + 1000.0) == 1.0  # right against wrong, not right alone
    groups = np.array([i.split("/")[1] for i in split.ids])
    scores = np.random.default_rng(0).normal(size=(len(split), 2))
    own = [average_precision_score(split.labels[groups == g], (scores[:, 1] - scores[:, 0])[groups == g]) for g in set(groups)]
    assert wikiqa.ranking_score(task, scores) == pytest.approx(np.mean(own))
    with pytest.raises(KitError, match="needs logits"):
        wikiqa.ranking_score(task, scores[:-1])
