"""TMKD's nine claims, tested over independent repeats: in each, teachers and students have seeds of their own.

Everything in one repeat shares its teachers' seeds, so two arms of the same repeat are compared as a pair: one difference
per repeat and setting (a task, an architecture), n = number of repeats. Differences of scores and margins are in points,
that is, the score times 100; differences of speed are in per cent, and say so in their label.
"""

import pandas as pd

from mtkd import papers
from mtkd.papers import Exhibit
from mtkd.papers.frames import data_note, differences, in_order, margin_points
from mtkd.papers.tmkd_extras import controls, speed, summary
from mtkd.papers.tmkd_figures import fig2, fig3, pools
from mtkd.papers.tmkd_scores import LAYOUT, PAPER, largest_pool, method_name, pick, rows_frame, student_name, transformers
from mtkd.papers.tmkd_tables import table2, table3, table4, table5, table6, table7, table8, table9
from mtkd.verdicts import Member, Verdict, universal

EXHIBITS = {f"{PAPER}.{make.__name__}": make
            for make in (table2, table3, table4, table5, table6, table7, table8, table9, fig2, fig3)}  # fmt: skip
EXTRAS = {f"{PAPER}.controls": controls, f"{PAPER}.pools": pools, f"{PAPER}.speed": speed}
FASTER = 2.0  # "three times", "many times" the speed: tested as more than twice
__all__ = ["EXHIBITS", "EXTRAS", "claims", "controls", "exhibit", "pools", "rows_frame", "speed", "summary"]


def exhibit(identifier: str, records: list[dict]) -> Exhibit:
    """One exhibit of this paper by id: "tmkd.table4", or just "table4", "controls", "pools" or "speed"."""
    full = identifier if identifier.startswith(PAPER) else f"{PAPER}.{identifier}"
    return EXTRAS[full](records) if full in EXTRAS else papers.exhibit(full, records)


def against(label: str, ours: pd.DataFrame, rival: pd.DataFrame, **options) -> list[Member]:
    """One member, or none where there is nothing to compare."""
    found = differences(ours, rival, LAYOUT.replicate)
    return [Member(label, found, **options)] if len(found) else []


def settings(rows: pd.DataFrame):
    """(label, rows) per task and student architecture of the arm "methods"."""
    students = rows[(rows["arm"] == "methods") & (rows["kind"] == "student")]
    for (task, student), found in students.groupby(["task", "student"], sort=True):
        yield f"{task}, {student_name(student, found['layers'].iloc[0])}", found


def versus(label: str, rows: pd.DataFrame, ours: tuple[str, str], rival: tuple[str, str]) -> list[Member]:
    """One (method, pool) against another in the same setting."""
    return against(f"{label}: {method_name(*ours)} against {method_name(*rival)}", pick(rows, *ours), pick(rows, *rival))


def pretraining_members(rows: pd.DataFrame) -> list[Member]:
    """T1: TKD minus KD (Table 5), on the pool's own task and on every other one."""
    pool = largest_pool(rows)
    return [member for label, found in settings(transformers(rows))
            for member in versus(label, found, ("one", pool), ("one", ""))]  # fmt: skip


def order_members(rows: pd.DataFrame, pools: tuple[str, ...]) -> list[Member]:
    """T2: m-o-1 minus 1avg-o-1, and 1avg-o-1 minus 1-o-1, in the given pools ("" = without stage 1)."""
    return [member for label, found in settings(rows) for pool in pools
            for more, fewer in (("many", "average"), ("average", "one"))
            for member in versus(label, found, (more, pool), (fewer, pool))]  # fmt: skip


def both_members(rows: pd.DataFrame) -> list[Member]:
    """T3: TMKD minus TKD and minus MKD, at the large pool (Figure 2)."""
    pool = largest_pool(rows)
    return [member for label, found in settings(transformers(rows)) for rival in (("one", pool), ("many", ""))
            for member in versus(label, found, ("many", pool), rival)]  # fmt: skip


