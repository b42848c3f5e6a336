"""SNLI (Bowman et al., 2015), from the hub's `stanfordnlp/snli` or a mirror of it: does one sentence follow from another?

tmkd transfers its students to it (and takes it for one of GLUE's tasks with two classes, which it is not). The official
splits, 550,152 / 10,000 / 10,000 rows; those whose annotators did not agree have no label and are left out. All labels are
public, so scores are selected on validation and reported on test. Sample ids are the split and row, such as "train/123".
"""

from __future__ import annotations

import os

import numpy as np

from mtkd.data import hub
from mtkd.data.tasks import Split, Task
from mtkd.errors import KitError

HUB_ID = "stanfordnlp/snli"
COLUMNS = ("premise", "hypothesis", "label")
CLASSES = ("entailment", "neutral", "contradiction")  # in the hub's label order


def load() -> Task:
    """SNLI as a pair task with its three classes. Metric: accuracy.

    Raises KitError when the data set cannot be had or its rows are not as they should be.
    """
    rows = hub.load_hub_dataset(HUB_ID)
    notes: list[str] = []
    splits = {}
    for name in ("train", "validation", "test"):
        if name not in rows:
            raise KitError(f"{HUB_ID} has no split {name!r}; it has {', '.join(rows)}")
        splits[name] = _split(name, rows[name], notes)
    if os.path.isdir(hub.find(HUB_ID, "dataset")):
        notes.append("a local mirror supplied this data set")
    return Task("snli", "pair", CLASSES, splits, "accuracy", ("accuracy",), tuple(notes))


def _split(name: str, rows, notes: list[str]) -> Split:
    for column in COLUMNS:
        if column not in rows.column_names:
            raise KitError(f"{HUB_ID} has no column {column!r}; it has {', '.join(rows.column_names)}")
    premises, hypotheses, labels = (rows[column][:] for column in COLUMNS)
    ids = [f"{name}/{i}" for i in range(len(labels))]
    split = Split(ids, list(zip(premises, hypotheses)), np.asarray(labels, dtype=np.int64))
    texts = [all(isinstance(text, str) and text.strip() for text in pair) for pair in split.inputs]
    kept = [i for i, good in enumerate(texts) if good and split.labels[i] >= 0]
    if len(kept) < len(split):
        notes.append(f"{len(split) - len(kept):,} {name} rows without a label or with an empty text are left out")
    return split.take(kept)
