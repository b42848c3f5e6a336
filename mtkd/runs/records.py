"""The record of a run: what a notebook's last cell writes, and what alone counts as the run having succeeded.

    finish("seed_ensemble", parameters, rows, data, timing, seeds=[0, 1, 2])

writes results/runs/<paper>/<run id>/record.json in one step. The run id is a hash of all that can change the outcome:
parameters, the notebook's code, mtkd's source and the lock. Under `mtkd run` the id and the folder come from outside
(environment variables MTKD_RUN_ID, MTKD_RUN_FOLDER, MTKD_COMMAND); by hand they are computed here.
"""

import json
import os
import platform
import resource
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
from mtkd.store.files import canonical, hash_sources, plain, text_hash, write_json_atomic

SCHEMA = 1
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
    """16 hex digits that name a run: full parameters, the notebook's code cells, mtkd's source and the lock.

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
    return text_hash(canonical({**parts, "source": _package_hash()}))[:16]


def provenance(command: str, seeds: list[int]) -> dict:
    """Where numbers come from: command, commit, time, seeds, hardware, threads and versions."""
    import torch

    commit, dirty = _git_state()
    return {
        "command": command,
        "commit": commit,
        "dirty": dirty,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": list(seeds),
        "hardware": {
            "cpu": _cpu_name(),
            "cores": cores(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        },
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _LIBRARIES}},
    }


def finish(paper: str, parameters: dict, rows: list[dict], data: list[dict], timing: dict, seeds: list[int]) -> Path:
    """Write the record of the run that this notebook is, and return its path; a notebook's last cell calls it.

    `parameters` are all of the notebook's, `rows` and `data` as the README describes them, `timing` holds wall_s,
    energy_kwh, co2_kg and peak_memory_mib (the process's own wall time and peak memory where it lacks them). KitError
    where a row lacks one of ROW_KEYS or anything is not plain data, such as NaN.
    """
    run = os.environ.get("MTKD_RUN_ID") or run_id(paper, parameters, notebooks_folder() / f"{paper}.ipynb")
    folder = Path(os.environ.get("MTKD_RUN_FOLDER") or runs_folder() / paper / run)
    record = {
        "schema": SCHEMA,
        "run": run,
        "paper": paper,
        "tier": parameters.get("tier", "demo"),
        "parameters": parameters,
        "provenance": provenance(os.environ.get("MTKD_COMMAND") or "notebook", seeds),
        "timing": {**_own_timing(), **timing},
        "rows": rows,
        "data": data,
    }
    return write_record(record, folder)


def write_record(record: dict, folder: Path) -> Path:
    """Check a record and write it to `folder`/record.json in one step."""
    if not record["rows"]:
        raise KitError(f"The run {record['run']} of {record['paper']} has no rows to record.")
    for number, row in enumerate(record["rows"]):
        if missing := [name for name in ROW_KEYS if name not in row]:
            raise KitError(f"Row {number} of the record lacks {', '.join(missing)}.")
    path = folder / "record.json"
    try:
        write_json_atomic(path, record)
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


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_LIBRARIES = ("torch", "transformers", "datasets", "mtkd")


@cache
def _package_hash() -> str:
    return hash_sources(Path(__file__).parents[1])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_state() -> tuple[str | None, bool]:
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


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _own_timing() -> dict:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, but bytes on macOS
    return {
        "wall_s": round(time.time() - psutil.Process().create_time(), 1),
        "energy_kwh": None,
        "co2_kg": None,
        "peak_memory_mib": round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1),
    }
