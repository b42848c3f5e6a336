"""MT-BERT's study: which students there are, what they start from and learn by, what their rows say; three families with three
tokenisers."""

import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_text_task
from notebook_names import defined_in
from tiny_studies import NAMES, OPT, all_rows, hidden_rows, kept, study_of, tiny  # noqa: F401

from mtkd.errors import KitError
from mtkd.models import names as models
from mtkd.papers import mt_bert_students as recipes
from mtkd.papers import mt_bert_study as paper
from mtkd.papers.mt_bert_scores import SECTIONS
from mtkd.papers.mt_bert_students import students
from mtkd.rules.selection import Everyone, InverseLoss
from mtkd.store.artifacts import tensors_load, tensors_save
from mtkd.train import loop as train
from mtkd.train.answers import answers
from mtkd.train.teachers import logits_of

views = defined_in("mt_bert")


def experiment(**changes) -> paper.Experiment:
    return study_of("mt_bert", **changes)


def asked(names=NAMES, source=2, depths=(1,), sections=SECTIONS, start="own"):
    return list(students(SimpleNamespace(teachers=tuple(names), student_from=source, baseline_teacher=0, student_depths=depths,
                                         sections=sections, controls=True, combination_start=start)))


# --- which students ------------------------------------------------------------------------------------------------------


def test_the_papers_counts():
    found = asked(("a", "b", "c"), 2, (6, 4))
    assert len(found) == len(set(found))
    # per depth: MT-BERT and three baselines twice; three controls at one depth
    assert Counter((s.arm, s.kind) for s in found) == {
        ("main", "student"): 2 * 7, ("main", "undistilled"): 2, ("main", "control"): 3, ("combinations", "student"): 7,
        ("ablations", "student"): 6, ("ensembles", "student"): 3, ("poolers", "student"): 3}  # fmt: skip
    assert {s.depth for s in found if s.arm != "main"} == {6}


def test_a_combination_starts_from_one_of_its_own_or_all_start_alike():
    for s in asked(source=0, sections=("combinations",)):
        assert s.source == (0 if 0 in s.members else s.members[-1])
        assert s.set_of == s.members
    every = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    fixed = [s for s in asked(source=0, start="fixed") if s.fixed]
    assert [s.members for s in fixed] == every
    assert {(s.arm, s.source) for s in fixed} == {("combinations", 0)}
    tables = ("t.parquet", "b")
    assert [s.members for s in asked(tables, 1, sections=("combinations",))] == [(1,), (0, 1)]  # a table gives no layers
    assert [s.members for s in asked(tables, 1, sections=("combinations",), start="fixed")] == [(0,), (1,), (0, 1)]


def test_baselines_follow_one_teacher_their_own_or_mt_berts():
    own, same = (s for s in asked(sections=("main",)) if s.method == "pkd")
    assert (own.variant, own.members, own.source, own.set_of) == ("own", (0,), 0, (0,))
    assert (same.variant, same.members, same.source, same.set_of) == ("same", (2,), 2, (0, 1, 2))
    assert "own" not in {s.variant for s in asked(("t.parquet", "b"), 1, sections=("main",))}


@pytest.mark.parametrize(("teachers", "depths", "deepest"), [
    (NAMES, [3], 2), (NAMES, [1, 3], 2), (["bottom-1 of scratch-4x16h2", NAMES[0]], [2], 1),
    (["every-2 of scratch-4x16h2", NAMES[0]], [3], 2), ([*NAMES[:2], "tinybert"], [4], 2),
])
def test_a_student_deeper_than_a_teacher_is_refused_before_any_training(teachers, depths, deepest, monkeypatch):
    monkeypatch.setattr(train, "fit", lambda *a, **k: pytest.fail("something was trained first"))
    with pytest.raises(KitError, match=rf"student_depths asks for {max(depths)} layers, and the teacher .* has {deepest}\."):
        all_rows(experiment(teachers=teachers, student_depths=depths))


