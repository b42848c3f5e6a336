"""A floor under every result: models beside the majority class, the linear baseline and their own undistilled twins; and what
came out, in three sentences per paper. From records alone."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from mtkd.evidence.frames import points
from mtkd.papers.tmkd_scores import is_bilstm

COLUMNS = ("paper", "tier", "task", "arm", "replicate", "kind", "method", "variant", "student", "metric", "score", "one_answer",
           "folder")


def flat(records: list[dict]) -> pd.DataFrame:
    """All rows of records as one frame, with the COLUMNS and whatever else rows have; replicate: the repeat, or the pool."""
    rows = []
    for record in records:
        replicate = "pool" if record["paper"] == "seed_ensemble" else "repeat"
        rows += [{"paper": record["paper"], "tier": record["tier"], "replicate": row.get(replicate), **row}
                 for row in record["rows"] if not (record["paper"] == "tmkd" and shown_elsewhere(row))]
    return pd.DataFrame(rows, columns=list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)])))


def shown_elsewhere(row: dict) -> bool:
    """Whether a row of tmkd is of a model that another arm has too."""
    return row.get("arm") in ("speed", "largest", "pools")


def lstms(rows: pd.DataFrame) -> pd.Series:
    """Which rows are of tmkd's Bi-LSTMs, of which none is undistilled: they do not belong in one mean with transformers."""
    return pd.Series([isinstance(name, str) and is_bilstm(name) for name in rows["student"]], rows.index, dtype=bool)


def floor_table(records: list[dict]) -> pd.DataFrame:
    """One line per paper, tier and task: majority class, linear baseline, teachers, undistilled student, the same for as many
    steps as a distilled one, distilled students (scores times 100, mean and standard deviation), and what is wrong with
    any: teachers below the linear baseline, students at the majority class or below their undistilled twins, models with one
    answer to everything."""
    frame, lines = flat(records), []
    for (paper, tier, task), rows in frame[frame["metric"].notna()].groupby(["paper", "tier", "task"], sort=False):
        floors = rows[rows["kind"] == "floor"]
        if not len(floors):
            continue
        of = {method: part.groupby("replicate")["score"].first() for method, part in floors.groupby("method")}
        teachers, students = rows[rows["kind"] == "teacher"], rows[rows["kind"] == "student"]
        twice = teachers["folder"].notna() & teachers["folder"].duplicated()  # two cells may have the same ones
        teachers = teachers[~twice]
        twins = rows[rows["kind"] == "undistilled"]
        longer = rows[rows["variant"].eq("plain_ce")]
        lines.append({
            "paper": paper, "tier": tier, "task": task, "metric": rows["metric"].iloc[0],
            "majority class": points(of["majority"]), "linear baseline": points(of["linear"]), "teachers": over(teachers),
            "not distilled": over(twins), "the same, as many steps": over(longer),
            "distilled": over(students[~lstms(students)]),
            "marked": "; ".join(marks(teachers, students, twins, of)) or "nothing"})
    return pd.DataFrame(lines, columns=None if lines else ["paper", "tier", "task"])


def over(rows: pd.DataFrame) -> str:
    """Mean ± standard deviation over replicates of a replicate's mean score, times 100; see `frames.points`."""
    return points(rows.groupby("replicate")["score"].mean())


def marks(teachers: pd.DataFrame, students: pd.DataFrame, twins: pd.DataFrame, floors: dict[str, pd.Series]) -> list[str]:
    """What a reader must know before believing any of these models, in words; empty where all is well."""

    def under(rows: pd.DataFrame, floor: str) -> int:
        return int((rows["score"] <= rows["replicate"].map(floors[floor])).sum())

    found, words = [], {"linear": "not above the linear baseline", "majority": "at the majority class"}
    for rows, name, floor in ((teachers, "teachers", "linear"), (teachers, "teachers", "majority"),
                              (students, "students", "majority"), (twins, "undistilled students", "majority")):
        if count := under(rows, floor):
            found.append(f"{count} of {len(rows)} {name} {words[floor]}")
    by = ["replicate", "arm"] if set(students["arm"]) <= set(twins["arm"]) else ["replicate"]  # arms with students of their own
    alone = twins.groupby(by)["score"].mean().rename("alone")
    for part, name in ((students[~lstms(students)], "students"), (students[lstms(students)], "Bi-LSTM students")):
        if count := int((part["score"] < part.join(alone, on=by)["alone"]).sum()):
            found.append(f"{count} of {len(part)} distilled {name} below the undistilled one")
    everyone = pd.concat([teachers, students, twins])
    if count := int(everyone["one_answer"].eq(True).sum()):
        found.append(f"{count} models give one answer to everything")
    return found


