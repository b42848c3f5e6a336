"""TMKD's experiment on tiny tasks: which students are asked for, what they start from and follow, and what their rows say."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_pair_task, make_text_task, text_split
from notebook_names import defined_in
from tiny_studies import OPT, all_rows, kept, study_of, tiny  # noqa: F401

from mtkd import study
from mtkd.errors import KitError
from mtkd.measure.metrics import ensemble_logits
from mtkd.models import heads
from mtkd.models import names as models
from mtkd.papers import tmkd
from mtkd.papers import tmkd_students as recipes
from mtkd.papers import tmkd_study as paper
from mtkd.papers.tmkd import SECTIONS
from mtkd.papers.tmkd_students import students
from mtkd.rules.selection import Primary, Uniform
from mtkd.train import loop as train
from mtkd.train.answers import answers

views = defined_in("tmkd")
STUDENT = "scratch-1x16h2"
ALONE = {"transfer": [], "pool_sizes": []}


def experiment(**changes) -> paper.Experiment:
    return study_of("tmkd", **changes)


def like(e, method, pool="", task="", **changes):
    return replace(e.own(0), method=method, pool=pool, task=task or e.task, **changes)


# --- which students, and recipes -----------------------------------------------------------------------------------------


def test_the_papers_counts():
    def ask(**changes):
        return list(students(SimpleNamespace(**{
            "task": "rte", "transfer": (), "sections": SECTIONS, "student": "bottom-3 of bert", "alpha": 0.9,
            "pool_sizes": (4, 40), "bilstm": "bilstm-2x256e300", "depths": (1, 3, 5),
            "alphas": (0.1, 0.3, 0.5, 0.7, 0.9, 1.0), **changes})))

    asked = ask()
    assert len(asked) == len(set(asked))
    counts = Counter((p.arm, p.kind) for p in asked)
    # Tables 4 to 7: 4 ways without a pool, TMKD twice, TKD three times; the Bi-LSTM's 3 without and 3 with the base pool
    assert counts == {("methods", "undistilled"): 1, ("methods", "student"): 6 + 3 + 6, ("methods", "control"): 3,
                      ("layers", "student"): 3, ("alpha", "student"): 6, ("pools", "student"): 3,
                      ("largest", "student"): 3, ("largest", "teacher"): 1}  # fmt: skip
    assert {p.student for p in asked if p.arm == "layers"} == {f"bottom-{n} of bert" for n in (1, 3, 5)}
    assert {(p.method, p.pool) for p in asked if p.arm == "alpha"} == {("many", "base")}
    assert {p.pool for p in asked if p.kind == "control"} == {"large"}
    without = ask(pool_sizes=(), bilstm="", depths=(1,), alphas=())
    assert {p.pool for p in without} == {""}


def test_recipes_are_equations_4_and_5():
    first, second = recipes.stage_1("many", "pool-20", OPT), recipes.stage_2("many", 0.9, OPT, new_heads=True)
    (term,) = first.stages[0].terms
    assert (term.loss, term.combine, term.weight, term.selection) == ("logit_mse", "heads", 1.0, Uniform())
    assert (first.stages[0].data, first.stages[0].reset) == ("pool-20", ())
    assert [(t.loss, round(t.weight, 6)) for t in second.stages[0].terms] == [("cross_entropy", 0.1), ("logit_mse", 0.9)]
    assert (second.stages[0].reset, second.predictor) == (("heads",), "heads")
    one, average = (recipes.soft(name, best=2) for name in ("one", "average"))
    assert (one.combine, one.selection) == ("one_head", Primary(2))
    assert (average.combine, average.selection) == ("one_head", Uniform())
    assert [t.loss for t in recipes.stage_2("one", 1.0, OPT).stages[0].terms] == ["logit_mse"]
    assert recipes.heads("many", 3) == 3
    assert recipes.heads("average", 3) == 1
    for alpha in (0.0, 1.5):
        with pytest.raises(KitError, match="above 0 and at most 1"):
            recipes.stage_2("one", alpha, OPT)
    with pytest.raises(KitError, match="no such method: 'each'"):
        recipes.soft("each")


def test_a_student_of_unknown_depth_has_no_section_layers():
    with pytest.raises(KitError, match="whose name says its layers"):
        recipes.with_depth("minilm", 3)


# --- a small real run ----------------------------------------------------------------------------------------------------


def test_stage_1_is_one_student_for_all_tasks_and_learns_from_soft_labels_alone():
    e = experiment()
    here, there = (e.make(like(e, "many", "base", task)) for task in e.tasks)
    assert here.before.key == there.before.key
    assert set(here.before.info["history"]["losses"]) == {"logit_mse"}
    assert set(here.info["history"]["losses"]) == {"cross_entropy", "logit_mse"}
    large = e.make(like(e, "many", "large"))
    one = e.make(like(e, "one", "base"))
    assert len({here.before.key, large.before.key, one.before.key}) == 3
    assert large.before.info["history"]["samples"] == 40
    # kept heads on the pool's own task, new ones of the right size on another
    assert (models.load(here.folder).golden.out_features, models.load(there.folder).golden.out_features) == (3, 2)
    assert (models.load(here.folder).n_heads, models.load(one.folder).n_heads) == (3, 1)


def test_kept_and_new_heads_after_the_pool(monkeypatch):
    """The soft heads of stage 1 go on with the pool's own task, unless heads_after_pool says otherwise."""
    seen = {}
    original = train.fit

    def watch(network, *args, **options):
        if hasattr(network, "soft"):  # not a teacher: another loop is another key, and all are made anew
            seen["soft"] = {k: v.clone() for k, v in network.soft.state_dict().items()}
            seen["word"] = next(iter(network.hf.parameters())).clone()
        return original(network, *args, **options)

    for after in ("kept", "new"):
        e = experiment(heads_after_pool=after)
        plan = like(e, "many", "base")
        before = models.load(e.pretrained(plan).folder)
        monkeypatch.setattr(train, "fit", watch)
        e.make(plan)
        monkeypatch.setattr(train, "fit", original)
        same = all(torch.equal(v, before.soft.state_dict()[k]) for k, v in seen["soft"].items())
        assert same == (after == "kept")
        assert torch.equal(seen["word"], next(iter(before.hf.parameters())))  # the encoder goes on in both


