"""RL-KD's experiment on a tiny task: two families, two tokenisers, a few steps; which models are asked for, from which seeds
and starts, and what their rows say."""

import json
from collections import Counter
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_text_task
from notebook_names import defined_in
from tiny_studies import OPT, PAIR, all_rows, hidden_rows, kept, study_of, tiny  # noqa: F401

from mtkd.data.tasks import Split
from mtkd.errors import KitError
from mtkd.evidence.frame import FREE
from mtkd.models import names as models
from mtkd.papers import rl_kd
from mtkd.papers import rl_kd_study as paper
from mtkd.papers.rl_kd_study import Loss, reward_of, students
from mtkd.rules.ensembles import BestSingle, DevWeighted, LogisticWeighted
from mtkd.rules.experts import RandomTeacher
from mtkd.rules.policy import Policy
from mtkd.rules.selection import Primary, Uniform
from mtkd.runs.gridfiles import read_grid
from mtkd.runs.parameters import notebook_path
from mtkd.runs.records import repo_root
from mtkd.store.artifacts import key
from mtkd.store.files import canonical
from mtkd.train import distil, representation
from mtkd.train.recipes import stage_spec

STUDENT = "scratch-1x16h2"
POLICY = {"encoder": "lsa-8", "dev_size": 10, "dev_every": 2}


def experiment(**changes) -> paper.Experiment:
    return study_of("rl_kd", **changes)


# --- which students, and recipes -----------------------------------------------------------------------------------------


def test_the_papers_counts():
    asked = list(students(SimpleNamespace(teachers=range(4), students=("BERT 3", "BERT 6"), sections=rl_kd.SECTIONS,
                                          controls=tuple(rl_kd.CONTROLS))))
    assert len(asked) == len(set(asked))
    counts = Counter((p.arm, p.kind, p.student) for p in asked)
    # Table 4 per student: FT; four single teachers, six ensembles and three rewards
    assert counts == {("main", "undistilled", "BERT 3"): 1, ("main", "student", "BERT 3"): 13,
                      ("main", "undistilled", "BERT 6"): 1, ("main", "student", "BERT 6"): 13,
                      ("main", "control", "BERT 3"): 9, ("readings", "student", "BERT 3"): 8}  # fmt: skip
    assert {p.method for p in asked} == set(rl_kd.METHODS)
    assert [reward_of(p) for p in asked if p.variant.startswith("reward")] == [1, 2, 3, 1, 2, 3]
    assert {reward_of(p) for p in asked if p.arm == "readings" or p.kind == "control"} == {3}


def test_every_distillation_has_the_two_terms_of_equation_3():
    loss = Loss(alpha=0.7, temperature=5.0, t_squared=False)
    for method, selection in (("u", Uniform()), ("w", DevWeighted()), ("rand", RandomTeacher(per="step")),
                              ("lr_train", LogisticWeighted(fit_split="train")), ("v_kd", Primary(1)),
                              ("lr_dev", LogisticWeighted(fit_split="validation")), ("best_single", BestSingle())):  # fmt: skip
        (stage,) = paper.vanilla(method, loss, OPT, 1).stages
        hard, soft = stage.terms
        assert (hard.loss, round(hard.weight, 6)) == ("cross_entropy", 0.3)
        assert (soft.loss, soft.weight, soft.temperature, soft.t_squared) == ("soft_cross_entropy", 0.7, 5.0, False)
        assert soft.combine == "probabilities"
        assert soft.selection == selection
    with pytest.raises(KitError, match="no such method"):
        paper.vanilla("rl", loss, OPT)


def test_algorithm_1_starts_from_the_student_of_the_average_teacher():
    recipe = paper.rl_kd(Policy(reward=2), Loss(), OPT, replace(OPT, epochs=3), replace(OPT, epochs=2))
    assert [(s.name, s.learns, s.optimisation.epochs) for s in recipe.stages] == [
        ("kd", "student", 1), ("policy", "selection", 3), ("alternate", "alternate", 2)]
    assert recipe.stages[0] == paper.vanilla("u", Loss(), OPT).stages[0]
    again = paper.without_policy("u", Uniform(), Loss(), OPT, replace(OPT, epochs=2))
    assert again.stages[0] == recipe.stages[0]
    assert [(s.learns, s.optimisation.epochs) for s in again.stages] == [("student", 1), ("student", 2)]


