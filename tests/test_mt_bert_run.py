"""MT-BERT's experiment on a tiny task: three families, three tokenisers, a few steps; which models are asked for, from
which seeds and starts, and what their rows say."""

import doctest
import json
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_text_task

from mtkd import study as experiments
from mtkd.data.tasks import Split
from mtkd.errors import KitError
from mtkd.models import names as models
from mtkd.papers import mt_bert, mt_bert_checks, mt_bert_plans, mt_bert_recipes, mt_bert_run, mt_bert_scores
from mtkd.papers import mt_bert_outcome as outcome
from mtkd.papers import mt_bert_views as views
from mtkd.papers.mt_bert_plans import plans
from mtkd.papers.mt_bert_run import Experiment
from mtkd.rules.selection import Everyone, InverseLoss
from mtkd.store.artifacts import Store, tensors_load, tensors_save
from mtkd.train import loop as train
from mtkd.train.recipes import Optimisation
from mtkd.train.teachers import logits_of

OPT = Optimisation(epochs=1, batch_size=16, lr=3e-3)
NAMES = ("roberta-scratch-2x16h2", "mpnet-scratch-2x16h2", "scratch-2x16h2")
ROW = {"arm", "task", "kind", "method", "variant", "repeat", "layers", "teachers", "model", "metric", "score", "metrics",
       "split", "validation", "n_test", "right", "one_answer",
       "parameters", "time", "energy_kwh", "peak_memory_mib", "samples_per_second",
       "folder"}  # fmt: skip


def experiment(**changes) -> Experiment:
    settings = {"task": "tiny", "teachers": NAMES, "student_depths": (1,), "teacher_optimisation": OPT,
                "student_optimisation": OPT, "intermediate_optimisation": OPT, "query_size": 8, "vocab": 150,
                "max_length": 16, "weak_teachers": "mark"}  # fmt: skip
    return Experiment(**{**settings, **changes})


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(experiments, "load_task", lambda name, **options: replace(make_text_task(), name=name))


# --- plans and seeds -----------------------------------------------------------------------------------------------------


def test_doctests():
    for module in (mt_bert_checks, mt_bert_plans, mt_bert_scores):
        result = doctest.testmod(module)
        assert result.attempted
        assert not result.failed


def test_the_papers_counts():
    asked = plans(("a", "b", "c"), 2, (6, 4), mt_bert_scores.SECTIONS, True, 0)
    assert len(asked) == len(set(asked))
    counts = Counter((p.arm, p.kind) for p in asked)
    # per depth: MT-BERT and three baselines twice; three controls at one depth
    assert counts == {("main", "student"): 2 * 7, ("main", "undistilled"): 2, ("main", "control"): 3,
                      ("combinations", "student"): 7, ("ablations", "student"): 6, ("ensembles", "student"): 3,
                      ("poolers", "student"): 3}  # fmt: skip
    assert {p.depth for p in asked if p.arm != "main"} == {6}


def test_a_combination_starts_from_one_of_its_own():
    for plan in plans(NAMES, 0, (1,), ("combinations",), True, 0):
        assert plan.source in plan.members
        assert plan.source == (0 if 0 in plan.members else plan.members[-1])


def test_or_all_combinations_start_alike():
    asked = plans(NAMES, 0, (1,), ("main", "combinations"), True, 0, start="fixed")
    fixed = [p for p in asked if p.fixed]
    assert [p.members for p in fixed] == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert {(p.arm, p.source) for p in fixed} == {("combinations", 0)}
    assert not any(p.fixed for p in plans(NAMES, 0, (1,), mt_bert_scores.SECTIONS, True, 0))
    tables = plans(("t.parquet", "b"), 1, (1,), ("combinations",), True, 0, start="fixed")
    assert [p.members for p in tables] == [(0,), (1,), (0, 1)]  # a table alone will do: the layers are not its own


def test_baselines_follow_one_teacher_their_own_or_mt_berts():
    asked = [p for p in plans(NAMES, 2, (1,), ("main",), True, 0) if p.method == "pkd"]
    own, same = asked
    assert (own.variant, own.members, own.source, own.set_of) == ("own", (0,), 0, ())
    assert (same.variant, same.members, same.source, same.set_of) == ("same", (2,), 2, (0, 1, 2))
    tables = plans(("t.parquet", "b"), 1, (1,), ("main", "combinations"), True, 0)
    assert "own" not in {p.variant for p in tables}
    assert [p.members for p in tables if p.arm == "combinations"] == [(1,), (0, 1)]  # a table alone gives no layers


