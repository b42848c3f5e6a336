"""What came out: records read back, the claims table for a terminal, Markdown for the README, claims as JSON.

Nothing here knows a paper by name: a paper's module (`mtkd.papers.module`) brings its exhibits and its claim tests.
"""

import io
import json
import math
import os
import re
import shutil
import sys
import warnings
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtkd import papers
from mtkd.errors import KitError
from mtkd.evidence.verdicts import CONTRADICTED, NO_EFFECT, NOT_TESTABLE, NOT_TESTED, OPEN, SUPPORTED, Verdict, decide
from mtkd.runs.records import repo_root

COLOURS = {SUPPORTED: "green", CONTRADICTED: "red", NO_EFFECT: "cyan", OPEN: "yellow", NOT_TESTABLE: "dim", NOT_TESTED: "dim"}


class DamagedRecord(UserWarning):
    """A record.json that could not be read, or is no record; it is left out of the report."""


def read_records(folder: str | Path) -> list[dict]:
    """Every record.json below a folder, sorted by path; a damaged one is skipped with a `DamagedRecord` warning.

    Raises KitError where there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise KitError(f"There is no folder {folder} to read records from.")
    records = []
    for path in sorted(folder.rglob("record.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(record, dict):
                raise ValueError("it is no record")
            missing = [key for key in ("run", "paper", "tier", "rows") if key not in record]
            if missing:
                raise ValueError(f"it has no {', '.join(missing)}")
            if not isinstance(record["rows"], list) or not all(isinstance(row, dict) for row in record["rows"]):
                raise ValueError("its rows are no list of tables")
        except (ValueError, TypeError, OSError) as problem:
            warnings.warn(f"{path} is left out, it is damaged: {problem}", DamagedRecord, stacklevel=2)
            continue
        records.append(record)
    return records


def read_committed(paper: str) -> list[dict]:
    """The reference runs of a paper that are committed with the kit (results/reference/<paper>); none is no error."""
    folder = repo_root() / "results" / "reference" / paper
    return read_records(folder) if folder.is_dir() else []


def all_verdicts(records: list[dict]) -> list[Verdict]:
    """The verdicts of every paper that has a module, in the papers' order; Holm's correction runs over all claims of the five
    papers in a tier, and over a paper's of one's own by themselves."""
    found = [verdict for name in papers.PAPERS for verdict in papers.module(name).claims(records)]
    five = {claim.id for claim in papers.all_claims() if claim.paper in papers.FIVE}
    for tier in {verdict.tier for verdict in found}:
        at = [i for i, verdict in enumerate(found) if verdict.tier == tier and verdict.claim in five]
        for i, verdict in zip(at, decide([found[i] for i in at], papers.FAMILY)):
            found[i] = verdict
    return found


def results(folder: str | Path) -> list[Verdict]:
    """The verdicts on the records below a folder; KitError where there is none."""
    return all_verdicts(read_records(folder))


def statement(claim: str) -> str:
    """What the paper says, in the kit's words; empty for an id that no paper has."""
    return next((entry.statement for entry in papers.all_claims() if entry.id == claim), "")


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """A number for people: "+1.25"; "n/a" where there is none. Never "-0.00"."""
    if value is None or not math.isfinite(value):
        return "n/a"
    rounded = round(value, digits) + 0.0
    return f"{rounded:+.{digits}f}" if sign else f"{rounded:.{digits}f}"


