"""What domain_expertise.yaml cannot say: recall per class and its differences as rows, and words for verdicts and captions.

"Per-class accuracy" in the thesis is recall: of the samples of a class, the share that the model finds. For one student
and one teacher there are as many differences as classes, in points; their median is what Tables 5.3 to 5.9 report.
Worked example, EMOTION in Table 5.2, our approach against BERT:

    class         Sadness    Joy   Love  Anger   Fear  Surprise
    student          97.4   95.4   84.3   94.9   84.9      71.2
    teacher          96.7   95.6   79.8   94.1   84.3      71.2
    difference       +0.7   -0.2   +4.5   +0.8   +0.6       0.0      median (0.6 + 0.7) / 2 = +0.65, as printed

All differences and margins are in points, that is, the score (or recall, or F1) times 100.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pandas as pd

from mtkd.evidence.verdicts import Verdict
from mtkd.papers import domain_expertise_tables as tables
from mtkd.papers import read
from mtkd.papers.domain_expertise_tables import (
    CLASSES,
    CONTROLS,
    DATA_SETS,
    FINE_TUNED,
    METHODS,
    PER_CLASS,
    ROLES,
    SPAN,
    STUDENTS,
    for_data_set,
    of_thesis,
    roles,
    source,
)


def label(row: pd.Series) -> str:
    """What tables and settings call a row's model."""
    if row["kind"] in ("teacher", "finetuned", "ensemble"):
        return row["model"]
    if row["kind"] in ("control", "undistilled"):
        return CONTROLS.get(row["variant"], row["variant"] or "student fine-tuned only")
    return METHODS.get(row["method"], row["method"]) + (f", {row['variant']}" if row["variant"] else "")


# --- rows that no run wrote -------------------------------------------------------------------------------------------


def derived(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with more columns, and rows of the arms "recalls", "differences", "medians" and "spreads".

    thesis: whether the claims speak of the task; last: a teacher that stands last in its run; who, begun: a student in words;
    student: which of the tables' students it is, "" for others; column: where a table has the model (a student, or a teacher's
    role), for a difference that of its teacher; source, data set: of a line in a table.
    """
    student, tuned = frame["kind"].isin(["student", "undistilled", "control"]), frame["start"].eq("tuned")
    plain = frame["kind"].eq("student") & frame["variant"].eq("")
    shown = frame["method"].map(STUDENTS).where(plain).mask(frame["kind"] == "undistilled", FINE_TUNED).fillna("")
    begun = "fine-tuned" + tuned.map({True: " after a related task", False: ""})
    who = frame["method"].map(METHODS) + tuned.map({True: ", tuned", False: ""})
    frame = frame.assign(student=shown, column=shown.mask(shown == "", roles_of(frame)), begun=begun.where(student),
                         who=who.where(student))
    own = ["tier", "task", "kind", "method", "variant", "repeat", "model", "student", "metric", "setting", "fit_split"]
    keys, of_class = [*own, "position", "column"], [name for name in frame if name.startswith("recalls ")]
    recalls = frame[frame["arm"] == CLASSES][[*keys, *of_class]].melt(keys, of_class, "class", "score")
    recalls = recalls.dropna(subset="score").assign(arm="recalls")
    recalls["class"] = recalls["class"].str.removeprefix("recalls ")
    on = ["tier", "task", "setting", "repeat", "class"]
    taught = recalls[recalls["kind"] == "teacher"][[*on, "model", "column", "score"]]
    mine = recalls[recalls["kind"].isin(["student", "undistilled", "control"])].drop(columns=["column", "position"])
    both = mine.merge(taught.rename(columns={"model": "teacher", "score": "theirs"}), on=on)
    both = both.assign(score=(both["score"] - both.pop("theirs")).astype(float), arm="differences")
    by = both.groupby([*own, "teacher", "column"], dropna=False)["score"]
    found = pd.concat([frame, recalls, both, by.median().reset_index().assign(arm="medians"),
                       by.std().reset_index().assign(arm="spreads")], ignore_index=True)
    last = found.groupby(["tier", "task", "arm"])["position"].transform("max")
    texts = {name: found[name].fillna("") for name in ("variant", "student", "column", "who", "begun")}
    data_set = {"data set": found["task"].map(DATA_SETS).fillna("-")}
    return found.assign(**texts, **data_set, thesis=found["task"].map(of_thesis).astype(bool), last=found["position"].eq(last),
                        source=[source(*where) for where in zip(found["tier"], found["task"])])


def roles_of(frame: pd.DataFrame) -> pd.Series:
    """Which teacher of the thesis a row's model stands for, "" for none."""
    found = pd.Series("", index=frame.index)
    for _, rows in frame[frame["arm"] == CLASSES].groupby(["tier", "task", "setting"]):
        teachers = rows[rows["kind"] == "teacher"].sort_values("position", kind="stable")
        cast = {name: role for role, name in roles(list(dict.fromkeys(teachers["model"]))).items()}
        found[teachers.index] = teachers["model"].map(cast)
        for at, name in rows[rows["kind"] == "finetuned"]["model"].items():  # DeBERTa on Twitter-Sentiment
            (role,) = roles([name])
            found[at] = role if role in ROLES and role not in cast.values() else ""
    return found


