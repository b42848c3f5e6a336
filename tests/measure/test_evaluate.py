"""Metrics against hand-computed values, ensembles and agreement against definitions, speed against a known delay."""

import math

import numpy as np
import pytest

from mtkd.errors import KitError
from mtkd.measure.metrics import METRICS, agreement, calibration_error, compute_metrics, ensemble_logits


def one_hot(predictions, classes):
    return np.eye(classes)[predictions]


def test_binary_metrics_by_hand():
    # predicted 1 1 1 0 0 0, true 1 1 0 0 0 1: tp 2, fp 1, fn 1, tn 2
    logits, labels = one_hot([1, 1, 1, 0, 0, 0], 2), np.array([1, 1, 0, 0, 0, 1])
    got = compute_metrics(logits, labels, ("accuracy", "f1", "macro_f1", "mcc"))
    assert list(got) == ["accuracy", "f1", "macro_f1", "mcc"]
    assert got["accuracy"] == pytest.approx(4 / 6)
    assert got["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert got["macro_f1"] == pytest.approx(2 / 3)
    assert got["mcc"] == pytest.approx((2 * 2 - 1 * 1) / math.sqrt(3 * 3 * 3 * 3))
    assert all(type(value) is float for value in got.values())


def test_f1_is_that_of_class_one_not_of_class_zero():
    assert compute_metrics(one_hot([0, 0, 0, 1], 2), np.array([0, 0, 1, 1]), ("f1",))["f1"] == pytest.approx(2 / 3)


def test_macro_f1_is_over_the_classes_that_occur():
    # class 0: tp 1 fp 1 fn 0 -> 2/3; class 1: tp 1 fp 0 fn 1 -> 2/3; classes 2 and 3 nowhere
    got = compute_metrics(one_hot([0, 0, 1], 4), np.array([0, 1, 1]), ("macro_f1",))
    assert got["macro_f1"] == pytest.approx(2 / 3)


def test_regression_by_hand():
    values, labels = np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 3.0, 2.0], dtype=np.float32)
    got = compute_metrics(values, labels, ("pearson", "spearman"))
    assert got["spearman"] == pytest.approx(0.5)
    assert got["pearson"] == pytest.approx(np.corrcoef(values[:, 0], labels)[0, 1])
    assert compute_metrics(values**3, labels, ("spearman",)) == pytest.approx({"spearman": 0.5})


def test_a_collapsed_model_scores_zero_and_not_nan():
    assert compute_metrics(np.ones((4, 1)), np.arange(4.0), ("pearson", "spearman")) == {"pearson": 0, "spearman": 0}
    assert compute_metrics(one_hot([0] * 4, 2), np.array([0, 1, 0, 1]), ("mcc", "f1")) == {"mcc": 0, "f1": 0}


@pytest.mark.parametrize(
    ("logits", "labels", "metrics", "says"),
    [
        (np.eye(2), [0, 1], ("acuracy",), "did you mean 'accuracy'"),
        (np.eye(2), [0, -1], ("accuracy",), "1 of 2 samples have no label"),
        (np.eye(2), [0, 2], ("accuracy",), "only 2 classes"),
        (np.eye(2) * np.nan, [0, 1], ("accuracy",), "finite"),
        (np.eye(3), [0, 1, 2], ("f1",), "need two outputs"),
        (np.eye(2)[:, :1], [0, 1], ("accuracy",), "one output per class"),
        (np.eye(2), [0.0, 1.0], ("pearson",), "one output"),
        (np.eye(2), [0, 1, 1], ("accuracy",), "logits"),
        (np.zeros((0, 2)), [], ("accuracy",), "logits"),
        (np.zeros((2, 1)), [0.0, np.nan], ("pearson",), "labels"),
    ],
)
def test_what_cannot_be_scored_is_said(logits, labels, metrics, says):
    with pytest.raises(KitError, match=says):
        compute_metrics(logits, np.array(labels), metrics)


def test_metric_names_are_the_agreed_ones():
    assert set(METRICS) == {"accuracy", "macro_f1", "f1", "mcc", "pearson", "spearman"}


def test_agreement_by_hand():
    predictions = [[0, 1, 2, 2], [0, 1, 2, 0], [1, 1, 0, 0]]
    got = agreement(np.stack([one_hot(p, 3) for p in predictions]))
    assert np.array_equal(got, [[1, 0.75, 0.25], [0.75, 1, 0.5], [0.25, 0.5, 1]])


def test_the_two_ensembles():
    logits = np.array([[[4.0, 0.0]], [[-1.0, 0.0]], [[-1.0, 0.0]]])  # one sure teacher against two doubtful ones
    assert np.allclose(ensemble_logits(logits), [[2 / 3, 0]])
    mean = np.mean([1 / (1 + math.exp(-4)), 1 / (1 + math.e), 1 / (1 + math.e)])
    assert np.allclose(np.exp(ensemble_logits(logits, "probabilities")), [[mean, 1 - mean]])
    same = np.broadcast_to(np.random.default_rng(0).normal(size=(1, 5, 3)), (4, 5, 3))
    assert np.allclose(ensemble_logits(same), same[0])
    assert np.allclose(ensemble_logits(same, "probabilities") - ensemble_logits(same, "probabilities")[:, :1],
                       same[0] - same[0][:, :1])  # fmt: skip
    for wrong in ((same[0], "logits"), (same, "votes"), (same[:, :, :1], "probabilities")):
        with pytest.raises(KitError):
            ensemble_logits(*wrong)


def test_calibration_error_by_hand_and_of_a_model_that_knows_what_it_knows():
    said = np.log([[0.8, 0.2]] * 4 + [[0.4, 0.6]] * 2)  # 80% sure and right three times of four; 60% sure and always right
    assert calibration_error(said, np.array([0, 0, 0, 1, 1, 1])) == pytest.approx((4 * 0.05 + 2 * 0.4) / 6)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50_000, 4))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (chances.cumsum(1) > rng.random((50_000, 1))).argmax(1)
    assert calibration_error(logits, labels) < 0.01 < 0.2 < calibration_error(3 * logits, labels)
    assert calibration_error(np.eye(4)[labels] * 1e4, labels) == 0
