"""TweetEval, EMOTION, MIND, NBME and the span kind: from small mirrors and folders made here; and PyDocs' span task."""

import csv
import doctest
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mtkd.data import docstrings, mind, nbme, pydocs, pydocs_span, tweets
from mtkd.data.tasks import Split, Task, check_task, hash_order, load_task
from mtkd.errors import KitError


def sizes(task):
    return {name: len(split) for name, split in task.splits.items()}


def refused(said, name, **options):
    with pytest.raises(KitError, match=said) as caught:
        load_task(name, **options)
    assert "\n" not in str(caught.value)


# ---- spans in a split and in a task ----

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


def test_fingerprint_sees_spans_but_only_where_there_are_some():
    other = span_split((((0, 4),), (), ((4, 9), (9, 10)), ((0, 10),)))
    assert span_task().fingerprint == span_task().fingerprint
    assert span_task(test=other).fingerprint != span_task().fingerprint
    # the last one is from before there were spans: what is stored under it must be found again
    bare = Split(["a", "b"], [("x",), ("y",)], np.array([0, 1]))
    task = Task("t", "text", ("no", "yes"), {"train": bare}, "accuracy", ("accuracy",))
    assert task.fingerprint == "3ffbc196d9dfa20c47f2d2e80246748ea6ab2affad94c01fa42d0a9120541574"


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


# ---- TweetEval and EMOTION ----

@pytest.fixture
def mirror(monkeypatch, tmp_path):
    monkeypatch.setenv("MTKD_HUB", str(tmp_path / "mirror"))

    def add(hub_id, config, split, **columns):
        path = tmp_path / "mirror" / hub_id / config / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(columns).to_parquet(path)

    return add


def add_tweets(mirror, hub_id, config, classes, **counts):
    for split, n in counts.items():
        mirror(hub_id, config, split, text=[f"{split} tweet {i}" for i in range(n)], label=[i % classes for i in range(n)])


@pytest.mark.parametrize("name", list(tweets.SPECS))
def test_tweets_have_the_official_splits(mirror, name):
    hub_id, config, classes = tweets.SPECS[name]
    add_tweets(mirror, hub_id, config, len(classes), train=20, validation=8, test=9)
    task = load_task(name)
    assert (task.name, task.kind, task.classes, sizes(task)) == (name, "text", classes, {
        "train": 20, "validation": 8, "test": 9})
    assert (task.metric, task.metrics) == ("accuracy", ("accuracy", "macro_f1"))
    assert (task.splits["test"].ids[5], task.splits["test"].inputs[5]) == ("test/5", ("test tweet 5",))
    assert task.splits["test"].labels[5] == 5 % len(classes)
    assert task.notes == ("a local mirror supplied this data set",)


def test_sentiment_in_the_paper_has_its_sizes(mirror, monkeypatch):
    assert tweets.PAPER_SIZES == {"tweet_eval/sentiment": {"train": 15000, "validation": 2000, "test": 3000}}
    monkeypatch.setitem(tweets.PAPER_SIZES, "tweet_eval/sentiment", {"train": 15, "validation": 20, "test": 3})
    add_tweets(mirror, "cardiffnlp/tweet_eval", "sentiment", 3, train=40, validation=20, test=30)
    task, whole = load_task("tweet_eval/sentiment", protocol="paper"), load_task("tweet_eval/sentiment")
    assert sizes(task) == {"train": 15, "validation": 20, "test": 3}
    assert task.splits["validation"].ids == whole.splits["validation"].ids
    first = [whole.splits["test"].ids[i] for i in hash_order(whole.splits["test"].ids, "paper")[:3]]
    assert set(task.splits["test"].ids) == set(first)
    assert "does not say which rows" in task.notes[-1]


def test_emotion_in_the_paper_is_the_official_one(mirror):
    add_tweets(mirror, "cardiffnlp/tweet_eval", "emotion", 4, train=20, validation=8, test=9)
    assert load_task("tweet_eval/emotion", protocol="paper").fingerprint == load_task("tweet_eval/emotion").fingerprint


