"""Predictions for GLUE's evaluation server (Wang et al., 2019); the tasks themselves are in mtkd/data/catalogue.yaml."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mtkd.data.splits import Task

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
