"""Stages that learn whom to follow, in the loop and in the store: Algorithms 1 and 2 of RL-KD on planted teachers."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from mtkd.data.tasks import Task
from mtkd.errors import KitError
from mtkd.models.names import build
from mtkd.rules import matching as terms
from mtkd.rules import rewards
from mtkd.rules.policy import Policy
from mtkd.rules.selection import Primary, Uniform
from mtkd.store.artifacts import Store, tensors_load
from mtkd.tokens.batches import plan
from mtkd.train import distil, episodes, teachers
from mtkd.train import loop as train
from mtkd.train.prepare import prepare
from mtkd.train.recipes import Optimisation, Recipe, Stage, Term
from tests.conftest import CLASSES, text_split

CPU = torch.device("cpu")
OPT = Optimisation(epochs=2, batch_size=16, lr=5e-3, keep="last")
NAME = "scratch-1x32"


def kd(selection, alpha=0.5, **options):
    return (Term("cross_entropy", weight=1 - alpha),
            Term("soft_cross_entropy", selection, combine="probabilities", weight=alpha, **options))


def rl_kd(policy, optimisation=OPT, policy_epochs=2) -> Recipe:
    return Recipe("rl_kd", (Stage("pretrain_kd", kd(Uniform()), optimisation),
                            Stage("pretrain_policy", kd(policy), replace(optimisation, epochs=policy_epochs), "train",
                                  learns="selection"),
                            Stage("alternate", kd(policy), optimisation, learns="alternate")))


def planted_task(n=240) -> Task:
    sizes = {"train": n, "validation": 40, "test": 40}
    splits = {name: text_split(name, size, 70 + i) for i, (name, size) in enumerate(sizes.items())}
    return Task("tiny/planted", "text", CLASSES, splits, "accuracy", ("accuracy",))


def right_on(task, split) -> np.ndarray:
    """Teacher 0 is right on the even samples, teacher 1 on the odd ones. [n, 2]"""
    even = np.arange(len(task.splits[split])) % 2 == 0
    return np.stack([even, ~even], 1)


def tables(task, folder) -> list:
    """Two teachers that exist as tables of logits alone; where they are wrong they are wrong with confidence."""
    found = []
    for t in range(2):
        rows, rng = [], np.random.default_rng(t)
        for name, split in task.splits.items():
            said = np.where(right_on(task, name)[:, t], split.labels, (split.labels + 1) % 3)
            z = 3.0 * np.eye(3)[said] + 0.3 * rng.standard_normal((len(split), 3))
            rows.append(pd.DataFrame(z, columns=list(CLASSES)).assign(id=split.ids))
        pd.concat(rows).to_csv(folder / f"teacher{t}.csv", index=False)
        found.append(teachers.teacher_from_table(folder / f"teacher{t}.csv"))
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Task, teachers and a store that the tests of this file share."""
    folder = tmp_path_factory.mktemp("planted")
    task = planted_task()
    return prepare(task, NAME, vocab=200, store=Store(folder / "store")), tables(task, folder)


def learned(model) -> dict:
    return tensors_load(model.folder / "selection-1.safetensors")


def same(a: dict, b: dict) -> bool:
    return set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)


# --- the planted problem, from teachers to a policy in a folder ------------------------------------------------------------


def told_apart(world, policy, **changes) -> bool:
    prepared, pool = world
    student = distil.distill(prepared, pool, NAME, rl_kd(policy, **changes))
    _, chosen = episodes.look(prepared, pool, policy, student)
    right = right_on(prepared.task, "train")
    return bool(chosen[right].mean() > 0.75 and chosen[~right].mean() < 0.2)


def test_the_policy_learns_whom_to_follow_from_the_selected_teachers(world):
    assert told_apart(world, Policy(), policy_epochs=8)


