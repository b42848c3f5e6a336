"""MT-BERT's tables 1 to 3, its negative controls, its poolers and the README's summary, from records."""

import pandas as pd

from mtkd.evidence import frames
from mtkd.evidence.frames import missing, paired_table, points, split_counts
from mtkd.papers import Exhibit, load, published_value
from mtkd.papers.mt_bert_scores import (
    BASELINES,
    CONTROLS,
    LAYOUT,
    METHODS,
    PAPER,
    POOLERS,
    STAND_INS,
    WITHOUT_HIDDEN,
    method_name,
    metric_name,
    printed_name,
    rows_frame,
    shown_metrics,
    teachers_name,
)


def made(identifier: str, frame: pd.DataFrame, records: list[dict], content, words: str) -> Exhibit:
    """An exhibit whose caption also says how many repeats each tier has (see `frames.made` for the rest)."""
    repeats = ""
    if "repeat" in frame:
        counts = frame.groupby("tier")["repeat"].nunique()
        repeats = "Independent repeats: " + ", ".join(f"{n} ({tier} tier)" for tier, n in counts.items()) + "."
    return frames.made(identifier, frame, records, content, words, repeats)


def table1(records: list[dict]) -> Exhibit:
    """Samples of train / validation / test and classes for each task in use, the paper's beside them."""
    rows = [row | {"tier": r.get("tier", "")} for r in records if r.get("paper") == PAPER for row in r.get("data", [])]
    if not rows:
        return missing(f"{PAPER}.table1")
    frame = pd.DataFrame(rows).drop_duplicates(["tier", "task", "split"])
    table, shown = [], set()
    for (tier, task), group in frame.groupby(["tier", "task"], sort=True):
        name = printed_name(task)
        shown.add(name or STAND_INS.get(task))
        table.append(
            {"tier": tier, "task": task, "samples": split_counts(group, "samples")}
            | {"classes": int(group["classes"].iloc[0]) if "classes" in group else "-"}
            | {"paper's data": name or f"(stands in for {STAND_INS.get(task, 'none')})"}
            | _paper_table1(name or STAND_INS.get(task))
        )
    for name in ("SST-2", "RTE", "MIND"):
        if name not in shown:
            table.append({"task": "not run here", "paper's data": name} | _paper_table1(name))
    return made(f"{PAPER}.table1", frame, records, pd.DataFrame(table).astype(object).fillna("-"), "Train / validation / test.")


def _paper_table1(name: str | None) -> dict[str, str]:
    values = [published_value(PAPER, "table1", name, column) for column in ("train", "dev", "test")]
    printed = " / ".join("-" if value is None else str(value) for value in values)
    return {"paper's samples": printed, "paper's classes": published_value(PAPER, "table1", name, "classes") or "-"}


def score_cells(rows: pd.DataFrame) -> dict[str, str]:
    """Table cells of one model: per task its metric with n, and macro-F1 where the paper would report it."""
    cells = {}
    for task, group in rows.groupby("task", sort=True):
        for number, (label, column) in enumerate(shown_metrics(group)):
            n = f" n={len(group)}" if number == 0 else ""
            cells[f"{printed_name(task) or task} {label}"] = points(group[column]) + n
    return cells


def with_paper(rows: dict[tuple[str, str], dict[str, str]], table: str, first: str) -> pd.DataFrame:
    """Our rows, keyed by (source, label), above the paper's: a frame with the columns source, `first`, and the cells."""
    for entry in load(PAPER).published:
        if entry["exhibit"] == table:
            text = f"{entry['value']}M" if entry["column"] == "#Param" else f"{entry['value']:.1f}"
            rows.setdefault(("paper", entry["row"]), {})[entry["column"]] = text
    frame = pd.DataFrame.from_dict(rows, orient="index").fillna("-").rename_axis(["source", first]).reset_index()
    last = [column for column in frame if column == "#Param"]
    return frame[[column for column in frame if column not in last] + last]


