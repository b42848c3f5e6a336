"""TMKD's figures 2 and 3, and the curve over growing pools."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from mtkd.evidence.frames import missing
from mtkd.papers import Exhibit, load
from mtkd.papers.tmkd_scores import (
    METRICS,
    PAPER,
    beside,
    largest_pool,
    pick,
    printed_name,
    rows_frame,
    target_first,
    transformers,
)
from mtkd.papers.tmkd_tables import made

BLUE, GREY, ORANGE = (sns.color_palette("colorblind")[i] for i in (0, 7, 1))
STAGES = {"TKD": ("one", True), "MKD": ("many", False), "TMKD": ("many", True)}  # method, and whether a pool comes first
PRINTED = {"TKD": ("table5", "TKD"), "MKD": ("table6", "MKD"), "TMKD": ("table4", "TMKD_large")}  # see the notes
COLOURS = {"TKD": GREY, "MKD": ORANGE, "TMKD": BLUE}


def fig2(records: list[dict]) -> Exhibit:
    """TKD, MKD and TMKD side by side on every task, and the paper's bars, which follow from its tables."""
    frame = rows_frame(records)
    methods = transformers(frame[frame["arm"] == "methods"])
    pools = {tier: largest_pool(rows) for tier, rows in methods.groupby("tier", sort=True)}
    used = pd.concat([methods.iloc[:0].assign(name=""), *(
        pick(methods, method, pools[tier] if pooled else "", tier=tier).assign(name=name)
        for tier in pools for name, (method, pooled) in STAGES.items())])  # fmt: skip
    if used["name"].nunique() < 2:
        return missing(f"{PAPER}.fig2")
    panels = []
    for tier, rows in used.groupby("tier", sort=True):
        labels = {task: f"{printed_name(task) or task}\n{METRICS.get(metric, metric)}"
                  for task, metric in rows.groupby("task")["metric"].first().items()}  # fmt: skip
        repeats = rows["repeat"].nunique()
        data = rows.assign(score=100 * rows["score"], where=rows["task"].map(labels))
        title = f"{tier} tier, {repeats} repeat{'s' if repeats > 1 else ''}"
        panels.append((title, data, [labels[task] for task in target_first(rows)]))
    paper = paper_bars()
    panels.append(("the paper", paper, list(dict.fromkeys(paper["where"]))))
    with sns.axes_style("whitegrid"):
        widths = [len(order) + 0.8 for _, _, order in panels]
        figure = Figure(figsize=(1.25 * sum(widths) + 0.8, 3.4), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    for number, (axis, (title, data, order)) in enumerate(zip(axes, panels)):
        sns.barplot(data, x="where", y="score", hue="name", order=order, hue_order=list(STAGES), palette=COLOURS, errorbar="sd",
                    ax=axis, legend=number == 0, err_kws={"color": "0.25", "linewidth": 1.2})  # fmt: skip
        low, high = data["score"].min(), data["score"].max()
        axis.set_ylim(max(0.0, low - 0.3 * (high - low) - 1), min(100.0, high + 0.15 * (high - low) + 1))
        axis.set(xlabel="", ylabel="score x 100" if number == 0 else "")
        axis.set_title(title, fontsize=10)
    handles, names = axes[0].get_legend_handles_labels()
    axes[0].get_legend().remove()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    words = "Bars: mean over repeats, lines ± one standard deviation. The axes do not start at zero. TKD and TMKD were "
    words += "pre-trained on the larger pool that was run: "
    words += ", ".join(f"{pool} ({tier} tier)" for tier, pool in pools.items() if pool in set(used["pool"])) + "."
    return made(f"{PAPER}.fig2", used, records, figure, words)


def paper_bars() -> pd.DataFrame:
    """The paper's numbers for Figure 2, from its tables: columns name, where, score."""
    rows = [{"name": name, "where": entry["column"], "score": float(entry["value"])}
            for name, (table, row) in PRINTED.items() for entry in load(PAPER).published
            if (entry["exhibit"], entry["row"]) == (table, row) and entry["unit"] == "accuracy in per cent"]  # fmt: skip
    return pd.DataFrame(rows)


def curves(panels: list, column: str, label: str, words: list[str]) -> Figure:
    """One panel per (title, rows, level): means over repeats against `column` with ± one standard deviation, a dot for
    every repeat; `level` is the best teacher's mean score, a dashed line (None: no line)."""
    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=(3.9 * len(panels) + 0.4, 3.1), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, rows, level), what in zip(axes, panels, words):
        by = (100 * rows["score"]).groupby(rows[column])
        mean, sd = by.mean(), by.std(ddof=1).fillna(0.0)
        axis.fill_between(mean.index, mean - sd, mean + sd, color=BLUE, alpha=0.18, linewidth=0)
        axis.plot(mean.index, mean, color=BLUE, marker="o", markersize=4, label="student")
        axis.plot(rows[column], 100 * rows["score"], color="0.35", marker=".", markersize=4, linestyle="none", alpha=0.7)
        if level is not None:
            axis.axhline(100 * level, color="0.3", linestyle="--", linewidth=1, label="best teacher")
            axis.legend(frameon=False, fontsize=8, loc="lower right")
        axis.set(xlabel=label, ylabel=f"{what} x 100")
        axis.set_title(title, fontsize=10)
    return figure


