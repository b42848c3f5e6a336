"""The thesis's tables, drawn from records: its numbers and ours in the same columns, one line each.

Columns are roles: the teacher that stands where the thesis has BERT (RoBERTa, DeBERTa), and the three students. The
caption says who that was. Where there is no run on a data set, its exhibit shows the stand-in's, named as such.
"""

from collections.abc import Callable

import pandas as pd

from mtkd.evidence import frames
from mtkd.papers import Exhibit, published_value
from mtkd.papers.domain_expertise_scores import (
    CLASSES,
    PAPER,
    PER_CLASS,
    PRINTED,
    ROLES,
    STUDENTS,
    class_of,
    data_set,
    for_data_set,
    leak_note,
    medians,
    per_class,
    plain_class,
    plain_students,
    printed_classes,
    roles,
    rows_frame,
    scores,
    signed,
    source,
)

THESIS = "thesis"
FINE_TUNED = "fine-tuned only"


def missing(identifier: str) -> Exhibit:
    return frames.missing(identifier)


def made(identifier: str, frame: pd.DataFrame, records: list[dict], content, words: str, name: str | None = None) -> Exhibit:
    """An exhibit whose caption also says who stood where the thesis has its teachers, how often, and on what."""
    counts = frame.groupby(["tier", "arm"])["repeat"].nunique()
    repeats = "Repeats: " + ", ".join(f"{n} ({tier} tier)" for (tier, _), n in counts.items()) + "."
    if name and not (frame["task"].map(data_set) == name).any():
        repeats += f" No run on {name} here."
    if leak := leak_note(frame[frame["variant"] == ""], records):
        repeats += f" {leak[0].upper()}{leak[1:]}."
    return frames.made(identifier, frame, records, content, f"{words} {casting(frame)}".strip(), repeats)


def casting(frame: pd.DataFrame) -> str:
    """Who plays whom: "demo tier, pydocs/topic: BERT = scratch-2x64, ..."; empty where there are no class tables."""
    parts = []
    teachers = frame[(frame["kind"] == "teacher") & (frame["arm"] == CLASSES)]
    for (tier, task), rows in teachers.groupby(["tier", "task"], sort=True):
        found = roles(teacher_names(rows))
        parts.append(f"{tier} tier, {task}: " + ", ".join(f"{role} = {name}" for role, name in found.items() if role != name))
    return f"Teachers by role ({'; '.join(parts)})." if parts else ""


def teacher_names(rows: pd.DataFrame) -> list[str]:
    """Teachers in the order in which the run was given them."""
    teachers = rows[rows["kind"] == "teacher"].sort_values("position", kind="stable")
    return list(dict.fromkeys(teachers["model"]))


