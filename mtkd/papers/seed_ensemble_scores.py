"""The seed ensemble's aggregation (paper §5.2): from records to scores per combination of teachers, and their time.

Single-teacher mode reuses, for each combination of k teachers, the students that were distilled from each of its
members alone; multi-teacher mode takes the students distilled from the whole combination, one per primary. The smallest
and the largest score of each combination are then averaged over the combinations. Worked example, one pool, k = 2:

    students of one teacher      {0}: 0.60    {1}: 0.70    {2}: 0.80
    single mode                  {0,1}: 0.60 .. 0.70    {0,2}: 0.60 .. 0.80    {1,2}: 0.70 .. 0.80
    averaged over combinations   min = (0.60 + 0.60 + 0.70) / 3 = 0.6333    max = (0.70 + 0.80 + 0.80) / 3 = 0.7667
"""

import numpy as np
import pandas as pd

from mtkd.evidence import frames
from mtkd.evidence.frames import Layout

PAPER = "seed_ensemble"
SINGLE, MULTI = "single", "multi"
SETTING = ["tier", "arm", "task", "metric", "pool"]
CLIP_TOLERANCE = 0.10  # how much longer than the longest single-teacher run still counts as "the same time"

LAYOUT = Layout(
    PAPER,
    plain=(
        "arm", "task", "pool", "kind", "model", "members", "k", "primary", "repeat", "variant", "metric", "score", "split",
        "validation", "n_test", "parameters", "energy_kwh", "folder",
    ),
    identity=("arm", "task", "pool", "kind", "members", "primary", "repeat", "variant"),
    replicate="pool", replicates="pools", may_differ=("pools", "controls", "margin"),
    convert={"members": lambda members: tuple(sorted(members or ()))},
)  # fmt: skip
_COMBINATION = [
    *SETTING, "k", "members", "mode", "n_scores", "equal", "min", "max", "mean", "students_s", "score_s", "teachers_s",
]  # fmt: skip


def rows_frame(records: list[dict], every: bool = False) -> pd.DataFrame:
    """All rows of this paper's records (see `frames.rows_frame`); members become a sorted tuple."""
    return frames.rows_frame(LAYOUT, records, every)


def combinations(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per pool, combination of teachers and mode: its number of scores, their min, max and mean, its seconds.

    `equal` says that both modes have the same number of scores, as a comparison of minima needs: the more scores, the
    lower the smallest. Combinations whose members have no single-teacher student appear in neither mode.
    students_s sums the students' own seconds (intermediate stage and training), score_s counts each member's scoring
    once, teachers_s each member's training once.
    """
    students = frame[frame["kind"] == "student"]
    result = []
    for setting, pool in students.groupby(SETTING, sort=True):
        by_members = dict(list(pool.groupby("members", sort=True)))
        for members, multi in by_members.items():
            single_parts = [by_members.get((member,)) for member in members]
            if not members or any(part is None for part in single_parts):
                continue
            single = pd.concat(single_parts)
            once = {name: sum(part[name].mean() for part in single_parts) for name in ("score_s", "teachers_s")}
            modes = ((SINGLE, single, once), (MULTI, multi, multi[["score_s", "teachers_s"]].mean().to_dict()))
            for mode, rows, shared in modes:
                scores = rows["score"].astype(float)
                result.append(
                    dict(zip(SETTING, setting))
                    | {"k": len(members), "members": members, "mode": mode, "n_scores": len(rows)}
                    | {"equal": len(single) == len(multi), "min": scores.min(), "max": scores.max()}
                    | {"mean": scores.mean(), "students_s": (rows["intermediate_s"] + rows["train_s"]).sum()}
                    | shared
                )
    return pd.DataFrame(result, columns=_COMBINATION)


def aggregate(frame: pd.DataFrame) -> pd.DataFrame:
    """min and max of each combination's scores, averaged over combinations, per tier, arm, task, pool, k and mode.

    Columns min, max and their standard deviations over combinations min_std, max_std (nan for one combination),
    n_scores (per combination, the same in both modes) and combinations. Combinations with unequal numbers of scores
    are left out; how many is in `.attrs["unequal"]`.
    """
    table = combinations(frame)
    usable = table[table["equal"].astype(bool)]
    result = (
        usable.groupby([*SETTING, "k", "mode"], sort=True)
        .agg(
            min=("min", "mean"), max=("max", "mean"), min_std=("min", "std"), max_std=("max", "std"),
            n_scores=("n_scores", "max"), combinations=("members", "size"),
        )
        .reset_index()
    )  # fmt: skip
    result.attrs["unequal"] = int((~table["equal"].astype(bool)).sum() // 2)
    return result


def with_time(table: pd.DataFrame, count_teachers: bool) -> pd.DataFrame:
    """Add time_s, the seconds a combination costs, to what `combinations` returns."""
    total = table["students_s"] + table["score_s"] + (table["teachers_s"] if count_teachers else 0.0)
    return table.assign(time_s=total.astype(float))


def time_curves(frame: pd.DataFrame, count_teachers: bool) -> pd.DataFrame:
    """Time and min and max score per pool, k and mode, each averaged over the combinations."""
    table = with_time(combinations(frame), count_teachers)
    usable = table[table["equal"].astype(bool)]
    return usable.groupby([*SETTING, "k", "mode"], sort=True)[["time_s", "min", "max"]].mean().reset_index()


def equal_time(frame: pd.DataFrame, count_teachers: bool) -> pd.DataFrame:
    """Multi-teacher scores at each k >= 2 beside the single-teacher curve read at the same time, per pool.

    The single-teacher curve joins its points (time, min) and (time, max) for k = 1, 2, ... by straight lines. Where the
    multi-teacher students took longer or shorter than every single-teacher point, the nearest end is used and `clipped`
    is true; `overshoot` is the part by which the time lies beyond the longest (0.05 = 5% longer), else 0.
    """
    result = []
    for setting, pool in time_curves(frame, count_teachers).groupby(SETTING, sort=True):
        single = pool[pool["mode"] == SINGLE].sort_values("time_s")
        longest, shortest = single["time_s"].max(), single["time_s"].min()
        for multi in pool[(pool["mode"] == MULTI) & (pool["k"] >= 2)].itertuples():
            at = {name: float(np.interp(multi.time_s, single["time_s"], single[name])) for name in ("min", "max")}
            result.append(
                dict(zip(SETTING, setting))
                | {"k": multi.k, "time_s": multi.time_s, "min_multi": multi.min, "max_multi": multi.max}
                | {"min_single": at["min"], "max_single": at["max"]}
                | {"clipped": not shortest <= multi.time_s <= longest}
                | {"overshoot": max(0.0, multi.time_s / longest - 1.0) if longest > 0 else 0.0}
            )
    columns = [*SETTING, "k", "time_s", "min_multi", "max_multi", "min_single", "max_single", "clipped", "overshoot"]
    return pd.DataFrame(result, columns=columns)