def test_no_two_repeats_nor_teacher_and_student_share_a_seed():
    e = experiment(repeats=(0, 1, 2))
    teachers = {e.teacher_seed(r, p) for r in e.repeats for p in e.everyone}
    assert len(teachers) == 9
    assert len(teachers | {e.student_seed(r) for r in e.repeats}) == 12
    assert e.seeds() == sorted(teachers | {e.student_seed(r) for r in e.repeats})
    assert not set(e.seeds()) & set(experiment(repeats=(0, 1, 2), seed=1).seeds())


@pytest.mark.parametrize(("changes", "says"), [
    ({"student_init": "scratch"}, "student_init is 'scratch'; there are teacher, pretrained"),
    ({"pooler": "max"}, "attentive, mean, cls"), ({"sections": ("main", "table2")}, "no such section: 'table2'"),
    ({"student_from": 3}, "student_from is 3, and there are 3 teachers"), ({"student_depths": ()}, "at least one teacher"),
    ({"teachers": ("scratch-2x16", "scratch-2x16h2")}, "must differ"),
    ({"teachers": (NAMES[0], "said.parquet")}, "a table of logits, which has no layers"),
    ({"combination_start": "unilm"}, "combination_start is 'unilm'; there are own, fixed"),
    ({"combination_start": "fixed", "teachers": (NAMES[0], "finished:here")}, "here is a finished teacher"),
    ({"temperature": 0.0}, "temperature is 0, and it must be above 0"), ({"temperature": -1.0}, "must be above 0"),
    ({"query_size": 0}, "query_size is 0, and an attention query needs a size of at least 1"),
    ({"repeats": ()}, "repeats is empty"), ({"repeats": (0, 1, 0)}, r"repeats is \[0, 1, 0\], in which one number comes twice"),
    ({"student_depths": (1, 1)}, r"student_depths is \[1, 1\], in which one number comes twice"),
    ({"weights": {"task": 0.0, "distillation": 0.0, "hidden": 1.0}}, "task_weight and distillation_weight are both 0"),
    ({"weights": {"task": 1.0, "distillation": 0.0, "hidden": 1.0}}, "the section ablations leaves out the task loss"),
    ({"weights": {"task": 1.0, "distillation": 1.0, "hidden": -1.0}}, "hidden_weight is -1, and a weight cannot be below 0"),
])
def test_parameters_that_contradict_each_other_are_refused(changes, says):
    with pytest.raises(KitError, match=says):
        experiment(**changes)


@pytest.mark.parametrize(("teachers", "depths", "deepest"), [
    (NAMES, (3,), 2), (NAMES, (1, 3), 2), (("bottom-1 of scratch-4x16h2", NAMES[0]), (2,), 1),
    (("every-2 of scratch-4x16h2", NAMES[0]), (3,), 2), ((*NAMES[:2], "tinybert"), (4,), 2),
])
def test_a_student_deeper_than_a_teacher_is_refused_before_any_training(teachers, depths, deepest, monkeypatch):
    monkeypatch.setattr(train, "fit", lambda *a, **k: pytest.fail("something was trained first"))
    e = experiment(teachers=teachers, student_depths=depths)
    with pytest.raises(KitError, match=rf"student_depths asks for {max(depths)} layers, and the teacher .* has {deepest}\."):
        all_rows(e)


def test_depths_are_read_from_configs_too():
    donor = experiment(teachers=("xlnet-scratch-1x16h2",), sections=())
    folder = donor.teacher_set(0, (0,))[0].folder
    assert mt_bert_checks.layers_of(f"finished:{folder}") == mt_bert_checks.layers_of(str(folder)) == 1
    with pytest.raises(KitError, match="asks for 2 layers, and the teacher teacher-0 has 1"):
        _ = experiment(teachers=(f"finished:{folder}", NAMES[2]), student_depths=(2,)).prepared
    assert experiment(student_depths=(9,), sections=()).prepared  # no student is asked for
    assert experiment(student_depths=(1, 9), sections=("ensembles",)).prepared  # nor one of the second depth


# --- recipes -------------------------------------------------------------------------------------------------------------