def table2(records: list[dict]) -> Exhibit:
    """Teachers, undistilled students, the three baselines and MT-BERT: scores and parameters, above the paper's table."""
    frame = rows_frame(records)
    used = frame[frame["arm"].isin(["teachers", "main"]) & (frame["kind"] != "control")]
    if not (used["arm"] == "main").any():
        return missing(f"{PAPER}.table2")
    used = used.assign(name=[method_name(row) for _, row in used.iterrows()])
    rank = {"teacher": 0, "ensemble": 1, "undistilled": 2, "student": 3}
    order = used["kind"].map(rank) + used["method"].map(lambda m: {**dict.fromkeys(METHODS, 0), "mt_bert": 0.5}.get(m, 0))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for (tier, _, name), group in used.assign(order=order).groupby(["tier", "order", "name"], sort=True):
        size = group["parameters"].dropna()
        rows[f"{tier} tier", name] = score_cells(group) | ({"#Param": _size(size)} if len(size) else {})
    words = "Scores times 100, here mean ± standard deviation over n models. DistilBERT, BERT-PKD and TinyBERT are shown "
    words += "twice: with one teacher and initialisation of their own, and with MT-BERT's. The paper quotes their SST-2 "
    words += "and RTE scores from other papers, and by its footnote 7 those of its 12-layer teachers too."
    return made(f"{PAPER}.table2", used, records, with_paper(rows, "table2", "model"), words)


def _size(parameters: pd.Series) -> str:
    """Parameters in millions, a range where the models of a line differ (tasks with other vocabularies)."""
    low, high = (f"{value / 1e6:.3g}" for value in (parameters.min(), parameters.max()))
    return f"{low}M" if low == high else f"{low}-{high}M"


def table3(records: list[dict]) -> Exhibit:
    """MT-BERT from every combination of the teachers, above the paper's table."""
    frame = rows_frame(records)
    used = frame[frame["arm"] == "combinations"]
    if used.empty:
        return missing(f"{PAPER}.table3")
    rows = {}
    used = used.assign(size=used["teachers"].map(len)).sort_values(["tier", "size"], kind="stable")
    for (tier, teachers), group in used.groupby(["tier", "teachers"], sort=False):
        largest = used[used["tier"] == tier]["size"].max()
        rows[f"{tier} tier", teachers_name(teachers, largest)] = score_cells(group)
    words = "One student per combination, scores times 100, here mean ± standard deviation over n repeats."
    return made(f"{PAPER}.table3", used, records, with_paper(rows, "table3", "teachers"), words)


def controls(records: list[dict]) -> Exhibit:
    """MT-BERT beside its negative controls and the undistilled student of its depth; paired over repeats.

    Shuffled and uniform teachers teach without the hidden loss, so they are compared with MT-BERT without it, that is with
    the ablation of the same experiment and repeat; where that was not run, with the whole MT-BERT, and the table says so.
    """
    frame, every = rows_frame(records), rows_frame(records, every=True)
    frame = frame[frame["arm"] == "main"]
    frame = frame.assign(variant=frame["variant"].where(frame["kind"] == "control", "undistilled"))
    rivals = frame[frame["kind"].isin(["control", "undistilled"])]
    entries = []
    for (tier, task, layers, variant), rows in rivals.groupby(["tier", "task", "layers", "variant"], sort=True):
        labels = {"tier": tier, "task": task, "layers": int(layers), "control": CONTROLS.get(variant, variant)}
        ours, model = students(frame, "mt_bert", tier=tier, task=task, layers=layers), "MT-BERT"
        if variant in WITHOUT_HIDDEN:
            fair = without_hidden(every, ours, rows["repeat"])
            model = f"MT-BERT {'without' if len(fair) else 'with (without: not run)'} hidden loss"
            ours = fair if len(fair) else ours
        entries.append((labels | {"compared with": model}, ours, rows))
    if not entries:
        return Exhibit(f"{PAPER}.controls", "negative controls", "No control was run.")
    words = "Score times 100, mean ± standard deviation over repeats; difference MT-BERT minus control in points, paired "
    words += "over repeats, with its t interval and one-sided p. Shuffled and uniform teachers teach without the hidden "
    words += "loss, so they are compared with the MT-BERT that has none either, where it was run. A student that is no better "
    words += "than its controls has not been shown to have learned anything from its teachers."
    table = paired_table(LAYOUT, entries, "MT-BERT's score", "control's score")
    return Exhibit(f"{PAPER}.controls", "negative controls", words, table)


