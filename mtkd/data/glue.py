"""The nine GLUE tasks (Wang et al., 2019), from the hub's `nyu-mll/glue` or a mirror of it.

Sample ids are the official split and index, such as "train/123". GLUE hides the test labels of all but two tasks
(SST-2's and MRPC's are public elsewhere, and used where the rows carry them), so what is "test" here depends on the
option `protocol`:

protocol   where test labels are hidden                                   where they exist
honest     validation: a tenth of train (at most 2,000), by hash of id;   the official splits
           test: the official validation split
paper      validation and test: both the official validation split, so    the official splits
           the score is selected on what it reports; "hidden_test": the
           official test rows (labels -1), for a submission file
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from mtkd.data import hub
from mtkd.data.tasks import Split, Task, hash_order
from mtkd.errors import KitError

HUB_ID = "nyu-mll/glue"
_ENTAILS = ("entailment", "not_entailment")
# name -> text columns, classes in the hub's label order (none for regression), metrics with the main one first
SPECS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "cola": (("sentence",), ("unacceptable", "acceptable"), ("mcc", "accuracy")),
    "sst2": (("sentence",), ("negative", "positive"), ("accuracy",)),
    "mrpc": (("sentence1", "sentence2"), ("not_equivalent", "equivalent"), ("accuracy", "f1")),
    "qqp": (("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
    "mnli": (("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), ("accuracy",)),
    "qnli": (("question", "sentence"), _ENTAILS, ("accuracy",)),
    "rte": (("sentence1", "sentence2"), _ENTAILS, ("accuracy",)),
    "wnli": (("sentence1", "sentence2"), _ENTAILS[::-1], ("accuracy",)),
    "stsb": (("sentence1", "sentence2"), (), ("pearson", "spearman")),
}
LARGEST_VALIDATION = 2000


def load(task: str, protocol: str = "honest") -> Task:
    """One GLUE task; MNLI also has the split "mismatched" (its matched validation rows are the main ones).

    STS-B is regression on the scale 0 to 5; its main metric is Pearson's correlation, Spearman's is reported too.

    Raises KitError when the protocol is unknown, the data set cannot be had, or its rows are not as they should be.
    """
    if protocol not in ("honest", "paper"):
        raise KitError(f"protocol must be 'honest' or 'paper', not {protocol!r}")
    columns, classes, metrics = SPECS[task]
    rows = hub.load_hub_dataset(HUB_ID, task)
    notes: list[str] = []
    official = {name: _split(task, name, rows[name], columns, classes, notes) for name in rows}
    matched = "_matched" if task == "mnli" else ""
    for name in ("train", f"validation{matched}"):
        if name not in official:
            raise KitError(f"{HUB_ID} {task} has no split {name!r}; it has {', '.join(official)}")
    train, validation, test = official["train"], official[f"validation{matched}"], official.get(f"test{matched}")
    if test is not None and _labelled(test, classes):
        splits = {"train": train, "validation": validation, "test": test}
    elif protocol == "paper":
        splits = {"train": train, "validation": validation, "test": validation}
        notes.append("test labels are hidden: validation and test are both the official validation split, so a model "
                     "chosen on validation is chosen on what is reported")
        for name in ("test", "test_matched", "test_mismatched"):
            if name in official:
                splits[f"hidden_{name}".removesuffix("_matched")] = official[name]
    else:
        order = hash_order(train.ids, salt="validation")
        held = min(len(train) // 10, LARGEST_VALIDATION)
        splits = {"train": train.take(np.sort(order[held:])), "validation": train.take(np.sort(order[:held])),
                  "test": validation}
        notes.append(f"test labels are hidden: test is the official validation split ({len(validation):,} rows) and "
                     f"validation is {held:,} training rows, chosen by hash")
    if task == "mnli" and "validation_mismatched" in official:
        splits["mismatched"] = official["validation_mismatched"]
    if task == "wnli":
        notes.append("WNLI's validation sentences recur in train with the opposite label, so a model that learns train "
                     "by heart scores below the majority class")
    if os.path.isdir(hub.find(HUB_ID, "dataset")):
        notes.append("a local mirror supplied this data set")
    kind = "pair" if len(columns) == 2 else "text"
    return Task(f"glue/{task}", kind, classes, splits, metrics[0], metrics, tuple(notes))


def _split(task: str, name: str, rows, columns: tuple[str, ...], classes: tuple[str, ...], notes: list[str]) -> Split:
    for column in (*columns, "label"):
        if column not in rows.column_names:
            raise KitError(f"{HUB_ID} {task} has no column {column!r}; it has {', '.join(rows.column_names)}")
    texts = list(zip(*(rows[column][:] for column in columns)))
    numbers = rows["idx"][:] if "idx" in rows.column_names else range(len(texts))
    labels = np.asarray(rows["label"][:], dtype=np.int64 if classes else np.float32)
    split = Split([f"{name}/{number}" for number in numbers], texts, labels)
    sound = [i for i, sample in enumerate(texts) if all(isinstance(t, str) and t.strip() for t in sample)]
    if len(sound) < len(texts):  # a few rows of QQP as published lack a question
        notes.append(f"{len(texts) - len(sound):,} {name} rows with an empty text are left out")
        split = split.take(sound)
    return split


def _labelled(split: Split, classes: tuple[str, ...]) -> bool:
    return len(split) > 0 and bool((split.labels >= 0).all())


FILES = {"cola": "CoLA", "sst2": "SST-2", "mrpc": "MRPC", "qqp": "QQP", "mnli": "MNLI-m", "qnli": "QNLI", "rte": "RTE",
         "wnli": "WNLI", "stsb": "STS-B"}


def write_submission(task: Task, split: str, logits: np.ndarray, folder: Path) -> Path:
    """One task's file for GLUE's evaluation server: `index` and `prediction`, tab-separated, in the official order.

    split: "hidden_test", or "hidden_test_mismatched" for MNLI-mm; logits [n, classes] or [n, 1] in the split's order.
    Entailment tasks want the class's name, the others its number; STS-B a similarity from 0 to 5.
    """
    name = task.name.split("/")[1]
    numbers = [int(i.rsplit("/", 1)[1]) for i in task.splits[split].ids]
    if task.regression:
        answers = [f"{x:.3f}" for x in np.clip(logits[:, 0], 0, 5)]
    else:
        named = name in ("mnli", "qnli", "rte")
        answers = [task.classes[c] if named else str(c) for c in logits.argmax(-1)]
    path = folder / f"{'MNLI-mm' if split.endswith('mismatched') else FILES[name]}.tsv"
    rows = [f"{n}\t{a}" for n, a in sorted(zip(numbers, answers))]
    path.write_text("index\tprediction\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path
