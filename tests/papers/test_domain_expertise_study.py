"""The thesis's experiments on tiny tasks: which students are asked for, from which start, with which seeds; their rows."""

import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CLASSES, make_text_task
from notebook_names import defined_in
from tiny_studies import OPT, SPAN, all_rows, kept, make_span_task, study_of, tiny  # noqa: F401

from mtkd.errors import KitError
from mtkd.papers import domain_expertise
from mtkd.papers import domain_expertise_students as recipes
from mtkd.papers import domain_expertise_study as paper
from mtkd.papers.domain_expertise_study import about, shown_names
from mtkd.rules.experts import ClassMixture, Expertise, RandomTeacher, choose
from mtkd.rules.selection import Confidence, Uniform
from mtkd.runs.gridfiles import read_grid
from mtkd.runs.records import repo_root
from mtkd.train.answers import answers
from mtkd.train.recipes import Independent
from mtkd.train.teachers import logits_of

THREE = ["scratch-1x32", "roberta-scratch-1x32", "scratch-1x32h2"]

views = defined_in("domain_expertise")


def experiment(arm: str = "classes", **changes) -> paper.Experiment:
    return study_of("domain_expertise", **{**(SPAN if arm == "span" else {}), **changes})


def distilled(e, start="plain"):
    """Every student of one replicate and start, but the fine-tuned one."""
    return [s for s in e.students(0) if s.start == start and s.kind != "undistilled"]


def finetuned(e, replicate=0, start="plain"):
    (found,) = (s for s in e.students(replicate) if s.start == start and s.kind == "undistilled")
    return e.make(found)


# --- recipes -------------------------------------------------------------------------------------------------------------


def test_recipes_are_the_same_loss_and_differ_in_whom_they_follow():
    selections = {"expertise": Expertise, "average": Uniform, "random": RandomTeacher, "camkd": Confidence,
                  "mixture": ClassMixture, "average+teacher": Uniform}  # fmt: skip
    assert set(recipes.METHODS) == set(selections)
    for name, make in recipes.METHODS.items():
        recipe = make(alpha=0.3, temperature=2.0, optimisation=OPT)
        hard, soft, *rest = recipe.stages[0].terms
        assert recipe.name == f"domain_expertise/{name}"
        assert (hard.loss, hard.weight, soft.loss, soft.weight) == ("cross_entropy", 0.3, "soft_cross_entropy", 0.7)
        assert (soft.temperature, soft.t_squared, soft.kl) == (2.0, False, False)
        assert type(soft.selection) is selections[name]
        assert [t.loss for t in rest] == (["teacher_cross_entropy"] if name.endswith("teacher") else [])
        assert soft.combine == ("losses" if name == "camkd" else "logits")


def test_defaults_are_the_theses_but_for_the_leak():
    rule = recipes.expertise(optimisation=OPT).stages[0].terms[1].selection
    assert (rule.several, rule.none, rule.ties, rule.fit_split) == ("overall", "overall", "random", "validation")
    assert recipes.random_teacher(optimisation=OPT).stages[0].terms[1].selection.per == "sample"
    assert recipes.expertise(optimisation=OPT).stages[0].terms[0].weight == 0.5


def test_alpha_out_of_range_is_refused():
    with pytest.raises(KitError, match="between 0 and 1"):
        recipes.average(alpha=1.2, optimisation=OPT)


# --- which students ------------------------------------------------------------------------------------------------------


def test_students_of_a_repeat():
    names = [(s.method, s.variant) for s in distilled(experiment(teachers=THREE))]
    assert names[:5] == [(m, "") for m in ("expertise", "average", "random", "camkd", "mixture")]
    assert ("expertise", "temperature 2") in names
    assert ("average", "temperature 2") in names
    assert [n for n in names if n[1].startswith(("several", "no expert", "fit", "one draw"))] == [
        ("expertise", "several experts: matched"), ("expertise", "no expert: average"), ("expertise", "fit on test"),
        ("random", "one draw per step")]
    assert [n for _, n in names[-3:]] == ["plain_ce", "shuffled_teacher", "uniform_teacher"]
    assert len(set(names)) == len(names)
    other = experiment(teachers=THREE, several="matched", fit_split="test", random_per="step", none="average")
    assert {s.variant for s in distilled(other)} >= {"several experts: overall", "fit on validation", "one draw per sample",
                                                  "no expert: overall"}
    assert distilled(experiment(sections=[])) == []
    span = experiment("span")
    assert [s.method for s in distilled(span, "tuned")] == ["average", "camkd", "average+teacher", "average", "camkd"]
    assert {s.variant for s in distilled(span, "tuned")} == {"", "temperature 2"}


