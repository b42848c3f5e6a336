"""The thesis's seven claims, tested over repeats: independently seeded teachers and students, one difference per repeat.

All differences and margins are in points, that is, the score (or recall, or F1) times 100.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from mtkd import papers
from mtkd.evidence.frames import data_note, differences, in_order, is_stand_in, margin_points
from mtkd.evidence.verdicts import Member, Verdict, universal
from mtkd.papers import Exhibit
from mtkd.papers.domain_expertise_figures import BAR_FIGURES
from mtkd.papers.domain_expertise_scores import (
    CLASSES,
    LAYOUT,
    METHODS,
    PAPER,
    PER_CLASS,
    SPAN,
    class_differences,
    data_set,
    for_data_set,
    leak_note,
    medians,
    of_thesis,
    plain_students,
    rows_frame,
)
from mtkd.papers.domain_expertise_sizes import table4_1, table4_2
from mtkd.papers.domain_expertise_span import table5_10, table5_11
from mtkd.papers.domain_expertise_summary import choices, controls, summary, training_sizes
from mtkd.papers.domain_expertise_tables import (
    MEDIAN_TABLES,
    PER_CLASS_TABLES,
    any_class_table,
    any_median_table,
    table5_1,
)

EXHIBITS: dict[str, Callable] = {
    f"{PAPER}.table4_1": table4_1, f"{PAPER}.table4_2": table4_2, f"{PAPER}.table5_1": table5_1, **PER_CLASS_TABLES,
    **MEDIAN_TABLES, f"{PAPER}.table5_10": table5_10, f"{PAPER}.table5_11": table5_11, **BAR_FIGURES,
}  # fmt: skip
EXTRAS: dict[str, Callable] = {
    f"{PAPER}.per_class": any_class_table, f"{PAPER}.medians": any_median_table, f"{PAPER}.controls": controls,
    f"{PAPER}.choices": choices,
}  # fmt: skip
__all__ = ["EXHIBITS", "EXTRAS", "claims", "exhibit", "rows_frame", "summary", "training_sizes"]

UNIT = "points"
RIVALS = ("average", "random")


def exhibit(identifier: str, records: list[dict]) -> Exhibit:
    """One exhibit of this paper by id: "domain_expertise.table5_1", or just "table5_1" or "controls"."""
    full = identifier if identifier.startswith(PAPER) else f"{PAPER}.{identifier}"
    return EXTRAS[full](records) if full in EXTRAS else papers.exhibit(full, records)


def median_members(frame: pd.DataFrame) -> list[Member]:
    """Settings of D1: median per-class difference of the expertise student minus the rival's, per task, rival, teacher."""
    found = medians(frame[frame["kind"].eq("teacher") | frame.index.isin(plain_students(frame).index)])
    members = []
    for (task, teacher), rows in found.groupby(["task", "teacher"], sort=True):
        ours = rows[rows["method"] == "expertise"]
        for rival in RIVALS:
            theirs = rows[rows["method"] == rival]
            if len(ours) and len(theirs):
                difference = differences(ours, theirs, "repeat", "median") / 100  # the medians are in points already
                members.append(Member(f"{task}: against {METHODS[rival]}, from {teacher}", difference))
    return members


def every_class_members(frame: pd.DataFrame) -> list[Member]:
    """Settings of D2: the expertise student minus a teacher on a class, for every teacher and class of MIND (or stand-in)."""
    frame = for_data_set(frame, "MIND")
    students = plain_students(frame)
    found = class_differences(frame, students[students["method"] == "expertise"])
    return [Member(f"{task}: {name}, against {teacher}", rows.groupby("repeat")["difference"].mean().to_numpy())
            for (task, teacher, name), rows in found.groupby(["task", "teacher", "class"], sort=False)]


def spread_members(frame: pd.DataFrame) -> list[Member]:
    """Settings of D3: spread over classes of the averaged-logits student minus the expertise student's, per teacher.

    Spread: the sample standard deviation over classes of the per-class differences from that teacher, in points.
    """
    found = medians(frame[frame["kind"].eq("teacher") | frame.index.isin(plain_students(frame).index)])
    members = []
    for (task, teacher), rows in found.groupby(["task", "teacher"], sort=True):
        pair = [rows[rows["method"] == method] for method in ("average", "expertise")]
        if all(map(len, pair)):
            difference = differences(*pair, "repeat", "spread") / 100
            members.append(Member(f"{task}: spread of differences from {teacher}", difference))
    return members


def temperature_members(frame: pd.DataFrame, margin: float) -> list[Member]:
    """Settings of D4: score at another temperature minus the run's own, same method and repeat; a difference on either
    side beyond the margin contradicts the claim."""
    students, members = frame[frame["kind"] == "student"], []
    other = students[students["variant"].str.startswith("temperature")]
    for (task, metric, method, variant), rows in other.groupby(["task", "metric", "method", "variant"], sort=True):
        same = plain_students(students)
        same = same[(same["task"] == task) & (same["method"] == method)]
        low = float(same["temperature"].iloc[0]) if len(same) else np.nan
        label = f"{task}: {METHODS[method]}, {variant} minus {low:g}"
        members.append(Member(label, differences(rows, same, "repeat"), margin_points(metric, margin), "both"))
    return members