def by_role(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of one tier and task by the column that they go to: teachers by role, students by method."""
    columns = {role: rows[(rows["kind"] == "teacher") & (rows["model"] == name)]
               for role, name in roles(teacher_names(rows)).items()}
    for role in ROLES:  # a model that was fine-tuned beside the teachers: DeBERTa on Twitter-Sentiment
        beside = rows[rows["kind"] == "finetuned"]
        if role not in columns and len(beside):
            columns[role] = beside[[roles([name]).keys() == {role} for name in beside["model"]]]
    students = plain_students(rows)
    columns |= {words: students[students["method"] == method] for method, words in STUDENTS.items()}
    return columns | {FINE_TUNED: rows[rows["kind"] == "undistilled"]}


def in_columns(table: list[dict]) -> pd.DataFrame:
    """A table whose columns come in the thesis's order, with dashes for what is not there; columns without any cell go."""
    frame = pd.DataFrame(table)
    order = [*ROLES, *STUDENTS.values(), FINE_TUNED]
    extra = [c for c in frame.columns if c not in order]
    labels = [c for c in extra if c in ("data set", "class", "student", "source", "printed as")]
    kept = [*labels, *ROLES, *(c for c in extra if c not in labels), *STUDENTS.values(), FINE_TUNED]
    return frame.reindex(columns=[c for c in kept if c in frame and frame[c].notna().any()]).fillna("-")


def table5_1(records: list[dict]) -> Exhibit:
    """Validation accuracy of teachers and students, one line per data set and source."""
    frame = rows_frame(records)
    frame = frame[frame["arm"] == CLASSES]
    if frame.empty:
        return missing(f"{PAPER}.table5_1")
    table = _score_lines(frame[frame["task"].map(data_set).isna()], "-", "validation")
    for name in PER_CLASS:
        cells = {column: published_value(PAPER, "table5_1", name, PRINTED[key])
                 for key, column in (*((r, r) for r in ROLES), *STUDENTS.items())}
        mine = frame[frame["task"].map(data_set) == name]
        table += _score_lines(mine, name, "validation")
        table.append({"data set": name, "source": THESIS} | {c: f"{v:.1f}" for c, v in cells.items() if v is not None})
    words = "Accuracy in per cent on validation, mean ± standard deviation over repeats; the thesis's of one run each. The "
    words += f"thesis does not report the student before distillation ({FINE_TUNED})."
    return made(f"{PAPER}.table5_1", frame, records, in_columns(table), words)


def _score_lines(frame: pd.DataFrame, name: str, column: str) -> list[dict]:
    return [{"data set": name, "source": source(tier, task)}
            | {where: scores(rows, column) for where, rows in by_role(group).items() if len(rows)}
            for (tier, task), group in frame.groupby(["tier", "task"], sort=True)]


def class_table(frame: pd.DataFrame, name: str | None = None) -> pd.DataFrame:
    """Recall per class of teachers and students, ours above the thesis's where the classes are its own.

    frame: rows of one data set (or of any task, without `name`).
    """
    table = []
    for (tier, task), group in frame.groupby(["tier", "task"], sort=True):
        cells: dict[str, dict] = {}
        for where, rows in by_role(group).items():
            for label, found in per_class(rows).groupby("class", sort=False):
                cells.setdefault(label, {})[where] = scores(found, "recall")
        table += [{"class": label, "source": source(tier, task)} | found for label, found in cells.items()]
    if name:
        ours = {plain_class(line["class"]): line["class"] for line in table}
        for printed in printed_classes(name):
            label = ours.get(class_of(name, printed))
            line = {"class": label or printed, "source": THESIS, "printed as": printed if name == "Twitter-Emotion" else None}
            for key, column in (*((r, r) for r in ROLES), *STUDENTS.items()):
                value = published_value(PAPER, PER_CLASS[name], printed, PRINTED[key])
                line[column] = None if value is None else f"{value:.1f}"
            last = max((i for i, other in enumerate(table) if other["class"] == line["class"]), default=len(table) - 1)
            table.insert(last + 1, line)
    return in_columns(table)


def _per_class(name: str) -> Callable[[list[dict]], Exhibit]:
    identifier = f"{PAPER}.{PER_CLASS[name]}"

    def make(records: list[dict]) -> Exhibit:
        frame = for_data_set(rows_frame(records), name)
        if frame.empty:
            return missing(identifier)
        words = "Recall on test (the thesis calls it per-class accuracy), in per cent; mean ± standard deviation over repeats."
        if name == "MIND":
            words += " The thesis's caption says EMOTION; the rows are MIND's. DeBERTa is absent from it."
        if name == "Twitter-Emotion":
            words += " The thesis's rows stand at the class that their numbers allow, counted in samples: its labels, in "
            words += "the column 'printed as', are exchanged (see the misprints)."
        return made(identifier, frame, records, class_table(frame, name), words, name)

    return make


def median_table(frame: pd.DataFrame, name: str | None = None) -> pd.DataFrame:
    """Median over classes of student minus teacher, in points: a line per student and source, a column per teacher."""
    table = []
    found = medians(frame)
    words = STUDENTS | {FINE_TUNED: FINE_TUNED}
    for (tier, task), group in frame.groupby(["tier", "task"], sort=True):
        here = found[(found["tier"] == tier) & (found["task"] == task) & (found["variant"] == "")]
        here = here.assign(method=here["method"].where(here["kind"] == "student", FINE_TUNED))
        here = here[here["kind"].isin(["student", "undistilled"])]
        for method, words_ in words.items():
            cells = {role: signed(here[(here["method"] == method) & (here["teacher"] == teacher)]["median"])
                     for role, teacher in roles(teacher_names(group)).items()}
            table.append({"student": words_, "source": source(tier, task)} | {r: c for r, c in cells.items() if c != "n/a"})
    if name:
        for method, words_ in STUDENTS.items():
            table.append({"student": words_, "source": THESIS} | {
                role: f"{value:+.2f}" for role in ROLES
                if (value := published_value(PAPER, median_id(name), PRINTED[method], PRINTED[role])) is not None})
        table.sort(key=lambda line: list(words.values()).index(line["student"]))
    return in_columns(table)


def median_id(name: str) -> str:
    """The table of medians that follows a data set's per-class table: 5.3 after 5.2, and so on."""
    head, _, last = PER_CLASS[name].rpartition("_")
    return f"{head}_{int(last) + 1}"


def _medians(name: str) -> Callable[[list[dict]], Exhibit]:
    identifier = f"{PAPER}.{median_id(name)}"

    def make(records: list[dict]) -> Exhibit:
        frame = for_data_set(rows_frame(records), name)
        if frame.empty:
            return missing(identifier)
        words = "Points: recall of the student minus recall of the teacher (of the same repeat), median over classes, then "
        words += "mean ± standard deviation over repeats. Above zero, the student is better on more than half of the classes."
        return made(identifier, frame, records, median_table(frame, name), words, name)

    return make


PER_CLASS_TABLES = {f"{PAPER}.{PER_CLASS[name]}": _per_class(name) for name in PER_CLASS}
MEDIAN_TABLES = {f"{PAPER}.{median_id(name)}": _medians(name) for name in PER_CLASS}


def any_class_table(records: list[dict]) -> Exhibit:
    """Recall per class on every task of the records, the thesis's own or not."""
    frame = rows_frame(records)
    frame = frame[frame["arm"] == CLASSES]
    if frame.empty:
        return Exhibit(f"{PAPER}.per_class", "recall per class", "No run of this yet.")
    words = "Recall on test in per cent, mean ± standard deviation over repeats."
    return Exhibit(f"{PAPER}.per_class", "recall per class", f"{words} {casting(frame)}", class_table(frame))


def any_median_table(records: list[dict]) -> Exhibit:
    """Medians of per-class differences on every task of the records."""
    frame = rows_frame(records)
    frame = frame[frame["arm"] == CLASSES]
    if frame.empty:
        return Exhibit(f"{PAPER}.medians", "medians of per-class differences", "No run of this yet.")
    words = "Points: student minus teacher, median over classes, mean ± standard deviation over repeats."
    return Exhibit(f"{PAPER}.medians", "medians of per-class differences", f"{words} {casting(frame)}", median_table(frame))