def test_the_recipe_is_equation_3_and_its_switches():
    (stage,) = mt_bert_recipes.mt_bert(OPT, temperature=2.0).stages
    assert [(t.loss, t.weight, t.combine) for t in stage.terms] == [
        ("cross_entropy", 1.0, "logits"), ("soft_cross_entropy", 1.0, "losses"), ("multi_hidden", 1.0, "logits")]
    assert stage.terms[1].selection == InverseLoss()
    assert stage.terms[1].temperature == 2.0
    assert stage.terms[2].selection == Everyone()
    (plain,) = mt_bert_recipes.mt_bert(OPT, weighting=False, hidden=0.0).stages
    assert [t.loss for t in plain.terms] == ["cross_entropy", "soft_cross_entropy"]
    assert plain.terms[1].selection == Everyone()
    (tables,) = mt_bert_recipes.mt_bert(OPT, layered=()).stages
    assert [t.loss for t in tables.terms] == ["cross_entropy", "soft_cross_entropy"]
    with pytest.raises(KitError, match="at least one of them"):
        mt_bert_recipes.mt_bert(OPT, task=0.0, distillation=0.0)


def test_recipes_of_the_baselines():
    (stage,) = mt_bert_recipes.pkd(OPT, pairs=5, width=768, beta=100.0).stages
    assert [(t.loss, round(t.weight, 6)) for t in stage.terms] == [
        ("cross_entropy", 0.5), ("soft_cross_entropy", 0.5), ("patience", round(100 / (5 * 768), 6))]
    assert (stage.terms[1].temperature, stage.terms[1].t_squared) == (10.0, True)
    inner, _ = mt_bert_recipes.tinybert(OPT, OPT, attention=False).stages
    assert [t.loss for t in inner.terms] == ["embedding_mse", "hidden_mse"]
    (liu,) = mt_bert_recipes.liu_2020(OPT, classes=2, width=16).stages
    assert liu.terms[1].options["space"] == "states"  # two classes: their outputs lie on a line
    assert liu.terms[2].weight == 16.0
    (you,) = mt_bert_recipes.you_2017(OPT, layered=(0, 2)).stages
    assert you.terms[2].selection.members(3) == (0, 2)


def test_ablations_and_controls_change_one_thing():
    e = experiment(sections=("main", "ablations"))
    by = {p.variant: p for p in e.plans(0) if p.arm == "ablations" or p.kind == "control"}
    followed = list(e.teacher_set(0, e.everyone).values())
    losses = {name: [t.loss for t in e.recipe(plan, followed).stages[0].terms] for name, plan in by.items()}
    full = ["cross_entropy", "soft_cross_entropy", "multi_hidden"]
    assert losses["full"] == losses["no_cofinetuning"] == losses["no_weighting"] == full
    for name, gone in (("no_task", 0), ("no_distillation", 1), ("no_hidden", 2)):
        assert losses[name] == full[:gone] + full[gone + 1 :]
    assert e.recipe(by["shuffled_teacher"], followed).teachers.control == "shuffled"
    assert losses["shuffled_teacher"] == losses["uniform_teacher"] == full[:2]  # true states would give the sample away
    assert not by["no_cofinetuning"].joint


# --- a small real run ----------------------------------------------------------------------------------------------------


def test_three_families_with_three_tokenisers_teach_one_student_and_every_loss_falls():
    long = replace(OPT, epochs=12)
    e = experiment(teacher_optimisation=long, student_optimisation=long, sections=(), student_init="pretrained",
                   student_head="new")  # a start from the teachers would leave little to fall
    teachers = e.teacher_set(0, e.everyone)
    assert len({m.info["input"] for m in teachers.values()}) == 3  # three tokenisers
    assert [models.load(m.folder).encoder.config.model_type for m in teachers.values()] == ["roberta", "mpnet", "bert"]
    start, end = teachers[0].info["history"]["losses"]["cross_entropy"]
    assert end < 0.7 * start
    assert len({m.folder.parent for m in teachers.values()}) == 1  # one artifact for the set
    student = e.make(outcome.full_plan(e, 0))
    fell = student.info["history"]["losses"]
    assert set(fell) == {"cross_entropy", "soft_cross_entropy", "multi_hidden"}
    for name, (start, end) in fell.items():
        assert end < 0.95 * start, name
    assert student.metrics["test"]["accuracy"] > 0.5  # three classes