def taught(method: str, **where) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Rows of students of a method, and with these values in other columns."""
    def pick(rows: pd.DataFrame) -> pd.DataFrame:
        found = rows[rows["method"].eq(method)] if method else rows
        for name, value in where.items():
            found = found[found[name].isna() | found[name].eq("")] if value is None else found[found[name].eq(value)]
        return found
    return pick


# Per paper, which students stand for "from one teacher" and "from all of them", and what the paper itself proposes.
STUDENTS: dict[str, dict[str, Callable[[pd.DataFrame], pd.DataFrame]]] = {
    "seed_ensemble": {"one teacher": taught("", k=1), "all teachers": lambda rows: rows[rows["k"] == rows["k"].max()]},
    "mt_bert": {"one teacher (MT-BERT)": lambda rows: rows[rows["method"].eq("mt_bert") & rows["arm"].eq("combinations")
                                                           & rows["teachers"].map(len).eq(1)],
                "all three (MT-BERT)": taught("mt_bert", arm="main", variant=None)},
    "rl_kd": {"one teacher": taught("v_kd", arm="main"), "their average": taught("u", arm="main"),
              "a learned choice (reward 3)": taught("rl", arm="main", variant="reward_3")},
    "tmkd": {"one teacher": taught("one", arm="methods", pool=None), "all teachers": taught("many", arm="methods", pool=None),
             "one on the pool": taught("one", arm="methods", pool="large"),
             "all on the pool": taught("many", arm="methods", pool="large")},
    "domain_expertise": {"one teacher a sample, at random": taught("random", variant=None),
                         "the average": taught("average", variant=None), "the experts": taught("expertise", variant=None)},
}


def sentences(records: list[dict]) -> list[str]:
    """What came out, in three sentences per paper, tier and task: the teachers, the student alone, and from one or all."""
    frame, found = flat(records), []
    for (paper, tier, task), rows in frame[frame["metric"].notna()].groupby(["paper", "tier", "task"], sort=False):
        floors, students = rows[rows["kind"] == "floor"], rows[(rows["kind"] == "student") & ~lstms(rows)]
        arms = list(students.groupby("arm", sort=False)) if paper == "seed_ensemble" else [("", students)]
        for arm, own in arms:
            mine = rows[rows["arm"] == arm] if arm else rows
            teachers, twins = mine[mine["kind"] == "teacher"], mine[mine["kind"] == "undistilled"]
            longer = mine[mine["variant"].eq("plain_ce")]
            if not len(own) or not len(teachers):
                continue
            n = rows["replicate"].nunique()
            words = f"{paper} ({', '.join(filter(None, (tier, arm, task)))}; {n} {'replicate' if n == 1 else 'replicates'}): "
            words += f"the teachers reach {over(teachers)}"
            for method, name in (("linear", "the linear baseline"), ("majority", "the majority class")):
                if len(floor := floors[floors["method"] == method]):
                    words += f", {name} {over(floor)}"
            words += f". The student alone reaches {over(twins)}"
            words += f", and {over(longer)} with as many steps as a distilled one. " if len(longer) else ". "
            taught_by = [f"{over(part)} from {name}" for name, pick in STUDENTS[paper].items()
                         if len(part := pick(own))]
            found.append(words + (f"Distilled it reaches {', '.join(taught_by)}." if taught_by else ""))
    return found
