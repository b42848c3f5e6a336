"""A floor under every result: models beside the majority class, the linear baseline and their own undistilled twins; and what
came out, in three sentences per tier and task. From one paper's records alone; its YAML says under `floor`

    students   words to a query: which students stand for "from one teacher", "from all of them", and what the paper proposes
    rows       a query: rows that count (a model that another arm has too does not count twice)
    apart      a query, and `apart_name` the word for them: students of another kind, of which none is undistilled, so that they
               do not belong in one mean with the others
    by_arm     whether arms are told apart in sentences
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from mtkd.evidence.frame import all_rows, points

if TYPE_CHECKING:
    from mtkd.evidence.paper import Paper


class Floors:
    """One paper's rows with their floors, and what its YAML says of them."""

    def __init__(self, paper: Paper, records: list[dict]):
        self.entry, self.replicate = paper.data.get("floor", {}), paper.rows.replicate
        rows = all_rows(paper.rows, records, floors=True)
        rows = rows[rows["metric"].notna()]
        rows = rows.query(self.entry["rows"]) if "rows" in self.entry else rows
        apart = rows.eval(self.entry["apart"]) if "apart" in self.entry and len(rows) else False
        self.rows = rows.assign(apart=apart)
        self.name = paper.name

    def groups(self):
        """(tier, task), rows; in the order in which records have them."""
        return self.rows.groupby(["tier", "task"], sort=False)

    def over(self, rows: pd.DataFrame) -> str:
        """Mean ± standard deviation over replicates of a replicate's mean score, times 100; see `frame.points`."""
        return points(rows.groupby(self.replicate)["score"].mean())

    def table(self) -> pd.DataFrame:
        """One line per tier and task: majority class, linear baseline, teachers, undistilled student, the same for as many
        steps as a distilled one, distilled students (scores times 100, mean and standard deviation), and what is wrong with
        any: teachers below the linear baseline, students at the majority class or below their undistilled twins, models with
        one answer to everything. A task without floors has no line."""
        lines = []
        for (tier, task), rows in self.groups():
            floors = rows[rows["kind"] == "floor"]
            if not len(floors):
                continue
            of = {method: part.groupby(self.replicate)["score"].first() for method, part in floors.groupby("method")}
            teachers, students = rows[rows["kind"] == "teacher"], rows[rows["kind"] == "student"]
            teachers = teachers[~(teachers["folder"].notna() & teachers["folder"].duplicated())]  # two cells may have the same
            twins = rows[rows["kind"] == "undistilled"]
            lines.append({
                "paper": self.name, "tier": tier, "task": task, "metric": rows["metric"].iloc[0],
                "majority class": points(of["majority"]), "linear baseline": points(of["linear"]),
                "teachers": self.over(teachers), "not distilled": self.over(twins),
                "the same, as many steps": self.over(rows[rows["variant"].eq("plain_ce")]),
                "distilled": self.over(students[~students["apart"]]),
                "marked": "; ".join(self.marks(teachers, students, twins, of)) or "nothing"})
        return pd.DataFrame(lines, columns=None if lines else ["paper", "tier", "task"])

    def marks(self, teachers: pd.DataFrame, students: pd.DataFrame, twins: pd.DataFrame,
              floors: dict[str, pd.Series]) -> list[str]:
        """What a reader must know before believing any of these models, in words; empty where all is well."""
        found, words = [], {"linear": "not above the linear baseline", "majority": "at the majority class"}
        for rows, name, floor in ((teachers, "teachers", "linear"), (teachers, "teachers", "majority"),
                                  (students, "students", "majority"), (twins, "undistilled students", "majority")):
            if count := int((rows["score"] <= rows[self.replicate].map(floors[floor])).sum()):
                found.append(f"{count} of {len(rows)} {name} {words[floor]}")
        own = set(students["arm"]) <= set(twins["arm"])  # arms with undistilled students of their own
        by = [self.replicate, "arm"] if own else [self.replicate]
        alone = twins.groupby(by)["score"].mean().rename("alone")
        for part, name in ((students[~students["apart"]], "students"),
                           (students[students["apart"]], f"{self.entry.get('apart_name', '')} students")):
            if count := int((part["score"] < part.join(alone, on=by)["alone"]).sum()):
                found.append(f"{count} of {len(part)} distilled {name} below the undistilled one")
        if count := int(pd.concat([teachers, students, twins])["one_answer"].eq(True).sum()):
            found.append(f"{count} models give one answer to everything")
        return found

    def sentences(self) -> list[str]:
        """What came out, in three sentences per tier and task: the teachers, the student alone, and from one or all."""
        found = []
        for (tier, task), rows in self.groups():
            floors, students = rows[rows["kind"] == "floor"], rows[(rows["kind"] == "student") & ~rows["apart"]]
            for arm, own in list(students.groupby("arm", sort=False)) if self.entry.get("by_arm") else [("", students)]:
                mine = rows[rows["arm"] == arm] if arm else rows
                teachers, twins = mine[mine["kind"] == "teacher"], mine[mine["kind"] == "undistilled"]
                longer = mine[mine["variant"].eq("plain_ce")]
                if not len(own) or not len(teachers):
                    continue
                n = rows[self.replicate].nunique()
                where = ", ".join(filter(None, (tier, arm, task)))
                words = f"{self.name} ({where}; {n} {'replicate' if n == 1 else 'replicates'}): "
                words += f"the teachers reach {self.over(teachers)}"
                for method, name in (("linear", "the linear baseline"), ("majority", "the majority class")):
                    if len(floor := floors[floors["method"] == method]):
                        words += f", {name} {self.over(floor)}"
                words += f". The student alone reaches {self.over(twins)}"
                words += f", and {self.over(longer)} with as many steps as a distilled one. " if len(longer) else ". "
                taught = [f"{self.over(part)} from {name}" for name, query in self.entry.get("students", {}).items()
                          if len(part := own.query(query))]
                found.append(words + (f"Distilled it reaches {', '.join(taught)}." if taught else ""))
        return found
