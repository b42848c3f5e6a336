"""What is left of an experiment when its models are made: table 1, the bill, the best student, submission files."""

from __future__ import annotations

from pathlib import Path

from mtkd.evidence import outcomes
from mtkd.papers.seed_ensemble_plans import plans
from mtkd.papers.seed_ensemble_run import Experiment
from mtkd.study import best
from mtkd.train.teachers import Model


def data_rows(experiment: Experiment) -> list[dict]:
    """Table 1: samples per split and the mean number of words and punctuation marks."""
    return outcomes.data_rows(experiment.loaded, experiment.task)


def best_student(experiment: Experiment) -> Model:
    """Of the students of whole pools, the one that did best on validation."""
    every = plans(experiment.arm, experiment.n_teachers, experiment.repeats)
    whole = [plan for plan in every if len(plan.members) == experiment.n_teachers]
    return best([experiment.distill(pool, plan) for pool in experiment.pools for plan in whole], experiment.loaded.metric)


def export(experiment: Experiment, folder: Path) -> Path:
    """Copy the best student to folder/student (a plain transformers folder for text), replacing an earlier one."""
    return outcomes.export(best_student(experiment), folder)


def write_submissions(experiment: Experiment, folder: Path) -> list[Path]:
    """GLUE submission files of the best student, where the task has hidden test rows (protocol "paper")."""
    if not any(name.startswith("hidden_test") for name in experiment.loaded.splits):
        return []
    return outcomes.write_submissions(experiment.loaded, experiment.prepared, best_student(experiment), folder)


def bill(experiment: Experiment) -> dict:
    """What making all models used so far cost, each counted once, whenever it was made."""
    return outcomes.bill(experiment.used)
