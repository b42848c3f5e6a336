"""Tables 5.10 and 5.11: the span task (NBME, or its stand-in), scored with F1 over characters."""

import pandas as pd

from mtkd.papers import Exhibit, load, published_value
from mtkd.papers.domain_expertise_scores import PAPER, data_set, for_data_set, plain_students, rows_frame, scores, source
from mtkd.papers.domain_expertise_tables import THESIS, made, missing

NBME_MODELS = {
    "bert-base-uncased": "BERT-Base-Uncased", "bio_clinicalbert": "Bioclinical BERT",
    "biomednlp-biomedbert-base-uncased-abstract": "biomednlp-pubmedbert-base-uncased",
    "biomednlp-pubmedbert-base-uncased-abstract": "biomednlp-pubmedbert-base-uncased",
    "roberta-large": "roberta-large", "deberta-v3-large": "deberta-v3-large",
}  # fmt: skip


def nbme_name(model: str) -> str | None:
    """The thesis's name of a model of Table 5.10 by its hub id; None for any other.

    >>> nbme_name("emilyalsentzer/Bio_ClinicalBERT"), nbme_name("scratch-2x64")
    ('Bioclinical BERT', None)
    """
    return NBME_MODELS.get(model.rsplit("/", 1)[-1].lower())


def table5_10(records: list[dict]) -> Exhibit:
    """F1 of every model fine-tuned on the span task: teachers, models beside them, and students before distillation."""
    frame = for_data_set(rows_frame(records), "NBME")
    used = frame[frame["kind"].isin(["teacher", "finetuned", "undistilled"])]
    if used.empty:
        return missing(f"{PAPER}.table5_10")
    table, shown = [], set()
    for (tier, task), rows in used.groupby(["tier", "task"], sort=True):
        for (kind, model), group in rows.groupby(["kind", "model"], sort=False):
            name = nbme_name(model)
            value = published_value(PAPER, "table5_10", name, "F1") if data_set(task) else None
            shown |= {name} if value is not None else set()
            role = {"teacher": f"teacher {int(group['position'].iloc[0]) + 1}" if kind == "teacher" else "",
                    "undistilled": "student, before distillation"}.get(kind, "fine-tuned beside")
            table.append({"source": source(tier, task), "model": model, "role": role, "F1": scores(group),
                          "thesis's F1": f"{100 * value:.0f}" if value is not None else "-"})
    printed = [entry for entry in load(PAPER).published if entry["exhibit"] == "table5_10"]
    table += [{"source": THESIS, "model": e["row"], "thesis's F1": f"{100 * e['value']:.0f}"}
              for e in printed if e["row"] not in shown]
    words = "F1 over characters, times 100, mean ± standard deviation over repeats. The thesis prints two digits, and gives "
    words += "PubMedBERT 79 in its introduction."
    return made(f"{PAPER}.table5_10", used, records, pd.DataFrame(table).fillna("-"), words, "NBME")


LOSSES = {"average": "Student loss + Distillation loss", "camkd": "Student loss + CA-MKD",
          "average+teacher": "Student loss + Distillation loss + Teacher loss"}
NBME_STUDENTS = {"bert-base-uncased": "BERT-base", "distilbert-base-uncased-distilled-squad": "DistilBERT-SQuAD"}


def nbme_student(model: str) -> str:
    """The thesis's name of a student of Table 5.11 by its hub id; a dash for any other.

    >>> nbme_student("google-bert/bert-base-uncased"), nbme_student("scratch-1x64")
    ('BERT-base', '-')
    """
    return NBME_STUDENTS.get(model.rsplit("/", 1)[-1].lower(), "-")


START = {"plain": "plain", "tuned": "tuned on a related task before"}


def _printed(student: str, method: str) -> str:
    """What Table 5.11 prints for a student of the thesis and a loss; a dash for any other student."""
    if student == "-":
        return "-"
    value = published_value(PAPER, "table5_11", student, LOSSES[method])
    return "not reported" if value is None else f"{100 * value:.0f}"


def table5_11(records: list[dict]) -> Exhibit:
    """F1 of the students on the span task by loss; the third experiment, described and never reported, as extra rows."""
    frame = for_data_set(rows_frame(records), "NBME")
    students = plain_students(frame)
    students = students[students["method"].isin(LOSSES)]
    if students.empty:
        return missing(f"{PAPER}.table5_11")
    table, shown = [], set()
    for (tier, task, start, model), rows in students.groupby(["tier", "task", "start", "model"], sort=True):
        name = nbme_student(model) if data_set(task) == "NBME" else "-"
        shown.add(name)
        table += [{"source": source(tier, task), "student": model, "start": START[start], "stands for": name, "loss": words,
                   "F1": scores(rows[rows["method"] == method]), "thesis's F1": _printed(name, method)}
                  for method, words in LOSSES.items()]
    table += [{"source": THESIS, "student": name, "start": "-", "stands for": name, "loss": words, "F1": "-",
               "thesis's F1": _printed(name, method)}
              for name in NBME_STUDENTS.values() if name not in shown for method, words in LOSSES.items()]
    words = "F1 over characters, times 100, mean ± standard deviation over repeats. CA-MKD weighs one loss per teacher by "
    words += "the teacher's own loss on the label; the thesis says that its teachers' logits were averaged there too, which "
    words += "leaves nothing to weigh. The teacher's own loss, added in the third experiment, is a constant for the student: "
    words += "its rows equal the first loss's."
    return made(f"{PAPER}.table5_11", students, records, pd.DataFrame(table), words, "NBME")