def ensemble_members(rows: pd.DataFrame, pools: tuple[str, ...]) -> list[Member]:
    """T4: one student of many teachers minus the ensemble of students, with stage 1 (TMKD) and without (MKD)."""
    return [member for label, found in settings(rows) for pool in pools
            for member in versus(label, found, ("many", pool), ("each", ""))]  # fmt: skip


def faster(rows: pd.DataFrame, ours: pd.DataFrame, rival: pd.DataFrame, what: str) -> list[Member]:
    """Per cent by which the student's queries per second exceed FASTER times the rival's, one per repeat."""
    ratio = (ours.groupby("repeat")["qps"].mean() / rival.groupby("repeat")["qps"].mean()).dropna()
    label = f"speed in per cent: above {FASTER:g} times that of {what}"
    return [Member(label, 100 * (ratio / FASTER - 1).to_numpy(dtype=float))] if len(ratio) else []


def layer_members(rows: pd.DataFrame) -> list[Member]:
    """T5: the gain from the first to the second depth minus that from the second to the third (1, 3, 5 in the paper)."""
    members = []
    for task, found in rows.groupby("task", sort=True):
        depths = sorted(found["layers"].unique())
        if len(depths) >= 3:
            low, middle, high = (found[found["layers"] == n].groupby("repeat")["score"].mean() for n in depths[:3])
            gains = (100 * (2 * middle - low - high)).dropna().to_numpy(dtype=float)
            members.append(Member("{}: gain from {:g} to {:g} layers less that to {:g}".format(task, *depths[:3]), gains))
    return members


def alpha_members(rows: pd.DataFrame) -> list[Member]:
    """T6: the score rises with alpha below 1 (slope of a straight line per repeat, over the whole range), and falls at 1."""
    members = []
    for task, found in rows.groupby("task", sort=True):
        table = 100 * found.pivot_table(index="repeat", columns="alpha", values="score")
        shares = [a for a in table if a < 1]
        if len(shares) > 1:
            x = pd.Series(shares, index=shares) - sum(shares) / len(shares)
            slope = table[shares].dropna().mul(x).sum(axis=1) / (x**2).sum()
            rise = (slope * (shares[-1] - shares[0])).to_numpy(dtype=float)
            members.append(Member(f"{task}: rise from {shares[0]:g} to {shares[-1]:g}", rise))
        if shares and 1.0 in table:
            drop = (table[shares[-1]] - table[1.0]).dropna().to_numpy(dtype=float)
            members.append(Member(f"{task}: {shares[-1]:g} against 1", drop))
    return members


def pool_members(rows: pd.DataFrame, largest: pd.DataFrame) -> list[Member]:
    """T7: TMKD large minus TMKD base, and TMKD at the largest pool minus the best teacher (Table 8)."""
    members = [member for label, found in settings(transformers(rows))
               for member in versus(label, found, ("many", "large"), ("many", "base"))]  # fmt: skip
    for task, found in largest.groupby("task", sort=True):
        ours, best = found[(found["kind"] == "student") & (found["pool"] != "")], found[found["kind"] == "teacher"]
        members += against(f"{task}: TMKD with the largest pool against the best teacher", ours, best)
    return members


def teacher_members(rows: pd.DataFrame, teachers: pd.DataFrame, margin: float) -> list[Member]:
    """T8: TMKD large minus the best teacher of the task; not worse by the margin, or better."""
    members, pool = [], largest_pool(rows)
    for (task, metric), found in transformers(pick(rows, "many", pool)).groupby(["task", "metric"], sort=True):
        best = teachers[(teachers["task"] == task) & teachers["setting"].isin(set(found["setting"]))]
        options = {"margin": margin_points(metric, margin), "or_better": True}
        members += against(f"{task}: {method_name('many', pool)} against the best teacher", found, best, **options)
    return members


def student_members(rows: pd.DataFrame) -> list[Member]:
    """T9: the ensemble of students minus the student of the best teacher."""
    return [member for label, found in settings(rows) for member in versus(label, found, ("each", ""), ("one", ""))]


