"""Helper processes: they fill the same store from the other end, and end with the notebook."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtkd.runs import helpers
from mtkd.runs.gridfiles import expand
from mtkd.runs.records import repo_root
from mtkd.store.artifacts import Store

RESNET = {"arm": "resnet", "task": "digits", "teacher": "resnet-8w4", "student": "resnet-8w4", "optimiser": "sgd",
          "teacher_epochs": 1, "student_epochs": 1, "train_size": 64, "validation_size": 0, "test_size": 0,
          "teacher_lr": 0.1, "student_lr": 0.1, "pools": [0], "n_teachers": 2,
          "augmentation": 0, "weak_teachers": "mark"}


@pytest.fixture
def parameters():
    demo = expand(repo_root() / "params" / "seed_ensemble" / "demo.yaml")[0].parameters
    return {**demo, **RESNET}


def test_wanted(monkeypatch):
    monkeypatch.setenv("MTKD_HELPERS", "2")
    assert helpers.wanted() == 2
    monkeypatch.delenv("MTKD_HELPERS")
    assert 0 <= helpers.wanted() <= 3


def test_a_helper_makes_the_models_that_the_notebook_then_finds(parameters, monkeypatch):
    monkeypatch.setenv("MTKD_HELPERS", "1")
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    assert helpers.with_helpers("mtkd.papers.seed_ensemble_study", parameters) == 1
    assert started[0].wait(timeout=120) == 0
    from mtkd.papers.seed_ensemble_study import from_parameters

    experiment = from_parameters(parameters)
    assert Store().usage()["model"]["artifacts"] > 4
    rows = [row for row in experiment.result_rows(0) if row["kind"] == "student"]
    assert len(rows) == 4
    assert all(model.reused for model in experiment.teacher_set(0))


def test_a_helper_does_not_outlive_its_parent(parameters):
    parameters = {**parameters, "pools": list(range(40))}  # far more than it can do in the time
    code = ("import subprocess, sys, json; from mtkd.runs import helpers; helpers.atexit.register = lambda *a: None\n"
            "p = helpers.subprocess.Popen; made = []\n"
            "helpers.subprocess.Popen = lambda *a, **k: made.append(p(*a, **k)) or made[-1]\n"
            "helpers.with_helpers('mtkd.papers.seed_ensemble_study', json.loads(sys.argv[1])); print(made[0].pid)")
    ran = subprocess.run([sys.executable, "-c", code, json.dumps(parameters)], capture_output=True, text=True,
                         env={**os.environ, "MTKD_HELPERS": "1"}, timeout=120, check=True)
    pid, end = int(ran.stdout.split()[-1]), time.time() + 90
    while time.time() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.5)
    pytest.fail("the helper went on without its parent")
