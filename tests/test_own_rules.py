"""A reader's own rules: the cell of the README in a process of its own, run, edited and run again; and by name in a grid."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mtkd.errors import KitError
from mtkd.rules.selection import following
from mtkd.runs import grid
from mtkd.train.road import recipe

WORDS = {"sea": ("wave", "salt", "ship"), "farm": ("cow", "corn", "barn"), "city": ("tram", "mayor", "bank")}
FIRST = """
import pandas as pd, torch, mtkd
from mtkd import Optimisation, distil, finetune, load_task, prepare, recipe, selection, soft_cross_entropy
from mtkd.rules import losses

optimisation = Optimisation(epochs=1, batch_size=16, lr=5e-3)
prepared = prepare(load_task("rows.csv"), "scratch-1x16", vocab=60, max_length=12)
teachers = finetune(prepared, "scratch-1x16", range(3), optimisation)

def student(*terms):
    made = distil(prepared, teachers, "scratch-1x8h2", recipe("cross_entropy", *terms, optimisation=optimisation), seed=0,
                   weak_teachers="mark")
    return made.reused, made.key, made.logits("test").sum().item()
"""
AGREEING = """
@selection
def agreeing(said, batch, *, least=0.5):
    "Follow the teachers whose prediction a majority shares; nobody where there is none."
    votes = said.logits.argmax(-1)
    share = (votes.unsqueeze(-1) == votes.unsqueeze(-2)).float().mean(-1)
    return (share > least).float()
"""


@pytest.fixture
def place(tmp_path):
    rows = [(f"{a} {b} {a}", name) for name, words in WORDS.items() for a in words for b in words for _ in range(6)]
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"{text} {i},{name}\n" for i, (text, name) in enumerate(rows)))
    return tmp_path


def run(place: Path, *cells: str) -> tuple[list, str]:
    """Run the cells in a fresh process; what the last prints as JSON, and all that was printed."""
    env = {**os.environ, "MTKD_STORE": str(place / "store"), "MTKD_CACHE": str(place / "cache"), "MTKD_PROGRESS": "0",
           "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", "\n".join(["import json, warnings", *cells])], cwd=place, env=env,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


def test_a_cell_an_edit_and_a_patch(place):
    """One process, as a notebook: a rule, the same again, edited, in the old form again; a constructor; a patched loss."""
    found, said = run(place, FIRST, "first, second, third = [], [], []", AGREEING, """
term = lambda: soft_cross_entropy(agreeing(least=0.5), temperature=2.0)
first.append(student(term())); first.append(student(term()))
""", AGREEING.replace("share > least", "share <= least"), "second.append(student(term()))", AGREEING, """
first.append(student(term()))

class Power(mtkd.Selection):
    def __init__(self, p):
        object.__setattr__(self, "p", p)
    def weights(self, batch, teachers, step, rng):
        return teachers.logits.amax(-1).clamp(min=0.1) ** self.p

