"""Tasks: limits, fingerprints, GLUE's protocols, tables of one's own, images and their views, and every error sentence."""

import hashlib
import json
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtkd.data import glue, images
from mtkd.data.tasks import Split, Task, check_task, content_hash, hash_order, load_task, task_names, unique_ids
from mtkd.errors import KitError


def text_split(n=4, labels=None):
    labels = np.arange(n) % 2 if labels is None else np.asarray(labels)
    return Split([f"s/{i}" for i in range(n)], [(f"text {i}",) for i in range(n)], labels)


def text_task(**splits):
    splits = {name: text_split() for name in ("train", "validation", "test")} | splits
    return Task("t", "text", ("no", "yes"), splits, "accuracy", ("accuracy",))


# ---- Split, Task, hashes ----

def test_split_take_and_lengths():
    taken = text_split().take([2, 0])
    assert (taken.ids, taken.inputs, taken.labels.tolist()) == (["s/2", "s/0"], [("text 2",), ("text 0",)], [0, 0])
    with pytest.raises(ValueError, match="1 ids, 2 inputs"):
        Split(["a"], [("x",), ("y",)], np.zeros(1))


def test_outputs():
    assert text_task().outputs == 2
    scores = replace(text_task(), classes=())
    assert scores.regression
    assert scores.outputs == 1


@pytest.mark.parametrize("change", [
    {"ids": ["s/0", "s/1", "s/2", "other"]},
    {"inputs": [("text 0",), ("text 1",), ("text 2",), ("text 3 ",)]},
    {"inputs": [("text 0",), ("text 1",), ("text 2",), ("text", "3")]},
    {"labels": np.array([0, 1, 0, 0])},
])
def test_fingerprint_sees_every_part(change):
    task = text_task()
    assert text_task().fingerprint == task.fingerprint
    assert text_task(test=replace(text_split(), **change)).fingerprint != task.fingerprint


def test_fingerprint_of_images_sees_pixels_and_shape():
    def task(pixels):
        split = Split(["a", "b"], pixels, np.array([0, 1]))
        return Task("t", "image", ("x", "y"), {"train": split}, "accuracy", ("accuracy",)).fingerprint

    pixels = np.zeros((2, 2, 4, 1), dtype=np.uint8)
    other = pixels.copy()
    other[1, 1, 3, 0] = 1
    assert len({task(pixels), task(other), task(pixels.reshape(2, 4, 2, 1))}) == 3


def test_hashes_are_the_same_everywhere():
    assert content_hash("a", "b") == "facdde7abf1eac5b"  # printf '1:a1:b' | sha256sum
    assert content_hash("ab", "") != content_hash("a", "b")
    by_hand = sorted("abcde", key=lambda key: hashlib.sha256(f"salt:{key}".encode()).hexdigest())
    assert ["abcde"[i] for i in hash_order("abcde", "salt")] == by_hand
    assert hash_order("abcde", "pepper").tolist() != hash_order("abcde", "salt").tolist()


@given(st.lists(st.sampled_from(["a", "b", "a#2", "c"]), max_size=8))
@settings(max_examples=50, deadline=None)
def test_unique_ids_are_unique_and_stable(keys):
    ids = unique_ids(keys)
    assert len(set(ids)) == len(keys)
    assert unique_ids([*keys, "z"])[:-1] == ids


# ---- load_task ----

def test_limits_are_nested_deterministic_and_per_split():
    whole = load_task("digits")
    large, small = load_task("digits", limit=200), load_task("digits", limit={"train": 100, "test": 50})
    assert large.splits["train"].ids[:100] == small.splits["train"].ids
    assert len(large.splits["test"]) == len(whole.splits["test"])
    assert len(small.splits["test"]) == 50
    assert load_task("digits", limit=200).fingerprint == large.fingerprint
    other = load_task("digits", limit=200, seed=1)
    assert 0 < len(set(other.splits["train"].ids) & set(large.splits["train"].ids)) < 200
    assert load_task("digits", limit=10**6).splits["train"].inputs.shape == whole.splits["train"].inputs.shape


