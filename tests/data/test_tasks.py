"""Tasks: limits, fingerprints, tasks of the reader's own, spans, and every error sentence."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtkd.data import tasks
from mtkd.data.tasks import Split, Task, check_task, content_hash, hash_order, load_task, task, task_names, unique_ids
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
def test_fingerprint_sees_every_part_of_a_split(change):
    assert text_task(test=replace(text_split(), **change)).fingerprint != text_task().fingerprint


@pytest.mark.parametrize(("change", "same"), [
    ({"classes": ("yes", "no")}, False), ({"metric": "mcc"}, False), ({"metrics": ("accuracy", "mcc")}, False),
    ({"kind": "pair"}, False), ({"name": "other"}, True), ({"notes": ("said",)}, True), ({}, True),
])
def test_fingerprint_sees_what_a_model_is_chosen_by(change, same):
    assert (replace(text_task(), **change).fingerprint == text_task().fingerprint) == same


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


def test_built_in_names():
    assert len([name for name in task_names() if name.startswith("glue/")]) == 9
    assert {"pydocs/topic", "pydocs/span", "emotion", "mind/balanced", "nbme", "snli", "wiki_qa", "digits"} <= set(task_names())


# ---- a task of the reader's own ----

@pytest.fixture
def registry(monkeypatch):
    task_names()  # the built-in ones are there
    monkeypatch.setattr(tasks, "_TASKS", dict(tasks._TASKS))


def test_a_function_that_returns_a_task(registry):
    @task("weather")
    def weather(days: int = 4):
        return replace(text_task(), name=f"{days} days", splits=text_task().splits | {"train": text_split(days)})

    assert len(load_task("weather", days=9, limit=6).splits["train"]) == 6
    assert weather(3).name == "3 days"
    with pytest.raises(KitError, match="'weather' has no option 'day', did you mean 'days'"):
        load_task("weather", day=3)
    with pytest.raises(KitError, match="no task 'wether', did you mean 'weather'"):
        load_task("wether")

    @task("weather")  # a cell that is run again
    def again():
        return text_task()

    assert load_task("weather").name == "t"


def test_a_function_that_returns_splits(registry):
    splits = text_task().splits

    @task
    def plain():
        return splits

    @task("named", classes=("no", "yes"), metric="mcc")
    def named():
        return splits

    @task("scores")
    def scores():
        return {name: text_split(labels=np.arange(4, dtype=np.float32)) for name in splits}

    @task("spans")
    def spans():
        return span_task().splits

    assert (load_task("plain").classes, load_task("plain").metrics) == (("0", "1"), ("accuracy", "macro_f1", "mcc", "f1"))
    assert (load_task("named").classes, load_task("named").metric) == (("no", "yes"), "mcc")
    assert (load_task("scores").regression, load_task("scores").metrics) == (True, ("pearson", "spearman"))
    assert (load_task("spans").kind, load_task("spans").metric) == ("span", "char_f1")


@pytest.mark.parametrize(("made", "metric", "said"), [
    ([1, 2], "", "must return a Task, or Splits by name, 'train' among them"),
    ({"test": text_split()}, "", "must return a Task, or Splits by name, 'train' among them"),
    ({"train": text_split()}, "bleu", "metric must be one of accuracy, macro_f1, mcc, f1 for mine, not 'bleu'"),
    ({"train": text_split()}, "", "task 'mine' has no 'validation' split"),
])
def test_functions_that_return_something_else(registry, made, metric, said):
    task("mine", metric=metric)(lambda: made)
    with pytest.raises(KitError, match=said):
        load_task("mine")


def test_the_name_of_a_built_in_task_is_taken(registry):
    with pytest.raises(KitError, match="'digits' is a built-in task: give your own another name"):
        task("digits")(text_task)


# ---- what is no task ----

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


# ---- spans ----

def span_split(spans=(((0, 3),), (), ((4, 9), (9, 10)), ((0, 10),)), labels=None):
    labels = [int(bool(s)) for s in spans] if labels is None else labels
    return Split([f"s/{i}" for i in range(len(spans))], [("feature", "one passag")] * len(spans),
                 np.array(labels, dtype=np.int64), list(spans))


def span_task(**splits):
    splits = {name: span_split() for name in ("train", "validation", "test")} | splits
    return Task("t", "span", ("outside", "inside"), splits, "char_f1", ("char_f1",))


def test_spans_go_along():
    taken = span_split().take([2, 1])
    assert (taken.ids, taken.spans) == (["s/2", "s/1"], [((4, 9), (9, 10)), ()])
    with pytest.raises(ValueError, match="4 ids and 1 entries of spans"):
        replace(span_split(), spans=[()])


def test_fingerprint_sees_spans():
    other = span_split((((0, 4),), (), ((4, 9), (9, 10)), ((0, 10),)))
    assert span_task().fingerprint == span_task().fingerprint
    assert span_task(test=other).fingerprint != span_task().fingerprint


@pytest.mark.parametrize(("spans", "labels"), [
    (((0, 11),), None), (((-1, 2),), None), (((3, 3),), None), (((5, 4),), None), (((4, 6), (0, 2)), None),
    (((0, 4), (3, 5)), None),
])
def test_unsound_spans(spans, labels):
    with pytest.raises(KitError, match=r"'test' split of task 't' has the spans .* in sample 's/1': each must be"):
        check_task(span_task(test=span_split(((), spans), labels)))


@pytest.mark.parametrize(("splits", "said"), [
    ({"test": replace(span_split(), spans=None)}, "'test' split of task 't' has no spans"),
    ({"test": span_split(labels=[1, 1, 1, 1])}, "has label 1 for 0 spans in sample 's/1'"),
    ({"test": span_split(labels=[1, 0, 1, 0])}, "has label 0 for 1 spans in sample 's/3'"),
    ({"test": span_split(labels=[1, -1, 1, 1])}, "has label -1 for 0 spans in sample 's/1'"),
    ({"train": span_split([(), ()])}, "no training sample of task 't' has a span"),
    ({"test": replace(span_split(), inputs=[("a passage alone",)] * 4)}, "1 texts instead of a feature and a passage"),
    ({"test": replace(span_split(), inputs=[("f", " ")] * 4)}, "empty or non-text value in sample 's/0'"),
])
def test_unsound_span_tasks(splits, said):
    with pytest.raises(KitError, match=said):
        check_task(span_task(**splits))


def test_sound_span_tasks_pass():
    check_task(span_task(train=span_split([((0, 1),), ((2, 3),)])))  # every training sample has one: fine here
    check_task(span_task(unlabelled=span_split([(), ()], [-1, -1])))
