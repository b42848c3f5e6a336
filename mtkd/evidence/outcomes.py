"""What is left of an experiment when its models are made, for every paper: table 1, the bill, an exported student."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from mtkd.data import glue
from mtkd.data.tasks import Task
from mtkd.evidence.frames import SPLITS
from mtkd.train import loop as train
from mtkd.train.outputs import evaluate_logits
from mtkd.train.prepare import Prepared
from mtkd.train.teachers import Model


def data_rows(task: Task, name: str) -> list[dict]:
    """Table 1: samples per split and the mean number of words and punctuation marks; `name` is what the task is called."""
    rows = []
    for part in SPLITS:
        split, words = task.splits[part], None
        if task.kind != "image":
            words = sum(len(re.findall(r"\w+|[^\w\s]", text)) for row in split.inputs for text in row) / len(split)
        rows.append({"task": name, "split": part, "samples": len(split), "tokens_mean": words,
                     "classes": len(task.classes), "metric": task.metric})
    return rows


def bill(used: dict[str, dict]) -> dict:
    """What making all models used so far cost, each counted once, whenever it was made. `used`: key to a model's info."""
    infos = used.values()
    return {"models": len(used), "training_s": sum(i["seconds"] for i in infos),
            "energy_kwh": sum_or_none(i.get("energy_kwh") for i in infos),
            "co2_kg": sum_or_none(i.get("co2_kg") for i in infos),
            "energy_method": next((i["energy_method"] for i in infos if i.get("energy_method")), None)}


def sum_or_none(values: Iterable[float | None]) -> float | None:
    """The sum of what is known; None where nothing is."""
    known = [v for v in values if v is not None]
    return sum(known) if known else None


def export(model: Model, folder: Path) -> Path:
    """Copy a model to folder/student without what only the store needs, replacing an earlier one; the new path."""
    shutil.rmtree(folder / "student", ignore_errors=True)
    return Path(shutil.copytree(model.folder, folder / "student",
                                ignore=shutil.ignore_patterns("logits-*", "artifact.json")))


def write_submissions(task: Task, prepared: Prepared, model: Model, folder: Path) -> list[Path]:
    """GLUE submission files of one model, where the task has hidden test rows (protocol "paper")."""
    hidden = [name for name in task.splits if name.startswith("hidden_test")]
    if not hidden:
        return []
    device = train.device_at_hand()
    network = model.network().to(device)
    written = []
    for name in hidden:
        logits = evaluate_logits(network, prepared.data(name), device).numpy()
        written.append(glue.write_submission(task, name, logits, folder))
    return written