@pytest.mark.parametrize(("name", "options", "said"), [
    ("pydocs/topics", {}, "no task 'pydocs/topics', did you mean 'pydocs/topic'"),
    ("nothing-like-it", {}, r"no task 'nothing-like-it' \(known: 20_newsgroups, ag_news, cifar10, digits, emotion, glue/cola"),
    ("digits", {"crop": 4}, "'digits' has no option 'crop'; it has none"),
    ("glue/cola", {"protocl": "paper"}, "no option 'protocl', did you mean 'protocol'"),
    ("glue/cola", {"protocol": "dev"}, "protocol must be 'honest' or 'paper', not 'dev'"),
    ("digits", {"limit": 0}, "'train' must be a whole number of at least 1, not 0"),
    ("digits", {"limit": True}, "whole number"),
    ("digits", {"limit": {"tran": 1}}, "names the split 'tran', but task 'digits' has train, validation, test"),
    ("digits", {"limit": 1}, "every training sample of task 'digits' has the class"),
    ("./gone.csv", {}, "no file or folder './gone.csv'"),
])
def test_bad_requests(name, options, said):
    with pytest.raises(KitError, match=said) as caught:
        load_task(name, **options)
    assert "\n" not in str(caught.value)


def test_task_names():
    assert len([name for name in task_names() if name.startswith("glue/")]) == 9
    assert set(glue.SPECS) == {name.removeprefix("glue/") for name in task_names() if name.startswith("glue/")}


@pytest.mark.parametrize(("splits", "said"), [
    ({"test": text_split(0)}, "the 'test' split of task 't' is empty"),
    ({"test": replace(text_split(), ids=["a", "b", "a", "c"])}, "has the id 'a' more than once"),
    ({"test": replace(text_split(), inputs=[("x",), (" ",), ("y",), ("z",)])}, "empty or non-text value in sample 's/1'"),
    ({"test": replace(text_split(), inputs=[("x",), ("w",), (None,), ("z",)])}, "empty or non-text value in sample 's/2'"),
    ({"test": text_split(labels=[0, 1, 2, 1])}, r"label 2 in sample 's/2', outside the 2 classes \(no, yes\)"),
    ({"test": text_split(labels=[0, 1, -2, 1])}, "label -2"),
    ({"train": text_split(labels=[1, 1, 1, -1])}, "has the class 'yes'; two classes are needed"),
    ({"train": text_split(labels=[-1] * 4)}, "has no label"),
])
def test_unsound_tasks(splits, said):
    with pytest.raises(KitError, match=said):
        check_task(text_task(**splits))


def test_sound_tasks_pass():
    check_task(text_task(unlabelled=text_split(labels=[-1] * 4)))
    check_task(text_task(unlabelled=text_split(0)))
    numbers = {name: text_split(labels=np.array([0.5, 1, 2, -3], dtype=np.float32)) for name in text_task().splits}
    task = replace(text_task(**numbers), classes=())
    check_task(task)
    numbers["test"].labels[2] = np.nan
    with pytest.raises(KitError, match="not a finite number, in sample 's/2'"):
        check_task(task)


# ---- GLUE, from a mirror made here ----

@pytest.fixture
def mirror(monkeypatch, tmp_path):
    monkeypatch.setenv("MTKD_HUB", str(tmp_path))

    def add(task, **sizes):
        columns, classes, _ = glue.SPECS[task]
        for split, n in sizes.items():
            hidden = split.startswith("test") and task not in ("mrpc", "sst2")
            frame = pd.DataFrame({column: [f"{column} of {split} {i}" for i in range(n)] for column in columns})
            frame["label"] = ([-1] * n if hidden else [i % len(classes) for i in range(n)]) if classes else (
                [-1.0] * n if hidden else [i / n * 5 for i in range(n)])
            frame["idx"] = np.arange(n, dtype=np.int32)
            write(tmp_path, task, split, frame)

    return add


def write(root, task, split, frame):
    path = root / "nyu-mll" / "glue" / task / f"{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path)


