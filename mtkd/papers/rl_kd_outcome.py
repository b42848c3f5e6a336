"""What is left of RL-KD's experiment when its models are made: table 2, the bill, the best student, submission files."""

from __future__ import annotations

from pathlib import Path

from mtkd.evidence import outcomes
from mtkd.papers.rl_kd_plans import Plan
from mtkd.papers.rl_kd_run import Experiment
from mtkd.papers.rl_kd_scores import RL
from mtkd.study import best
from mtkd.train.teachers import Model


def data_rows(experiment: Experiment) -> list[dict]:
    """Table 2: samples per split and classes."""
    return outcomes.data_rows(experiment.loaded, experiment.task)


def full_plan(experiment: Experiment, repeat: int, variant: str = RL) -> Plan:
    """RL-KD itself, with all teachers and the first student."""
    return Plan("main", "rl", repeat, experiment.students[0], experiment.everyone, variant)


def start_plan(experiment: Experiment, repeat: int) -> Plan:
    """The student that RL-KD starts from: U-Ensemble's."""
    return Plan("main", "u", repeat, experiment.students[0], experiment.everyone)


def best_student(experiment: Experiment) -> Model:
    """Of the RL-KD students (reward 3) of all repeats, the one that did best on validation."""
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
