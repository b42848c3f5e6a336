"""Every committed grid file expands, names exhibits that exist, and makes an experiment that can be built."""

from importlib import import_module
from pathlib import Path

import pytest

from mtkd import papers
from mtkd.runs.gridfiles import read_grid
from mtkd.runs.records import repo_root

FILES = sorted(file for paper in papers.PAPERS for file in (repo_root() / "params" / paper).glob("*.yaml"))
WORKING = [paper for paper in papers.PAPERS if papers.module(paper) is not None]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_grid_file(file: Path):
    grid = read_grid(file)
    known = {entry.id for entry in papers.all_exhibits() if entry.paper == grid.paper}
    assert grid.cells
    assert grid.exhibits
    assert set(grid.exhibits) <= known
    from_parameters = import_module(f"mtkd.papers.{grid.paper}_study").from_parameters
    for cell in grid.cells:
        experiment = from_parameters(cell.parameters)
        assert experiment.task == cell.parameters["task"]
        assert cell.parameters["tier"] == grid.tier


@pytest.mark.parametrize("paper", WORKING)
def test_every_exhibit_of_a_working_paper_has_a_grid_file(paper):
    own = [file for file in FILES if file.parent.name == paper]
    assert {"demo.yaml", "small.yaml", "own.yaml"} <= {file.name for file in own}
    made = {exhibit for file in own for exhibit in read_grid(file).exhibits if read_grid(file).tier == "paper"}
    assert made == {entry.id for entry in papers.all_exhibits() if entry.paper == paper}


@pytest.mark.parametrize("file", [f for f in FILES if f.parent.name == "seed_ensemble" and f.stem.startswith("fig")],
                         ids=lambda f: f.stem)
def test_the_figures_of_seed_ensemble_have_six_teachers(file):
    assert {cell.parameters["n_teachers"] for cell in read_grid(file).cells} == {6}
