"""Topics of news and of newsgroups: AG News (Zhang et al., 2015) and 20 Newsgroups (Lang, 1995).

name             hub id                  train / test          classes
ag_news          fancyzhx/ag_news        120,000 / 7,600       4
20_newsgroups    SetFit/20_newsgroups    11,314 / 7,532        20, the closest relative of MIND's topics that is free to have

Neither has a validation split: it is a tenth of train (at most 2,000), by hash of id. The official test split is the test.
Sample ids are the official split and row, such as "train/123". Metrics: accuracy and macro F1.
"""

from __future__ import annotations

import numpy as np

from mtkd.data.tasks import Task, hash_order
from mtkd.data.tweets import read_splits

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
    splits, notes = read_splits(hub_id, None, ("train", "test"))
    train, order = splits["train"], hash_order(splits["train"].ids, salt="validation")
    held = min(len(train) // 10, LARGEST_VALIDATION)
    splits |= {"train": train.take(np.sort(order[held:])), "validation": train.take(np.sort(order[:held]))}
    notes.append(f"there is no official validation split: it is {held:,} of {len(train):,} training rows, chosen by hash of id")
    return Task(name, "text", classes, splits, "accuracy", ("accuracy", "macro_f1"), tuple(notes))