def test_bad_tweets(mirror):
    add_tweets(mirror, "dair-ai/emotion", "split", 6, train=20, validation=8)
    refused("dair-ai/emotion split has no split 'test'; it has train, validation", "emotion")
    mirror("dair-ai/emotion", "split", "test", tweet=["a"], label=[0])
    refused("dair-ai/emotion split has no column 'text'; it has tweet, label", "emotion")
    mirror("dair-ai/emotion", "split", "test", text=["a", None, "  ", "d"], label=[0, 1, 2, 3])
    task = load_task("emotion")
    assert task.splits["test"].ids == ["test/0", "test/3"]
    assert "2 test rows with an empty text are left out" in task.notes
    mirror("dair-ai/emotion", "split", "test", text=["a"], label=[6])
    refused("label 6 in sample 'test/0', outside the 6 classes", "emotion")
    refused("protocol must be 'honest' or 'paper', not 'dev'", "tweet_eval/emotion", protocol="dev")
    refused("'emotion' has no option 'protocol'; it has none", "emotion", protocol="paper")


@pytest.mark.skipif(not os.environ.get("MTKD_HUB"), reason="MTKD_HUB is not set: needs a mirror with real TweetEval")
def test_real_tweets():
    task = load_task("tweet_eval/emotion")
    assert sizes(task) == {"train": 3257, "validation": 374, "test": 1421}
    assert np.bincount(task.splits["train"].labels).tolist() == [1400, 708, 294, 855]


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


@pytest.mark.parametrize(("location", "spans"), [
    ("['696 724']", ((696, 724),)),
    ("['203 217;321 340']", ((203, 217), (321, 340))),
    ("['321 340', '203 217']", ((203, 217), (321, 340))),
    ("['3 9', '5 7', '9 12', '13 14']", ((3, 12), (13, 14))),
    ("[]", ()),
])
def test_locations(location, spans):
    assert nbme.read_location(location) == spans


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


# ---- PyDocs' span task ----

NUMPYDOC = """Sum it up.

Parameters
----------
a : array_like
    Elements to *sum* up, of ``any`` kind. A second sentence.

    A second paragraph.
axis : int, optional
    Axis along which
    to sum
b, c : float
    Two at once are left out.
copy:bool
    No.
func : callable, default: None
    A function of NumPy to call:

Returns
-------
total : float
    The sum of it all.
"""


def test_parameters():
    assert docstrings.parameters(NUMPYDOC) == [
        ("a", "array_like", "Elements to sum up, of any kind"), ("axis", "int, optional", "Axis along which to sum"),
        ("func", "callable, default: None", "A function of library to call")]
    assert docstrings.parameters("No such section.\n\nReturns\n-------\na : int\n    Three words here.") == []
    assert docstrings.parameters("Parameters\n----------\na : int\n    Three words here.") == [("a", "int", "Three words here")]


def test_parameters_from_a_child_are_the_same():
    rows = [[name, [list(entry) for entry in found]] for name, found in docstrings.extract_parameters("numpy")]
    assert [list(row) for row in pydocs._extract("numpy", "parameters")] == rows
    assert len(rows) > 200


@pytest.mark.parametrize(("kind", "feature"), [
    ("bool, default False", "a switch, true or false"), ("{True, False}, optional", "a switch, true or false"),
    ("int", "a number"), ("non-negative float", "a number"), ("positive int or None", "a number"), ("interval", None),
    ("array_like of ints", "an array or a list"), ("{array-like, sparse matrix} of shape (n,)", "an array or a list"),
    ("float array_like", "an array or a list"), ("`numpy.ndarray`", "an array or a list"), ("(int, int)", "an array or a list"),
    ("1-D array", "an array or a list"), ("list of str", "an array or a list"), ("tuple", "an array or a list"),
    ("str, optional", "text or a named choice"), ("{'a', 'b'}", "text or a named choice"), ("stream", None),
    ("callable", "a function to call"), ("`~typing.Callable`", "a function to call"), ("DataFrame", None), ("dict", None),
])
def test_kinds(kind, feature):
    assert pydocs_span.kind_of(kind) == feature