def test_readings_and_controls_change_one_thing(monkeypatch):
    e = experiment()
    policies = {}
    for plan in e.students(0):
        if plan.arm == "readings":
            stages = e.recipe(plan).stages
            policies[plan.variant] = (stages[2].terms[1].selection, stages[2].terms[1].t_squared)
    full, scaled = policies.pop("full")
    assert (full.reward, full.gradient, full.baseline, scaled) == (3, "log", "moving_average", True)
    changed = {"printed": {"gradient": "printed"}, "no_baseline": {"baseline": "none"}, "batch_credit": {"credit": "batch"},
               "batchwise": {"alternation": "batch"}, "student_reward": {"pretrain_reward": "student"}, "unscaled": {},
               "loss_scale": {"reward_scale": "loss"}}
    assert {name: policy for name, (policy, _) in policies.items()} == {n: replace(full, **c) for n, c in changed.items()}
    assert [name for name, (_, scaled) in policies.items() if not scaled] == ["unscaled"]
    by = {p.variant: p for p in e.students(0) if p.kind == "control"}
    assert e.recipe(by["shuffled"]).teachers.control == "shuffled"
    assert e.recipe(by["random_policy"]).stages[1].learns == "student"
    assert isinstance(e.recipe(by["random_policy"]).stages[1].terms[1].selection, Policy)
    monkeypatch.setattr(paper.Experiment, "best_teacher", lambda self, repeat: 1)
    for name, selection in (("average_again", Uniform()), ("w_again", DevWeighted()), ("best_single_again", BestSingle()),
                            ("lr_dev_again", LogisticWeighted(fit_split="validation")), ("v_kd_again", Primary(1))):
        assert [stage.terms[1].selection for stage in e.recipe(by[name]).stages] == [selection] * 2
    assert by["plain_ce"].members == ()


def test_batch_by_batch_the_student_learns_from_as_many_batches():
    e = experiment(rl_epochs=3)
    by = {p.variant: e.recipe(p).stages for p in e.students(0) if p.arm == "readings"}
    assert [by[name][2].optimisation.epochs for name in ("full", "batchwise")] == [3, 6]  # every other batch is the policy's
    models = {p.variant: e.make(p) for p in e.students(0) if p.variant in ("full", "batchwise") and p.arm == "readings"}
    found = {name: model.info["history"] for name, model in models.items()}
    assert {name: (h["steps"], h["policy"]["trace"]["batch"][-1]) for name, h in found.items()} == {
        "full": (12, 12), "batchwise": (24, 12)}  # the policy's batches; batch-wise the others are the student's
    whole = experiment(alternation="batch", rl_epochs=3)
    assert {whole.recipe(p).stages[2].optimisation.epochs for p in whole.students(0) if p.variant.startswith("reward")} == {6}


def test_what_a_setting_does_not_touch_is_made_once():
    """A search over gamma: only reward 3 has other keys, and the policy's pre-training is one for all three rewards."""
    def keys(**changes):
        e = experiment(**changes)
        return {p.variant: [key("model", stage_spec(stage, ["a", "b"])) for stage in e.recipe(p).stages] for p in e.students(0)
                if p.variant in ("reward_1", "reward_2", "reward_3", "random_policy")}  # fmt: skip

    one, two = keys(gamma=0.3), keys(gamma=0.9, dev_size=7, dev_every=3)
    assert [name for name in one if one[name] != two[name]] == ["reward_3"]
    assert one["reward_3"][:2] == two["reward_3"][:2]
    assert len({tuple(one[name][:2]) for name in ("reward_1", "reward_2", "reward_3")}) == 1
    assert len({one[name][2] for name in ("reward_1", "reward_2", "reward_3")}) == 3
    other = keys(pretrain_reward="student", gamma=0.3), keys(pretrain_reward="student", gamma=0.9)
    assert [name for name in one if other[0][name][:2] != other[1][name][:2]] == ["reward_3"]  # it is paid there too
    assert len({tuple(other[0][name][:2]) for name in ("reward_1", "reward_2", "reward_3")}) == 3


