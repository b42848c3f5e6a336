"""RL-KD's tables 1 to 5, from records, each above the paper's own."""

from __future__ import annotations

import pandas as pd

from mtkd.evidence import frames
from mtkd.evidence.frames import missing, points, split_counts
from mtkd.papers import Exhibit, load, published_value
from mtkd.papers.rl_kd_scores import (
    ENSEMBLES,
    METHODS,
    PAPER,
    REWARDS,
    RL,
    STAND_INS,
    TASKS,
    method_name,
    printed_name,
    rows_frame,
    short_name,
)
from mtkd.papers.rl_kd_spread import compared

ORDER = {name: rank for rank, name in enumerate(METHODS)} | {"single": -1}
RUNS = {"w": "W-Ensemble", "lr_dev": "LR-Ensemble", "rl": "RL-KD"}  # Table 5's rows


def made(identifier: str, frame: pd.DataFrame, records: list[dict], content, words: str) -> Exhibit:
    """An exhibit whose caption also says how many repeats each tier has, and of how many settings validation chose."""
    repeats = ""
    if "repeat" in frame:
        counts = frame.groupby("tier")["repeat"].nunique()
        repeats = "Independent repeats: " + ", ".join(f"{n} ({tier} tier)" for tier, n in counts.items()) + "."
    if "grid" in frame and (most := frame["grid"].max()) > 1:
        words += f" Learning rate, T, α and γ of each row were chosen on validation, from up to {most} settings."
    return frames.made(identifier, frame, records, content, words, repeats)


def table2(records: list[dict]) -> Exhibit:
    """Samples of train / validation / test for each task in use, the paper's beside them."""
    rows = [row | {"tier": r.get("tier", "")} for r in records if r.get("paper") == PAPER for row in r.get("data", [])]
    if not rows:
        return missing(f"{PAPER}.table2")
    frame = pd.DataFrame(rows).drop_duplicates(["tier", "task", "split"])
    table, shown = [], set()
    for (tier, task), group in frame.groupby(["tier", "task"], sort=True):
        name = printed_name(task)
        shown.add(name or STAND_INS.get(task))
        table.append({"tier": tier, "task": task, "samples": split_counts(group, "samples"),
                      "classes": int(group["classes"].iloc[0]),
                      "paper's data": name or f"(stands in for {STAND_INS.get(task, 'none')})",
                      "paper's samples": _paper_samples(name or STAND_INS.get(task))})
    rest = [name for name in TASKS.values() if name not in shown]
    table += [{"task": "not run here", "paper's data": name, "paper's samples": _paper_samples(name)} for name in rest]
    return made(f"{PAPER}.table2", frame, records, pd.DataFrame(table).astype(object).fillna("-"), "Train / validation / test.")


def _paper_samples(name: str | None) -> str:
    values = [published_value(PAPER, "table2", name, column) for column in ("#Train", "#Dev", "#Test")]
    return " / ".join("-" if value is None else str(value) for value in values)


def score_cells(rows: pd.DataFrame) -> dict[str, str]:
    """Table cells of one line: per task mean ± standard deviation with n, and the average where there are several tasks."""
    cells, means = {}, []
    for task, group in rows.groupby("task", sort=True):
        cells[printed_name(task) or task] = f"{points(group['score'])} n={len(group)}"
        means.append(100 * group["score"].mean())
    return cells | ({"AVG.": f"{sum(means) / len(means):.1f}"} if len(means) > 1 else {})


def with_paper(rows: dict[tuple[str, ...], dict[str, str]], table: str, names: tuple[str, ...]) -> pd.DataFrame:
    """Our lines, keyed by (source, *names), above the paper's: its printed label is cut at the comma into as many names."""
    for entry in load(PAPER).published:
        if entry["exhibit"] == table:
            label = [*entry["row"].split(", "), "-"][: len(names)]
            rows.setdefault(("paper", *label), {})[entry["column"].removesuffix(" Acc")] = f"{entry['value']:.1f}"
    frame = pd.DataFrame.from_dict(rows, orient="index").fillna("-").rename_axis(["source", *names]).reset_index()
    last = [column for column in frame if column == "AVG."]
    return frame[[column for column in frame if column not in last] + last]


