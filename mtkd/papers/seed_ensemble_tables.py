"""The seed ensemble's tables, drawn from records: tables 1 and 2, the negative controls and the README's summary."""

import pandas as pd

from mtkd.evidence import frames
from mtkd.evidence.frames import SPLITS, hardware, missing, paired_table, plain_name, points, split_counts
from mtkd.papers import Exhibit, load, published_value
from mtkd.papers.seed_ensemble_scores import LAYOUT, MULTI, PAPER, SINGLE, combinations, rows_frame

STAND_INS = {"pydocs/acceptability": "CoLA", "pydocs/relevance": "MRPC", "pydocs/topic": "SST-2", "digits": "CIFAR-10"}
PRINTED_NAMES = {
    "mrpc": "MRPC", "cola": "CoLA", "sst2": "SST-2", "cifar10": "CIFAR-10", "rte": "RTE", "qnli": "QNLI", "qqp": "QQP",
    "stsb": "STS-B", "mnli": "MNLI-m", "mnlimm": "MNLI-mm", "mnlimismatched": "MNLI-mm",
}  # fmt: skip
ARM_NAMES = {"tinybert": "TinyBERT", "distilbert": "DistilBERT", "resnet": "ResNet"}
ROLES = {"teacher": "teacher", "undistilled": "student, not distilled", "student": "student of one teacher"}
CONTROLS = {
    "shuffled_teacher": "shuffled teacher", "uniform_teacher": "uniform teacher", "plain_ce": "plain CE, same compute",
}  # fmt: skip
MODE_NAMES = {SINGLE: "single teacher", MULTI: "several teachers"}


def printed_name(task: str) -> str | None:
    """The paper's name for a task of its own data ("glue/sst2" gives "SST-2"); None for any other task."""
    return PRINTED_NAMES.get(plain_name(task))


def made(identifier: str, frame: pd.DataFrame, records: list[dict], content, words: str) -> Exhibit:
    """An exhibit whose caption also says how many pools each arm has (see `frames.made` for the rest)."""
    pools = ""
    if "pool" in frame:
        counts = frame.groupby(["tier", "arm"])["pool"].nunique()
        words_of = (f"{n} for {ARM_NAMES.get(arm, arm)} ({tier} tier)" for (tier, arm), n in counts.items())
        pools = f"Pools of teachers: {', '.join(words_of)}."
    return frames.made(identifier, frame, records, content, words, pools)


def table1(records: list[dict]) -> Exhibit:
    """Samples and mean tokens of train / validation / test for each task in use, the paper's beside them."""
    rows = [row | {"tier": r.get("tier", "")} for r in records if r.get("paper") == PAPER for row in r.get("data", [])]
    if not rows:
        return missing(f"{PAPER}.table1")
    frame = pd.DataFrame(rows).drop_duplicates(["tier", "task", "split"])
    table = []
    for (tier, task), group in frame.groupby(["tier", "task"], sort=True):
        name, stands_for = printed_name(task), STAND_INS.get(task)
        table.append(
            {"tier": tier, "task": task, "samples": split_counts(group, "samples")}
            | {"tokens": split_counts(group, "tokens_mean", 1)}
            | {"metric": group["metric"].iloc[0], "paper's data": name or f"(stands in for {stands_for or 'none'})"}
            | _paper_table1(name or stands_for)
        )
    shown = {printed_name(task) or STAND_INS.get(task) for task in frame["task"]}
    for name in ("MRPC", "CoLA", "SST-2", "CIFAR-10"):
        if name not in shown:
            table.append({"task": "not run here", "paper's data": name} | _paper_table1(name))
    words = "Train / validation / test; tokens are words and punctuation marks, on average per sample."
    return made(f"{PAPER}.table1", frame, records, pd.DataFrame(table).fillna("-"), words)


def _paper_table1(name: str | None) -> dict[str, str]:
    """The paper's three columns for one of its data sets; dashes for any other."""
    cells = {}
    for what in ("samples", "tokens"):
        values = [published_value(PAPER, "table1", name, f"{what} {split}") for split in SPLITS]
        cells[f"paper's {what}"] = " / ".join("-" if value is None else str(value) for value in values)
    return cells | {"paper's metric": published_value(PAPER, "table1", name, "metric") or "-"}