def test_a_variant_changes_one_thing():
    e = experiment(teachers=THREE, alpha=0.25)
    of = {s.variant: e.recipe(s).stages[0].terms for s in distilled(e) if s.method == "expertise"}
    assert of[""][0].weight == 0.25
    for name, terms in of.items():
        changed = [f for f in ("several", "none", "ties", "fit_split")
                   if getattr(terms[1].selection, f) != getattr(of[""][1].selection, f)]
        assert len(changed) == (name.startswith(("several", "no expert", "fit")))
        assert terms[1].temperature == (2.0 if name == "temperature 2" else 1.0)
    (shuffled,) = (s for s in distilled(e) if s.variant == "shuffled_teacher")
    assert e.recipe(shuffled).teachers == Independent("shuffled")


def test_with_two_teachers_the_readings_of_several_experts_are_one_student():
    names = [s.variant for s in distilled(experiment())]
    assert [n for n in names if n.startswith("several")] == []
    assert len(names) == len(distilled(experiment(teachers=THREE))) - 1
    every = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    for best in torch.cartesian_prod(*[torch.arange(2)] * 3):
        said = [choose(every, best, torch.tensor([0.6, 0.7]), several) for several in ("overall", "matched")]
        assert torch.equal(*said)


def test_comments_of_the_grids_count_the_models_of_their_cells():
    checked = []
    for file in sorted((repo_root() / "params" / "domain_expertise").glob("table*.yaml")):
        counted = re.search(r"(\d+) cells of (\d+)(?: or (\d+))? models", file.read_text().splitlines()[0])
        if counted:
            cells = read_grid(file).cells
            found = {sum(map(len, paper.from_parameters(cell.parameters).jobs())) for cell in cells}
            assert (len(cells), found) == (int(counted[1]), {int(n) for n in counted.groups()[1:] if n}), file.stem
            checked.append(file.stem)
    assert checked == [f"table5_{n}" for n in (1, 10, 11, 2, 4, 6, 8)]


def test_only_the_grids_that_reproduce_the_thesis_let_the_test_split_choose():
    for file in (repo_root() / "params" / "domain_expertise").glob("*.yaml"):
        grid = read_grid(file)
        own = grid.tier == "paper" and file.stem not in ("table4_1", "table4_2", "table5_10", "table5_11")
        assert {cell.parameters["fit_split"] for cell in grid.cells} == {"test" if own else "validation"}, file.stem
        assert not own or "a leak" in file.read_text()


def test_seeds_are_those_that_the_committed_records_name():
    e = experiment(repeats=[0, 1])
    assert e.seeds() == [0, 1, 200, 201, 1000, 1001, 1200, 1201]
    assert 100 in experiment(also_finetuned=["scratch-1x32h2"]).seeds()


def test_questions_are_split_between_the_task_and_the_related_one():
    task = make_span_task()
    own, others = about(task, 2), about(task, 2, others=True)
    assert {q for q, _ in own.splits["train"].inputs} == {"city", "farm"}
    assert {q for q, _ in others.splits["test"].inputs} == {"sea"}
    assert len(own.splits["train"]) + len(others.splits["train"]) == 60
    with pytest.raises(KitError, match="some must be asked"):
        about(task, 3)
    with pytest.raises(KitError, match="no questions"):
        about(make_text_task(), 1)


# --- rows ----------------------------------------------------------------------------------------------------------------


def record_of(e: paper.Experiment, rows: list[dict]) -> dict:
    return {"run": "r", "paper": "domain_expertise", "tier": "demo", "parameters": {}, "rows": rows, "provenance": {},
            "data": e.data_rows()}


def test_classes_rows_keep_the_contract(monkeypatch):
    three = {"teachers": [*THREE[:2], "scratch-2x32"], "also_finetuned": ["scratch-1x32h2"]}
    e, rows = kept("domain_expertise", monkeypatch, **three)
    assert Counter(r["kind"] for r in rows) == {"teacher": 3, "finetuned": 1, "ensemble": 1, "undistilled": 1, "student": 11,
                                                "control": 3}
    for row in rows:
        assert set(row["recalls"]) == set(CLASSES)
        shares = {c: (make_text_task().splits["test"].labels == i).mean() for i, c in enumerate(CLASSES)}
        assert sum(row["recalls"][c] * shares[c] for c in CLASSES) == pytest.approx(row["score"])  # recall, weighted
    teachers = [r for r in rows if r["kind"] == "teacher"]
    assert [(r["position"], r["model"]) for r in teachers] == [(0, "scratch-1x32"), (1, "roberta-scratch-1x32"),
                                                                      (2, "scratch-2x32")]
    students = [r for r in rows if r["kind"] == "student"]
    assert all(r["time"]["teachers_s"] == pytest.approx(sum(t["time"]["train_s"] for t in teachers)) for r in students)
    assert all(r["time"]["intermediate_s"] > 0 for r in students)
    for exhibit in ("table5_1", "table4_1", "table4_2", "per_class", "medians", "controls", "choices"):
        assert not domain_expertise.exhibit(exhibit, [record_of(e, rows)]).missing
    assert e.bill()["models"] == 4 + 1 + 11 + 3