def p_value(p: float | None) -> str:
    return "p n/a" if p is None or not math.isfinite(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def measured(effect: float, interval, unit: str, level: float = 0.9) -> str:
    """An effect with its interval, in words."""
    words = f"{number(effect, sign=True)} {unit}".strip()
    if interval is not None:
        words += f", {level:.0%} interval [{number(interval[0], sign=True)}, {number(interval[1], sign=True)}]"
    return words


def outcome(verdict: Verdict) -> str:
    """What came out on average, in one line: effect and interval, n, p, and the replicates that an open claim needs.

    >>> outcome(Verdict("S1", "supported", effect=1.2, interval=(0.3, 2.1), p=0.021, p_holm=0.3, n=9, unit="points"))
    '+1.20 points, 90% interval [+0.30, +2.10], n = 9, p = 0.021 (0.300 after Holm)'
    """
    if verdict.effect is None:
        return verdict.note or "no data"
    words = measured(verdict.effect, verdict.interval, verdict.unit, verdict.level)
    words += f", n = {verdict.n}" + (f", {p_value(verdict.p)}" if verdict.p is not None else "")
    words += f" ({number(verdict.p_holm, 3)} after Holm)" if verdict.p_holm is not None else ""
    return words + (f"; would need n = {verdict.needed}" if verdict.needed else "")


def stated(verdict: Verdict) -> str:
    """The sentence as it stands: whether it holds in every setting here, and in the paper's own printed table.

    >>> stated(Verdict("S1", members=4, passed=3, as_stated="open", unit="points", lowest=-0.2, highest=1.1))
    'as stated open: 3 of 4 settings pass, from -0.2 to +1.1 points'
    """
    words = []
    if verdict.members:
        words.append(f"as stated {verdict.as_stated}: {verdict.passed} of {verdict.members} settings pass")
        if verdict.members > 1 and len({line["unit"] for line in verdict.lines}) < 2:
            words[0] += f", from {number(verdict.lowest, 1, True)} to {number(verdict.highest, 1, True)} {verdict.unit}"
    if failed := [setting for setting in verdict.printed if setting["fails"]]:
        worst = min(failed, key=lambda setting: setting["difference"])
        words.append(f"fails in the paper's own table, in {len(failed)} of {len(verdict.printed)} settings "
                     f"({worst['label']}, {number(worst['difference'], 2, True)})")
    return "; ".join(words)


def beside(verdict: Verdict, gaps: int | None = None) -> list[str]:
    """Lines that are no verdicts: averages over what the kit adds for fairness, exceptions, the averages of a claim of several
    statements, weaker tests, and settings in which nothing could be shown (of which the first `gaps`)."""
    lines = [f"{line['label']}: {measured(line['effect'], line['interval'], line['unit'], verdict.level)}, n = {line['n']}"
             + (f", {line['members']} settings from {number(line['lowest'], 1, True)} to {number(line['highest'], 1, True)}"
                if line["members"] > 1 else "") for line in verdict.beside]
    lines += [f"{line['part'] or line['test']} ({line['label']}): "
              f"{measured(line['effect'], line['interval'], line['unit'], verdict.level)}, n = {line['n']}"
              for line in verdict.lines if len(verdict.lines) > 1 and line["n"]]
    lines += [f"weaker than stated: {verdict.weaker}"] if verdict.weaker else []
    lines += [f"left out: {words}" for words in verdict.left_out[:gaps]]
    more = len(verdict.left_out[gaps:]) if gaps else 0
    return [*lines, *([f"and {more} more settings left out"] if more else [])]


def claims_table(verdicts: list[Verdict], width: int | None = None, colour: bool | None = None) -> str:
    """The claims as a table of text, `width` columns wide; with `colour`, with terminal escapes for the verdicts.

    Left out, both follow standard output: a terminal's width (80 to 120) and colours, else 100 columns and none.
    """
    terminal = sys.stdout.isatty()
    if width is None:
        width = min(max(shutil.get_terminal_size().columns, 80), 120) if terminal else 100
    if colour is None:
        colour = terminal and not os.environ.get("NO_COLOR")
    table = Table(show_lines=True, expand=True)
    table.add_column("claim", no_wrap=True)
    table.add_column("what the paper says", ratio=4)
    table.add_column("what came out here", ratio=6)
    table.add_column("on average", width=13)
    for verdict in verdicts:
        name = verdict.claim + (f"\n{verdict.tier}" if verdict.tier else "")
        style = COLOURS[verdict.verdict] if colour else ""
        lines = [line for line in (outcome(verdict), stated(verdict), *beside(verdict, gaps=2)) if line]
        table.add_row(name, statement(verdict.claim), Text("\n".join(lines)), Text(verdict.words, style=style))
    buffer = io.StringIO()
    Console(file=buffer, width=width, force_terminal=colour, color_system="standard" if colour else None).print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def markdown_table(table: pd.DataFrame) -> str:
    """A DataFrame as a GitHub table; bars in cells are escaped."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows) + "\n"


def claims_matrix(verdicts: list[Verdict]) -> str:
    """One line per claim, one column per tier, as a GitHub table: the verdict on average, and how many settings pass."""
    tiers = list(dict.fromkeys(v.tier for v in verdicts if v.tier))
    cells = {(v.claim, v.tier): v.words + (f" ({v.passed}/{v.members})" if v.members else "") for v in verdicts}
    names = dict.fromkeys(v.claim for v in verdicts)
    rows = [[name, statement(name), *(cells.get((name, tier), "-") for tier in tiers)] for name in names]
    return markdown_table(pd.DataFrame(rows, columns=["claim", "the paper says", *tiers]))


def claims_json(verdicts: list[Verdict]) -> str:
    """The verdicts with every member test, as JSON text."""
    return json.dumps([v.to_dict() | {"statement": statement(v.claim)} for v in verdicts], indent=2) + "\n"


def readme_table(records: list[dict]) -> str:
    """The table of numbers in the README: each working paper's `summary` as Markdown, under its title."""
    parts = []
    for name in papers.PAPERS:
        summary = getattr(papers.module(name), "summary", None)
        table = summary(records) if summary else None
        if table is not None and len(table):
            parts.append(f"{papers.load(name).title} (`{name}`)\n\n{markdown_table(table)}")
    return "\n".join(parts) or "No run of this yet.\n"


def provenance_table(records: list[dict]) -> str:
    """Which committed runs the numbers come from: command, commit, hardware, seeds and wall time, as Markdown."""
    rows = []
    for r in records:
        made, p = r.get("provenance", {}), r.get("parameters", {})
        machine, commit = made.get("hardware", {}), (made.get("commit") or "none")[:10]
        rows.append({
            "paper": r["paper"], "tier": r["tier"], "run": r["run"],
            "what": " ".join(str(p[k]) for k in ("arm", "task", "pools") if k in p),
            "command": f"`{made.get('command')}`", "commit": commit + (" (changed)" if made.get("dirty") else ""),
            "hardware": f"{machine.get('gpu') or machine.get('cpu')}, {made.get('threads')} thread(s)",
            "models": len(r["rows"]), "wall": f"{r.get('timing', {}).get('wall_s', 0):.0f} s",
            "seeds": f"{min(made['seeds'])} to {max(made['seeds'])}" if made.get("seeds") else "",
        })
    return markdown_table(pd.DataFrame(rows))


def splice(path: str | Path, marker: str, text: str) -> bool:
    """Replace what stands between `<!-- mtkd:MARKER -->` and `<!-- /mtkd:MARKER -->` in a file; True if it changed.

    Raises KitError unless the file has exactly one such pair.
    """
    path = Path(path)
    old = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- mtkd:{re.escape(marker)} -->\n).*?(<!-- /mtkd:{re.escape(marker)} -->)", re.DOTALL)
    if len(pattern.findall(old)) != 1:
        raise KitError(f"{path} needs exactly one pair of markers <!-- mtkd:{marker} --> and <!-- /mtkd:{marker} -->.")
    new = pattern.sub(lambda match: match[1] + text.rstrip("\n") + "\n" + match[2], old)
    if new != old:
        path.write_text(new, encoding="utf-8")
    return new != old