def table2(records: list[dict]) -> Exhibit:
    """This kit's rows above the paper's table (models by data sets, drop in parentheses).

    Here: teachers, undistilled students and students of one teacher, mean ± standard deviation over n models; the drop
    is the mean over pools of the teachers' mean minus the model's.
    """
    frame = rows_frame(records, every=True)
    used = frame[frame["kind"].isin(ROLES) & (frame["k"].fillna(1) <= 1)]
    if used.empty:
        return missing(f"{PAPER}.table2")
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for (tier, arm, task, setting), group in used.groupby(["tier", "arm", "task", "setting"], sort=True):
        pools = group.groupby(["kind", "pool"])["score"].mean()
        for kind in ROLES:
            models, drop = group[group["kind"] == kind], ""
            if models.empty:
                continue
            if kind != "teacher" and "teacher" in pools:
                drop = f" ({100 * (pools['teacher'] - pools[kind]).mean():.1f})"
            name = next((str(m) for m in models["model"].dropna()), "")
            model = f"{ARM_NAMES.get(arm, arm)} {ROLES[kind]}" + (f" ({name})" if name else "")
            if printed_name(task) in rows.get((f"{tier} tier", model), {}):
                model += f" [{setting}]"  # the same model with other parameters
            cell = f"{points(models['score'])}{drop} n={len(models)}"
            rows.setdefault((f"{tier} tier", model), {})[printed_name(task) or task] = cell
    rows |= {("paper", name): cells for name, cells in _paper_table2().items()}  # last, so that tasks run here lead
    table = pd.DataFrame.from_dict(rows, orient="index").fillna("-").rename_axis(["source", "model"]).reset_index()
    words = "Score times 100; here mean ± standard deviation over n models; in parentheses the drop against the "
    words += "teachers (a gain where negative). The paper's numbers are on GLUE's hidden test sets, "
    words += "ResNet's from its section 4."
    return made(f"{PAPER}.table2", used, records, table, words)


def _paper_table2() -> dict[str, dict[str, str]]:
    """Printed scores by model and data set, with the printed drop in parentheses; ResNet's from section 4."""
    cells: dict[str, dict[str, str]] = {}
    for entry in load(PAPER).published:
        row, column, value = entry["row"], entry["column"], entry["value"]
        if entry["exhibit"] == "table2" and not column.endswith(" drop"):
            drop = published_value(PAPER, "table2", row, f"{column} drop")
            cells.setdefault(row, {})[column] = f"{value:.1f}" + (f" ({drop:.1f})" if drop is not None else "")
        elif entry["exhibit"] == "fig6":
            cells.setdefault(f"{entry['note']} ({column})", {})[row] = f"{value}"
    return cells


def controls(records: list[dict]) -> Exhibit:
    """Students beside the negative controls and the undistilled student; paired differences over pools, Holm-adjusted.

    The students compared are those with a control's own members; where no student has them (a control without
    teachers), all students of the pool.
    """
    frame = rows_frame(records)
    frame = frame.assign(variant=frame["variant"].where(frame["kind"] == "control", "undistilled"))
    rivals = frame[frame["kind"].isin(["control", "undistilled"])]
    entries = []
    for (tier, arm, task, variant), rows in rivals.groupby(["tier", "arm", "task", "variant"], sort=True):
        here = (frame["tier"] == tier) & (frame["arm"] == arm) & (frame["task"] == task) & (frame["kind"] == "student")
        same = frame[here & frame["members"].isin(set(rows["members"]))]
        labels = {"tier": tier, "arm": arm, "task": task, "control": CONTROLS.get(variant, variant)}
        entries.append((labels, same if len(same) else frame[here], rows))
    if not entries:
        return Exhibit(f"{PAPER}.controls", "negative controls", "No control was run.")
    result = paired_table(LAYOUT, entries, "student", "control's score")
    words = "Score times 100, mean ± standard deviation over models; difference student minus control in points, "
    words += "paired over pools, with its t interval and one-sided p. A student that is no better than its controls "
    words += "has not been shown to have learned anything from its teachers."
    return Exhibit(f"{PAPER}.controls", "negative controls", words, result)


def summary(records: list[dict]) -> pd.DataFrame:
    """One row per tier, arm and task: teachers, undistilled student, and worst and best students at the largest k."""
    frame = rows_frame(records)
    usable = combinations(frame)
    usable = usable[usable["equal"].astype(bool)]
    table = []
    for (tier, arm, task, metric), rows in frame.groupby(["tier", "arm", "task", "metric"], sort=True):
        mine = usable[(usable["tier"] == tier) & (usable["arm"] == arm) & (usable["task"] == task)]
        top = mine[mine["k"] == mine["k"].max()]
        cells = {
            f"{MODE_NAMES[mode]}, {words}": points(top[top["mode"] == mode].groupby("pool")[name].mean())
            for mode in (SINGLE, MULTI) for name, words in (("min", "worst"), ("max", "best"))
        }  # fmt: skip
        table.append(
            {"tier": tier, "model": ARM_NAMES.get(arm, arm), "task": task, "metric": metric}
            | {"teachers": points(rows[rows["kind"] == "teacher"]["score"])}
            | {"not distilled": points(rows[rows["kind"] == "undistilled"]["score"])}
            | {"k": int(top["k"].max()) if len(top) else "n/a"}
            | cells
            | {"pools": rows["pool"].nunique(), "hardware": hardware(PAPER, records, tier)}
        )
    return pd.DataFrame(table)
