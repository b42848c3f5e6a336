"""PyDocs' span task: which words of a parameter list describe, say, a switch? Offline, and a stand-in for NBME.

A passage is a few parameters of one docstring with the first words about each; their types are left out. The feature
asks for one kind of parameter, and the answer is every description of that kind, known from the types:

    feature  a switch, true or false
    passage  axis: Axis along which the sum is computed. keepdims: If this is set to True, the axes are left in the
             result. where: Elements to include in the sum.
    span     "If this is set to True, the axes are left in the result"

So, as with NBME's rubric and notes, a few features recur, a passage is asked about several of them with other answers,
an answer may have several parts or (in a tenth of the samples) none, and what it looks like must be learned from prose.
Learnable from scratch in under a minute of one core, with room above: marking everything scores 0.54 on test, one layer
of 64 units 0.61, two 0.71, three of 128 units 0.82 (6 epochs, lr 1e-3, one seed).
Names and types come from scikit-learn, scipy, pandas, numpy and matplotlib (mtkd.data.docstrings.parameters).

Splits go by docstring: all passages of one are in the same split. Equal passages are used once, but docstrings quote
each other: about a quarter of the descriptions in test occur in train as well, among other parameters.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from mtkd.data import docstrings
from mtkd.data.pydocs import gather
from mtkd.data.splits import Split, Task, check_size, content_hash, hash_order
from mtkd.data.tasks import task
from mtkd.errors import KitError

# feature -> what a type of this kind starts with; the first that fits counts
FEATURES = {feature: re.compile(pattern) for feature, pattern in {
    "a switch, true or false": r"bool|\{(?:True|False)",
    "an array or a list": r"[`~{(]*(?:[\w.-]+?[ .])?(?:nd)?array|ArrayLike|sequence|list|tuple|iterable|\(\w+,",
    "a number": r"(?:(?:strictly )?(?:positive|non-?negative) )?(?:int|integer|float|scalar|number|real)s?\b",
    "text or a named choice": r"str\b|strings?\b|\{?`*[\"']",
    "a function to call": r"callable|function|`?~?(?:typing\.)?Callable",
}.items()}
PER_LIBRARY = 800  # docstrings
LONGEST, WORDS, PASSAGES = 14, 36, 3  # words of a description, words of a passage, passages of a docstring


class Sample(NamedTuple):
    feature: str
    passage: str
    spans: tuple[tuple[int, int], ...]


@task("pydocs/span")
def span(train: int = 6000, validation: int = 800, test: int = 800, unlabelled: int = 0) -> Task:
    """The descriptions of one kind of parameter in a passage. Metric: F1 over characters; marking all gives about 0.5.

    The docstrings are taken in hash order, first for test, then validation, then train, so another size of train moves
    nothing else. With `unlabelled`, as many of the samples that are left over, without their spans (labels -1).

    Raises KitError for a size that is no whole number of at least 1, or larger than there are samples.
    """
    texts, notes = gather("pydocs-parameters", docstrings.NUMPYDOC, "parameters")
    groups = _groups(texts)
    order = hash_order([content_hash(*(sample.passage for sample in group)) for group in groups])
    rest = iter([groups[i] for i in order])
    splits = {}
    for name, size in {"test": test, "validation": validation, "train": train}.items():
        check_size(f"the size of {name}", size)
        samples: list[Sample] = []
        while len(samples) < size:  # what is too much of the last docstring is dropped, not moved to the next split
            group = next(rest, None)
            if group is None:
                break
            samples += group
        if not samples or (len(samples) < size and name != "train"):
            raise KitError(f"PyDocs has {sum(map(len, groups)):,} samples for the span task here: too few for "
                           f"{test + validation:,} of validation and test, and some to train on")
        if len(samples) < size:
            notes = (*notes, "the training split is smaller than asked for: there are no more texts here")
        splits[name] = _split(samples[:size])
    if unlabelled:
        left = _split([sample for group in rest for sample in group][:unlabelled])
        splits["unlabelled"] = Split(left.ids, left.inputs, np.full(len(left), -1), [()] * len(left))
    splits = {name: splits[name] for name in ("train", "validation", "test", "unlabelled") if name in splits}
    return Task("pydocs/span", "span", ("outside", "inside"), splits, "char_f1", ("char_f1",), notes)


def kind_of(type_text: str) -> str | None:
    """The feature that a parameter of this type answers, if any.

    >>> kind_of("bool, default True"), kind_of("{'left', 'right'}, optional"), kind_of("DataFrame")
    ('a switch, true or false', 'text or a named choice', None)
    """
    return next((feature for feature, start in FEATURES.items() if start.match(type_text)), None)


def _groups(texts: dict) -> list[list[Sample]]:
    """The samples of each docstring, without what an earlier one has too, and balanced over libraries."""
    groups, seen = [], set()
    for rows in texts.values():
        taken = 0
        for _, entries in rows:
            signature = tuple((name, kind) for name, kind, _ in entries)
            passages = [p for p in _passages(entries) if p[0] not in seen]
            if signature in seen or not passages or taken == PER_LIBRARY:
                continue
            seen |= {signature, *(passage for passage, _ in passages)}
            groups.append([sample for passage, spans in passages for sample in _samples(passage, spans)])
            taken += 1
    return groups


def _passages(entries: list) -> list[tuple[str, dict[str, list[tuple[int, int]]]]]:
    """(passage, feature -> its spans) for runs of two or more parameters."""
    runs: list[list] = [[]]
    words = 0
    for name, kind, text in entries:
        text = _short(text)
        words += 1 + len(text.split())
        if words > WORDS:
            runs.append([])
            words = 1 + len(text.split())
        runs[-1].append((name, kind, text))
    passages = []
    for run in [run for run in runs if len(run) > 1][:PASSAGES]:
        passage, spans = "", {}
        for name, kind, text in run:
            passage += f"{' ' if passage else ''}{name}: "
            spans.setdefault(kind_of(kind), []).append((len(passage), len(passage) + len(text)))
            passage += f"{text}."
        spans.pop(None, None)
        if spans:
            passages.append((passage, spans))
    return passages


def _short(text: str) -> str:
    text = " ".join(text.split()[:LONGEST])
    if text.count("(") > text.count(")"):  # the cut fell into a remark
        text = text[:text.rindex("(")].rstrip() or text
    return text


def _samples(passage: str, spans: dict[str, list[tuple[int, int]]]) -> list[Sample]:
    """One sample for each feature that the passage has, and for some passages one that it has not."""
    samples = [Sample(feature, passage, tuple(spans[feature])) for feature in FEATURES if feature in spans]
    absent = [feature for feature in FEATURES if feature not in spans]
    if absent and int(content_hash("absent", passage), 16) % 100 < 20:  # of passages: a tenth of the samples
        samples.append(Sample(absent[int(content_hash("which", passage), 16) % len(absent)], passage, ()))
    return samples


def _split(samples: list[Sample]) -> Split:
    ids = [content_hash(sample.feature, sample.passage) for sample in samples]
    labels = np.array([int(bool(sample.spans)) for sample in samples], dtype=np.int64)
    split = Split(ids, [(sample.feature, sample.passage) for sample in samples], labels, [s.spans for s in samples])
    return split.take(hash_order(ids))
