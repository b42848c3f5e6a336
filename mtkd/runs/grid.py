"""The runner: expand grid files, check everything, run what is missing, and say what came of it.

    summary = run(["params/seed_ensemble/demo.yaml"], jobs=2)
    summary.status      # 0 all there, 1 something failed, 130 interrupted

Cells run in processes of their own, several at a time, and a failed one stops no other. What has a valid record is not
run again, so after an interruption the same command continues.
"""

import contextlib
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from mtkd.errors import KitError
from mtkd.runs.cell import Outcome, Planned, kill_tree, run_cell
from mtkd.runs.gridfiles import read_grid
from mtkd.runs.records import cores, run_id, runs_folder


class Executor(Protocol):
    """Where cells run. A cluster plugs in here: on each worker `mtkd.runs.cell.run_cell` is called, and the future is a
    `concurrent.futures` one (of Dask, `client.get_executor()` gives such futures)."""

    def submit(self, planned: Planned) -> "Future[Outcome]":
        """Run a cell some time from now."""

    def stop(self) -> None:
        """Kill what runs, forget what waits, and return when nothing is left."""


class LocalExecutor:
    """Cells in processes of this machine, `jobs` at a time; one thread waits for each."""

    def __init__(self, jobs: int, environment: dict[str, str], timeout: float | None = None):
        self.threads = ThreadPoolExecutor(jobs, thread_name_prefix="cell")
        self.environment, self.timeout = environment, timeout
        self.processes: list[subprocess.Popen] = []
        self.guard, self.stopped = threading.Lock(), False

    def submit(self, planned: Planned) -> "Future[Outcome]":
        """Run a cell as soon as a place is free."""
        return self.threads.submit(run_cell, planned, self.environment, self.timeout, self.started)

    def started(self, process: subprocess.Popen) -> None:
        with self.guard:
            self.processes.append(process)
            if self.stopped:
                kill_tree(process)

    def stop(self) -> None:
        """Kill every cell that runs, with its kernel; cells that wait are cancelled."""
        with self.guard:
            self.stopped = True
            for process in self.processes:
                kill_tree(process)
        self.threads.shutdown(wait=True, cancel_futures=True)


@dataclass
class Summary:
    """What a run of grids came to; `status` is the exit status of the command."""

    outcomes: list[Outcome] = field(default_factory=list)
    interrupted: bool = False

    @property
    def failed(self) -> list[Outcome]:
        """The cells that failed."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    @property
    def folders(self) -> list[Path]:
        """The folders that hold a valid record."""
        return [outcome.planned.folder for outcome in self.outcomes if outcome.status != "failed"]

    @property
    def status(self) -> int:
        """0 all there, 1 something failed, 130 interrupted."""
        return 130 if self.interrupted else int(bool(self.failed))


def plan(files: Iterable[Path | str], overrides: dict | None = None, results: Path | str | None = None,
         notebooks: Path | str | None = None, first: int | None = None) -> tuple[list[Planned], list[str]]:
    """All cells of some grid files, each once, and notes for the user; KitError at the first thing that is wrong."""
    results = Path(results).absolute() if results else runs_folder()
    planned, notes = {}, []
    for file in files:
        grid = read_grid(file, overrides, Path(notebooks) if notebooks else None, first)
        notes += grid.notes
        for cell in grid.cells:
            run = run_id(cell.paper, cell.parameters, cell.notebook)
            if run in planned:
                notes.append(f"{file}: {cell.label or 'its cell'} is also in {planned[run].cell.file} and runs once.")
            planned.setdefault(run, Planned(cell, run, results / cell.paper / run))
    if not planned:
        raise KitError("No grid file was given; the kit's own are params/*/*.yaml.")
    return list(planned.values()), notes


def run(files: Iterable[Path | str], *, jobs: int | None = None, results: Path | str | None = None,
        timeout: float | None = None, overrides: dict | None = None, dry_run: bool = False, first: int | None = None,
        notebooks: Path | str | None = None, executor: Executor | None = None,
        say: Callable[[str], None] = tqdm.write) -> Summary:
    """Run what is missing of some grids, `jobs` cells at a time, each for at most `timeout` seconds.

    `overrides` replace values in every cell; `first` takes only so many of every list in a grid (see `read_grid`). Raises
    KitError before anything has started, never after: a cell's failure is in the summary and has been said.
    """
    planned, notes = plan(files, overrides, results, notebooks, first)
    for note in notes:
        say(note)
    finished = {p.run: p.finished for p in planned}
    missing = [p for p in planned if not finished[p.run]]
    summary = Summary([Outcome(p, "reused") for p in planned if finished[p.run]])
    if dry_run:
        for p in planned:
            say(f"{'done   ' if finished[p.run] else 'to run '} {p.name}")
        return summary
    if summary.outcomes:
        say(f"{len(summary.outcomes)} of {len(planned)} cells are done already, {len(missing)} to run.")
    if not missing:
        return summary
    try:
        missing[0].folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KitError(f"The results folder {missing[0].folder.parent} cannot be written: {error.strerror}.") from error
    jobs = max(1, min(jobs or cores(), len(missing)))
    executor = executor or LocalExecutor(jobs, environment(jobs, results, notebooks), timeout)
    drive(executor, missing, summary, say)
    if summary.failed:
        say(f"\n{len(summary.failed)} of {len(planned)} cells failed:")
    for outcome in summary.failed:
        say(f"  {outcome.planned.name}\n    {outcome.reason}\n    {short(outcome.notebook)}")
    if summary.interrupted:
        say(f"Interrupted: {len(summary.folders)} of {len(planned)} cells are done; the same command continues.")
    return summary


def environment(jobs: int, results: Path | str | None = None, notebooks: Path | str | None = None) -> dict[str, str]:
    """Variables for the cells: no progress bars, a fair share of the cores, and where things are."""
    share = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // jobs))
    places = {"MTKD_RESULTS": results, "MTKD_NOTEBOOKS": notebooks}
    return {
        "MTKD_COMMAND": shlex.join(["mtkd", *sys.argv[1:]]),
        "MTKD_PROGRESS": "0",
        "MTKD_HELPERS": "0",
        "OMP_NUM_THREADS": share,  # torch takes the larger of the two, and two cells with a core too many each crawl
        "MKL_NUM_THREADS": share,
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # silences a debugger's warning at every kernel start
        "TOKENIZERS_PARALLELISM": "false",
        **{name: str(Path(place).absolute()) for name, place in places.items() if place},
    }


def drive(executor: Executor, missing: list[Planned], summary: Summary, say: Callable[[str], None]) -> None:
    """Run cells to the end, or until Ctrl-C."""
    bar = tqdm(total=len(missing), unit="cell", disable=not sys.stderr.isatty(), dynamic_ncols=True)
    try:
        waiting = {executor.submit(planned): planned for planned in missing}
        while waiting:
            done, _ = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
            bar.refresh()  # the clock of the bar goes on while a long cell runs
            for future in done:
                planned = waiting.pop(future)
                try:
                    outcome = future.result()
                except (Exception, CancelledError) as error:  # the runner itself failed, say on a full disk: the others go on
                    outcome = Outcome(planned, "failed", 0.0, f"{type(error).__name__}: {error}")
                summary.outcomes.append(outcome)
                bar.update()
                number = f"[{len(missing) - len(waiting)}/{len(missing)}]"
                end = "done" if outcome.status != "failed" else f"FAILED: {outcome.reason}"
                say(f"{number} {outcome.planned.name}  {outcome.seconds:.0f} s  {end}")
    except KeyboardInterrupt:
        summary.interrupted = True
    finally:
        bar.close()
        executor.stop()


def short(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