def test_methods_follow_the_right_teachers(monkeypatch):
    e = experiment()
    best, followed = e.best(0), []
    original = paper.distil.distill

    def watch(prepared, teachers, student, recipe, *args, **options):
        followed.append((student, recipe.members(recipe.stages[0], len(teachers))))
        return original(prepared, teachers, student, recipe, *args, **options)

    monkeypatch.setattr(paper.distil, "distill", watch)
    for method in ("one", "average", "many", "each"):
        e.models(like(e, method))
    one, every = f"{STUDENT} + heads-1", (0, 1, 2)
    assert followed == [(one, (best,)), (one, every), (f"{STUDENT} + heads-3", every), (one, (0,)), (one, (1,)), (one, (2,))]


def test_m_o_m_averages_probabilities_and_alpha_1_asks_the_soft_heads_alone():
    e = experiment()
    plan = like(e, "each")
    found = e.row_logits(plan, e.models(plan), "test").numpy()
    members = [e.make(plan, p).logits("test").numpy() for p in e.everyone]
    assert np.allclose(found, ensemble_logits(members, "probabilities"))
    assert next(e.student_rows(plan))["parameters"] == 3 * e.make(plan, 0).info["parameters"]
    full, soft = (e.make(like(e, "many", alpha=a)) for a in (0.9, 1.0))
    assert models.load(full.folder).predictor == "heads"
    assert models.load(soft.folder).predictor == "soft_heads"
    assert set(soft.info["history"]["losses"]) == {"logit_mse"}


def test_plain_ce_takes_as_many_steps_as_both_stages():
    e = experiment(pool_epochs=3, student_epochs=2)
    plan = like(e, "many", "large", kind="control", variant="plain_ce")
    steps = 2 * 4 + 3 * 3  # 60 samples and a pool of 40 in batches of 16
    assert e.make(plan).info["history"]["steps"] >= steps
    assert e.make(plan).info["history"]["steps"] - steps < 4
    assert e.make(plan).before is None


