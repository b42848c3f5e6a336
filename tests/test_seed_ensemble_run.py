"""The paper's experiment on a tiny task: which students are asked for, with which seeds, and what their rows say."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import make_image_task, make_text_task

from mtkd import study as experiments
from mtkd.data.tasks import Split
from mtkd.errors import KitError
from mtkd.papers import seed_ensemble_outcome as outcome
from mtkd.papers.seed_ensemble_plans import Plan, plans
from mtkd.papers.seed_ensemble_run import Experiment
from mtkd.store.artifacts import Store
from mtkd.train import loop as train
from mtkd.train import recipes
from mtkd.train.prepare import Augmentation, Views
from mtkd.train.recipes import Optimisation

OPT = Optimisation(epochs=1, batch_size=16, lr=3e-3)
ROW = {"arm", "task", "pool", "kind", "members", "k", "primary", "repeat", "variant", "metric", "score", "metrics", "split",
       "validation", "n_test", "right", "one_answer", "parameters", "time", "energy_kwh", "folder"}
TIME = {"train_s", "score_s", "intermediate_s", "teachers_s"}
MODELS = {"tinybert": ("scratch-2x32", "scratch-1x32"), "distilbert": ("scratch-2x32", "distilbert-scratch-1x32"),
          "resnet": ("resnet-8w8", "resnet-8w4")}


def experiment(arm, n_teachers=2, **changes) -> Experiment:
    teacher, student = MODELS[arm]
    inner = OPT if arm == "tinybert" else None
    settings = {"arm": arm, "task": "tiny", "teacher": teacher, "student": student, "n_teachers": n_teachers, "repeats": 1,
                "teacher_optimisation": OPT, "student_optimisation": OPT, "intermediate_optimisation": inner, "vocab": 200,
                "weak_teachers": "mark"}
    return Experiment(**{**settings, **changes})


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    def load(name, **options):
        return replace(make_image_task() if name == "tiny images" else make_text_task(), name=name)

    monkeypatch.setattr(experiments, "load_task", load)


# --- which students ------------------------------------------------------------------------------------------------------


def test_the_papers_counts():
    assert len(plans("tinybert", 6)) == 192  # combination-primary pairs: 6 * 2^5
    assert len(plans("tinybert", 6, repeats=3)) == 576
    assert len({p.members for p in plans("tinybert", 6)}) == 63
    assert len(plans("distilbert", 4, repeats=3)) == 3 * 4 * 8
    assert len(set(plans("tinybert", 6, repeats=3))) == 576


@pytest.mark.parametrize("arm", ["tinybert", "distilbert", "resnet"])
@pytest.mark.parametrize("repeats", [1, 3])
def test_every_combination_of_k_has_k_scores_per_repeat(arm, repeats):
    made = Counter(p.members for p in plans(arm, 4, repeats))
    assert len(made) == 15
    assert all(count == repeats * len(members) for members, count in made.items())


def test_every_member_is_primary_once():
    assert {p.primary for p in plans("distilbert", 3) if p.members == (0, 2)} == {0, 2}
    assert all(p.primary in p.members for p in plans("tinybert", 5))
    assert {(p.primary, p.repeat) for p in plans("resnet", 3) if p.members == (0, 1, 2)} == {(None, 0), (None, 1), (None, 2)}


# --- seeds ---------------------------------------------------------------------------------------------------------------


def test_students_with_the_same_primary_and_repeat_share_a_seed():
    """Single- and multi-teacher students draw from the same lottery; the k students of a combination differ."""
    e = experiment("tinybert", 4)
    seeds = {}
    for plan in plans("tinybert", 4, 3):
        seeds.setdefault((plan.primary, plan.repeat), set()).add(e.student_seed(0, plan))
    assert all(len(s) == 1 for s in seeds.values())
    assert len({s for found in seeds.values() for s in found}) == 12


def test_a_resnet_combination_uses_the_seeds_of_its_members_singles():
    e = experiment("resnet", 4)
    for repeats in (1, 2):
        singles = {}
        for p in plans("resnet", 4, repeats):
            if len(p.members) == 1:
                singles.setdefault(p.members[0], set()).add(e.student_seed(0, p))
        for members in {p.members for p in plans("resnet", 4, repeats)}:
            mine = [e.student_seed(0, p) for p in plans("resnet", 4, repeats) if p.members == members]
            assert sorted(mine) == sorted(s for m in members for s in singles[m])


def test_shared_seeds_are_one_per_repeat():
    e = experiment("distilbert", 4, student_seeds="shared")
    assert {e.student_seed(0, p) for p in plans("distilbert", 4)} == {e.student_seed(0, Plan((1,), 1))}
    assert len({e.student_seed(0, p) for p in plans("distilbert", 4, 3)}) == 3


def test_no_two_pools_nor_teacher_and_student_share_a_seed():
    e = experiment("tinybert", 6)
    used = [e.teacher_seed(pool, i) for pool in range(6) for i in range(6)]
    students = {e.student_seed(pool, p) for pool in range(6) for p in plans("tinybert", 6, 3)}
    assert len(set(used)) == 36
    assert len(students) == 6 * 18
    assert not students & set(used)
    other = experiment("tinybert", 6, seed=1)
    assert not students & {other.student_seed(pool, p) for pool in range(6) for p in plans("tinybert", 6, 3)}


# --- what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "says"), [
    ({"arm": "minibert"}, "no such arm: 'minibert'"), ({"n_teachers": 0}, "at least 1"), ({"repeats": 0}, "at least 1"),
    ({"student_seeds": "random"}, "'per_primary' or 'shared'"), ({"intermediate_optimisation": None}, "intermediate stage"),
])
def test_parameters_that_contradict_each_other_are_refused(changes, says):
    with pytest.raises(KitError, match=says):
        replace(experiment("tinybert"), **changes)


# --- recipes -------------------------------------------------------------------------------------------------------------


def test_recipes_of_a_plan():
    e = experiment("distilbert", 3, temperature=2.0, loss_weight=0.4)
    (stage,) = e.recipe(Plan((0, 2), 2)).stages
    assert [(t.loss, t.weight, t.temperature) for t in stage.terms] == [
        ("cross_entropy", 1.0, 1.0), ("soft_cross_entropy", 0.4, 2.0), ("cosine", 1.0, 1.0)]
    assert stage.terms[2].selection.members(3) == (2,)
    assert [t.loss for t in e.recipe(Plan((0, 2), 2), terms="KD").stages[0].terms] == ["soft_cross_entropy"]
    assert e.recipe(Plan((0,), 0), control="shuffled").teachers == recipes.Independent("shuffled")
    e = experiment("resnet", 3, loss_weight=0.4)
    assert [t.weight for t in e.recipe(Plan((0, 2), None)).stages[0].terms] == [1.0, 0.4]


# --- rows ----------------------------------------------------------------------------------------------------------------


def rows_of(e: Experiment, pool=0) -> list[dict]:
    return [*e.teacher_rows(pool), e.ensemble_row(pool), *e.student_rows(pool), *e.undistilled_rows(pool),
            *e.control_rows(pool), *e.term_rows(pool)]


EXPECTED = {"teacher": 2, "ensemble": 1, "student": 4, "undistilled": 2, "control": 3}


@pytest.mark.parametrize("arm", ["tinybert", "distilbert", "resnet"])
def test_rows_keep_the_contract(arm, monkeypatch):
    task = {"task": "tiny images", "views": Views(2, 1, False)} if arm == "resnet" else {}
    e = experiment(arm, **task)
    rows = rows_of(e)
    assert Counter(r["kind"] for r in rows) == EXPECTED | ({"terms": 6} if arm == "distilbert" else {})
    json.dumps(rows)  # scalars and short lists only
    for row in rows:
        assert set(row) >= ROW
        assert set(row["time"]) == TIME
        assert row["k"] == len(row["members"])
        assert row["score"] == row["metrics"]["accuracy"]
        assert 0 <= row["score"] <= 1
        assert 0 <= row["validation"] <= 1
        assert (row["arm"], row["metric"], row["split"], row["n_test"], row["pool"]) == (arm, "accuracy", "test", 30, 0)
        assert all(v >= 0 for v in row["time"].values())
        if row["folder"]:
            assert (Store().folder / row["folder"] / "artifact.json").is_file()
    identity = [(r["kind"], tuple(r["members"]), r["primary"], r["repeat"], r["variant"]) for r in rows]
    assert len(set(identity)) == len(rows)  # rows of several records are merged by these
    check_times(arm, rows)
    check_students(arm, rows)

    monkeypatch.setattr(train, "fit", lambda *a, **k: pytest.fail("something was trained again"))
    again = rows_of(experiment(arm, **task))
    assert again == rows  # seconds too: those of the making


def check_times(arm, rows):
    teachers = {r["members"][0]: r["time"]["train_s"] for r in rows if r["kind"] == "teacher"}
    for row in rows:
        time = row["time"]
        if row["kind"] == "student":
            assert time["teachers_s"] == pytest.approx(sum(teachers[i] for i in row["members"]))
            assert (time["intermediate_s"] > 0) == (arm == "tinybert")
            assert time["score_s"] > 0
            assert time["train_s"] > 0
        if row["kind"] == "undistilled":
            assert (time["teachers_s"], time["score_s"], time["intermediate_s"]) == (0, 0, 0)
        if row["kind"] == "teacher":
            assert time["teachers_s"] == time["score_s"] == 0


def check_students(arm, rows):
    students = [r for r in rows if r["kind"] == "student"]
    assert Counter(tuple(r["members"]) for r in students) == {(0,): 1, (1,): 1, (0, 1): 2}
    assert Counter(r["folder"] for r in students).most_common(1)[0][1] == 1
    pair = [r for r in students if r["k"] == 2]
    if arm == "resnet":
        assert [(r["primary"], r["repeat"]) for r in pair] == [(None, 0), (None, 1)]
    else:
        assert [(r["primary"], r["repeat"]) for r in pair] == [(0, 0), (1, 0)]
    assert [r["repeat"] for r in rows if r["kind"] == "undistilled"] == [0, 1]
    assert all(r["members"] == [] and r["primary"] is None for r in rows if r["kind"] == "undistilled")
    assert [r["variant"] for r in rows if r["kind"] == "control"] == ["shuffled_teacher", "uniform_teacher", "plain_ce"]
    sizes = {kind: {r["parameters"] for r in rows if r["kind"] == kind} for kind in ("teacher", "student", "undistilled")}
    assert sizes["student"] == sizes["undistilled"]
    assert max(sizes["student"]) < min(sizes["teacher"])


def test_pools_are_independent_and_stages_are_shared_within_one(monkeypatch):
    made, fit = [], train.fit

    def counted(network, data, stage, *args, **options):
        made.append(stage.name)
        return fit(network, data, stage, *args, **options)

    monkeypatch.setattr(train, "fit", counted)
    e = experiment("tinybert")
    first = list(e.student_rows(0))
    assert Counter(made) == {"task": 2, "intermediate": 2, "prediction": 4}  # 2 intermediate students for 4 pairs
    second = list(e.student_rows(1))
    assert Counter(made) == {"task": 4, "intermediate": 4, "prediction": 8}
    assert not {r["folder"] for r in first} & {r["folder"] for r in second}


def test_the_control_on_plain_labels_has_as_many_steps_as_both_stages():
    e = experiment("tinybert", 1)
    student, plain = e.distill(0, Plan((0,), 0)), e.undistilled(0, Plan((0,), 0))
    steps = student.info["history"]["steps"] + student.before.info["history"]["steps"]
    assert plain.info["history"]["steps"] == steps == 8


def test_repeats_take_other_augmentations_and_other_seeds():
    e = experiment("tinybert", 1, repeats=2, augmentation=Augmentation(factor=1))
    a, b = (e.distill(0, plan) for plan in plans("tinybert", 1, 2))
    assert a.info["history"]["samples"] == 120
    assert a.key != b.key
    assert e.student_seed(0, Plan((0,), 0, 0)) != e.student_seed(0, Plan((0,), 0, 1))
    rows = list(e.student_rows(0))
    assert [r["repeat"] for r in rows] == [0, 1]


def test_jobs_make_everything_that_the_rows_ask_for(monkeypatch):
    e = experiment("distilbert", pools=(0, 1))
    first, second = e.jobs()
    assert len(first) == 4
    for job in [*first, *second]:
        job()
    monkeypatch.setattr(train, "fit", lambda *a, **k: pytest.fail("something was left to train"))
    fresh = experiment("distilbert", pools=(0, 1))
    rows = [row for pool in fresh.pools for row in (*fresh.teacher_rows(pool), *fresh.result_rows(pool))]
    assert Counter(r["pool"] for r in rows) == {0: 17, 1: 17}  # 2 teachers, 4 + 2 students, 3 controls, 6 sets of terms
    bill = outcome.bill(fresh)
    assert bill["models"] == len({r["folder"] for r in rows})
    by_folder = {r["folder"]: r["time"]["train_s"] for r in rows}
    assert bill["training_s"] == pytest.approx(sum(by_folder.values()))


def test_table_1_counts_samples_and_words():
    rows = outcome.data_rows(experiment("tinybert"))
    assert [(r["split"], r["samples"]) for r in rows] == [("train", 60), ("validation", 24), ("test", 30)]
    words = [len(t.split()) for (t,) in make_text_task().splits["train"].inputs]
    assert rows[0]["tokens_mean"] == pytest.approx(sum(words) / 60)
    assert outcome.data_rows(experiment("resnet", task="tiny images"))[0]["tokens_mean"] is None


def test_the_best_student_is_exported_and_submissions_are_written(tmp_path):
    made = experiment("tinybert")
    task = made.whole
    made.__dict__["whole"] = replace(
        task, name="glue/mnli", splits={**task.splits, "hidden_test": Split(
            [f"test/{i}" for i in range(6)], task.splits["test"].inputs[:6], np.full(6, -1))})
    best = outcome.best_student(made)
    scores = [made.distill(0, plan).metrics["validation"]["accuracy"] for plan in plans("tinybert", made.n_teachers)
              if len(plan.members) == made.n_teachers]
    assert best.metrics["validation"]["accuracy"] == max(scores)
    folder = outcome.export(made, tmp_path)
    assert (folder / "model.safetensors").read_bytes() == (best.folder / "model.safetensors").read_bytes()
    assert not list(folder.glob("logits-*"))
    (file,) = outcome.write_submissions(made, tmp_path)
    lines = file.read_text().splitlines()
    assert file.name == "MNLI-m.tsv"
    assert lines[0] == "index\tprediction"
    assert [line.split("\t")[0] for line in lines[1:]] == [str(i) for i in range(6)]
    assert {line.split("\t")[1] for line in lines[1:]} <= set(task.classes)
