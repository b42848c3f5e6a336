"""RL-KD's policy by itself: its state, Eq. 6 and 8, gradients against finite differences, and whom it learns to follow."""

import itertools
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from mtkd.errors import KitError
from mtkd.rules import policy as p
from mtkd.rules import rewards
from mtkd.rules.policy import Policy
from mtkd.rules.selection import followed
from mtkd.store.artifacts import key
from mtkd.tokens.batches import Batch
from mtkd.train.outputs import TeacherBatch
from mtkd.train.recipes import Stage, Term, stage_spec


def fixed(k=2, width=3, seed=0, **changes) -> Policy:
    """A policy in double precision with drawn parameters, whose state is used as it is."""
    rng = torch.Generator().manual_seed(seed)
    made = Policy(baseline="none", **changes)
    made._learned.update(A=torch.randn(k, width, generator=rng, dtype=torch.float64),
                         b=torch.randn(k, generator=rng, dtype=torch.float64), mean=torch.zeros(width, dtype=torch.float64),
                         scale=torch.ones(width, dtype=torch.float64), baseline=torch.full((), torch.nan))
    return made


def every_action(k: int, n: int = 1) -> torch.Tensor:
    """All joint actions of n samples and k agents. [2 ** (n k), n, k]"""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=n * k)), dtype=torch.float64).view(-1, n, k)


def likelihood(policy, state, actions) -> torch.Tensor:
    """pi(a | s) of each sample. [n, k] -> [n]"""
    chosen = policy.probabilities(state)
    return torch.where(actions > 0, chosen, 1 - chosen).prod(-1)


def expected_update(policy, state, reward_of) -> torch.Tensor:
    """Mean over all actions of what `update` adds to (A, b), per unit of lr, [k (D + 1)]. reward_of(actions [n, k]) -> [n]"""
    total = 0.0
    for actions in every_action(len(policy._learned["b"]), len(state)):
        own = deepcopy(policy)
        own.update(state, actions, reward_of(actions))
        step = torch.cat([(own._learned[x] - policy._learned[x]).flatten() for x in ("A", "b")]) / policy.lr
        total = total + likelihood(policy, state, actions).prod() * step
    return total


def slope(policy, value, h=1e-5) -> torch.Tensor:
    """Central finite differences of value(policy) in every entry of A and b."""
    found = []
    for name in ("A", "b"):
        flat = policy._learned[name].view(-1)
        for i in range(len(flat)):
            ends = []
            for sign in (1, -1):
                moved = deepcopy(policy)
                moved._learned[name].view(-1)[i] += sign * h
                ends.append(value(moved))
            found.append((ends[0] - ends[1]) / (2 * h))
    return torch.stack(found)


STATE = torch.tensor([[0.3, -1.0, 0.5], [1.2, 0.1, -0.4]], dtype=torch.float64)
TABLE = torch.tensor([[9.9, -0.7, -1.5, -0.2], [9.9, -3.0, 0.4, -1.1]], dtype=torch.float64)  # reward per sample and selection


def paid(actions):
    """TABLE's reward; nobody would be paid best (9.9), if it were paid."""
    return TABLE[range(len(actions)), (2 * actions[:, 0] + actions[:, 1]).long()]


# --- state, Eq. 6 --------------------------------------------------------------------------------------------------------


def test_the_state_by_hand():
    z = torch.tensor([[[0.0, torch.log(torch.tensor(3.0))], [0.0, 0.0]]])
    state = p.observe(torch.tensor([[7.0, 8.0]]), z, torch.tensor([1]))
    assert_close(state, torch.tensor([[7, 8, 0.25, 0.75, 0.5, 0.5, -torch.tensor(0.75).log(), -torch.tensor(0.5).log()]]))


def test_eq_6_is_one_logistic_function_per_teacher():
    a, b = torch.tensor([[1.0, 0.0], [0.0, -2.0]]), torch.tensor([0.0, 1.0])
    found = p.choice(torch.tensor([[0.0, 0.5], [3.0, 0.5]]), a, b)
    assert_close(found, torch.sigmoid(torch.tensor([[0.0, 0.0], [3.0, 0.0]])))


