"""Emotions and sentiment in tweets: two TweetEval tasks (Barbieri et al., 2020) and EMOTION (Saravia et al., 2018).

name                   hub id, configuration             train / validation / test     classes
tweet_eval/emotion     cardiffnlp/tweet_eval, emotion    3,257 / 374 / 1,421           4
tweet_eval/sentiment   cardiffnlp/tweet_eval, sentiment  45,615 / 2,000 / 12,284       3
emotion                dair-ai/emotion, split            16,000 / 2,000 / 2,000        6

All labels are public, so every score is selected on validation and reported on test. Sample ids are the official split
and row, such as "train/123".
"""

from __future__ import annotations

import os

import numpy as np

from mtkd.data import hub
from mtkd.data.tasks import Split, Task, hash_order
from mtkd.errors import KitError

# name -> hub id, configuration, classes in the hub's label order
SPECS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "tweet_eval/emotion": ("cardiffnlp/tweet_eval", "emotion", ("anger", "joy", "optimism", "sadness")),
    "tweet_eval/sentiment": ("cardiffnlp/tweet_eval", "sentiment", ("negative", "neutral", "positive")),
    "emotion": ("dair-ai/emotion", "split", ("sadness", "joy", "love", "anger", "fear", "surprise")),
}
# Table 4.1 of domain_expertise; its other sizes are the official ones
PAPER_SIZES = {"tweet_eval/sentiment": {"train": 15000, "validation": 2000, "test": 3000}}


def tweet_eval(name: str, protocol: str = "honest") -> Task:
    """TweetEval's emotion or sentiment. Metrics: accuracy and macro F1.

    protocol  "honest": the official splits; "paper": as large as in domain_expertise (Table 4.1), which for sentiment
              is 15,000 / 2,000 / 3,000. Which rows those were the thesis does not say: here the first by hash of id.

    Raises KitError when the protocol is unknown, the data set cannot be had, or its rows are not as they should be.
    """
    if protocol not in ("honest", "paper"):
        raise KitError(f"protocol must be 'honest' or 'paper', not {protocol!r}")
    task = _load(f"tweet_eval/{name}")
    if protocol == "honest" or task.name not in PAPER_SIZES:
        return task
    sizes = PAPER_SIZES[task.name]
    splits = {split: task.splits[split].take(np.sort(hash_order(task.splits[split].ids, salt="paper")[:size]))
              for split, size in sizes.items()}
    note = (f"the sizes of the paper, {' / '.join(f'{size:,}' for size in sizes.values())}, are the first rows of each "
            "official split by hash of id, since the paper does not say which rows it took")
    return Task(task.name, task.kind, task.classes, splits, task.metric, task.metrics, (*task.notes, note))


def emotion() -> Task:
    """EMOTION: which of six emotions an English tweet has (lower-cased, without marks). Metrics: accuracy and macro F1.

    The official splits. Raises KitError when the data set cannot be had or its rows are not as they should be.
    """
    return _load("emotion")


def _load(name: str) -> Task:
    hub_id, config, classes = SPECS[name]
    splits, notes = read_splits(hub_id, config, ("train", "validation", "test"))
    return Task(name, "text", classes, splits, "accuracy", ("accuracy", "macro_f1"), tuple(notes))


def read_splits(hub_id: str, config: str | None, names: tuple[str, ...]) -> tuple[dict[str, Split], list[str]]:
    """The named splits of a set with the columns `text` and `label`, and notes on them. KitError where one is missing."""
    rows, where = hub.load_hub_dataset(hub_id, config), " ".join(filter(None, (hub_id, config)))
    notes: list[str] = []
    splits = {}
    for split in names:
        if split not in rows:
            raise KitError(f"{where} has no split {split!r}; it has {', '.join(rows)}")
        for column in ("text", "label"):
            if column not in rows[split].column_names:
                raise KitError(f"{where} has no column {column!r}; it has {', '.join(rows[split].column_names)}")
        splits[split] = _split(split, rows[split], notes)
    if os.path.isdir(hub.find(hub_id, "dataset")):
        notes.append("a local mirror supplied this data set")
    return splits, notes


def _split(name: str, rows, notes: list[str]) -> Split:
    texts = rows["text"][:]
    split = Split([f"{name}/{i}" for i in range(len(texts))], [(text,) for text in texts],
                  np.asarray(rows["label"][:], dtype=np.int64))
    sound = [i for i, text in enumerate(texts) if isinstance(text, str) and text.strip()]
    if len(sound) < len(texts):
        notes.append(f"{len(texts) - len(sound):,} {name} rows with an empty text are left out")
    return split.take(sound)