def test_all_students_of_a_repeat_go_on_from_the_same_finetuned_one():
    e = experiment(sections=["methods", "controls"])
    students = [e.make(s) for s in distilled(e)]
    assert {s.before.key for s in students} == {finetuned(e).key}
    assert len({s.key for s in students}) == len(students)
    steps = {s.info["history"]["steps"] for s in students}
    assert len(steps) == 1  # the control on labels alone has as many
    assert finetuned(e, 1).key != finetuned(e).key
    assert e.teacher(1, 0).key != e.teacher(0, 0).key


def test_what_the_expert_rule_learned_is_kept_with_the_student():
    from mtkd.store.artifacts import tensors_load

    e = experiment(sections=["methods"])
    student = e.make(e.own(0))
    state = tensors_load(student.folder / "selection-1.safetensors")
    for position in (0, 1):
        mine = e.recalls(answers(e.prepared, e.teacher(0, position), "validation"), "validation")
        assert state["recalls"][position].tolist() == pytest.approx(list(mine.values()))


def test_span_rows_and_the_third_experiment():
    e = experiment("span", sections=["methods"])
    rows = all_rows(e)
    assert Counter((r["kind"], r["start"]) for r in rows) == {
        ("teacher", None): 2, ("ensemble", None): 1, ("undistilled", "plain"): 1, ("undistilled", "tuned"): 1,
        ("student", "plain"): 3, ("student", "tuned"): 3}
    assert {r["metric"] for r in rows} == {"char_f1"}
    assert {r["model"] for r in rows if r["start"] == "tuned"} == {"scratch-1x16 after other questions"}
    assert all(r["recalls"] == {} for r in rows)
    tuned = finetuned(e, 0, "tuned")
    assert tuned.before.before is None
    assert finetuned(e).before is None
    for start in ("plain", "tuned"):  # a constant has no gradient: the same weights, bit for bit
        first, _, third = (e.make(s) for s in distilled(e, start))
        assert first.key != third.key
        a, b = ((m.folder / "model.safetensors").read_bytes() for m in (first, third))
        assert a == b
        assert "teacher_cross_entropy" in third.info["history"]["losses"]
    stand_in = [r | {"task": "pydocs/span"} for r in rows]
    found = {v.claim: v for v in domain_expertise.claims([record_of(e, stand_in)])}
    assert found["D5"].members == 2
    assert not domain_expertise.exhibit("table5_11", [record_of(e, rows)]).missing


def test_jobs_go_step_by_step():
    groups = experiment(repeats=[0, 1], sections=["methods"], also_finetuned=["scratch-1x32h2"]).jobs()
    assert [len(group) for group in groups] == [4 + 2, 2, 6]  # teachers and those beside, fine-tuned students, distilled ones


# --- teachers made elsewhere -----------------------------------------------------------------------------------------------


def test_finished_folders_and_tables_of_logits_are_teachers(tmp_path):
    made = experiment(sections=["methods"])
    folder = tmp_path / "my teacher"
    shutil.copytree(made.teacher(0, 1).folder, folder)  # a RoBERTa with a tokeniser of its own
    table = tmp_path / "said.parquet"
    ids, said = [], []
    for split in ("train", "validation", "test"):
        part = made.loaded.splits[split]
        ids += part.ids
        said.append(torch.nn.functional.one_hot(torch.from_numpy(part.labels), 3).float() * 4)
    pd.DataFrame({"id": ids, **dict(zip(CLASSES, torch.cat(said).T.numpy()))}).to_parquet(table)
    e = experiment(teachers=[f"finished:{folder}", str(table)], sections=["methods"])
    rows = all_rows(e)
    teachers = [r for r in rows if r["kind"] == "teacher"]
    assert [r["model"] for r in teachers] == ["my teacher", "said.parquet"]
    assert teachers[1]["score"] == 1.0
    assert teachers[0]["score"] == made.teacher(0, 1).metrics["test"]["accuracy"]
    assert all(r["folder"] is None for r in teachers)
    assert Counter(r["kind"] for r in rows)["student"] == 3
    assert domain_expertise.exhibit("medians", [record_of(e, rows)]).content.notna().all().all()


