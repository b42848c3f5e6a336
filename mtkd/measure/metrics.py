"""How good: metrics, agreement between teachers, ensembles of their logits. How fast is in mtkd/measure/speed.py."""

import base64
import difflib
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats
from scipy.special import log_softmax, logsumexp, softmax
from sklearn import metrics as sk

from mtkd.errors import KitError


def _correlation(function: Callable, predictions: np.ndarray, labels: np.ndarray) -> float:
    # A correlation with a constant is 0/0. It counts as 0, as scikit-learn counts the Matthews correlation, so that a
    # collapsed student has a score that can be averaged.
    if len(labels) < 2 or np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    return function(predictions, labels).statistic


CLASSIFICATION = {
    "accuracy": lambda predictions, labels: sk.accuracy_score(labels, predictions),
    "macro_f1": lambda predictions, labels: sk.f1_score(labels, predictions, average="macro", zero_division=0),
    "f1": lambda predictions, labels: sk.f1_score(labels, predictions, pos_label=1, zero_division=0),
    "mcc": lambda predictions, labels: sk.matthews_corrcoef(labels, predictions),
}
REGRESSION = {
    "pearson": lambda predictions, labels: _correlation(stats.pearsonr, predictions, labels),
    "spearman": lambda predictions, labels: _correlation(stats.spearmanr, predictions, labels),
}
METRICS = (*CLASSIFICATION, *REGRESSION)


def compute_metrics(logits: np.ndarray, labels: np.ndarray, metrics: Sequence[str]) -> dict[str, float]:
    """The named metrics on their raw scale (accuracy and F1 0..1, correlations -1..1), in the order asked for.

    Args:
        logits: [n, C] class logits (any monotone score per row), or [n, 1] predicted values of a regression.
        labels: [n] class numbers, or [n] values of a regression.
        metrics: names out of `METRICS`: accuracy; macro_f1 (mean over the classes that occur in labels or
            predictions); f1 (of class 1 of two); mcc (Matthews correlation); pearson; spearman.

    Raises:
        KitError: an unknown metric, a metric that does not fit the shape, rows that do not match, a missing label, or
            a logit that is not a finite number.

    >>> compute_metrics(np.array([[2.0, 1.0], [0.0, 3.0], [0.5, 0.1]]), np.array([0, 1, 1]), ("accuracy",))
    {'accuracy': 0.6666666666666666}
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    for name in metrics:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(METRICS)}."
            raise KitError(f"There is no metric {name!r}: {hint}")
    if logits.ndim != 2 or labels.ndim != 1 or len(logits) != len(labels) or not len(labels):
        raise KitError(f"Metrics need logits [n, C] and labels [n], not {list(logits.shape)} and {list(labels.shape)}.")
    if not np.isfinite(logits).all():
        raise KitError("Some outputs are not finite numbers: the model has diverged (try a smaller learning rate).")
    columns = logits.shape[1]
    if any(name in REGRESSION for name in metrics):
        if columns != 1:
            raise KitError(f"Pearson and Spearman correlation need one output per sample, and there are {columns}.")
        if not np.isfinite(labels).all():
            raise KitError("Some labels are not finite numbers, so there is nothing to score against.")
    if any(name in CLASSIFICATION for name in metrics):
        if columns < 2 or ("f1" in metrics and columns != 2):
            need = "two outputs (f1 is that of class 1 of two)" if "f1" in metrics else "one output per class"
            raise KitError(f"The metrics {', '.join(metrics)} need {need}, and there are {columns}.")
        if (labels < 0).any():
            raise KitError(f"{int((labels < 0).sum())} of {len(labels)} samples have no label to score against.")
        if (labels >= columns).any():
            raise KitError(f"A label is {int(labels.max())}, and the model has only {columns} classes (from 0).")
    functions = {**CLASSIFICATION, **REGRESSION}
    predictions = logits.argmax(axis=1) if columns > 1 else logits[:, 0]
    return {name: float(functions[name](predictions, labels)) for name in metrics}


def calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017): samples are sorted into bins of equal width by the probability of the class
    that was predicted; the mean over samples of how far their bin's mean probability lies from its accuracy. logits [n, C],
    labels [n]; from 0 (right as often as it says) to 1.

    >>> calibration_error(np.log([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.8, 0.2]]), np.array([0, 0, 0, 1])).round(3)
    np.float64(0.05)
    """
    said = softmax(np.asarray(logits, dtype=float), axis=-1)
    sure, right = said.max(-1), said.argmax(-1) == labels
    place = np.minimum((sure * bins).astype(int), bins - 1)
    return sum(abs((sure - right)[place == b].sum()) for b in np.unique(place)) / len(sure)


