"""Figures of any paper, drawn from its frame by a description, in a colour-blind palette.

Figures are made without pyplot, so a notebook or a report shows each one exactly once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from mtkd.evidence.paper import Paper

FULL, REST = sns.color_palette("colorblind")[0], "0.72"
SHADE = {"alpha": 0.15, "linewidth": 0}


def grid(number: int, columns: int, width: float, height: float) -> tuple[Figure, list]:
    """A figure with `number` axes, `columns` a row, each of that size in inches, on a white grid; the rest are hidden."""
    columns = min(columns, number)
    down = -(-number // columns)
    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=(width * columns, height * down), layout="constrained")
        axes = figure.subplots(down, columns, squeeze=False).ravel()
    for axis in axes[number:]:
        axis.set_visible(False)
    return figure, list(axes[:number])


def panels(paper: Paper, rows: pd.DataFrame) -> list[tuple[str, str, str, pd.DataFrame]]:
    """(tier, task, metric, rows with the score times 100) per tier, task and metric that is shown."""
    return [(tier, task, label, group.assign(score=100 * group[column]))
            for (tier, task), group in rows.groupby(["tier", "task"], sort=True)
            for label, column in paper.shown_metrics(group)]


def replicates(paper: Paper, group: pd.DataFrame) -> str:
    number = group[paper.rows.replicate].nunique()
    return f"{number} {paper.rows.replicate}{'' if number == 1 else 's'}"


def bars(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> Figure | None:
    """One panel per tier, task and metric; one bar per value of entry["bar"] in the order and words of entry["names"], the
    first in colour: the mean, ± one standard deviation, and a dot per replicate. None where there is one bar only."""
    column, names = entry["bar"], entry["names"]
    rows = rows[rows[column].isin(names)]
    if rows[column].nunique() < 2:
        return None
    found = panels(paper, rows)
    figure, axes = grid(len(found), 2, 5.2, 0.42 * rows[column].nunique() + 1.1)
    for number, (axis, (tier, task, label, group)) in enumerate(zip(axes, found)):
        group = group.assign(bar=group[column].map(names))
        shown = [words for words in names.values() if (group["bar"] == words).any()]
        colours = {words: FULL if place == 0 else REST for place, words in enumerate(shown)}
        sns.barplot(group, x="score", y="bar", order=shown, hue="bar", palette=colours, errorbar="sd", ax=axis, legend=False,
                    width=0.65, err_kws={"color": "0.25", "linewidth": 1.2})
        sns.stripplot(group, x="score", y="bar", order=shown, color="0.2", size=5, jitter=False, edgecolor="white",
                      linewidth=0.7, ax=axis)
        low, high = group["score"].min(), group["score"].max()
        space = max(1.0, 0.35 * (high - low))
        axis.set_xlim(max(0.0, low - space), min(100.0, high + space))
        axis.set(xlabel=f"{label} x 100", ylabel="")
        axis.set_title(f"{task}, {label}\n{tier} tier, {replicates(paper, group)}", fontsize=10)
        if number % 2 and found[number - 1][:2] == (tier, task):  # the same models, so the same labels as to the left
            axis.set_yticklabels([])
    return figure


def curve(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> Figure | None:
    """One panel per tier, task, metric and value of entry["panel"] (a column): the score times 100, or entry["y"], against
    entry["x"], mean ± one standard deviation; a colour per value of entry["hue"], in the order and words of entry["names"], and
    a line style per value of entry["style"], as entry["styles"] has them. Numbers of the table entry["printed"] of the panel's
    task are level lines. None where x has one value only."""
    x, y, hue, style = entry["x"], entry.get("y", "score"), entry.get("hue"), entry.get("style")
    if rows[x].nunique() < 2:
        return None
    for column, words in ((hue, entry.get("names")), (style, entry.get("styles"))):
        if words:
            rows = rows[rows[column].isin(words)].assign(**{column: rows[column].map(words)})
    split = [entry["panel"]] if "panel" in entry else []
    found = [(*panel[:3], ", ".join(map(str, key)), group) for panel in panels(paper, rows)
             for key, group in (panel[3].groupby(split, sort=False) if split else [((), panel[3])])]
    figure, axes = grid(len(found), 2, 5.2, 3.9)
    shades = colours(entry["names"].values() if "names" in entry else dict.fromkeys(rows[hue])) if hue else {"": FULL}
    dashes = {name: ("", (4, 2), (1, 1.5))[i % 3] for i, name in enumerate(entry.get("styles", {}).values())}
    for axis, (tier, task, label, part, group) in zip(axes, found):
        sns.lineplot(group, x=x, y=y, hue=hue, style=style, palette=shades if hue else None, dashes=dashes or True,
                     errorbar="sd", marker="o", err_kws=SHADE, legend=False, ax=axis, color=None if hue else FULL)
        for number in paper.published if "printed" in entry else ():
            if number["exhibit"] == entry["printed"] and number["row"] == paper.task(task):
                axis.axhline(number["value"], color="0.35", linestyle=":", linewidth=1)
                axis.annotate(f"paper's {number['column']}, {number['value']}", (group[x].min(), number["value"]), fontsize=8,
                              va="bottom", color="0.25")
        axis.set(xlabel=entry.get("xlabel", x), ylabel=entry.get("ylabel", f"{label} x 100"))
        axis.set_xscale(entry.get("scale", "linear"))
        if group[x].nunique() < 10 and (group[x] % 1 == 0).all():
            axis.set_xticks(sorted(group[x].unique()))
        words = ", ".join(filter(None, [f"{tier} tier", replicates(paper, group), part]))
        axis.set_title(f"{task}\n{words}", fontsize=10)
    if hue:
        legend(figure, axes[0], shades, {name: "-" if not dash else (0, dash) for name, dash in dashes.items()})
    return figure


def legend(figure: Figure, axis, colours: dict[str, object], styles: dict[str, object]) -> None:
    """One legend below all panels: what colours say, and what line styles say."""
    handles = [axis.plot([], [], color=colour, marker="o", label=name)[0] for name, colour in colours.items()]
    handles += [axis.plot([], [], color="0.3", linestyle=style, label=name)[0] for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4 if figure.get_figwidth() > 8 else 2, frameon=False,
                  fontsize=9)


def colours(names: Iterable[str]) -> dict[str, tuple]:
    """A colour of the palette per name."""
    names = list(names)
    return dict(zip(names, sns.color_palette("colorblind", len(names))))


KINDS = {"bars": bars, "curve": curve}