def test_and_not_where_rewards_are_shuffled(world, monkeypatch, tmp_path):
    """Everyone is paid what some sample of the batch before was paid."""
    real, rng, before = rewards.reward_of_teachers, torch.Generator().manual_seed(0), [torch.zeros(1)]

    def shuffled(logits, actions, labels):
        before.append(real(logits, actions, labels))
        return before[-2][torch.randint(len(before[-2]), labels.shape, generator=rng)]

    monkeypatch.setattr(rewards, "reward_of_teachers", shuffled)
    prepared = prepare(world[0].task, NAME, vocab=200, store=Store(tmp_path / "own"))
    assert not told_apart((prepared, world[1]), Policy(), policy_epochs=8)


@pytest.mark.parametrize("alternation", ["epoch", "batch"])
def test_a_student_that_knows_the_answers_teaches_the_policy_whom_to_follow(world, alternation):
    """Reward 2, without pre-training of the policy: what the student answers is far from a teacher that is wrong."""
    prepared, pool = world
    policy = Policy(reward=2, alternation=alternation, lr=2.0)
    strong = replace(OPT, epochs=6)
    recipe = Recipe("x", (Stage("gold", kd(Uniform(), alpha=0.0), strong),
                          Stage("alternate", kd(policy, alpha=0.1), strong, learns="alternate")))
    student = distil.distill(prepared, pool, NAME, recipe)
    assert student.metrics["test"]["accuracy"] > 0.9
    _, chosen = episodes.look(prepared, pool, policy, student)
    right = right_on(prepared.task, "train")
    assert chosen[right].mean() > chosen[~right].mean() + 0.3
    assert np.mean(student.info["history"]["policy"]["empty"]) < 0.35


# --- stages and the store ----------------------------------------------------------------------------------------------------


def test_the_policy_goes_from_stage_to_stage_through_the_store(world):
    prepared, pool = world
    recipe = rl_kd(Policy())
    before = distil.distill(prepared, pool, NAME, replace(recipe, stages=recipe.stages[:2]))
    fixed = replace(recipe, stages=(*recipe.stages[:2], replace(recipe.stages[2], learns="student")))
    after = distil.distill(prepared, pool, NAME, fixed)
    assert same(learned(after), learned(before))  # used and not trained
    assert learned(before)["A"].abs().sum() > 0
    assert set(learned(before)) == {"A", "b", "mean", "scale", "baseline"}
    trained = distil.distill(prepared, pool, NAME, recipe)
    assert trained.before.key == before.key
    assert not same(learned(trained), learned(before))
    fresh = distil.distill(prepared, pool, NAME, replace(recipe, stages=(recipe.stages[0], recipe.stages[2])))
    assert not same(learned(trained), learned(fresh))


def test_a_policy_of_other_teachers_or_inputs_is_not_taken_over(world):
    prepared, pool = world
    recipe = rl_kd(Policy())
    other = replace(recipe.stages[2], terms=kd(Policy(of=(1, 0))))
    with pytest.raises(KitError, match="goes on with the Policy of the stage before, which had other teachers"):
        distil.distill(prepared, pool, NAME, replace(recipe, stages=(*recipe.stages[:2], other)))
    other = replace(recipe.stages[2], terms=kd(Policy(encoder="lsa-8")))
    with pytest.raises(KitError, match="had other encoder"):
        distil.distill(prepared, pool, NAME, replace(recipe, stages=(*recipe.stages[:2], other)))
    paid = replace(recipe.stages[2], terms=kd(Policy(reward=2, lr=0.1)))  # paid in another way: it goes on
    assert distil.distill(prepared, pool, NAME, replace(recipe, stages=(*recipe.stages[:2], paid))).info["history"]["policy"]


def test_cached_and_resumed_runs_give_the_same_as_one_in_one_go(world, tmp_path):
    task, pool = world[0].task, world[1]
    once, later = (prepare(task, NAME, vocab=200, store=Store(tmp_path / s)) for s in ("once", "later"))
    recipe = rl_kd(Policy(reward=3, dev_every=4))
    whole = distil.distill(once, pool, NAME, recipe)
    again = distil.distill(once, pool, NAME, recipe)
    assert again.reused
    assert again.key == whole.key
    distil.distill(later, pool, NAME, replace(recipe, stages=recipe.stages[:2]))  # interrupted here
    resumed = distil.distill(later, pool, NAME, recipe)
    assert resumed.before.reused
    assert same(learned(resumed), learned(whole))
    assert torch.equal(resumed.logits("test"), whole.logits("test"))
    assert resumed.info["history"] == whole.info["history"]