def test_the_state_has_the_size_the_paper_gives_it_and_follows_the_members():
    said = TeacherBatch(torch.randn(5, 4, 3), features=torch.randn(5, 6))
    labels = torch.tensor([0, 1, 2, 0, 1])
    assert Policy().look(said, labels).shape == (5, 6 + (3 + 1) * 4)
    state = Policy(of=(2, 0)).look(said, labels)
    assert_close(state[:, 6:9], said.logits[:, 2].softmax(-1))  # the first member is teacher 2
    assert state.shape == (5, 6 + (3 + 1) * 2)


def test_standardised_states_have_mean_0_and_three_features_of_equal_weight():
    said = TeacherBatch(3 + torch.randn(500, 2, 3), features=5 * torch.randn(500, 64))
    labels = torch.randint(3, (500,))
    policy = Policy()
    policy.fit(said, labels)
    own = policy.state()
    z = (policy.look(said, labels) - own["mean"]) / own["scale"]
    assert_close(z.mean(0), torch.zeros(64 + 8), atol=1e-5, rtol=0)
    parts = [part.pow(2).sum(1).mean() for part in (z[:, :64], z[:, 64:70], z[:, 70:])]
    assert_close(torch.stack(parts), torch.ones(3), atol=1e-3, rtol=0)
    raw = Policy(standardise=False)
    raw.fit(said, labels)
    assert_close(raw.state()["scale"], torch.ones(72))
    assert_close(raw.probabilities(raw.look(said, labels)), torch.full((500, 2), 0.5))  # untrained: a coin per teacher