def pack_right(right: np.ndarray) -> str:
    """Which of n items were right, bool [n], as text: eight to a byte, base64.

    >>> pack_right(np.array([True, False, True])), unpack_right(pack_right(np.array([True, False, True])), 3)
    ('oA==', array([ True, False,  True]))
    """
    return base64.b64encode(np.packbits(np.asarray(right, dtype=bool)).tobytes()).decode()


def unpack_right(text: str, n: int) -> np.ndarray:
    """The bool [n] that `pack_right` wrote. Raises KitError where the text is of another number of items."""
    packed = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    if len(packed) != (n + 7) // 8:
        raise KitError(f"the marks of {n} items take {(n + 7) // 8} bytes, and there are {len(packed)}.")
    return np.unpackbits(packed, count=n).astype(bool)


def mean_average_precision(scores: np.ndarray, labels: np.ndarray, groups: Sequence) -> float:
    """How well the right items of each group are ranked on top: the mean over groups of the average precision, 0..1.

    A group (a question) is ranked by score, highest first. Its average precision is the mean, over its right items, of the
    share of right items among those ranked at least as high: items with equal scores share a rank, so that their order in
    the data does not matter (as in scikit-learn's average_precision_score). Groups without a right item have no average
    precision and do not count.

    Args:
        scores: [n] any finite numbers; labels: [n] 0 or 1; groups: [n] the group of every item, in any order.

    Raises:
        KitError: shapes that differ, a score that is not finite, labels other than 0 and 1, no right item at all.

    One question with its right items on ranks 1 and 3, (1/1 + 2/3) / 2, and one with its right item on rank 2, 1/2:

    >>> mean_average_precision([9, 8, 7, 1, 5], [1, 0, 1, 1, 0], ["a", "a", "a", "b", "b"])
    0.6666666666666666
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 1 or labels.shape != scores.shape or len(groups) != len(scores):
        raise KitError(f"A ranking needs scores [n], labels [n] and groups [n], not {list(scores.shape)}, "
                       f"{list(labels.shape)} and {len(groups)} groups.")
    if not np.isfinite(scores).all():
        raise KitError("Some scores are not finite numbers: the model has diverged (try a smaller learning rate).")
    if not np.isin(labels, (0, 1)).all():
        raise KitError("A ranking needs labels 0 (wrong) and 1 (right), and some are neither.")
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    found = []
    for own in np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1]) if len(group) else ():
        right = scores[own][labels[own] == 1]
        if len(right):
            ahead = np.array([(right >= s).sum() / (scores[own] >= s).sum() for s in right])
            found.append(ahead.mean())
    if not found:
        raise KitError("No group has a right item, so there is no ranking to score.")
    return float(np.mean(found))


def agreement(logits: np.ndarray) -> np.ndarray:
    """How often each two of T teachers predict the same class: logits [T, n, C] to fractions [T, T], 1 on the diagonal.

    >>> agreement(np.array([[[1, 0], [1, 0]], [[1, 0], [0, 1]]]))[0, 1]
    np.float64(0.5)
    """
    predictions = _stack(logits).argmax(axis=2)  # [T, n]
    return (predictions[:, None] == predictions[None]).mean(axis=2)


def ensemble_logits(logits: np.ndarray, how: str = "logits") -> np.ndarray:
    """The logits [n, C] of an ensemble of T models with logits [T, n, C].

    "logits" is the mean of the logits (the target of Eq. 9 of the multiple-teacher paper). "probabilities" is the
    logarithm of the mean of the softmax, so that a softmax of the result is that mean. The two differ: a confident
    member weighs more in the first.
    """
    logits = _stack(logits)
    if how == "logits":
        return logits.mean(axis=0)
    if how != "probabilities":
        raise KitError(f"An ensemble averages 'logits' or 'probabilities', not {how!r}.")
    if logits.shape[2] < 2:
        raise KitError("A regression has no probabilities to average: use how='logits'.")
    return logsumexp(log_softmax(logits, axis=2), axis=0) - np.log(len(logits))


def _stack(logits: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits)
    if logits.ndim != 3 or 0 in logits.shape:
        raise KitError(f"Logits of several models have the shape [models, samples, classes], not {list(logits.shape)}.")
    return logits