def lines(used: pd.DataFrame, with_student: bool) -> dict[tuple[str, ...], dict[str, str]]:
    """One line per tier, student and method, in the paper's order, single teachers by name."""
    found = {}
    used = used.assign(rank=used["method"].map(ORDER), name=[method_name(row) for _, row in used.iterrows()])
    keys = ["tier", *(["student"] if with_student else []), "rank", "name"]
    for (tier, *student, _, name), group in used.groupby(keys, sort=True):
        found[(f"{tier} tier", name, *map(short_name, student))] = score_cells(group)
    return found


def table1(records: list[dict]) -> Exhibit:
    """Each teacher on its own, and the student that learned from it alone."""
    frame = rows_frame(records)
    used = frame[(frame["method"] == "v_kd") & (frame["arm"] == "main") | (frame["kind"] == "teacher")]
    if not (used["method"] == "v_kd").any():
        return missing(f"{PAPER}.table1")
    rows = {}
    order = used.assign(rank=(used["kind"] != "teacher").astype(int), teacher=[t[0] for t in used["teachers"]])
    for (tier, rank, teacher, student), group in order.groupby(["tier", "rank", "teacher", "student"], sort=True):
        rows[f"{tier} tier", short_name(teacher), short_name(student) if rank else "-"] = score_cells(group)
    words = "Accuracy times 100, here mean ± standard deviation over n repeats; a line without a student is the teacher "
    words += "itself. Look for a teacher that is better than another, and its student that is worse."
    return made(f"{PAPER}.table1", used, records, with_paper(rows, "table1", ("teacher", "student")), words)


def table3(records: list[dict]) -> Exhibit:
    """Teachers on their own and the ensembles that can be used on new samples. Best-Single is none of them."""
    frame = rows_frame(records)
    used = frame[frame["arm"] == "teachers"]
    if used.empty:
        return missing(f"{PAPER}.table3")
    words = "Accuracy times 100 on the test split, here mean ± standard deviation over n repeats. Best-Single-Ensemble needs "
    words += "the labels of the samples that it is asked about, so it has no line."
    return made(f"{PAPER}.table3", used, records, with_paper(lines(used, False), "table3", ("teacher model",)), words)


def table4(records: list[dict]) -> Exhibit:
    """Fine-tuning, vanilla KD from every teacher and ensemble, RL-KD with three rewards, per student."""
    frame = rows_frame(records)
    used = frame[(frame["arm"] == "main") & (frame["kind"] != "control")]
    if used.empty:
        return missing(f"{PAPER}.table4")
    words = "Accuracy times 100 on the test split, here mean ± standard deviation over n repeats. U-Ensemble and LR-Train-"
    words += "Ensemble are no part of the paper's table; U-Ensemble is the student that RL-KD starts from."
    return made(f"{PAPER}.table4", used, records, with_paper(lines(used, True), "table4", ("method", "student")), words)


def table5(records: list[dict]) -> Exhibit:
    """Every run of W-Ensemble, LR-Dev-Ensemble and RL-KD, with the paper's t-test and a paired one beside it."""
    frame = rows_frame(records)
    main = frame[(frame["arm"] == "main") & (frame["kind"] == "student")]
    if not (main["method"] == "rl").any():
        return missing(f"{PAPER}.table5")
    table = []
    for (tier, task, student), group in main.groupby(["tier", "task", "student"], sort=True):
        runs = {name: run_scores(group, name) for name in RUNS}
        for name, scores in runs.items():
            if len(scores):
                both = pd.concat([runs["rl"], scores], axis=1, join="inner")
                where = {"source": f"{tier} tier", "task": printed_name(task) or task, "student": short_name(student)}
                table.append(where | _line(RUNS[name], scores, both if name != "rl" else None))
    for task in ("RTE", "MRPC"):
        printed = {row: pd.Series([published_value(PAPER, "table5", row, f"{task} run {i}") for i in range(1, 6)])
                   for row in RUNS.values()}  # fmt: skip
        for row, scores in printed.items():
            both = pd.concat([printed["RL-KD"], scores], axis=1) if row != "RL-KD" else None
            line = _line(row, scores, both, paired=False)
            stated = {"mean": "Mean", "sd": "Stdev"}
            line |= {k: str(published_value(PAPER, "table5", row, f"{task} {name}")) for k, name in stated.items()}
            table.append({"source": "paper", "task": task, "student": "BERT 3"} | line)
    words = f"Accuracy times 100, one number per repeat; RL-KD is {REWARDS[RL]}, LR-Ensemble is LR-Dev. p: two-sided t-test "
    words += "against RL-KD, the paper's (two samples, equal variances) and a paired one, RL-KD and its rival of the same "
    words += "repeat having the same teachers and seed; d_z: mean difference in standard deviations of the differences. The "
    words += "paper's p values are computed here from its printed runs, which are sorted and cannot be paired. The paper does "
    words += "not say whose runs these are: BERT 3 follows from Table 4, which has RL-KD's best ones for that student."
    return made(f"{PAPER}.table5", main, records, pd.DataFrame(table).fillna("-"), words)