def test_draws_come_from_the_seed(world, tmp_path):
    task, pool = world[0].task, world[1]
    a, b = (prepare(task, NAME, vocab=200, store=Store(tmp_path / s)) for s in ("a", "b"))
    one, two, three = (distil.distill(p, pool, NAME, rl_kd(Policy()), seed) for p, seed in ((a, 1), (b, 1), (a, 2)))
    assert one.info["history"] == two.info["history"]
    assert same(learned(one), learned(two))
    assert one.info["history"]["policy"]["trace"] != three.info["history"]["policy"]["trace"]


def test_teaching_the_policy_leaves_the_student_as_it_is(world):
    prepared, pool = world
    for policy in (Policy(), Policy(pretrain_reward="student", reward=3)):
        student = distil.distill(prepared, pool, NAME, replace(rl_kd(policy), stages=rl_kd(policy).stages[:2]))
        before, after = student.before.network().state_dict(), student.network().state_dict()
        assert all(torch.equal(before[k], after[k]) for k in before)
        assert student.metrics == student.before.metrics
        assert student.info["history"]["losses"] == {}
        assert len(student.info["history"]["validation"]) == 1
        assert learned(student)["A"].abs().sum() > 0


def test_the_state_is_built_without_the_labels_of_validation_and_test(world, tmp_path):
    """Other labels there, the same teachers: the same states and, but for reward 3, the same policy."""
    prepared, pool = world
    splits = prepared.task.splits
    other = replace(prepared.task, splits={name: split if name == "train" else replace(split, labels=(split.labels + 1) % 3)
                                           for name, split in splits.items()})
    relabelled = prepare(other, NAME, vocab=200, store=Store(tmp_path / "other"))
    policy = Policy()
    one, two = (distil.distill(p, pool, NAME, rl_kd(policy)) for p in (prepared, relabelled))
    assert one.metrics["test"] != two.metrics["test"]
    assert same(learned(one), learned(two))
    (state, chosen), (again, _) = (episodes.look(p, pool, policy, m) for p, m in ((prepared, one), (relabelled, two)))
    assert torch.equal(state, again)
    assert chosen.shape == (240, 2)
    assert state.shape == (240, 64 + 3 * 2 + 2)
    for split in ("validation", "test"):
        with pytest.raises(KitError, match=f"not on the split '{split}'"):
            episodes.look(prepared, pool, policy, one, split)
    with pytest.raises(KitError, match="was distilled without a policy"):
        episodes.look(prepared, pool, policy, one.before.before)


def test_the_control_with_shuffled_teachers_runs(world):
    prepared, pool = world
    recipe = replace(rl_kd(Policy()), teachers=replace(rl_kd(Policy()).teachers, control="shuffled"))
    shuffled = distil.distill(prepared, pool, NAME, recipe)
    assert not same(learned(shuffled), learned(distil.distill(prepared, pool, NAME, rl_kd(Policy()))))


# --- what happens inside the loop ------------------------------------------------------------------------------------------


def in_loop(world, policy, learns="alternate", *, certain=False, optimisation=OPT, terms_=None, seed=0):
    """Run one stage on a fresh student; certain: the policy selects everyone, always. -> network, history, learner"""
    prepared, pool = world
    stage = Stage("s", terms_ or kd(policy), optimisation, learns=learns)
    network, data = build(NAME, 3, seed=3, vocab=prepared.vocab), prepared.data("train")
    modules, needs, want = terms.prepare_stage(stage, terms.Setting(network.shape, [{}, {}]))
    said = teachers.gather(prepared, pool, Recipe("x", (stage,)), stage, "train", needs, CPU)
    learner = None
    if isinstance(policy, Policy):
        distil.fit_selections(prepared, pool, stage)
        if certain:
            policy._learned["b"] += 100.0
        if learns != "student":
            learner = episodes.Learner(stage, stage.terms[1], modules[1], said, data, prepared.data("validation"), CPU)
    history = train.fit(network, data, stage, modules, said, want=want, seed=seed, device=CPU, learner=learner)
    return network, history, learner


