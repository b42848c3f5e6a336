"""The multiple-teacher paper's study: which students are asked for, with which seeds, and what their rows say."""

from collections import Counter
from types import SimpleNamespace

import pytest
from tiny_studies import hidden_rows, kept, study_of, tiny  # noqa: F401

from mtkd.papers.seed_ensemble_study import Experiment, Student, students
from mtkd.store.artifacts import Store
from mtkd.train import recipes

ARMS = {"tinybert": {}, "distilbert": {"arm": "distilbert", "student": "distilbert-scratch-1x32"},
        "resnet": {"arm": "resnet", "task": "tiny image", "teacher": "resnet-8w8", "student": "resnet-8w4", "views": 2,
                   "crop": 1, "flip": False}}


def experiment(arm: str, n_teachers: int = 2, **changes) -> Experiment:
    return study_of("seed_ensemble", **{**ARMS[arm], "n_teachers": n_teachers, **changes})


def distilled(arm: str, n: int, repeats: int = 1) -> list[Student]:
    p = SimpleNamespace(arm=arm, n_teachers=n, repeats=repeats, controls=True)
    return [s for s in students(p) if s.kind == "student"]


# --- which students, with which seeds ------------------------------------------------------------------------------------


def test_the_papers_counts():
    assert len(distilled("tinybert", 6)) == 192  # combination-primary pairs: 6 * 2^5
    assert len({s.members for s in distilled("tinybert", 6)}) == 63
    assert len(set(distilled("tinybert", 6, repeats=3))) == 576
    assert len(distilled("distilbert", 4, repeats=3)) == 3 * 4 * 8


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("repeats", [1, 3])
def test_every_combination_of_k_has_k_scores_per_repeat(arm, repeats):
    made = Counter(s.members for s in distilled(arm, 4, repeats))
    assert len(made) == 15
    assert all(count == repeats * len(members) for members, count in made.items())


def test_every_member_is_primary_once():
    assert {s.primary for s in distilled("distilbert", 3) if s.members == (0, 2)} == {0, 2}
    assert all(s.primary in s.members for s in distilled("tinybert", 5))
    three = {(s.primary, s.repeat) for s in distilled("resnet", 3) if s.members == (0, 1, 2)}
    assert three == {(None, 0), (None, 1), (None, 2)}


def test_students_with_the_same_primary_and_repeat_share_a_seed():
    """Single- and multi-teacher students draw from the same lottery; the k students of a combination differ."""
    e, seeds = experiment("tinybert", 4), {}
    for s in distilled("tinybert", 4, 3):
        seeds.setdefault((s.primary, s.repeat), set()).add(e.seed_for(s))
    assert all(len(found) == 1 for found in seeds.values())
    assert len({seed for found in seeds.values() for seed in found}) == 12


def test_a_resnet_combination_uses_the_seeds_of_its_members_singles():
    e = experiment("resnet", 4)
    for repeats in (1, 2):
        every, singles = distilled("resnet", 4, repeats), {}
        for s in every:
            if len(s.members) == 1:
                singles.setdefault(s.members[0], set()).add(e.seed_for(s))
        for members in {s.members for s in every}:
            mine = [e.seed_for(s) for s in every if s.members == members]
            assert sorted(mine) == sorted(seed for m in members for seed in singles[m])


def test_shared_seeds_are_one_per_repeat():
    e = experiment("distilbert", 4, student_seeds="shared")
    assert {e.seed_for(s) for s in distilled("distilbert", 4)} == {e.seed_for(Student("distilbert", members=(1,), primary=1))}
    assert len({e.seed_for(s) for s in distilled("distilbert", 4, 3)}) == 3


def test_no_two_pools_nor_teacher_and_student_share_a_seed():
    e, other = (experiment("tinybert", 6, pools=list(range(6)), repeats=3, seed=seed) for seed in (0, 1))
    own, others = ({x.seed_for(s) for pool in range(6) for s in x.students(pool) if s.kind == "student"} for x in (e, other))
    assert len(own) == 6 * 18
    assert not own & (set(e.seeds()) | others)


# --- recipes -------------------------------------------------------------------------------------------------------------


def test_recipes_of_a_student():
    e = experiment("distilbert", 3, temperature=2.0, loss_weight=0.4)
    (stage,) = e.recipe(Student("distilbert", members=(0, 2), primary=2)).stages
    assert [(t.loss, t.weight, t.temperature) for t in stage.terms] == [
        ("cross_entropy", 1.0, 1.0), ("soft_cross_entropy", 0.4, 2.0), ("cosine", 1.0, 1.0)]
    assert stage.terms[2].selection.members(3) == (2,)
    by = {s.variant: s for s in e.students(0)}
    assert [t.loss for t in e.recipe(by["KD"]).stages[0].terms] == ["soft_cross_entropy"]
    assert e.recipe(by["shuffled_teacher"]).teachers == recipes.Independent("shuffled")
    e = experiment("resnet", 3, loss_weight=0.4)
    assert [t.weight for t in e.recipe(Student("resnet", members=(0, 2))).stages[0].terms] == [1.0, 0.4]


