"""What a row keeps of a policy's learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

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