def sizes(task):
    return {name: len(split) for name, split in task.splits.items()}


def test_hidden_test_labels_honest(mirror):
    mirror("cola", train=100, validation=30, test=20)
    task = load_task("glue/cola")
    assert sizes(task) == {"train": 90, "validation": 10, "test": 30}
    assert all(i.startswith("train/") for i in task.splits["validation"].ids)
    assert not set(task.splits["validation"].ids) & set(task.splits["train"].ids)
    assert task.splits["test"].ids[7] == "validation/7"
    assert task.splits["test"].inputs[7] == ("sentence of validation 7",)
    assert (task.metric, task.kind, task.classes) == ("mcc", "text", ("unacceptable", "acceptable"))
    assert "test labels are hidden" in task.notes[0]
    assert "local mirror" in task.notes[1]


def test_hidden_test_labels_paper(mirror):
    mirror("cola", train=100, validation=30, test=20)
    task = load_task("glue/cola", protocol="paper")
    assert sizes(task) == {"train": 100, "validation": 30, "test": 30, "hidden_test": 20}
    assert task.splits["validation"].ids == task.splits["test"].ids
    assert "chosen on what is reported" in task.notes[0]
    assert (task.splits["hidden_test"].labels == -1).all()


@pytest.mark.parametrize("protocol", ["honest", "paper"])
def test_public_test_labels_are_used(mirror, protocol):
    mirror("mrpc", train=100, validation=30, test=20)
    task = load_task("glue/mrpc", protocol=protocol)
    assert sizes(task) == {"train": 100, "validation": 30, "test": 20}
    assert task.kind == "pair"
    assert task.metrics == ("accuracy", "f1")
    assert task.splits["test"].inputs[3] == ("sentence1 of test 3", "sentence2 of test 3")


def test_mnli_has_both_validation_sets(mirror):
    mirror("mnli", train=50, validation_matched=9, validation_mismatched=8, test_matched=7, test_mismatched=6)
    assert sizes(load_task("glue/mnli")) == {"train": 45, "validation": 5, "test": 9, "mismatched": 8}
    assert sizes(load_task("glue/mnli", protocol="paper")) == {
        "train": 50, "validation": 9, "test": 9, "hidden_test": 7, "hidden_test_mismatched": 6, "mismatched": 8}


def test_stsb_is_regression(mirror):
    mirror("stsb", train=50, validation=10, test=5)
    task = load_task("glue/stsb")
    assert task.regression
    assert task.metrics == ("pearson", "spearman")
    assert task.splits["test"].labels.dtype == np.float32
    assert task.splits["test"].labels.max() == np.float32(4.5)


def test_bad_rows_of_a_mirror(mirror, tmp_path):
    frame = pd.DataFrame({"question1": ["a?", "", "c?", "d?"] * 10, "question2": ["x?", "y?", None, "z?"] * 10,
                          "label": [0, 1, 0, 1] * 10})
    for split in ("train", "validation"):
        write(tmp_path, "qqp", split, frame)
    task = load_task("glue/qqp")
    assert len(task.splits["test"]) == 20
    assert task.splits["test"].ids[1] == "validation/3"
    assert "20 validation rows with an empty text are left out" in task.notes
    for split in ("train", "validation"):
        write(tmp_path, "sst2", split, frame.rename(columns={"question1": "phrase"}))
    with pytest.raises(KitError, match="sst2 has no column 'sentence'; it has phrase, question2, label"):
        load_task("glue/sst2")
    for split in ("train", "validation"):
        write(tmp_path, "rte", split, pd.DataFrame({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0, 7]}))
    with pytest.raises(KitError, match=r"label 7 in sample 'train/1', outside the 2 classes"):
        load_task("glue/rte", protocol="paper")


@pytest.mark.skipif(not os.environ.get("MTKD_HUB"), reason="MTKD_HUB is not set: needs a mirror with real GLUE")
@pytest.mark.parametrize(("name", "train", "test"), [("cola", 7696, 1043), ("rte", 2241, 277)])
def test_real_glue(name, train, test):
    task = load_task(f"glue/{name}")
    assert (len(task.splits["train"]), len(task.splits["test"])) == (train, test)


