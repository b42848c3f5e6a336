"""The plain sets of the catalogue: protocols, classes and ids, from a mirror made here, and what is refused."""

import os

import numpy as np
import pandas as pd
import pytest

from mtkd.data import catalogue, glue, hub
from mtkd.data.catalogue import SETS
from mtkd.data.splits import hash_order
from mtkd.data.tasks import load_task
from mtkd.errors import KitError

GLUE = [name for name in SETS if name.startswith("glue/")]
THREE = {"train": 40, "validation": 20, "test": 30}


def sizes(task):
    return {name: len(split) for name, split in task.splits.items()}


def refused(said, name, **options):
    with pytest.raises(KitError, match=said) as caught:
        load_task(name, **options)
    assert "\n" not in str(caught.value)


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    """Writes splits of a set: add("glue/cola", train=100, ...) with made-up rows, add("emotion", test={column: values})."""
    monkeypatch.setenv("MTKD_HUB", str(tmp_path))

    def add(name, **splits):
        entry = SETS[name]
        classes = len(entry["classes"])
        for split, rows in splits.items():
            if isinstance(rows, int):
                hidden = "hidden" in entry and split.startswith("test") and name not in ("glue/mrpc", "glue/sst2")
                labels = [-1] * rows if hidden else [i % classes if classes else 5 * i / rows for i in range(rows)]
                rows = {c: [f"{c} of {split} {i}" for i in range(rows)] for c in entry["texts"]} | {"label": labels}
            path = tmp_path / entry["hub"] / entry.get("config", "data") / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_parquet(path)

    return add


@pytest.mark.parametrize("name", [name for name in SETS if name not in GLUE])
def test_official_splits_classes_and_ids(mirror, name):
    held_out = "splits" in SETS[name]
    mirror(name, **{split: n for split, n in THREE.items() if not (held_out and split == "validation")})
    task = load_task(name)
    assert (task.name, task.classes, task.metrics) == (name, tuple(SETS[name]["classes"]), tuple(SETS[name]["metrics"]))
    assert sizes(task) == ({"train": 36, "validation": 4, "test": 30} if held_out else THREE)
    test = task.splits["test"]
    assert (test.ids[5], test.inputs[5]) == ("test/5", tuple(f"{column} of test 5" for column in SETS[name]["texts"]))
    assert test.labels.tolist() == [i % len(task.classes) for i in range(30)]
    assert task.notes[-1] == "a local mirror supplied this data set"
    assert any("4 of 40 training rows, chosen by hash" in note for note in task.notes) == held_out


@pytest.mark.parametrize(("protocol", "found"), [
    ("honest", {"train": 90, "validation": 10, "test": 30}),
    ("paper", {"train": 100, "validation": 30, "test": 30, "hidden_test": 20}),
])
def test_hidden_test_labels(mirror, protocol, found):
    mirror("glue/cola", train=100, validation=30, test=20)
    task = load_task("glue/cola", protocol=protocol)
    assert sizes(task) == found
    assert task.splits["test"].ids[7] == "validation/7"
    assert (task.metric, task.kind, task.classes) == ("mcc", "text", ("unacceptable", "acceptable"))
    assert "test labels are hidden" in task.notes[0]
    if protocol == "paper":
        assert task.splits["validation"].ids == task.splits["test"].ids
        assert (task.splits["hidden_test"].labels == -1).all()
    else:
        assert all(i.startswith("train/") for i in task.splits["validation"].ids)
        assert not set(task.splits["validation"].ids) & set(task.splits["train"].ids)


@pytest.mark.parametrize("protocol", ["honest", "paper"])
def test_public_test_labels_are_used(mirror, protocol):
    mirror("glue/mrpc", train=100, validation=30, test=20)
    task = load_task("glue/mrpc", protocol=protocol)
    assert sizes(task) == {"train": 100, "validation": 30, "test": 20}
    assert task.splits["test"].inputs[3] == ("sentence1 of test 3", "sentence2 of test 3")


def test_mnli_has_both_validation_sets(mirror):
    mirror("glue/mnli", train=50, validation_matched=9, validation_mismatched=8, test_matched=7, test_mismatched=6)
    assert sizes(load_task("glue/mnli")) == {"train": 45, "validation": 5, "test": 9, "mismatched": 8}
    assert sizes(load_task("glue/mnli", protocol="paper")) == {
        "train": 50, "validation": 9, "test": 9, "hidden_test": 7, "hidden_test_mismatched": 6, "mismatched": 8}


def test_stsb_is_regression(mirror):
    mirror("glue/stsb", train=50, validation=10, test=5)
    task = load_task("glue/stsb")
    assert task.regression
    assert task.splits["test"].labels.dtype == np.float32
    assert task.splits["test"].labels.max() == np.float32(4.5)


