"""Models that were made elsewhere: which files say what one is, and which of its outputs stands for which class of a task."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from mtkd.errors import KitError

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")


def model_files(folder: Path) -> dict[str, Path]:
    """The files that say what a saved model is, by name: weights in every format, the index of sharded ones, its configs, and
    the head that a co-finetuned teacher shares with others and that lies beside its folder.

    KitError for a model without weights; whether there is a model at all is for mtkd.models.names.load to say.
    """
    weights = [path for pattern in WEIGHTS for path in folder.glob(pattern)]
    about = [path for name in ("config.json", "head.json", "heads.json") if (path := folder / name).is_file()]
    if about and not weights:
        raise KitError(f"the teacher in {folder} has no weights: there is no {', '.join(WEIGHTS[:-1])} or {WEIGHTS[-1]}.")
    files = {path.name: path for path in sorted([*weights, *folder.glob("*.index.json"), *about])}
    if "head.json" in files:
        head = json.loads(files["head.json"].read_text(encoding="utf-8"))["head"]
        if (folder / head).is_file():  # else load_pooled says that it is missing
            files[head] = folder / head
    return files


def order_of(where: str, named: Sequence[str], outputs: int, classes: Sequence[str],
             label_map: dict[str, str] | None = None) -> tuple[list[int], str]:
    """Which output of a finished model stands for each class of a task, and what to say of how that was found ("" where
    nothing was guessed).

    where: the model in a sentence; named: its own names of its outputs, () where it has none of its own; label_map: its name
    of an output, or the output's number -> the class it stands for. Without it outputs are found by name, whatever their
    order and case; LABEL_1 is class 1. Raises KitError, with the way out, where that leaves a doubt.
    """
    own = [str(name).strip() for name in named] or [f"LABEL_{i}" for i in range(outputs)]
    shown = f"the outputs {', '.join(own)}" if named else f"{outputs} outputs without names" if outputs > 1 else "one output"
    if not classes:
        if outputs != 1:
            raise KitError(f"{where} has {shown}, and the task asks for a number: a teacher of it has one output.")
        return [0], ""
    if outputs == 1:
        names = ", ".join(classes)
        raise KitError(f"{where} has one output, a score, and the task has the classes {names}: give its answers as a table "
                       f"with the columns id, {names} (for two classes 0 and the score z), or fine-tune it with "
                       f"num_labels={len(classes)}.")
    if label_map:
        return mapped(where, own, classes, {str(k): str(v) for k, v in label_map.items()}), ""
    numbers = [int(found[1]) for name in own if (found := re.fullmatch(r"(?i)label_(\d+)", name))]
    keys, wanted = [name.casefold() for name in own], [name.strip().casefold() for name in classes]
    if len(set(keys)) == outputs == len(classes) and set(keys) == set(wanted) and len(set(wanted)) == len(wanted):
        order = [keys.index(name) for name in wanted]
        same = [own[i] for i in order] == list(classes) and order == sorted(order)
        return order, "" if same else (f"{where} has its classes in the order {', '.join(own)}: they were brought by name to "
                                       f"the task's {', '.join(classes)}.")
    if outputs == len(classes) and sorted(numbers) == list(range(outputs)):
        order = [numbers.index(i) for i in range(outputs)]
        return order, (f"{where} does not name its classes ({', '.join(own)}): they were taken by number as the task's "
                       f"{', '.join(classes)}.")
    theirs = [next((name for name in own if name.casefold() == w), own[min(i, outputs - 1)]) for i, w in enumerate(wanted)]
    rest = " (outputs that it does not name are left out)" if outputs > len(classes) else ""
    raise KitError(f"{where} has {shown}, and the task has the classes {', '.join(classes)}: say which is which with a "
                   f"label_map such as {dict(zip(theirs, classes))}{rest}, or rename them in id2label of its config.json.")


def mapped(where: str, own: Sequence[str], classes: Sequence[str], label_map: dict[str, str]) -> list[int]:
    """The outputs of the classes by a label_map. KitError where it names what is not there, or a class not exactly once."""
    for name, c in label_map.items():
        if name not in own and not (name.isdigit() and int(name) < len(own)):
            raise KitError(f"label_map names {name!r}, which {where} does not have; it has {', '.join(own)}.")
        if c not in classes:
            raise KitError(f"label_map gives the class {c!r}, which the task does not have; it has {', '.join(classes)}.")
    to = {c: name for name, c in label_map.items()}
    if len(to) < len(label_map) or set(to) != set(classes):
        raise KitError(f"label_map must give each of the task's classes ({', '.join(classes)}) one output of {where}, and is "
                       f"{label_map}; outputs to be joined need a table of their summed probabilities.")
    return [own.index(to[c]) if to[c] in own else int(to[c]) for c in classes]