# ---- a table of one's own ----

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


def test_a_stray_quotation_mark_in_a_tsv_costs_no_row(tmp_path):
    path = tmp_path / "own.tsv"
    lines = [('"' if i in (3, 30) else "") + f"text number {i}\t{'yes' if i % 2 else 'no'}" for i in range(40)]
    path.write_text("text\tlabel\n" + "\n".join(lines) + "\n")
    task = load_task(str(path))
    assert sum(map(len, task.splits.values())) == 40
    assert '"text number 3' in {text for split in task.splits.values() for (text,) in split.inputs}


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


def test_words_that_look_like_missing_values_are_text(tmp_path):
    path = csv(tmp_path / "mine.csv", [*ROWS, ("null", "bad"), ("NA", "good")])
    texts = {text for split in load_task(path).splits.values() for text, in split.inputs}
    assert {"null", "NA"} <= texts


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
    ("a.csv", b"text,label\n\xff\xfe\x00,x\n", "cannot be read as CSV"),
    ("a.csv", b'text,label\n"never closed,x\n', "cannot be read as CSV"),
    ("a.parquet", b"PAR1 not really", "cannot be read as PARQUET"),
    ("a.jsonl", b'{"text": "x", "label": 1}\n{"text": \n', "cannot be read as JSONL: line 2"),
    ("a.jsonl", b"[1, 2]\n", "line 1 is not an object"),
    ("a.jsonl", b'{"text": "x", "label": 1}\n{"text": 5, "label": 1}\n', "has 5, which is not text, .* row 2 "),
    ("a.jsonl", b'{"text": "x", "label": 1}\n{"text": "y"}\n', "no label in column 'label', row 2 "),
    ("a.txt", b"text", "is not a .csv, .tsv, .jsonl or .parquet file"),
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


# ---- images ----

def test_digits():
    task = load_task("digits")
    assert (task.kind, task.outputs, sizes(task)) == ("image", 10, {"train": 1078, "validation": 360, "test": 359})
    pixels = task.splits["train"].inputs
    assert (pixels.dtype, pixels.shape[1:], pixels.min(), pixels.max()) == (np.uint8, (8, 8, 1), 0, 255)
    mean, std = images.STATISTICS["digits"]
    np.testing.assert_allclose([pixels.mean() / 255, pixels.std() / 255], [mean[0], std[0]], atol=1e-4)


@pytest.fixture(scope="module")
def batch():
    pixels = np.random.default_rng(0).integers(1, 256, (32, 6, 5, 3), dtype=np.uint8)
    return pixels, [f"train/{i}" for i in range(32)]


def test_a_view_belongs_to_the_sample_and_not_to_its_place(batch):
    pixels, ids = batch
    whole = images.views(pixels, ids, 3, crop=2, flip=True)
    order = np.random.default_rng(1).permutation(32)
    again = images.views(pixels[order], [ids[i] for i in order], 3, crop=2, flip=True)
    assert (again == whole[order]).all()
    assert (images.views(pixels, ids, 4, crop=2, flip=True) != whole).any()
    first = int.from_bytes(hashlib.sha256(b"3:train/0").digest()[:8], "little") % 5
    assert images.view_draws(ids, 3, 2, True)[0][0] == first  # no generator, so the same on every machine


def test_view_against_padding_and_slicing_by_hand(batch):
    pixels, ids = batch
    dy, dx, flipped = images.view_draws(ids, 7, 2, True)
    made = images.views(pixels, ids, 7, crop=2, flip=True)
    for i in range(32):
        by_hand = np.pad(pixels[i], ((2, 2), (2, 2), (0, 0)))[dy[i]:dy[i] + 6, dx[i]:dx[i] + 5]
        assert (made[i] == (by_hand[:, ::-1] if flipped[i] else by_hand)).all()
    assert set(dy) == set(dx) == set(range(5))
    assert 0 < flipped.sum() < 32


