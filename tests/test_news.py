"""AG News and 20 Newsgroups, from small mirrors made here."""

import os

import numpy as np
import pandas as pd
import pytest

from mtkd.data import hub, news
from mtkd.data.tasks import load_task
from mtkd.errors import KitError


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Writes a mirror of both; `change` maps a split's frame to another."""
    monkeypatch.setenv("MTKD_HUB", str(tmp_path))

    def write(change=lambda split, frame: frame):
        for hub_id, classes in news.SPECS.values():
            folder = tmp_path / hub_id / "data"
            folder.mkdir(parents=True, exist_ok=True)
            (folder.parent / "README.md").write_text(
                "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n"
                "  - split: test\n    path: data/test-*\n---\n")
            for split, n in (("train", 100), ("test", 40)):
                labels = np.arange(n) % len(classes)
                frame = pd.DataFrame({"text": [f"{split} {i} on topic {y}" for i, y in enumerate(labels)], "label": labels})
                if (made := change(split, frame)) is not None:
                    made.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return write


@pytest.mark.parametrize(("name", "classes"), [("ag_news", 4), ("20_newsgroups", 20)])
def test_splits_classes_and_ids(mirror, name, classes):
    mirror()
    task = load_task(name)
    assert {part: len(split) for part, split in task.splits.items()} == {"train": 90, "validation": 10, "test": 40}
    assert (task.kind, task.outputs, task.metric, task.metrics) == ("text", classes, "accuracy", ("accuracy", "macro_f1"))
    train, validation = task.splits["train"], task.splits["validation"]
    assert sorted([*train.ids, *validation.ids]) == sorted(f"train/{i}" for i in range(100))
    for split in task.splits.values():
        assert all(text.endswith(f"topic {y}") for (text,), y in zip(split.inputs, split.labels))
    assert load_task(name).fingerprint == task.fingerprint
    assert any("10 of 100 training rows, chosen by hash" in note for note in task.notes)
    assert any("a local mirror" in note for note in task.notes)


def test_rows_without_a_text_are_left_out_and_counted(mirror):
    mirror(lambda split, frame: frame.assign(text=frame["text"].where(frame.index > 2, "  ")) if split == "test" else frame)
    task = load_task("20_newsgroups")
    assert len(task.splits["test"]) == 37
    assert "3 test rows with an empty text are left out" in task.notes


@pytest.mark.parametrize(("change", "said"), [
    (lambda split, frame: None if split == "test" else frame, "has no split 'test'"),
    (lambda split, frame: frame.rename(columns={"label": "topic"}), "has no column 'label'; it has text, topic"),
    (lambda split, frame: frame.assign(label=frame["label"] + 1), "outside the 4 classes"),
])
def test_what_is_wrong_is_said_in_one_sentence(mirror, change, said):
    mirror(change)
    with pytest.raises(KitError, match=said) as caught:
        load_task("ag_news")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "least"), [("ag_news", 9_000), ("20_newsgroups", 9_000)])
def test_the_real_rows(name, least):
    if not os.path.isdir(os.path.join(os.environ.get("MTKD_HUB", ""), news.SPECS[name][0])) or "MTKD_HUB" not in os.environ:
        pytest.skip("MTKD_HUB names no mirror that holds it")
    task = load_task(name)
    assert len(task.splits["train"]) + len(task.splits["validation"]) > least
    assert len(task.splits["test"]) > 7_000
    assert len(np.unique(task.splits["test"].labels)) == task.outputs
    feature = hub.load_hub_dataset(news.SPECS[name][0])["test"].features["label"]
    assert task.classes == tuple(getattr(feature, "names", task.classes))
