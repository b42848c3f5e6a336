"""Topics of news and of newsgroups: AG News (Zhang et al., 2015) and 20 Newsgroups (Lang, 1995).

name             hub id                  train / test          classes
ag_news          fancyzhx/ag_news        120,000 / 7,600       4
20_newsgroups    SetFit/20_newsgroups    11,314 / 7,532        20, the closest relative of MIND's topics that is free to have

Neither has a validation split: it is a tenth of train (at most 2,000), by hash of id. The official test split is the test.
Sample ids are the official split and row, such as "train/123". Metrics: accuracy and macro F1.
"""

from __future__ import annotations

import os

import numpy as np

from mtkd import hub
from mtkd.errors import KitError
from mtkd.tasks import Split, Task, hash_order

# name -> hub id, classes in the hub's label order
SPECS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ag_news": ("fancyzhx/ag_news", ("World", "Sports", "Business", "Sci/Tech")),
    "20_newsgroups": ("SetFit/20_newsgroups", (
        "alt.atheism", "comp.graphics", "comp.os.ms-windows.misc", "comp.sys.ibm.pc.hardware", "comp.sys.mac.hardware",
        "comp.windows.x", "misc.forsale", "rec.autos", "rec.motorcycles", "rec.sport.baseball", "rec.sport.hockey", "sci.crypt",
        "sci.electronics", "sci.med", "sci.space", "soc.religion.christian", "talk.politics.guns", "talk.politics.mideast",
        "talk.politics.misc", "talk.religion.misc")),
}
LARGEST_VALIDATION = 2000


def load(name: str) -> Task:
    """One of the two tasks. Raises KitError when the data set cannot be had, or its rows are not as they should be."""
    hub_id, classes = SPECS[name]
    rows, notes, official = hub.load_hub_dataset(hub_id), [], {}
    for split in ("train", "test"):
        if split not in rows:
            raise KitError(f"{hub_id} has no split {split!r}; it has {', '.join(rows)}")
        for column in ("text", "label"):
            if column not in rows[split].column_names:
                raise KitError(f"{hub_id} has no column {column!r}; it has {', '.join(rows[split].column_names)}")
        official[split] = read(split, rows[split], notes)
    train, order = official["train"], hash_order(official["train"].ids, salt="validation")
    held = min(len(train) // 10, LARGEST_VALIDATION)
    splits = {"train": train.take(np.sort(order[held:])), "validation": train.take(np.sort(order[:held])),
              "test": official["test"]}
    notes.append(f"there is no official validation split: it is {held:,} training rows, chosen by hash of id")
    if os.path.isdir(hub.find(hub_id, "dataset")):
        notes.append(f"a local mirror supplied this data set, with {len(train):,} training rows")
    return Task(name, "text", classes, splits, "accuracy", ("accuracy", "macro_f1"), tuple(notes))


def read(name: str, rows, notes: list[str]) -> Split:
    """One official split; rows without a text (some of 20 Newsgroups are, once headers and quotes are gone) are left out."""
    texts = rows["text"][:]
    split = Split([f"{name}/{i}" for i in range(len(texts))], [(text,) for text in texts],
                  np.asarray(rows["label"][:], dtype=np.int64))
    sound = [i for i, text in enumerate(texts) if isinstance(text, str) and text.strip()]
    if len(sound) < len(texts):
        notes.append(f"{len(texts) - len(sound):,} {name} rows without a text are left out")
    return split.take(sound)