def run_scores(main: pd.DataFrame, method: str, variant: str = RL) -> pd.Series:
    """Scores times 100 by repeat of one method's students (of RL-KD with the reward `variant`)."""
    rows = main[(main["method"] == method) & ((main["variant"] == variant) if method == "rl" else True)]
    return 100 * rows.sort_values("repeat").set_index("repeat")["score"]


def _line(name: str, scores: pd.Series, both: pd.DataFrame | None, paired: bool = True) -> dict[str, str]:
    line = {"method": name, "runs": ", ".join(f"{x:.1f}" for x in scores), "mean": f"{scores.mean():.2f}"}
    line["sd"] = f"{scores.std(ddof=1):.3f}" if len(scores) > 1 else "-"
    if both is not None and len(both) > 1:
        found = compared(both.iloc[:, 0], both.iloc[:, 1])
        line["p, as in the paper"] = p_value(found.p_two_sample)
        if paired:
            line |= {"p, paired": p_value(found.p_paired), "d_z": "n/a" if pd.isna(found.dz) else f"{found.dz:.1f}"}
    return line


def p_value(p: float) -> str:
    """Four digits; no p is zero.

    >>> p_value(0.01284), p_value(6e-6), p_value(float("nan"))
    ('0.0128', '<0.0001', 'n/a')
    """
    return "n/a" if pd.isna(p) else "<0.0001" if p < 0.0001 else f"{p:.4f}"


def summary(records: list[dict]) -> pd.DataFrame:
    """The README's row per tier, task and student: teachers, FT, best fixed weighting, RL-KD's start and the three rewards."""
    frame = rows_frame(records)
    main, table = frame[frame["arm"] == "main"], []
    for (tier, task, student, metric), here in main.groupby(["tier", "task", "student", "metric"], sort=True):
        teachers = frame[(frame["kind"] == "teacher") & (frame["tier"] == tier) & (frame["task"] == task)]
        fixed = here[here["method"].isin(ENSEMBLES) & (here["kind"] == "student")]
        best = fixed.groupby("method")["score"].mean().idxmax() if len(fixed) else None
        rl = here[(here["method"] == "rl") & (here["kind"] == "student")]
        table.append(
            {"tier": tier, "task": task, "metric": metric, "student": short_name(student)}
            | {"teachers": points(teachers["score"]), "FT": points(here[here["method"] == "ft"]["score"])}
            | {"start (U-Ensemble)": points(_of(here, "u"))}
            | {"best fixed weighting": f"{points(_of(here, best))} ({METHODS[best]})" if best else "n/a"}
            | {name: points(rl[rl["variant"] == key]["score"]) for key, name in REWARDS.items()}
            | {"average teacher again": points(here[here["variant"] == "average_again"]["score"])}
            | {"repeats": here["repeat"].nunique(), "hardware": frames.hardware(PAPER, records, tier)}
        )  # fmt: skip
    return pd.DataFrame(table)


def _of(rows: pd.DataFrame, method: str) -> pd.Series:
    return rows[(rows["method"] == method) & (rows["kind"] == "student")]["score"]