# --- Eq. 8 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", [0, 1])
def test_the_gradient_is_the_slope_of_the_expected_reward_of_those_who_are_followed(sample):
    """One sample, two teachers, four selections: E[reward | somebody is followed] by finite differences."""
    policy, state = fixed(), STATE[[sample]]
    reward = lambda a: TABLE[[sample], (2 * a[:, 0] + a[:, 1]).long()]  # noqa: E731

    def value(moved):
        chances = torch.stack([likelihood(moved, state, a)[0] for a in every_action(2)[1:]])
        return (chances * torch.stack([reward(a)[0] for a in every_action(2)[1:]])).sum() / chances.sum()

    somebody = 1 - likelihood(policy, state, torch.zeros(1, 2))
    assert_close(expected_update(policy, state, reward) / somebody, slope(policy, value), atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("baseline", [0.0, -1.0])
def test_the_masked_gradient_is_that_of_a_game_in_which_nobody_pays_the_baseline(baseline):
    """Two samples at once; the update is a mean over them."""
    policy = fixed(empty="masked")

    def value(moved):
        total = 0.0
        for actions in every_action(2, 2):
            worth = torch.where(actions.sum(-1) > 0, paid(actions) - baseline, 0.0)
            total = total + likelihood(moved, STATE, actions).prod() * worth.mean()
        return total

    found = expected_update(policy, STATE, lambda a: paid(a) - baseline)
    assert_close(found, slope(policy, value), atol=1e-8, rtol=1e-6)


def test_credit_for_a_batch_is_the_slope_of_the_batchs_mean_reward():
    """Whoever follows somebody gets the mean of those rewards; who follows whom at all is not what is learned."""
    policy = fixed(credit="batch")
    joint = every_action(2, 2)
    some = [tuple((a.sum(-1) > 0).tolist()) for a in joint]

    def chance(moved, group):
        return sum(likelihood(moved, STATE, a).prod() for a, s in zip(joint, some) if s == group)

    def value(moved):  # sum over groups of P(group), held still, times E[mean reward | group]
        total = 0.0
        for group in set(some) - {(False, False)}:
            inside = sum(likelihood(moved, STATE, a).prod() * paid(a)[torch.tensor(group)].mean()
                         for a, s in zip(joint, some) if s == group)
            total = total + chance(policy, group) * inside / chance(moved, group)
        return total / len(STATE)

    assert_close(expected_update(policy, STATE, paid), slope(policy, value), atol=1e-8, rtol=1e-6)


def test_a_constant_reward_teaches_nothing():
    for credit in ("sample", "batch"):
        found = expected_update(fixed(credit=credit), STATE, lambda a: torch.full((len(a),), -3.0, dtype=torch.float64))
        assert_close(found, torch.zeros_like(found), atol=1e-10, rtol=0)


def test_the_printed_gradient_is_the_slope_of_the_likelihood_and_not_of_the_expected_reward():
    policy = fixed(gradient="printed")
    actions = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    reward = torch.tensor([-0.5, 2.0], dtype=torch.float64)

    def value(moved):  # sum_j r sum_k pi_k(s_j, a_jk) over the mean of the batch
        chosen = moved.probabilities(STATE)
        return (torch.where(actions > 0, chosen, 1 - chosen).sum(-1) * reward).mean()

    own = deepcopy(policy)
    own.update(STATE, actions, reward)
    step = torch.cat([(own._learned[x] - policy._learned[x]).flatten() for x in ("A", "b")]) / policy.lr
    assert_close(step, slope(policy, value), atol=1e-8, rtol=1e-6)
    log, printed = expected_update(fixed(), STATE, paid), expected_update(policy, STATE, paid)
    assert torch.cosine_similarity(log, printed, dim=0) < 0.95


def test_empty_selections_change_nothing():
    for changes in ({}, {"empty": "masked"}, {"gradient": "printed"}, {"credit": "batch"}):
        policy, nobody = fixed(**changes), torch.zeros(2, 2, dtype=torch.float64)
        before = deepcopy(policy._learned)
        policy.update(STATE, nobody, torch.tensor([5.0, -5.0], dtype=torch.float64))
        assert all(torch.equal(before[x], policy._learned[x]) for x in ("A", "b"))
        half = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
        one, other = deepcopy(policy), deepcopy(policy)
        one.update(STATE, half, torch.tensor([5.0, -1.0], dtype=torch.float64))
        other.update(STATE, half, torch.tensor([-9.0, -1.0], dtype=torch.float64))
        assert_close(one._learned["A"], other._learned["A"])  # what an empty sample was paid plays no part


def test_the_moving_average_by_hand():
    policy = replace(fixed(), baseline="moving_average", _learned=fixed()._learned)
    actions = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    a = policy._learned["A"]
    policy.update(STATE, actions, torch.tensor([-2.0, 7.0], dtype=torch.float64))
    assert torch.equal(policy._learned["A"], a)  # the first batch counts from its own mean
    assert policy._learned["baseline"].item() == -2.0
    policy.update(STATE, actions, torch.tensor([-1.0, 7.0], dtype=torch.float64))
    assert policy._learned["baseline"].item() == pytest.approx(0.9 * -2.0 + 0.1 * -1.0)
    assert not torch.equal(policy._learned["A"], a)


def test_a_new_stage_pays_in_another_currency_and_its_first_batch_is_no_shock():
    """Rewards of -1 before, of -100 now: against the old mean the first batches would undo whatever they did."""
    policy = replace(fixed(), baseline="moving_average", _learned=fixed()._learned)
    actions = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    policy.update(STATE, actions, torch.tensor([-1.0, -1.0], dtype=torch.float64))
    a = policy._learned["A"]
    policy.forget_rewards()
    policy.update(STATE, actions, torch.tensor([-100.0, -100.0], dtype=torch.float64))
    assert torch.equal(policy._learned["A"], a)
    policy.update(STATE, actions, torch.tensor([-200.0, -200.0], dtype=torch.float64))
    assert not torch.equal(policy._learned["A"], a)


def test_scores_stay_finite_where_the_policy_is_sure():
    for logit in (-60.0, 60.0):
        for actions in ([1.0, 0.0], [1.0, 1.0]):
            found = p.score(torch.full((1, 2), logit), torch.tensor([actions]))
            assert torch.isfinite(found).all()
            assert (found.abs() <= 1).all()


# --- learning whom to follow ---------------------------------------------------------------------------------------------


def planted(n=600, teachers=2, classes=4, hard=False, seed=0):
    """Teacher k is right on the inputs whose first feature has its sign (even teachers: positive), else surely wrong. With
    `hard`, teachers hardly know anything about half of the inputs. -> TeacherBatch, labels, right [n, T]"""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 16, generator=rng)
    labels = torch.randint(classes, (n,), generator=rng)
    right = (x[:, :1] > 0) == (torch.arange(teachers) % 2 == 0)
    other = (labels[:, None] + torch.randint(1, classes, (n, teachers), generator=rng)) % classes
    said = torch.where(right, labels[:, None], other)
    power = torch.where(torch.rand(n, generator=rng) < 0.5, 0.3, 3.0) if hard else torch.full((n,), 2.5)
    z = 0.7 * torch.randn(n, teachers, classes, generator=rng)
    z = z.scatter_add(2, said.unsqueeze(-1), power[:, None, None].expand(n, teachers, 1))
    return TeacherBatch(z, features=x), labels, right


