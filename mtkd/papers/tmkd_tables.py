"""TMKD's tables 2 to 9 and figures 2 and 3 from records, with the paper's numbers below ours, and everything about speed."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from mtkd.evidence.exhibits import other_cells, score_cells, table, with_paper
from mtkd.evidence.figures import grid, replicates
from mtkd.evidence.frame import in_order, per_second
from mtkd.evidence.paper import Paper

BLUE, GREY, ORANGE = (sns.color_palette("colorblind")[i] for i in (0, 7, 1))


# --- rows that belong together --------------------------------------------------------------------------------------------


def beside(every: pd.DataFrame, rows: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The rows of an arm that come from the experiments (tier, parameters and task) of `rows`; every: the rows of all settings.

    Another experiment of the tier, say one that only times throw-away teachers for Table 2, may have more repeats and so be
    the one that an arm shows; its teachers and speeds say nothing of these students.
    """
    of = ["tier", "setting", "task"]
    same = pd.MultiIndex.from_frame(every[of]).isin(pd.MultiIndex.from_frame(rows[of]))
    return every[(every["arm"] == arm) & same]


def one_ruler(speeds: pd.DataFrame) -> pd.DataFrame:
    """One measurement of every network and repeat: where several runs timed it, that of the run that timed the most of these
    networks in the repeat (Bi-LSTMs, a comparison of their own, do not count), so that numbers that stand side by side were
    measured side by side where they can be."""
    of = ["tier", "setting", "repeat"]
    timed = speeds.assign(timed=~speeds["bilstm"]).groupby([*of, "run"])["timed"].transform("sum")
    ordered = speeds.assign(timed=timed).sort_values(["timed", "run"], ascending=[False, True], kind="stable")
    return ordered.drop_duplicates([*of, "task", "kind", "method", "student"]).drop(columns="timed").sort_index()


def in_tasks(rows: pd.DataFrame) -> list[str]:
    """Tasks, those that the pool belongs to before those that the student is transferred to."""
    return list(in_order(rows, {"role": ["target", "transfer"], "task": None})["task"].unique())


def with_speed(rows: pd.DataFrame, speeds: pd.DataFrame) -> pd.DataFrame:
    """The rows with the speed, in words, of the network that each is built like: what it has learned makes no difference."""
    qps = {where: per_second(values) for where, values in speeds.dropna(subset="qps").groupby(["tier", "network"])["qps"]}
    return rows.assign(speed=[qps.get(where) for where in zip(rows["tier"], rows["network"])])


# --- tables ---------------------------------------------------------------------------------------------------------------