def test_rows_keep_the_contract_and_nothing_is_trained_twice(monkeypatch):
    e, rows = kept("tmkd", monkeypatch)
    # teachers of two tasks and their ensembles; both tasks' rows; speeds: teacher, ensemble, four builds, three Bi-LSTMs,
    # two more depths
    assert Counter(r["arm"] for r in rows) == {"teachers": 8, "methods": 16 + 3 + 5, "layers": 3, "alpha": 2, "pools": 3,
                                               "largest": 4, "speed": 2 + 4 + 3 + 2}  # fmt: skip
    for row in rows:
        assert (row["split"], row["n_test"], row["repeat"], row["n"]) == ("test", 30, 0, 3)
        assert row["role"] == ("target" if row["task"] == "tiny/text" else "transfer")
        assert (row["speed"] is not None) == (row["arm"] == "speed")
    frame = tmkd.frame([{"paper": "tmkd", "tier": "demo", "parameters": {}, "rows": rows}])
    assert frame[frame["arm"] == "speed"]["qps"].gt(0).all()
    assert sum(r["variant"] == "best" for r in rows if r["arm"] == "teachers") == 2
    assert e.bill()["training_s"] > 0


def test_ranking_is_asked_of_the_sections_that_want_it(monkeypatch):
    """WikiQA's second metric: MAP over questions, for the teachers and the chosen sections alone."""
    def load(name, **options):
        task = make_pair_task()
        rows = text_split("test", 12, 7)
        ranking = replace(rows, ids=[f"test/Q{i // 4}/{i % 4}" for i in range(12)], inputs=[(t[0], t[0]) for t in rows.inputs],
                          labels=np.arange(12) % 2)  # fmt: skip
        return replace(task, name=name, metrics=("accuracy",), splits={**task.splits, "ranking": ranking})

    monkeypatch.setattr(study, "load_task", load)
    e = experiment(**ALONE, sections=["stages", "alpha"], ranking=["stages"])
    for row in all_rows(e):
        assert ("map" in row["metrics"]) == (row["arm"] in ("teachers", "methods"))
        assert 0 <= row["metrics"].get("map", 0) <= 1


def test_finished_teachers_teach_too():
    donor = experiment(transfer=[], sections=["stages"])
    folder = donor.teacher(0, 0).folder
    e = experiment(transfer=[], sections=["stages"], teachers=[f"finished:{folder}", STUDENT, STUDENT])
    rows = all_rows(e)
    finished = next(r for r in rows if r["arm"] == "teachers")
    assert finished["score"] == donor.teacher(0, 0).metrics["test"]["accuracy"]
    assert {r["pool"] for r in rows if r["kind"] == "student"} == {None, "large"}


def test_a_table_of_logits_teaches_and_has_no_speed(tmp_path):
    """Its ids are those of all splits; where there is a pool, it would have the pool's as well."""
    splits, rng = make_text_task().splits, np.random.default_rng(0)
    ids = [i for name in ("train", "validation", "test") for i in splits[name].ids]
    table = pd.DataFrame(rng.normal(size=(len(ids), 3)), columns=["sea", "farm", "city"]).assign(id=ids)
    table.to_csv(tmp_path / "said.csv", index=False)
    e = experiment(**ALONE, teachers=[str(tmp_path / "said.csv")], teacher_lrs=[1e-3], sections=["stages", "speed"])
    rows = all_rows(e)
    assert Counter((r["arm"], r["kind"]) for r in rows) == {
        ("teachers", "teacher"): 1, ("methods", "undistilled"): 1, ("methods", "student"): 2, ("speed", "undistilled"): 1,
        ("speed", "student"): 2}  # fmt: skip


def test_one_teacher_and_no_pool():
    """What params/tmkd/table2.yaml asks for, and own.yaml with pool_sizes []: MKD, and no ensemble of one."""
    e = experiment(**ALONE, teachers=[STUDENT], teacher_lrs=[3e-3], sections=["main", "speed"])
    plan = e.own(0)
    assert (plan.method, plan.pool) == ("many", "")
    assert e.make(plan).before is None
    rows = all_rows(e)
    assert {r["kind"] for r in rows} == {"teacher", "undistilled", "student"}
    assert {r["pool"] for r in rows} == {None}
    sure = views.sureness(e, 0)
    assert set(sure["texts"]) == {"seen in training", "test"}
    assert [r["split"] for r in e.data_rows()] == ["train", "validation", "test"]
    assert e.best_student().key == e.make(plan).key
    frame = tmkd.frame([{"paper": "tmkd", "tier": "demo", "parameters": {}, "rows": rows}])
    assert set(frame.loc[frame["arm"] == "speed", "kind"]) == {"teacher", "undistilled", "student"}