def test_depths_are_read_from_configs_too():
    folder = experiment(teachers=["xlnet-scratch-1x16h2"], sections=[]).teacher_set(0)[0].folder
    assert paper.layers_of(f"finished:{folder}") == paper.layers_of(str(folder)) == 1
    with pytest.raises(KitError, match="asks for 2 layers, and the teacher teacher-0 has 1"):
        _ = experiment(teachers=[f"finished:{folder}", NAMES[2]], student_depths=[2]).prepared
    assert experiment(student_depths=[9], sections=[]).prepared  # no student is asked for
    assert experiment(student_depths=[1, 9], sections=["ensembles"]).prepared  # nor one of the second depth


# --- recipes -------------------------------------------------------------------------------------------------------------


def test_the_recipe_is_equation_3_and_its_switches():
    (stage,) = recipes.mt_bert(OPT, temperature=2.0).stages
    assert [(t.loss, t.weight, t.combine) for t in stage.terms] == [
        ("cross_entropy", 1.0, "logits"), ("soft_cross_entropy", 1.0, "losses"), ("multi_hidden", 1.0, "logits")]
    assert [t.selection for t in stage.terms] == [None, InverseLoss(), Everyone()]
    assert stage.terms[1].temperature == 2.0
    (plain,) = recipes.mt_bert(OPT, weighting=False, hidden=0.0).stages
    assert [(t.loss, t.selection) for t in plain.terms] == [("cross_entropy", None), ("soft_cross_entropy", Everyone())]
    (tables,) = recipes.mt_bert(OPT, layered=()).stages
    assert [t.loss for t in tables.terms] == ["cross_entropy", "soft_cross_entropy"]
    with pytest.raises(KitError, match="at least one of them"):
        recipes.mt_bert(OPT, task=0.0, distillation=0.0)


def test_recipes_of_the_baselines():
    (stage,) = recipes.pkd(OPT, pairs=5, width=768, beta=100.0).stages
    assert [(t.loss, round(t.weight, 6)) for t in stage.terms] == [
        ("cross_entropy", 0.5), ("soft_cross_entropy", 0.5), ("patience", round(100 / (5 * 768), 6))]
    assert (stage.terms[1].temperature, stage.terms[1].t_squared) == (10.0, True)
    inner, _ = recipes.tinybert(OPT, OPT, attention=False).stages
    assert [t.loss for t in inner.terms] == ["embedding_mse", "hidden_mse"]
    (liu,) = recipes.liu_2020(OPT, classes=2, width=16).stages
    assert liu.terms[1].options["space"] == "states"  # two classes: their outputs lie on a line
    assert liu.terms[2].weight == 16.0
    (you,) = recipes.you_2017(OPT, layered=(0, 2)).stages
    assert you.terms[2].selection.members(3) == (0, 2)


def test_ablations_and_controls_change_one_thing():
    e = experiment(sections=["main", "ablations"])
    by = {s.variant: s for s in e.students(0) if s.arm == "ablations" or s.kind == "control"}
    losses = {name: [t.loss for t in e.recipe(s).stages[0].terms] for name, s in by.items()}
    full = ["cross_entropy", "soft_cross_entropy", "multi_hidden"]
    assert losses["full"] == losses["no_cofinetuning"] == losses["no_weighting"] == full
    for name, gone in (("no_task", 0), ("no_distillation", 1), ("no_hidden", 2)):
        assert losses[name] == full[:gone] + full[gone + 1 :]
    assert e.recipe(by["shuffled_teacher"]).teachers.control == "shuffled"
    assert losses["shuffled_teacher"] == losses["uniform_teacher"] == full[:2]  # true states would give the sample away
    assert not by["no_cofinetuning"].joint


# --- a small real run ----------------------------------------------------------------------------------------------------


