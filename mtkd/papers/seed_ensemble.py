"""What seed_ensemble.yaml cannot say: the paper's aggregation (§5.2), from students to scores per combination of teachers.

Every combination of k teachers is drawn from one pool of (in the paper) six teachers, so combinations share teachers and are
not independent. The replicate is therefore the pool: one difference per pool and setting, n = number of pools.

Single-teacher mode reuses, for each combination of k teachers, the students that were distilled from each of its
members alone; multi-teacher mode takes the students distilled from the whole combination, one per primary. The smallest
and the largest score of each combination are then averaged over the combinations. Worked example, one pool, k = 2:

    students of one teacher      {0}: 0.60    {1}: 0.70    {2}: 0.80
    single mode                  {0,1}: 0.60 .. 0.70    {0,2}: 0.60 .. 0.80    {1,2}: 0.70 .. 0.80
    averaged over combinations   min = (0.60 + 0.60 + 0.70) / 3 = 0.6333    max = (0.70 + 0.80 + 0.80) / 3 = 0.7667
"""

import numpy as np
import pandas as pd

from mtkd.evidence.exhibits import with_paper
from mtkd.evidence.frame import points
from mtkd.evidence.paper import Paper
from mtkd.evidence.verdicts import Member
from mtkd.papers import read

SINGLE, MULTI = "single", "multi"
SETTING = ["tier", "arm", "task", "metric", "setting", "pool"]
CLIP_TOLERANCE = 0.10  # how much longer than the longest single-teacher run still counts as "the same time"
ARMS = {"tinybert": "TinyBERT", "distilbert": "DistilBERT", "resnet": "ResNet"}
ROLES = {"teacher": "teacher", "undistilled": "student, not distilled", "student": "student of one teacher"}
COUNTED = {False: "teacher training not counted", True: "teacher training counted"}
ENDS = {"min": "worst", "max": "best"}
FULL_TERMS, OTHER_TERMS = "CE+KD+cos", ("CE", "KD", "CE+KD", "CE+cos", "KD+cos")