def test_a_test_of_two_sets_is_scored_by_the_mean_of_both(monkeypatch):
    """MNLI: "we average the results of matched and mismatched"; the second set is cut as the first is."""
    def load(name, limit=None, **options):
        task = make_text_task()
        task.splits["mismatched"] = text_split("mismatched", 50, 77)
        task.splits["test"] = task.splits["test"].take(range((limit or {}).get("test", 30)))
        return replace(task, name=name)

    monkeypatch.setattr(study, "load_task", load)
    e = experiment(**ALONE, sections=["main"])
    for row in all_rows(e):
        found = row["metrics"]
        assert list(found) == ["accuracy", "macro_f1", "accuracy_matched", "macro_f1_matched", "accuracy_mismatched",
                               "macro_f1_mismatched"]  # fmt: skip
        assert row["score"] == found["accuracy"] == (found["accuracy_matched"] + found["accuracy_mismatched"]) / 2
        assert row["n_test"] == 80
    plan = e.own(0)
    student = e.make(plan)
    asked = models.load(student.folder)
    said = answers(e.prepared, student, "mismatched").numpy()
    data = e.prepared.data("mismatched")
    with torch.inference_mode():
        again = heads.predicting(asked.eval())(data.batch(np.arange(50)).inputs).logits
    assert np.allclose(said, again, atol=1e-5)
    score = (said.argmax(-1) == e.loaded.splits["mismatched"].labels).mean()
    assert next(e.student_rows(plan))["metrics"]["accuracy_mismatched"] == pytest.approx(score)
    assert next(e.student_rows(plan))["validation"] == student.metrics["validation"]["accuracy"]
    assert [(r["split"], r["samples"]) for r in e.data_rows()] == [("train", 60), ("validation", 24), ("test", 80)]
    cut = experiment(**ALONE, test_size=20)
    assert [len(cut.loaded.splits[name]) for name in ("test", "mismatched")] == [20, 20]


# --- what is left, and looks inside --------------------------------------------------------------------------------------


def test_table_3_export_and_views(tmp_path):
    e = experiment(sections=["main"])
    rows = e.data_rows()
    assert [(r["task"], r["split"], r["samples"]) for r in rows] == [
        *(("tiny/text", name, n) for name, n in (("train", 60), ("validation", 24), ("test", 30))),
        *(("tiny/other", name, n) for name, n in (("train", 60), ("validation", 24), ("test", 30))),
        ("tiny/text (pool)", "pool base", 20), ("tiny/text (pool)", "pool large", 40)]  # fmt: skip
    assert all(3 <= r["words_first"] <= 12 and r["words_second"] is None for r in rows)
    folder = e.export(tmp_path)
    assert (folder / "heads.safetensors").is_file()
    assert models.load(folder).n_heads == 3
    assert experiment(sections=[]).export(tmp_path) is None

    plan = e.own(0)
    table = views.head_scores(e, plan)
    assert table.index.tolist() == ["golden", "soft 0", "soft 1", "soft 2", "vote of all (Eq. 6)"]
    assert table["accuracy"].iloc[-1] == pytest.approx(e.make(plan).metrics["test"]["accuracy"])
    assert views.head_distances(e, plan).shape == (3, 3)
    said = views.pool_logits(e, 0, "large")
    assert said.shape == (3, 40, 3)
    sure = views.sureness(e, 0)
    assert len(sure) == 3 * (60 + 30 + 20)
    means = sure.groupby("texts")["right"].mean()
    assert means["test"] == pytest.approx(np.mean([m.metrics["test"]["accuracy"] for m in e.teacher_set(0)]))
    assert np.isnan(means["pool"])
    assert sure["probability"].between(1 / 3, 1).all()