def test_the_papers_grid_is_the_paper_grid():
    """3 learning rates, 3 temperatures, 3 alphas, 4 gammas, for each of six tasks; Table 4 has five runs of each."""
    grid = read_grid(repo_root() / "params" / "rl_kd" / "grid.yaml")
    names = ("student_lr", "temperature", "alpha", "gamma")
    asked = {tuple(cell.parameters[name] for name in ("task", *names)) for cell in grid.cells}
    assert len(grid.cells) == len(asked) == 6 * 3 * 3 * 3 * 4
    assert {values[1:] for values in asked} == set(product((1e-5, 2e-5, 5e-5), (5.0, 10.0, 20.0), (0.2, 0.5, 0.7),
                                                           (0.3, 0.5, 0.7, 0.9)))  # fmt: skip
    cells = {}
    for name in ("table1", "table3", "table4", "table5"):
        grid = read_grid(repo_root() / "params" / "rl_kd" / f"{name}.yaml")
        cells[name] = {canonical(cell.parameters) for cell in grid.cells}
        assert all(cell.parameters["policy_lr"] <= BETA[cell.parameters["task"]] for cell in grid.cells)
    assert len(cells["table4"]) == 6 * 5
    assert cells["table1"] | cells["table5"] < cells["table4"]  # run once for all of them


# The policy's updates at the paper's scale: five epochs of batches of 32. Their noise adds up with the root of their number.
BETA = {f"glue/{task}": 25 / (5 * n / 32) ** 0.5 for task, n in (
    ("rte", 2490), ("mrpc", 3668), ("sst2", 67349), ("qnli", 104743), ("qqp", 363849), ("mnli", 392702))}  # fmt: skip


def test_one_experiment_has_one_set_of_parameters():
    """What a group of tables shares must be one setting, or its arms come from different experiments."""
    for names in (("demo", "readings"), ("grid", "table1", "table3", "table4", "table5")):
        found = {}
        for cell in (c for n in names for c in read_grid(repo_root() / "params" / "rl_kd" / f"{n}.yaml").cells):
            same = {k: v for k, v in cell.parameters.items() if k not in (*FREE, *rl_kd.PAPER.rows.free)}
            found.setdefault(cell.parameters["task"], set()).add(canonical(same))
        assert {len(settings) for settings in found.values()} == {1}


# --- a small real run ----------------------------------------------------------------------------------------------------


def test_rows_keep_the_contract_and_nothing_is_trained_twice(monkeypatch):
    e, rows = kept("rl_kd", monkeypatch)
    assert Counter(r["arm"] for r in rows) == {"teachers": 2 + 5, "main": 1 + 2 + 6 + 3 + 9, "readings": 8}
    check(rows, tuple(PAIR))
    bill = e.bill()
    own = {r["folder"] for r in rows if r["folder"]}
    # without a row: the policy's pre-training, one for all rewards and for what differs later, and those of 5 readings and 2
    # controls; the starts of the shuffled, the uniform and the unscaled student
    assert bill["models"] == len(own) + 8 + 3
    assert bill["training_s"] > 0


