"""What any model of a task must beat: the class that is most frequent, and a linear model of word counts.

Neither knows what a network is. A teacher below the linear baseline has nothing that a day of the nineties would not have
taught, and a student at the majority class has learned nothing at all: tables show both, and reports mark such models.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from mtkd.data.tasks import Split, Task
from mtkd.measure.metrics import compute_metrics
from mtkd.store.artifacts import tensors_load, tensors_save
from mtkd.tokens.batches import ImageData, TextData
from mtkd.train import outputs
from mtkd.train.prepare import Prepared

PARTS = ("validation", "test")
STRENGTHS = (1.0, 10.0, 100.0)  # of the logistic regression's fit to the data (its C), of which validation chooses one


def majority(task: Task) -> dict[str, np.ndarray]:
    """Logits [n, C] on validation and test that always name the class most frequent in train; for a regression its mean."""
    labels = task.splits["train"].labels
    if task.regression:
        answer = np.array([labels.mean()])
    else:
        answer = np.bincount(labels[labels >= 0], minlength=task.outputs) / max(1, (labels >= 0).sum())
    return {part: np.tile(answer, (len(task.splits[part]), 1)) for part in PARTS}


def unfit(task: Task, data: TextData | ImageData, logits: torch.Tensor) -> str:
    """Why logits [rows, C] of a labelled split can teach nobody, for a sentence: they are right in no more rows than the most
    frequent class would be. "" where they are better, or nothing is labelled."""
    labels = np.repeat(data.labels, getattr(data, "views", 1))
    known = labels >= 0
    if task.regression or not known.any():
        return ""
    labels, said = labels[known], logits.numpy().argmax(-1)[known]
    right, least = float((said == labels).mean()), np.bincount(labels).max() / len(labels)
    if right > least:
        return ""
    counts = np.zeros((task.outputs, task.outputs), dtype=np.int64)
    np.add.at(counts, (said, labels), 1)
    outputs_, classes = linear_sum_assignment(counts, maximize=True)
    best, hint = counts[outputs_, classes].sum() / len(labels), ""
    if best > max(least, right):
        meant = ", ".join(f"output {o} as {task.classes[c]}" for o, c in zip(outputs_, classes))
        hint = f" With {meant} it would be right in {best:.1%}: look at the order of its classes (label_map)."
    return f"is right in {right:.1%}, no more than the most frequent class ({least:.1%}).{hint}"


def linear(task: Task) -> dict[str, np.ndarray]:
    """Logits [n, C] on validation and test of logistic regression on TF-IDF (texts of a pair joined) or on pixels; of ridge
    regression where the task asks for a number. The strength of the fit is chosen on validation."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    def read(split: Split):
        return split.inputs if task.kind == "image" else [" ".join(texts) for texts in split.inputs]

    train = task.splits["train"]
    known = np.isfinite(train.labels) if task.regression else train.labels >= 0
    first = (FunctionTransformer(lambda images: images.reshape(len(images), -1) / 255) if task.kind == "image"
             else TfidfVectorizer(sublinear_tf=True, dtype=np.float32))
    steps, tried = 100 if task.kind == "image" else 1000, []  # pixels are many and dense, and converge late
    for strength in STRENGTHS:
        last = Ridge(alpha=1 / strength) if task.regression else LogisticRegression(C=strength, max_iter=steps)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = make_pipeline(first, last).fit(read(train.take(np.flatnonzero(known))), train.labels[known])
        said = {}
        for part in PARTS:
            if task.regression:
                said[part] = model.predict(read(task.splits[part]))[:, None]
            else:
                said[part] = np.full((len(task.splits[part]), task.outputs), -np.inf)
                said[part][:, last.classes_] = model.predict_log_proba(read(task.splits[part]))
                said[part] = np.maximum(said[part], -1e4)  # a class that train does not have
        score = compute_metrics(said["validation"], task.splits["validation"].labels, (task.metric,))[task.metric]
        tried.append((score, said))
    return max(tried, key=lambda one: one[0])[1]


FLOORS = {"majority": majority, "linear": linear}


def floor(prepared: Prepared, method: str) -> dict[str, torch.Tensor]:
    """Logits by split of one of FLOORS, made once and kept in the store."""
    task = prepared.task

    def make(folder: Path) -> dict:
        for part, logits in FLOORS[method](task).items():
            tensors_save(folder / f"logits-{part}.safetensors", {"logits": torch.from_numpy(logits).float(),
                                                                 "ids": outputs.ids_tensor(task.splits[part].ids)})
        return {}

    made = prepared.store.get("floor", {"task": task.fingerprint, "method": method}, make)
    return {part: tensors_load(made.folder / f"logits-{part}.safetensors")["logits"] for part in PARTS}
