"""Figures 5.1 to 5.8 (per-class difference from one teacher, as bars), and the pictures that the notebook looks at.

Figures are made without pyplot, so a notebook or a report shows each one exactly once.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from mtkd.papers import Exhibit
from mtkd.papers.domain_expertise_scores import (
    PAPER,
    STUDENTS,
    class_differences,
    class_of,
    data_set,
    for_data_set,
    plain_students,
    published_differences,
    roles,
    rows_frame,
    source,
    with_printed,
)
from mtkd.papers.domain_expertise_tables import made, missing, teacher_names

FIGURES = {
    "fig5_1": ("EMOTION", "BERT"), "fig5_2": ("EMOTION", "DeBERTa"), "fig5_3": ("EMOTION", "RoBERTa"),
    "fig5_4": ("MIND", "BERT"), "fig5_5": ("MIND", "RoBERTa"),
    "fig5_6": ("Twitter-Emotion", "BERT"), "fig5_7": ("Twitter-Emotion", "DeBERTa"), "fig5_8": ("Twitter-Emotion", "RoBERTa"),
}  # fmt: skip
COLOURS = dict(zip(STUDENTS.values(), sns.color_palette("colorblind", 3)))


def bars(panels: list[tuple[str, pd.DataFrame]]) -> Figure:
    """One row of bars per panel: classes side by side, a bar per student, ± one standard deviation over repeats.

    panels: title and a frame with the columns class, student, difference (and several lines per bar, one a repeat).
    """
    widest = max(data["class"].nunique() for _, data in panels)
    figure = Figure(figsize=(max(6.4, 1.15 * widest + 1.5), 2.9 * len(panels) + 0.5), layout="constrained")
    with sns.axes_style("whitegrid"):
        axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axis, (title, data) in zip(axes, panels):
        order = list(dict.fromkeys(data["class"]))
        sns.barplot(data, x="class", y="difference", hue="student", hue_order=list(COLOURS), order=order, palette=COLOURS,
                    errorbar="sd", err_kws={"linewidth": 1.2, "color": "0.25"}, capsize=0.15, legend=False, ax=axis)
        axis.axhline(0, color="0.2", linewidth=1)
        axis.set(xlabel="", ylabel="points above the teacher")
        axis.set_title(title, fontsize=10)
    handles = [Patch(color=colour, label=name) for name, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _figure(identifier: str, name: str, role: str) -> Callable[[list[dict]], Exhibit]:
    def make(records: list[dict]) -> Exhibit:
        frame = for_data_set(rows_frame(records), name)
        panels = difference_panels(frame, role)
        if not panels:
            return missing(identifier)
        theirs = published_differences(name)
        theirs = theirs[theirs["role"] == role].assign(student=theirs["method"].map(STUDENTS))
        if name == "Twitter-Emotion":
            theirs["class"] = [with_printed(name, class_of(name, printed)) for printed in theirs["class"]]
        words = f"Recall of each student minus that of the teacher in the role of {role}, in points; ± one standard "
        words += "deviation over repeats. The thesis's bars are computed from its per-class table (one run each)."
        if name == "Twitter-Emotion":
            words += " Its class labels are exchanged (see the misprints): both panels name the class that its numbers allow, "
            words += "and beside it the label that it prints where that is another one."
        figure = bars([*panels, (f"the thesis: {name}, difference from {role}", theirs)])
        return made(identifier, frame, records, figure, words, name)

    return make


def difference_panels(frame: pd.DataFrame, role: str) -> list[tuple[str, pd.DataFrame]]:
    """Per tier and task: a title and the differences of the three students from the teacher in this role."""
    panels = []
    for (tier, task), rows in frame.groupby(["tier", "task"], sort=True):
        teacher = roles(teacher_names(rows)).get(role)
        students = plain_students(rows)
        found = class_differences(rows, students[students["method"].isin(STUDENTS)])
        found = found[found["teacher"] == teacher]
        if len(found):
            where = source(tier, task) + (f": {task}" if data_set(task) else "")
            repeats = found["repeat"].nunique()
            title = f"{where}, difference from {teacher}, {repeats} repeat{'s' if repeats > 1 else ''}"
            labels = [with_printed(data_set(task) or "", label) for label in found["class"]]
            panels.append((title, found.assign(**{"student": found["method"].map(STUDENTS), "class": labels})))
    return panels


BAR_FIGURES = {f"{PAPER}.{name}": _figure(f"{PAPER}.{name}", *what) for name, what in FIGURES.items()}


def expertise_map(recalls: np.ndarray, names: list[str], classes: list[str], best: list[int], title: str = "") -> Figure:
    """Recall of every teacher on every class, [T, C], as a heat map; the expert of each class is framed."""
    figure = Figure(figsize=(max(5.6, 0.95 * len(classes) + 2.6), 0.55 * len(names) + 1.5), layout="constrained")
    axis = figure.subplots()
    shown = 100 * np.asarray(recalls, dtype=float)
    sns.heatmap(shown, annot=True, fmt=".0f", cmap="viridis", ax=axis, xticklabels=classes, yticklabels=names,
                vmin=10 * np.floor(np.nanmin(shown) / 10), vmax=100, cbar_kws={"label": "recall, per cent"})
    for column, row in enumerate(best):
        axis.add_patch(Rectangle((column + 0.04, row + 0.04), 0.92, 0.92, fill=False, edgecolor="crimson", linewidth=2.5))
    axis.set_title(title, fontsize=10)
    axis.tick_params(axis="y", rotation=0)
    axis.tick_params(axis="x", rotation=30)
    for label in axis.get_xticklabels():
        label.set_horizontalalignment("right")
    return figure


def followed_bars(shares: pd.DataFrame, title: str = "") -> Figure:
    """Who is followed on the samples of each class, stacked. shares: index class, a column per teacher, rows sum to 1."""
    figure = Figure(figsize=(7.6, 0.38 * len(shares) + 1.7), layout="constrained")
    with sns.axes_style("whitegrid"):
        axis = figure.subplots()
    colours = dict(zip(shares.columns, sns.color_palette("colorblind", len(shares.columns))))
    (100 * shares[::-1]).plot.barh(stacked=True, ax=axis, color=colours, width=0.8)
    axis.set(xlabel="share of the class's training samples, per cent", ylabel="", xlim=(0, 100))
    axis.set_title(title, fontsize=10)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=len(shares.columns), frameon=False, fontsize=9)
    axis.grid(visible=False, axis="y")
    return figure


def followed_over_steps(shares: pd.DataFrame, title: str = "") -> Figure:
    """Who is followed at each step of training: a line per teacher. shares: index step, a column per teacher."""
    figure = Figure(figsize=(7.6, 2.9), layout="constrained")
    with sns.axes_style("whitegrid"):
        axis = figure.subplots()
    colours = sns.color_palette("colorblind", len(shares.columns))
    for colour, name in zip(colours, shares.columns):
        axis.plot(shares.index, 100 * shares[name], color=colour, label=name, linewidth=1.2)
    axis.set(xlabel="step", ylabel="share of the batch, per cent", ylim=(0, 100), xlim=(shares.index.min(), shares.index.max()))
    axis.set_title(title, fontsize=10)
    figure.legend(loc="outside lower center", ncols=len(shares.columns), frameon=False, fontsize=9)
    return figure
