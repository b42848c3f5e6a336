"""The thesis's experiments on tiny tasks: which students are asked for, from which start, with which seeds; their rows."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CLASSES, COMMON, WORDS, make_regression_task, make_text_task

from mtkd import study as experiments
from mtkd.data.tasks import Split, Task
from mtkd.errors import KitError
from mtkd.evidence import outcomes
from mtkd.papers import domain_expertise, domain_expertise_run
from mtkd.papers import domain_expertise_recipes as paper_recipes
from mtkd.papers import domain_expertise_views as views
from mtkd.papers.domain_expertise_plans import Variant, shown_names
from mtkd.papers.domain_expertise_rows import ensemble_row, recalls, result_rows, teacher_rows
from mtkd.papers.domain_expertise_run import Experiment, about
from mtkd.rules.experts import ClassMixture, Expertise, RandomTeacher, choose
from mtkd.rules.selection import Confidence, Uniform
from mtkd.runs.gridfiles import read_grid
from mtkd.runs.parameters import read_parameters
from mtkd.runs.records import repo_root
from mtkd.train import loop as train
from mtkd.train.recipes import Independent, Optimisation
from mtkd.train.teachers import logits_of

OPT = Optimisation(epochs=1, batch_size=16, lr=3e-3)
TIME = {"train_s", "score_s", "intermediate_s", "teachers_s"}
ROW = {"arm", "task", "kind", "method", "variant", "temperature", "repeat", "start", "position", "teachers", "model", "metric",
       "score", "metrics", "split", "validation", "n_test", "recalls", "right", "one_answer",
       "parameters", "layers", "time", "energy_kwh",
       "peak_memory_mib", "samples_per_second", "folder"}  # fmt: skip


def make_span_task(name: str = "tiny/span") -> Task:
    """Which words are about the sea (a farm, a city)? Three questions, sentences of six words."""
    splits = {}
    for k, (part, n) in enumerate({"train": 60, "validation": 24, "test": 30}.items()):
        rng, inputs, spans = np.random.default_rng(60 + k), [], []
        for i in range(n):
            words, text, found = [], "", []
            asked = CLASSES[i % 3]
            for _ in range(6):
                about_it = rng.random() < 0.4
                words.append((rng.choice(WORDS[asked] if about_it else COMMON), about_it))
            for word, about_it in words:
                text += " " if text else ""
                if about_it:
                    found.append((len(text), len(text) + len(word)))
                text += word
            inputs.append((asked, text))
            spans.append(tuple(found))
        labels = np.array([int(bool(s)) for s in spans], dtype=np.int64)
        splits[part] = Split([f"{part}-{i}" for i in range(n)], inputs, labels, spans)
    return Task(name, "span", ("outside", "inside"), splits, "char_f1", ("char_f1",))


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    def load(name, **options):
        if "regression" in name:
            return make_regression_task()
        return make_span_task(name) if "span" in name else replace(make_text_task(), name=name)

    monkeypatch.setattr(experiments, "load_task", load)


TWO = ("scratch-1x32", "roberta-scratch-1x32")
THREE = (*TWO, "scratch-1x32h2")


def experiment(arm="classes", **changes) -> Experiment:
    settings = {"arm": arm, "task": f"tiny/{arm}", "teachers": TWO,
                "student": "scratch-1x16", "teacher_optimisation": OPT, "student_optimisation": OPT,
                "distil_optimisation": OPT, "vocab": 200, "max_length": 32, "weak_teachers": "mark"}
    if arm == "span":
        settings |= {"tuned_student": "other questions", "questions": 2}
    return Experiment(**{**settings, **changes})


# --- recipes -------------------------------------------------------------------------------------------------------------


def test_recipes_are_the_same_loss_and_differ_in_whom_they_follow():
    selections = {"expertise": Expertise, "average": Uniform, "random": RandomTeacher, "camkd": Confidence,
                  "mixture": ClassMixture, "average+teacher": Uniform}  # fmt: skip
    assert set(paper_recipes.METHODS) == set(selections)
    for name, make in paper_recipes.METHODS.items():
        recipe = make(alpha=0.3, temperature=2.0, optimisation=OPT)
        hard, soft, *rest = recipe.stages[0].terms
        assert recipe.name == f"domain_expertise/{name}"
        assert (hard.loss, hard.weight, soft.loss, soft.weight) == ("cross_entropy", 0.3, "soft_cross_entropy", 0.7)
        assert (soft.temperature, soft.t_squared, soft.kl) == (2.0, False, False)
        assert type(soft.selection) is selections[name]
        assert [t.loss for t in rest] == (["teacher_cross_entropy"] if name.endswith("teacher") else [])
        assert soft.combine == ("losses" if name == "camkd" else "logits")


def test_defaults_are_the_theses_but_for_the_leak():
    rule = paper_recipes.expertise(optimisation=OPT).stages[0].terms[1].selection
    assert (rule.several, rule.none, rule.ties, rule.fit_split) == ("overall", "overall", "random", "validation")
    assert paper_recipes.random_teacher(optimisation=OPT).stages[0].terms[1].selection.per == "sample"
    assert paper_recipes.expertise(optimisation=OPT).stages[0].terms[0].weight == 0.5


def test_alpha_out_of_range_is_refused():
    with pytest.raises(KitError, match="between 0 and 1"):
        paper_recipes.average(alpha=1.2, optimisation=OPT)


# --- which students ------------------------------------------------------------------------------------------------------


def test_students_of_a_repeat():
    names = [(v.method, v.name) for v in experiment(teachers=THREE).variants()]
    assert names[:5] == [(m, "") for m in ("expertise", "average", "random", "camkd", "mixture")]
    assert ("expertise", "temperature 2") in names
    assert ("average", "temperature 2") in names
    assert [n for n in names if n[1].startswith(("several", "no expert", "fit", "one draw"))] == [
        ("expertise", "several experts: matched"), ("expertise", "no expert: average"), ("expertise", "fit on test"),
        ("random", "one draw per step")]
    assert [n for _, n in names[-3:]] == ["plain_ce", "shuffled_teacher", "uniform_teacher"]
    assert len(set(names)) == len(names)
    other = experiment(teachers=THREE, several="matched", fit_split="test", random_per="step", none="average")
    assert {v.name for v in other.variants()} >= {"several experts: overall", "fit on validation", "one draw per sample",
                                                  "no expert: overall"}
    assert experiment(sections=()).variants() == []
    span = experiment("span")
    assert [v.method for v in span.variants("tuned")] == ["average", "camkd", "average+teacher", "average", "camkd"]
    assert {v.name for v in span.variants("tuned")} == {"", "temperature 2"}


def test_a_variant_changes_one_thing():
    e = experiment(teachers=THREE, alpha=0.25)
    of = {v.name: e.recipe(v).stages[0].terms for v in e.variants() if v.method == "expertise"}
    assert of[""][0].weight == 0.25
    for name, terms in of.items():
        changed = [f for f in ("several", "none", "ties", "fit_split")
                   if getattr(terms[1].selection, f) != getattr(of[""][1].selection, f)]
        assert len(changed) == (name.startswith(("several", "no expert", "fit")))
        assert terms[1].temperature == (2.0 if name == "temperature 2" else 1.0)
    assert e.recipe(Variant("expertise", "x", control="shuffled")).teachers == Independent("shuffled")


@pytest.mark.parametrize(("changes", "says"), [
    ({"arm": "spans"}, "no such arm"), ({"teachers": ()}, "at least one teacher"), ({"repeats": (0, 0)}, "distinct"),
    ({"teachers": ("minilm", "minilm")}, "another one"), ({"sections": ("all",)}, "no such section"),
    ({"several": "best"}, "overall or matched"), ({"temperatures": (0.0,)}, "above 0"),
    ({"tuned_student": "other questions"}, "needs questions"), ({"teacher_lrs": (1e-3,)}, "1 learning rates for 2 teachers"),
    ({"alpha": 1.2}, "alpha, .* between 0 and 1"), ({"alpha": -0.1}, "alpha"), ({"alpha": float("nan")}, "alpha"),
    ({"ties": "first"}, "ties is random or overall"), ({"camkd_combine": "heads"}, "camkd_combine is losses or logits"),
    ({"tuned_student": "scratch-1x16", "questions": 1}, "one student"),
    ({"also_finetuned": ("minilm", "minilm")}, "another one"),
    ({"arm": "span", "teachers": ("said.parquet", "minilm")}, "one per token"),
])  # fmt: skip
def test_parameters_that_contradict_each_other_are_refused(changes, says):
    with pytest.raises(KitError, match=says):
        replace(experiment(), **changes)


@pytest.mark.parametrize(("arm", "task", "says"), [
    ("span", "tiny/classes", "use the arm 'classes'"), ("classes", "tiny/span", "use the arm 'span'"),
    ("classes", "tiny/regression", "is a regression"), ("span", "tiny/regression", "use the arm 'classes'"),
])  # fmt: skip
def test_a_task_that_the_arm_cannot_be_run_on_is_refused_before_any_training(arm, task, says, monkeypatch):
    monkeypatch.setattr(train, "fit", lambda *a, **k: pytest.fail("something was trained"))
    e = experiment(arm, task=task)
    for job in (lambda: e.loaded, e.jobs()[0][0], e.jobs()[1][0]):
        with pytest.raises(KitError, match=says):
            job()


@pytest.mark.parametrize("margin", [0.0, -0.01, float("nan")])
def test_a_margin_that_no_test_could_use_is_refused(margin):
    declared = read_parameters(repo_root() / "notebooks" / "domain_expertise.ipynb")
    with pytest.raises(KitError, match="margin"):
        domain_expertise_run.from_parameters({name: p.default for name, p in declared.items()} | {"margin": margin})


def test_with_two_teachers_the_readings_of_several_experts_are_one_student():
    names = [v.name for v in experiment().variants()]
    assert [n for n in names if n.startswith("several")] == []
    assert len(names) == len(experiment(teachers=THREE).variants()) - 1
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
            found = {sum(map(len, domain_expertise_run.from_parameters(cell.parameters).jobs())) for cell in cells}
            assert (len(cells), found) == (int(counted[1]), {int(n) for n in counted.groups()[1:] if n}), file.stem
            checked.append(file.stem)
    assert checked == [f"table5_{n}" for n in (1, 10, 11, 2, 4, 6, 8)]


def test_only_the_grids_that_reproduce_the_thesis_let_the_test_split_choose():
    for file in (repo_root() / "params" / "domain_expertise").glob("*.yaml"):
        grid = read_grid(file)
        own = grid.tier == "paper" and file.stem not in ("table4_1", "table4_2", "table5_10", "table5_11")
        assert {cell.parameters["fit_split"] for cell in grid.cells} == {"test" if own else "validation"}, file.stem
        assert not own or "a leak" in file.read_text()


def test_seeds_differ_between_repeats_and_between_teachers_and_students():
    e = experiment(repeats=(0, 1))
    numbers = [0, 1, 100, 101, 200, 201]
    assert len({e.seed_of(r, n) for r in range(5) for n in numbers} | {
        replace(e, seed=1).seed_of(r, n) for r in range(5) for n in numbers}) == 60
    assert e.seeds() == [0, 1, 200, 201, 1000, 1001, 1200, 1201]  # those that the committed records name
    assert 100 in experiment(also_finetuned=("scratch-1x32h2",)).seeds()


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


def rows_of(e: Experiment) -> list[dict]:
    return [row for r in e.repeats for row in (*teacher_rows(e, r), ensemble_row(e, r), *result_rows(e, r))]


def record_of(e: Experiment, rows: list[dict]) -> dict:
    return {"run": "r", "paper": "domain_expertise", "tier": "demo", "parameters": {}, "rows": rows, "provenance": {},
            "data": outcomes.data_rows(e.loaded, e.task)}


def test_classes_rows_keep_the_contract(monkeypatch):
    three = {"teachers": (*TWO, "scratch-2x32"), "also_finetuned": ("scratch-1x32h2",)}
    e = experiment(**three)
    rows = rows_of(e)
    assert Counter(r["kind"] for r in rows) == {"teacher": 3, "finetuned": 1, "ensemble": 1, "undistilled": 1, "student": 11,
                                                "control": 3}
    json.dumps(rows)
    for row in rows:
        assert set(row) == ROW
        assert set(row["time"]) == TIME
        assert row["score"] == row["metrics"]["accuracy"]
        assert set(row["recalls"]) == set(CLASSES)
        shares = {c: (make_text_task().splits["test"].labels == i).mean() for i, c in enumerate(CLASSES)}
        assert sum(row["recalls"][c] * shares[c] for c in CLASSES) == pytest.approx(row["score"])  # recall, weighted
    teachers = [r for r in rows if r["kind"] == "teacher"]
    assert [(r["position"], r["model"]) for r in teachers] == [(0, "scratch-1x32"), (1, "roberta-scratch-1x32"),
                                                                      (2, "scratch-2x32")]
    students = [r for r in rows if r["kind"] == "student"]
    assert all(r["time"]["teachers_s"] == pytest.approx(sum(t["time"]["train_s"] for t in teachers)) for r in students)
    assert all(r["time"]["intermediate_s"] > 0 for r in students)
    identity = [(r["kind"], r["method"], r["variant"], r["model"]) for r in rows]
    assert len(set(identity)) == len(rows)
    assert next(r for r in rows if r["variant"] == "plain_ce")["time"]["teachers_s"] == 0
    for exhibit in ("table5_1", "table4_1", "table4_2", "per_class", "medians", "controls", "choices"):
        assert not domain_expertise.exhibit(exhibit, [record_of(e, rows)]).missing
    assert outcomes.bill(e.used)["models"] == 4 + 1 + 11 + 3

    monkeypatch.setattr(train, "fit", lambda *a, **k: pytest.fail("something was trained again"))
    assert rows_of(experiment(**three)) == rows


def test_all_students_of_a_repeat_go_on_from_the_same_finetuned_one():
    e = experiment(sections=("methods", "controls"))
    students = [e.distill(0, v) for v in e.variants()]
    assert {s.before.key for s in students} == {e.finetuned_student(0).key}
    assert len({s.key for s in students}) == len(students)
    steps = {s.info["history"]["steps"] for s in students}
    assert len(steps) == 1  # the control on labels alone has as many
    assert e.finetuned_student(1).key != e.finetuned_student(0).key
    assert e.teacher(1, 0).key != e.teacher(0, 0).key


def test_what_the_expert_rule_learned_is_kept_with_the_student():
    from mtkd.store.artifacts import tensors_load

    e = experiment(sections=("methods",))
    student = e.distill(0, Variant("expertise"))
    state = tensors_load(student.folder / "selection-1.safetensors")
    for position in (0, 1):
        logits = e.logits(e.teacher(0, position), "validation", e.prepared)
        mine = recalls(e, logits, "validation")
        assert state["recalls"][position].tolist() == pytest.approx(list(mine.values()))


def test_span_rows_and_the_third_experiment():
    e = experiment("span", sections=("methods",))
    rows = rows_of(e)
    assert Counter((r["kind"], r["start"]) for r in rows) == {
        ("teacher", None): 2, ("ensemble", None): 1, ("undistilled", "plain"): 1, ("undistilled", "tuned"): 1,
        ("student", "plain"): 3, ("student", "tuned"): 3}
    assert {r["metric"] for r in rows} == {"char_f1"}
    assert {r["model"] for r in rows if r["start"] == "tuned"} == {"scratch-1x16 after other questions"}
    assert all(r["recalls"] == {} for r in rows)
    tuned = e.finetuned_student(0, "tuned")
    assert tuned.before.before is None
    assert e.finetuned_student(0).before is None
    for start in ("plain", "tuned"):  # a constant has no gradient: the same weights, bit for bit
        first, third = (e.distill(0, Variant(m), start) for m in ("average", "average+teacher"))
        assert first.key != third.key
        a, b = ((m.folder / "model.safetensors").read_bytes() for m in (first, third))
        assert a == b
        assert "teacher_cross_entropy" in third.info["history"]["losses"]
    stand_in = [r | {"task": "pydocs/span"} for r in rows]
    found = {v.claim: v for v in domain_expertise.claims([record_of(e, stand_in)])}
    assert found["D5"].members == 2
    assert not domain_expertise.exhibit("table5_11", [record_of(e, rows)]).missing


def test_jobs_make_everything_that_the_rows_ask_for(monkeypatch):
    first, second = experiment(repeats=(0, 1), sections=("methods",)).jobs()
    assert (len(first), len(second)) == (6, 6)
    for job in [*first, *second]:
        job()
    monkeypatch.setattr(train, "fit", lambda *a, **k: pytest.fail("something was left to train"))
    assert Counter(r["repeat"] for r in rows_of(experiment(repeats=(0, 1), sections=("methods",)))) == {0: 7, 1: 7}


# --- teachers made elsewhere -----------------------------------------------------------------------------------------------


def test_finished_folders_and_tables_of_logits_are_teachers(tmp_path):
    made = experiment(sections=("methods",))
    folder = tmp_path / "my teacher"
    shutil.copytree(made.teacher(0, 1).folder, folder)  # a RoBERTa with a tokeniser of its own
    table = tmp_path / "said.parquet"
    ids, said = [], []
    for split in ("train", "validation", "test"):
        part = made.loaded.splits[split]
        ids += part.ids
        said.append(torch.nn.functional.one_hot(torch.from_numpy(part.labels), 3).float() * 4)
    pd.DataFrame({"id": ids, **dict(zip(CLASSES, torch.cat(said).T.numpy()))}).to_parquet(table)
    e = experiment(teachers=(f"finished:{folder}", str(table)), sections=("methods",))
    rows = rows_of(e)
    teachers = [r for r in rows if r["kind"] == "teacher"]
    assert [r["model"] for r in teachers] == ["my teacher", "said.parquet"]
    assert teachers[1]["score"] == 1.0
    assert teachers[0]["score"] == made.scores(made.teacher(0, 1), "test", made.prepared)["accuracy"]
    assert all(r["folder"] is None for r in teachers)
    assert Counter(r["kind"] for r in rows)["student"] == 3
    assert domain_expertise.exhibit("medians", [record_of(e, rows)]).content.notna().all().all()


def test_finished_teachers_of_one_name_are_kept_apart(tmp_path):
    made, folders = experiment(sections=("methods",)), []
    for position, family in enumerate(("bert", "roberta")):
        folders.append(tmp_path / "runs" / family / "checkpoint-500")
        shutil.copytree(made.teacher(0, position).folder, folders[-1])
    e = experiment(teachers=tuple(f"finished:{folder}" for folder in folders), sections=("methods",))
    rows = rows_of(e)
    names = ["bert/checkpoint-500", "roberta/checkpoint-500"]
    assert [r["model"] for r in rows if r["kind"] == "teacher"] == names == e.teacher_names
    frame = domain_expertise.rows_frame([record_of(e, rows)])
    assert list(frame[frame["kind"] == "teacher"]["model"]) == names
    table = domain_expertise.exhibit("medians", [record_of(e, rows)]).content
    assert {"BERT", "RoBERTa"} <= set(table.columns)
    alike = [r | {"model": "checkpoint-500"} if r["kind"] == "teacher" else r for r in rows]  # a record from before
    assert len(domain_expertise.rows_frame([record_of(e, alike)])) == len(rows)


def test_shown_names_are_each_once():
    given = ["finished:a/x/m", "finished:b/x/m", "finished:c/m", "said.csv", "d/said.csv", "minilm"]
    assert list(shown_names(given).values()) == [
        "x/m", "x/m#2", "c/m", f"{Path.cwd().name}/said.csv", "d/said.csv", "minilm"]
    assert shown_names(["minilm", "finished:x/minilm"]) == {"minilm": "minilm", "finished:x/minilm": "x/minilm"}


# --- looking at the rule ----------------------------------------------------------------------------------------------------


def test_views_show_who_is_followed():
    e = experiment(sections=("methods",), teacher_optimisation=replace(OPT, epochs=3))
    names = list(e.teachers)
    frame = views.followed(e, 0)
    assert len(frame) == 60
    assert (frame[names].sum(axis=1) == 1).all()
    shares = views.shares_by_class(frame, names)
    assert shares.sum(axis=1).tolist() == pytest.approx([1.0] * 3)
    assert set(shares.index) == set(CLASSES)
    rule = views.rule_of(e, 0)
    one = frame[frame["case"] == views.ONE]
    predictions = torch.stack([logits_of(e.prepared, m, "train").argmax(-1) for m in e.teacher_set(0)], 1)
    for i, line in zip(one.index, one[names].to_numpy()):  # the one followed predicts a class it is the expert of
        teacher = int(line.argmax())
        assert rule["best"][predictions[i, teacher]] == teacher
    rest = frame[frame["case"] != views.ONE]
    assert (rest[names[int(rule["overall"])]] == 1).all()
    cases = views.cases_table(e)
    assert cases[[views.ONE, views.SEVERAL, views.NONE]].sum(axis=1).tolist() == pytest.approx([1.0, 1.0])
    assert list(views.experts_table(e).columns) == ["repeat", *CLASSES, "best overall"]


def test_shares_over_steps_replay_the_training_batches():
    e = experiment(sections=("methods",), distil_optimisation=replace(OPT, epochs=2))
    steps = views.shares_over_steps(e, 0, window=1)
    assert len(steps) == e.distill(0, Variant("expertise")).info["history"]["steps"] == 8
    sizes = np.array([16, 16, 16, 12] * 2)  # the last batch of an epoch comes anywhere in it, so compare with a tolerance
    whole = views.followed(e, 0)[list(e.teachers)].mean().to_numpy()
    assert np.average(steps.to_numpy(), axis=0, weights=sizes) == pytest.approx(whole, abs=0.08)
    assert steps.sum(axis=1).tolist() == pytest.approx([1.0] * 8)


def test_marked_shows_each_model_in_its_own_tokens():
    e = experiment("span", sections=("methods",))
    table = views.marked(e, 0, sample=1)
    assert table["who"].tolist() == ["the answer", "scratch-1x32", "roberta-scratch-1x32", "scratch-1x16"]
    question, passage = e.loaded.splits["test"].inputs[1]
    assert table.columns[2] == f"marks, asked for: {question}"
    assert table.iloc[0, 2] == " / ".join(passage[a:b] for a, b in e.loaded.splits["test"].spans[1])
    assert table["tokens"].iloc[1] == table["tokens"].iloc[3]  # the same tokeniser
    assert all(part in passage for text in table.iloc[:, 2] for part in text.split(" / "))


def test_notebooks_parameters_make_an_experiment():
    declared = read_parameters(repo_root() / "notebooks" / "domain_expertise.ipynb")
    made = domain_expertise_run.from_parameters({name: p.default for name, p in declared.items()})
    assert made.arm == "classes"
    assert len(made.repeats) >= 2
    assert [v.method for v in made.variants()][:3] == ["expertise", "average", "random"]
    assert all(p.help or name.endswith(("_size", "_epochs", "_lr", "student", "weight_decay", "freeze_embeddings", "seed"))
               for name, p in declared.items())
