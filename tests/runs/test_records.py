"""Records: identity of runs, provenance, atomic writing, and the view in which equal runs are equal."""

import json
import subprocess
from pathlib import Path

import nbformat
import numpy as np
import pytest

from mtkd.errors import KitError
from mtkd.runs import records
from mtkd.runs.records import finish, provenance, read_record, repo_root, run_id, runs_folder, stable_view

ROW = {"arm": "tinybert", "task": "toy", "kind": "student", "metric": "accuracy", "score": 0.5, "members": (0, 2)}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A results folder and a notebooks folder, as by hand: no runner."""
    for name in ("MTKD_RUN_ID", "MTKD_RUN_FOLDER", "MTKD_COMMAND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MTKD_RESULTS", str(tmp_path / "runs"))
    monkeypatch.setenv("MTKD_NOTEBOOKS", str(tmp_path))
    write(tmp_path / "toy.ipynb", "x = 1")
    return tmp_path


def write(path: Path, code: str, prose: str = "Words.", output: str = "") -> None:
    cell = nbformat.v4.new_code_cell(code)
    if output:
        cell.outputs = [nbformat.v4.new_output("stream", text=output)]
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(prose), cell]), path)


def test_where_things_are(monkeypatch, tmp_path):
    assert repo_root() == Path(__file__).parents[2]
    monkeypatch.delenv("MTKD_RESULTS", raising=False)
    assert runs_folder() == repo_root() / "results" / "runs"
    monkeypatch.setenv("MTKD_RESULTS", str(tmp_path))
    assert runs_folder() == tmp_path


def test_run_id_sees_all_that_can_change_the_outcome(place, monkeypatch):
    notebook = place / "toy.ipynb"
    first = run_id("toy", {"a": 1, "b": (2, 3)}, notebook)
    assert len(first) == 16
    assert run_id("toy", {"b": [2, 3], "a": 1}, notebook) == first
    write(notebook, "x = 1", prose="Other words.", output="1")
    assert run_id("toy", {"a": 1, "b": (2, 3)}, notebook) == first  # prose and outputs change nothing
    others = {run_id("toy", {"a": 2, "b": (2, 3)}, notebook), run_id("toys", {"a": 1, "b": (2, 3)}, notebook)}
    write(notebook, "x = 2")
    others.add(run_id("toy", {"a": 1, "b": (2, 3)}, notebook))
    write(notebook, "x = 1")
    assert run_id("toy", {"a": 1, "b": (2, 3)}, notebook) == first
    monkeypatch.setattr(records, "_package_hash", lambda: "other source")
    others.add(run_id("toy", {"a": 1, "b": (2, 3)}, notebook))
    monkeypatch.undo()
    (place / "requirements.lock").write_text("torch==0")
    monkeypatch.setattr(records, "repo_root", lambda: place)
    others.add(run_id("toy", {"a": 1, "b": (2, 3)}, notebook))
    assert len(others) == 5
    assert first not in others


def test_a_record_by_hand(place):
    path = finish("toy", {"tier": "small", "seeds": (0, 1)}, [ROW], [], {"wall_s": 3.0}, seeds=[0, 1])
    run = run_id("toy", {"tier": "small", "seeds": [0, 1]}, place / "toy.ipynb")
    assert path == place / "runs" / "toy" / run / "record.json"
    record = read_record(path, run)
    assert set(record) == {"schema", "run", "paper", "tier", "parameters", "provenance", "timing", "rows", "data"}
    assert (record["schema"], record["run"], record["paper"], record["tier"]) == (1, run, "toy", "small")
    assert record["parameters"] == {"tier": "small", "seeds": [0, 1]}
    assert record["rows"] == [{**ROW, "members": [0, 2]}]
    assert record["provenance"]["command"] == "notebook"
    assert record["timing"]["wall_s"] == 3.0
    assert record["timing"]["energy_kwh"] is None
    assert 50 < record["timing"]["peak_memory_mib"] < 100_000


def test_a_record_under_the_runner(place, monkeypatch):
    monkeypatch.setenv("MTKD_RUN_ID", "0123456789abcdef")
    monkeypatch.setenv("MTKD_RUN_FOLDER", str(place / "here"))
    monkeypatch.setenv("MTKD_COMMAND", "mtkd run x.yaml")
    path = finish("toy", {}, [ROW], [], {}, seeds=[0])
    assert path == place / "here" / "record.json"
    assert read_record(path)["provenance"]["command"] == "mtkd run x.yaml"
    assert read_record(path, "0123456789abcdef")
    assert read_record(path, "another") is None


def test_records_that_say_nothing_are_refused(place):
    with pytest.raises(KitError, match="no rows"):
        finish("toy", {}, [], [], {}, seeds=[0])
    with pytest.raises(KitError, match="Row 1 of the record lacks task, score"):
        finish("toy", {}, [ROW, {"arm": "a", "kind": "student", "metric": "m"}], [], {}, seeds=[0])
    with pytest.raises(KitError, match=r"rows\[0\]\.score is nan"):
        finish("toy", {}, [{**ROW, "score": float("nan")}], [], {}, seeds=[0])
    assert not list(place.glob("runs/**/record.json"))


def test_a_folder_that_cannot_be_written(place, monkeypatch):
    (place / "file").write_text("")
    monkeypatch.setenv("MTKD_RESULTS", str(place / "file"))
    with pytest.raises(KitError, match="cannot be written"):
        finish("toy", {}, [ROW], [], {}, seeds=[0])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"schema": 2, "run": "r", "rows": [1]}'])
def test_damaged_records_are_no_records(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    assert read_record(tmp_path / "record.json") is None
    assert read_record(tmp_path / "none.json") is None


def test_provenance():
    found = provenance("mtkd run x.yaml", [0, np.int64(1)])
    assert found["command"] == "mtkd run x.yaml"
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["memory_gib"] > 0.1
    assert found["hardware"]["cpu"]
    assert found["threads"] >= 1
    assert set(found["versions"]) == {"python", "torch", "transformers", "datasets", "mtkd"}
    assert all(found["versions"].values())


def test_commit_and_dirt(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "repo_root", lambda: tmp_path)
    assert records.git_state() == (None, False)

    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init")
    assert records.git_state() == (None, False)  # no commit yet
    (tmp_path / "mtkd").mkdir()
    (tmp_path / "mtkd" / "a.py").write_text("x = 1")
    git("add", ".")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "out.json").write_text("{}")  # what runs leave behind is not dirt
    assert records.git_state() == (commit, False)
    (tmp_path / "mtkd" / "b.py").write_text("y = 1")
    assert records.git_state() == (commit, True)
    monkeypatch.setattr(records, "repo_root", lambda: tmp_path / "mtkd")  # another project's repository around ours
    assert records.git_state() == (None, False)


def test_equal_runs_look_equal(place):
    def record(seconds: float, score: float) -> dict:
        row = {**ROW, "score": score, "time": {"train_s": seconds}, "energy_kwh": seconds}
        path = finish("toy", {"tier": "demo"}, [row], [], {"wall_s": seconds}, seeds=[0])
        return json.loads(path.read_text())

    first, second, other = record(1.0, 0.5), record(2.0, 0.5), record(2.0, 0.6)
    second["provenance"]["created"] = "another day"
    assert first != second
    assert json.dumps(stable_view(first)) == json.dumps(stable_view(second))
    assert stable_view(second) != stable_view(other)
    assert stable_view(first)["provenance"]["seeds"] == [0]
    assert "timing" not in stable_view(first)


def test_run_id_sees_what_lies_in_the_files_that_parameters_name(place, monkeypatch, tmp_path):
    notebook, teacher, table = place / "toy.ipynb", tmp_path / "ft", tmp_path / "reviews.csv"
    teacher.mkdir()
    (teacher / "model.safetensors").write_bytes(b"weights")
    table.write_text("text,label\ngood,1\n")

    def name() -> str:
        teachers = [f"finished:{teacher}", f"bottom-1 of {teacher} + mean"]
        return run_id("toy", {"task": str(table), "teachers": teachers}, notebook)

    seen = {name()}
    table.write_text("text,label\ngood,0\n")
    seen.add(name())
    (teacher / "model.safetensors").write_bytes(b"others.")
    seen.add(name())
    (teacher / "model.safetensors").write_bytes(b"weights")
    table.write_text("text,label\ngood,1\n")
    assert len(seen) == 3
    assert name() in seen
