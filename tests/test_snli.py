"""SNLI from hand-made rows in the hub's form."""

import datasets
import pytest

from mtkd.data import hub, snli
from mtkd.data.tasks import load_task
from mtkd.errors import KitError


def rows(n: int, without: int = 0) -> datasets.Dataset:
    labels = [i % 3 for i in range(n)] + [-1] * without
    return datasets.Dataset.from_dict({"premise": [f"A man sits on bench {i}." for i in range(n + without)],
                                       "hypothesis": [f"Somebody sits {i}." for i in range(n + without)], "label": labels})


@pytest.fixture
def official(monkeypatch):
    splits = datasets.DatasetDict(train=rows(9, 2), validation=rows(3), test=rows(6, 1))
    monkeypatch.setattr(hub, "load_hub_dataset", lambda *names: splits)
    monkeypatch.setattr(hub, "find", lambda *names: names[0])
    return splits


def test_pairs_with_the_official_three_classes(official):
    task = load_task("snli")
    assert (task.kind, task.classes, task.metric) == ("pair", ("entailment", "neutral", "contradiction"), "accuracy")
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 9, "validation": 3, "test": 6}
    assert task.splits["train"].inputs[4] == ("A man sits on bench 4.", "Somebody sits 4.")
    assert task.splits["train"].ids[4] == "train/4"
    assert any("2 train rows without a label" in note for note in task.notes)


def test_rows_of_another_form_are_refused(official):
    official["test"] = official["test"].rename_column("premise", "sentence1")
    with pytest.raises(KitError, match="no column 'premise'"):
        snli.load()
    del official["test"]
    with pytest.raises(KitError, match="no split 'test'; it has train, validation"):
        snli.load()
