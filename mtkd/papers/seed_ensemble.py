"""The seed ensemble's five claims and its negative controls, tested over independently trained pools of teachers.

Every combination of k teachers is drawn from one pool of (in the paper) six teachers, so combinations share teachers
and are not independent. The replicate is therefore the pool: one difference per pool and setting, n = number of pools.
All differences and margins are in points, that is, the score times 100.
"""

import numpy as np
import pandas as pd

from mtkd import papers
from mtkd.evidence.frames import data_note, in_order, margin_points
from mtkd.evidence.verdicts import Member, Verdict, universal
from mtkd.papers import Exhibit
from mtkd.papers.seed_ensemble_figures import fig2, fig3, fig4, fig5, fig6, fig7
from mtkd.papers.seed_ensemble_scores import (
    CLIP_TOLERANCE,
    LAYOUT,
    MULTI,
    PAPER,
    SETTING,
    SINGLE,
    aggregate,
    equal_time,
    rows_frame,
)
from mtkd.papers.seed_ensemble_tables import controls, summary, table1, table2

EXHIBITS = {f"{PAPER}.{make.__name__}": make for make in (table1, table2, fig2, fig3, fig4, fig5, fig6, fig7)}
EXTRAS = {f"{PAPER}.controls": controls}
__all__ = ["EXHIBITS", "EXTRAS", "aggregate", "claims", "controls", "equal_time", "exhibit", "rows_frame", "summary"]

TEXT_ARMS = ("tinybert", "distilbert")
FULL_TERMS = "CE+KD+cos"
OTHER_TERMS = ("CE", "KD", "CE+KD", "CE+cos", "KD+cos")
UNIT = "points"


def exhibit(identifier: str, records: list[dict]) -> Exhibit:
    """One exhibit of this paper by id: "seed_ensemble.fig2", or just "fig2" or "controls"."""
    full = identifier if identifier.startswith(PAPER) else f"{PAPER}.{identifier}"
    return EXTRAS[full](records) if full in EXTRAS else papers.exhibit(full, records)


def same_k_members(frame: pd.DataFrame, margin: float) -> tuple[list[Member], list[Member]]:
    """Settings of S1 (worst scores) and S2 (best): multi minus single at the same k >= 2, per arm, task and k."""
    table = aggregate(frame[frame["kind"] == "student"])
    single, multi = (table[(table["mode"] == mode) & (table["k"] >= 2)] for mode in (SINGLE, MULTI))
    both = single.merge(multi, on=[*SETTING, "k"], suffixes=("_single", "_multi"))
    worst, best = [], []
    for (arm, task, metric, k), pools in both.groupby(["arm", "task", "metric", "k"], sort=True):
        label = f"{arm}, {task}, k = {k}"
        worst.append(Member(f"{label}: worst", _points(pools["min_multi"] - pools["min_single"])))
        difference = _points(pools["max_multi"] - pools["max_single"])
        best.append(Member(f"{label}: best", difference, margin=margin_points(metric, margin)))
    return worst, best


def _points(differences: pd.Series) -> np.ndarray:
    return 100 * differences.to_numpy(dtype=float)


def equal_time_members(frame: pd.DataFrame, margin: float) -> tuple[list[Member], str]:
    """Settings of S3: worst and best at equal time, without and with teacher training; and what to note about clipping.

    A setting in which the multi-teacher students took, on average over pools, over 10% longer than the longest
    single-teacher point has no equal-time comparison: it gets no differences, which rules out "supported".
    """
    members, clipped, total, too_long = [], 0, 0, 0
    for count_teachers, words in ((False, "teachers free"), (True, "teachers counted")):
        table = equal_time(frame, count_teachers)
        for (arm, task, metric, k), group in table.groupby(["arm", "task", "metric", "k"], sort=True):
            usable = group["overshoot"].mean() <= CLIP_TOLERANCE
            clipped, total = clipped + int(group["clipped"].sum()), total + len(group)
            too_long += not usable
            label = f"{arm}, {task}, k = {k}, {words}"
            worst = _points(group["min_multi"] - group["min_single"])
            best = _points(group["max_multi"] - group["max_single"])
            members.append(Member(f"{label}: worst", worst if usable else []))
            members.append(Member(f"{label}: best", best if usable else [], margin=margin_points(metric, margin)))
    note = f"{clipped} of {total} points took longer or shorter than every single-teacher point and use its end"
    note += f"; {too_long} settings took over {CLIP_TOLERANCE:.0%} longer and are left out" if too_long else ""
    return members, note