def learn(policy, said, labels, *, epochs=4, seed=0, shuffled=False) -> torch.Tensor:
    """TS pre-training: paid by the mean of the selected teachers. -> probabilities [n, K] on all inputs at the end

    shuffled: paid what samples of the batch before were paid. (Shuffling within a batch would leave its mean, from which
    the policy learns too, as with credit="batch".)
    """
    rng = torch.Generator().manual_seed(seed)
    policy.fit(said, labels)
    state, before = policy.look(said, labels), torch.zeros(1)
    for _ in range(epochs):
        for index in torch.randperm(len(labels), generator=rng).split(32):
            actions = torch.bernoulli(policy.probabilities(state[index]), generator=rng)
            reward = rewards.reward_of_teachers(said.logits[index], actions, labels[index])
            others = before[torch.randint(len(before), (len(index),), generator=rng)]
            policy.update(state[index], actions, others if shuffled else reward)
            before = reward
    return policy.probabilities(state)


def follows_the_right_one(chosen, right) -> bool:
    return bool(chosen[right].mean() > 0.7 and chosen[~right].mean() < 0.25)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_teacher_is_right_on_half_of_the_inputs_and_another_on_the_rest(seed):
    said, labels, right = planted(seed=seed)
    assert follows_the_right_one(learn(Policy(), said, labels, seed=seed), right)
    assert not follows_the_right_one(learn(Policy(), said, labels, seed=seed, shuffled=True), right)


def test_it_learns_from_the_representation_where_the_teachers_do_not_show_it():
    """The state without probabilities and losses: only R(x) tells who is right."""
    said, labels, right = planted()
    policy = Policy()
    policy.fit(said, labels)
    policy._learned["scale"][16:] = 1e9
    policy._learned["scale"][:16] /= 4  # it has the place of all three
    assert follows_the_right_one(learn(policy, said, labels, epochs=8), right)


@pytest.mark.parametrize("changes", [{"credit": "batch", "lr": 10.0}, {"gradient": "printed", "lr": 3.0}, {"baseline": "none"},
                                     {"empty": "masked"}, {"standardise": False, "lr": 0.3}])
def test_the_switches_tell_right_from_wrong_too(changes):
    said, labels, right = planted()
    chosen = learn(Policy(**changes), said, labels, epochs=8)
    assert chosen[right].mean() > chosen[~right].mean() + 0.2


def nobody(chosen) -> float:
    return float((1 - chosen).prod(-1).mean())


@pytest.mark.parametrize("teachers", [2, 3])
@pytest.mark.parametrize("hard", [False, True])
def test_the_policy_does_not_collapse_to_selecting_nobody(hard, teachers):
    said, labels, _ = planted(hard=hard, teachers=teachers)
    start = 0.5**teachers
    assert nobody(learn(Policy(), said, labels, epochs=8)) < start + 0.1
    assert nobody(learn(Policy(baseline="none"), said, labels, epochs=8)) < start + 0.1


def test_the_printed_forms_do_collapse():
    """What the defaults are for: without a baseline at once, and with one where some inputs are hard for every teacher."""
    said, labels, _ = planted(hard=True)
    assert nobody(learn(Policy(empty="masked", baseline="none"), said, labels, epochs=8)) > 0.9
    assert nobody(learn(Policy(empty="masked"), said, labels, epochs=8)) > 0.5
    easy, labels, _ = planted()
    assert nobody(learn(Policy(empty="masked", baseline="none"), easy, labels, epochs=8)) > 0.9


# --- the selection -------------------------------------------------------------------------------------------------------