def test_passages_by_hand():
    entries = [("copy", "bool", "If true, copy"), ("n", "int", "Number of them (all of"), ("x", "Axes", "Where to draw"),
               ("m", "float", "Size of it " + "very " * 20), ("left", "bool", "Word " * 30),
               ("right", "bool", "Right side too")]
    (first, spans), (second, other) = pydocs_span._passages(entries)
    assert first == "copy: If true, copy. n: Number of them. x: Where to draw. m: Size of it " + " ".join(["very"] * 11) + "."
    assert [first[a:b] for a, b in spans["a number"]] == ["Number of them", "Size of it " + " ".join(["very"] * 11)]
    assert [first[a:b] for a, b in spans["a switch, true or false"]] == ["If true, copy"]
    assert set(spans) == {"a number", "a switch, true or false"}
    assert [second[a:b] for a, b in other["a switch, true or false"]] == [" ".join(["Word"] * 14), "Right side too"]
    samples = pydocs_span._samples(first, spans)
    assert [sample.feature for sample in samples[:2]] == ["a switch, true or false", "a number"]


@pytest.fixture(scope="module")
def spans():
    return load_task("pydocs/span", unlabelled=200)


def test_span_task(spans):
    assert sizes(spans) == {"train": 6000, "validation": 800, "test": 800, "unlabelled": 200}
    assert (spans.kind, spans.metric, spans.outputs) == ("span", "char_f1", 2)
    passages = []
    for name, split in spans.splits.items():
        passages.append({passage for _, passage in split.inputs})
        assert {feature for feature, _ in split.inputs} == set(pydocs_span.FEATURES)
        assert max(len(re.sub(r"(\w+): ", r"\1 ", passage).split()) for _, passage in split.inputs) <= pydocs_span.WORDS
        if name == "unlabelled":
            assert set(split.labels.tolist()) == {-1}
            assert not any(split.spans)
        else:
            assert 0.05 < 1 - split.labels.mean() < 0.15
            share = np.mean([sum(b - a for a, b in found) / len(sample[1])
                             for sample, found in zip(split.inputs, split.spans)])
            assert 2 * share / (1 + share) < 0.6  # the score of marking everything
    assert sum(map(len, passages)) == len(set().union(*passages))  # none in two splits


def test_a_passage_is_asked_about_several_features_with_other_answers(spans):
    answers = {}
    for (_, passage), found in zip(spans.splits["train"].inputs, spans.splits["train"].spans):
        answers.setdefault(passage, []).append(found)
    assert all(len(set(found)) == len(found) for found in answers.values())
    assert np.mean([len(found) > 1 for found in answers.values()]) > 0.6


def test_span_answers_show_in_words(spans):
    """What a reader would say: switches are described by "whether" and "if true", functions by "function"."""
    found, other = [], []
    for (feature, passage), answer in zip(spans.splits["test"].inputs, spans.splits["test"].spans):
        (found if feature.startswith("a switch") else other).extend(passage[a:b].lower() for a, b in answer)
    share = [np.mean([bool(re.search(r"whether|if true|if false", text)) for text in texts]) for texts in (found, other)]
    assert share[0] > 0.5
    assert share[1] < 0.05


def test_another_size_of_train_moves_nothing_else(spans):
    small = load_task("pydocs/span", train=300)
    for name in ("validation", "test"):
        assert small.splits[name].ids == spans.splits[name].ids
    assert set(small.splits["train"].ids) <= set(spans.splits["train"].ids)
    assert load_task("pydocs/span", train=300).fingerprint == small.fingerprint


def test_span_task_is_the_same_in_another_process():
    code = "from mtkd.data.tasks import load_task; print(load_task('pydocs/span', train=300).fingerprint)"
    env = {**os.environ, "PYTHONHASHSEED": "12345"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True).stdout
    assert out.strip() == load_task("pydocs/span", train=300).fingerprint


def test_span_sizes_that_cannot_be():
    refused("the size of validation must be a whole number of at least 1, not 0", "pydocs/span", validation=0)
    refused("too few for 9,000,800 of validation and test", "pydocs/span", test=9_000_000)
    assert "smaller than asked for" in load_task("pydocs/span", train=10**6).notes[0]


@pytest.mark.parametrize("module", [nbme, pydocs_span])
def test_examples_in_docstrings(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0
