"""The command `mtkd`: run grids, report on records, list what the papers claim and show.

A mistake that the user can mend is one sentence on stderr and status 2; a cell that failed is status 1; Ctrl-C is 130.
Imports are inside the commands, so that `mtkd --help` answers at once.
"""

import dataclasses
import json
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand

from mtkd.errors import KitError

app = typer.Typer(
    help="Multi-teacher knowledge distillation: run the papers' notebooks over grids of parameters, and report.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Json = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


class WithPairs(TyperCommand):
    """A command that takes -p NAME VALUE as papermill does, which typer's own options cannot: it becomes NAME=VALUE."""

    def parse_args(self, ctx, args):
        joined, rest = [], list(args)
        while rest:
            word = rest.pop(0)
            if word in ("-p", "--parameter") and len(rest) > 1 and "=" not in rest[0]:
                joined += [word, f"{rest.pop(0)}={rest.pop(0)}"]
            else:
                joined.append(word)
        return super().parse_args(ctx, joined)


@app.command(cls=WithPairs)
def run(
    files: Annotated[list[Path], typer.Argument(help="Grid files, such as params/seed_ensemble/demo.yaml.")],
    jobs: Annotated[int | None, typer.Option(min=1, help="Cells at a time.", show_default="processor cores")] = None,
    results: Annotated[Path | None, typer.Option(help="Folder for the records.", show_default="results/runs")] = None,
    timeout: Annotated[float | None, typer.Option(min=1, help="Longest time for one cell, in seconds.")] = None,
    first: Annotated[int | None, typer.Option(min=1, help="So many values of every grid's lists; 1: make demo.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, list the cells, run nothing.")] = False,
    parameter: Annotated[list[str] | None, typer.Option("-p", "--parameter", metavar="NAME VALUE",
                                                        help="Replace a value in every cell.")] = None,
) -> None:
    """Run what is missing of some grids, then print the claims with their verdicts and write a report."""
    from mtkd.runs import grid, records

    look_at_the_data(files, overrides(parameter or []), first)
    summary = grid.run(files, jobs=jobs, results=results, timeout=timeout, overrides=overrides(parameter or []),
                       dry_run=dry_run, first=first)
    if not dry_run and not summary.interrupted and summary.folders:
        found = [records.read_record(folder / "record.json") for folder in summary.folders]
        found = [record for record in found if record]
        if all(outcome.status == "reused" for outcome in summary.outcomes):
            typer.echo("Nothing was left to do.")
        if not beside_the_committed(found):
            tell(found, (results or records.runs_folder().parent) / "report")
    raise typer.Exit(summary.status)


@app.command()
def smoke(
    files: Annotated[list[Path], typer.Argument(help="Grid files, such as params/mt_bert/table2.yaml.")],
    jobs: Annotated[int | None, typer.Option(min=1, help="Cells at a time.", show_default="processor cores")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where miniatures and records go.", show_default="build/smoke")] = None,
) -> None:
    """Run grids with miniatures of their models and data, on a CPU: a trial before hours of GPU are spent."""
    import os
    from collections import Counter

    import yaml

    from mtkd import miniatures
    from mtkd.runs import grid, records
    from mtkd.runs.gridfiles import read_grid
    from mtkd.runs.parameters import read_parameters

    folder, copies = (folder or records.repo_root() / "build" / "smoke").absolute(), {}
    read = {file: read_grid(file, first=1).cells for file in files}
    os.environ.update(miniatures.write([cell.parameters for cells in read.values() for cell in cells], folder))
    os.environ["HF_HUB_OFFLINE"] = "1"
    for file, cells in read.items():
        copies[file] = folder / "params" / file.parent.name / file.name
        copies[file].parent.mkdir(parents=True, exist_ok=True)
        usual = {name: p.default for name, p in read_parameters(cells[0].notebook).items()}
        little = [{k: v for k, v in miniatures.small(cell.parameters).items() if v != usual[k]} for cell in cells]
        copies[file].write_text(yaml.safe_dump({"paper": cells[0].paper, "tier": "paper", "cells": little}), encoding="utf-8")
    summary = grid.run(copies.values(), jobs=jobs, results=folder / "runs")
    failed = Counter(Path(outcome.planned.cell.file).resolve() for outcome in summary.failed)
    typer.echo("")
    for file, copy in copies.items():
        broken = failed[copy.resolve()]
        typer.echo(f"{file}: {len(read[file])} cells, " + (f"{broken} FAILED" if broken else "all of them from data to record"))
    raise typer.Exit(summary.status)


@app.command()
def report(
    folders: Annotated[list[Path] | None, typer.Argument(help="Folders of records.", show_default="results/runs")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the report.", show_default="results/report")] = None,
    readme: Annotated[Path | None, typer.Option(help="Also renew the tables between the mtkd: marks of this file.")] = None,
) -> None:
    """Print the claims with their verdicts from records, and write the report."""
    from mtkd.papers import floor_sentences
    from mtkd.report import all_verdicts, claims_matrix, read_records, readme_table, splice
    from mtkd.runs.records import runs_folder

    folders = folders or [runs_folder()]
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise KitError(f"There is no folder {missing[0]}; `mtkd run` makes records.")
    found = [record for folder in folders for record in read_records(folder)]
    if not found:
        raise KitError(f"There are no records in {', '.join(map(str, folders))}; `mtkd run` makes some.")
    tell(found, out or runs_folder().parent / "report")
    if readme:
        splice(readme, "results", readme_table(found))
        splice(readme, "sentences", "".join(f"- {words}\n" for words in floor_sentences(found)))
        splice(readme, "verdicts", claims_matrix(all_verdicts(found)))


Records = Annotated[Path | None, typer.Argument(help="Folder of records to show what came out.",
                                                show_default="with --json: results/reference")]


@app.command()
def claims(folder: Records = None, as_json: Json = False) -> None:
    """List the claims of the five papers; with records, or as JSON, what came out for each."""
    from mtkd.papers import all_claims
    from mtkd.report import claims_table, results
    from mtkd.runs.records import repo_root

    rows = [dataclasses.asdict(claim) for claim in all_claims()]
    reference = repo_root() / "results" / "reference"
    folder = folder or (reference if as_json and reference.is_dir() else None)
    found = results(folder) if folder else []
    if folder and not as_json:
        typer.echo(claims_table(found))
        return
    of = {row["id"]: [verdict.brief() for verdict in found if verdict.claim == row["id"]] for row in rows}
    show([row | {"results": of[row["id"]]} for row in rows], as_json, ("id", "paper", "status", "statement"))


@app.command()
def exhibits(folder: Records = None, as_json: Json = False) -> None:
    """List the tables and figures of the five papers; with records, whether they show something."""
    from mtkd.papers import all_exhibits, exhibit
    from mtkd.report import read_records

    rows, columns = [dataclasses.asdict(entry) for entry in all_exhibits()], ("id", "status", "in_paper")
    if folder:
        found = read_records(folder)
        rows = [row | {"shown": not exhibit(row["id"], found).missing} for row in rows]
        columns = ("id", "status", "shown", "in_paper")
    show(rows, as_json, columns)


@app.command()
def rules(as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False) -> None:
    """List the losses, selections and rewards that a recipe or a grid file can name, with their options."""
    from mtkd.rules import matching, registry

    assert matching  # it registers the kit's own
    rows = [{"kind": kind, "name": rule.name, "says": rule.says + (f" Options: {', '.join(rule.known)}." if rule.known else "")}
            for kind in registry.KINDS for rule in registry.registered(kind)]
    show(rows, as_json, ("kind", "name", "says"))


@app.command()
def params(notebook: Annotated[str, typer.Argument(help="A notebook's path, or a paper's name.")],
           as_json: Json = False) -> None:
    """List the parameters of a notebook with their types and defaults."""
    from mtkd.runs.parameters import notebook_path, read_parameters

    path = Path(notebook) if notebook.endswith(".ipynb") else notebook_path(notebook)
    show([dataclasses.asdict(p) for p in read_parameters(path).values()], as_json, ("name", "type", "default", "help"))


def overrides(pairs: list[str]) -> dict:
    """Values given on the command line, read as a grid file would be."""
    import yaml

    from mtkd.runs.gridfiles import read_yaml

    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise KitError(f"-p needs a name and a value, such as -p epochs 3, not {pair!r} alone.")
        try:  # a path with " #" in it is no value with a comment behind it
            values[name] = text if " #" in text and text[0] not in "[{\"'" else read_yaml(text)
        except yaml.YAMLError as error:
            raise KitError(f"-p {name}: {text!r} is not a value.") from error
    return values


def look_at_the_data(files: list[Path], values: dict, first: int | None) -> None:
    """Read the files of one's own that cells name as their task, so that a fault in them is found before a kernel starts."""
    from mtkd.runs.gridfiles import read_grid

    cells = [cell.parameters for file in files for cell in read_grid(file, values, first=first).cells]
    own = {(str(cell["task"]), json.dumps(cell.get("task_options") or {}, sort_keys=True)) for cell in cells if "task" in cell}
    if own := [(task, options) for task, options in sorted(own) if Path(task).suffix or Path(task).is_absolute()]:
        from mtkd.data.tasks import load_task
        from mtkd.runs.records import repo_root

        for task, options in own:  # a relative path starts at the repository's root, as in a cell
            for note in load_task(str(repo_root() / Path(task).expanduser()), **json.loads(options)).notes:
                typer.echo(f"{task}: {note}")


def beside_the_committed(records: list[dict]) -> bool:
    """Where every run has a twin among the committed records: say of each whether it is the same, then what came out and the
    claims of all committed replicates; else say nothing and return False."""
    from mtkd.report import read_committed
    from mtkd.runs.records import repo_root
    from mtkd.runs.verify import compare, twin_of

    committed = {paper: read_committed(paper) for paper in dict.fromkeys(record["paper"] for record in records)}
    twins = [twin_of(record, committed[record["paper"]]) for record in records]
    if not all(twins):
        return False
    typer.echo("\nYour runs beside the committed ones:")
    for record, twin in zip(records, twins):
        typer.echo(f"  {record['paper']} {twin['run'][:6]}  {compare(record, twin, committed[record['paper']]).words}")
    for paper, found in committed.items():
        tiers = {record["tier"] for record in records if record["paper"] == paper}
        picture(paper, [record for record in found if record["tier"] in tiers], [r for r in records if r["paper"] == paper])
    typer.echo("""
●: mean effect over all committed replicates, with its 90% interval; ×: your runs alone; ░: what does not matter.
"no relevant effect": the gain that the paper claims is smaller than what matters, whatever its sign.""")
    reference = repo_root() / "results" / "reference"
    typer.echo(f"\nThe claims in full: {reference / 'report' / 'README.md'}; one page with all tables and figures: "
               f"mtkd report {reference} --out {reference / 'report'}")
    return True


def picture(paper: str, committed: list[dict], yours: list[dict]) -> None:
    """One paper in a terminal: what its models reach, and its claims' effects with the reader's own marked."""
    from mtkd import papers
    from mtkd.evidence import forest
    from mtkd.report import statement

    columns, found = min(shutil.get_terminal_size().columns, 110), papers.module(paper)
    typer.echo(f"\n{papers.load(paper).title}")
    say_sentences(committed)
    strips = forest.of_claims(found.claims(committed), found.claims(yours))
    for line, claim in zip(forest.lines(strips, columns), [*(strip.label for strip in strips), ""]):
        typer.echo(line)
        if claim:
            typer.echo(textwrap.shorten(f"    {statement(claim)}", columns, placeholder=" ...", drop_whitespace=False))


def tell(records: list[dict], folder: Path) -> None:
    """Print the claims table of the papers in `records`, and write the HTML report."""
    from mtkd.report_page import write_report

    say_sentences(records)
    say_claims(records)
    typer.echo(f"\nReport: {write_report(records, folder)}")


def say_sentences(records: list[dict]) -> None:
    from mtkd.papers import floor_sentences

    for words in floor_sentences(records):
        typer.echo("\n" + textwrap.fill(words, min(shutil.get_terminal_size().columns, 110)))


def say_claims(records: list[dict]) -> None:
    from mtkd.papers import module
    from mtkd.report import claims_table

    found = [module(paper) for paper in dict.fromkeys(record["paper"] for record in records)]
    if verdicts := [verdict for paper in found if paper for verdict in paper.claims(records)]:
        typer.echo("\n" + claims_table(verdicts))


def show(rows: list[dict], as_json: bool, columns: tuple[str, ...]) -> None:
    """Print rows as JSON, or as columns of which the last is wrapped to the width of the terminal."""
    if as_json:
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    widths = [max((len(str(row[name])) for row in rows), default=0) for name in columns[:-1]]
    indent = " " * (sum(widths) + 2 * len(widths))
    for row in rows:
        start = "".join(f"{row[name]!s:<{width}}  " for name, width in zip(columns, widths))
        width = max(len(indent) + 40, shutil.get_terminal_size().columns)
        text = textwrap.fill(str(row[columns[-1]]), width, initial_indent=start, subsequent_indent=indent)
        typer.echo(text.rstrip() or start.rstrip())


def main() -> None:
    """The entry point: typer's application, with errors that a user can act on as one sentence."""
    try:
        app()
    except KitError as error:
        print(f"mtkd: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