def test_actions_are_drawn_from_the_generator_and_put_at_the_members_places():
    said, labels, _ = planted(teachers=4)
    batch = Batch(torch.arange(600).numpy(), {}, labels)
    policy = Policy(of=(3, 1))
    policy.fit(said, labels)
    policy._learned["b"] = torch.tensor([2.0, -2.0])
    one, two, three = (policy.weights(batch, said, 0, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)
    assert set(one.unique().tolist()) == {0.0, 1.0}
    assert (one[:, [0, 2]] == 0).all()
    share = one.mean(0)
    assert share[3] == pytest.approx(0.88, abs=0.05)
    assert share[1] == pytest.approx(0.12, abs=0.05)
    assert followed(one).sum() == pytest.approx(1 - float((one.sum(1) == 0).float().mean()))


def test_what_is_learned_is_saved_and_goes_on():
    said, labels, _ = planted()
    policy = Policy()
    learn(policy, said, labels, epochs=1)
    other = Policy()
    other.load(policy.state())
    other.fit(said, labels)  # does not begin anew
    state = policy.look(said, labels)
    assert torch.equal(other.probabilities(state), policy.probabilities(state))
    assert set(policy.state()) == {"A", "b", "mean", "scale", "baseline"}


def test_copies_learn_for_themselves_and_nothing_learned_is_in_the_spec():
    said, labels, _ = planted()
    policy = Policy()
    copy = deepcopy(policy)
    before = key("model", copy.spec(["a", "b"]))
    learn(copy, said, labels, epochs=1)
    assert not policy.state()
    assert key("model", copy.spec(["a", "b"])) == before == key("model", policy.spec(["a", "b"]))
    stage = Stage("s", (Term("soft_cross_entropy", policy),))
    assert key("model", stage_spec(stage, ["a", "b"])) != key("model", stage_spec(replace(
        stage, terms=(Term("soft_cross_entropy", Policy(empty="masked")),)), ["a", "b"]))


def test_what_a_stage_does_not_look_at_has_its_default():
    changed = {"gamma": 0.9, "dev_size": 7, "dev_every": 3, "reward_scale": "loss"}
    one, two, three = (Policy(reward=r, **changed) for r in (1, 2, 3))
    assert one.trained_in("alternate") == Policy(reward=1)
    assert two.trained_in("alternate") == Policy(reward=2, reward_scale="loss")
    assert three.trained_in("alternate") == three
    for policy in (one, two, three):
        assert policy.trained_in("selection") == policy.trained_in("student") == Policy()
    paid = replace(three, pretrain_reward="student", alternation="batch")
    assert paid.trained_in("selection") == replace(paid, alternation="epoch")
    other = replace(three, gradient="printed", credit="batch", encoder="lsa-8", lr=0.1)  # these it does look at
    assert other.trained_in("selection") == Policy(gradient="printed", credit="batch", encoder="lsa-8", lr=0.1)


@pytest.mark.parametrize(("changes", "says"), [
    ({"gradient": "exp"}, "no such value of gradient: 'exp'; there are log and printed"), ({"baseline": "mean"}, "baseline"),
    ({"credit": "epoch"}, "credit"), ({"alternation": "never"}, "alternation"), ({"pretrain_reward": "no"}, "pretrain_reward"),
    ({"empty": "kept"}, "empty"), ({"reward": 4}, "no reward 4; there are 1, 2 and 3"), ({"gamma": 1.5}, "gamma between 0"),
    ({"dev_every": 0}, "dev_every of at least 1"), ({"lr": 0.0}, "lr above 0"),
    ({"reward_scale": "T"}, "no such value of reward_scale: 'T'; there are printed and loss"),
])
def test_choices_that_do_not_exist_are_refused(changes, says):
    with pytest.raises(KitError, match=says):
        Policy(**changes)


def test_a_policy_without_what_it_reads_says_so():
    said, labels, _ = planted(n=4)
    with pytest.raises(KitError, match="has not looked at the teachers yet"):
        Policy().weights(Batch(torch.arange(4).numpy(), {}, labels), said, 0, torch.Generator())
    with pytest.raises(KitError, match="finds none here"):
        Policy().look(TeacherBatch(said.logits), labels)
    with pytest.raises(KitError, match="regression"):
        Policy().look(said, labels.float())


def test_doctests():
    import doctest

    for module in (p, rewards,):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0