def panels_of(records: list[dict], used: pd.DataFrame) -> tuple[list, list[str]]:
    """(title, rows, mean of the best teachers of the same runs) per tier and task, and the name of each panel's metric."""
    every = rows_frame(records, every=True)
    panels, names = [], []
    for tier, rows in used.groupby("tier", sort=True):
        for task in target_first(rows):
            group = rows[rows["task"] == task]
            repeats = group["repeat"].nunique()
            teachers = beside(every, group, "teachers")
            best = teachers.loc[teachers["variant"] == "best", "score"]
            title = f"{printed_name(task) or task}, {tier} tier, {repeats} repeat{'s' if repeats > 1 else ''}"
            panels.append((title, group, best.mean() if len(best) else None))
            metric = group["metric"].iloc[0]
            names.append(METRICS.get(metric, metric))
    return panels, names


def fig3(records: list[dict]) -> Exhibit:
    """TMKD against the share alpha of the soft labels."""
    frame = rows_frame(records)
    used = frame[frame["arm"] == "alpha"]
    if used["alpha"].nunique() < 2:
        return missing(f"{PAPER}.fig3")
    panels, names = panels_of(records, used)
    figure = curves([(title, rows, None) for title, rows, _ in panels], "alpha", "share of the soft labels (alpha)", names)
    words = "TMKD base. Line: mean over repeats, band ± one standard deviation, dots the repeats. At 1.0 there is no gold "
    words += "label, and the soft heads alone predict."
    return made(f"{PAPER}.fig3", used, records, figure, words)


def pools(records: list[dict]) -> Exhibit:
    """TMKD against the size of the pool, from none (MKD) to the largest."""
    frame = rows_frame(records)
    used = frame[frame["arm"] == "pools"].assign(pool_size=lambda f: f["pool_size"].fillna(0))
    if used["pool_size"].nunique() < 2:
        return Exhibit(f"{PAPER}.pools", "growing pools", "The section `pools` was not run.")
    panels, names = panels_of(records, used)
    figure = curves(panels, "pool_size", "texts in the pool (0: MKD)", names)
    for axis in figure.axes:
        sizes = sorted({int(x) for line in axis.lines[:1] for x in np.atleast_1d(line.get_xdata())})
        if len(sizes) > 2:
            axis.set_xscale("symlog", linthresh=sizes[1])
        axis.set_xticks(sizes, [f"{n:,}" for n in sizes], rotation=30)
        axis.minorticks_off()
    words = "TMKD by the number of unlabelled texts in stage 1; line: mean over repeats, band ± one standard deviation, dots "
    words += "the repeats; dashed: the best teacher. More texts are also more steps."
    return Exhibit(f"{PAPER}.pools", "growing pools", words, figure)
