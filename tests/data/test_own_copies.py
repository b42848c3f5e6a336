"""MIND from a download or the hub, and NBME's notes from a folder: made-up rows in their forms, and what is refused."""

import csv

import numpy as np
import pandas as pd
import pytest

from mtkd.data import mind, nbme
from mtkd.data.tasks import load_task
from mtkd.errors import KitError


def sizes(task):
    return {name: len(split) for name, split in task.splits.items()}


def refused(said, name, **options):
    with pytest.raises(KitError, match=said) as caught:
        load_task(name, **options)
    assert "\n" not in str(caught.value)


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    monkeypatch.setenv("MTKD_HUB", str(tmp_path / "mirror"))

    def add(hub_id, config, split, **columns):
        path = tmp_path / "mirror" / hub_id / config / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(columns).to_parquet(path)

    return add


# ---- MIND ----

TOPICS = ("finance", "foodanddrink", "lifestyle", "news", "sports", "travel", "video")


def news_rows(first, last):
    return [(f"N{i}", TOPICS[i % 7], "sub", f'Title "{i}', f"Abstract {i}" if i % 2 else "", "url", "[]", "[]")
            for i in range(first, last)]


def write_news(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "news.tsv").write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def everything(task):
    return {i: (*sample, task.classes[label]) for split in task.splits.values()
            for i, sample, label in zip(split.ids, split.inputs, split.labels)}


def test_mind_with_a_training_part(tmp_path, monkeypatch):
    write_news(tmp_path / "MINDlarge_train", news_rows(0, 80))
    write_news(tmp_path / "MINDlarge_dev", news_rows(60, 110))
    write_news(tmp_path / "MINDlarge_test", news_rows(50, 124))
    task = load_task("mind/topic", folder=str(tmp_path))
    assert task.classes == TOPICS
    assert sizes(task) == {"train": 80, "validation": 4, "test": 40}  # 1 to 10, of the 44 that train has not
    assert set(task.splits["train"].ids) == {f"N{i}" for i in range(80)}
    assert everything(task)["N101"] == ('Title "101', TOPICS[101 % 7])
    assert len(everything(task)) == 124
    assert "80 train, 4 validation, 40 test" in task.notes[1]
    monkeypatch.setenv("MTKD_MIND", str(tmp_path))
    both = load_task("mind/topic", text="title+abstract")
    assert [everything(both)[f"N{i}"][0] for i in (100, 101)] == ['Title "100', 'Title "101 Abstract 101']
    assert both.splits["test"].ids == task.splits["test"].ids


def test_mind_in_one_file_is_split_in_the_papers_proportions(tmp_path):
    write_news(tmp_path, [*news_rows(0, 1306), ("N9999", "news", "s", " ", "a", "", "", ""), news_rows(3, 4)[0]])
    task = load_task("mind/topic", folder=str(tmp_path))
    assert sizes(task) == {"train": 1020, "validation": 26, "test": 260}
    assert "1 news without a text or a topic are left out" in task.notes


def test_mind_balanced(tmp_path):
    rows = [(i, "video" if n % 2 else topic, *rest) for n, (i, topic, *rest) in enumerate(news_rows(0, 3000))]
    write_news(tmp_path, rows)
    task = load_task("mind/balanced", folder=str(tmp_path))
    assert task.classes == ("video", "finance", "foodanddrink", "travel", "lifestyle")
    total = sum(sizes(task).values())
    assert total == sum(row[1] in task.classes for row in rows)
    assert sizes(task)["validation"] == round(total * 10000 / 39428)
    assert sizes(task)["test"] == round(total * 5000 / 39428)
    assert all(everything(task)[row[0]][1] == row[1] for row in rows if row[1] in task.classes)
    assert "too few different news" in task.notes[-1]
    assert load_task("mind/balanced", folder=str(tmp_path)).fingerprint == task.fingerprint


def test_mind_balanced_takes_as_many_of_each_and_the_papers_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(mind, "BALANCED_SIZES", {"train": 100, "validation": 40, "test": 20})
    rows = [(i, "video" if n % 2 else topic, *rest) for n, (i, topic, *rest) in enumerate(news_rows(0, 3000))]
    write_news(tmp_path, rows)
    task = load_task("mind/balanced", folder=str(tmp_path))
    assert sizes(task) == {"train": 100, "validation": 40, "test": 20}
    labels = np.concatenate([split.labels for split in task.splits.values()])
    assert np.bincount(labels).tolist() == [32] * 5


def test_mind_from_the_hub(mirror, monkeypatch):
    monkeypatch.delenv("MTKD_MIND", raising=False)
    mirror("linxinyuan/mind", "data", "train", text=[f"t {i}" for i in range(60)], label=[TOPICS[i % 7] for i in range(60)])
    mirror("linxinyuan/mind", "data", "test", text=[f"t {i}" for i in range(55, 82)],
           label=[TOPICS[i % 7] for i in range(55, 82)])
    task = load_task("mind/topic")
    assert sizes(task) == {"train": 60, "validation": 2, "test": 20}
    assert sorted(everything(task).values()) == sorted((f"t {i}", TOPICS[i % 7]) for i in range(82))
    mirror("linxinyuan/mind", "data", "test", headline=["x"], label=["news"])
    refused(r"no column for the topic .* or the text .*; its columns are headline, label", "mind/topic")