# --- rows ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
def test_rows_keep_the_contract_and_nothing_is_trained_twice(arm, monkeypatch):
    e, rows = kept("seed_ensemble", monkeypatch, **ARMS[arm])
    of = {kind: [r for r in rows if r["kind"] == kind] for kind in {r["kind"]: None for r in rows}}
    terms = {"terms": 6} if arm == "distilbert" else {}
    assert {kind: len(found) for kind, found in of.items()} == {
        "teacher": 2, "ensemble": 1, "student": 4, "undistilled": 2, "control": 3, **terms}
    for row in rows:
        assert row["k"] == len(row["members"])
        assert (row["arm"], row["metric"], row["n_test"], row["pool"]) == (arm, "accuracy", 30, 0)
    teachers = {r["members"][0]: r["time"]["train_s"] for r in of["teacher"]}
    for row in of["student"]:
        assert row["time"]["teachers_s"] == pytest.approx(sum(teachers[i] for i in row["members"]))
        assert (row["time"]["intermediate_s"] > 0) == (arm == "tinybert")
        assert row["time"]["score_s"] > 0
    assert Counter(tuple(r["members"]) for r in of["student"]) == {(0,): 1, (1,): 1, (0, 1): 2}
    pair = [(r["primary"], r["repeat"]) for r in of["student"] if r["k"] == 2]
    assert pair == ([(None, 0), (None, 1)] if arm == "resnet" else [(0, 0), (1, 0)])
    assert [(r["repeat"], r["members"], r["primary"]) for r in of["undistilled"]] == [(0, [], None), (1, [], None)]
    assert [r["variant"] for r in of["control"]] == ["shuffled_teacher", "uniform_teacher", "plain_ce"]
    sizes = {kind: {r["parameters"] for r in of[kind]} for kind in ("teacher", "student", "undistilled")}
    assert sizes["student"] == sizes["undistilled"]
    assert max(sizes["student"]) < min(sizes["teacher"])
    assert of["ensemble"][0]["time"]["teachers_s"] == pytest.approx(sum(teachers.values()))
    made = {r["folder"]: r["time"]["train_s"] + r["time"]["intermediate_s"] for r in rows if r["folder"]}
    assert e.bill()["models"] == len(made) + (2 if arm == "tinybert" else 0)  # and the first stages of two primaries


def test_pools_are_independent_and_stages_are_shared_within_one(monkeypatch):
    made, make = [], Store._make

    def counted(self, kind, spec, *rest):
        made.extend([spec["stage"]["name"]] if kind == "model" else [])
        return make(self, kind, spec, *rest)

    monkeypatch.setattr(Store, "_make", counted)
    e = experiment("tinybert", pools=[0, 1])
    keys = []
    for pool in (0, 1):
        keys.append({e.make(s).key for s in e.students(pool) if s.kind == "student"})
        n = pool + 1
        assert Counter(made) == {"task": 2 * n, "intermediate": 2 * n, "prediction": 4 * n}  # 2 first stages for 4 pairs
    assert not keys[0] & keys[1]


def test_the_control_on_plain_labels_has_as_many_steps_as_both_stages():
    e = experiment("tinybert", 1)
    student = e.make(e.own(0))
    (plain,) = (e.make(s) for s in e.students(0) if s.kind == "undistilled")
    steps = student.info["history"]["steps"] + student.before.info["history"]["steps"]
    assert plain.info["history"]["steps"] == steps == 8


def test_repeats_take_other_augmentations_and_other_seeds():
    e = experiment("tinybert", 1, repeats=2, augmentation=1)
    first, second = (s for s in e.students(0) if s.kind == "student")
    assert (first.repeat, second.repeat) == (0, 1)
    assert e.make(first).info["history"]["samples"] == 120
    assert e.make(first).key != e.make(second).key
    assert e.seed_for(first) != e.seed_for(second)


def test_the_best_student_is_exported_and_submissions_are_written(tmp_path):
    e = experiment("tinybert")
    hidden_rows(e)
    best = e.best_student()
    scores = [e.make(s).metrics["validation"]["accuracy"] for s in e.students(0) if s.kind == "student" and len(s.members) == 2]
    assert best.metrics["validation"]["accuracy"] == max(scores)
    folder = e.export(tmp_path)
    assert (folder / "model.safetensors").read_bytes() == (best.folder / "model.safetensors").read_bytes()
    assert not list(folder.glob("logits-*"))
    (file,) = e.write_submissions(tmp_path)
    lines = file.read_text().splitlines()
    assert file.name == "MNLI-m.tsv"
    assert lines[0] == "index\tprediction"
    assert [line.split("\t")[0] for line in lines[1:]] == [str(i) for i in range(6)]
    assert {line.split("\t")[1] for line in lines[1:]} <= set(e.loaded.classes)
