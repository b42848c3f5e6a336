"""Beyond the thesis's tables: its rule against negative controls and against other rules, and the README's summary."""

import pandas as pd

from mtkd.evidence import frames
from mtkd.papers import Exhibit
from mtkd.papers.domain_expertise_scores import (
    CLASSES,
    LAYOUT,
    METHODS,
    PAPER,
    STUDENTS,
    leak_note,
    plain_students,
    rows_frame,
    scores,
)

CONTROLS = {
    "undistilled": "student fine-tuned only", "plain_ce": "plain CE, same compute", "shuffled_teacher": "shuffled teachers",
    "uniform_teacher": "uniform teachers",
}  # fmt: skip


def controls(records: list[dict]) -> Exhibit:
    """The student of the run's main method against those without knowledge; paired over repeats, Holm-adjusted."""
    frame = rows_frame(records)
    frame = frame.assign(rival=frame["variant"].where(frame["kind"] == "control", "undistilled"))
    rivals = frame[frame["kind"].isin(["control", "undistilled"])]
    entries = []
    for (tier, arm, task, start, rival), rows in rivals.groupby(["tier", "arm", "task", "start", "rival"], sort=False):
        main = "expertise" if arm == CLASSES else "average"
        students = plain_students(frame)
        mine = students[(students["tier"] == tier) & (students["arm"] == arm) & (students["task"] == task)]
        mine = mine[(mine["method"] == main) & (mine["start"] == start)]
        if len(mine):
            entries.append(({"tier": tier, "task": task, "student": METHODS[main] + ("" if start == "plain" else f", {start}"),
                             "control": CONTROLS.get(rival, rival)}, mine, rows))
    if not entries:
        return Exhibit(f"{PAPER}.controls", "negative controls", "No control was run.")
    table = frames.paired_table(LAYOUT, entries, "score", "control's score")
    words = "Score times 100, mean ± standard deviation; difference student minus control in points, paired over repeats, "
    words += "with its t interval and one-sided p. The control 'plain CE, same compute' goes on from the same fine-tuned "
    words += "student for the same number of steps, with labels only. A student no better than its controls has not been "
    words += "shown to have learned from its teachers what they alone know."
    return Exhibit(f"{PAPER}.controls", "negative controls", words, table)


def choices(records: list[dict]) -> Exhibit:
    """Every other way to choose teachers against the thesis's rule: other methods, and the rule with one thing changed."""
    frame = rows_frame(records)
    students = frame[(frame["kind"] == "student") & (frame["arm"] == CLASSES)]
    entries = []
    for (tier, task), rows in students.groupby(["tier", "task"], sort=True):
        main = rows[(rows["method"] == "expertise") & (rows["variant"] == "")]
        for (method, variant), other in rows.groupby(["method", "variant"], sort=False):
            if (method, variant) != ("expertise", "") and len(main):
                what = METHODS.get(method, method) + (f", {variant}" if variant else "")
                entries.append(({"tier": tier, "task": task, "instead": what}, main, other))
    if not entries:
        return Exhibit(f"{PAPER}.choices", "other ways to choose", "No other way was run.")
    table = frames.paired_table(LAYOUT, entries, "our approach", "score instead")
    words = "Score times 100 on test; difference our approach minus the other way in points, paired over repeats, with its t "
    words += "interval and one-sided p. 'fit on test' lets the reported split choose the teachers, as the thesis does."
    if leak := leak_note(plain_students(students), records):
        words += f" Our approach: {leak}."
    return Exhibit(f"{PAPER}.choices", "other ways to choose", words, table)


def training_sizes(records: list[dict]) -> str:
    """How much data the students of a paper's records were made with, in words: samples of each task's training split.

    >>> training_sizes([{"paper": "domain_expertise", "tier": "demo", "data": [
    ...     {"task": "pydocs/topic", "split": "train", "samples": 900}]}])
    'demo tier: pydocs/topic (900 training samples)'
    """
    found: dict[str, dict[str, set[int]]] = {}
    for record in records:
        for row in record.get("data", []) if record.get("paper") == PAPER else []:
            if row["split"] == "train":
                found.setdefault(record.get("tier", ""), {}).setdefault(row["task"], set()).add(row["samples"])
    return "; ".join(f"{tier} tier: " + ", ".join(f"{task} ({' or '.join(map(str, sorted(sizes)))} training samples)"
                                                   for task, sizes in sorted(tasks.items()))
                     for tier, tasks in sorted(found.items()))


def summary(records: list[dict]) -> pd.DataFrame:
    """One row per tier, arm and task: teachers, their mean, the fine-tuned student, and the students by method."""
    frame, table = rows_frame(records), []
    for (tier, arm, task, metric), rows in frame.groupby(["tier", "arm", "task", "metric"], sort=True):
        students = plain_students(rows)
        teachers = rows[rows["kind"] == "teacher"]
        best = teachers.groupby("model")["score"].mean()
        cells = {"tier": tier, "task": task, "metric": metric,
                 "best teacher": scores(teachers[teachers["model"] == best.idxmax()]) if len(best) else "-",
                 "teachers' mean logits": scores(rows[rows["kind"] == "ensemble"])}
        for start, group in [("plain", students)] if arm == CLASSES else students.groupby("start", sort=True):
            tuned = rows[(rows["kind"] == "undistilled") & (rows["start"] == start)]
            names = STUDENTS if arm == CLASSES else {"average": METHODS["average"]}
            table.append(cells | {"student": "fine-tuned" if start == "plain" else "fine-tuned after a related task",
                                  "not distilled": scores(tuned)}
                         | {words: scores(group[group["method"] == method]) for method, words in names.items()}
                         | {"CA-MKD": scores(group[group["method"] == "camkd"])}
                         | {"repeats": rows["repeat"].nunique(), "hardware": frames.hardware(PAPER, records, tier)})
    order = ["tier", "task", "metric", "best teacher", "teachers' mean logits", "student", "not distilled",
             *STUDENTS.values(), "CA-MKD", "repeats", "hardware"]
    return pd.DataFrame(table).reindex(columns=order).fillna("-") if table else pd.DataFrame(table)
