"""RL-KD's table of runs, with the paper's t-test beside a paired one, and the learning curves of its policy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy import stats

from mtkd.evidence.figures import SHADE
from mtkd.evidence.paper import Paper
from mtkd.papers.rl_kd_curves import STAGES

# --- table 5 ----------------------------------------------------------------------------------------------------------


def table5_runs(rows: pd.DataFrame) -> Iterator[tuple[tuple, dict[str, pd.Series]]]:
    """Per task and student: scores times 100 by repeat of Table 5's three rows, RL-KD (reward 3) last."""
    main = rows[(rows["arm"] == "main") & (rows["kind"] == "student")].sort_values("repeat")
    for key, group in main.groupby(["task", "student", "pupil"], sort=True):
        scores = 100 * group.set_index("repeat")["score"]
        method, variant = (group[name].to_numpy() for name in ("method", "variant"))
        yield key, {"W-Ensemble": scores[method == "w"], "LR-Ensemble": scores[method == "lr_dev"],
                    "RL-KD": scores[(method == "rl") & (variant == "reward_3")]}


def compared(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Two-sided p of the paper's test (Student's, two samples, equal variances) and of a paired one, position by position, and
    d_z, the mean difference in standard deviations of the differences. nan where there are fewer than two, or no spread.

    >>> [round(value, 3) for value in compared([3.0, 5.0, 7.0], [2.0, 4.5, 5.5])]      # the differences are 1, 0.5 and 1.5
    [0.555, 0.074, 2.0]
    """
    x, y = np.asarray(ours, float), np.asarray(theirs, float)
    if len(x) < 2 or np.ptp(x) == np.ptp(y) == 0:
        return math.nan, math.nan, math.nan
    d = x - y
    even = d.std(ddof=1) <= 1e-12
    return (float(stats.ttest_ind(x, y).pvalue), math.nan if even else float(stats.ttest_1samp(d, 0.0).pvalue),
            math.nan if even else float(d.mean() / d.std(ddof=1)))


def p_value(p: float) -> str:
    """Four digits; no p is zero.

    >>> p_value(0.01284), p_value(6e-6), p_value(float("nan"))
    ('0.0128', '<0.0001', 'n/a')
    """
    return "n/a" if math.isnan(p) else "<0.0001" if p < 0.0001 else f"{p:.4f}"


def runs(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame | None:
    """Table 5: every run of W-Ensemble, LR-Dev-Ensemble and RL-KD, with the paper's t-test and a paired one beside it."""
    if not (rows["method"] == "rl").any():
        return None

    def lines(scores: dict[str, pd.Series], paired: bool, **where: str):
        for name, mine in scores.items():
            line = where | {"method": name, "runs": ", ".join(f"{x:.1f}" for x in mine), "mean": f"{mine.mean():.2f}",
                            "sd": f"{mine.std(ddof=1):.3f}" if len(mine) > 1 else "-"}
            both = pd.concat([scores["RL-KD"], mine], axis=1, join="inner")
            if name != "RL-KD" and len(both) > 1:
                two, one, dz = compared(*both.to_numpy().T)
                line["p, as in the paper"] = p_value(two)
                line |= {"p, paired": p_value(one), "d_z": "n/a" if math.isnan(dz) else f"{dz:.1f}"} if paired else {}
            if len(mine):
                yield line

    table = [line for tier, mine in rows.groupby("tier") for (task, _, pupil), scores in table5_runs(mine)
             for line in lines(scores, True, source=f"{tier} tier", task=paper.task(task), student=pupil)]
    for task in ("RTE", "MRPC"):
        printed = {name: pd.Series([paper.printed("table5", name, f"{task} run {i}") for i in range(1, 6)])
                   for name in ("W-Ensemble", "LR-Ensemble", "RL-KD")}
        for line in lines(printed, False, source="paper", task=task, student="BERT 3"):
            stated = {"mean": f"{task} Mean", "sd": f"{task} Stdev"}
            table.append(line | {k: str(paper.printed("table5", line["method"], column)) for k, column in stated.items()})
    return pd.DataFrame(table).fillna("-")


# --- learning curves --------------------------------------------------------------------------------------------------


def policy_curves(rows: pd.DataFrame, teachers: list[str]) -> pd.DataFrame:
    """The curves in RL-KD's rows as one long frame: variant, repeat, stage, batch (through both stages), measure, value.

    measure: "reward" (change since the first point of its stage, so that rewards of different scales can be compared),
    "entropy", "nobody", or a teacher's name (the share of samples that follow it).
    """
    found = [pd.DataFrame(columns=["variant", "repeat", "stage", "batch", "measure", "value"])]
    for _, row in rows.iterrows():
        offset = 0
        for stage in STAGES:
            if isinstance(curve := row.get(f"policy {stage}"), dict):
                one = pd.DataFrame({"batch": curve["batch"], "entropy": curve["entropy"], "nobody": curve["empty"]})
                one[teachers], reward = curve["selected"], pd.Series(curve["reward"], dtype=float)
                one = one.assign(reward=reward - reward.dropna().head(1).sum(), batch=one["batch"] + offset)
                found.append(one.melt("batch", var_name="measure").assign(
                    variant=row["variant"], repeat=row["repeat"], stage=stage))
                offset = one["batch"].iloc[-1]
    return pd.concat(found[1:] or found, ignore_index=True).astype({"value": float})


