"""The files of teachers that were made elsewhere: which of them say what a saved model is, and tables of logits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch

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


def read_table(path: Path, classes: tuple[str, ...]) -> tuple[list[str], torch.Tensor]:
    """Ids and logits [n, C] of a Parquet or CSV file with a column `id` and one column per class.

    Columns are found by the classes' names, in any order and beside others; where none of them is there, they count in
    their order, and must be numbered from 0 to C - 1 ("0", "LABEL_0", "logit_0") to show that this order is the classes'.
    KitError for anything else, and for values that are not finite numbers.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise KitError(f"{path.name} cannot be read as a table of logits: {str(error).splitlines()[0]}.") from error
    if "id" not in frame:
        raise KitError(f"{path.name} has no column 'id'; it has {', '.join(map(str, frame.columns))}.")
    frame, names = frame.rename(columns=str), [str(c) for c in frame.columns if c != "id"]
    if classes:
        wanted, numbers = [str(c) for c in classes], [re.search(r"\d*$", name)[0] for name in names]
        if set(wanted) <= set(names):
            names = wanted
        elif numbers != [str(i) for i in range(len(classes))]:
            raise KitError(f"{path.name} has the columns {', '.join(names)}, and the task's classes are {', '.join(wanted)}: "
                           f"name its columns like them, or number them from 0 to {len(classes) - 1} in the classes' order.")
    try:
        values = frame[names].to_numpy(dtype=np.float32)
    except (ValueError, TypeError):
        values = np.array([np.nan])
    if not np.isfinite(values).all():
        raise KitError(f"{path.name} holds values that are not numbers.")
    return [str(i) for i in frame["id"]], torch.from_numpy(values.copy())
