"""A paper as data: its claims and exhibits (a YAML file) and the few functions that data cannot say.

Everything here is general. What a YAML file may say:

    rows       how records become a frame (`frame.Rows`)
    tasks      a task's name or plain name, or the start of it up to "/", to the paper's name; stand_ins: the kit's for it
    metrics    a metric's name to what tables call it; also: metrics shown beside the main one, each with the paper's data sets
               on which it is not; unnamed: the one that columns of the paper's own data sets do not name
    smallest_effect   in units of accuracy (0.01 = one point; `contrasts.delta` has other metrics): what counts as an effect,
               and the margin of "equal" and "not worse". It is stated here, before any run
    margin     what functions of claims that are no contrast are given instead
    gate       the assay: teacher and undistilled (queries), by (columns that tell students apart, those of teachers too first):
               see `Paper.assay`
    claims     id: says, kind, contrasts (`contrasts.Contrast`), holds (every | some), note, weaker (what is tested less
               strictly than the sentence says), gate (false: nothing is distilled, or the question is another), required
               (parts without which it is not supported), rows (a query: what a claim that a function tests stands on), every
               (that function needs all settings), printed (`printed_settings`)
    exhibits   id: title, draw (a kind, or the name of a function beside the paper), rows (a query), must (a query that finds
               something, or there is nothing to show), every (all settings), words, says, none (words where nothing was run),
               extra (the paper has no such exhibit); the rest is what the drawing function reads
    summary    the README's table: see `exhibits.summary`
    published  one entry per printed number: exhibit, row, column, value
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial

import pandas as pd

from mtkd.evidence import exhibits
from mtkd.evidence.contrasts import Contrast, delta, member, settings
from mtkd.evidence.exhibits import Exhibit
from mtkd.evidence.frame import Rows, differences, hardware, is_stand_in, plain_name, rows_frame, stood_on
from mtkd.evidence.verdicts import Member, Verdict, decide, examine, judge

OTHER = re.compile(r"#|AVG|QPS|Param")  # columns that are no data set
METRICS = {"accuracy": "Acc", "macro_f1": "Macro-F", "mcc": "MCC", "f1": "F1"}


def printed_settings(published: Sequence[dict], entries: Sequence[dict], margin: float) -> tuple[dict, ...]:
    """The settings of a claim in the paper's own tables, and whether each fails the sentence: {label, difference, fails}.

    An entry has table, ours and theirs (printed labels of rows, or with `across` of columns; lists stand for each of them), and
    may have their_table, columns (of the settings, else all that both have), scale, test "not worse" (fails below the margin,
    else where it is not above zero), but (settings that the sentence excepts) and spread (columns: ours and theirs are then the
    standard deviations over rows of what lies between them and each of these columns).
    """
    found = []
    for entry in entries:
        tables = {name: pd.DataFrame([n for n in published if n["exhibit"] == name and isinstance(n["value"], int | float)])
                  .pivot(index="row", columns="column", values="value") for name in {entry["table"], entry.get("their_table",
                                                                                                            entry["table"])}}
        tables = {name: table.T if entry.get("across") else table for name, table in tables.items()}
        mine, other = tables[entry["table"]], tables[entry.get("their_table", entry["table"])]
        for ours in listed(entry["ours"]):
            for theirs in listed(entry["theirs"]):
                a, b = mine.loc[ours], other.loc[theirs]
                if "spread" in entry:
                    a, b = ([side.sub(mine.loc[of]).std() for of in entry["spread"]] for side in (a, b))
                    a, b = pd.Series(a, entry["spread"]), pd.Series(b, entry["spread"])
                apart = (a - b).dropna() * entry.get("scale", 1)
                apart = apart[entry["columns"]] if "columns" in entry else apart[[not OTHER.match(c) for c in apart.index]]
                least = -100 * margin if entry.get("test") == "not worse" else 0.0
                found += [{"label": f"{where}: {ours} against {theirs}", "difference": round(float(value), 6),
                           "fails": bool(value < least - 1e-9 if least else value <= 1e-9)}
                          for where, value in apart.items() if f"{ours} {where}" not in entry.get("but", ())]
    return tuple(found)


def listed(value) -> list:
    return value if isinstance(value, list) else [value]


class Paper:
    """A paper's claims, exhibits and printed numbers, and the functions beside them.

    label: a row (Series) to what tables call its model. derive: frame to frame, adding columns and rows that claims or exhibits
    speak of and no run wrote. pairs: which settings of a contrast are compared, by name. parts: claim to a function (rows of
    one tier, of every setting, margin, alpha) that gives members (`verdicts.Member`), for claims that are no contrast. notes:
    claim to a function (rows of one tier, parts) that adds words. family: how many claims share Holm's correction. draws: name
    to a function (paper, entry, rows, records) that gives a table, a figure, a whole Exhibit, or None where there is nothing
    to show; an entry with `data` is drawn from the records' data even where there are no rows. about: function (rows, records)
    that adds words to the caption of every exhibit.
    """

    def __init__(self, name: str, data: dict, *, label: Callable[[pd.Series], str], derive: Callable | None = None,
                 pairs: Mapping[str, Callable] | None = None, parts: Mapping[str, Callable] | None = None,
                 notes: Mapping[str, Callable] | None = None, draws: Mapping[str, Callable] | None = None,
                 about: Callable | None = None, family: int = 0):
        self.family, self._printed = family, {}
        self.name, self.data, self.label, self.derive = name, data, label, derive or (lambda frame: frame)
        self.pairs, self.parts, self.notes, self.draws = pairs or {}, parts or {}, notes or {}, draws or {}
        self.about = about or (lambda rows, records: "")
        self.rows = Rows(name, **{k: tuple(v) if isinstance(v, list) else v for k, v in data.get("rows", {}).items()})
        self.published, self.stand_ins = data["published"], data.get("stand_ins", {})

    # --- rows and names

    def frame(self, records: list[dict], every: bool = False) -> pd.DataFrame:
        """All rows of this paper's records (see `frame.rows_frame`) and what `derive` adds."""
        return self.derive(rows_frame(self.rows, records, every))

    def data_frame(self, records: list[dict], every: bool = False) -> pd.DataFrame:
        """The records' rows about data: task, split, samples ... and tier; one per tier, task and split, the one with the most
        samples, since others may have kept a part of the data only (or `every`)."""
        rows = [row | {"tier": record.get("tier", "")} for record in records if record.get("paper") == self.name
                for row in record.get("data", [])]
        found = pd.DataFrame(rows, columns=None if rows else ["tier", "task", "split", "samples"])
        largest = found.sort_values("samples", ascending=False, kind="stable").drop_duplicates(["tier", "task", "split"])
        return found if every else largest.sort_index()

    def printed_task(self, task: str) -> str | None:
        """The paper's name for a task of its own data ("glue/sst2" gives "SST-2"); None for any other."""
        names = self.data.get("tasks", {})
        own = names.get(task) or names.get(plain_name(task))
        return own or next((name for start, name in names.items() if start.endswith("/") and task.startswith(start)), None)

    def task(self, task: str) -> str:
        return self.printed_task(task) or task

    def metric(self, metric: str) -> str:
        return {**METRICS, **self.data.get("metrics", {})}.get(metric, metric)

    def shown_metrics(self, rows: pd.DataFrame) -> list[tuple[str, str]]:
        """(label, column of the frame) for the rows of one task: its metric, and what else the paper reports there."""
        metric, name = rows["metric"].iloc[0], self.printed_task(rows["task"].iloc[0])
        return [(self.metric(metric), "score")] + [
            (self.metric(more), more) for more, but in self.data.get("also", {}).items()
            if more != metric and more in rows and name not in (but or ()) and rows[more].notna().any()]

    def printed(self, table: str, row: str | None, column: str) -> float | str | None:
        """The number printed in that table, row and column (printed labels); None where there is none."""
        return next((n["value"] for n in self.published if (n["exhibit"], n["row"], n["column"]) == (table, row, column)), None)

    # --- claims

    def contrasts(self, claim: str) -> list[Contrast]:
        return [Contrast.read(entry) for entry in self.data["claims"][claim].get("contrasts", ())]

    def claims(self, records: list[dict], margin: float | None = None, alpha: float = 0.05) -> list[Verdict]:
        """One verdict per claim and tier, by the rules of `verdicts`, corrected for `family` claims per tier. `margin` is the
        smallest effect of interest in units of accuracy, by default the paper's entry; where the paper has an entry `margin`,
        it is that one. A claim that no tier has data for is "not tested"."""
        smallest = self.data.get("smallest_effect", 0.01) if margin is None or "margin" in self.data else margin
        margin = self.data.get("margin", smallest) if margin is None else margin
        frame, every = self.frame(records), cache(lambda: self.frame(records, every=True))
        assay, found = self.assay(records, frame, smallest), []
        for tier, rows in frame.groupby("tier", sort=True):
            whole = partial(lambda tier: every().query("tier == @tier"), tier)
            verdicts = [self.verdict(claim, tier, rows, whole, assay, smallest, margin, alpha) for claim in self.data["claims"]]
            found += decide([verdict for verdict in verdicts if verdict], self.family, alpha)
        rest = [claim for claim in self.data["claims"] if claim not in {verdict.claim for verdict in found}]
        note = f"no run of this yet: `mtkd run params/{self.name}/demo.yaml`"
        return sorted([*found, *(judge(claim, [], note=note, **self.said(claim, smallest)) for claim in rest)],
                      key=lambda v: (v.tier, v.claim))

    def said(self, claim: str, margin: float) -> dict:
        """Fields of a verdict that need no run: the paper's own printed numbers, and what is tested less strictly."""
        entry = self.data["claims"][claim]
        if (claim, margin) not in self._printed:
            self._printed[claim, margin] = printed_settings(self.published, entry.get("printed", ()), margin)
        return {"printed": self._printed[claim, margin], "weaker": entry.get("weaker", "")}

    def verdict(self, claim: str, tier: str, rows: pd.DataFrame, every: Callable[[], pd.DataFrame], assay: dict,
                smallest: float, margin: float, alpha: float) -> Verdict | None:
        """The verdict on one claim from the rows of one tier (every: of every setting); None where no setting has rows."""
        entry, members, ours, missing = self.data["claims"][claim], [], [], list(self.data["claims"][claim].get("required", ()))
        beside: dict[str, list[Member]] = {}
        for contrast in self.contrasts(claim):
            found = list(settings(contrast, rows, every() if contrast.every else None, self.pairs))
            tested = [replace(member(contrast, setting, self.label, self.rows.replicate, smallest),
                              where=self.where(setting.ours.iloc[0])) for setting in found]
            missing += [contrast.part] if contrast.required and not tested else []
            if contrast.beside:
                beside.setdefault(contrast.beside, []).extend(tested)
                continue
            members += tested
            ours += [setting.ours for setting in found]
        if claim in self.parts:
            members += self.parts[claim](rows, every() if entry.get("every") else rows, margin, alpha)
            ours += [rows.query(entry["rows"])] if "rows" in entry else []
        if not members:
            return None
        if entry.get("gate", True):
            wrong = [assay.get((tier, *m.where)) for m in members]
            members = [replace(m, left_out=f"{m.label}: {why}" if why else "") for m, why in zip(members, wrong)]
        judged = judge(claim, members, holds=entry.get("holds", "every"), alpha=alpha, tier=tier, replicate=self.rows.replicate,
                       unit=entry.get("unit", "points"), beside=beside, **self.said(claim, smallest),
                       required=[part for part in missing if part not in {m.part for m in members}])
        words = [stood_on(ours or [rows], self.rows.replicate), entry.get("note", ""),
                 self.notes[claim](rows, judged.parts) if claim in self.notes else ""]
        return replace(judged, note="; ".join(filter(None, words)))

    def where(self, row: pd.Series) -> tuple:
        """Which line of a tier's assay a row belongs to."""
        return tuple(row[name] for name in self.data["gate"]["by"]) if "gate" in self.data else ()

    def assay(self, records: list[dict], frame: pd.DataFrame, margin: float) -> dict[tuple, str]:
        """Whether a student could learn anything at all, by tier and what the entry `gate` tells apart: what is wrong, or "".

        The teachers must be above the undistilled student, on average by twice the smallest effect of interest and with an
        interval above zero, and the undistilled student above the majority class; else nothing that distils can show an effect
        there. Where a class is no answer (text spans) there is no majority class to be above.
        """
        if "gate" not in self.data or frame.empty:
            return {}
        entry, replicate, found = self.data["gate"], self.rows.replicate, {}
        chance = {(r.get("tier", ""), row["task"]): row["score"] for r in records if r.get("paper") == self.name
                  for row in r["rows"] if row["kind"] == "floor" and row["method"] == "majority"}
        taught = frame.query(entry["teacher"])
        for key, alone in frame.query(entry["undistilled"]).groupby(["tier", *entry["by"]], sort=True):
            at = dict(zip(["tier", *entry["by"]], key))
            same = [name for name in at if name in ("tier", *entry.get("teacher_by", entry["by"]))]
            theirs = taught[(taught[same] == pd.Series({name: at[name] for name in same})).all(axis=1)]
            room = examine(Member("", differences(theirs, alone, replicate)))
            least = 2 * delta(alone["metric"].iloc[0], margin)
            above = examine(Member("", 100 * (alone.groupby(replicate)["score"].mean() - chance.get(key[:2], -1.0))))
            found[key] = ""
            if room["effect"] < least or room["interval"][0] <= 0:
                found[key] = f"the teachers are {room['effect']:+.1f} points from the undistilled student, of {least:g} needed"
            if above["effect"] <= 0 or above["interval"][0] <= 0:
                found[key] = "the undistilled student is not above the majority class"
        return found

    # --- exhibits

    def extras(self) -> list[str]:
        """Ids of the exhibits that the paper itself does not have."""
        return [f"{self.name}.{name}" for name, entry in self.data["exhibits"].items() if entry.get("extra")]

    def exhibit(self, identifier: str, records: list[dict]) -> Exhibit:
        """One table or figure, by its id or its short name, as its entry describes it."""
        name = identifier.removeprefix(f"{self.name}.")
        entry = self.data["exhibits"][name]
        rows = self.frame(records, every=entry.get("every", False))
        rows = rows.assign(name=[self.label(row) for _, row in rows.iterrows()])
        rows = rows.query(entry["rows"]) if entry.get("rows") else rows
        of_data = entry["draw"] == "sizes" or entry.get("data", False)
        wanted = of_data or len(rows.query(entry["must"]) if "must" in entry else rows)
        content = self.drawing(entry["draw"])(self, entry, rows, records) if wanted else None
        if isinstance(content, Exhibit):
            return content
        if content is None or (isinstance(content, pd.DataFrame) and content.empty):
            return self.missing(name)
        about = self.data_frame(records) if of_data else rows
        return Exhibit(f"{self.name}.{name}", entry["title"], self.caption(entry, about, records), content)

    def drawing(self, name: str) -> Callable:
        """The function that draws a kind of exhibit: one of the paper's own, or a general one. Raises KeyError for none."""
        if name in self.draws:
            return self.draws[name]
        if name in exhibits.KINDS:
            return exhibits.KINDS[name]
        from mtkd.evidence import figures  # seaborn is needed for figures only

        return figures.KINDS[name]

    def missing(self, name: str) -> Exhibit:
        """An exhibit that no record has anything for: its caption says what to run."""
        entry = self.data["exhibits"][name]
        words = f"No run of this yet: `mtkd run params/{self.name}/demo.yaml`"
        words += "." if entry.get("extra") else f", or at the paper's own scale `mtkd run params/{self.name}/{name}.yaml`."
        return Exhibit(f"{self.name}.{name}", entry["title"], entry.get("none", words))

    def caption(self, entry: dict, rows: pd.DataFrame, records: list[dict], words: str = "") -> str:
        """What is shown, on how many replicates, which stand-ins, what the paper says in words, and the hardware."""
        parts, replicate = [entry.get("words", ""), words], self.rows.replicate
        if replicate in rows:
            counts = rows.groupby("tier")[replicate].nunique()
            parts.append(f"Independent {replicate}s: " + ", ".join(f"{n} ({tier} tier)" for tier, n in counts.items()) + ".")
        if stand_ins := [task for task in sorted(rows["task"].unique()) if is_stand_in(task)]:
            parts.append(f"Stand-ins for the paper's data: {', '.join(stand_ins)}.")
        if entry.get("says"):
            exception = entry.get("numbers", "").removeprefix("not published as numbers")
            parts.append(f"The paper prints no numbers for this figure{exception}; what it says: {entry['says']}.")
        parts.append(self.about(rows, records))
        if machines := hardware(self.name, records):
            parts.append(f"Hardware: {machines}.")
        return " ".join(part for part in parts if part)

    def summary(self, records: list[dict]) -> pd.DataFrame:
        """The README's table of this paper: the exhibit `summary` of its YAML; empty where no run has anything for it."""
        return exhibits.summary(self, self.data["summary"], records) if "summary" in self.data else pd.DataFrame()

