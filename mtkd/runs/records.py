"""The record of a run: what a notebook's last cell writes, and what alone counts as the run having succeeded.

    finish("seed_ensemble", parameters, rows, data, timing, seeds=[0, 1, 2])

writes results/runs/<paper>/<run id>/record.json in one step. The run id is a hash of all that can change the outcome:
parameters, the notebook's code, mtkd's source and the lock. Under `mtkd run` the id and the folder come from outside
(environment variables MTKD_RUN_ID, MTKD_RUN_FOLDER, MTKD_COMMAND); by hand they are computed here.
"""

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
import tomllib
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from mtkd.errors import KitError
from mtkd.store.files import canonical, content_hash, folder_hash, hash_sources, plain, text_hash, write_json_atomic

SCHEMA = 1
LIBRARIES = ("torch", "transformers", "datasets", "mtkd")
ROW_KEYS = ("arm", "task", "kind", "metric", "score")  # without these a row cannot be shown anywhere

# What may differ between two runs with the same parameters and seeds on one machine: time, energy and memory, and when,
# by whom and from which commit it was asked for.
VOLATILE = (
    *("timing", "time", "energy_kwh", "co2_kg", "peak_memory_mib", "samples_per_second", "speed"),
    *("created", "command", "commit", "dirty"),
)


@cache
def repo_root() -> Path:
    """The folder of this repository (its pyproject.toml names mtkd), seen from the package, else from the caller's
    folder; the caller's folder itself where the package is installed without its repository."""
    here = Path.cwd()
    for folder in [*Path(__file__).resolve().parents, here, *here.parents]:
        try:
            if tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"] == "mtkd":
                return folder
        except (OSError, ValueError, KeyError):
            continue
    return here


def runs_folder() -> Path:
    """Where records land: environment variable MTKD_RESULTS, else results/runs of the repository."""
    return Path(os.environ.get("MTKD_RESULTS") or repo_root() / "results" / "runs").absolute()


def notebooks_folder() -> Path:
    """Where notebooks are: environment variable MTKD_NOTEBOOKS, else notebooks/ of the repository."""
    return Path(os.environ.get("MTKD_NOTEBOOKS") or repo_root() / "notebooks").absolute()


def run_id(paper: str, parameters: dict, notebook: Path | str) -> str:
    """16 hex digits that name a run: full parameters, what lies in the files and folders that they name, the notebook's code
    cells, mtkd's source and the lock.

    Prose and outputs of the notebook do not count, so a corrected sentence repeats nothing.
    """
    try:
        cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except FileNotFoundError:  # a copy under another name, run by hand
        code = []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KitError(f"The notebook {notebook} cannot be read: {error}.") from error
    lock = repo_root() / "requirements.lock"
    packages = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    parts = {"paper": paper, "parameters": plain(parameters, "parameters"), "code": code, "lock": packages}
    if read := contents(parameters):
        parts["content"] = read
    return text_hash(canonical({**parts, "source": _package_hash()}))[:16]


def contents(value) -> list[list[str]]:
    """What a run reads by name: every file or folder that a parameter names (a table, "finished:FOLDER", "bottom-2 of FOLDER",
    "... with FILE", a hub id in the mirror), each with a hash of its content. Relative names count from the repository's root,
    where cells run."""
    if isinstance(value, dict):
        return sorted(entry for item in value.values() for entry in contents(item))
    if isinstance(value, list | tuple):
        return sorted(entry for item in value for entry in contents(item))
    if not isinstance(value, str) or not value:
        return []
    inner = value.removeprefix("finished:")
    names = {inner, *(part.partition(" + ")[0] for word in (" of ", " with ") for part in (inner, inner.rpartition(word)[2]))}
    found = []
    for name in sorted(names):
        mirror = [Path(os.environ["MTKD_HUB"]) / name] if os.environ.get("MTKD_HUB") else []
        places = [repo_root() / Path(name).expanduser(), *mirror]
        with contextlib.suppress(OSError):  # a name too long for a path, say
            place = next((p for p in places if p.exists()), None)
            if place is not None and not (place.is_dir() and place == repo_root()):
                found.append([name, content_hash(place) if place.is_file() else folder_hash(place)])
    return found