def test_three_families_with_three_tokenisers_teach_one_student_and_every_loss_falls():
    e = experiment(teacher_epochs=12, student_epochs=12, sections=[], student_init="pretrained",
                   student_head="new")  # a start from the teachers would leave little to fall
    teachers = e.teacher_set(0)
    assert len({m.info["input"] for m in teachers.values()}) == 3  # three tokenisers
    assert [models.load(m.folder).encoder.config.model_type for m in teachers.values()] == ["roberta", "mpnet", "bert"]
    start, end = teachers[0].info["history"]["losses"]["cross_entropy"]
    assert end < 0.7 * start
    assert len({m.folder.parent for m in teachers.values()}) == 1  # one artifact for the set
    student = e.make(e.own(0))
    fell = student.info["history"]["losses"]
    assert set(fell) == {"cross_entropy", "soft_cross_entropy", "multi_hidden"}
    for name, (start, end) in fell.items():
        assert end < 0.95 * start, name
    assert student.metrics["test"]["accuracy"] > 0.5  # three classes


@pytest.fixture
def starts(monkeypatch):
    """The states that networks have when their training begins."""
    found, original = [], train.fit

    def still(network, *args, **options):
        found.append({k: v.clone() for k, v in network.state_dict().items()})
        return original(network, *args, **options)

    monkeypatch.setattr(train, "fit", still)
    return found


LAYER = "encoder.encoder.layer.0.attention.self.query.weight"


def test_the_student_starts_from_the_source_and_the_shared_head(starts):
    e = experiment(sections=[])
    source = e.teacher_set(0)[2].network().state_dict()
    e.make(e.own(0))
    fresh = experiment(sections=[], student_init="pretrained", student_head="new")
    fresh.make(fresh.own(0))
    _, seen, new = starts
    for name in (LAYER, "dense.weight", "pooler.query.weight"):
        assert torch.equal(seen[name], source[name])
        assert not torch.equal(new[name], source[name])
    assert not any(".layer.1." in name for name in seen)


def test_a_fixed_start_is_the_source_before_fine_tuning_and_the_head_of_the_set(starts):
    """Students of all combinations differ in nothing but their teachers; UniLM's layers need not come from a teacher."""
    e = experiment(sections=["combinations"], combination_start="fixed")
    some = [s for s in e.students(0) if s.members in ((0,), (0, 1), (0, 1, 2))]
    sets = [e.set_of(s) for s in some]
    starts.clear()
    rows = [row for s in some for row in e.student_rows(s)]
    assert {r["model"] for r in rows} == {f"bottom-1 of {NAMES[2]} + attentive-8"}
    assert [r["teachers"] for r in rows] == [NAMES[:1], NAMES[:2], NAMES]
    inner = [name for name in starts[0] if name.startswith("encoder.")]
    assert all(torch.equal(start[name], starts[0][name]) for start in starts for name in inner)
    for start, found in zip(starts, sets, strict=True):
        head = next(iter(found.values())).network()
        assert torch.equal(start["dense.weight"], head.dense.weight)
        assert torch.equal(start["pooler.query.weight"], head.pooler.query.weight)
    assert not torch.equal(starts[0][LAYER], sets[-1][2].network().state_dict()[LAYER])


def test_a_teacher_starts_alike_in_every_set_of_a_repeat(monkeypatch):
    found, original = {}, train.fit

    def still(network, *args, **options):
        families = tuple(encoder.config.model_type for encoder in network.encoders)
        found[families] = {family: encoder.get_input_embeddings().weight.detach().clone()
                           for family, encoder in zip(families, network.encoders)}
        return original(network, *args, **options)

    monkeypatch.setattr(train, "fit", still)
    e = experiment(sections=[])
    for positions in ((0, 1, 2), (1, 2), (0, 2), (1,), (2,)):
        e.teacher_set(0, positions)
    assert len(found) == 5
    for weights in found.values():
        for family, weight in weights.items():
            assert torch.equal(weight, found["roberta", "mpnet", "bert"][family])


