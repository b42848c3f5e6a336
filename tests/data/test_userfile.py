"""A table of one's own as a task: formats, splits by hash, and every error sentence."""

import json

import numpy as np
import pandas as pd
import pytest

from mtkd.data import userfile
from mtkd.data.tasks import load_task
from mtkd.errors import KitError


def sizes(task):
    return {name: len(split) for name, split in task.splits.items()}


ROWS = [(f"text number {i}", "good" if i % 3 else "bad") for i in range(40)]


def csv(path, rows=ROWS, columns=("text", "label"), **options):
    pd.DataFrame(rows, columns=list(columns)).to_csv(path, index=False, **options)
    return str(path)


def test_csv_is_split_by_hash(tmp_path):
    task = load_task(csv(tmp_path / "mine.csv"))
    assert (task.name, task.classes, sizes(task)) == (
        "mine.csv", ("bad", "good"), {"train": 32, "validation": 4, "test": 4})
    found = {sample[0]: task.classes[label] for split in task.splits.values()
             for sample, label in zip(split.inputs, split.labels)}
    assert found == dict(ROWS)
    assert task.metric == "accuracy"
    assert "taken from train by hash" in task.notes[0]
    turned = load_task(csv(tmp_path / "turned.csv", ROWS[::-1]))
    assert set(turned.splits["test"].ids) == set(task.splits["test"].ids)


@pytest.mark.parametrize("kind", ["tsv", "jsonl", "parquet"])
def test_other_formats_say_the_same(tmp_path, kind):
    path, frame = tmp_path / f"mine.{kind}", pd.DataFrame(ROWS, columns=["text", "label"])
    if kind == "tsv":
        frame.to_csv(path, sep="\t", index=False)
    elif kind == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    assert load_task(str(path)).fingerprint == load_task(csv(tmp_path / "mine.csv")).fingerprint


def test_folder_with_a_file_per_split(tmp_path):
    csv(tmp_path / "train.csv", ROWS[:20])
    csv(tmp_path / "dev.csv", ROWS[18:30])
    pd.DataFrame(ROWS[30:], columns=["text", "label"]).to_parquet(tmp_path / "test.parquet")
    csv(tmp_path / "unlabelled.csv", [(f"pool {i}",) for i in range(5)], ("text",))
    task = load_task(str(tmp_path))
    assert sizes(task) == {"train": 20, "validation": 12, "test": 10, "unlabelled": 5}
    assert (task.splits["unlabelled"].labels == -1).all()
    assert task.notes == ("2 texts of validation are also in train",)


def test_pairs_ids_and_regression(tmp_path):
    rows = [(i, f"q {i}", f"a {i}", i / 7) for i in range(40)]
    path = csv(tmp_path / "mine.csv", rows, ("key", "question", "answer", "score"))
    task = load_task(path, text="question", text_pair="answer", label="score", id="key", regression=True)
    assert (task.kind, task.classes, task.metrics) == ("pair", (), ("pearson", "spearman"))
    split = task.splits["train"]
    assert split.inputs[0] == (f"q {split.ids[0]}", f"a {split.ids[0]}")
    np.testing.assert_allclose(split.labels[0], int(split.ids[0]) / 7, rtol=1e-6)


def test_number_labels_sort_as_numbers_and_may_be_positions(tmp_path):
    path = csv(tmp_path / "mine.csv", [(f"text {i}", i % 11) for i in range(60)])
    assert load_task(path).classes == tuple(str(i) for i in range(11))
    names = tuple("abcdefghijk")
    named = load_task(path, classes=names)
    assert named.classes == names
    assert named.splits["train"].labels.tolist() == load_task(path).splits["train"].labels.tolist()


def test_one_number_written_in_two_ways_is_one_class(tmp_path):
    task = load_task(csv(tmp_path / "mine.csv", [(f"text {i}", ("1", "1.0", "0", "0.0")[i % 4]) for i in range(60)]))
    assert task.classes == ("0", "1")


def test_a_fingerprint_of_what_a_file_or_folder_holds(tmp_path):
    path, labels = csv(tmp_path / "mine.csv"), {"good": "bad", "bad": "good"}
    before = userfile.fingerprint(path)
    csv(tmp_path / "other.csv")
    assert userfile.fingerprint(tmp_path / "other.csv") == before
    csv(tmp_path / "mine.csv", [(text, labels[label]) for text, label in ROWS])  # every label turned round
    assert userfile.fingerprint(path) != before
    folder = tmp_path / "folder"
    folder.mkdir()
    csv(folder / "train.csv")
    alone = userfile.fingerprint(folder)
    csv(folder / "dev.csv")
    assert userfile.fingerprint(folder) != alone
    with pytest.raises(KitError, match="has no train file"):
        userfile.fingerprint(tmp_path)


def test_repeated_texts_stay_in_one_split_with_ids_of_their_own(tmp_path):
    task = load_task(csv(tmp_path / "mine.csv", ROWS + ROWS))
    ids = [i for split in task.splits.values() for i in split.ids]
    assert len(set(ids)) == 80
    texts = [set(split.inputs) for split in task.splits.values()]
    assert sum(map(len, texts)) == 40