@pytest.mark.parametrize("reward", [1, 3])
def test_a_policy_beside_it_does_not_disturb_the_student(world, reward):
    """Everyone always selected: bit for bit the student of the average, dropout and order of batches included."""
    alone, plain, _ = in_loop(world, Uniform(), "student")
    beside, history, learner = in_loop(world, Policy(lr=1e-9, reward=reward, dev_every=3), certain=True)
    assert history.losses == plain.losses
    assert all(torch.equal(a, b) for a, b in zip(alone.state_dict().values(), beside.state_dict().values()))
    assert learner.curves.summary()["selected"] == [[1.0, 1.0]] * 2
    assert plain.summary().keys() == {"losses", "validation", "best_epoch", "steps", "samples"}


def test_delayed_rewards_cost_one_pass_per_epoch_and_are_those_of_the_student_at_its_end(world, monkeypatch):
    passes, paid, real = [], [], episodes.evaluate_logits

    def counted(network, data, device):
        passes.append(real(network, data, device))
        return passes[-1]

    monkeypatch.setattr(episodes, "evaluate_logits", counted)
    pay = episodes.Learner.pay
    monkeypatch.setattr(episodes.Learner, "pay", lambda self, logits, batch, said, actions, accuracy: paid.append(
        (batch.rows, logits.clone(), actions)) or pay(self, logits, batch, said, actions, accuracy))
    network, history, learner = in_loop(world, Policy(reward=2))
    assert len(passes) == OPT.epochs
    assert len(paid) == history.steps == len(learner.curves.rows)
    rng = np.random.default_rng(0)  # the order in which the student saw its batches
    order = [rows for _ in range(OPT.epochs) for rows in plan(world[0].data("train"), OPT.batch_size, rng)]
    for i, (rows, logits, _) in enumerate(paid):
        assert (rows == order[i]).all()
        assert_close(logits, passes[i // (len(paid) // OPT.epochs)][rows])
    final = real(network, world[0].data("train"), CPU)
    assert_close(passes[-1], final)
    assert learner.history == []


def test_what_was_drawn_for_the_student_is_what_is_paid(world, monkeypatch):
    drawn, judged, weights, pay = [], [], Policy.weights, episodes.Learner.pay
    monkeypatch.setattr(Policy, "weights", lambda self, *a: drawn.append(weights(self, *a)) or drawn[-1])
    monkeypatch.setattr(episodes.Learner, "pay", lambda self, *a: judged.append(a[3]) or pay(self, *a))
    in_loop(world, Policy(of=(1, 0)))
    assert all(torch.equal(a.flip(1), b) for a, b in zip(drawn, judged, strict=True))


def test_batch_wise_alternation_trains_student_and_policy_in_turn(world, monkeypatch):
    monkeypatch.setattr(episodes, "evaluate_logits", lambda *a: pytest.fail("no pass over the data is needed"))
    _, history, learner = in_loop(world, Policy(alternation="batch", reward=3, dev_every=2))
    assert history.steps == 30
    assert len(history.losses["cross_entropy"]) == 15
    assert len(learner.curves.rows) == 15
    assert all(math.isfinite(a) for a in history.policy["dev_accuracy"])


def test_reward_three_measures_now_and_then_and_pays_a_batch_by_what_came_after_it(world, monkeypatch):
    answers = iter(np.arange(100) / 100)
    monkeypatch.setattr(rewards, "dev_accuracy", lambda *a: float(next(answers)))
    _, history, learner = in_loop(world, Policy(reward=3, dev_every=4))  # 15 batches per epoch, two epochs
    blocks = [row["dev_accuracy"] for row in learner.curves.rows]
    # measured after steps 4, 8, 12 and at the end of the epoch, then after steps 16, 20, 24, 28 and at the end
    assert [blocks.count(x / 100) for x in range(9)] == [4, 4, 4, 3, 1, 4, 4, 4, 2]
    assert blocks == sorted(blocks)
    assert history.policy["dev_accuracy"][0] == pytest.approx(np.repeat([0, 0.01, 0.02, 0.03], [4, 4, 4, 3]).mean())


def test_rewards_are_those_of_eq_7_with_the_terms_own_distillation_loss(world):
    prepared = world[0]
    policies = [Policy(reward=r, gamma=0.3) for r in (1, 2, 3)]
    found = []
    for policy in policies:
        _, _, learner = in_loop(world, policy, terms_=kd(policy, temperature=5.0))
        batch = prepared.data("train").batch(np.arange(6))
        said, z = learner.teachers.batch(batch), torch.linspace(-1, 1, 18).view(6, 3)
        actions = torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 0], [1, 0], [1, 1]])
        found.append(learner.pay(z, batch, said, actions, 0.8))
    ce = torch.nn.functional.cross_entropy(z, batch.labels, reduction="none")
    target = (said.logits / 5).softmax(-1)
    mean = (target * actions.unsqueeze(-1)).sum(1) / actions.sum(1, keepdim=True).clamp(min=1)
    dl = -(mean * (z / 5).log_softmax(-1)).sum(-1)
    assert dl[3] == 0
    assert_close(found[0], -ce)
    assert_close(found[1], -ce - dl)
    assert_close(found[2], 0.3 * (-ce - dl) + 0.7 * 0.8)