def everyone(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame:
    """Table 4: teachers, the undistilled student, single-stage and two-stage students: scores, speed and size."""
    every = paper.frame(records, every=True)
    speeds = beside(every, rows, "speed")
    teachers = beside(every, rows, "teachers").query("variant == 'best' or kind == 'ensemble' and n > 1")
    used = pd.concat([teachers.assign(name=[paper.label(row) for _, row in teachers.iterrows()]), rows], ignore_index=True)
    return table(paper, entry, with_speed(used, one_ruler(speeds[speeds["student"].isin({"", *rows["student"]})])), records)


def teacher_speeds(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame:
    """Table 2: speed and size of every teacher that was timed: here runs with other parameters have their place."""
    rows = one_ruler(rows)
    timed = rows.groupby(["tier", "kind", "model"])["setting"].transform(lambda setting: setting.mode().iloc[0])
    rows = rows[rows["setting"] == timed].assign(latency=1000 / rows["qps"])
    several = rows["n"].map("{:.0f} of them".format)
    return table(paper, entry, rows.assign(name=several.where(rows["kind"] == "ensemble", rows["model"])), records)


def sizes_and_pools(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame | None:
    """Table 3: samples per split and pool, and mean numbers of words, the paper's data sets below."""
    data, found = paper.data_frame(records), {}
    for (tier, task), group in data.groupby(["tier", "task"], sort=False) if len(data) else ():
        first, is_pool = group.iloc[0], group["split"].iloc[0].startswith("pool")
        names = [split.replace("pool ", "train (") + ")" * is_pool for split in group["split"]]
        found[f"{tier} tier", task] = {name: f"{n:,}" for name, n in zip(names, group["samples"])} | {
            "question words": f"{first['words_first']:.2f}",
            "answer words": "-" if pd.isna(first["words_second"]) else f"{first['words_second']:.2f}",
            "stands in for": "CommQA-Unlabeled" if is_pool else paper.printed_task(task) or paper.stand_ins.get(task, "-")}
    return with_paper(paper, entry, found) if found else None


def largest(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame:
    """Table 8: teacher, KD, MKD and TMKD with the largest pool in use."""
    found: dict[tuple, dict] = {}
    names = {("one", ""): "KD", ("many", ""): "MKD"}
    for (tier, _), group in rows.groupby(["tier", "task"], sort=True):
        of = f" ({int(group['n'].max())} teachers, pool of {int(group['pool_size'].max()):,})"
        for (kind, method, pool), part in group.groupby(["kind", "method", "pool"], sort=False):
            name = "teacher" if kind == "teacher" else names.get((method, pool), "TMKD")
            header, cell = next(iter(score_cells(paper, part).items()))
            found.setdefault((f"{tier} tier", name), {})[header + of] = cell
    return with_paper(paper, entry, found)


def by_layers(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame | None:
    """Table 9: TMKD base by number of student layers: scores and queries per second."""
    if rows["layers"].nunique() < 2:
        return None
    speeds = beside(paper.frame(records, every=True), rows, "speed")
    rows = with_speed(rows, one_ruler(speeds[(speeds["method"] == "many") & speeds["student"].isin(rows["student"])]))
    return table(paper, entry, rows.assign(name=rows["layers"].map("{:.0f}".format)), records)


def all_speeds(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame:
    """Everything that was measured about speed, teachers and students by the same ruler: beside the students that the tables
    show, or, in a tier without any, what there is. entry["heads"]: what a method's students are built like."""
    used = beside(paper.frame(records, every=True), rows[rows["arm"].isin(("methods", "layers"))], "speed")
    rest = rows[(rows["arm"] == "speed") & ~rows["tier"].isin(used["tier"])]
    used = one_ruler(pd.concat([used, rest], ignore_index=True)).query("kind != 'ensemble' or n > 1")
    used = used.assign(network=[paper.label(row) if row["kind"] in ("teacher", "ensemble") else
                                f"{row['built']}, {entry['heads'][row['method']]}" for _, row in used.iterrows()])
    return pd.DataFrame([{"tier": tier, "network": network} | other_cells(entry, group)
                         for (tier, network), group in used.groupby(["tier", "network"], sort=False)])


# --- figures --------------------------------------------------------------------------------------------------------------


def stages(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> Figure | None:
    """Figure 2: TKD, MKD and TMKD side by side on every task, and the paper's bars, which follow from its tables."""
    names, panels = list(entry["names"]), []
    rows = rows.assign(name=["TKD" if method == "one" else "TMKD" if pool else "MKD"
                             for method, pool in zip(rows["method"], rows["pool"])], score=100 * rows["score"])
    if rows["name"].nunique() < 2:
        return None
    for tier, group in rows.groupby("tier", sort=True):
        metrics = group.groupby("task")["metric"].first()
        heads = {task: f"{paper.task(task)}\n{paper.metric(metric)}" for task, metric in metrics.items()}
        group = group.assign(where=group["task"].map(heads))
        panels.append((f"{tier} tier, {replicates(paper, group)}", group, [heads[task] for task in in_tasks(group)]))
    theirs = pd.DataFrame([{"name": name, "where": number["column"], "score": float(number["value"])}
                           for name, (table, row) in entry["names"].items() for number in paper.published
                           if (number["exhibit"], number["row"]) == (table, row) and number["unit"] == "accuracy in per cent"])
    panels.append(("the paper", theirs, list(dict.fromkeys(theirs["where"]))))
    widths = [len(order) + 0.8 for _, _, order in panels]
    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=(1.25 * sum(widths) + 0.8, 3.4), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    for axis, (title, data, order) in zip(axes, panels):
        sns.barplot(data, x="where", y="score", hue="name", order=order, hue_order=names, palette=[GREY, ORANGE, BLUE],
                    errorbar="sd", ax=axis, err_kws={"color": "0.25", "linewidth": 1.2})
        low, high = data["score"].min(), data["score"].max()
        axis.set_ylim(max(0.0, low - 0.3 * (high - low) - 1), min(100.0, high + 0.15 * (high - low) + 1))
        axis.set(xlabel="", ylabel="score x 100" if axis is axes[0] else "")
        axis.set_title(title, fontsize=10)
        handles, words = axis.get_legend_handles_labels()
        axis.get_legend().remove()
    figure.legend(handles, words, loc="outside lower center", ncols=3, frameon=False)
    return figure


def curves(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> Figure | None:
    """Figure 3 and growing pools: per tier and task the mean score against entry["x"] with ± one standard deviation, a dot for
    every repeat; with entry["teacher"] the best teacher's mean as a dashed line."""
    x, every = entry["x"], paper.frame(records, every=True)
    rows = rows.assign(**{x: rows[x].fillna(0)}, score=100 * rows["score"])
    if rows[x].nunique() < 2:
        return None
    panels = [(tier, task, group[group["task"] == task])
              for tier, group in rows.groupby("tier") for task in in_tasks(group)]
    figure, axes = grid(len(panels), len(panels), 3.9, 3.1)
    for axis, (tier, task, group) in zip(axes, panels):
        by = group.groupby(x)["score"]
        mean, sd = by.mean(), by.std(ddof=1).fillna(0.0)
        axis.fill_between(mean.index, mean - sd, mean + sd, color=BLUE, alpha=0.18, linewidth=0)
        axis.plot(mean.index, mean, color=BLUE, marker="o", markersize=4, label="student")
        axis.plot(group[x], group["score"], color="0.35", marker=".", markersize=4, linestyle="none", alpha=0.7)
        best = beside(every, group, "teachers").query("variant == 'best'")["score"]
        if entry.get("teacher") and len(best):
            axis.axhline(100 * best.mean(), color="0.3", linestyle="--", linewidth=1, label="best teacher")
            axis.legend(frameon=False, fontsize=8, loc="lower right")
        axis.set(xlabel=entry["xlabel"], ylabel=f"{paper.metric(group['metric'].iloc[0])} x 100")
        axis.set_title(f"{paper.task(task)}, {tier} tier, {replicates(paper, group)}", fontsize=10)
        if x == "pool_size":  # from nothing to sizes that double: logarithmic but for the first step
            sizes = mean.index.astype(int).tolist()
            axis.set_xscale("symlog", linthresh=sizes[1])
            axis.set_xticks(sizes, [f"{n:,}" for n in sizes], rotation=30)
            axis.minorticks_off()
    return figure


DRAWS = {"everyone": everyone, "teacher_speeds": teacher_speeds, "sizes_and_pools": sizes_and_pools,
         "largest": largest, "by_layers": by_layers, "all_speeds": all_speeds, "stages": stages, "curves": curves}
