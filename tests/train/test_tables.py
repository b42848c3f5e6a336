"""Tables as teachers: logits, probabilities, bare answers; what is found by name, what is guessed and said, what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch

from mtkd.data.splits import content_hash
from mtkd.errors import KitError
from mtkd.store.artifacts import Store
from mtkd.train import poolscores, tables
from mtkd.train.prepare import prepare
from mtkd.train.tables import LEAST, SURE, read_table
from mtkd.train.teachers import logits_of, teacher_from_table

CLASSES = ("bad", "good")


def table(folder, columns, rows, name="said.csv"):
    pd.DataFrame(rows, columns=columns).to_csv(folder / name, index=False)
    return folder / name


def read(folder, columns, rows, classes=CLASSES):
    return read_table(table(folder, columns, rows), classes)[2]


def test_probabilities_and_percentages_become_their_logarithms_and_are_said(tmp_path):
    rows = [("a", 0.98, 0.02), ("b", 0.0, 1.0), ("c", 0.333, 0.667)]
    with pytest.warns(UserWarning, match=r"said.csv holds probabilities \(its rows sum to 1\): their logarithms"):
        found = read(tmp_path, ["id", "bad", "good"], rows)
    np.testing.assert_allclose(np.exp(found), [[0.98, 0.02], [LEAST, 1.0], [0.333, 0.667]], rtol=1e-5)
    with pytest.warns(UserWarning, match="percentages"):
        hundreds = read(tmp_path, ["id", "bad", "good"], [(i, 100 * p, 100 * q) for i, p, q in rows])
    np.testing.assert_allclose(hundreds, found, rtol=1e-4)


def test_logits_are_taken_as_they_are(tmp_path, recwarn):
    assert read(tmp_path, ["id", "bad", "good"], [("a", -2, 3), ("b", 0.5, 0.5)]).tolist() == [[-2, 3], [0.5, 0.5]]
    assert not recwarn


def test_scores_of_single_classes_are_warned_of(tmp_path):
    with pytest.warns(UserWarning, match="rows do not sum to 1"):
        assert read(tmp_path, ["id", "bad", "good"], [("a", 0.9, 0.8)]).tolist() == [[np.float32(0.9), np.float32(0.8)]]


@pytest.mark.parametrize(("columns", "rows"), [
    (["id", "bad", "good"], [("a", 0, 1), ("b", 1, 0)]),
    (["id", "label"], [("a", "good"), ("b", "bad")]),
    (["id", "note", "label"], [("a", "x", "Good "), ("b", "y", "BAD")]),
    (["id", "label"], [("a", 1), ("b", 0.0)]),
])
def test_bare_answers_are_sure_but_not_certain(tmp_path, columns, rows):
    with pytest.warns(UserWarning, match="answers without probabilities: each is taken as 0.9 sure"):
        found = read(tmp_path, columns, rows)
    np.testing.assert_allclose(np.exp(found), [[1 - SURE, SURE], [SURE, 1 - SURE]], rtol=1e-5)


def test_columns_are_found_in_any_order_and_case(tmp_path):
    assert read(tmp_path, ["Good", "id", "BAD"], [(3, "a", -2)]).tolist() == [[-2, 3]]


@pytest.mark.parametrize(("columns", "rows", "said"), [
    (["id", "bad", "good"], [("a", 0, 1), ("b", 0, 1), ("a", 9, 1)],
     "'a' more than once with different answers, again in row 3"),
    (["id", "label"], [("a", "good"), ("b", "fine")], "the answer 'fine' in row 2 .*, outside the classes bad, good"),
    (["id", "yes", "no"], [("a", 0, 1)], "bare answers stand in a column label"),
    (["key", "label"], [("a", "good")], r"no column 'id' \(or 'text'\); it has key, label"),
])
def test_what_would_be_a_guess_is_refused(tmp_path, columns, rows, said):
    with pytest.raises(KitError, match=said):
        read(tmp_path, columns, rows)


def test_the_same_row_twice_is_one(tmp_path):
    assert len(read(tmp_path, ["id", "bad", "good"], [("a", 0, 3), ("a", 0, 3)])) == 2


def test_answers_are_found_by_text_and_said_again_from_the_store(text_task, tmp_path):
    prepared = prepare(text_task, "scratch-1x32", max_length=32, vocab=60, store=Store(tmp_path / "store"))
    rows = [(row[0], text_task.classes[y]) for part in ("train", "validation", "test")
            for row, y in zip(text_task.splits[part].inputs, text_task.splits[part].labels)]
    teacher = teacher_from_table(table(tmp_path, ["text", "label"], list(dict.fromkeys(rows))))
    for _ in range(2):
        with pytest.warns(UserWarning, match="answers without probabilities"):
            said = logits_of(prepared, teacher, "validation")
    assert torch.equal(said.argmax(-1), torch.from_numpy(text_task.splits["validation"].labels))
    by_text, ids, _ = read_table(tmp_path / "said.csv", text_task.classes)
    assert by_text
    assert ids[0] == content_hash(text_task.splits["train"].inputs[0][0])


def test_other_formats_say_the_same(tmp_path):
    frame = pd.DataFrame([("a", -1.0, 2.0)], columns=["id", "bad", "good"])
    frame.to_parquet(tmp_path / "x.parquet")
    frame.to_json(tmp_path / "x.jsonl", orient="records", lines=True)
    frame.to_csv(tmp_path / "x.tsv", sep="\t", index=False)
    for name in ("x.parquet", "x.jsonl", "x.tsv"):
        assert read_table(tmp_path / name, CLASSES)[2].tolist() == [[-1, 2]]
    assert tables.header(tmp_path / "x.tsv") == ["id", "bad", "good"]
    assert poolscores.layout is tables.layout  # a pool's tables are read by the same rules
