"""MT-BERT's figures 3 to 5: bars with standard deviations, and a dot for every repeat."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from mtkd.evidence.frames import missing
from mtkd.papers import Exhibit
from mtkd.papers.mt_bert_scores import ABLATIONS, METHODS, PAPER, rows_frame, shown_metrics
from mtkd.papers.mt_bert_tables import made

FULL = sns.color_palette("colorblind")[0]
REST = "0.72"


def bars(identifier: str, records: list[dict], arm: str, column: str, names: dict[str, str]) -> Exhibit:
    """One panel per tier, task and metric; one bar per value of `column` in the order of `names`, the first in colour."""
    frame = rows_frame(records)
    used = frame[(frame["arm"] == arm) & frame[column].isin(names)]
    if used.empty or used[column].nunique() < 2:
        return missing(identifier)
    panels = [(tier, task, label, values, group) for (tier, task), group in used.groupby(["tier", "task"], sort=True)
              for label, values in shown_metrics(group)]  # fmt: skip
    with sns.axes_style("whitegrid"):
        height = 0.42 * used[column].nunique() + 1.1
        rows = -(-len(panels) // 2)
        figure = Figure(figsize=(4.9 * min(2, len(panels)) + 1.2, height * rows), layout="constrained")
        axes = figure.subplots(rows, min(2, len(panels)), squeeze=False).ravel()
        for axis, panel in zip(axes, panels):
            _panel(axis, column, names, *panel)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        for right in range(1, len(panels), 2):
            if panels[right][4] is panels[right - 1][4]:  # the same models, so the same labels as to the left
                axes[right].set_yticklabels([])
    words = "Bars: mean over repeats, lines ± one standard deviation, dots the repeats themselves. The axis does not start "
    words += "at zero."
    return made(identifier, used, records, figure, words)


def _panel(axis, column: str, names: dict, tier: str, task: str, label: str, values: str, group: pd.DataFrame) -> None:
    shown = [name for name in names if (group[column] == name).any()]
    data = group.assign(score=100 * group[values], bar=group[column].map(names))
    order = [names[name] for name in shown]
    colours = {names[name]: FULL if number == 0 else REST for number, name in enumerate(shown)}
    sns.barplot(data, x="score", y="bar", order=order, hue="bar", palette=colours, errorbar="sd", ax=axis, legend=False,
                width=0.65, err_kws={"color": "0.25", "linewidth": 1.2})  # fmt: skip
    sns.stripplot(data, x="score", y="bar", order=order, color="0.2", size=5, jitter=False, edgecolor="white", linewidth=0.7,
                  ax=axis)
    scores = data["score"].dropna()
    margin = max(1.0, 0.35 * (scores.max() - scores.min()))
    axis.set_xlim(max(0.0, scores.min() - margin), min(100.0, scores.max() + margin))
    repeats = group["repeat"].nunique()
    axis.set(xlabel=f"{label} x 100", ylabel="")
    axis.set_title(f"{task}, {label}\n{tier} tier, {repeats} repeat{'s' if repeats != 1 else ''}", fontsize=10)


def fig3(records: list[dict]) -> Exhibit:
    """MT-BERT against two methods that ensemble the teachers' outputs."""
    names = {name: METHODS[name] for name in ("mt_bert", "you_2017", "liu_2020")}
    return bars(f"{PAPER}.fig3", records, "ensembles", "method", names)


def fig4(records: list[dict]) -> Exhibit:
    """MT-BERT without co-finetuning and without weighting the distillation loss."""
    names = {name: ABLATIONS[name] for name in ("full", "no_cofinetuning", "no_weighting")}
    return bars(f"{PAPER}.fig4", records, "ablations", "variant", names)


def fig5(records: list[dict]) -> Exhibit:
    """MT-BERT without each of its three losses."""
    names = {name: ABLATIONS[name] for name in ("full", "no_hidden", "no_distillation", "no_task")}
    return bars(f"{PAPER}.fig5", records, "ablations", "variant", names)
