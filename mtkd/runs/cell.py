"""One cell of a grid, run by papermill in a process of its own.

`run_cell` is the caller's side: it starts `python -m mtkd.runs.cell`, waits, kills the whole tree on a timeout, and judges.
A run has succeeded if that process ended with status 0 *and* left a record that carries the run's id. Nothing else
counts: after a killed kernel the saved notebook calls every cell completed.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock

from mtkd.errors import KitError
from mtkd.runs.gridfiles import Cell
from mtkd.runs.records import read_record, repo_root, run_id
from mtkd.store.files import write_json_atomic

START_RACE = "Kernel died before replying to kernel_info"  # several kernels that start at once may take the same port
RETRIES = 2


@dataclass(frozen=True)
class Planned:
    """A cell of a grid with its run id and the folder of its record."""

    cell: Cell
    run: str
    folder: Path

    @property
    def name(self) -> str:
        """What the user is told of: paper, run id and what varies."""
        return f"{self.cell.paper} {self.run} {self.cell.label}".rstrip()

    @property
    def notebook(self) -> Path:
        """The executed notebook; until it is whole its name ends in .partial.ipynb."""
        return self.folder / f"{self.cell.paper}.ipynb"

    @property
    def finished(self) -> bool:
        """Whether a valid record of this run is there."""
        return read_record(self.folder / "record.json", self.run) is not None


@dataclass(frozen=True)
class Outcome:
    """How a cell ended: status "done", "reused" (nothing was left to do) or "failed", with the reason."""

    planned: Planned
    status: str
    seconds: float = 0.0
    reason: str = ""

    @property
    def notebook(self) -> Path:
        """The notebook as far as it came, or the log where there is no notebook."""
        whole = self.planned.notebook
        places = (whole.with_suffix(".partial.ipynb"), whole, self.planned.folder / "log.txt")
        return next((path for path in places if path.exists()), self.planned.folder)


def run_cell(planned: Planned, environment: dict[str, str], timeout: float | None = None,
             started: Callable[[subprocess.Popen], None] = lambda process: None) -> Outcome:
    """Run one cell to its end and judge it; `started` is told of the process, for a caller that may have to kill it."""
    if planned.finished:
        return Outcome(planned, "reused")
    begin, folder, cell = time.monotonic(), planned.folder, planned.cell
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "failure.json").unlink(missing_ok=True)
    write_json_atomic(folder / "cell.json", {"paper": cell.paper, "notebook": str(cell.notebook),
                                             "parameters": cell.parameters, "run": planned.run})
    variables = {**os.environ, **environment, "MTKD_RUN_ID": planned.run, "MTKD_RUN_FOLDER": str(folder)}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mtkd.runs.cell", str(folder)], env=variables, cwd=repo_root(), stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True)  # Ctrl-C reaches the caller alone, who then stops the cells in order
        try:
            started(process)
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            kill_tree(process)
    reason = judge(planned, status, timeout)
    return Outcome(planned, "failed" if reason else "done", time.monotonic() - begin, reason)


def kill_tree(process: subprocess.Popen) -> None:
    """Kill a process with all that it started; a kernel has a session of its own, so a process group is not enough."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if process.poll() is None:
            kill_below(process.pid)
            process.kill()
            process.wait()


def kill_below(pid: int) -> None:
    """Kill all descendants of a process."""
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def judge(planned: Planned, status: int | None, timeout: float | None) -> str:
    """Why a run failed; empty if it succeeded."""
    if status is None:
        return f"took longer than {timeout:g} seconds"
    if status == 0:
        return "" if planned.finished else "ended without a record of this run"
    if status < 0:
        hint = ", perhaps for want of memory" if -status == signal.SIGKILL else ""
        return f"its process was killed by signal {-status} ({signal.Signals(-status).name}){hint}"
    try:
        return json.loads((planned.folder / "failure.json").read_text(encoding="utf-8"))["reason"]
    except (OSError, ValueError, KeyError):
        lines = (planned.folder / "log.txt").read_text(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else f"ended with status {status}"


def main(folder: Path) -> int:
    """The cell's own process: run the notebook that `folder`/cell.json names; 0, or 1 with failure.json beside it."""
    asked = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
    record = folder / "record.json"
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    if run_id(asked["paper"], asked["parameters"], asked["notebook"]) != asked["run"]:
        reason = "the kit's code, the notebook or a file that the run reads has changed since `mtkd run` began: run it again"
        write_json_atomic(folder / "failure.json", {"reason": reason})
        return 1
    with FileLock(folder / ".lock"):  # two runners that want the same run make it once
        if read_record(record, asked["run"]):
            return 0
        record.unlink(missing_ok=True)
        point_python3_here(folder / ".jupyter")
        try:
            execute(asked, folder)
        except Exception as error:
            if record.exists():  # written, but something failed after it
                record.replace(folder / "record.failed.json")
            write_json_atomic(folder / "failure.json", {"reason": reason_of(error)})
            print(error, file=sys.stderr)
            return 1
        finally:
            shutil.rmtree(folder / ".jupyter", ignore_errors=True)
    return 0


def execute(asked: dict, folder: Path) -> None:
    import papermill

    final = folder / f"{asked['paper']}.ipynb"
    partial = final.with_suffix(".partial.ipynb")
    for attempt in range(RETRIES + 1):
        try:
            papermill.execute_notebook(asked["notebook"], str(partial), asked["parameters"], kernel_name="python3",
                                       language="python", progress_bar=False, cwd=str(repo_root()))
            break
        except RuntimeError as error:
            if START_RACE not in str(error) or attempt == RETRIES:
                raise
            print(f"{START_RACE}: try {attempt + 2} of {RETRIES + 1}", file=sys.stderr)
    partial.replace(final)


def reason_of(error: Exception) -> str:
    """One line that says why a notebook failed; the sentence alone where the kit itself has refused something."""
    name = getattr(error, "ename", type(error).__name__)
    words = str(getattr(error, "evalue", error)).strip()
    if name == "DeadKernelError":
        return "its kernel died; it was killed, perhaps for want of memory"
    if name == KitError.__name__:
        return " ".join(words.split())
    return f"{name}: {words.splitlines()[0]}"[:300] if words else name


def point_python3_here(folder: Path) -> None:
    """Make the kernel name python3 mean this interpreter, whatever kernels of that name a user has installed.

    JUPYTER_PATH is searched before the user's and the system's folders.
    """
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    sheet = {"argv": argv, "display_name": "Python 3 (ipykernel)", "language": "python"}
    write_json_atomic(folder / "kernels" / "python3" / "kernel.json", sheet)
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("JUPYTER_PATH")]))


def end_with(parent: int) -> None:
    """End this process and its kernel once the process that started it is gone, killed perhaps without a word."""
    while os.getppid() == parent:
        time.sleep(0.5)
    with contextlib.suppress(psutil.Error):
        kill_below(os.getpid())
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