def test_finished_teachers_of_one_name_are_kept_apart(tmp_path):
    made, folders = experiment(sections=["methods"]), []
    for position, family in enumerate(("bert", "roberta")):
        folders.append(tmp_path / "runs" / family / "checkpoint-500")
        shutil.copytree(made.teacher(0, position).folder, folders[-1])
    e = experiment(teachers=[f"finished:{folder}" for folder in folders], sections=["methods"])
    rows = all_rows(e)
    names = ["bert/checkpoint-500", "roberta/checkpoint-500"]
    assert [r["model"] for r in rows if r["kind"] == "teacher"] == names == e.teacher_names
    frame = domain_expertise.frame([record_of(e, rows)]).query("arm == 'classes'")
    assert list(frame[frame["kind"] == "teacher"]["model"]) == names
    table = domain_expertise.exhibit("medians", [record_of(e, rows)]).content
    assert {"BERT", "RoBERTa"} <= set(table.columns)
    alike = [r | {"model": "checkpoint-500"} if r["kind"] == "teacher" else r for r in rows]  # a record from before
    assert (domain_expertise.frame([record_of(e, alike)])["arm"] == "classes").sum() == len(rows)


def test_shown_names_are_each_once():
    given = ["finished:a/x/m", "finished:b/x/m", "finished:c/m", "said.csv", "d/said.csv", "minilm"]
    assert list(shown_names(given).values()) == [
        "x/m", "x/m#2", "c/m", f"{Path.cwd().name}/said.csv", "d/said.csv", "minilm"]
    assert shown_names(["minilm", "finished:x/minilm"]) == {"minilm": "minilm", "finished:x/minilm": "x/minilm"}


# --- looking at the rule ----------------------------------------------------------------------------------------------------


def test_views_show_who_is_followed():
    e = experiment(sections=["methods"], teacher_epochs=3)
    names = list(e.teachers)
    frame = views.followed(e, 0)
    assert len(frame) == 60
    assert (frame[names].sum(axis=1) == 1).all()
    shares = frame.groupby("class")[names].mean()
    assert shares.sum(axis=1).tolist() == pytest.approx([1.0] * 3)
    assert set(shares.index) == set(CLASSES)
    rule = views.rule_of(e, 0)
    one = frame[frame["case"] == views.CASES[1]]
    predictions = torch.stack([logits_of(e.prepared, m, "train").argmax(-1) for m in e.teacher_set(0)], 1)
    for i, line in zip(one.index, one[names].to_numpy()):  # the one followed predicts a class it is the expert of
        teacher = int(line.argmax())
        assert rule["best"][predictions[i, teacher]] == teacher
    rest = frame[frame["case"] != views.CASES[1]]
    assert (rest[names[int(rule["overall"])]] == 1).all()
    cases = views.cases_table(e)
    assert cases[list(views.CASES)].sum(axis=1).tolist() == pytest.approx([1.0, 1.0])
    assert list(views.experts_table(e).columns) == ["repeat", *CLASSES, "best overall"]


def test_shares_over_steps_replay_the_training_batches():
    e = experiment(sections=["methods"], distil_epochs=2)
    steps = views.shares_over_steps(e, 0, window=1)
    assert len(steps) == e.make(e.own(0)).info["history"]["steps"] == 8
    sizes = np.array([16, 16, 16, 12] * 2)  # the last batch of an epoch comes anywhere in it, so compare with a tolerance
    whole = views.followed(e, 0)[list(e.teachers)].mean().to_numpy()
    assert np.average(steps.to_numpy(), axis=0, weights=sizes) == pytest.approx(whole, abs=0.08)
    assert steps.sum(axis=1).tolist() == pytest.approx([1.0] * 8)


def test_marked_shows_each_model_in_its_own_tokens():
    e = experiment("span", sections=["methods"])
    table = views.marked(e, 0, sample=1)
    assert table["who"].tolist() == ["the answer", "scratch-1x32", "roberta-scratch-1x32", "scratch-1x16"]
    question, passage = e.loaded.splits["test"].inputs[1]
    assert table.columns[2] == f"marks, asked for: {question}"
    assert table.iloc[0, 2] == " / ".join(passage[a:b] for a, b in e.loaded.splits["test"].spans[1])
    assert table["tokens"].iloc[1] == table["tokens"].iloc[3]  # the same tokeniser
    assert all(part in passage for text in table.iloc[:, 2] for part in text.split(" / "))