def without_hidden(every: pd.DataFrame, ours: pd.DataFrame, repeats: pd.Series) -> pd.DataFrame:
    """The ablation "without hidden loss" of the experiment that `ours`, MT-BERT's rows, are of, at these repeats; may be empty.

    It is of the same experiment where the parameters are equal, or where its own row of the whole MT-BERT is the very same
    model (two grid files that differ in nothing that made it: other depths besides, say).
    """
    here = every[(every["arm"] == "ablations") & every["repeat"].isin(set(repeats))]
    for column in ("tier", "task", "layers"):
        here = here[here[column].isin(set(ours[column]))]
    whole = here[(here["variant"] == "full") & here["folder"].isin(set(ours["folder"].dropna()))]
    same = here["setting"].isin({*ours["setting"], *whole["setting"]})
    return here[same & (here["variant"] == "no_hidden")].drop_duplicates("repeat")


def students(frame: pd.DataFrame, method: str, **where) -> pd.DataFrame:
    """The distilled students of one method, further narrowed by equal columns."""
    chosen = frame[(frame["kind"] == "student") & (frame["method"] == method)]
    for column, value in where.items():
        chosen = chosen[chosen[column] == value]
    return chosen


def poolers(records: list[dict]) -> Exhibit:
    """MT-BERT with each way to sum up the token states: footnote 3, which the paper gives no numbers for."""
    frame = rows_frame(records)
    used = frame[frame["arm"] == "poolers"]
    if used.empty:
        return Exhibit(f"{PAPER}.poolers", "attentive, mean and [CLS] pooling", "The section `poolers` was not run.")
    rows = []
    for (tier, task), group in used.groupby(["tier", "task"], sort=True):
        rows += [{"tier": tier, "task": task, "pooling": words} | {
            metric_name(group["metric"].iloc[0]): points(group[group["variant"] == name]["score"])}
            for name, words in POOLERS.items()]  # fmt: skip
    words = "Score times 100, mean ± standard deviation over repeats; teachers co-finetuned anew for each kind of pooling."
    table = pd.DataFrame(rows).astype(object).fillna("-")
    return Exhibit(f"{PAPER}.poolers", "attentive, mean and [CLS] pooling", words, table)


def summary(records: list[dict]) -> pd.DataFrame:
    """One row per tier, task and depth: teachers, undistilled student, the best baseline of each kind, MT-BERT."""
    every = rows_frame(records, every=True)
    frame = rows_frame(records)
    main, table = frame[frame["arm"] == "main"], []
    ours = students(main, "mt_bert")
    for (tier, task, metric, layers), rows in ours.groupby(["tier", "task", "metric", "layers"], sort=True):
        here = main[(main["tier"] == tier) & (main["task"] == task) & (main["layers"] == layers)]
        teachers = every[every["setting"].isin(set(rows["setting"])) & (every["kind"] == "teacher")
                         & (every["tier"] == tier) & (every["task"] == task) & (every["method"] == "cofinetuned")]  # fmt: skip
        table.append(
            {"tier": tier, "task": task, "metric": metric, "layers": int(layers)}
            | {"teachers": points(teachers["score"])}
            | {"not distilled": points(here[here["kind"] == "undistilled"]["score"])}
            | {"best baseline, own teacher": _best(here, "own"), "best baseline, same teacher": _best(here, "same")}
            | {"MT-BERT": points(rows["score"]), "repeats": rows["repeat"].nunique()}
            | {"hardware": frames.hardware(PAPER, records, tier)}
        )  # fmt: skip
    return pd.DataFrame(table)


def _best(rows: pd.DataFrame, variant: str) -> str:
    """Scores and name of the single-teacher method with the highest mean; "n/a" where there is none."""
    found = rows[rows["method"].isin(BASELINES) & (rows["variant"] == variant)]
    if found.empty:
        return "n/a"
    best = found.groupby("method")["score"].mean().idxmax()
    return f"{points(found[found['method'] == best]['score'])} ({METHODS[best]})"
