"""Every committed grid file expands, names exhibits that exist, and makes an experiment that can be built."""

from pathlib import Path

import pytest

from mtkd import papers
from mtkd.gridfiles import read_grid
from mtkd.papers.seed_ensemble_run import from_parameters
from mtkd.records import repo_root

FILES = sorted((repo_root() / "params").rglob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_grid_file(file: Path):
    grid = read_grid(file)
    known = {entry.id for entry in papers.all_exhibits()}
    assert grid.cells
    assert grid.exhibits
    assert set(grid.exhibits) <= known
    for cell in grid.cells:
        experiment = from_parameters(cell.parameters)
        assert experiment.arm == cell.parameters["arm"]
        if cell.parameters["tier"] == "paper" and "fig" in file.stem:
            assert experiment.n_teachers == 6


def test_every_exhibit_of_a_working_paper_has_a_grid_file():
    own = [file for file in FILES if file.parent.name == "seed_ensemble" and file.stem.startswith(("table", "fig"))]
    made = {exhibit for file in own for exhibit in read_grid(file).exhibits}
    assert made == {entry.id for entry in papers.all_exhibits() if entry.paper == "seed_ensemble"}