@pytest.mark.parametrize(("scale", "factor"), [("printed", 1.0), ("loss", 25.0)])
def test_the_rewards_distillation_loss_is_as_printed_or_as_the_student_has_it(world, scale, factor):
    """By hand, at T = 5 with T squared in the student's loss: a student who says nothing is ln 3 from whomever it follows."""
    rows = np.arange(4)
    batch = world[0].data("train").batch(rows)
    actions, z = torch.tensor([[1.0, 0], [0, 1], [1, 1], [1, 0]]), torch.zeros(4, 3)
    for reward, expected in ((1, -math.log(3)), (2, -math.log(3) - factor * math.log(3)),
                             (3, 0.3 * (-math.log(3) - factor * math.log(3)) + 0.7 * 0.8)):  # fmt: skip
        policy = Policy(reward=reward, gamma=0.3, reward_scale=scale)
        _, history, learner = in_loop(world, policy, terms_=kd(policy, temperature=5.0, t_squared=True))
        assert_close(learner.pay(z, batch, learner.teachers.batch(batch), actions, 0.8), torch.full((4,), expected))
        assert history.losses["soft_cross_entropy"][0] > 20  # the student's own loss has the factor either way


def test_without_t_squared_both_scales_are_one(world):
    found = [in_loop(world, Policy(reward=2, reward_scale=scale), terms_=None)[1].policy for scale in ("printed", "loss")]
    assert found[0] == found[1]


def test_reward_threes_policy_changes_with_the_accuracies_in_the_printed_scale(world, monkeypatch):
    """Other accuracies make another policy. In the loss's scale, at T = 10, they hardly do: the rewards' distillation loss is a
    hundred times as large."""
    def whom(scale, accuracies):
        steps = iter(accuracies)
        monkeypatch.setattr(rewards, "dev_accuracy", lambda *a: float(next(steps)))
        policy = Policy(reward=3, reward_scale=scale, dev_every=4)
        _, _, learner = in_loop(world, policy, terms_=kd(policy, temperature=10.0, t_squared=True))
        return learner.policy._learned["A"].flatten()

    def moved(scale):
        """By how much of its length reward 3's policy changes with the accuracies."""
        steady = whom(scale, [0.5] * 20)
        return ((whom(scale, [0.45, 0.55] * 10) - steady).norm() / steady.norm()).item()

    assert moved("printed") > 3 * moved("loss")
    assert moved("printed") > 0.1


def test_the_students_reward_with_everyone_selected_pays_everyone(world, monkeypatch):
    seen = []
    update = Policy.update
    monkeypatch.setattr(Policy, "update", lambda self, state, actions, reward: seen.append(actions) or update(
        self, state, actions, reward))
    _, _, learner = in_loop(world, Policy(pretrain_reward="student"), "selection")
    assert all((a == 1).all() for a in seen)
    assert len(seen) == 30
    assert learner.summary()["empty"] == [0.0, 0.0]