def mind(ours: dict, theirs: dict, rows: pd.DataFrame) -> bool:
    """D2 is about MIND, or the stand-in where MIND was not run."""
    return ours["task"] in set(for_data_set(rows, "MIND")["task"])


# --- words ------------------------------------------------------------------------------------------------------------


def leak(rows: pd.DataFrame, parts: list[dict] | None = None) -> str:
    """A warning for a caption or a verdict where the run's own rule found its experts on the test split; else nothing."""
    own = rows["fit_split"].eq("test") & rows["variant"].eq("") & rows["method"].isin(["expertise", "mixture"])
    tiers = ", ".join(sorted(set(rows["tier"][own])))
    return f"experts found on the test split that is reported, as in the thesis: a leak ({tiers} tier)" if tiers else ""


def about(rows: pd.DataFrame, records: list[dict]) -> str:
    """What a caption says besides: a leak, and who stands where the thesis has its teachers."""
    if "kind" not in rows:
        return ""
    found, parts = leak(rows), []
    names = rows["teacher"].fillna(rows["model"]) if "teacher" in rows else rows["model"]
    cast = rows.assign(stands=names)[rows["column"].isin(ROLES)]
    for (tier, task), group in cast.groupby(["tier", "task"], sort=True):
        who = dict(zip(group["column"], group["stands"]))
        parts.append(f"{tier} tier, {task}: " + ", ".join(f"{role} = {who[role]}" for role in ROLES if role in who))
    words = [f"{found[0].upper()}{found[1:]}." if found else "", f"Teachers by role ({'; '.join(parts)})." if parts else ""]
    return " ".join(filter(None, words))


def data_sets(rows: pd.DataFrame, parts: list[dict]) -> str:
    """D1: on how many of the thesis's data sets it was tested, and a leak."""
    tested = {part["label"].split(": ")[0] for part in parts} & {task for task, name in DATA_SETS.items() if name in PER_CLASS}
    return "; ".join(filter(None, [f"{len(tested)} of the thesis's 4 data sets" if tested else "", leak(rows)]))


def depths(rows: pd.DataFrame) -> dict[str, float]:
    """Layers of the span task's plain and tuned student."""
    students = rows[(rows["arm"] == SPAN) & (rows["kind"] == "student") & (rows["variant"] == "") & rows["thesis"]]
    return students.groupby("start")["layers"].first().dropna().to_dict()


def same_size(rows: pd.DataFrame, parts: list[dict]) -> str:
    """D6: whether the two students differ in more than their start: the thesis's are BERT-base and DistilBERT."""
    plain, tuned = (depths(rows).get(start) for start in ("plain", "tuned"))
    differ = plain and tuned and plain != tuned
    return f"the students differ in depth too: {plain:.0f} layers plain, {tuned:.0f} tuned" if differ else ""


def depth(rows: pd.DataFrame, parts: list[dict]) -> str:
    layers = depths(rows).get("tuned")
    return f"student of {layers:.0f} layer{'s' if layers > 1 else ''}" if layers else ""


def training_sizes(records: list[dict]) -> str:
    """How much data the students of a paper's records were made with, in words: samples of each task's training split.

    >>> training_sizes([{"paper": "domain_expertise", "tier": "demo", "data": [
    ...     {"task": "pydocs/topic", "split": "train", "samples": 900}]}])
    'demo tier: pydocs/topic (900 training samples)'
    """
    tiers = PAPER.data_frame(records, every=True).query("split == 'train'").groupby("tier")
    return "; ".join(f"{tier} tier: " + ", ".join(f"{task} ({' or '.join(map(str, sorted(set(sizes))))} training samples)"
                                                   for task, sizes in own.groupby("task")["samples"]) for tier, own in tiers)


def claims(records: list[dict], margin: float = 0.01, alpha: float = 0.05) -> list[Verdict]:
    """The verdicts on D1 to D7 (see `Paper.claims`). They are about the thesis's data sets and their stand-ins; runs on data of
    one's own take no part, and where there is nothing else the note says so."""
    found, tasks = PAPER.claims(records, margin, alpha), set(frame(records)["task"])
    if tasks and not any(map(of_thesis, tasks)):
        note = f"the claims are about the thesis's data sets and say nothing of {', '.join(sorted(tasks))}"
        return [replace(verdict, note=note) for verdict in found]
    return found


PAPER = read("domain_expertise", label=label, derive=derived, pairs={"mind": mind}, about=about,
             notes={"D1": data_sets, "D2": leak, "D3": leak, "D4": leak, "D6": same_size, "D7": depth},
             draws=tables.DRAWS)


def shows(draw: str, data_set: str) -> list[str]:
    """Names of the exhibits that show one of the thesis's data sets (with "": any task) in a way such as "per_class"."""
    exhibits = PAPER.data["exhibits"].items()
    return [name for name, entry in exhibits if entry["draw"] == draw and entry.get("data_set", "") == data_set]


exhibit, frame, summary = PAPER.exhibit, PAPER.frame, PAPER.summary
published_differences = partial(tables.published_differences, PAPER)