def terms_members(frame: pd.DataFrame) -> list[Member]:
    """Settings of S5: CE + KD + cos minus each other set of terms, per task; one difference per pool.

    Within a pool the mean is taken over the (members, primary, repeat) that both sets were trained for; where they
    share none (plain CE needs no teacher and may have been trained without naming one), over all of each.
    """
    rows = frame[(frame["kind"] == "terms") & (frame["arm"] == "distilbert")]
    cell = [f"{m}/{p}/{r}" for m, p, r in zip(rows["members"], rows["primary"], rows["repeat"])]  # no primary: "nan"
    members = []
    for task, table in rows.assign(cell=cell).groupby("task", sort=True):
        cells = table.pivot_table(index=["pool", "cell"], columns="variant", values="score")
        cells = cells.reindex(columns=[FULL_TERMS, *OTHER_TERMS])
        for rival in OTHER_TERMS:
            difference = (cells[FULL_TERMS] - cells[rival]).dropna().groupby("pool").mean()
            if difference.empty:
                means = cells.groupby("pool").mean()
                difference = (means[FULL_TERMS] - means[rival]).dropna()
            members.append(Member(f"distilbert, {task}: {FULL_TERMS} against {rival}", _points(difference)))
    return members


def _data_note(frame: pd.DataFrame) -> str:
    """What a verdict stood on: pools, models and tasks, stand-ins named as such."""
    return data_note(LAYOUT, frame, ", ".join(sorted(frame["arm"].unique())))


def _better_note(verdict: Verdict) -> str:
    """Words on equivalence members that were not worse, or even better by more than the margin."""
    parts = [part for part in verdict.parts if part["kind"] == "equivalence" and part["n"] >= 3]
    not_worse = sum(part["p_not_worse"] <= 0.05 for part in parts)
    better = [part["label"] for part in parts if part["p_better"] <= 0.05]
    words = f"best scores: not worse by the margin in {not_worse} of {len(parts)} settings" if parts else ""
    return words + (f"; better by more than the margin in {'; '.join(better)}" if better else "")


def claims(records: list[dict], margin: float = 0.01, alpha: float = 0.05) -> list[Verdict]:
    """Verdicts on S1 to S5, per tier. `margin` is in units of accuracy (0.01 = one point; MCC gets twice that).

    S1: worst multi-teacher student above the worst single-teacher one; S2: best within the margin; S3: both at equal
    time; S4: S1 and S2 for ResNet; S5: CE + KD + cos above each other set of terms. Rules: `verdicts.universal`. A
    claim that no tier has data for is "not tested"; a tier without data for a claim another tier tested is left out.
    """
    frame = rows_frame(records)
    verdicts = [v for tier, rows in frame.groupby("tier", sort=True) for v in _tier_claims(rows, tier, margin, alpha)]
    return in_order(PAPER, verdicts)


def _tier_claims(frame: pd.DataFrame, tier: str, margin: float, alpha: float) -> list[Verdict]:
    text = frame[frame["arm"].isin(TEXT_ARMS) & (frame["kind"] == "student")]
    image = frame[(frame["arm"] == "resnet") & (frame["kind"] == "student")]
    worst, best = same_k_members(text, margin)
    timed, time_note = equal_time_members(text, margin)
    image_worst, image_best = same_k_members(image, margin)
    terms = frame[(frame["kind"] == "terms") & (frame["arm"] == "distilbert")]
    plan = [
        ("S1", worst, text, ""), ("S2", best, text, ""), ("S3", timed, text, time_note),
        ("S4", image_worst + image_best, image, _image_time_note(image, margin, alpha)),
        ("S5", terms_members(frame), terms, ""),
    ]  # fmt: skip
    verdicts = []
    for name, members, rows, extra in plan:
        if not members:
            continue
        options = {"alpha": alpha, "tier": tier, "unit": UNIT, "replicate": "pools"}
        notes = [_data_note(rows), _better_note(universal(name, members, **options)), extra]
        verdicts.append(universal(name, members, note="; ".join(note for note in notes if note), **options))
    return verdicts


def _image_time_note(image: pd.DataFrame, margin: float, alpha: float) -> str:
    """At equal time, ResNet is no part of S4's test; its outcome is told beside it."""
    members, _ = equal_time_members(image, margin)
    outcome = universal("S4", members, alpha=alpha)
    return f"at equal time {outcome.passed} of {outcome.members} settings pass" if members else ""
