"""What is left of MT-BERT's experiment when its models are made: table 1, the bill, the best student, submission files."""

from __future__ import annotations

from pathlib import Path

from mtkd.evidence import outcomes
from mtkd.papers.mt_bert_plans import Plan
from mtkd.papers.mt_bert_run import Experiment
from mtkd.study import best
from mtkd.train.teachers import Model


def data_rows(experiment: Experiment) -> list[dict]:
    """Table 1: samples per split and classes."""
    return outcomes.data_rows(experiment.loaded, experiment.task)


def full_plan(experiment: Experiment, repeat: int) -> Plan:
    """MT-BERT itself, from all teachers, at the first depth."""
    return Plan("main", "mt_bert", repeat, experiment.student_depths[0], experiment.everyone, experiment.student_from)


def best_student(experiment: Experiment) -> Model:
    """Of the MT-BERT students of all repeats, the one that did best on validation."""
    models = [experiment.make(full_plan(experiment, repeat)) for repeat in experiment.repeats]
    return best(models, experiment.loaded.metric)


def export(experiment: Experiment, folder: Path) -> Path | None:
    """Copy the best student to folder/student, replacing an earlier one; None where no section asked for students."""
    return outcomes.export(best_student(experiment), folder) if experiment.sections else None


def write_submissions(experiment: Experiment, folder: Path) -> list[Path]:
    """GLUE submission files of the best student, where the task has hidden test rows (protocol "paper")."""
    if not experiment.sections or not any(name.startswith("hidden_test") for name in experiment.loaded.splits):
        return []
    return outcomes.write_submissions(experiment.loaded, experiment.prepared, best_student(experiment), folder)


def bill(experiment: Experiment) -> dict:
    """What making all models used so far cost, each counted once, whenever it was made."""
    return outcomes.bill(experiment.used)