def test_the_student_starts_from_the_source_and_the_shared_head(monkeypatch):
    seen = {}

    def still(network, data, stage, *args, **options):
        seen["state"] = {k: v.clone() for k, v in network.state_dict().items()}
        return original(network, data, stage, *args, **options)

    original = train.fit
    e = experiment(sections=())
    source = e.teacher_set(0, e.everyone)[2].network().state_dict()
    monkeypatch.setattr(train, "fit", still)
    e.make(outcome.full_plan(e, 0))
    layer = "encoder.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(seen["state"][layer], source[layer])
    assert torch.equal(seen["state"]["dense.weight"], source["dense.weight"])
    assert torch.equal(seen["state"]["pooler.query.weight"], source["pooler.query.weight"])
    assert not any(".layer.1." in name for name in seen["state"])
    fresh = experiment(sections=(), student_init="pretrained", student_head="new")
    fresh.make(outcome.full_plan(fresh, 0))
    assert not torch.equal(seen["state"][layer], source[layer])
    assert not torch.equal(seen["state"]["dense.weight"], source["dense.weight"])


def test_a_fixed_start_is_the_source_before_fine_tuning_and_the_head_of_the_set(monkeypatch):
    """Students of all combinations differ in nothing but their teachers; UniLM's layers need not come from a teacher."""
    starts = []

    def still(network, *args, **options):
        starts.append({k: v.clone() for k, v in network.state_dict().items()})
        return original(network, *args, **options)

    original = train.fit
    e = experiment(sections=("combinations",), combination_start="fixed")
    asked = [p for p in e.plans(0) if p.members in ((0,), (0, 1), (0, 1, 2))]
    sets = [e.set_of(p) for p in asked]
    monkeypatch.setattr(train, "fit", still)
    rows = [e.student_row(p) for p in asked]
    assert {r["model"] for r in rows} == {f"bottom-1 of {NAMES[2]} + attentive-8"}
    assert [r["teachers"] for r in rows] == [[NAMES[0]], [*NAMES[:2]], [*NAMES]]
    inner = [name for name in starts[0] if name.startswith("encoder.")]
    assert inner
    assert all(torch.equal(start[name], starts[0][name]) for start in starts for name in inner)
    for start, found in zip(starts, sets, strict=True):
        head = next(iter(found.values())).network()
        assert torch.equal(start["dense.weight"], head.dense.weight)
        assert torch.equal(start["pooler.query.weight"], head.pooler.query.weight)
    layer = "encoder.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(starts[0][layer], sets[-1][2].network().state_dict()[layer])


def test_a_teacher_starts_alike_in_every_set_of_a_repeat(monkeypatch):
    starts = {}

    def still(network, *args, **options):
        families = tuple(encoder.config.model_type for encoder in network.encoders)
        starts[families] = {family: encoder.get_input_embeddings().weight.detach().clone()
                            for family, encoder in zip(families, network.encoders)}
        return original(network, *args, **options)

    original = train.fit
    monkeypatch.setattr(train, "fit", still)
    e = experiment(sections=())
    for positions in ((0, 1, 2), (1, 2), (0, 2), (1,), (2,)):
        e.teacher_set(0, positions)
    assert len(starts) == 5
    for found in starts.values():
        for family, weights in found.items():
            assert torch.equal(weights, starts["roberta", "mpnet", "bert"][family])


def test_a_finished_teacher_is_read_once(monkeypatch):
    folder = experiment(teachers=(NAMES[2],), sections=()).teacher_set(0, (0,))[0].folder
    original, read = experiments.finished_teacher, []
    monkeypatch.setattr(mt_bert_run, "finished_teacher", lambda *a: read.append(a) or original(*a))
    e = experiment(teachers=(f"finished:{folder}", *NAMES[:2]), student_from=1, sections=("combinations",))
    for plan in e.plans(0):
        e.reads(plan)
        e.finished(0, 0)
    assert len(read) == 1


def all_rows(e: Experiment) -> list[dict]:
    return [row for r in e.repeats for row in (*e.teacher_rows(r), *e.result_rows(r))]


