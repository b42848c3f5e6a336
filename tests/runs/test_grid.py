"""The runner against real faults: cells that raise, kill their kernel, write nothing, take too long; and Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import psutil
import pytest

from mtkd.errors import KitError
from mtkd.runs import cell, grid, records
from mtkd.runs.gridfiles import expand, read_grid, read_yaml
from mtkd.runs.parameters import check, read_parameters
from mtkd.runs.records import read_record
from mtkd.store.files import write_json_atomic

PARAMETERS = """
tier: str = "demo"           # how much to compute
mode = "good"                # what the notebook does
lr = 1e-3                    # peak learning rate
epochs = 2
members = [0, 1]             # teachers of the ensemble
limit: int | None = None     # at most this many samples
seconds = 0.0
flag = False
"""
WORK = """
import os, sys, time
from types import SimpleNamespace
from mtkd.errors import KitError
cuda = SimpleNamespace(is_available=lambda: False)
sys.modules["torch"] = SimpleNamespace(cuda=cuda, get_num_threads=lambda: 1)  # the record asks; importing takes seconds
with open(os.environ["MTKD_TEST_LOG"], "a") as log:
    log.write(f"{mode} {os.getpid()} {sys.executable}\\n")
time.sleep(seconds)
if mode == "raise":
    raise ZeroDivisionError("nothing to divide by\\nand more words")
if mode == "refuse":
    raise KitError("There is no such task.")
if mode == "kill":
    os.kill(os.getpid(), 9)
"""
RECORD = """
from mtkd.runs.records import finish
if mode != "silent":
    row = {"arm": "tinybert", "task": "toy", "kind": "student", "metric": "accuracy", "score": 0.5}
    parameters = {"tier": tier, "mode": mode, "lr": lr, "epochs": epochs, "members": members, "limit": limit,
                  "seconds": seconds, "flag": flag}
    finish("toy", parameters, [row], [], {}, seeds=[0])
if mode == "late":
    raise RuntimeError("after the record")
