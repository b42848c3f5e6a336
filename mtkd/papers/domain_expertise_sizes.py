"""The thesis's tables that need no recall per class: sizes of data and models (4.1, 4.2) and the span task (5.10, 5.11)."""

from __future__ import annotations

import pandas as pd

from mtkd.evidence.frame import SPLITS, points, split_counts
from mtkd.evidence.paper import Paper
from mtkd.papers.domain_expertise_tables import DATA_SETS, PER_CLASS, ROLES, THESIS, for_data_set

NAMED = ("bert-base-uncased", "roberta-base", "deberta-base", "distilbert-base-uncased")  # the models of Table 4.2
NBME_MODELS = {
    "bert-base-uncased": "BERT-Base-Uncased", "bio_clinicalbert": "Bioclinical BERT",
    "biomednlp-biomedbert-base-uncased-abstract": "biomednlp-pubmedbert-base-uncased",
    "biomednlp-pubmedbert-base-uncased-abstract": "biomednlp-pubmedbert-base-uncased",
    "roberta-large": "roberta-large", "deberta-v3-large": "deberta-v3-large",
}  # fmt: skip
NBME_STUDENTS = {"bert-base-uncased": "BERT-base", "distilbert-base-uncased-distilled-squad": "DistilBERT-SQuAD"}
LOSSES = {"average": "Student loss + Distillation loss", "camkd": "Student loss + CA-MKD",
          "average+teacher": "Student loss + Distillation loss + Teacher loss"}
START = {"plain": "plain", "tuned": "tuned on a related task before"}


def short(model: str) -> str:
    return model.rsplit("/", 1)[-1].lower()


def data_sizes(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame | None:
    """Table 4.1: samples of train / validation / test for each task in use, the thesis's beside them; of several runs on a task
    the largest counts, since others may have kept a part of the data only."""
    largest: dict[tuple, pd.DataFrame] = {}
    for record in records:
        if record.get("paper") == paper.name and record.get("data"):
            for task, mine in pd.DataFrame(record["data"]).groupby("task"):
                key = record.get("tier", ""), task
                if key not in largest or mine["samples"].sum() > largest[key]["samples"].sum():
                    largest[key] = mine

    def printed(name: str | None) -> str:
        values = [paper.printed("table4_1", name, split) for split in SPLITS]
        return " / ".join("-" if value is None else str(value) for value in values)

    table = [{"source": f"{tier} tier", "task": task, "classes": str(mine["classes"].iloc[0]),
              "samples": split_counts(mine, "samples"), "words": split_counts(mine, "tokens_mean", 1),
              "thesis": printed(DATA_SETS.get(task)) if DATA_SETS.get(task) != "NBME" else "-"}
             for (tier, task), mine in sorted(largest.items())]
    shown = {DATA_SETS.get(task) for _, task in largest}
    table += [{"source": THESIS, "task": name, "thesis": printed(name)} for name in PER_CLASS if name not in shown]
    return pd.DataFrame(table).fillna("-") if largest else None


def model_sizes(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame:
    """Table 4.2: layers and parameters of teachers and student, the thesis's beside them. Shown are the thesis's own models,
    and those of runs that distilled a student: what a run for table 4.1 builds only to count samples is left out."""
    def cell(values: pd.Series, words: str) -> str:
        return "-" if values.dropna().empty else words.format(values.dropna().iloc[0])

    runs = rows["tier"] + rows["setting"]
    known = runs.isin(runs[rows["kind"] == "student"]) | rows["model"].map(short).isin(NAMED)
    table = []
    for (tier, kind, model), group in rows[known].groupby(["tier", "kind", "model"], sort=False):
        if kind in ("teacher", "finetuned", "undistilled"):
            role = "DistilBERT" if kind == "undistilled" else next((c for c in group["column"] if c in ROLES), "-")
            row = {"BERT": "BERT-base"}.get(role, role)
            theirs = [paper.printed("table4_2", row, column) for column in ("layers", "parameters")]
            table.append({"tier": tier, "model": model, "stands for": row, "layers": cell(group["layers"], "{:.0f}"),
                          "thesis's layers": "-" if theirs[0] is None else str(theirs[0]),
                          "parameters": cell(group["parameters"] / 1e6, "{:.3g}M"),
                          "thesis's parameters": "-" if theirs[1] is None else f"{theirs[1]}M"})
    return pd.DataFrame(table).drop_duplicates()


def span_models(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame:
    """Table 5.10: F1 of every model fine-tuned on the span task: teachers, models beside them, students before distillation."""
    theirs = {n["row"]: f"{100 * n['value']:.0f}" for n in paper.published if n["exhibit"] == "table5_10"}
    table, shown = [], set()
    rows = for_data_set(rows, "NBME").sort_values(["tier", "task"], kind="stable")
    for (where, task, kind, model), group in rows.groupby(["source", "task", "kind", "model"], sort=False):
        name = NBME_MODELS.get(short(model)) if task in DATA_SETS else None
        shown.add(name)
        role = {"undistilled": "student, before distillation", "finetuned": "fine-tuned beside"}.get(kind)
        table.append({"source": where, "model": model, "role": role or f"teacher {int(group['position'].iloc[0]) + 1}",
                      "F1": points(group["score"]), "thesis's F1": theirs.get(name, "-")})
    table += [{"source": THESIS, "model": name, "thesis's F1": value} for name, value in theirs.items() if name not in shown]
    return pd.DataFrame(table).fillna("-")


def span_students(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame:
    """Table 5.11: F1 of the students on the span task by loss; the third experiment, described and never reported, besides."""
    def lines(name: str, scores: dict[str, pd.Series], **where: str) -> list[dict]:
        found = []
        for method, loss in LOSSES.items():
            value = paper.printed("table5_11", name, loss)
            theirs = "-" if name == "-" else "not reported" if value is None else f"{100 * value:.0f}"
            ours = points(scores[method]) if method in scores else "-"
            found.append(where | {"stands for": name, "loss": loss, "F1": ours, "thesis's F1": theirs})
        return found

    table, rows = [], for_data_set(rows, "NBME")
    for (_, task, start, model, where), group in rows.groupby(["tier", "task", "start", "model", "source"], sort=True):
        name = NBME_STUDENTS.get(short(model), "-") if DATA_SETS.get(task) == "NBME" else "-"
        table += lines(name, dict(list(group.groupby("method")["score"])), source=where, student=model, start=START[start])
    for name in NBME_STUDENTS.values():
        if name not in {line["stands for"] for line in table}:
            table += lines(name, {}, source=THESIS, student=name, start="-")
    return pd.DataFrame(table)


DRAWS = {"data_sizes": data_sizes, "model_sizes": model_sizes, "span_models": span_models, "span_students": span_students}
