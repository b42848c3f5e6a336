"""RL-KD's learning curves: what a model keeps of them, how a row thins them, how a figure reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from mtkd.train.teachers import Model

STAGES = ("pretraining", "alternation")
POINTS = 30  # of a curve that a row keeps


def written_down(chain: Sequence[Model]) -> dict | None:
    """What a model and the stages before it, the last first, wrote down about their policy, thinned: {"pretraining": ..,
    "alternation": ..}; None where there was no policy to learn."""
    found = {}
    for name, model in zip(reversed(STAGES), chain):
        if trace := model.info.get("history", {}).get("policy", {}).get("trace"):
            found[name] = thinned(trace)
    return found or None


def thinned(trace: dict[str, list], points: int = POINTS) -> dict[str, list]:
    """A curve as means over at most `points` stretches of equal length; a stretch is named by its last batch.

    >>> thinned({"batch": [1, 2, 3, 4], "entropy": [0.5, 0.3, 0.2, 0.0], "reward": [None, -1.0, None, None]}, 2)
    {'batch': [2, 4], 'entropy': [0.4, 0.1], 'reward': [-1.0, None]}
    """
    parts = np.array_split(np.arange(len(trace["batch"])), min(points, len(trace["batch"])))
    found = {"batch": [trace["batch"][part[-1]] for part in parts]}
    for name in (n for n in trace if n != "batch"):
        known = [[trace[name][i] for i in part if trace[name][i] is not None] for part in parts]
        found[name] = [np.round(np.mean(values, axis=0), 6).tolist() if values else None for values in known]
    return found


def policy_curves(rows: pd.DataFrame, teachers: list[str]) -> pd.DataFrame:
    """The curves in RL-KD's rows as one long frame: variant, repeat, stage, batch (through both stages), measure, value.

    measure: "reward" (change since the first point of its stage, so that rewards of different scales can be compared),
    "entropy", "nobody", or a teacher's name (the share of samples that follow it).
    """
    found = []
    for _, row in rows.iterrows():
        offset = 0
        for stage in STAGES:
            curve = row["policy"].get(stage, {}) if isinstance(row["policy"], dict) else {}
            batches = curve.get("batch", [])
            for i, batch in enumerate(batches):
                values = {"entropy": curve["entropy"][i], "nobody": curve["empty"][i]}
                values |= dict(zip(teachers, curve["selected"][i]))
                first, now = next((r for r in curve["reward"] if r is not None), None), curve["reward"][i]
                values["reward"] = None if now is None else now - first
                found += [{"variant": row["variant"], "repeat": row["repeat"], "stage": stage, "batch": offset + batch,
                           "measure": name, "value": value} for name, value in values.items()]
            offset += batches[-1] if batches else 0
    return pd.DataFrame(found, columns=["variant", "repeat", "stage", "batch", "measure", "value"])


def student_curves(rows: pd.DataFrame, begun: pd.DataFrame, variants: Iterable[str]) -> pd.DataFrame:
    """Validation score after every epoch: variant ("start" for the pre-training that all share), repeat, epoch, value.

    begun: the rows of the students that those of `rows` went on from (`rl_kd_scores.starts`).
    """
    found, begin, same = [], {}, ["repeat", "lr", "temperature", "alpha"]
    for _, row in begun.iterrows():
        begin[tuple(row[same])] = row
        found += [{"variant": "start", "repeat": row["repeat"], "epoch": e + 1, "value": v} for e, v in enumerate(row["curve"])]
    for _, row in rows[(rows["method"] == "rl") & rows["variant"].isin(variants)].iterrows():
        before = begin.get(tuple(row[same]))
        if before is not None and row["curve"]:  # a curve goes on from the score of the epoch that was kept
            found += [{"variant": row["variant"], "repeat": row["repeat"], "epoch": len(before["curve"]) + e, "value": v}
                      for e, v in enumerate([before["validation"], *row["curve"]])]
    return pd.DataFrame(found, columns=["variant", "repeat", "epoch", "value"])