def test_bad_mind(tmp_path):
    refused("there is no folder 'gone'", "mind/topic", folder="gone")
    refused("holds no news.tsv, neither itself nor in a subfolder", "mind/topic", folder=str(tmp_path))
    refused("text must be 'title' or 'title.abstract', not 'body'", "mind/topic", folder=str(tmp_path), text="body")
    write_news(tmp_path, [("N1", "news", "s")])
    refused("has 3 columns; MIND's news.tsv has news id", "mind/topic", folder=str(tmp_path))
    write_news(tmp_path, [row for row in news_rows(0, 70) if row[1] != "travel"])
    refused("no news on travel here; its topics are finance, foodanddrink, lifestyle, news", "mind/balanced",
            folder=str(tmp_path))


# ---- NBME ----

NOTE = 'HPI: 17yo M\r\nwith "palpitations", 3-4 months. Note {}.'


def write_nbme(folder, notes=30, rows=None):
    folder.mkdir(exist_ok=True)
    if rows is None:
        where = NOTE.index("palp")
        locations = ["['5 9']", f"['{where} {where + 12};13 17', '7 11']", "[]"]
        rows = [(f"{n:05}_{f:03}", "0", str(n), str(f), "[]", locations[f]) for n in range(notes) for f in range(3)]
    tables = {"patient_notes.csv": (("pn_num", "case_num", "pn_history"), [(n, 0, NOTE.format(n)) for n in range(notes)]),
              "features.csv": (("feature_num", "case_num", "feature_text"),
                               [(0, 0, "17-year"), (1, 0, "Heart-pounding-OR-palpitations"), (2, 0, "Female")]),
              "train.csv": (("id", "case_num", "pn_num", "feature_num", "annotation", "location"), rows)}
    for name, (columns, lines) in tables.items():
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *lines])


def test_nbme(tmp_path, monkeypatch):
    write_nbme(tmp_path)
    monkeypatch.setenv("MTKD_NBME", str(tmp_path))
    task = load_task("nbme")
    assert (task.kind, task.classes, task.metric) == ("span", ("outside", "inside"), "char_f1")
    assert sizes(task) == {"train": 72, "validation": 9, "test": 9}
    of = {name: {i.split("_")[0] for i in split.ids} for name, split in task.splits.items()}
    assert [len(notes) for notes in of.values()] == [24, 3, 3]
    assert not of["train"] & of["test"]
    assert not of["validation"] & (of["train"] | of["test"])
    split = task.splits["train"]
    at = split.ids.index(next(i for i in split.ids if i.endswith("_001")))
    feature, note = split.inputs[at]
    assert feature == "Heart pounding; or palpitations"
    assert note == NOTE.format(int(split.ids[at][:5]))  # with \r\n, which the locations count
    assert [note[a:b] for a, b in split.spans[at]] == ["yo M", "with", "palpitations"]
    assert [(bool(s), label) for s, label in zip(split.spans, split.labels)].count((False, 0)) == 24
    assert "split by hash of their number, 24 train, 3 validation, 3 test" in task.notes[0]


@pytest.mark.parametrize("location", ["", "696 724", "['696']", "['724 696']", "['a b']", "['5 9;']", "[696, 724]", "['5 5']"])
def test_unreadable_locations(tmp_path, location):
    with pytest.raises(ValueError, match="is not"):
        nbme.read_location(location)
    write_nbme(tmp_path, rows=[("00007_001", "0", "7", "1", "[]", location)])
    refused("the location .* of row '00007_001' of train.csv cannot be read: ", "nbme", folder=str(tmp_path))


def test_bad_nbme(tmp_path, monkeypatch):
    monkeypatch.delenv("MTKD_NBME", raising=False)
    refused("behind an account .* name the folder with the option folder or the environment variable MTKD_NBME", "nbme")
    refused("there is no folder 'gone' .*patient_notes.csv, features.csv, train.csv", "nbme", folder="gone")
    refused("has no patient_notes.csv; it must hold", "nbme", folder=str(tmp_path))
    write_nbme(tmp_path, rows=[("00007_001", "0", "7", "1", "[]", "['5 999']")])
    refused("row '00007_001' of train.csv ends after its note, which has 53 characters", "nbme", folder=str(tmp_path))
    write_nbme(tmp_path, rows=[("00007_001", "0", "77", "1", "[]", "[]")])
    refused("row '00007_001' of train.csv has the pn_num '77', which is not in patient_notes.csv", "nbme", folder=str(tmp_path))
    write_nbme(tmp_path, rows=[("00007_001", "0", "7", "9", "[]", "[]")])
    refused("the feature_num '9', which is not in features.csv", "nbme", folder=str(tmp_path))
    write_nbme(tmp_path, rows=[("00007_001", "0", "7", "1", "[]", "[]")])
    refused("train.csv has 1 annotated notes, too few", "nbme", folder=str(tmp_path))
    (tmp_path / "features.csv").write_text("feature_num,text\n1,x\n")
    refused("features.csv' has no column 'feature_text'; it has feature_num, text", "nbme", folder=str(tmp_path))
    (tmp_path / "features.csv").write_bytes(b"feature_num,feature_text\n1,\xff\xfe\n")
    refused("features.csv' cannot be read as CSV", "nbme", folder=str(tmp_path))
