"""TMKD's nine claims, tested over independent repeats: in each, teachers and students have seeds of their own.

Everything in one repeat shares its teachers' seeds, so two arms of the same repeat are compared as a pair: one difference
per repeat and setting (a task, an architecture), n = number of repeats. Differences of scores and margins are in points,
that is, the score times 100; differences of speed are in per cent, and say so in their label. A claim of several parts is
"supported" only where each of them was tested: a part that no run has anything for stands among the settings, without data.
"""

import pandas as pd

from mtkd import papers
from mtkd.evidence.frames import data_note, differences, in_order, margin_points
from mtkd.evidence.verdicts import Member, Verdict, universal
from mtkd.papers import Exhibit
from mtkd.papers.tmkd_extras import controls, made_with, speed, summary
from mtkd.papers.tmkd_figures import fig2, fig3, pools
from mtkd.papers.tmkd_scores import (
    LAYOUT,
    PAPER,
    beside,
    largest_pool,
    method_name,
    pick,
    rows_frame,
    speed_ratios,
    student_name,
    transformers,
)
from mtkd.papers.tmkd_tables import table2, table3, table4, table5, table6, table7, table8, table9

EXHIBITS = {f"{PAPER}.{make.__name__}": make
            for make in (table2, table3, table4, table5, table6, table7, table8, table9, fig2, fig3)}  # fmt: skip
EXTRAS = {f"{PAPER}.controls": controls, f"{PAPER}.pools": pools, f"{PAPER}.speed": speed}
Found = list[tuple[Member, pd.DataFrame]]  # settings that were tested, each with our rows in it
FASTER = 2.0  # "three times", "many times" the speed: tested as more than twice
__all__ = ["EXHIBITS", "EXTRAS", "claims", "controls", "exhibit", "made_with", "pools", "rows_frame", "speed", "summary"]


def exhibit(identifier: str, records: list[dict]) -> Exhibit:
    """One exhibit of this paper by id: "tmkd.table4", or just "table4", "controls", "pools" or "speed"."""
    full = identifier if identifier.startswith(PAPER) else f"{PAPER}.{identifier}"
    return EXTRAS[full](records) if full in EXTRAS else papers.exhibit(full, records)


def against(label: str, ours: pd.DataFrame, rival: pd.DataFrame, **options) -> Found:
    """One member, or none where there is nothing to compare."""
    found = differences(ours, rival, LAYOUT.replicate)
    return [(Member(label, found, **options), ours)] if len(found) else []


def settings(rows: pd.DataFrame):
    """(label, rows) per task and student architecture of the arm "methods"."""
    students = rows[(rows["arm"] == "methods") & (rows["kind"] == "student")]
    for (task, student), found in students.groupby(["task", "student"], sort=True):
        yield f"{task}, {student_name(student, found['layers'].iloc[0])}", found


def versus(rows: pd.DataFrame, ours: tuple[str, str], rival: tuple[str, str]) -> Found:
    """One (method, pool) against another, in every setting that has both."""
    words = f"{method_name(*ours)} against {method_name(*rival)}"
    return [member for label, found in settings(rows)
            for member in against(f"{label}: {words}", pick(found, *ours), pick(found, *rival))]  # fmt: skip


def pretraining_parts(rows: pd.DataFrame) -> dict[str, Found]:
    """T1: TKD minus KD (Table 5), on the pool's own task and on others."""
    found = versus(transformers(rows), ("one", largest_pool(rows)), ("one", ""))
    return {what: [(member, ours) for member, ours in found if (ours["role"] == role).all()]
            for what, role in (("the pool's own task", "target"), ("transfer to another task", "transfer"))}  # fmt: skip


def order_parts(rows: pd.DataFrame, pool: str) -> dict[str, Found]:
    """T2: m-o-1 minus 1avg-o-1, and 1avg-o-1 minus 1-o-1, with the pool or without ("")."""
    steps = [((more, pool), (fewer, pool)) for more, fewer in (("many", "average"), ("average", "one"))]
    return {f"{method_name(*more)} against {method_name(*fewer)}": versus(rows, more, fewer) for more, fewer in steps}


def both_parts(rows: pd.DataFrame) -> dict[str, Found]:
    """T3: TMKD minus TKD and minus MKD, at the large pool (Figure 2)."""
    rows, pool = transformers(rows), largest_pool(rows)
    return {"TMKD against TKD": versus(rows, ("many", pool), ("one", pool)),
            "TMKD against MKD": versus(rows, ("many", pool), ("many", ""))}


