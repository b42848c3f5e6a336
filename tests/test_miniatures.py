"""Miniatures have what the grids for GPUs ask of the hub: every data set loads, every checkpoint is of its family."""

import glob
from pathlib import Path

import pytest
import torch

from mtkd import miniatures
from mtkd.data.tasks import load_task
from mtkd.errors import KitError
from mtkd.models.grammar import RESNET, root
from mtkd.models.names import build
from mtkd.runs.gridfiles import read_grid
from mtkd.runs.records import repo_root

FILES = sorted(glob.glob(str(repo_root() / "params" / "*" / "*.yaml")))


@pytest.fixture(scope="module")
def cells():
    every = [cell.parameters for file in FILES for cell in read_grid(file, first=1).cells]
    return [parameters for parameters in every if parameters.get("tier") == "paper"]


@pytest.fixture
def place(cells, tmp_path, monkeypatch):
    for task in miniatures.named(cells, miniatures.TASKS):
        miniatures.write_task(task, tmp_path)
    for name, where in miniatures.write([], tmp_path).items():
        monkeypatch.setenv(name, where)
    return tmp_path


def test_every_data_set_of_the_paper_tier_loads(cells, place):
    tasks = miniatures.named(cells, miniatures.TASKS)
    assert len(tasks) > 10
    for name in tasks:
        task = load_task(name)
        assert len(task.splits["train"]) >= 40, name
        assert task.regression or len(set(task.splits["train"].labels.tolist()) - {-1}) > 1 or task.kind == "span", name


def test_every_family_of_the_paper_tier_is_itself(cells, place):
    ids = {checkpoint for name in miniatures.named(cells, miniatures.MODELS)
           if not RESNET.fullmatch(name) and (checkpoint := root(name))}
    kinds = {miniatures.family(name): name for name in sorted(ids)}
    assert {"bert", "roberta", "xlnet", "albert", "deberta", "deberta-v3", "mpnet", "distilbert"} <= {kind for kind, _ in kinds}
    for (kind, layers), name in kinds.items():
        miniatures.write_model(name, place / "hub")
        network = build(f"bottom-2 of {name}", 3, seed=0)
        assert network.hf.config.model_type == kind.replace("deberta-v3", "deberta-v2"), name
        assert layers >= 4
        assert sum(p.numel() for p in network.parameters()) < 500_000
        assert all(torch.isfinite(p).all() for p in network.parameters())


def test_a_data_set_without_a_miniature_is_named(tmp_path):
    with pytest.raises(KitError, match="no miniature of the data set 'imagenet'"):
        miniatures.write_task("imagenet", tmp_path)
    own = tmp_path / "own.csv"
    own.write_text("text,label\n", encoding="utf-8")
    miniatures.write_task(str(own), tmp_path)
    assert list(Path(tmp_path).iterdir()) == [own]