def test_rows_keep_the_contract_and_nothing_is_trained_twice(monkeypatch):
    e = experiment()
    first, second = e.jobs()
    for job in [*first, *second]:
        job()
    monkeypatch.setattr(train, "fit", lambda *a, **k: pytest.fail("something was left to train, or trained again"))
    e = experiment()
    rows = all_rows(e)
    json.dumps(rows)  # scalars and short lists only
    assert Counter(r["arm"] for r in rows) == {"teachers": 8, "main": 11, "combinations": 7, "ablations": 6, "ensembles": 3,
                                               "poolers": 3}  # fmt: skip
    for row in rows:
        assert set(row) == ROW
        assert row["score"] == row["metrics"]["accuracy"]
        assert 0 <= row["score"] <= 1
        assert (row["metric"], row["split"], row["n_test"], row["repeat"]) == ("accuracy", "test", 30, 0)
        assert all(v >= 0 for v in row["time"].values())
        if row["folder"]:
            assert (Store().folder / row["folder"] / "config.json").is_file()
    frame = mt_bert.rows_frame([{"paper": "mt_bert", "tier": "demo", "parameters": {}, "rows": rows}])
    assert len(frame) == len(rows)  # no two rows are the same model of the same section
    check(rows)
    assert rows == all_rows(experiment())
    above = views.headroom(rows)
    untaught = next(r["score"] for r in rows if r["kind"] == "undistilled")
    for how, method in (("alone", "independent"), ("co-finetuned", "cofinetuned")):
        score, = (r["score"] for r in rows if r["kind"] == "teacher" and (r["method"], r["teachers"]) == (method, [NAMES[1]]))
        found = above.loc[(how, "MPNet 2x16"), "points above the undistilled student"]
        assert found == pytest.approx(100 * (score - untaught), abs=0.06)
    assert len(above) == 2 * 4
    assert views.headroom([r for r in rows if r["arm"] == "teachers"]).empty
    bill = outcome.bill(e)
    made = {r["folder"]: r["time"]["train_s"] + r["time"]["intermediate_s"] for r in rows if r["folder"]}
    inner = sum(1 for r in rows if r["time"]["intermediate_s"])
    pairs = 3 * 2 + 2 * 3  # teachers of three pairs, and of the two other poolers, have no row of their own
    assert bill["models"] == len(made) + inner + pairs
    assert bill["training_s"] > sum(made.values())


def check(rows):
    by = {(r["arm"], r["kind"], r["method"], r["variant"], tuple(r["teachers"])): r for r in rows}
    full = by["main", "student", "mt_bert", None, NAMES]
    same = [by["combinations", "student", "mt_bert", None, NAMES], by["ablations", "student", "mt_bert", "full", NAMES],
            by["ensembles", "student", "mt_bert", None, NAMES], by["poolers", "student", "mt_bert", "attentive", NAMES]]
    assert {r["folder"] for r in same} == {full["folder"]}  # one model, a row in every section
    teachers = [r for r in rows if r["kind"] == "teacher" and r["method"] == "cofinetuned"]
    assert full["time"]["teachers_s"] == pytest.approx(sum(r["time"]["train_s"] for r in teachers))
    undistilled = next(r for r in rows if r["kind"] == "undistilled")
    assert (undistilled["teachers"], undistilled["time"]["teachers_s"]) == ([], 0)
    assert full["parameters"] == undistilled["parameters"] < min(r["parameters"] for r in teachers)
    tiny = by["main", "student", "tinybert", "own", NAMES[:1]]
    assert tiny["time"]["intermediate_s"] > 0
    folders = [r["folder"] for r in rows if r["folder"] and r not in same]
    assert len(folders) == len(set(folders))
    mean = [r for r in rows if r["kind"] == "ensemble"]
    assert {r["method"] for r in mean} == {"cofinetuned", "independent"}
    assert mean[0]["parameters"] == sum(r["parameters"] for r in teachers)


# --- teachers made elsewhere ---------------------------------------------------------------------------------------------


def test_finished_teachers_and_tables_of_logits_teach_too(tmp_path):
    task = make_text_task()
    donor = experiment(teachers=(NAMES[2],), sections=())
    folder = donor.teacher_set(0, (0,))[0].folder
    rng = np.random.default_rng(0)
    ids = [i for split in task.splits.values() for i in split.ids]
    labels = np.concatenate([split.labels for split in task.splits.values()])
    table = pd.DataFrame(np.eye(3)[labels] * 4 + rng.normal(0, 1, (len(ids), 3)), columns=task.classes).assign(id=ids)
    table.to_parquet(tmp_path / "said.parquet")
    e = experiment(teachers=(str(tmp_path / "said.parquet"), f"finished:{folder}", NAMES[0]), sections=("main", "ensembles"))
    rows = all_rows(e)
    said = next(r for r in rows if r["kind"] == "teacher" and r["teachers"][0].endswith("said.parquet"))
    assert said["score"] > 0.9
    assert (said["parameters"], said["folder"]) == (None, None)
    full = next(r for r in rows if r["method"] == "mt_bert" and r["kind"] == "student")
    assert len(full["teachers"]) == 3
    student = e.make(outcome.full_plan(e, 0))
    assert "multi_hidden" in student.info["history"]["losses"]  # of the two that have layers
    assert "own" not in {r["variant"] for r in rows}