def loss_members(span: pd.DataFrame, margin: float) -> list[Member]:
    """Settings of D5: plain loss minus CA-MKD, per student; not worse by the margin is what "at least as good" asks."""
    members = []
    for (task, metric, start), rows in plain_students(span).groupby(["task", "metric", "start"], sort=True):
        pair = [rows[rows["method"] == method] for method in ("average", "camkd")]
        if all(map(len, pair)):
            members.append(Member(f"{task}: {start} student", differences(*pair, "repeat"), margin_points(metric, margin),
                                  or_better=True))
    return members


def tuned_members(span: pd.DataFrame) -> list[Member]:
    """Settings of D6: the student that was tuned on a related task before minus the plain one, per loss."""
    members = []
    for (task, method), rows in plain_students(span).groupby(["task", "method"], sort=True):
        pair = [rows[rows["start"] == start] for start in ("tuned", "plain")]
        if method in ("average", "camkd") and all(map(len, pair)):
            members.append(Member(f"{task}: {METHODS[method]}", differences(*pair, "repeat")))
    return members


def clinical_members(span: pd.DataFrame, margin: float) -> list[Member]:
    """Settings of D7: the tuned student (average logits) minus the clinical teacher, the last one of the run's list."""
    members, students = [], plain_students(span)
    for (task, metric), rows in span.groupby(["task", "metric"], sort=True):
        mine = students[(students["task"] == task) & (students["start"] == "tuned") & (students["method"] == "average")]
        teachers = rows[rows["kind"] == "teacher"]
        last = teachers[teachers["position"] == teachers["position"].max()]
        if len(mine) and len(last):
            members.append(Member(f"{task}: against {last['model'].iloc[0]}", differences(mine, last, "repeat"),
                                  margin_points(metric, margin)))
    return members


def claims(records: list[dict], margin: float = 0.01, alpha: float = 0.05) -> list[Verdict]:
    """Verdicts on D1 to D7, per tier. `margin` is in units of the score (0.01 = one point).

    D1: median per-class difference from each teacher, expertise against averaged logits and against random. D2: every
    class and teacher. D3: spread over classes. D4: other temperature within the margin. D5: plain loss not worse than
    CA-MKD by the margin. D6: tuned start better. D7: tuned student within the margin of the clinical teacher. Rules:
    `verdicts.universal`. The claims are about the thesis's data sets and their stand-ins; runs on data of one's own take no
    part. A claim that no tier has data for is "not tested"; a tier without data for it is left out.
    """
    everything = rows_frame(records)
    frame = everything[everything["task"].map(of_thesis).astype(bool)]
    found = in_order(PAPER, [verdict for tier, rows in frame.groupby("tier", sort=True)
                             for verdict in _tier_claims(rows, tier, margin, alpha, records)])
    own = sorted(set(everything["task"]) - set(frame["task"]))
    if own and frame.empty:
        note = f"the claims are about the thesis's data sets and say nothing of {', '.join(own)}"
        found = [replace(verdict, note=note) for verdict in found]
    return found


def _tier_claims(frame: pd.DataFrame, tier: str, margin: float, alpha: float, records: list[dict]) -> list[Verdict]:
    """The verdicts of one tier. A note speaks of the rows that a claim's differences are between, on tasks that have any."""
    classes, span, students = (frame[frame["arm"] == CLASSES], frame[frame["arm"] == SPAN], plain_students(frame))
    ours = students[students["method"] == "expertise"]
    losses = students[students["method"].isin(["average", "camkd"])]
    clinical = students[(students["method"] == "average") & (students["start"] == "tuned")]
    warm = frame[(frame["kind"] == "student") & frame["variant"].str.startswith("temperature")]
    plan = [
        ("D1", median_members, classes, ours, _data_sets_note),
        ("D2", every_class_members, for_data_set(frame, "MIND"), ours, None),
        ("D3", spread_members, classes, ours, lambda rows: "spread: standard deviation over classes"),
        ("D4", lambda rows: temperature_members(rows, margin), frame, warm, None),
        ("D5", lambda rows: loss_members(rows, margin), span, losses[losses["method"] == "camkd"], None),
        ("D6", tuned_members, span, losses, _same_size_note),
        ("D7", lambda rows: clinical_members(rows, margin), span, clinical, _depth_note),
    ]  # fmt: skip
    verdicts = []
    for name, make, rows, used, more in plan:
        if members := make(rows):
            tested = [task for task, own in rows.groupby("task") if make(own)]
            used = used[used["task"].isin(tested)]
            parts = (data_note(LAYOUT, used), more(used) if more else "", leak_note(used, records))
            note = "; ".join(words for words in parts if words)
            verdicts.append(universal(name, members, alpha=alpha, tier=tier, unit=UNIT, replicate="repeats", note=note))
    return verdicts


def _data_sets_note(frame: pd.DataFrame) -> str:
    own = {data_set(task) for task in frame["task"] if not is_stand_in(task)} & set(PER_CLASS)
    return f"{len(own)} of the thesis's 4 data sets" if own else ""


def _same_size_note(span: pd.DataFrame) -> str:
    """Whether the two students differ in more than their start: the thesis's are BERT-base and DistilBERT."""
    sizes = plain_students(span).groupby("start")["layers"].first()
    if {"plain", "tuned"} <= set(sizes.index) and sizes["plain"] != sizes["tuned"]:
        return f"the students differ in depth too: {sizes['plain']:.0f} layers plain, {sizes['tuned']:.0f} tuned"
    return ""


def _depth_note(span: pd.DataFrame) -> str:
    students = plain_students(span)
    layers = students[students["start"] == "tuned"]["layers"].dropna()
    depth = int(layers.iloc[0]) if len(layers) else 0
    return f"student of {depth} layer{'s' if depth > 1 else ''}" if depth else ""
