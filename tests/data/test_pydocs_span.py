"""PyDocs' span task: parameter lists, kinds, passages, and answers that show in words."""

import re

import numpy as np
import pytest

from mtkd.data import docstrings, pydocs_span
from mtkd.data.tasks import load_task
from mtkd.errors import KitError

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
    assert {name: len(split) for name, split in spans.splits.items()} == {
        "train": 6000, "validation": 800, "test": 800, "unlabelled": 200}
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


def test_span_sizes_that_cannot_be():
    with pytest.raises(KitError, match="the size of validation must be a whole number of at least 1, not 0"):
        load_task("pydocs/span", validation=0)
    with pytest.raises(KitError, match="too few for 9,000,800 of validation and test"):
        load_task("pydocs/span", test=9_000_000)
    assert "smaller than asked for" in load_task("pydocs/span", train=10**6).notes[0]
