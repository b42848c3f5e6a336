"""The offline corpus: cleaning, determinism, cache, and tasks that are learnable and do not leak."""

import doctest
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import matthews_corrcoef
from sklearn.naive_bayes import MultinomialNB

from mtkd.data import docstrings, nbme, pydocs, pydocs_span, splits, tasks, wikiqa
from mtkd.data.tasks import load_task
from mtkd.errors import KitError

# ---- cleaning ----

NUMPY_STYLE = """Sum of array elements over an axis.

The result has one dimension less than the input, unless keepdims says otherwise.

Parameters
----------
a : array_like
    Elements to sum up, which is not prose.

Notes
-----
Addition is modular when integer types are used.

- a list is not prose either, not even a long one

>>> np.sum([0.5, 1.5])
2.0

See Also
--------
This sentence stands in a section that is skipped.
"""


def test_prose_sections_only():
    assert docstrings.paragraphs(NUMPY_STYLE) == [
        "Sum of array elements over an axis.",
        "The result has one dimension less than the input, unless keepdims says otherwise.",
        "Addition is modular when integer types are used."]


def test_google_style_and_code_are_cut_off():
    text = "Replaces every value of the input.\nArgs:\n    x: the input of it all\n\n```python\nf(x) is not prose here\n```"
    assert docstrings.paragraphs(text) == ["Replaces every value of the input."]


@pytest.mark.parametrize(("raw", "clean"), [
    ("see :class:`~torch.Tensor` and :func:`f <a.b>`", "see library.Tensor and f"),
    ("a ``b`` `c` *d* **e** [`F`] [1]_", "a b c d e F"),
    ("[docs](https://x.y) or https://z.w now", "docs or now"),
    ("NumPy, np.array, PyTorch's and scikit-learn", "library, library.array, library's and library"),
    ("two * three * four keeps its stars", "two * three * four keeps its stars"),
    ("pandas-like pytorch_model but not numpydoc", "library-like library_model but not numpydoc"),
])
def test_strip_markup(raw, clean):
    assert docstrings.strip_markup(raw) == clean


def test_long_paragraphs_end_with_a_sentence_and_short_ones_go():
    sentence = " ".join(["Word"] + ["word"] * 24) + "."
    assert docstrings.paragraphs(" ".join([sentence] * 3)) == [f"{sentence} {sentence}"]
    assert docstrings.paragraphs("Too short here.") == []
    assert docstrings.paragraphs("word " * 61) == []


# ---- finding and caching, on packages made for the purpose ----