def test_plain_view_and_switches(batch):
    pixels, ids = batch
    assert (images.views(pixels, ids, -1, crop=2, flip=True) == pixels).all()
    assert (images.views(pixels, ids, 0, crop=0, flip=False) == pixels).all()
    assert not images.view_draws(ids, 0, 2, False)[2].any()
    assert (images.apply_draws(pixels, *images.view_draws(ids, -1, 2, True), crop=2) == pixels).all()
    flips = images.views(pixels, ids, 0, crop=0, flip=True)
    assert all((a == b).all() or (a == b[:, ::-1]).all() for a, b in zip(flips, pixels))
    with pytest.raises(ValueError, match="32 images and 31 ids"):
        images.views(pixels, ids[1:], 0, 2, True)


def test_draws_are_uniform():
    dy, dx, flipped = images.view_draws([str(i) for i in range(9000)], 0, 4, True)
    for draws in (dy, dx):
        counts = np.bincount(draws, minlength=9)
        assert ((counts - 1000) ** 2 / 1000).sum() < 30  # chi-squared with 8 degrees of freedom: one in 5,000
    assert abs(flipped.mean() - 0.5) < 0.03
    assert abs(np.corrcoef(dy, dx)[0, 1]) < 0.05


def test_normalise(batch):
    pixels, _ = batch
    out = images.normalise(pixels, *images.STATISTICS["cifar10"])
    assert (out.shape, out.dtype) == ((32, 3, 6, 5), torch.float32)
    assert out.is_contiguous()
    by_hand = (pixels[4, 2, 1, 2] / 255 - images.CIFAR10_MEAN[2]) / images.CIFAR10_STD[2]
    np.testing.assert_allclose(out[4, 2, 2, 1], by_hand, rtol=1e-4)


@pytest.fixture
def small_cifar(monkeypatch, tmp_path):
    """CIFAR-10's layout with 60 and 10 random images, in a mirror and with a cache of its own."""
    import datasets

    monkeypatch.setenv("MTKD_HUB", str(tmp_path / "mirror"))
    monkeypatch.setenv("MTKD_CACHE", str(tmp_path / "cache"))
    draw = np.random.default_rng(0)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})
    folder = tmp_path / "mirror" / "uoft-cs" / "cifar10" / "plain_text"
    folder.mkdir(parents=True)
    pixels = {}
    for split, n in (("train", 60), ("test", 10)):
        pixels[split] = draw.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        rows = {"img": list(pixels[split]), "label": [i % 10 for i in range(n)]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return tmp_path, pixels


def test_cifar10_from_a_mirror(small_cifar, monkeypatch):
    folder, pixels = small_cifar
    task = load_task("cifar10", validation=12)
    assert sizes(task) == {"train": 48, "validation": 12, "test": 10}
    assert (task.splits["test"].inputs == pixels["test"]).all()
    assert any("local mirror" in note for note in task.notes)
    monkeypatch.setattr(images, "decode", lambda encoded: pytest.fail("decoded again, not read from the cache"))
    assert load_task("cifar10", validation=12).fingerprint == task.fingerprint
    monkeypatch.undo()
    for cached in (folder / "cache").iterdir():
        cached.write_bytes(cached.read_bytes()[:500])
    monkeypatch.setenv("MTKD_HUB", str(folder / "mirror"))
    monkeypatch.setenv("MTKD_CACHE", str(folder / "cache"))
    assert load_task("cifar10", validation=12).fingerprint == task.fingerprint


def test_images_that_are_not():
    with pytest.raises(KitError, match="cannot be decoded"):
        images.decode([b"no image"])


@pytest.mark.skipif(not os.environ.get("MTKD_HUB"), reason="MTKD_HUB is not set: needs a mirror with CIFAR-10")
def test_real_cifar10_statistics():
    pixels = load_task("cifar10").splits["train"].inputs[:5000] / 255
    mean, std = images.STATISTICS["cifar10"]
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), mean, atol=0.01)
    np.testing.assert_allclose(pixels.std((0, 1, 2)), std, atol=0.01)