def check(rows, names):
    by = {(r["arm"], r["method"], r["variant"], tuple(r["teachers"])): r for r in rows}
    start, full = by["main", "u", None, names], by["main", "rl", "reward_3", names]
    assert full["folder"] == by["readings", "rl", "full", names]["folder"]  # one model, a row in every section
    assert (start["epochs"], full["epochs"], by["main", "rl", "plain_ce", ()]["epochs"]) == (1, 2, 2)
    assert full["time"]["intermediate_s"] > start["time"]["train_s"]  # the start and the policy's pre-training
    assert by["main", "ft", None, ()]["time"]["teachers_s"] == 0
    assert [full["gamma"], by["main", "rl", "reward_1", names]["gamma"], start["gamma"]] == [0.5, None, None]
    assert [start["alpha"], by["main", "ft", None, ()]["alpha"]] == [0.5, None]
    teachers = [r for r in rows if r["kind"] == "teacher"]
    assert full["time"]["teachers_s"] == pytest.approx(sum(r["time"]["train_s"] for r in teachers))
    assert set(full["policy"]) == {"pretraining", "alternation"}
    assert full["policy"]["alternation"]["dev_accuracy"][-1] is not None
    assert by["main", "rl", "reward_1", names]["policy"]["alternation"]["dev_accuracy"][-1] is None
    assert len(full["policy"]["alternation"]["selected"][0]) == 2
    assert by["main", "rl", "random_policy", names]["policy"] is None
    ensembles = {r["method"]: r for r in rows if r["kind"] == "ensemble"}
    assert set(ensembles) == set(rl_kd.ENSEMBLES)  # Best-Single is no model at test time
    for name in ("w", "lr_train", "lr_dev"):
        assert sum(ensembles[name]["weights"]) == pytest.approx(1.0)
    assert ensembles["u"]["weights"] is None
    folders = [r["folder"] for r in rows if r["folder"] and r["arm"] != "readings"]
    assert len(folders) == len(set(folders))


def test_ensembles_are_scored_as_their_students_are_taught():
    e = experiment(sections=[])
    said = e.said(0, "test")
    assert said.shape == (30, 2, 3)
    mean = said.softmax(-1).mean(1)
    assert torch.allclose(e.ensemble(0, "u", "test").softmax(-1), mean, atol=1e-6)
    weights = e.fitted(0, "w").state()["weights"]
    labels = torch.from_numpy(e.loaded.splits["validation"].labels)
    accuracy = (e.said(0, "validation").argmax(-1) == labels[:, None]).float().mean(0)
    assert torch.allclose(weights, accuracy / accuracy.sum())
    assert not paper.FIXED["w"].state()  # what is learned stays with the copy
    drawn = e.ensemble(0, "rand", "test")
    assert all(any(torch.equal(drawn[i], said[i, k]) for k in range(2)) for i in range(30))
    assert torch.equal(drawn, e.ensemble(0, "rand", "test"))


def test_the_best_learning_rate_of_a_teacher_is_chosen_on_validation():
    e = experiment(teacher_lrs=[1e-6, 1e-2], teacher_epochs=8, sections=[])
    chosen = e.teacher(0, 0)
    assert chosen.metrics["validation"]["accuracy"] > 0.5
    assert len(e.used) == 2  # both are on the bill
    assert chosen.metrics["validation"]["accuracy"] == max(i["metrics"]["validation"]["accuracy"] for i in e.used.values())


def test_a_second_set_of_test_rows_gives_rows_of_its_own():
    """MNLI's mismatched rows: the paper's MNLI-mm."""
    e = experiment(task="glue/mnli", sections=["main"], controls=[])
    task = e.whole
    e.__dict__["whole"] = replace(task, splits={**task.splits, "mismatched": Split(
        [f"mm/{i}" for i in range(12)], task.splits["test"].inputs[:12], task.splits["test"].labels[:12])})
    rows = [*e.teacher_rows(0), *e.student_rows(e.start(0))]
    assert Counter((r["task"], r["split"], r["n_test"]) for r in rows) == {("glue/mnli", "test", 30): 8,
                                                                            ("glue/mnli-mm", "mismatched", 12): 8}  # fmt: skip
    first, second = rows[-2:]
    assert first["validation"] == second["validation"]
    logits = e.make(e.start(0)).logits("test")[:12]
    assert second["score"] == pytest.approx((logits.argmax(-1).numpy() == task.splits["test"].labels[:12]).mean())
    assert rl_kd.PAPER.printed_task(second["task"]) == "MNLI-mm"


