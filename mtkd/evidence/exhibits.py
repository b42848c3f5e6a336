"""What an exhibit is, and tables of any paper, drawn from its frame by a description: which rows, what goes down, what across.

Every drawing function takes (paper, entry, rows, records): a `paper.Paper`, the exhibit's entry in its YAML, the rows that the
entry asks for, and all records. Figures are in `figures`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from mtkd.evidence.contrasts import Contrast, settings
from mtkd.evidence.frame import WORDS, differences, hardware, in_order, points, split_counts
from mtkd.evidence.stats import holm, paired

if TYPE_CHECKING:
    from mtkd.evidence.paper import Paper


@dataclass(frozen=True)
class Exhibit:
    """A regenerated table or figure: content is a DataFrame, a matplotlib Figure, or None where there is no run yet.

    Displayed by a notebook as its title, its content (the figure as a PNG) and its caption.
    """

    id: str
    title: str
    caption: str
    content: object = None

    @property
    def missing(self) -> bool:
        return self.content is None

    @property
    def is_table(self) -> bool:
        return isinstance(self.content, pd.DataFrame)

    def png(self, dpi: int = 100) -> bytes:
        """The figure as PNG bytes, without a time stamp, so that the same figure gives the same bytes."""
        buffer = io.BytesIO()
        self.content.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
        return buffer.getvalue()

    def data_uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png()).decode()

    def _ipython_display_(self):
        from IPython.display import Image, Markdown, display

        display(Markdown(f"**{self.id}: {self.title}**"))
        if not self.missing:
            display(self.content if self.is_table else Image(data=self.png(), format="png"))
        display(Markdown(self.caption))


# --- scores, ours above the paper's -----------------------------------------------------------------------------------


def score_cells(paper: Paper, rows: pd.DataFrame) -> dict[str, str]:
    """Table cells of one line: per task and metric mean ± standard deviation, the first of a task with n. A metric that goes
    without saying (the entry `unnamed` of the paper's data) is not named where the paper has the task itself."""
    cells = {}
    for task, group in rows.groupby("task", sort=False):
        for place, (label, column) in enumerate(paper.shown_metrics(group)):
            label = "" if label == paper.data.get("unnamed") and paper.printed_task(task) else label
            n = f" n={len(group)}" if place == 0 else ""
            cells[f"{paper.task(task)} {label}".strip()] = points(group[column]) + n
    return cells


def other_cells(entry: dict, rows: pd.DataFrame) -> dict[str, object]:
    """Table cells of one line that are no scores: entry["cells"] says which column each shows, and in which of `WORDS`."""
    return {header: WORDS[words](rows[column].dropna()) for header, (column, words) in entry.get("cells", {}).items()
            if rows[column].notna().any()}


def lines(paper: Paper, entry: dict, rows: pd.DataFrame) -> dict[tuple, dict[str, str]]:
    """Our lines of a table, keyed by (source, *labels): one per tier and value of the columns in entry["lines"], in the order
    that entry["order"] gives. average: header of the mean over tasks, where there are several; scores: false for none."""
    found = {}
    labels = list(entry.get("lines") or ["name"])
    rows = in_order(rows, {"tier": None, **entry.get("order", {}), "task": None})
    for (tier, *key), group in rows.groupby(["tier", *labels], sort=False):
        cells = score_cells(paper, group) if entry.get("scores", True) else {}
        if entry.get("average") and group["task"].nunique() > 1:
            cells[entry["average"]] = f"{100 * group.groupby('task')['score'].mean().mean():.1f}"
        if entry.get("size"):
            cells |= size_cell(group["parameters"].dropna())
        found[f"{tier} tier", *key] = cells | other_cells(entry, group)
    return found


def size_cell(parameters: pd.Series) -> dict[str, str]:
    """Parameters in millions, a range where the models of a line differ (tasks with other vocabularies); {} for none."""
    if parameters.empty:
        return {}
    low, high = (f"{value / 1e6:.3g}" for value in (parameters.min(), parameters.max()))
    return {"#Param": f"{low}M" if low == high else f"{low}-{high}M"}


def with_paper(paper: Paper, entry: dict, found: dict[tuple, dict[str, str]]) -> pd.DataFrame:
    """Our lines above the paper's printed ones, in the same columns; columns in entry["last"] come last.

    entry: headers (names of the label columns), printed (the table whose numbers these are), formats (of a printed column, else
    entry["format"], else one decimal; a number's note "printed as 4M" goes before all). A printed label is cut at ", " where a
    table has several label columns.
    """
    headers = list(entry.get("headers") or ["model"])
    formats, found = entry.get("formats", {}), dict(found)
    for number in paper.published:
        if number["exhibit"] == entry.get("printed"):
            label = [*number["row"].split(", "), *["-"] * len(headers)][: len(headers)] if len(headers) > 1 else [number["row"]]
            column = entry.get("columns", {}).get(number["column"], number["column"])
            words = formats.get(column, entry.get("format", "{:.1f}")).format(number["value"])
            note = number.get("note", "")
            words = note.removeprefix("printed as ") if note.startswith("printed as ") else words
            found.setdefault(("paper", *label), {})[column] = words
    table = pd.DataFrame.from_dict(found, orient="index").fillna("-").rename_axis(["source", *headers]).reset_index()
    last = [column for column in entry.get("last", ()) if column in table]
    return table[[column for column in table if column not in last] + last]


def table(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame | None:
    """Models down, tasks and metrics across, the paper's lines below; with entry["turned"] models across. entry["several"],
    (column, another): only rows with a value of the first for which there are several of the other."""
    if "several" in entry:
        of, value = entry["several"]
        rows = rows[rows.groupby(["tier", of])[value].transform("nunique") > 1]
    found = lines(paper, entry, rows)
    if entry.get("turned"):
        found, models = {}, found
        for (source, label), cells in models.items():
            for head, cell in cells.items():
                found.setdefault((source, head), {})[label] = cell
    return with_paper(paper, entry, found) if found else None


def variants(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame:
    """One line per tier, task and value of entry["bar"], in the order and words of entry["names"]: its score."""
    found = []
    for (tier, task), group in rows.groupby(["tier", "task"], sort=True):
        label = paper.metric(group["metric"].iloc[0])
        for value, words in entry["names"].items():
            cell = points(group[group[entry["bar"]] == value]["score"])
            found.append({"tier": tier, "task": task, entry["header"]: words, label: cell})
    return pd.DataFrame(found).astype(object).fillna("-")


def summary(paper: Paper, entry: dict, records: list[dict]) -> pd.DataFrame:
    """The README's table: one line per value of the columns entry["lines"] among the rows that entry["rows"] asks for.

    entry["cells"]: header to a query, or to {rows, every, means, best, first}: of the rows of the line's tier and task (with
    `every` those of all settings) the scores (with `means` a mean per replicate), mean ± standard deviation; with `best` of the
    value of that column whose mean is highest, which is named unless `named` is false; with `first` the first value of that
    column. A query may use the line's own columns, its settings, and what entry["names"] has names for, as @layers, @settings
    and @names.
    """
    shown, replicate, found = paper.frame(records), paper.rows.replicate, []
    cells = {words: cell if isinstance(cell, dict) else {"rows": cell} for words, cell in entry["cells"].items()}
    every = paper.frame(records, every=True) if any(cell.get("every") for cell in cells.values()) else shown
    headers, names = entry.get("headers", {}), entry.get("names", {})
    for key, group in (shown.query(entry["rows"]) if "rows" in entry else shown).groupby(entry["lines"], sort=True):
        at = dict(zip(entry["lines"], key))
        known = at | {"settings": set(group["setting"]), "names": list(names)}
        line = {headers.get(k, k): int(v) if isinstance(v, float) else names.get(v, v) for k, v in at.items()}
        for words, cell in cells.items():
            frame = every if cell.get("every") else shown
            frame = frame[(frame["tier"] == at["tier"]) & (frame["task"] == at["task"])].query(cell["rows"], local_dict=known)
            line[words] = summary_cell(frame, cell, names, replicate)
        line |= {f"{replicate}s": group[replicate].nunique(), "hardware": hardware(paper.name, records, at["tier"])}
        found.append(line)
    return pd.DataFrame(found)


def summary_cell(rows: pd.DataFrame, cell: dict, names: dict[str, str], replicate: str) -> str | int:
    """One cell of a summary; "n/a" where there are no rows."""
    if rows.empty:
        return "n/a"
    if "first" in cell:
        return int(rows[cell["first"]].iloc[0])
    if "best" not in cell:
        return points(rows.groupby(replicate)["score"].mean() if cell.get("means") else rows["score"])
    best = rows.groupby(cell["best"])["score"].mean().idxmax()
    named = f" ({names.get(best, best)})" if cell.get("named", True) else ""
    return points(rows[rows[cell["best"]] == best]["score"]) + named


# --- data sizes -------------------------------------------------------------------------------------------------------


def sizes(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame | None:
    """What each task in use holds by split, the paper's numbers beside it; the paper's data sets that were not run stand below.

    entry: columns (header to [column of the data rows, digits]; digits "first" takes the first row's value), printed (the
    table), beside (header to the printed columns, joined by " / ").
    """
    data = paper.data_frame(records)
    if data.empty:
        return None
    found, shown = [], set()
    for (tier, task), group in data.groupby(["tier", "task"], sort=True):
        name, stands_for = paper.printed_task(task), paper.stand_ins.get(task)
        shown.add(name or stands_for)
        ours = {header: split_counts(group, column, digits) if digits != "first" else
                group[column].iloc[0] if column in group else "-"
                for header, (column, digits) in entry["columns"].items()}
        found.append({"tier": tier, "task": task} | ours
                     | {"paper's data": name or f"(stands in for {stands_for or 'none'})"}
                     | beside(paper, entry, name or stands_for))
    printed = dict.fromkeys(number["row"] for number in paper.published if number["exhibit"] == entry["printed"])
    found += [{"task": "not run here", "paper's data": name} | beside(paper, entry, name)
              for name in printed if name not in shown]
    return pd.DataFrame(found).astype(object).fillna("-")


def beside(paper: Paper, entry: dict, name: str | None) -> dict[str, object]:
    """The paper's cells for one of its data sets; dashes for any other."""
    cells = {}
    for header, columns in entry["beside"].items():
        values = [paper.printed(entry["printed"], name, column) for column in columns]
        texts = ["-" if value is None else value for value in values]
        cells[header] = texts[0] if len(texts) == 1 else " / ".join(map(str, texts))
    return cells


# --- two arms side by side --------------------------------------------------------------------------------------------


def paired_table(entries: Iterable[tuple[dict, pd.DataFrame, pd.DataFrame]], replicate: str, ours: str,
                 theirs: str) -> pd.DataFrame:
    """Two arms side by side, one line per (labels, our rows, their rows): scores, difference, interval, p after Holm.

    Differences are paired over replicates, the test is the one-sided t-test for ours being better, and Holm's
    correction runs over all lines of the table.
    """
    found = []
    for labels, mine, other in entries:
        result = paired(differences(mine, other, replicate), "greater", level=0.95)
        found.append(
            labels | {ours: points(mine["score"]), theirs: points(other["score"])}
            | {"difference": f"{result.mean:+.1f}" if result.n else "n/a"}
            | {"95% interval": "[{:+.1f}, {:+.1f}]".format(*result.interval) if result.n > 1 else "n/a"}
            | {f"{replicate}s": result.n, "p": result.p}
        )  # fmt: skip
    frame = pd.DataFrame(found)
    if len(frame):
        tested = frame["p"].notna()
        frame.loc[tested, "p"] = holm(frame.loc[tested, "p"].to_list())
        frame["p (Holm)"] = [f"{p:.3f}" if pd.notna(p) else "n/a" for p in frame.pop("p")]
    return frame


def controls(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame | None:
    """The method beside students that were taught nothing: entry["against"] lists contrasts, as claims have them.

    A line shows entry["labels"] (columns of the contrast, or a mapping of them to headers), and what tables call the rival. A
    contrast may have `as`: what ours are called there. entry: headers (the two columns of scores), rival (the rival's header
    and whether it is "ours" or "theirs", default [control, theirs]), names (other words for a rival, by its variant or by what
    tables call it), order (columns of the rival's rows and the order of their values; lines are then sorted by these, else by
    their words).
    """
    found, (header, side), names = [], entry.get("rival", ("control", "theirs")), entry.get("names", {})
    heads = entry["labels"] if isinstance(entry["labels"], dict) else {name: name for name in entry["labels"]}
    for against in entry["against"]:
        words = {k: v for k, v in against.items() if k == "as"}
        contrast = Contrast.read({k: v for k, v in against.items() if k != "as"} | {"by": ["tier", *against["by"]]})
        every = paper.frame(records, every=True) if contrast.every else None
        for setting in settings(contrast, rows, every, paper.pairs):
            at = setting.ours_at | setting.theirs_at
            labels = {head: int(at[name]) if isinstance(at[name], float) else at[name] for name, head in heads.items()}
            rival = (setting.ours if side == "ours" else setting.theirs).iloc[0]
            place = [values.index(rival[name]) if rival[name] in values else -1
                     for name, values in entry.get("order", {}).items()]
            key = (tuple(map(str, labels.values())), place)
            name = paper.label(rival)
            labels |= {header: names.get(rival["variant"], names.get(name, name))}
            labels |= {"compared with": words["as"]} if words else {}
            found.append(((*key, tuple(map(str, labels.values()))), (labels, setting.ours, setting.theirs)))
    found.sort(key=lambda line: line[0])
    return paired_table([line for _, line in found], paper.rows.replicate, *entry["headers"]) if found else None


KINDS = {"table": table, "variants": variants, "sizes": sizes, "controls": controls}
