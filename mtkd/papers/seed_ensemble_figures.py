"""The seed ensemble's figures 2 to 7, drawn from records with seaborn in a colour-blind palette.

Figures are made without pyplot, so a notebook or a report shows each one exactly once.
"""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from mtkd.evidence.frames import missing
from mtkd.papers import Exhibit, published_value
from mtkd.papers.seed_ensemble_scores import PAPER, combinations, rows_frame, with_time
from mtkd.papers.seed_ensemble_tables import ARM_NAMES, MODE_NAMES, made, printed_name

COLOURS = dict(zip(MODE_NAMES.values(), sns.color_palette("colorblind", 2)))
SHADE = {"alpha": 0.15, "linewidth": 0}
SCORE_STYLES = {"best score": "-", "worst score": "--"}


def _panels(table: pd.DataFrame, columns: int, ratio: float = 0.72):
    """Figure and its [rows, columns] axes, one row per (tier, task) or, for one column only, laid out two a row."""
    panels = list(table.groupby(["tier", "task", "metric"], sort=True))
    per_row = columns if columns > 1 else min(2, len(panels))
    rows = len(panels) if columns > 1 else -(-len(panels) // per_row)
    figure = Figure(figsize=(5.2 * per_row, 5.2 * ratio * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, per_row, squeeze=False)
    return figure, axes if columns > 1 else axes.ravel(), panels


def _score_label(metric: str) -> str:
    return f"{'MCC' if metric == 'mcc' else metric.replace('_', ' ')} x 100"


def _curve_data(records: list[dict], arm: str) -> pd.DataFrame:
    table = combinations(rows_frame(records))
    table = table[(table["arm"] == arm) & table["equal"].astype(bool)]
    return table.assign(teachers=table["mode"].map(MODE_NAMES))


def _score_curves(identifier: str, records: list[dict], arm: str) -> Exhibit:
    """min and max score against k, mean over the combinations of all pools, shaded ± one standard deviation."""
    table = _curve_data(records, arm)
    if table.empty or table["k"].max() < 2:
        return missing(identifier)
    with sns.axes_style("whitegrid"):
        figure, axes, panels = _panels(table, 1)
        for axis, ((tier, task, metric), group) in zip(axes, panels):
            for aggregate, style in (("max", "-"), ("min", "--")):
                data = group.assign(score=100 * group[aggregate])
                sns.lineplot(
                    data, x="k", y="score", hue="teachers", palette=COLOURS, errorbar="sd", marker="o", ax=axis,
                    linestyle=style, legend=False, err_kws=SHADE,
                )  # fmt: skip
            if printed_name(task) == "CIFAR-10":
                for column, style in (("teacher", ":"), ("student", "-.")):
                    value = published_value(PAPER, "fig6", "CIFAR-10", column)
                    axis.axhline(value, color="0.35", linestyle=style, linewidth=1)
                    axis.annotate(f"paper's {column}, {value}", (1, value), fontsize=8, va="bottom", color="0.25")
            axis.set(xlabel="number of teachers k", ylabel=_score_label(metric), xticks=sorted(group["k"].unique()))
            axis.set_title(_panel_title(arm, tier, task, group), fontsize=10)
        _legend(figure, axes[0], SCORE_STYLES)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
    words = "Solid: largest, dashed: smallest score of each combination of k teachers, averaged over combinations; "
    words += "shaded: ± one standard deviation over the combinations of all pools."
    return made(identifier, table, records, figure, words)


def _panel_title(arm: str, tier: str, task: str, group: pd.DataFrame) -> str:
    pools = group["pool"].nunique()
    return f"{ARM_NAMES.get(arm, arm)}, {task}\n{tier} tier, {pools} pool{'s' if pools != 1 else ''} of teachers"


def _legend(figure: Figure, axis, styles: dict[str, str]) -> None:
    """One legend for all panels: colour says how many teachers, line style what `styles` says."""
    handles = [axis.plot([], [], color=colour, marker="o", label=name)[0] for name, colour in COLOURS.items()]
    handles += [axis.plot([], [], color="0.3", linestyle=style, label=name)[0] for name, style in styles.items()]
    columns = 4 if figure.get_figwidth() > 8 else 2
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def _time_curves(identifier: str, records: list[dict], arm: str) -> Exhibit:
    """min and max score against seconds, left without and right with the teachers' training counted."""
    table = _curve_data(records, arm)
    if table.empty or table["k"].max() < 2:
        return missing(identifier)
    with sns.axes_style("whitegrid"):
        figure, axes, panels = _panels(table, 2)
        for row, ((tier, task, metric), group) in zip(axes, panels):
            for axis, count in zip(row, (False, True)):
                timed = with_time(group, count)
                for mode, curve in timed.groupby("teachers"):
                    means = curve.groupby("k")[["time_s", "min", "max"]].mean()
                    spread = curve.groupby("k")[["min", "max"]].std().fillna(0.0)
                    for name, style in (("max", "-"), ("min", "--")):
                        low, high = 100 * (means[name] - spread[name]), 100 * (means[name] + spread[name])
                        axis.plot(means["time_s"], 100 * means[name], style, marker="o", color=COLOURS[mode])
                        axis.fill_between(means["time_s"], low, high, color=COLOURS[mode], alpha=0.15, linewidth=0)
                axis.set(xlabel="seconds per combination", ylabel=_score_label(metric))
                counted = "teacher training counted" if count else "teacher training not counted"
                axis.set_title(f"{_panel_title(arm, tier, task, group)}, {counted}", fontsize=10)
        _legend(figure, axes[0][0], SCORE_STYLES)
    words = "Each point is one k, from k = 1 at the left; solid: largest, dashed: smallest score of a combination, "
    words += "shaded: ± one standard deviation over combinations. Time: all students of a combination, and scoring "
    words += "each of its teachers once."
    return made(identifier, table, records, figure, words)


def fig2(records: list[dict]) -> Exhibit:
    """TinyBERT: worst and best score against the number of teachers."""
    return _score_curves(f"{PAPER}.fig2", records, "tinybert")


def fig3(records: list[dict]) -> Exhibit:
    """DistilBERT: worst and best score against the number of teachers."""
    return _score_curves(f"{PAPER}.fig3", records, "distilbert")


def fig4(records: list[dict]) -> Exhibit:
    """TinyBERT: worst and best score against time."""
    return _time_curves(f"{PAPER}.fig4", records, "tinybert")


def fig5(records: list[dict]) -> Exhibit:
    """DistilBERT: worst and best score against time."""
    return _time_curves(f"{PAPER}.fig5", records, "distilbert")


def fig6(records: list[dict]) -> Exhibit:
    """ResNet: worst and best score against the number of teachers; on CIFAR-10 with the paper's two accuracies."""
    return _score_curves(f"{PAPER}.fig6", records, "resnet")


def fig7(records: list[dict]) -> Exhibit:
    """ResNet: seconds of training against the number of teachers, with and without the teachers' own."""
    table = _curve_data(records, "resnet")
    if table.empty or table["k"].max() < 2:
        return missing(f"{PAPER}.fig7")
    with sns.axes_style("whitegrid"):
        figure, axes, panels = _panels(table, 1)
        for axis, ((tier, task, _), group) in zip(axes, panels):
            for count, style in ((False, "-"), (True, "--")):
                sns.lineplot(
                    with_time(group, count), x="k", y="time_s", hue="teachers", palette=COLOURS, errorbar="sd", ax=axis,
                    marker="o", linestyle=style, legend=False, err_kws=SHADE,
                )  # fmt: skip
            ks = sorted(group["k"].unique())
            axis.set(xlabel="number of teachers k", ylabel="seconds per combination", xticks=ks)
            axis.set_title(_panel_title("resnet", tier, task, group), fontsize=10)
            axis.set_ylim(bottom=0)
        _legend(figure, axes[0], {"without teacher training": "-", "with teacher training": "--"})
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
    words = "Seconds to train all students of a combination of k teachers and to score its teachers; shaded: ± one "
    words += "standard deviation over combinations."
    return made(f"{PAPER}.fig7", table, records, figure, words)
