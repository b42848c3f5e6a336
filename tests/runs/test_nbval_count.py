"""The counter of compared cells fails exactly where nbval would pass over nothing."""

import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[2]


def write(path: Path, cells: int, count: int | None, marker: str = "# NBVAL_CHECK_OUTPUT") -> None:
    output = nbformat.v4.new_output("stream", name="stdout", text="1\n")
    code = [
        nbformat.v4.new_code_cell(f"{marker}\nprint(1)", execution_count=count, outputs=[output] if count else [])
        for _ in range(cells)
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=code), path)


def check(folder: Path) -> tuple[int, str]:
    """Exit status and output of nbval with the counter."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.nbval_count", "-p", "no:cacheprovider"]
    command += ["--nbval-lax", "--nbval-current-env", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done.returncode, done.stdout


def test_enough_cells_compared(tmp_path):
    write(tmp_path / "enough.ipynb", 8, 1)
    status, said = check(tmp_path)
    assert status == 0, said
    assert "enough.ipynb: 8 cells compared" in said
    assert "are needed" not in said


def test_cells_that_nbval_passes_over_do_not_count(tmp_path):
    write(tmp_path / "few.ipynb", 7, 1)
    write(tmp_path / "unmarked.ipynb", 9, 1, marker="# looks like any other")
    write(tmp_path / "never_run.ipynb", 9, None)
    status, said = check(tmp_path)
    assert status == 1, said
    assert "25 passed" in said
    for name, number in (("few", 7), ("unmarked", 0), ("never_run", 0)):
        assert f"{name}.ipynb: {number} cells compared" in said
        assert f"{name}.ipynb: at least 8 are needed" in said