def provenance(command: str, seeds: list[int]) -> dict:
    """Where numbers come from: command, commit, time, seeds, hardware, threads and versions."""
    import torch

    commit, dirty = git_state()
    return {
        "command": command,
        "commit": commit,
        "dirty": dirty,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": list(seeds),
        "hardware": {
            "cpu": cpu_name(),
            "cores": cores(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        },
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in LIBRARIES}},
    }


def finish(paper: str, parameters: dict, rows: list[dict], data: list[dict], timing: dict, seeds: list[int]) -> Path:
    """Write the record of the run that this notebook is, and return its path; a notebook's last cell calls it.

    `parameters` are all of the notebook's, `rows` and `data` as the README describes them, `timing` holds wall_s,
    energy_kwh, co2_kg and peak_memory_mib (the process's own wall time and peak memory where it lacks them). KitError
    where a row lacks one of ROW_KEYS or anything is not plain data, such as NaN.
    """
    run = os.environ.get("MTKD_RUN_ID") or run_id(paper, parameters, notebooks_folder() / f"{paper}.ipynb")
    if not rows:
        raise KitError(f"The run {run} of {paper} has no rows to record.")
    for number, row in enumerate(rows):
        if missing := [name for name in ROW_KEYS if name not in row]:
            raise KitError(f"Row {number} of the record lacks {', '.join(missing)}.")
    path = Path(os.environ.get("MTKD_RUN_FOLDER") or runs_folder() / paper / run) / "record.json"
    peak = getattr(psutil.Process().memory_info(), "peak_wset", 0) / 2**20  # Windows, which has no module `resource`
    if not peak:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    own = {"wall_s": round(time.time() - psutil.Process().create_time(), 1), "energy_kwh": None, "co2_kg": None,
           "peak_memory_mib": round(peak, 1)}
    asked = os.environ.get("MTKD_COMMAND") or "notebook"
    try:
        write_json_atomic(path, {
            "schema": SCHEMA, "run": run, "paper": paper, "tier": parameters.get("tier", "demo"), "parameters": parameters,
            "provenance": provenance(asked, seeds), "timing": {**own, **timing}, "rows": rows, "data": data})
    except OSError as error:
        raise KitError(f"The record {path} cannot be written: {error.strerror}.") from error
    return path


def read_record(path: Path | str, run: str | None = None) -> dict | None:
    """The record at `path`; None where there is none, it is damaged, or it is of another run than `run`."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        right = record["schema"] == SCHEMA and record["rows"] and (run is None or record["run"] == run)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if right else None


def stable_view(record: dict) -> dict:
    """The record without what may differ between equal runs (VOLATILE), at any depth: for comparing two of them.

    >>> stable_view({"score": 0.7, "time": {"train_s": 3.2}, "provenance": {"seeds": [0], "created": "today"}})
    {'score': 0.7, 'provenance': {'seeds': [0]}}
    """
    if isinstance(record, dict):
        return {name: stable_view(value) for name, value in record.items() if name not in VOLATILE}
    return [stable_view(value) for value in record] if isinstance(record, list) else record


def version_of(name: str) -> str | None:
    with contextlib.suppress(PackageNotFoundError):
        return version(name)


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _package_hash() -> str:
    return hash_sources(Path(__file__).parents[1])


def git_state() -> tuple[str | None, bool]:
    """The commit checked out, and whether what a run depends on differs from it; (None, False) without a checkout."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(repo_root()), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != repo_root().resolve():
            return None, False
        places = ("mtkd", "notebooks", "params", "pyproject.toml", "requirements.lock")
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", *places))
    except (OSError, subprocess.SubprocessError):
        return None, False


def cpu_name() -> str:
    with contextlib.suppress(OSError, StopIteration):
        return next(line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                    if line.startswith("model name"))
    return platform.processor() or platform.machine()