def ensemble_members(rows: pd.DataFrame, pools: tuple[str, ...]) -> Found:
    """T4: one student of many teachers minus the ensemble of students, with stage 1 (TMKD) and without (MKD)."""
    return [member for pool in pools for member in versus(rows, ("many", pool), ("each", ""))]


def faster(ours: pd.DataFrame, rival: pd.DataFrame, what: str) -> Found:
    """Per cent by which the student's queries per second exceed FASTER times the rival's, one per repeat; both were timed by
    the same run, since two runs may have found the machine busy in different ways."""
    ratio = speed_ratios(ours, rival)
    label = f"speed in per cent: above {FASTER:g} times that of {what}"
    return [(Member(label, 100 * (ratio / FASTER - 1).to_numpy(dtype=float)), ours)] if len(ratio) else []


def layer_members(rows: pd.DataFrame) -> Found:
    """T5: the gain from the first depth to the second, and that gain minus the one to the third (1, 3, 5 in the paper)."""
    members = []
    for task, found in rows.groupby("task", sort=True):
        depths = sorted(found["layers"].unique())
        if len(depths) >= 3:
            low, middle, high = (found[found["layers"] == n].groupby("repeat")["score"].mean() for n in depths[:3])
            first, more = (100 * v.dropna().to_numpy(dtype=float) for v in (middle - low, 2 * middle - low - high))
            words = "{}: gain from {:g} to {:g} layers".format(task, *depths[:2])
            members += [(Member(words, first), found), (Member(f"{words} less that to {depths[2]:g}", more), found)]
    return members


def alpha_parts(rows: pd.DataFrame) -> dict[str, Found]:
    """T6: the score rises with alpha below 1 (slope of a straight line per repeat, over the whole range), and falls at 1."""
    rises, falls = [], []
    for task, found in rows.groupby("task", sort=True):
        table = 100 * found.pivot_table(index="repeat", columns="alpha", values="score")
        shares = [a for a in table if a < 1]
        if len(shares) > 1:
            x = pd.Series(shares, index=shares) - sum(shares) / len(shares)
            slope = table[shares].dropna().mul(x).sum(axis=1) / (x**2).sum()
            rise = (slope * (shares[-1] - shares[0])).to_numpy(dtype=float)
            rises.append((Member(f"{task}: rise from {shares[0]:g} to {shares[-1]:g}", rise), found))
        if shares and 1.0 in table:
            drop = (table[shares[-1]] - table[1.0]).dropna().to_numpy(dtype=float)
            falls.append((Member(f"{task}: {shares[-1]:g} against 1", drop), found))
    return {"a rise with alpha below 1": rises, "a fall at alpha = 1": falls}


def largest_members(rows: pd.DataFrame) -> Found:
    """T7, its second half: TMKD at the largest pool minus the best teacher (Table 8)."""
    members = []
    for task, found in rows.groupby("task", sort=True):
        ours, best = found[(found["kind"] == "student") & (found["pool"] != "")], found[found["kind"] == "teacher"]
        members += against(f"{task}: TMKD with the largest pool against the best teacher", ours, best)
    return members


def teacher_members(rows: pd.DataFrame, teachers: pd.DataFrame, margin: float) -> Found:
    """T8: TMKD large minus the best teacher of the task; not worse by the margin, or better."""
    members, pool = [], largest_pool(rows)
    for (task, metric), found in transformers(pick(rows, "many", pool)).groupby(["task", "metric"], sort=True):
        best = teachers[(teachers["task"] == task) & (teachers["variant"] == "best")]
        options = {"margin": margin_points(metric, margin), "or_better": True}
        members += against(f"{task}: {method_name('many', pool)} against the best teacher", found, best, **options)
    return members


def claims(records: list[dict], margin: float = 0.01, alpha: float = 0.05) -> list[Verdict]:
    """Verdicts on T1 to T9, per tier. `margin` is in units of accuracy (0.01 = one point; MCC gets twice that).

    T1: TKD above KD, on the pool's own task and on others; T2: m-o-1 above 1avg-o-1 above 1-o-1, with and without stage 1;
    T3: TMKD above TKD and MKD; T4: TMKD and MKD above m-o-m, at more than twice the speed; T5: the first gain in depth above
    zero and above the second; T6: rising in alpha, falling at 1; T7: the large pool above the base one, the largest above the
    teacher; T8: not below the best teacher by the margin, at more than twice its speed; T9: m-o-m above 1-o-1. Rules:
    `verdicts.universal`. A part of a claim without any data keeps it from "supported"; a claim that no tier has data for is
    "not tested".
    """
    frame, every = rows_frame(records), rows_frame(records, every=True)
    verdicts = [verdict for tier, rows in frame.groupby("tier", sort=True)
                for verdict in tier_claims(rows, every, tier, margin, alpha)]  # fmt: skip
    return in_order(PAPER, verdicts)