def test_sentiment_in_the_paper_has_its_sizes(mirror, monkeypatch):
    assert [name for name in SETS if "paper" in SETS[name]] == ["tweet_eval/sentiment"]
    assert SETS["tweet_eval/sentiment"]["paper"] == {"train": 15000, "validation": 2000, "test": 3000}
    monkeypatch.setitem(SETS["tweet_eval/sentiment"], "paper", {"train": 15, "validation": 20, "test": 3})
    for name in ("tweet_eval/sentiment", "tweet_eval/emotion"):
        mirror(name, **THREE)
    task, whole = load_task("tweet_eval/sentiment", protocol="paper"), load_task("tweet_eval/sentiment")
    assert sizes(task) == {"train": 15, "validation": 20, "test": 3}
    first = [whole.splits["test"].ids[i] for i in hash_order(whole.splits["test"].ids, "paper")[:3]]
    assert set(task.splits["test"].ids) == set(first)
    assert any("does not say which rows" in note for note in task.notes)
    assert load_task("tweet_eval/emotion", protocol="paper").fingerprint == load_task("tweet_eval/emotion").fingerprint


def test_rows_that_are_left_out_are_counted(mirror):
    rows = {"question1": ["a?", "", "c?", "d?"] * 10, "question2": ["x?", "y?", None, "z?"] * 10, "label": [0, 1, 0, 1] * 10}
    mirror("glue/qqp", train=rows, validation=rows)
    task = load_task("glue/qqp")
    assert len(task.splits["test"]) == 20
    assert task.splits["test"].ids[1] == "validation/3"
    assert "20 validation rows with an empty text are left out" in task.notes
    mirror("snli", **(THREE | {"test": {"premise": ["a", "b", " "], "hypothesis": ["c"] * 3, "label": [0, -1, 1]}}))
    task = load_task("snli")
    assert task.splits["test"].ids == ["test/0"]
    assert "2 test rows without a label or with an empty text are left out" in task.notes


def test_rows_that_are_not_right(mirror, tmp_path):
    mirror("emotion", train=20, validation=8)
    refused("dair-ai/emotion split has no split 'test'; it has train, validation", "emotion")
    mirror("emotion", test={"tweet": ["a"], "label": [0]})
    refused("dair-ai/emotion split has no column 'text'; it has tweet, label", "emotion")
    mirror("emotion", test={"text": ["a"], "label": [6]})
    refused("label 6 in sample 'test/0', outside the 6 classes", "emotion")
    refused("protocol must be 'honest' or 'paper', not 'dev'", "tweet_eval/emotion", protocol="dev")
    refused("'emotion' has no option 'protocol'; it has none", "emotion", protocol="paper")
    rows = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0, 7]}
    mirror("glue/rte", train=rows, validation=rows)
    refused("label 7 in sample 'train/1', outside the 2 classes", "glue/rte", protocol="paper")


def test_a_submission_is_in_the_official_order(mirror, tmp_path):
    mirror("glue/rte", train=20, validation=8, test=3)
    task = load_task("glue/rte", protocol="paper")
    path = glue.write_submission(task, "hidden_test", np.array([[1, 0], [0, 1], [1, 0]]), tmp_path)
    assert (path.name, path.read_text()) == (
        "RTE.tsv", "index\tprediction\n0\tentailment\n1\tnot_entailment\n2\tentailment\n")


REAL = {"glue/cola": (7696, 1043), "glue/rte": (2241, 277), "tweet_eval/emotion": (3257, 1421), "ag_news": (None, 7600),
        "20_newsgroups": (None, None)}


@pytest.mark.parametrize("name", REAL)
def test_real_rows(name):
    if not os.path.isdir(os.path.join(os.environ.get("MTKD_HUB", "/nowhere"), SETS[name]["hub"])):
        pytest.skip("MTKD_HUB names no mirror that holds it")
    task, (train, test) = load_task(name), REAL[name]
    assert len(task.splits["train"]) == train if train else len(task.splits["train"]) > 8_000
    assert len(task.splits["test"]) == test if test else len(task.splits["test"]) > 7_000
    assert set(task.splits["test"].labels.tolist()) == set(range(task.outputs))
    feature = hub.load_hub_dataset(SETS[name]["hub"], SETS[name].get("config"))["train"].features["label"]
    assert task.classes == tuple(getattr(feature, "names", task.classes))


def test_every_set_says_what_it_needs():
    known = {"hub", "config", "texts", "classes", "metrics", "splits", "more", "protocol", "hidden", "unlabelled", "paper",
             "note"}
    for entry in catalogue.SETS.values():
        assert {"hub", "texts", "classes", "metrics"} <= set(entry) <= known
    assert set(glue.FILES) == {name.removeprefix("glue/") for name in GLUE}
