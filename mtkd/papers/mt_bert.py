"""What mt_bert.yaml cannot say of MT-BERT: what a model is called, which sets of teachers are compared, and which MT-BERT is a
fair rival for a control that teaches without the hidden loss.

Everything in one repeat shares its teachers' seeds, so two arms of the same repeat are compared as a pair: one difference
per repeat and setting, n = number of repeats. All differences and margins are in points, that is, the score times 100.
"""

import pandas as pd

from mtkd.evidence.exhibits import paired_table
from mtkd.evidence.paper import Paper
from mtkd.papers import read
from mtkd.papers.mt_bert_scores import ABLATIONS, CHECKPOINTS, CONTROLS, METHODS, POOLERS, TEACHERS, VARIANTS, short_name

WITHOUT_HIDDEN = ("shuffled_teacher", "uniform_teacher")  # the hidden loss would show them the right states


def label(row: pd.Series) -> str:
    """What tables and settings call a model: "MT-BERT 6", "DistilBERT 6, its own teacher", "not distilled 6", "RoBERTa 12,
    alone", "BERT + RoBERTa", "without task loss"."""
    depth = f" {int(row['layers'])}" if pd.notna(row["layers"]) else ""
    if row["arm"] == "combinations":
        return "All" if row["all"] else " + ".join(map(short_name, row["teachers"]))
    if row["arm"] in ("ablations", "poolers"):
        return {**ABLATIONS, **POOLERS}[row["variant"]]
    if row["kind"] == "undistilled":
        return f"not distilled{depth}"
    if row["kind"] == "control":
        return CONTROLS.get(row["variant"], row["variant"])
    if row["kind"] == "ensemble":
        return f"mean of the teachers' logits, {TEACHERS[row['method']]}"
    if row["kind"] == "teacher":
        name = short_name(row["teachers"][0])
        said = "" if name not in CHECKPOINTS.values() else depth  # other names say their depth
        return f"{name}{said}, {TEACHERS[row['method']]}"
    name = METHODS.get(row["method"], str(row["method"]))
    return f"{name}{depth}" + (f", {VARIANTS[row['variant']]}" if row["variant"] in VARIANTS else "")


def with_sizes(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame and how many teachers a student has, and whether these are all that any student of its tier and section has."""
    size = frame["teachers"].map(len)
    largest = size.groupby([frame["tier"], frame["arm"]]).transform("max")
    return frame.assign(size=size, all=(size == largest) & (size > 1))


def nested(more: dict, fewer: dict, rows: pd.DataFrame) -> bool:
    """M2: all teachers against each set with one fewer, every smaller set against each of its members alone."""
    a, b = set(more["teachers"]), set(fewer["teachers"])
    largest = rows[rows["task"] == more["task"]]["size"].max()
    return b < a and (len(b) == len(a) - 1 if len(a) == largest > 2 else len(b) == 1)


def controls_table(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame | None:
    """MT-BERT beside its negative controls and the undistilled student of its depth; paired over repeats.

    Shuffled and uniform teachers teach without the hidden loss, so they are compared with MT-BERT without it, that is with
    the ablation of the same experiment and repeat; where that was not run, with the whole MT-BERT, and the table says so.
    """
    every, entries = paper.frame(records, every=True), []
    rivals = rows[rows["kind"].isin(["control", "undistilled"])]
    for (tier, task, layers, _, name), theirs in rivals.groupby(["tier", "task", "layers", "variant", "name"], sort=True):
        at = f"tier == {tier!r} and task == {task!r} and layers == {layers}"
        ours, model = rows.query(f"kind == 'student' and method == 'mt_bert' and {at}"), "MT-BERT"
        if theirs["variant"].iloc[0] in WITHOUT_HIDDEN:
            fair = without_hidden(every.query(at), ours, theirs["repeat"])
            model += f" {'without' if len(fair) else 'with (without: not run)'} hidden loss"
            ours = fair if len(fair) else ours
        labels = {"tier": tier, "task": task, "layers": int(layers), "control": name.removesuffix(f" {int(layers)}")}
        entries.append((labels | {"compared with": model}, ours, theirs))
    return paired_table(entries, "repeat", "MT-BERT's score", "control's score") if entries else None


def without_hidden(every: pd.DataFrame, ours: pd.DataFrame, repeats: pd.Series) -> pd.DataFrame:
    """The ablation "without hidden loss" of the experiment that `ours`, MT-BERT's rows, are of, at these repeats; may be empty.

    It is of the same experiment where the parameters are equal, or where its own row of the whole MT-BERT is the very same
    model (two grid files that differ in nothing that made it: other depths besides, say).
    """
    here = every[(every["arm"] == "ablations") & every["repeat"].isin(set(repeats))]
    whole = here[(here["variant"] == "full") & here["folder"].isin(set(ours["folder"].dropna()))]
    same = here["setting"].isin({*ours["setting"], *whole["setting"]})
    return here[same & (here["variant"] == "no_hidden")].drop_duplicates("repeat")


PAPER = read("mt_bert", label=label, derive=with_sizes, pairs={"nested": nested}, draws={"controls_table": controls_table})
claims, exhibit, rows_frame, summary = PAPER.claims, PAPER.exhibit, PAPER.frame, PAPER.summary