third += [student(soft_cross_entropy(Power(p))) for p in (1.0, 5.0, 1.0)]
clean = losses.soft_cross_entropy
losses.soft_cross_entropy = lambda student, target, *rest: (student - target).pow(2).mean(-1)
patched = [student(term()), student(term())]
losses.soft_cross_entropy = clean
patched.append(student(term()))
print(json.dumps([first, second, third, patched]))
""")
    first, second, third, patched = found
    assert [reused for reused, *_ in first] == [False, True, True]
    assert len({key for _, key, _ in first}) == 1
    assert second[0][0] is False
    assert second[0][2] != first[0][2]
    assert "made (the code of `agreeing` changed)" in said
    assert [reused for reused, *_ in third] == [False, False, True]
    assert third[0][2] != third[1][2]
    # the patched loss: another key, found again while it is there, and nothing of it under the clean one
    assert [reused for reused, *_ in patched] == [False, True, True]
    assert patched[0][1] == patched[1][1] != patched[2][1] == first[0][1]
    assert patched[0][2] != patched[2][2] == first[0][2]
    # and for a fresh kernel
    (reused, key, total), _ = run(place, FIRST, AGREEING, "print(json.dumps(student(soft_cross_entropy(agreeing(least=0.5), "
                                                          "temperature=2.0))))")
    assert (reused, key, total) == (True, first[0][1], first[0][2])


def test_the_notebooks_own_rules_run_by_name_in_a_grid(place, monkeypatch):
    for name in ("STORE", "CACHE"):
        monkeypatch.setenv(f"MTKD_{name}", str(place / name.lower()))
    small = {"task": str(place / "rows.csv"), "teacher": "scratch-1x16", "student": "scratch-1x8h2", "n_teachers": 2,
             "train_size": 0, "epochs": 1, "max_length": 12, "vocab": 60}
    file = Path(__file__).parents[1] / "params" / "own_rule" / "grid.yaml"
    summary = grid.run([file], jobs=2, results=place / "runs", overrides=small, say=lambda words: None)
    assert [outcome.status for outcome in summary.outcomes] == ["done", "done"], [o.reason for o in summary.failed]
    records = [json.loads((folder / "record.json").read_text()) for folder in summary.folders]
    assert {row["method"] for record in records for row in record["rows"] if row["kind"] == "student"} == {
        "brier, agreeing", "soft_cross_entropy, certain"}
    misspelt = grid.run([file], jobs=2, results=place / "runs", overrides={**small, "selection": "agreing", "reward": ""},
                        say=lambda words: None)
    assert {outcome.reason for outcome in misspelt.failed} == {"no such selection: 'agreing'; did you mean 'agreeing'?"}


def test_a_recipe_of_names_is_checked_before_training():
    made = recipe("cross_entropy", "soft_cross_entropy")
    assert made.stages[0].terms[1].selection == following("uniform")
    with pytest.raises(KitError, match="no such loss: 'cross_entropi'; did you mean 'cross_entropy'"):
        recipe("cross_entropi")
    with pytest.raises(KitError, match="at least one term"):
        recipe()
    with pytest.raises(KitError, match="has no option 'tolerence'; did you mean 'tolerance'"):
        following("expertise", tolerence=0.1)


def blocks(language: str) -> list[str]:
    """The code blocks of the README's section on rules, tasks and papers of one's own."""
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    section = text.split("## Add your own rule, task or paper")[1].split("\n## ")[0]
    return [part.split("```")[0] for part in section.split(f"```{language}\n")[1:]]


def test_the_readmes_rules_and_task_run():
    names = {}
    for block in blocks("python")[:2]:
        exec(block, names)
    term = names["brier"](names["agreeing"](least=0.6), weight=2.0)
    assert (term.loss, term.selection.rule.options, term.weight) == ("brier", {"least": 0.6}, 2.0)
    task = names["load_task"]("shouting", words=5, limit=10)
    assert (len(task.splits["train"]), task.classes) == (10, ("calm", "loud"))


def test_the_readmes_paper_is_found_and_judges_records(place):
    """In a copy of the package: a paper is found because its files are there."""
    copy = place / "kit" / "mtkd"
    shutil.copytree(Path(__file__).parents[1] / "mtkd", copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "papers" / "mine.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    (copy / "papers" / "mine.py").write_text(blocks("python")[2], encoding="utf-8")
    rows = [[{"arm": "main", "task": "reviews", "kind": kind, "method": "mine", "repeat": r, "metric": "accuracy",
              "score": score} for kind, score in (("student", 0.7 + r / 100), ("undistilled", 0.65))] for r in range(8)]
    records = [{"paper": "mine", "tier": "demo", "run": str(r), "parameters": {"repeats": [r]}, "rows": own, "data": [],
                "provenance": {"hardware": {"cpu": "any", "cores": 2}}} for r, own in enumerate(rows)]
    (place / "records.json").write_text(json.dumps(records))
    code = ("import json; from mtkd import papers; records = json.load(open('records.json')); "
            "found = papers.module('mine').claims(records); table = papers.exhibit('mine.table1', records).content; "
            "print(json.dumps([papers.PAPERS[-1], found[0].verdict, found[0].n, table['model'].tolist()]))")
    done = subprocess.run([sys.executable, "-c", code], cwd=place, env={**os.environ, "PYTHONPATH": str(copy.parent)},
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == ["mine", "supported", 8, ["student", "undistilled"]]