def claims(records: list[dict], margin: float = 0.01, alpha: float = 0.05) -> list[Verdict]:
    """Verdicts on T1 to T9, per tier. `margin` is in units of accuracy (0.01 = one point; MCC gets twice that).

    T1: TKD above KD; T2: m-o-1 above 1avg-o-1 above 1-o-1, with and without stage 1; T3: TMKD above TKD and MKD; T4: TMKD
    and MKD above m-o-m, at more than twice the speed; T5: the first gain in depth above the second; T6: rising in alpha,
    falling at 1; T7: the large pool above the base one, the largest above the teacher; T8: not below the best teacher by
    the margin, at more than twice its speed; T9: m-o-m above 1-o-1. Rules: `verdicts.universal`. A claim that no tier has
    data for is "not tested".
    """
    frame, every = rows_frame(records), rows_frame(records, every=True)
    verdicts = [verdict for tier, rows in frame.groupby("tier", sort=True)
                for verdict in tier_claims(rows, every[every["tier"] == tier], tier, margin, alpha)]  # fmt: skip
    return in_order(PAPER, verdicts)


def tier_claims(frame: pd.DataFrame, every: pd.DataFrame, tier: str, margin: float, alpha: float) -> list[Verdict]:
    arm = dict(list(frame.groupby("arm")))
    none = frame.iloc[:0]
    rows, speeds = arm.get("methods", none), transformers(arm.get("speed", none))
    teachers = every[(every["arm"] == "teachers") & (every["variant"] == "best")]
    student = transformers(rows[rows["kind"] == "student"])["student"].unique()
    built = {name: speeds[(speeds["method"] == name) & speeds["student"].isin(student)] for name in ("many", "each")}
    built["teacher"] = speeds[speeds["kind"] == "teacher"]

    def alone(members: list[Member], what: str) -> str:
        """One part of a claim by itself."""
        found = universal("", members, alpha=alpha)
        return f"{what} alone {found.passed} of {found.members} settings pass: {found.verdict}" if members else ""

    pools = ("base", "large")
    with_stage_1 = ensemble_members(rows, pools)
    without = ensemble_members(rows, ("",))
    plan = [
        ("T1", pretraining_members(rows), rows, "on the pool's own task and on others", "points"),
        ("T2", order_members(rows, ("", "base")), rows, alone(order_members(rows, ("",)), "without stage 1"), "points"),
        ("T3", both_members(rows), rows, "", "points"),
        ("T4", without + with_stage_1 + faster(rows, built["many"], built["each"], "m-o-m"), rows,
         "; ".join(filter(None, [alone(without, "without stage 1 (MKD)"), alone(with_stage_1, "with stage 1 (TMKD)"),
                                 size_note(built)])), "points"),
        ("T5", layer_members(arm.get("layers", none)), arm.get("layers", none), "", "points"),
        ("T6", alpha_members(arm.get("alpha", none)), arm.get("alpha", none), "", "points"),
        ("T7", pool_members(rows, arm.get("largest", none)), rows, "", "points"),
        ("T8", teacher_members(rows, teachers, margin) + faster(rows, built["many"], built["teacher"], "the teacher"), rows,
         "margin chosen before any run; against the best teacher", "points"),
        ("T9", student_members(rows), rows, "", "points"),
    ]  # fmt: skip
    verdicts = []
    for name, members, used, extra, unit in plan:
        if members:
            options = {"alpha": alpha, "tier": tier, "unit": unit, "replicate": LAYOUT.replicates}
            stands_on = data_note(LAYOUT, used if len(used) else frame)
            verdicts.append(universal(name, members, note="; ".join(filter(None, [stands_on, extra])), **options))
    return verdicts


def size_note(built: dict[str, pd.DataFrame]) -> str:
    """How one student of many teachers compares with m-o-m in size and speed, in words."""
    if any(built[name].empty for name in ("many", "each")):
        return ""
    size, speed = (built["many"][c].mean() / built["each"][c].mean() for c in ("parameters", "qps"))
    return f"{size:.2f} of m-o-m's parameters, {speed:.1f} times its queries per second"