def test_sizes_of_runs_come_from_their_records():
    made = {"task": "tiny", "teacher_epochs": 3, "student_epochs": 2, "teachers": NAMES}
    data = [{"split": name, "samples": n} for name, n in (("train", 60), ("validation", 24), ("test", 30))]
    runs = [{"tier": "demo", "parameters": made | {"sections": [s]}, "data": data, "rows": [{"repeat": r}, {"repeat": 0}]}
            for s, r in (("main", 0), ("main", 1), ("poolers", 1))]  # fmt: skip
    table = views.sizes_of([*runs, runs[0] | {"parameters": made | {"student_epochs": 9}}])
    assert table.to_numpy().tolist() == [["demo", "tiny", "60 / 24 / 30", f"3 / {epochs}", 3, repeats]
                                         for epochs, repeats in ((2, 2), (9, 1))]  # fmt: skip
    assert views.sizes_of([]).empty


def test_what_a_finished_teacher_once_said_of_other_samples_is_not_taken_for_what_it_says(tmp_path):
    donor = experiment(teachers=(NAMES[2],), sections=())
    made = donor.teacher_set(0, (0,))[0]
    folder = shutil.copytree(made.folder.parent, tmp_path / "elsewhere") / "teacher-0"
    stored = tensors_load(folder / "logits-test.safetensors")
    tensors_save(folder / "logits-test.safetensors", {"logits": -stored["logits"], "ids": stored["ids"]})
    e = experiment(teachers=(f"finished:{folder}", NAMES[0]), sections=())
    model = experiments.measured(e.prepared, e.finished(0, 0))
    assert torch.allclose(experiments.answers(e.prepared, model, "test"), made.logits("test"), atol=1e-5)
    assert model.metrics["test"] == pytest.approx(made.metrics["test"])


# --- what is left, and looks inside --------------------------------------------------------------------------------------


def test_export_submissions_and_views(tmp_path):
    e = experiment(sections=("ensembles",))
    task = e.whole
    e.__dict__["whole"] = replace(task, name="glue/mnli", splits={**task.splits, "hidden_test": Split(
        [f"test/{i}" for i in range(6)], task.splits["test"].inputs[:6], np.full(6, -1))})
    folder = outcome.export(e, tmp_path)
    best = outcome.best_student(e)
    assert (folder / "model.safetensors").read_bytes() == (best.folder / "model.safetensors").read_bytes()
    assert models.load(folder).dense.out_features == 3
    (file,) = outcome.write_submissions(e, tmp_path)
    assert len(file.read_text().splitlines()) == 7
    assert outcome.export(experiment(sections=()), tmp_path) is None
    assert [(r["split"], r["samples"], r["classes"]) for r in outcome.data_rows(e)] == [
        ("train", 60, 3), ("validation", 24, 3), ("test", 30, 3)]

    text = "the old boat"
    matrix = views.alignment(e.prepared, e.prepared.of(NAMES[0]), text)
    assert set(np.round(matrix.sum(axis=1), 5)) == {1.0}
    assert matrix.iloc[0, 0] == 1.0  # [CLS] meets <s>
    assert len(views.alignment_figure(e, text).content.axes) == 2
    model = e.teacher_set(0, e.everyone)[1]
    assert views.looked_at(e, model, text).sum() == pytest.approx(1.0, abs=1e-5)
    table = views.sample_weights(e, 0)
    assert len(table) == 3 * 60
    one = table[(table["teacher"] == "MPNet 2x16") & (table["sample"] == 7)].iloc[0]
    logits = logits_of(e.prepared, model, "train")[7].softmax(-1)
    assert one["weight"] == pytest.approx(1 / (1 - torch.log(logits[task.splits["train"].labels[7]]).item()), abs=1e-5)
    assert one["says"] == ("right" if logits.argmax() == task.splits["train"].labels[7] else "wrong")
    assert len(views.weights_figure(table).content.axes) == 3