def combinations(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per pool, combination of teachers and mode: its number of scores, their min and max, its seconds.

    `equal` says that both modes have the same number of scores, as a comparison of minima needs: the more scores, the
    lower the smallest. Combinations whose members have no single-teacher student appear in neither mode.
    students_s sums the students' own seconds (intermediate stage and training), score_s counts each member's scoring
    once, teachers_s each member's training once.
    """
    students, whole = frame[frame["kind"] == "student"], [*SETTING, "members"]
    students = students.assign(score=students["score"].astype(float), member=students["members"],
                               students_s=students["intermediate_s"] + students["train_s"])
    taught = students.explode("member").astype({"member": float})
    alone = taught[taught["members"].map(len) == 1].drop(columns="members")
    single = taught[[*whole, "member"]].drop_duplicates().merge(alone, on=[*SETTING, "member"], how="left")
    single = single[single["score"].notna().groupby([single[name] for name in whole]).transform("all")]
    multi = students.merge(single[whole].drop_duplicates(), on=whole)
    rows = pd.concat([single.assign(mode=SINGLE), multi.assign(mode=MULTI, member=0.0)], ignore_index=True)
    key = [*whole, "mode"]
    by, once = rows.groupby(key), rows.groupby([*key, "member"])[["score_s", "teachers_s"]].mean().groupby(level=key).sum()
    table = by.agg(n_scores=("score", "size"), min=("score", "min"), max=("score", "max"), students_s=("students_s", "sum"),
                   n_test=("n_test", "first")).join(once)
    table = table.assign(min_right=by["score"].idxmin().map(rows["right"]), max_right=by["score"].idxmax().map(rows["right"]))
    table = table.reset_index().sort_values("mode", ascending=False, kind="stable", ignore_index=True)  # single mode first
    return table.assign(k=table["members"].map(len), equal=table.groupby(whole)["n_scores"].transform("nunique").eq(1))


def aggregate(frame: pd.DataFrame) -> pd.DataFrame:
    """min and max of each combination's scores, averaged over combinations, per tier, arm, task, pool, k and mode.

    Columns min, max and their standard deviations over combinations min_std, max_std (nan for one combination), n_scores (per
    combination, the same in both modes) and combinations. Combinations with unequal numbers of scores are left out.
    """
    return averaged(combinations(frame))


def averaged(each: pd.DataFrame) -> pd.DataFrame:
    """`aggregate` of what `combinations` returns."""
    return each[each["equal"]].groupby([*SETTING, "k", "mode"], sort=True).agg(
        min=("min", "mean"), max=("max", "mean"), min_std=("min", "std"), max_std=("max", "std"),
        n_scores=("n_scores", "max"), combinations=("members", "size"), n_test=("n_test", "max"),
        min_right=("min_right", tuple), max_right=("max_right", tuple)).reset_index()


def with_time(each: pd.DataFrame, count_teachers: bool) -> pd.DataFrame:
    """The combinations with equal numbers of scores, and time_s, the seconds that each costs."""
    each = each[each["equal"]]
    return each.assign(time_s=(each["students_s"] + each["score_s"] + count_teachers * each["teachers_s"]).astype(float))


def time_curves(each: pd.DataFrame, count_teachers: bool) -> pd.DataFrame:
    """Time and min and max score per pool, k and mode, each averaged over the combinations."""
    by = with_time(each, count_teachers).groupby([*SETTING, "k", "mode"], sort=True)
    return by[["time_s", "min", "max"]].mean().reset_index()


def equal_time(each: pd.DataFrame, count_teachers: bool) -> pd.DataFrame:
    """Multi-teacher scores at each k >= 2 beside the single-teacher curve read at the same time, per pool.

    The single-teacher curve joins its points (time, min) and (time, max) for k = 1, 2, ... by straight lines. Where the
    multi-teacher students took longer or shorter than every single-teacher point, the nearest end is used and `clipped`
    is true; `overshoot` is the part by which the time lies beyond the longest (0.05 = 5% longer), else 0.
    """
    result = []
    for _, pool in time_curves(each, count_teachers).groupby(SETTING, sort=True):
        single = pool[pool["mode"] == SINGLE].sort_values("time_s")
        multi = pool[(pool["mode"] == MULTI) & (pool["k"] >= 2)].drop(columns="mode")
        time, longest = multi["time_s"], single["time_s"].max()
        result.append(multi.rename(columns={end: f"{end}_multi" for end in ENDS}).assign(
            **{f"{end}_single": np.interp(time, single["time_s"], single[end]) for end in ENDS},
            clipped=~time.between(single["time_s"].min(), longest),
            overshoot=(time / longest - 1.0).clip(lower=0.0) if longest > 0 else 0.0))
    columns = [*SETTING, "k", *(f"{end}_{mode}" for end in ENDS for mode in (SINGLE, MULTI)), "clipped", "overshoot"]
    return pd.concat(result) if result else pd.DataFrame(columns=columns)


def aggregated(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame, and rows that no run wrote, of which claims and figures speak; kind is "worst" or "best" (of a combination):

    variant "same k"       per pool, k and mode: averaged over the combinations
    variant "same time"    per pool, k >= 2, mode and counted: both modes at the time that the multi-teacher students took. A
                           setting in which that was, on average over pools, over 10% longer than the longest single-teacher
                           point has no comparison: no score, which rules out "supported"
    variant "combination"  per pool, combination, mode and counted, with its seconds

    Added columns: mode, counted, seconds (of the combination), seconds_of_k (the mean over combinations), clipped, too_long,
    top (k is the largest), like_control (a student of the very teachers that a control of its arm has).
    """
    frame = frame.assign(members=[tuple(sorted(members)) for members in frame["members"]])
    controls = set(frame[frame["kind"] == "control"][["tier", "arm", "task", "members"]].itertuples(index=False, name=None))
    keys = frame[["tier", "arm", "task", "members"]].itertuples(index=False, name=None)
    more = [frame.assign(like_control=[key in controls for key in keys])]
    each = combinations(frame)
    means = averaged(each)
    for end, kind in ENDS.items():
        more.append(means[[*SETTING, "k", "mode", "n_test"]].assign(kind=kind, variant="same k", score=means[end],
                                                                    right=means[f"{end}_right"]))
        for count, counted in COUNTED.items():
            rows = with_time(each, count)
            seconds = rows.groupby(["tier", "arm", "task", "mode", "k"])["time_s"].transform("mean")
            more.append(rows[[*SETTING, "k", "mode", "members"]].assign(
                kind=kind, variant="combination", counted=counted, score=rows[end],
                seconds=rows["time_s"], seconds_of_k=seconds))
            timed = equal_time(each, count)
            too_long = timed.groupby(["tier", "arm", "task", "k"])["overshoot"].transform("mean") > CLIP_TOLERANCE
            for mode in (SINGLE, MULTI):
                more.append(timed[[*SETTING, "k", "clipped"]].assign(
                    kind=kind, variant="same time", mode=mode, counted=counted, too_long=too_long,
                    score=timed[f"{end}_{mode}"].where(~too_long)))
    whole = pd.concat([part for part in more if len(part)] or more[:1], ignore_index=True)
    k = whole["k"].where(whole["kind"].isin(ENDS.values()))
    top = k == k.groupby([whole["tier"], whole["arm"], whole["task"]]).transform("max")
    missing = {"mode": "", "counted": "", "clipped": False, "too_long": False, "like_control": False, "seconds": np.nan,
               "seconds_of_k": np.nan}
    whole = whole.reindex(columns=list(dict.fromkeys([*whole.columns, *missing])))
    for name, value in missing.items():
        whole[name] = whole[name].astype(object).where(whole[name].notna(), value).astype(type(value))
    return whole.assign(top=top)


def label(row: pd.Series) -> str:
    """What tables call a model: "TinyBERT teacher (scratch-2x96)", "several teachers"."""
    if row["mode"]:
        return {SINGLE: "single teacher", MULTI: "several teachers"}[row["mode"]]
    name = f" ({row['model']})" if isinstance(row["model"], str) else ""
    return f"{ARMS.get(row['arm'], row['arm'])} {ROLES.get(row['kind'], row['kind'])}{name}"


def terms(rows: pd.DataFrame, every: pd.DataFrame, margin: float, alpha: float) -> list[Member]:
    """Settings of S5: CE + KD + cos minus each other set of terms, per task; one difference per pool.

    Within a pool the mean is taken over the (members, primary, repeat) that both sets were trained for; where they
    share none (plain CE needs no teacher and may have been trained without naming one), over all of each. No contrast can say
    that: it takes the mean of each side by itself.
    """
    rows = rows[(rows["kind"] == "terms") & (rows["arm"] == "distilbert")]
    cell = [f"{m}/{p}/{r}" for m, p, r in zip(rows["members"], rows["primary"], rows["repeat"])]  # no primary: "nan"
    found = []
    for task, table in rows.assign(cell=cell).groupby("task", sort=True):
        cells = table.pivot_table(index=["pool", "cell"], columns="variant", values="score")
        cells = cells.reindex(columns=[FULL_TERMS, *OTHER_TERMS])
        for rival in OTHER_TERMS:
            difference = (cells[FULL_TERMS] - cells[rival]).dropna().groupby("pool").mean()
            if difference.empty:
                means = cells.groupby("pool").mean()
                difference = (means[FULL_TERMS] - means[rival]).dropna()
            words = f"distilbert, {task}: {FULL_TERMS} against {rival}"
            found.append(Member(words, 100 * difference.astype(float), where=("distilbert", task)))
    return found


def clipping(rows: pd.DataFrame, parts: list[dict]) -> str:
    """Words on S3's points at which there is no single-teacher point of the same time."""
    timed = rows.query('kind == "worst" and variant == "same time" and mode == "multi" and arm in ("tinybert", "distilbert")')
    too_long = timed[timed["too_long"]].groupby(["arm", "task", "k", "counted"]).ngroups
    note = f"{timed['clipped'].sum()} of {len(timed)} points took longer or shorter than every single-teacher point and use its"
    note += " end"
    note += f"; {too_long} settings took over {CLIP_TOLERANCE:.0%} longer and are left out" if too_long else ""
    return note


def table2(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame:
    """This kit's rows above the paper's table (models by data sets, drop in parentheses). No general table has the drop: the
    mean over pools of the teachers' mean minus the model's, within one set of parameters."""
    found: dict[tuple, dict[str, str]] = {}
    for (tier, _, task, setting), group in rows.groupby(["tier", "arm", "task", "setting"], sort=True):
        pools = group.groupby(["kind", "pool"])["score"].mean()
        for kind in (kind for kind in ROLES if kind in pools):
            models, drop = group[group["kind"] == kind], ""
            if kind != "teacher" and "teacher" in pools:
                drop = f" ({100 * (pools['teacher'] - pools[kind]).mean():.1f})"
            name, column = models["name"].iloc[0], paper.task(task)
            name += f" [{setting}]" if column in found.get((f"{tier} tier", name), {}) else ""  # with other parameters
            found.setdefault((f"{tier} tier", name), {})[column] = f"{points(models['score'])}{drop} n={len(models)}"
    for number in paper.published:
        row, column, value = number["row"], number["column"], number["value"]
        if number["exhibit"] == "table2" and not column.endswith(" drop"):
            drop = paper.printed("table2", row, f"{column} drop")
            found.setdefault(("paper", row), {})[column] = f"{value:.1f}" + (f" ({drop:.1f})" if drop is not None else "")
        elif number["exhibit"] == "fig6":
            found.setdefault(("paper", f"{number['note']} ({column})"), {})[row] = f"{value}"
    return with_paper(paper, {}, found)


PAPER = read("seed_ensemble", label=label, derive=aggregated, parts={"S5": terms}, draws={"drops": table2},
             notes={"S3": clipping})
claims, exhibit, rows_frame, summary = PAPER.claims, PAPER.exhibit, PAPER.frame, PAPER.summary