def test_a_finished_teacher_is_read_once(monkeypatch):
    folder = experiment(teachers=NAMES[2:], sections=[]).teacher_set(0)[0].folder
    original, read = paper.finished_teacher, []
    monkeypatch.setattr(paper, "finished_teacher", lambda *a: read.append(a) or original(*a))
    e = experiment(teachers=[f"finished:{folder}", *NAMES[:2]], student_from=1, sections=["combinations"])
    for s in e.students(0):
        e.reads(s)
        e.finished(0, 0)
    assert len(read) == 1


def test_rows_keep_the_contract_and_nothing_is_trained_twice(monkeypatch):
    e, rows = kept("mt_bert", monkeypatch)
    assert Counter(r["arm"] for r in rows) == {"teachers": 8, "main": 11, "combinations": 7, "ablations": 6, "ensembles": 3,
                                               "poolers": 3}  # fmt: skip
    names = tuple(NAMES)
    by = {(r["arm"], r["kind"], r["method"], r["variant"], tuple(r["teachers"])): r for r in rows}
    full = by["main", "student", "mt_bert", None, names]
    same = [by["combinations", "student", "mt_bert", None, names], by["ablations", "student", "mt_bert", "full", names],
            by["ensembles", "student", "mt_bert", None, names], by["poolers", "student", "mt_bert", "attentive", names]]
    assert {r["folder"] for r in same} == {full["folder"]}  # one model, a row in every section
    teachers = [r for r in rows if r["kind"] == "teacher" and r["method"] == "cofinetuned"]
    assert full["time"]["teachers_s"] == pytest.approx(sum(r["time"]["train_s"] for r in teachers))
    undistilled = next(r for r in rows if r["kind"] == "undistilled")
    assert undistilled["teachers"] == []
    assert full["parameters"] == undistilled["parameters"] < min(r["parameters"] for r in teachers)
    assert by["main", "student", "tinybert", "own", names[:1]]["time"]["intermediate_s"] > 0
    folders = [r["folder"] for r in rows if r["folder"] and r not in same]
    assert len(folders) == len(set(folders))
    mean = [r for r in rows if r["kind"] == "ensemble"]
    assert {r["method"] for r in mean} == {"cofinetuned", "independent"}
    assert mean[0]["parameters"] == sum(r["parameters"] for r in teachers)
    made = {r["folder"]: r["time"]["train_s"] + r["time"]["intermediate_s"] for r in rows if r["folder"]}
    pairs = 3 * 2 + 2 * 3  # teachers of three pairs, and of the two other poolers, have no row of their own
    assert e.bill()["models"] == len(made) + sum(1 for r in rows if r["time"]["intermediate_s"]) + pairs
    assert e.bill()["training_s"] > sum(made.values())
    above = views.headroom(rows)
    for how, method in (("alone", "independent"), ("co-finetuned", "cofinetuned")):
        (score,) = (r["score"] for r in rows if r["kind"] == "teacher" and (r["method"], r["teachers"]) == (method, [NAMES[1]]))
        found = above.loc[(how, "MPNet 2x16"), "points above the undistilled student"]
        assert found == pytest.approx(100 * (score - undistilled["score"]), abs=0.06)
    assert len(above) == 2 * 4
    assert views.headroom([r for r in rows if r["arm"] == "teachers"]).empty


# --- teachers made elsewhere ---------------------------------------------------------------------------------------------


