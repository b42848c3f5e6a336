"""What is left of TMKD's experiment when its models are made: table 3, the bill, the best student."""

from __future__ import annotations

import re
from pathlib import Path

from mtkd import study as experiments
from mtkd.evidence import outcomes
from mtkd.evidence.frames import SPLITS
from mtkd.papers.tmkd_plans import Plan
from mtkd.papers.tmkd_run import SECOND, Experiment
from mtkd.train.teachers import Model

LOOK = 2000  # rows of a pool that are counted for its mean lengths


def words(texts: list[tuple[str, ...]]) -> tuple[float, float | None]:
    """Mean number of words of the first and, in pairs, of the second text.

    >>> words([("how high is it", "It is high."), ("why", "Nobody knows.")])
    (2.5, 2.5)
    """
    means = [sum(len(re.findall(r"\w+", row[i])) for row in texts) / len(texts) for i in range(len(texts[0]))]
    return means[0], means[1] if len(means) > 1 else None


def data_rows(experiment: Experiment) -> list[dict]:
    """Table 3: samples per split and mean lengths of questions and answers, for every task and every pool; both sets of a test
    that has two (MNLI) are its samples, as in the paper."""
    rows = []
    for name in experiment.tasks:
        task = experiment.loaded(name)
        for part in SPLITS:
            inputs = task.splits[part].inputs
            if part == "test" and SECOND in task.splits:
                inputs = [*inputs, *task.splits[SECOND].inputs]
            first, second = words(inputs)
            rows.append({"task": name, "split": part, "samples": len(inputs), "words_first": first,
                         "words_second": second, "classes": len(task.classes), "metric": task.metric})
    for name, size in experiment.pools.items():
        seen = experiment.target.pool(f"pool-{size}").rows.take(0, min(size, LOOK))
        first, second = words(seen.inputs)
        rows.append({"task": f"{experiment.task} (pool)", "split": f"pool {name}", "samples": size, "words_first": first,
                     "words_second": second, "classes": None, "metric": None})
    return rows


def full_plan(experiment: Experiment, repeat: int) -> Plan:
    """TMKD on the target task, with the second pool if there is one (TMKD large), else the first, else none (MKD)."""
    pools = list(experiment.pools)[:2]
    return Plan("main", experiment.task, repeat, "many", experiment.student, experiment.alpha, pools[-1] if pools else "")


def best_student(experiment: Experiment) -> Model:
    """Of the TMKD students of all repeats, the one that did best on validation."""
    models = [experiment.make(full_plan(experiment, repeat)) for repeat in experiment.repeats]
    return experiments.best(models, experiment.loaded(experiment.task).metric)


def export(experiment: Experiment, folder: Path) -> Path | None:
    """Copy the best student to folder/student, replacing an earlier one; None where the section main was not asked for."""
    return outcomes.export(best_student(experiment), folder) if "main" in experiment.sections else None


def bill(experiment: Experiment) -> dict:
    """What making all models used so far cost, each counted once, whenever it was made."""
    return outcomes.bill(experiment.used)
