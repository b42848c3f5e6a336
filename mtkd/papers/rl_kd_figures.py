"""RL-KD's learning curves: what the policy is paid, how sure it is, whom it follows, and the student with and without it.

Made without pyplot, so that a notebook or a report shows the figure exactly once.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from mtkd.evidence.frames import missing
from mtkd.papers import Exhibit
from mtkd.papers.rl_kd_curves import STAGES, policy_curves, student_curves
from mtkd.papers.rl_kd_scores import PAPER, REWARDS, RL, best_on_validation, grid_frame, short_name, starts

TITLE = "learning curves: the policy, and the student with and without it"
COLOURS = dict(zip([*REWARDS, "average_again", "random_policy"], [*sns.color_palette("colorblind", 3), "0.15", "0.55"]))
NAMES = {**REWARDS, "average_again": "no policy: average teacher again", "random_policy": "untrained policy (chance)"}


def curves(records: list[dict]) -> Exhibit:
    """Four panels per tier, task and student: the policy's reward, its entropy, whom it follows, the student's validation."""
    every = grid_frame(records)
    frame = best_on_validation(every)
    main = frame[frame["arm"] == "main"]
    groups = [(names, rows) for names, rows in main.groupby(["tier", "task", "student"], sort=True)
              if any(isinstance(p, dict) and p for p in rows["policy"])]
    if not groups:
        return Exhibit(f"{PAPER}.curves", TITLE, missing(f"{PAPER}.table4").caption)
    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=(10.4, 6.4 * len(groups)), layout="constrained")
        parts = figure.subfigures(len(groups), 1, squeeze=False)[:, 0]
        for part, (names, rows) in zip(parts, groups):
            _panels(part, names, rows, starts(every, rows[rows["method"] == "rl"]))
    words = "Lines: means over repeats; bands: ± one standard deviation; thin lines: single repeats. The dotted line parts "
    words += "the policy's pre-training (paid by the selected teachers' loss) from the alternation (paid by Eq. 7). Rewards "
    words += "are shown as changes since the start of their stage. Bottom right: validation accuracy of the student, first "
    words += "while it learns from the average teacher, then from whom the policy selects, or without one; each second part "
    words += "starts at the epoch that was kept."
    return Exhibit(f"{PAPER}.curves", TITLE, words, figure)


def _panels(part, names: tuple, rows: pd.DataFrame, begun: pd.DataFrame) -> None:
    tier, task, student = names
    repeats = rows["repeat"].nunique()
    part.suptitle(f"{task}, {short_name(student)}, {tier} tier, {repeats} repeat{'s' if repeats > 1 else ''}", fontsize=11)
    axes = part.subplots(2, 2)
    ours = rows[(rows["method"] == "rl") & rows["variant"].isin(REWARDS) & (rows["kind"] == "student")]
    teachers = [short_name(name) for name in ours["teachers"].iloc[0]]
    policy = policy_curves(ours, teachers)
    border = policy[policy["stage"] == STAGES[0]]["batch"].max()
    _lines(axes[0, 0], policy[policy["measure"] == "reward"], COLOURS, REWARDS)
    _lines(axes[0, 1], policy[policy["measure"] == "entropy"], COLOURS, REWARDS)
    axes[0, 1].axhline(np.log(2), color="0.5", linewidth=0.8, linestyle="--")
    shares = policy[(policy["variant"] == RL) & policy["measure"].isin([*teachers, "nobody"])]
    colours = dict(zip(teachers, sns.color_palette("deep", len(teachers)))) | {"nobody": "0.45"}
    _lines(axes[1, 0], shares.assign(value=100 * shares["value"], variant=shares["measure"]), colours, {}, each=True)
    seen = student_curves(rows, begun, NAMES)
    colours, words = {**COLOURS, "start": "tab:purple"}, {**NAMES, "start": "pre-training (U-Ensemble)"}
    _lines(axes[1, 1], seen.assign(value=100 * seen["value"]), colours, words, x="epoch", marker="o")
    axes[1, 1].xaxis.get_major_locator().set_params(integer=True)
    axes[1, 0].set_ylim(-2, 102)
    whom = f"whom it follows ({REWARDS[RL].removeprefix('RL-KD ')})"
    titles = ("what the policy is paid", "how sure it is", whom, "the student")
    labels = ("reward, change in its stage", "entropy of a coin, nats", "samples, per cent", "validation accuracy x 100")
    for axis, title, label in zip(axes.ravel(), titles, labels):
        axis.set_title(title, fontsize=10)
        axis.set_ylabel(label, fontsize=9)
        axis.set_xlabel("epoch of the student" if axis is axes[1, 1] else "batch of the policy", fontsize=9)
        axis.tick_params(labelsize=9)
        if axis is not axes[1, 1] and not np.isnan(border):
            axis.axvline(border, color="0.3", linewidth=1, linestyle=":")


def _lines(axis, data: pd.DataFrame, colours: dict, names: dict, x: str = "batch", each: bool = False, **style) -> None:
    """One line per variant, the mean over repeats, with a band of one standard deviation; or (each) with every repeat's."""
    for variant in [v for v in colours if (data["variant"] == v).any()]:
        mine = data[data["variant"] == variant].astype({"value": float})
        mean, spread = (getattr(mine.groupby(x)["value"], name)() for name in ("mean", "std"))
        look = {"color": colours[variant], "label": names.get(variant, variant), "linewidth": 1.8, "markersize": 4, **style}
        axis.plot(mean.index, mean, **look)
        if each:
            for _, run in mine.groupby("repeat"):
                axis.plot(run[x], run["value"], color=colours[variant], linewidth=0.7, alpha=0.6)
        else:
            low, high = mean - spread.fillna(0.0), mean + spread.fillna(0.0)
            axis.fill_between(mean.index, low, high, color=colours[variant], alpha=0.15, linewidth=0)
    axis.legend(fontsize=8, frameon=True)