# --- runs without students ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", ["table2", "table3"])
def test_without_sections_the_notebook_trains_no_student(monkeypatch, grid, capsys):
    """Its cells, one after the other, with the sections and controls of a grid that asks for teachers alone."""
    asked = read_grid(repo_root() / "params" / "rl_kd" / f"{grid}.yaml").cells[0].parameters
    asked = {name: asked[name] for name in ("sections", "controls")} | {
        "teachers": PAIR, "students": [STUDENT], "teacher_epochs": 1, "vocab": 150, "max_length": 16, "repeats": [0],
        "train_size": 0, "validation_size": 0, "test_size": 0}  # fmt: skip
    for name in ("distill", "undistilled"):
        monkeypatch.setattr(distil, name, lambda *a, **k: pytest.fail("a student was made"))
    monkeypatch.setattr(representation, "represent", lambda *a: pytest.fail("what only a policy looks at was made"))
    monkeypatch.setenv("MTKD_HELPERS", "0")
    cells = [cell for cell in json.loads(notebook_path("rl_kd").read_text(encoding="utf-8"))["cells"]
             if cell["cell_type"] == "code" and "records.finish" not in "".join(cell["source"])]  # fmt: skip
    namespace, asked = {"__name__": "__main__"}, asked | {"weak_teachers": "mark"}
    for cell in cells:
        exec(compile("".join(cell["source"]), cell["id"], "exec"), namespace)
        if "parameters" in cell["metadata"].get("tags", ()):
            namespace |= asked
    assert {row["arm"] for row in namespace["rows"]} == {"teachers", "floor"}
    assert capsys.readouterr().out.count(namespace["no_students"]) == 2


# --- teachers made elsewhere, what is left, looks inside -----------------------------------------------------------------


def test_finished_teachers_and_tables_of_logits_teach_too(tmp_path):
    task = make_text_task()
    donor = experiment(sections=[])
    folder = donor.teacher(0, 1).folder
    rng = np.random.default_rng(0)
    ids = [i for split in task.splits.values() for i in split.ids]
    labels = np.concatenate([split.labels for split in task.splits.values()])
    table = pd.DataFrame(np.eye(3)[labels] * 4 + rng.normal(0, 1, (len(ids), 3)), columns=task.classes).assign(id=ids)
    table.to_parquet(tmp_path / "said.parquet")
    e = experiment(teachers=[str(tmp_path / "said.parquet"), f"finished:{folder}"], sections=["main"], controls=[])
    rows = all_rows(e)
    said = next(r for r in rows if r["kind"] == "teacher" and r["teachers"][0].endswith("said.parquet"))
    assert said["score"] > 0.9
    assert (said["parameters"], said["folder"]) == (None, None)
    assert len(rows) == 2 + 5 + 1 + 2 + 6 + 3


def test_export_submissions_and_views(tmp_path):
    e = experiment(sections=["main"], controls=[])
    hidden_rows(e)
    folder, best = e.export(tmp_path), e.best_student()
    assert (folder / "model.safetensors").read_bytes() == (best.folder / "model.safetensors").read_bytes()
    assert models.load(folder)
    (file,) = e.write_submissions(tmp_path)
    assert len(file.read_text().splitlines()) == 7
    assert experiment(sections=[]).export(tmp_path) is None

    views = defined_in("rl_kd")
    assert views.widths(e) == {"R(x)": 8, "probabilities": 6, "losses": 2, "state": 8 + 4 * 2}
    state = views.one_state(e, 0, 3)
    assert state.drop(columns="cross_entropy").sum(axis=1).between(0.98, 1.02).all()
    known = views.knowledge(e, 0)
    single = known[known["teacher"] != "at least one is right"]
    assert (known[known["teacher"] == "at least one is right"]["accuracy"].to_numpy()
            >= single.groupby("split", sort=False)["accuracy"].max().to_numpy()).all()
    paid = views.what_rewards_pay(e, e.make(e.start(0)), 0)
    assert paid["reward 1"].nunique() == 1  # it does not see whom the policy follows
    assert paid["reward 2"].nunique() == 2
    table = views.whom(e, best, 0)
    assert len(table) == 2 * 60
    assert table["probability"].between(0, 1).all()
    assert views.summed_up(table)["training samples"].sum() == 2 * 60