"""


def write_notebook(folder: Path, parameters: str = PARAMETERS, name: str = "toy") -> Path:
    cells = [nbformat.v4.new_code_cell(text.strip()) for text in (parameters, WORK, RECORD)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


class Place:
    """A folder with a notebook, grid files, results, and a log of what really ran."""

    def __init__(self, folder: Path):
        self.folder, self.results, self.log = folder, folder / "results", folder / "ran.txt"
        write_notebook(folder / "notebooks")
        self.said: list[str] = []

    def file(self, text: str, name: str = "demo") -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(f"paper: toy\ntier: demo\n{text}\n")
        return path

    def expand(self, text: str, **options) -> list:
        return expand(self.file(text), notebooks=self.folder / "notebooks", **options)

    def run(self, *files: Path, **options) -> grid.Summary:
        self.said.clear()
        options = {"results": self.results, "notebooks": self.folder / "notebooks", "say": self.said.append, **options}
        return grid.run(files, **options)

    def ran(self) -> list[str]:
        return [line.split()[0] for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def place(tmp_path, monkeypatch):
    made = Place(tmp_path)
    monkeypatch.setenv("MTKD_TEST_LOG", str(made.log))
    return made


# Parameters


def test_parameters_are_read_without_running(tmp_path):
    found = read_parameters(write_notebook(tmp_path))
    assert list(found) == ["tier", "mode", "lr", "epochs", "members", "limit", "seconds", "flag"]
    assert [p.type for p in found.values()] == [
        *("str", "str", "float", "int", "list[int]", "int | None", "float", "bool")
    ]
    assert found["lr"].default == 1e-3
    assert found["lr"].help == "peak learning rate"
    assert found["members"].default == [0, 1]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = 1 / 3", "not a plain value"),
        ("import os", "should hold only name = value"),
        ("x = = 1", "is not Python"),
        ("x: int = 'a'", "not of its own type"),
        ("x: Foo = 'a'", "has the type Foo"),
    ],
)
def test_a_parameters_cell_that_cannot_be_read(tmp_path, source, words):
    with pytest.raises(KitError, match=words):
        read_parameters(write_notebook(tmp_path, source))


def test_a_notebook_without_parameters_cell(tmp_path):
    path = tmp_path / "x.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")]), path)
    with pytest.raises(KitError, match="has 0 cells tagged parameters"):
        read_parameters(path)
    path.write_text("no notebook")
    with pytest.raises(KitError, match="cannot be read"):
        read_parameters(path)


def test_types_can_name_values_and_limits(tmp_path):
    source = ("from typing import Annotated, Literal\nfrom annotated_types import Ge\n"
              'pooler: Literal["mean", "cls"] = "mean"\nepochs: Annotated[int, Ge(1)] = 3\nrates: dict[str, float] = {}')
    declared = read_parameters(write_notebook(tmp_path, source))
    good = {"pooler": "cls", "epochs": 1, "rates": {"a": 1.0}}
    assert check(good, declared) == good
    for given, words in (({"pooler": "max"}, "pooler is 'max', a str, where the notebook has Literal['mean', 'cls']."),
                         ({"epochs": 0}, "epochs is 0, a int, where the notebook has Annotated[int, Ge(1)].")):
        with pytest.raises(KitError, match=re.escape(words)):
            check(given, declared)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epoch": 3}, "no parameter 'epoch'; did you mean 'epochs'?"),
        ({"epochs_typo": 3}, "did you mean 'epochs'?"),
        ({"zzz": 3}, "there are tier, mode"),
        ({"epochs": 3.0}, "epochs is 3.0, a float, where the notebook has int"),
        ({"epochs": True}, "epochs is True, a bool"),
        ({"flag": 1}, "flag is 1, a int"),
        ({"lr": "1e-4"}, "lr is '1e-4', a str, where the notebook has float (remove the quotes)"),
        ({"lr": None}, "lr is None"),
        ({"members": 3}, "members is 3"),
        ({"members": [0, "1"]}, "members is [0, '1']"),
        ({"limit": 2.5}, "limit is 2.5"),
        ({"mode": 3}, "mode is 3"),
    ],
)
def test_unknown_and_mistyped_parameters(tmp_path, given, words):
    with pytest.raises(KitError) as caught:
        check(given, read_parameters(write_notebook(tmp_path)))
    assert words in str(caught.value)


def test_values_that_fit(tmp_path):
    declared = read_parameters(write_notebook(tmp_path))
    given = {"lr": 1, "limit": None, "members": (2,), "epochs": 3}
    assert check(given, declared) == {"lr": 1.0, "limit": None, "members": [2], "epochs": 3}
    assert isinstance(check(given, declared)["lr"], float)
    assert check({"limit": 5, "members": []}, declared) == {"limit": 5, "members": []}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E5", 1e5), ("-2e+3", -2e3), ("1.5e-3", 1.5e-3), (".5e1", 5.0), ("3", 3), ("1e4x", "1e4x")],
)
def test_numbers_in_yaml(text, value):
    found = read_yaml(f"lr: {text}")["lr"]
    assert found == value
    assert type(found) is type(value)


# Grid files


def test_expansion(place):
    text = "fixed: {epochs: 1}\ngrid: {lr: [1e-4, 1], mode: [a, b]}"
    cells = place.expand(text)
    assert [(c.parameters["mode"], c.parameters["lr"], c.parameters["epochs"]) for c in cells] == [
        *(("a", 1e-4, 1), ("b", 1e-4, 1), ("a", 1.0, 1), ("b", 1.0, 1))
    ]
    assert cells[0].parameters["members"] == [0, 1]  # defaults are filled in
    assert cells[0].label == 'lr=0.0001 mode="a"'
    assert len(place.expand("fixed: {epochs: 1}")) == 1
    both = place.expand("grid: {lr: [1e-4, 1]}\ncells: [{mode: c, epochs: 9}, {mode: d}]")  # every cell with every combination
    assert [(c.parameters["mode"], c.parameters["epochs"], c.parameters["lr"]) for c in both] == [
        ("c", 9, 1e-4), ("c", 9, 1.0), ("d", 2, 1e-4), ("d", 2, 1.0)]
    assert [c.parameters["mode"] for c in place.expand("cells: [{mode: c}]")] == ["c"]
    assert {c.parameters["epochs"] for c in place.expand(text, overrides={"epochs": 4})} == {4}


def test_duplicate_cells_are_run_once(place):
    file = place.file("grid: {epochs: [1, 2, 1]}")
    found = read_grid(file, notebooks=place.folder / "notebooks")
    assert [c.parameters["epochs"] for c in found.cells] == [1, 2]
    assert "1 of 3 cells are the same" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("grids: {epochs: [1]}", "there is no key 'grids'; did you mean 'grid'?"),
        ("grid: {epochs: []}", "the grid is empty (epochs has no values)"),
        ("grid: {}", "the grid is empty"),
        ("cells: []", "not empty"),
        ("grid: {epochs: 3}", "lists of values"),
        ("fixed: [1]", "fixed should be names with values"),
        ("fixed: {epochs: 1}\ngrid: {epochs: [1]}", "in fixed and in grid"),
        ("cells: [{epochs: 1}]\ngrid: {epochs: [1]}", "in cells and in grid"),
        ("fixed: {epochs: 1, epochs: 2}", "'epochs' is given twice"),
        ("grid: {epochs: [1}", "is not YAML"),
        ("grid: {epochs_typo: [1]}", "did you mean 'epochs'?"),
        ("fixed: {lr: '1e-4'}", "remove the quotes"),
        ("fixed: {tier: paper}", "tier is demo in one place and paper in another"),
        ("exhibits: fig2", "exhibits should be a list"),
    ],
)
def test_wrong_grid_files_start_nothing(place, text, words):
    with pytest.raises(KitError) as caught:
        place.run(place.file("grid: {epochs: [1]}", "good"), place.file(text))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert place.ran() == []
    assert not place.results.exists()


def test_missing_things(place):
    with pytest.raises(KitError, match="cannot be read"):
        place.run(place.folder / "none.yaml")
    with pytest.raises(KitError, match="No grid file"):
        place.run()
    (place.folder / "list.yaml").write_text("- 1")
    with pytest.raises(KitError, match="is not a grid file"):
        place.run(place.folder / "list.yaml")
    (place.folder / "other.yaml").write_text("paper: toys\ntier: demo")
    with pytest.raises(KitError, match=r"no notebook .* did you mean 'toy'"):
        place.run(place.folder / "other.yaml")
    (place.folder / "none.yaml").write_text("tier: demo")
    with pytest.raises(KitError, match="the key paper is missing"):
        place.run(place.folder / "none.yaml")


# Runs


def test_faults_stop_only_their_own_cell_and_a_second_run_does_what_is_missing(place):
    modes = ["good", "raise", "refuse", "kill", "silent", "late"]
    file = place.file(f"grid: {{mode: [{', '.join(modes)}]}}\nfixed: {{lr: 1e-4}}")
    summary = place.run(file, jobs=3)
    assert summary.status == 1
    reasons = {o.planned.cell.parameters["mode"]: o.reason for o in summary.outcomes}
    assert reasons == {
        "good": "",
        "raise": "ZeroDivisionError: nothing to divide by",
        "refuse": "There is no such task.",
        "kill": "its kernel died; it was killed, perhaps for want of memory",
        "silent": "ended without a record of this run",
        "late": "RuntimeError: after the record",
    }
    ending = place.said[-6:]
    assert ending[0] == "\n5 of 6 cells failed:"
    for outcome in summary.failed:
        assert any(outcome.reason in line and outcome.notebook.name in line for line in ending)
        assert outcome.notebook.exists()

    (good,) = summary.folders
    record = read_record(good / "record.json", good.name)
    assert record["parameters"]["lr"] == 1e-4
    assert record["rows"][0]["score"] == 0.5
    assert record["provenance"]["command"].split()[0] == "mtkd"
    assert (good / "toy.ipynb").exists()
    assert not (good / "toy.partial.ipynb").exists()

    before = place.ran()
    assert sorted(before) == sorted(modes)
    again = place.run(place.file("grid: {mode: [good, refuse]}\nfixed: {lr: 1e-4}", "again"))
    assert again.status == 1
    assert place.said[0] == "1 of 2 cells are done already, 1 to run."
    assert place.ran()[len(before) :] == ["refuse"]


def test_kernel_is_this_interpreter_whatever_the_user_has_installed(place, monkeypatch):
    sheet = {"argv": ["/bin/false", "{connection_file}"], "display_name": "Other", "language": "python"}
    write_json_atomic(place.folder / "data" / "kernels" / "python3" / "kernel.json", sheet)
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_PATH"):
        monkeypatch.setenv(name, str(place.folder / "data"))
    assert place.run(place.file("fixed: {mode: good}"), jobs=1).status == 0
    assert place.log.read_text().split()[2] == sys.executable


def test_a_cell_that_takes_too_long_is_killed_with_its_kernel(place):
    summary = place.run(place.file("fixed: {seconds: 600}"), timeout=20)
    assert [o.reason for o in summary.outcomes] == ["took longer than 20 seconds"]
    assert_gone(place.log)


def assert_gone(log: Path) -> None:
    """No kernel that has written to the log is alive."""
    pids = [int(line.split()[1]) for line in log.read_text().splitlines()]
    assert pids
    for _ in range(100):
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
            return
        time.sleep(0.05)
    raise AssertionError("a kernel is still alive")


def start_command(place: Place, file: Path) -> subprocess.Popen:
    """`mtkd run` in a process group of its own, as a terminal would start it: a test run in the background (CI) ignores
    Ctrl-C and its children would inherit that, so the signal is put back to its default."""
    variables = {**os.environ, "MTKD_NOTEBOOKS": str(place.folder / "notebooks")}
    command = [sys.executable, "-m", "mtkd.cli", "run", str(file), "--results", str(place.results), "--jobs", "1"]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True, process_group=0,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def wait_for(place: Place, cells: int) -> None:
    for _ in range(2400):
        if len(place.ran()) >= cells:
            return
        time.sleep(0.05)
    raise AssertionError(f"{place.ran()} after two minutes")


def test_ctrl_c_leaves_no_kernel_and_the_next_run_continues(place):
    file = place.file("grid: {seconds: [0.0, 4.0]}")
    process = start_command(place, file)
    wait_for(place, 2)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Interrupted: 1 of 2 cells are done" in said
    assert_gone(place.log)
    assert not list(place.results.glob("toy/*/record.failed.json"))
    records._package_hash.cache_clear()  # the command has just read the source; this process may have long ago
    summary = place.run(file)
    assert summary.status == 0
    assert place.said[0] == "1 of 2 cells are done already, 1 to run."
    assert len(place.ran()) == 3
    assert place.run(file).status == 0
    assert place.said == ["2 of 2 cells are done already, 0 to run."]
    assert len(place.ran()) == 3


def test_a_killed_runner_leaves_no_kernel(place):
    process = start_command(place, place.file("fixed: {seconds: 60}"))
    wait_for(place, 1)
    process.kill()
    process.wait()
    assert_gone(place.log)


def test_dry_run_starts_nothing(place):
    summary = place.run(place.file("grid: {epochs: [1, 2]}"), dry_run=True)
    assert summary.status == 0
    assert [line.split()[:2] for line in place.said] == [["to", "run"], ["to", "run"]]
    assert "epochs=2" in place.said[1]
    assert place.ran() == []
    assert not place.results.exists()


def test_the_same_cell_in_two_files_runs_once(place):
    first, second = place.file("grid: {epochs: [1, 2]}", "one"), place.file("grid: {epochs: [2, 3]}", "two")
    planned, notes = grid.plan([first, second], results=place.results, notebooks=place.folder / "notebooks")
    assert [p.cell.parameters["epochs"] for p in planned] == [1, 2, 3]
    assert notes == [f"{second}: epochs=2 is also in {first} and runs once."]


# The start-up race


@pytest.mark.parametrize(
    ("failures", "message", "tries"),
    [(2, cell.START_RACE, 3), (3, cell.START_RACE, 3), (1, "Kernel died for another reason", 1)],
)
def test_only_the_start_race_is_retried(tmp_path, monkeypatch, failures, message, tries):
    seen = []

    def execute(source, target, *args, **kwargs):
        seen.append(1)
        if len(seen) <= failures:
            raise RuntimeError(message)
        Path(target).write_text("{}")

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    monkeypatch.setattr(cell, "end_with", lambda parent: None)
    monkeypatch.setattr(cell, "run_id", lambda *a: "r")
    monkeypatch.setenv("JUPYTER_PATH", "")
    (tmp_path / "cell.json").write_text(json.dumps({"paper": "toy", "notebook": "x", "parameters": {}, "run": "r"}))
    good = failures < tries
    assert cell.main(tmp_path) == (0 if good else 1)
    assert len(seen) == tries
    assert (tmp_path / "toy.ipynb").exists() == good
    if not good:
        assert message in json.loads((tmp_path / "failure.json").read_text())["reason"]


def test_a_fault_of_the_runner_itself_is_a_failed_cell(place):
    """A full disk while a cell is started must not end the others."""

    class Broken:
        def submit(self, planned):
            future = grid.Future()
            future.set_exception(OSError(28, "No space left on device"))
            return future

        def stop(self):
            pass

    summary = place.run(place.file("grid: {epochs: [1, 2]}"), executor=Broken())
    assert summary.status == 1
    assert {o.reason for o in summary.failed} == {"OSError: [Errno 28] No space left on device"}


def test_a_file_that_changed_since_the_grid_began_stops_the_cell(tmp_path, monkeypatch):
    monkeypatch.setattr(cell, "end_with", lambda parent: None)
    (tmp_path / "cell.json").write_text(json.dumps({"paper": "toy", "notebook": "x", "parameters": {}, "run": "r"}))
    assert cell.main(tmp_path) == 1
    assert "has changed since `mtkd run` began" in json.loads((tmp_path / "failure.json").read_text())["reason"]