@pytest.mark.parametrize(("rows", "columns", "options", "said"), [
    (ROWS, ("review", "stars"), {}, "no column 'text' or 'label'; its columns are 'review', 'stars': .*text=... and label=..."),
    (ROWS, ("text", "stars"), {}, "no column 'label'; its columns are 'text', 'stars': say which to use with label=...$"),
    (ROWS, ("text", "label"), {"id": "key"}, "no column 'key'"),
    ([*ROWS[:2], ("  ", "bad"), *ROWS], ("text", "label"), {}, "empty text in column 'text', row 3 "),
    ([*ROWS, ("x", "")], ("text", "label"), {}, "no label in column 'label', row 41 "),
    ([*ROWS, ("x", "ugly")], ("text", "label"), {"classes": ["bad", "good"]},
     r"the label 'ugly' in column 'label', row 41 .*, outside the 2 classes \(bad, good\)"),
    ([(text, "good") for text, _ in ROWS], ("text", "label"), {}, "every training sample .* has the class 'good'"),
    (ROWS, ("text", "label"), {"regression": True}, "'bad', which is not a number, in column 'label', row 1 "),
    (ROWS, ("text", "label"), {"classes": "bad,good"}, "classes must be a list of two or more different names"),
    (ROWS, ("text", "label"), {"metric": "bleu"}, "metric must be one of accuracy, macro_f1, mcc, f1"),
    (ROWS, ("text", "label"), {"txt": "text"}, "has no option 'txt', did you mean 'text'"),
    ([], ("text", "label"), {}, "has no rows"),
    (ROWS[:4], ("text", "label"), {}, "4 different texts are too few to take validation and test from"),
    ([(f"t {i}", "a" if i % 2 else "b", i // 2) for i in range(40)], ("text", "label", "key"), {"id": "key"},
     "the id '0' in row 1 .* and again in row 2"),
])
def test_bad_tables(tmp_path, rows, columns, options, said):
    with pytest.raises(KitError, match=said) as caught:
        load_task(csv(tmp_path / "mine.csv", rows, columns), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "content", "said"), [
    ("a.csv", b"", "cannot be read as CSV"),
    ("a.csv", b"text;label\na;x\n", "its columns are separated by ';': separate them by commas"),
    ("a.csv", b"text,label\n\xff\xfe\x00,x\n", "cannot be read as CSV"),
    ("a.csv", b'text,label\n"never closed,x\n', "cannot be read as CSV"),
    ("a.csv", b"text,label\na,x,y\nb,y\n", "line 2 has 3 values and the header 2; a value that holds a comma must"),
    ("a.tsv", "text\tlabel\nd\u00e9j\u00e0\tx\n".encode("latin-1"), "is not UTF-8 .*: save it with that encoding"),
    ("a.jsonl", b'{"text": "x", "label": ["a", "b"]}\n', "has the labels .* row 1 .*: a text with several labels"),
    ("a.parquet", b"PAR1 not really", "cannot be read as PARQUET"),
    ("a.jsonl", b'{"text": "x", "label": 1}\n{"text": \n', "cannot be read as JSONL: line 2"),
    ("a.jsonl", b"[1, 2]\n", "line 1 is not an object"),
    ("a.jsonl", b'{"text": "x", "label": 1}\n{"text": 5, "label": 1}\n', "has 5, which is not text, .* row 2 "),
    ("a.jsonl", b'{"text": "x", "label": 1}\n{"text": "y"}\n', "no label in column 'label', row 2 "),
    ("a.txt", b"text", "is not a .parquet, .arrow, .feather, .csv, .tsv or .jsonl file"),
])
def test_unreadable_files(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(KitError, match=said) as caught:
        load_task(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_folders_that_are_not_data(tmp_path):
    with pytest.raises(KitError, match="has no train file"):
        load_task(str(tmp_path))
    csv(tmp_path / "train.csv")
    (tmp_path / "train.jsonl").write_text(json.dumps({"text": "x", "label": "y"}))
    with pytest.raises(KitError, match="two files for the split 'train'"):
        load_task(str(tmp_path))


def test_numbers_that_went_through_a_spreadsheet_are_one_class(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text,label\n" + "".join(f"text {i},{label}\n" for i, label in enumerate(["1", "1.0", "0", "0.0"] * 20)))
    assert load_task(str(path)).classes == ("0", "1")


def test_scores_are_no_classes(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text,label\n" + "".join(f"text {i},{i / 20:.2f}\n" for i in range(100)))
    with pytest.raises(KitError, match=r"100 different numbers in 100 rows of the column 'label': .* regression: true"):
        load_task(str(path))
    assert load_task(str(path), regression=True).regression


def test_a_list_of_labels_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {i}", "label": ["bad", "x"]}) + "\n" for i in range(20)))
    with pytest.raises(KitError, match="several labels cannot be learned from"):
        load_task(str(path))


def test_contradicting_labels_leaks_and_rare_classes_are_noted(tmp_path):
    rows = [f"text {i},{'ab'[i % 2]}" for i in range(20)] + ["text 0,b", "once,c"]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *rows]))
    (tmp_path / "test.csv").write_text("text,label\ntext 0,a\ntext 1,b\nnew,a\n")
    notes = load_task(str(tmp_path)).notes
    assert "2 texts of test are also in train" in notes
    assert "1 text has different labels in different rows" in notes
    assert any(note.startswith("classes with fewer than two training texts: ") and "c (1)" in note for note in notes)
