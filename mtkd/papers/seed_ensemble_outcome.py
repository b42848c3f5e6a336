"""What is left of an experiment when its models are made: table 1, the bill, the best student, submission files."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from mtkd import glue, train
from mtkd.outputs import evaluate_logits
from mtkd.papers.seed_ensemble_run import Experiment, plans, sum_or_none
from mtkd.teachers import Model


def data_rows(experiment: Experiment) -> list[dict]:
    """Table 1: samples per split and the mean number of words and punctuation marks."""
    task, rows = experiment.loaded, []
    for name in ("train", "validation", "test"):
        split = task.splits[name]
        words = None
        if task.kind != "image":
            words = sum(len(re.findall(r"\w+|[^\w\s]", text)) for row in split.inputs for text in row) / len(split)
        rows.append({"task": experiment.task, "split": name, "samples": len(split), "tokens_mean": words,
                     "metric": task.metric})
    return rows


def best_student(experiment: Experiment) -> Model:
    """Of the students of whole pools, the one that did best on validation."""
    every = plans(experiment.arm, experiment.n_teachers, experiment.repeats)
    whole = [plan for plan in every if len(plan.members) == experiment.n_teachers]
    return max((experiment.distill(pool, plan) for pool in experiment.pools for plan in whole),
               key=lambda model: model.metrics["validation"][experiment.loaded.metric])


def export(experiment: Experiment, folder: Path) -> Path:
    """Copy the best student to folder/student (a plain transformers folder for text), replacing an earlier one."""
    shutil.rmtree(folder / "student", ignore_errors=True)
    return Path(shutil.copytree(best_student(experiment).folder, folder / "student",
                                ignore=shutil.ignore_patterns("logits-*", "artifact.json")))


def write_submissions(experiment: Experiment, folder: Path) -> list[Path]:
    """GLUE submission files of the best student, where the task has hidden test rows (protocol "paper")."""
    hidden = [name for name in experiment.loaded.splits if name.startswith("hidden_test")]
    if not hidden:
        return []
    device = train.device_at_hand()
    network = best_student(experiment).network().to(device)
    written = []
    for name in hidden:
        logits = evaluate_logits(network, experiment.prepared.data(name), device).numpy()
        written.append(glue.write_submission(experiment.loaded, name, logits, folder))
    return written


def bill(experiment: Experiment) -> dict:
    """What making all models used so far cost, each counted once, whenever it was made."""
    infos = experiment.used.values()
    return {"models": len(experiment.used), "training_s": sum(i["seconds"] for i in infos),
            "energy_kwh": sum_or_none(i.get("energy_kwh") for i in infos),
            "co2_kg": sum_or_none(i.get("co2_kg") for i in infos),
            "energy_method": next((i.get("energy_method") for i in infos), None)}
