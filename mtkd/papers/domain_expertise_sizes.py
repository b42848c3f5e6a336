"""Tables 4.1 and 4.2: how large the data sets are, and the models; the thesis's numbers beside ours."""

import pandas as pd

from mtkd.evidence import frames
from mtkd.papers import Exhibit, published_value
from mtkd.papers.domain_expertise_scores import CLASSES, PAPER, PER_CLASS, data_set, roles, rows_frame
from mtkd.papers.domain_expertise_tables import THESIS, missing, teacher_names

NAMED = ("bert-base-uncased", "roberta-base", "deberta-base", "distilbert-base-uncased")  # the models of Table 4.2


def table4_1(records: list[dict]) -> Exhibit:
    """Samples of train / validation / test for each task in use, the thesis's beside them; of several runs on a task the
    largest counts, since others may have kept a part of the data only."""
    largest: dict[tuple, list[dict]] = {}
    for record in records:
        if record.get("paper") == PAPER and record.get("data"):
            for task in dict.fromkeys(row["task"] for row in record["data"]):
                key, mine = (record.get("tier", ""), task), [row for row in record["data"] if row["task"] == task]
                if sum(row["samples"] for row in mine) > sum(row["samples"] for row in largest.get(key, [])):
                    largest[key] = mine
    if not largest:
        return missing(f"{PAPER}.table4_1")
    frame = pd.DataFrame([row | {"tier": tier} for (tier, _), mine in largest.items() for row in mine])
    table = []
    for (tier, task), group in frame.groupby(["tier", "task"], sort=True):
        name = data_set(task)
        table.append({"source": f"{tier} tier", "task": task, "classes": str(group["classes"].iloc[0]),
                      "samples": frames.split_counts(group, "samples"), "words": frames.split_counts(group, "tokens_mean", 1),
                      "thesis": _printed_sizes(name) if name != "NBME" else "-"})
    shown = {data_set(task) for task in frame["task"]}
    table += [{"source": THESIS, "task": name, "thesis": _printed_sizes(name)} for name in PER_CLASS if name not in shown]
    words = "Train / validation / test; words are words and punctuation marks, on average per sample. The thesis cut "
    words += "MIND and Twitter-Sentiment down; NBME's size is not in its table."
    return frames.made(f"{PAPER}.table4_1", frame, records, pd.DataFrame(table).fillna("-"), words)


def _printed_sizes(name: str | None) -> str:
    values = [published_value(PAPER, "table4_1", name, split) for split in frames.SPLITS]
    return " / ".join("-" if value is None else str(value) for value in values)


def table4_2(records: list[dict]) -> Exhibit:
    """Layers and parameters of teachers and student, the thesis's beside them. Shown are the thesis's own models, and those
    of runs that distilled a student: what a run for table 4.1 builds only to count samples is left out."""
    frame = rows_frame(records, every=True)
    results = frame[frame["kind"] == "student"][["tier", "setting"]].drop_duplicates()
    distilled = frame[["tier", "setting"]].merge(results, how="left", indicator=True)["_merge"].eq("both").to_numpy()
    used = frame[(frame["arm"] == CLASSES) & frame["kind"].isin(["teacher", "finetuned", "undistilled"])
                 & (distilled | frame["model"].map(is_named))]
    if used.empty:
        return missing(f"{PAPER}.table4_2")
    table = []
    for tier, rows in used.groupby("tier", sort=True):
        found = {name: role for _, group in rows.groupby("task") for role, name in roles(teacher_names(group)).items()}
        for (kind, model), group in rows.groupby(["kind", "model"], sort=False):
            role = "DistilBERT" if kind == "undistilled" else found.get(model, "-")
            printed = {"BERT": "BERT-base"}.get(role, role)
            table.append({"tier": tier, "model": model, "stands for": printed if role != model else "-",
                          "layers": number(group["layers"]), "thesis's layers": _printed("table4_2", printed, "layers"),
                          "parameters": millions(group["parameters"]),
                          "thesis's parameters": _printed("table4_2", printed, "parameters", "M")})
    table = pd.DataFrame(table).drop_duplicates()
    words = "Parameters with embeddings and classifier. A scratch model's are few because its vocabulary is small."
    return frames.made(f"{PAPER}.table4_2", used, records, table, words)


def is_named(model: str) -> bool:
    """Whether a model is one of Table 4.2's, by its hub id.

    >>> is_named("google-bert/bert-base-uncased"), is_named("scratch-1x64")
    (True, False)
    """
    return model.rsplit("/", 1)[-1].lower() in NAMED


def number(values: pd.Series) -> str:
    return "-" if values.dropna().empty else f"{values.dropna().iloc[0]:.0f}"


def millions(values: pd.Series) -> str:
    return "-" if values.dropna().empty else f"{values.dropna().iloc[0] / 1e6:.3g}M"


def _printed(table: str, row: str, column: str, unit: str = "") -> str:
    value = published_value(PAPER, table, row, column)
    return "-" if value is None else f"{value}{unit}"