def tier_claims(frame: pd.DataFrame, every: pd.DataFrame, tier: str, margin: float, alpha: float) -> list[Verdict]:
    """frame: the rows of one tier; every: those of all records, from which come the teachers and speeds beside them."""
    arm = dict(list(frame.groupby("arm")))
    none = frame.iloc[:0]
    rows, layers, shares, largest = (arm.get(name, none) for name in ("methods", "layers", "alpha", "largest"))
    speeds = transformers(beside(every, rows, "speed"))
    student = transformers(rows[rows["kind"] == "student"])["student"].unique()
    built = {name: speeds[(speeds["method"] == name) & speeds["student"].isin(student)] for name in ("many", "each")}
    built["teacher"] = speeds[speeds["kind"] == "teacher"]

    def alone(found: Found, what: str) -> str:
        """One part of a claim by itself."""
        verdict = universal("", [member for member, _ in found], alpha=alpha)
        return f"{what} alone {verdict.passed} of {verdict.members} settings pass: {verdict.verdict}" if found else ""

    helped, single, pretrained = pretraining_parts(rows), order_parts(rows, ""), order_parts(rows, "base")
    without, with_stage_1 = ensemble_members(rows, ("",)), ensemble_members(rows, ("base", "large"))
    plan = [
        ("T1", helped, reach(helped)),
        ("T2", single | pretrained, alone([pair for found in single.values() for pair in found], "without stage 1")),
        ("T3", both_parts(rows), ""),
        ("T4", {"MKD against m-o-m": without, "TMKD against m-o-m": with_stage_1,
                "speed against m-o-m": faster(built["many"], built["each"], "m-o-m")},
         "; ".join(filter(None, [alone(without, "without stage 1 (MKD)"), alone(with_stage_1, "with stage 1 (TMKD)"),
                                 size_note(built)]))),
        ("T5", {"layers": layer_members(layers)}, ""),
        ("T6", alpha_parts(shares), ""),
        ("T7", {"the large pool against the base one": versus(transformers(rows), ("many", "large"), ("many", "base")),
                "the largest pool against the teacher": largest_members(largest)}, ""),
        ("T8", {"score against the best teacher": teacher_members(rows, beside(every, rows, "teachers"), margin),
                "speed against the teacher": faster(built["many"], built["teacher"], "the teacher")},
         "margin chosen before any run; against the best teacher"),
        ("T9", {"ensembles": versus(rows, ("each", ""), ("one", ""))}, ""),
    ]  # fmt: skip
    return [verdict for name, parts, extra in plan for verdict in decided(name, parts, extra, tier, alpha)]


def decided(name: str, parts: dict[str, Found], extra: str, tier: str, alpha: float) -> list[Verdict]:
    """The verdict on a claim from its parts, each a stated half of it; none where no part was tested. A part without data is
    a member without differences, which rules out "supported" and is named in the note."""
    tested = [pair for found in parts.values() for pair in found]
    if not tested:
        return []
    members = [member for member, _ in tested] + [Member(what, []) for what, found in parts.items() if not found]
    note = "; ".join(filter(None, [data_note(LAYOUT, pd.concat([ours for _, ours in tested])), extra]))
    return [universal(name, members, note=note, alpha=alpha, tier=tier, unit="points", replicate=LAYOUT.replicates)]


def reach(parts: dict[str, Found]) -> str:
    """Of which kinds of tasks T1 was tested, in words."""
    own, others = (sorted({ours["task"].iloc[0] for _, ours in found}) for found in parts.values())
    words = "on the pool's own task" if own else "the pool's own task not tested"
    return words + (f"; transferred to {', '.join(others)}" if others else "; transfer not tested")


def size_note(built: dict[str, pd.DataFrame]) -> str:
    """How one student of many teachers compares with m-o-m in size and speed, in words."""
    size, speed = (speed_ratios(built["many"], built["each"], column).mean() for column in ("parameters", "qps"))
    return f"{size:.2f} of m-o-m's parameters, {speed:.1f} times its queries per second" if pd.notna(speed) else ""