@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Two packages that may not be imported, and a cache of their own."""
    for name in ("alpha", "beta"):
        folder = tmp_path / "site" / name
        (folder / "tests").mkdir(parents=True)
        (tmp_path / "site" / f"{name}-1.0.dist-info").mkdir()
        (tmp_path / "site" / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
        (folder / "__init__.py").write_text("raise RuntimeError('was imported')")
        (folder / "tests" / "t.py").write_text('"""A test module that should not be in it."""')
        (folder / "broken.py").write_text('"""This module has a syntax error."""\ndef (:\n')
        for i in range(30):
            (folder / f"m{i}.py").write_text(
                f'"""First of {name} module number {i} says this."""\nif True:\n    class C:\n        def f(self):\n'
                f'            """Method of {name} number {i} does that.\n\n            Later words of {name} here are '
                f'number {i}."""\n')
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("MTKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(docstrings, "LIBRARIES", {"alpha": ("alpha", "alpha"), "beta": ("beta", "beta")})
    monkeypatch.setattr(pydocs, "_extract", docstrings.extract)
    return tmp_path


def test_extract_parses_without_importing(packages):
    rows = docstrings.extract("alpha")
    assert len(rows) == 60
    assert ("alpha.m3", ["First of alpha module number 3 says this."]) in rows
    assert ("alpha.m3.C.f", ["Method of alpha number 3 does that.", "Later words of alpha here are number 3."]) in rows


def test_order_does_not_come_from_the_file_system(packages, monkeypatch):
    rows, walk = docstrings.extract("alpha"), os.walk

    def backwards(root):
        for folder, folders, files in walk(root):
            folders.reverse()
            yield folder, folders, sorted(files, reverse=True)

    monkeypatch.setattr(docstrings.os, "walk", backwards)
    assert docstrings.extract("alpha") == rows


def test_corpus_is_built_once_and_again_when_damaged_or_outdated(packages, monkeypatch):
    calls = []
    monkeypatch.setattr(pydocs, "_extract", lambda name, what: calls.append(name) or docstrings.extract(name))
    first, notes = pydocs.corpus()
    assert (pydocs.corpus()[0], notes) == (first, ())
    assert sorted(calls) == ["alpha", "beta"]
    file, = (packages / "cache").glob("pydocs-*.jsonl")
    file.write_bytes(file.read_bytes().replace(b"number 3", b"number 4"))
    assert pydocs.corpus()[0] == first
    assert len(calls) == 4
    (packages / "site" / "beta-1.0.dist-info" / "METADATA").write_text("Name: beta\nVersion: 2.0\n")
    pydocs.corpus()
    assert len(calls) == 6


def test_missing_library_is_noted_and_one_alone_is_too_few(packages, monkeypatch):
    libraries = {**docstrings.LIBRARIES, "gamma": ("no_such_package_gamma", "gamma")}
    monkeypatch.setattr(docstrings, "LIBRARIES", libraries)
    task = load_task("pydocs/topic", train=20, validation=5, test=5)
    assert task.classes == ("alpha", "beta")
    assert task.notes == ("PyDocs without gamma: it is not installed here",)
    monkeypatch.setattr(docstrings, "LIBRARIES", {k: v for k, v in libraries.items() if k != "beta"})
    with pytest.raises(KitError, match="at least two libraries, but found only alpha"):
        pydocs.corpus()


def test_sizes_that_cannot_be(packages):
    with pytest.raises(KitError, match="too few for 2,000"):
        load_task("pydocs/topic", validation=1000, test=1000)
    with pytest.raises(KitError, match="whole number of at least 1"):
        load_task("pydocs/topic", train=0)
    with pytest.raises(KitError, match="one of shuffle, rotate, swap, not 'invert'"):
        load_task("pydocs/acceptability", corruption="invert")
    assert "smaller than asked for" in load_task("pydocs/topic", train=10**6, validation=5, test=5).notes[0]


@pytest.mark.parametrize("what", ["prose", "parameters"])
@pytest.mark.parametrize("interpreter", [sys.executable, "no-such-python"])
def test_a_child_process_finds_the_same_and_one_that_fails_is_replaced(monkeypatch, what, interpreter):
    monkeypatch.setattr(sys, "executable", interpreter)
    rows = docstrings.extract("numpy", what)
    assert len(rows) > 200
    assert json.dumps(pydocs._extract("numpy", what)) == json.dumps(rows)


# ---- the tasks, on the real corpus (built once, then kept in the user's cache folder) ----

@pytest.fixture(scope="module")
def topic():
    return load_task("pydocs/topic")


@pytest.fixture(scope="module")
def acceptability():
    return load_task("pydocs/acceptability")


@pytest.fixture(scope="module")
def relevance():
    return load_task("pydocs/relevance")


def baseline(task, ngrams, n=8000):
    """Predictions for validation of a linear model on n-gram counts."""
    train, held = task.splits["train"], task.splits["validation"]
    words = TfidfVectorizer(ngram_range=ngrams, min_df=2, sublinear_tf=True)
    features = words.fit_transform(text for text, in train.inputs[:n])
    model = MultinomialNB().fit(features, train.labels[:n])
    return model.predict(words.transform(text for text, in held.inputs)), held.labels


def test_topic_shape(topic):
    assert topic.classes == tuple(docstrings.LIBRARIES)
    assert {name: len(split) for name, split in topic.splits.items()} == {
        "train": 7500, "validation": 600, "test": 3000, "unlabelled": 20000}
    for name in ("train", "validation", "test"):
        share = np.bincount(topic.splits[name].labels, minlength=8) / len(topic.splits[name])
        assert share.min() > 0.08
        assert share.max() < 0.16
    assert (topic.splits["unlabelled"].labels == -1).all()


def test_topic_texts(topic):
    ids, texts = [], []
    name = re.compile(r"\b(numpy|scipy|sklearn|scikit-learn|pandas|matplotlib|pytorch|torch|python)\b", re.IGNORECASE)
    for split in topic.splits.values():
        ids += split.ids
        texts += [text for text, in split.inputs]
    assert len(set(ids)) == len(ids)
    assert len(set(texts)) == len(texts)
    assert all(4 <= len(text.split()) <= 60 for text in texts)
    assert not [text for text in texts if name.search(text)]


def test_topic_is_learnable_and_not_trivial(topic):
    predicted, labels = baseline(topic, (1, 1))
    assert 0.55 < (predicted == labels).mean() < 0.85


def test_train_size_moves_nothing_else(topic):
    small = load_task("pydocs/topic", train=500, unlabelled=100)
    for name in ("validation", "test"):
        assert small.splits[name].ids == topic.splits[name].ids
    assert small.splits["train"].ids == topic.splits["train"].ids[:500]


def test_same_in_another_process(topic):
    code = "from mtkd.data.tasks import load_task; print(load_task('pydocs/topic').fingerprint)"
    env = {**os.environ, "PYTHONHASHSEED": "12345"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True).stdout
    assert out.strip() == topic.fingerprint


def test_acceptability_needs_word_order(acceptability):
    predicted, labels = baseline(acceptability, (1, 1))
    assert abs(matthews_corrcoef(labels, predicted)) < 0.15
    predicted, labels = baseline(acceptability, (1, 2))
    assert matthews_corrcoef(labels, predicted) > 0.4


def test_acceptability_corrupts_half_and_keeps_the_words(acceptability):
    intact = load_task("pydocs/acceptability", corruption="swap")
    assert acceptability.classes == ("corrupted", "wellformed")
    for name, split in acceptability.splits.items():
        assert 0.45 < split.labels.mean() < 0.55
        other = intact.splits[name]
        assert split.ids == other.ids
        for (a,), (b,), label in zip(split.inputs, other.inputs, split.labels):
            assert sorted(a.split()) == sorted(b.split())
            assert label == 0 or a == b
    ids = [i for split in acceptability.splits.values() for i in split.ids]
    assert len(set(ids)) == len(ids)  # an id is a sentence's, so its two versions are never both there


@pytest.mark.parametrize("kind", pydocs.CORRUPTIONS)
def test_corrupt(kind):
    sentence = "one two three four five six"
    mixed = pydocs.corrupt(sentence, kind)
    moved = [a != b for a, b in zip(sentence.split(), mixed.split())]
    assert mixed == pydocs.corrupt(sentence, kind)
    assert sorted(mixed.split()) == sorted(sentence.split())
    assert sum(moved) in {"shuffle": range(2, 7), "rotate": [3], "swap": [2]}[kind]
    assert pydocs.corrupt("a a a a b", kind) != "a a a a b"


@pytest.mark.parametrize("module", [docstrings, nbme, pydocs, pydocs_span, splits, tasks, wikiqa])
def test_examples_in_docstrings(module):
    outcome = doctest.testmod(module)
    assert outcome.failed == 0


def test_relevance_pairs(relevance):
    assert {name: len(split) for name, split in relevance.splits.items()} == {
        "train": 8000, "validation": 1500, "test": 1500}
    seen = set()
    for split in relevance.splits.values():
        here = set()
        for side in (0, 1):  # neither the question nor the paragraph alone says anything about the label
            labels = {}
            for sample, label in zip(split.inputs, split.labels):
                labels.setdefault(sample[side], []).append(label)
            assert all(sorted(found) == [0, 1] for found in labels.values())
            here |= set(labels)
        assert not here & seen
        seen |= here