def test_finished_teachers_and_tables_of_logits_teach_too(tmp_path):
    task, rng = make_text_task(), np.random.default_rng(0)
    folder = experiment(teachers=NAMES[2:], sections=[]).teacher_set(0)[0].folder
    ids = [i for split in task.splits.values() for i in split.ids]
    labels = np.concatenate([split.labels for split in task.splits.values()])
    table = pd.DataFrame(np.eye(3)[labels] * 4 + rng.normal(0, 1, (len(ids), 3)), columns=task.classes).assign(id=ids)
    table.to_parquet(tmp_path / "said.parquet")
    e = experiment(teachers=[str(tmp_path / "said.parquet"), f"finished:{folder}", NAMES[0]], sections=["main", "ensembles"])
    rows = all_rows(e)
    said = next(r for r in rows if r["kind"] == "teacher" and r["teachers"][0].endswith("said.parquet"))
    assert said["score"] > 0.9
    assert (said["parameters"], said["folder"]) == (None, None)
    assert len(next(r for r in rows if r["method"] == "mt_bert" and r["kind"] == "student")["teachers"]) == 3
    assert "multi_hidden" in e.make(e.own(0)).info["history"]["losses"]  # of the two that have layers
    assert "own" not in {r["variant"] for r in rows}


def test_what_a_finished_teacher_once_said_of_other_samples_is_not_taken_for_what_it_says(tmp_path):
    made = experiment(teachers=NAMES[2:], sections=[]).teacher_set(0)[0]
    folder = shutil.copytree(made.folder.parent, tmp_path / "elsewhere") / "teacher-0"
    stored = tensors_load(folder / "logits-test.safetensors")
    tensors_save(folder / "logits-test.safetensors", {"logits": -stored["logits"], "ids": stored["ids"]})
    e = experiment(teachers=[f"finished:{folder}", NAMES[0]], sections=[])
    assert torch.allclose(answers(e.prepared, e.finished(0, 0), "test"), made.logits("test"), atol=1e-5)
    assert next(e.teacher_rows(0))["metrics"] == pytest.approx(made.metrics["test"])


# --- what is left, and looks inside --------------------------------------------------------------------------------------


def test_sizes_of_runs_come_from_their_records():
    made = {"task": "tiny", "teacher_epochs": 3, "student_epochs": 2, "teachers": NAMES}
    data = [{"split": name, "samples": n} for name, n in (("train", 60), ("validation", 24), ("test", 30))]
    runs = [{"tier": "demo", "parameters": made | {"sections": [s]}, "data": data, "rows": [{"repeat": r}, {"repeat": 0}]}
            for s, r in (("main", 0), ("main", 1), ("poolers", 1))]  # fmt: skip
    table = views.sizes_of([*runs, runs[0] | {"parameters": made | {"student_epochs": 9}}])
    assert table.to_numpy().tolist() == [["demo", "tiny", "60 / 24 / 30", f"3 / {epochs}", 3, repeats]
                                         for epochs, repeats in ((2, 2), (9, 1))]  # fmt: skip
    assert views.sizes_of([]).empty


def test_export_submissions_and_views(tmp_path):
    e = experiment(sections=["ensembles"])
    hidden_rows(e)
    folder, best = e.export(tmp_path), e.best_student()
    assert (folder / "model.safetensors").read_bytes() == (best.folder / "model.safetensors").read_bytes()
    assert models.load(folder).dense.out_features == 3
    (file,) = e.write_submissions(tmp_path)
    assert len(file.read_text().splitlines()) == 7
    assert experiment(sections=[]).export(tmp_path) is None

    text = "the old boat"
    matrix = views.alignment(e.prepared, e.prepared.of(NAMES[0]), text)
    assert set(np.round(matrix.sum(axis=1), 5)) == {1.0}
    assert matrix.iloc[0, 0] == 1.0  # [CLS] meets <s>
    assert views.looked_at(e.prepared, e.teacher_set(0)[1], text).sum() == pytest.approx(1.0, abs=1e-5)
    table = views.sample_weights(e, 0)
    assert len(table) == 3 * 60
    one = table[(table["teacher"] == "MPNet 2x16") & (table["sample"] == 7)].iloc[0]
    logits = logits_of(e.prepared, e.teacher_set(0)[1], "train")[7].softmax(-1)
    label = e.loaded.splits["train"].labels[7]
    assert one["weight"] == pytest.approx(1 / (1 - torch.log(logits[label]).item()), abs=1e-5)
    assert one["says"] == ("right" if logits.argmax() == label else "wrong")
