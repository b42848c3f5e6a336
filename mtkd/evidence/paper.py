"""A paper as data: its claims and exhibits (a YAML file) and the few functions that data cannot say.

Everything here is general. What a YAML file may say:

    rows       how records become a frame (`frame.Rows`)
    tasks      a task's plain name, or the start of its name up to "/", to the paper's name; stand_ins: the kit's for it
    metrics    a metric's name to what tables call it; also: metrics shown beside the main one, each with the paper's data sets
               on which it is not
    margin     equivalence margin in units of accuracy (default 0.01)
    claims     id: says, kind, contrasts (`contrasts.Contrast`), holds (every | some), note, alone (a sentence per part), rows
               (a query: what a claim that a function tests stands on)
    exhibits   id: title, draw (a kind, or the name of a function beside the paper), rows (a query), must (a query that finds
               something, or there is nothing to show), every (all settings), words, says, none (words where nothing was run),
               extra (the paper has no such exhibit); the rest is what the drawing function reads
    summary    the README's table: see `exhibits.summary`
    published  one entry per printed number: exhibit, row, column, value
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from mtkd.evidence import exhibits
from mtkd.evidence.contrasts import Contrast, member, settings
from mtkd.evidence.exhibits import Exhibit
from mtkd.evidence.frame import Rows, hardware, is_stand_in, plain_name, rows_frame, stood_on
from mtkd.evidence.verdicts import NOT_TESTED, Member, Verdict, examine, judge

METRICS = {"accuracy": "Acc", "macro_f1": "Macro-F", "mcc": "MCC", "f1": "F1"}


class Paper:
    """A paper's claims, exhibits and printed numbers, and the functions beside them.

    label: a row (Series) to what tables call its model. derive: frame to frame, adding columns and rows that claims or exhibits
    speak of and no run wrote. pairs: which settings of a contrast are compared, by name. parts: claim to a function (rows of
    one tier, of every setting, margin, alpha) that gives results of `verdicts.examine`, for claims that are no contrast. notes:
    claim to a function (rows of one tier, parts) that adds words. draws: name to a function (paper, entry, rows, records) that
    gives a table, a figure, a whole Exhibit, or None where there is nothing to show; an entry with `data` is drawn from the
    records' data even where there are no rows. about: function (rows, records) that adds words to the caption of every exhibit.
    """

    def __init__(self, name: str, data: dict, *, label: Callable[[pd.Series], str], derive: Callable | None = None,
                 pairs: Mapping[str, Callable] | None = None, parts: Mapping[str, Callable] | None = None,
                 notes: Mapping[str, Callable] | None = None, draws: Mapping[str, Callable] | None = None,
                 about: Callable | None = None):
        self.name, self.data, self.label, self.derive = name, data, label, derive or (lambda frame: frame)
        self.pairs, self.parts, self.notes, self.draws = pairs or {}, parts or {}, notes or {}, draws or {}
        self.about = about or (lambda rows, records: "")
        self.rows = Rows(name, **{k: tuple(v) if isinstance(v, list) else v for k, v in data.get("rows", {}).items()})
        self.published, self.stand_ins = data["published"], data.get("stand_ins", {})

    # --- rows and names

    def frame(self, records: list[dict], every: bool = False) -> pd.DataFrame:
        """All rows of this paper's records (see `frame.rows_frame`) and what `derive` adds."""
        return self.derive(rows_frame(self.rows, records, every))

    def data_frame(self, records: list[dict]) -> pd.DataFrame:
        """The records' rows about data: task, split, samples ... and tier; one per tier, task and split."""
        rows = [row | {"tier": record.get("tier", "")} for record in records if record.get("paper") == self.name
                for row in record.get("data", [])]
        return pd.DataFrame(rows).drop_duplicates(["tier", "task", "split"]) if rows else pd.DataFrame()

    def printed_task(self, task: str) -> str | None:
        """The paper's name for a task of its own data ("glue/sst2" gives "SST-2"); None for any other."""
        names = self.data.get("tasks", {})
        own = names.get(plain_name(task))
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
        """One verdict per claim and tier, by the rules of `verdicts.judge`. `margin` is in units of accuracy (0.01 = one point;
        MCC gets twice that) and by default the paper's entry. A claim that no tier has data for is "not tested"."""
        margin = self.data.get("margin", 0.01) if margin is None else margin
        frame = self.frame(records)
        asked = self.parts or any(contrast.every for claim in self.data["claims"] for contrast in self.contrasts(claim))
        every = self.frame(records, every=True) if asked else frame
        found = [verdict for tier, rows in frame.groupby("tier", sort=True) for claim in self.data["claims"]
                 if (verdict := self.verdict(claim, tier, rows, every[every["tier"] == tier], margin, alpha))]
        rest = [claim for claim in self.data["claims"] if claim not in {verdict.claim for verdict in found}]
        note = f"no run of this yet: `mtkd run params/{self.name}/demo.yaml`"
        return sorted([*found, *(Verdict(claim, NOT_TESTED, note=note) for claim in rest)], key=lambda v: (v.tier, v.claim))

    def verdict(self, claim: str, tier: str, rows: pd.DataFrame, every: pd.DataFrame, margin: float,
                alpha: float) -> Verdict | None:
        """The verdict on one claim from the rows of one tier (every: of every setting); None where no setting has rows."""
        entry, parts, ours, named = self.data["claims"][claim], [], [], {}
        options = {"holds": entry.get("holds", "every"), "alpha": alpha, "tier": tier, "replicate": self.rows.replicate,
                   "unit": entry.get("unit", "points"), "test": entry.get("test", "").format(margin=margin, alpha=alpha)}
        asides: dict[str, list[dict]] = {}
        for contrast in self.contrasts(claim):
            found = list(settings(contrast, rows, every, self.pairs))
            tested = [examine(member(contrast, setting, self.label, self.rows.replicate, margin), alpha) for setting in found]
            if contrast.aside:
                asides.setdefault(contrast.aside, []).extend(tested)
                continue
            parts += tested
            ours += [setting.ours for setting in found]
            if contrast.part:
                named.setdefault(contrast.part, (contrast, []))[1].extend(tested)
        if claim in self.parts:
            parts += self.parts[claim](rows, every, margin, alpha)
            ours += [rows.query(entry["rows"])] if "rows" in entry else []
        if not parts:
            return None
        for part, (contrast, tested) in named.items():
            if contrast.required and not tested:
                parts.append(examine(Member(part, []), alpha))
        parts += [examine(Member(part, []), alpha) for part in entry.get("required", ())
                  if part not in {found.get("part") for found in parts}]
        words = [stood_on(ours or [rows], self.rows.replicate), entry.get("note", "")]
        if entry.get("alone"):
            words += [f"{part} alone {alone.passed} of {alone.members} settings pass: {alone.verdict}"
                      for part, (_, tested) in named.items() if 0 < len(tested) < len(parts)
                      for alone in [judge(claim, [dict(one) for one in tested], **options)]]
        for aside, tested in asides.items():
            if lowest := min(tested, key=lambda part: part["effect"], default=None):
                where, rival = lowest["label"].split(": ", 1)
                words.append(f"{aside}, {where}, is left out ({len(tested)} settings; the lowest mean difference there is "
                             f"{lowest['effect']:+.1f}, {rival})")
        words.append(self.notes[claim](rows, parts) if claim in self.notes else "")
        return judge(claim, parts, note="; ".join(filter(None, words)), **options)

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