def student_curves(rows: pd.DataFrame, variants: Sequence[str]) -> pd.DataFrame:
    """Validation score after every epoch: variant ("start" for the pre-training that all share), repeat, epoch, value. A curve
    goes on from the score of the epoch that was kept, of the student that it went on from (arm "starts")."""
    starts, found = {(row["variant"], row["repeat"]): row for _, row in rows[rows["arm"] == "starts"].iterrows()}, []
    begun = {(row["repeat"], row["point"]): row for row in starts.values()}
    for row in begun.values():
        found += [{"variant": "start", "repeat": row["repeat"], "epoch": e + 1, "value": v} for e, v in enumerate(row["curve"])]
    for _, row in rows[(rows["arm"] == "main") & (rows["method"] == "rl") & rows["variant"].isin(variants)].iterrows():
        if (before := starts.get((row["variant"], row["repeat"]))) is not None and row["curve"]:
            found += [{"variant": row["variant"], "repeat": row["repeat"], "epoch": len(before["curve"]) + e, "value": v}
                      for e, v in enumerate([before["validation"], *row["curve"]])]
    return pd.DataFrame(found, columns=["variant", "repeat", "epoch", "value"])


def learning(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> Figure | None:
    """Four panels per tier, task and student: the policy's reward, its entropy, whom it follows, the student's validation."""
    groups = []
    for (tier, task, _, pupil), here in rows.groupby(["tier", "task", "student", "pupil"], sort=True):
        ours = here[(here["arm"] == "main") & (here["kind"] == "student") & here["variant"].str.startswith("reward_")]
        policy = policy_curves(ours, list(ours["followed"].iloc[0]) if len(ours) else [])
        repeats = here["repeat"].nunique()
        title = f"{task}, {pupil}, {tier} tier, {repeats} repeat{'s' if repeats > 1 else ''}"
        groups += [(title, here, policy)] if len(policy) else []
    if not groups:
        return None
    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=(10.4, 6.4 * len(groups)), layout="constrained")
        for part, (title, here, policy) in zip(figure.subfigures(len(groups), 1, squeeze=False)[:, 0], groups):
            part.suptitle(title, fontsize=11)
            four_panels(part.subplots(2, 2).ravel(), here, policy, entry["names"])
    return figure


def four_panels(axes, rows: pd.DataFrame, policy: pd.DataFrame, names: dict[str, str]) -> None:
    """The panels of one task and student. policy: its `policy_curves`; names: variants in words, a colour each."""
    colours = dict(zip(names, [*sns.color_palette("colorblind", 3), "0.15", "0.55", "tab:purple"]))
    followed = [measure for measure in dict.fromkeys(policy["measure"]) if measure not in ("reward", "entropy")]
    shades = dict(zip([name for name in followed if name != "nobody"], sns.color_palette("deep"))) | {"nobody": "0.45"}
    shares = policy[(policy["variant"] == "reward_3") & policy["measure"].isin(followed)]
    shares = shares.assign(value=100 * shares["value"], variant=shares["measure"])
    students = student_curves(rows, list(names))
    paid, sure, whom, student = axes
    curve(paid, policy[policy["measure"] == "reward"], "batch", colours, names)
    curve(sure, policy[policy["measure"] == "entropy"], "batch", colours, names)
    curve(whom, shares, "batch", shades, {}, each=True)
    curve(student, students.assign(value=100 * students["value"]), "epoch", colours, names, marker="o")
    sure.axhline(np.log(2), color="0.5", linewidth=0.8, linestyle="--")
    student.xaxis.get_major_locator().set_params(integer=True)
    whom.set_ylim(-2, 102)
    border = policy[policy["stage"] == "pretraining"]["batch"].max()
    for axis, title, words in ((paid, "what the policy is paid", "reward, change in its stage"),
                               (sure, "how sure it is", "entropy of a coin, nats"),
                               (whom, "whom it follows (reward 3)", "samples, per cent"),
                               (student, "the student", "validation accuracy x 100")):
        axis.set_title(title, fontsize=10)
        axis.set_ylabel(words, fontsize=9)
        axis.set_xlabel("epoch of the student" if axis is student else "batch of the policy", fontsize=9)
        if axis is not student and not np.isnan(border):
            axis.axvline(border, color="0.3", linewidth=1, linestyle=":")


def curve(axis, data: pd.DataFrame, x: str, colours: dict, names: dict, each: bool = False, **style) -> None:
    """One line per variant, the mean over repeats, with a band of one standard deviation; or (each) with every repeat's."""
    shown = [variant for variant in colours if (data["variant"] == variant).any()]
    data = data.assign(variant=data["variant"].map(lambda v: names.get(v, v)))
    look = {"data": data, "x": x, "y": "value", "hue": "variant", "hue_order": [names.get(v, v) for v in shown],
            "palette": [colours[v] for v in shown], "ax": axis}
    if each:
        sns.lineplot(**look, units="repeat", estimator=None, linewidth=0.7, alpha=0.6, legend=False)
    sns.lineplot(**look, errorbar=None if each else "sd", err_kws={} if each else SHADE, linewidth=1.8, markersize=4, **style)
    axis.legend(fontsize=8, frameon=True)
    axis.tick_params(labelsize=9)