def test_curves_are_small_and_say_what_happened(world):
    _, history, _ = in_loop(world, Policy(), "selection", optimisation=replace(OPT, epochs=14, batch_size=15))
    curves = history.summary()["policy"]
    assert set(curves) == {"entropy", "selected", "empty", "reward", "dev_accuracy", "trace"}
    assert [len(curves[k]) for k in ("entropy", "selected", "empty", "reward", "dev_accuracy")] == [14] * 5
    assert curves["dev_accuracy"] == [None] * 14
    assert curves["entropy"][0] > curves["entropy"][-1]
    assert curves["entropy"][0] <= math.log(2)
    assert curves["reward"][-1] > curves["reward"][0]
    trace = curves["trace"]
    assert len(trace["batch"]) == len(trace["reward"]) == 200
    assert (trace["batch"][0], trace["batch"][-1]) == (1, 14 * 16)


def test_stored_and_running_teachers_pay_alike(world, monkeypatch):
    """A hidden term beside the policy's: with running teachers the delayed rewards read the stored logits."""
    prepared, _ = world
    pool = distil.finetune(prepared, NAME, range(2), replace(OPT, epochs=1))
    results = []
    for budget in (1 << 30, 0):
        monkeypatch.setattr(teachers, "STATES_BUDGET", budget)
        own = prepare(prepared.task, NAME, vocab=200, store=Store(prepared.store.folder.parent / f"budget{budget}"))
        policy = Policy(reward=2)
        stage = Stage("both", (*kd(policy), Term("hidden_mse", Primary(0))), replace(OPT, epochs=1), learns="alternate")
        model = distil.distill(own, pool, NAME, Recipe("x", (stage,)))
        results.append(learned(model))
    for name in ("A", "b"):
        assert_close(results[0][name], results[1][name], atol=1e-5, rtol=1e-4)


# --- refusals ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "says"), [
    (Stage("s", kd(Policy()), learns="teacher"), "learns 'teacher'; there are student, selection, alternate"),
    (Stage("s", kd(Uniform()), learns="selection"), "needs exactly one term with a Policy; it has 0"),
    (Stage("s", (*kd(Policy()), Term("logit_mse", Policy())), learns="alternate"), "exactly one term with a Policy; it has 2"),
    (Stage("s", (Term("hidden_mse", Policy()),), learns="alternate"), "paid by the distillation loss on the student's logits"),
    (Stage("s", (Term("logit_mse", Policy(), combine="heads"),), learns="alternate"), "combine='heads'"),
])
def test_stages_that_cannot_learn_are_refused_before_anything_is_trained(world, monkeypatch, stage, says):
    prepared, pool = world
    monkeypatch.setattr(train, "fit", lambda *a, **k: pytest.fail("something was trained"))
    with pytest.raises(KitError, match=says):
        distil.distill(prepared, pool, NAME, Recipe("x", (Stage("first", kd(Uniform()), OPT), stage)))


def test_tasks_without_classes_or_texts_are_refused(regression_task, image_task):
    stage = Stage("s", kd(Policy()))
    for task in (regression_task, image_task):
        with pytest.raises(KitError, match="none of classifying texts"):
            episodes.check(stage, task)


def test_samples_without_labels_are_refused(world, tmp_path):
    prepared, pool = world
    train_split = prepared.task.splits["train"]
    labels = np.where(np.arange(240) == 5, -1, train_split.labels)
    task = replace(prepared.task, splits={**prepared.task.splits, "train": replace(train_split, labels=labels)})
    partly = prepare(task, NAME, vocab=200, store=Store(tmp_path))
    with pytest.raises(KitError, match="the gold label of every sample; its data has samples without one"):
        distil.distill(partly, pool, NAME, Recipe("x", rl_kd(Policy()).stages[2:]))


def test_the_loop_wants_a_learner_exactly_where_there_is_something_to_learn(world):
    for learns, learner in (("alternate", None), ("student", object())):
        with pytest.raises(KitError, match="a learner is for the stages that train a policy"):
            train.fit(None, None, Stage("s", kd(Policy()), learns=learns), None, seed=0, device=CPU, learner=learner)
