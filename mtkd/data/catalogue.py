"""The plain sets of catalogue.yaml, from the hub or a mirror: GLUE's nine, TweetEval, EMOTION, SNLI, AG News, 20 Newsgroups.

Sample ids are the official split and index, such as "train/123". A set without a validation split gives a tenth of train
to it (at most 2,000), by hash of id. GLUE hides the test labels of all but two tasks (SST-2's and MRPC's are public
elsewhere, and used where the rows carry them), so what is "test" there depends on the option `protocol`:

protocol   where test labels are hidden                                   where they exist
honest     validation: a tenth of train (at most 2,000), by hash of id;   the official splits
           test: the official validation split
paper      validation and test: both the official validation split, so    the official splits; of TweetEval's sentiment as
           the score is selected on what it reports; "hidden_test": the   many rows as domain_expertise says, the first by
           official test rows (labels -1), for a submission file          hash of id
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import yaml

from mtkd.data import hub
from mtkd.data.splits import Split, Task, hash_order, hold_out
from mtkd.data.tasks import task
from mtkd.errors import KitError

SETS: dict[str, dict] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def load(name: str, protocol: str = "honest") -> Task:
    """One of the plain sets; MNLI also has the split "mismatched" (its matched validation rows are the main ones).

    STS-B is regression on the scale 0 to 5; its main metric is Pearson's correlation, Spearman's is reported too.

    Raises KitError when the protocol is unknown, the data set cannot be had, or its rows are not as they should be.
    """
    if protocol not in ("honest", "paper"):
        raise KitError(f"protocol must be 'honest' or 'paper', not {protocol!r}")
    entry = SETS[name]
    hidden, more, classes = entry.get("hidden", {}), entry.get("more", {}), tuple(entry["classes"])
    of = {"train": "train", "validation": "validation", "test": "test"} | entry.get("splits", {})
    where = " ".join(filter(None, (entry["hub"], entry.get("config"))))
    rows = hub.load_hub_dataset(entry["hub"], entry.get("config"))
    for part, name_there in of.items():
        if name_there and name_there not in rows and not (part == "test" and hidden):
            raise KitError(f"{where} has no split {name_there!r}; it has {', '.join(rows)}")
    notes: list[str] = []
    wanted = dict.fromkeys([*of.values(), *more.values(), *hidden.values()])
    official = {n: _split(where, n, rows[n], entry, notes) for n in wanted if n in rows}
    train, validation, test = (official.get(of[part]) for part in ("train", "validation", "test"))
    splits = {"train": train, "validation": validation, "test": test}
    if validation is None:
        splits["train"], splits["validation"] = hold_out(train)
        notes.append(f"there is no official validation split: it is {len(splits['validation']):,} of {len(train):,} training "
                     "rows, chosen by hash of id")
    elif not hidden or (test is not None and len(test) and (test.labels >= 0).all()):
        if protocol == "paper" and "paper" in entry:
            splits = {part: splits[part].take(np.sort(hash_order(splits[part].ids, salt="paper")[:size]))
                      for part, size in entry["paper"].items()}
            sizes = " / ".join(f"{size:,}" for size in entry["paper"].values())
            notes.append(f"the sizes of the paper, {sizes}, are the first rows of each official split by hash of id, since the "
                         "paper does not say which rows it took")
    elif protocol == "paper":
        splits |= {"test": validation} | {n: official[o] for n, o in hidden.items() if o in official}
        notes.append("test labels are hidden: validation and test are both the official validation split, so a model "
                     "chosen on validation is chosen on what is reported")
    else:
        splits["train"], splits["validation"] = hold_out(train)
        splits["test"] = validation
        notes.append(f"test labels are hidden: test is the official validation split ({len(validation):,} rows) and "
                     f"validation is {len(splits['validation']):,} training rows, chosen by hash")
    splits |= {n: official[o] for n, o in more.items() if o in official}
    notes += [entry["note"]] if "note" in entry else []
    kind = "pair" if len(entry["texts"]) == 2 else "text"
    notes += hub.mirror_note(entry["hub"])
    return Task(name, kind, classes, splits, entry["metrics"][0], tuple(entry["metrics"]), tuple(notes))


def _split(where: str, name: str, rows, entry: dict, notes: list[str]) -> Split:
    for column in (*entry["texts"], "label"):
        if column not in rows.column_names:
            raise KitError(f"{where} has no column {column!r}; it has {', '.join(rows.column_names)}")
    texts = list(zip(*(rows[column][:] for column in entry["texts"])))
    numbers = rows["idx"][:] if "idx" in rows.column_names else range(len(texts))
    labels = np.asarray(rows["label"][:], dtype=np.int64 if entry["classes"] else np.float32)
    split, drop = Split([f"{name}/{number}" for number in numbers], texts, labels), entry.get("unlabelled") == "drop"
    sound = [i for i, sample in enumerate(texts)
             if all(isinstance(t, str) and t.strip() for t in sample) and not (drop and labels[i] < 0)]
    if len(sound) == len(texts):
        return split
    what = "without a label or with an empty text" if drop else "with an empty text"  # a few rows of QQP lack a question
    notes.append(f"{len(texts) - len(sound):,} {name} rows {what} are left out")
    return split.take(sound)


for _name, _entry in SETS.items():
    task(_name)(partial(load, _name) if _entry.get("protocol") else partial(load, _name, "honest"))
