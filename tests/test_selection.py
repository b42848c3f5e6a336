"""Whom to follow: every selection against numbers worked out by hand, the thesis's own examples, and what must always hold."""

import doctest
import json
import math
import warnings
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

from mtkd.errors import KitError
from mtkd.rules import experts
from mtkd.rules.experts import (
    ClassMixture,
    Expertise,
    RandomTeacher,
    accuracies,
    best_per_class,
    choose,
    recalls,
    shares_of,
)
from mtkd.rules.selection import Confidence, Everyone, InverseLoss, Primary, Uniform, confidence, followed, inverse_loss
from mtkd.store.artifacts import key, tensors_load, tensors_save
from mtkd.tokens.batches import Batch
from mtkd.train import distil
from mtkd.train.outputs import TeacherBatch
from mtkd.train.prepare import prepare
from mtkd.train.recipes import Optimisation, Recipe, Stage, Term, stage_spec

APPLE, ORANGE, GRASS = range(3)
T1, T2, T3 = range(3)
EVERY = [Uniform, Everyone, InverseLoss, Confidence, Expertise, ClassMixture, RandomTeacher]
quiet = pytest.mark.filterwarnings("ignore:teacher .* is the best one at every class")


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def says(predictions) -> TeacherBatch:
    """Teachers that are sure of what they predict. [.., T] -> logits [.., T, 3]."""
    return TeacherBatch(5.0 * F.one_hot(torch.as_tensor(predictions), 3).float())


def batch_of(labels) -> Batch:
    labels = torch.as_tensor(labels)
    return Batch(np.arange(len(labels)), {}, labels, labels >= 0 if labels.dim() > 1 else None)


def weigh(selection, said, labels=None, seed=0):
    labels = torch.zeros(said.logits.shape[:-2], dtype=torch.long) if labels is None else labels
    return selection.weights(batch_of(labels), said, 0, rng(seed))


def specialists():
    """Each of three teachers is right about its own class alone; 4 apples, 3 oranges, 2 pieces of grass: T1 is best overall."""
    labels = tensor([APPLE] * 4 + [ORANGE] * 3 + [GRASS] * 2)
    said = torch.stack([torch.where(labels == c, labels, (labels + 1) % 3) for c in range(3)], 1)
    return says(said), labels


def fitted(selection, said=None, labels=None):
    if said is None:
        said, labels = specialists()
    selection.fit(said, labels)
    return selection


def random_case(seed, teachers=4, n=40, classes=3):
    """Random logits and labels in which no two teachers are equally accurate."""
    for attempt in range(100):
        logits = randn(n, teachers, classes, seed=1000 * seed + attempt)
        labels = torch.randint(classes, (n,), generator=rng(1000 * seed + attempt))
        if len(accuracies(logits, labels).unique()) == teachers:
            return TeacherBatch(logits), labels
    raise AssertionError("no such case found")


def test_the_examples_in_the_docstrings_run():
    found = doctest.testmod(experts)
    assert found.failed == 0
    assert found.attempted >= 5


# --- weights by formula --------------------------------------------------------------------------------------------------


def test_everyone_is_a_sum_and_not_a_mean():
    said = TeacherBatch(torch.zeros(2, 4, 3))
    assert weigh(Everyone(), said).tolist() == [[1, 1, 1, 1]] * 2
    assert weigh(Everyone((1, 3)), said).tolist() == [[0, 1, 0, 1]] * 2


HALF, NINTH = [0.0, 0.0], [math.log(9), 0.0]  # probability of class 0: 1/2, and 9/10


def test_mt_berts_eq_2_by_hand():
    said = TeacherBatch(tensor([[HALF, NINTH], [HALF, NINTH]]))
    expected = [[1 / (1 + math.log(2)), 1 / (1 + math.log(10 / 9))],   # label 0
                [1 / (1 + math.log(2)), 1 / (1 + math.log(10))]]       # label 1
    assert_close(weigh(InverseLoss(), said, tensor([0, 1])), tensor(expected))
    assert_close(inverse_loss(tensor([math.log(2), math.log(10)])), tensor([0.590616, 0.302793]), atol=1e-5, rtol=0)


def test_ca_mkd_by_hand():
    # softmax(ln 2, ln 10/9, ln 5) is (2, 10/9, 5) over its sum 73/9: w = (1 - that) / 2
    z = tensor([[HALF, NINTH, [0.0, math.log(4)]]])
    expected = tensor([[(1 - 18 / 73) / 2, (1 - 10 / 73) / 2, (1 - 45 / 73) / 2]])
    assert_close(weigh(Confidence(), TeacherBatch(z), tensor([0])), expected)
    # of two teachers each gets the other's share: CE = (0, ln 3) -> (3/4, 1/4)
    assert_close(confidence(tensor([0.0, math.log(3)])), tensor([0.75, 0.25]))
    assert confidence(tensor([[7.0], [0.0]])).tolist() == [[1], [1]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_both_give_the_surer_teacher_more_and_only_ca_mkd_sums_to_one(seed, k):
    ce = 4 * randn(5, k, seed=seed).abs()
    order = ce.argsort(-1)
    for f in (inverse_loss, confidence):
        w = f(ce)
        assert (w > 0).all()
        assert (w.gather(-1, order).diff(dim=-1) <= 1e-7).all()
    assert_close(confidence(ce).sum(-1), torch.ones(5))
    assert (confidence(ce) <= 1 / (k - 1)).all()
    assert (inverse_loss(ce) <= 1).all()


def test_units_without_a_label_follow_everyone_alike():
    said = TeacherBatch(randn(2, 3, 4))
    labels = tensor([-1, 2])
    assert weigh(InverseLoss(), said, labels)[0].tolist() == [1, 1, 1]
    assert_close(weigh(Confidence(), said, labels)[0], torch.full((3,), 1 / 3))
    assert weigh(InverseLoss(), said, labels)[1].max() < 1


def test_a_regression_is_refused():
    for selection in (InverseLoss(), Confidence()):
        with pytest.raises(KitError, match="regression"):
            weigh(selection, TeacherBatch(torch.zeros(2, 2, 1)), tensor([0.5, 1.0]))
    with pytest.raises(KitError, match="class labels"):
        Expertise().fit(TeacherBatch(torch.zeros(2, 2, 1)), tensor([0.5, 1.0]))


# --- recall, and the best teacher of a class -----------------------------------------------------------------------------


def test_per_class_accuracy_is_recall_and_not_precision():
    labels = tensor([0, 0, 0, 0, 1, 1])
    said = says([[0, 0], [0, 1], [0, 1], [0, 1], [0, 1], [0, 1]])  # the first teacher says 0 whatever it sees
    found = recalls(said.logits, labels)
    assert_close(found[:, :2], tensor([[1.0, 0.0], [0.25, 1.0]]))
    assert found[:, 2].isnan().all()
    assert_close(accuracies(said.logits, labels), tensor([4 / 6, 3 / 6]))


def test_units_without_a_label_do_not_count():
    said, labels = random_case(1)
    extra = TeacherBatch(torch.cat([said.logits, randn(7, 4, 3, seed=5)]))
    more = torch.cat([labels, torch.full((7,), -1)])
    assert_close(recalls(extra.logits, more), recalls(said.logits, labels))
    assert_close(accuracies(extra.logits, more), accuracies(said.logits, labels))
    with pytest.raises(KitError, match="has none"):
        recalls(said.logits, torch.full_like(labels, -1))


def test_a_class_that_nobody_was_asked_about_goes_to_the_best_overall():
    recall = tensor([[0.9, math.nan], [0.5, math.nan], [0.7, math.nan]])
    for ties in ("random", "overall"):
        assert best_per_class(recall, tensor([0.5, 0.6, 0.9]), ties).tolist() == [0, 2]


def test_ties_go_to_any_one_of_them_by_seed():
    recall = tensor([[0.9, 0.1], [0.2, 0.8], [0.9, 0.8]])  # class 0: teachers 0 and 2; class 1: teachers 1 and 2
    drawn = [tuple(best_per_class(recall, torch.zeros(3), "random", seed).tolist()) for seed in range(200)]
    assert set(drawn) == {(0, 1), (0, 2), (2, 1), (2, 2)}
    assert 60 < sum(first == 0 for first, _ in drawn) < 140
    assert drawn == [tuple(best_per_class(recall, torch.zeros(3), "random", seed).tolist()) for seed in range(200)]


def test_ties_can_go_to_the_better_overall():
    recall = tensor([[0.9, 0.1], [0.2, 0.8], [0.9, 0.8]])
    assert best_per_class(recall, tensor([0.5, 0.6, 0.7]), "overall").tolist() == [2, 2]
    assert best_per_class(recall, tensor([0.7, 0.6, 0.5]), "overall").tolist() == [0, 1]
    assert best_per_class(recall, tensor([0.6, 0.6, 0.6]), "overall").tolist() == [0, 1]  # the first of them
    with pytest.raises(KitError, match="ties: 'dice'"):
        best_per_class(recall, torch.zeros(3), "dice")


def test_similar_is_within_the_tolerance():
    recall, accuracy = tensor([[0.90], [0.88], [0.80]]), tensor([0.1, 0.2, 0.3])
    expected = {0.0: 0, 0.01: 0, 0.02: 1, 0.05: 1, 0.1: 2}
    assert {t: int(best_per_class(recall, accuracy, "overall", tolerance=t)) for t in expected} == expected


# --- the rule, by the thesis's examples ----------------------------------------------------------------------------------

BEST = tensor([T1, T2, T3])  # S_BT-CL = {T1 Apple, T2 Orange, T3 Grass}


@pytest.mark.parametrize("m", [T1, T2, T3])
def test_the_thesis_straightforward_scenario(m):
    """4.7.1.1: S_T-HP = {T1 Apple, T2 Apple, T3 Orange}; the student proceeds with T1, whoever is most accurate."""
    accuracy = F.one_hot(tensor(m), 3).float()
    assert choose(tensor([APPLE, APPLE, ORANGE]), BEST, accuracy).tolist() == [1, 0, 0]


@pytest.mark.parametrize("m", [T1, T2, T3])
def test_the_thesis_confusing_scenario(m):
    """4.7.1.2: S_T-HP = {T1 Apple, T2 Orange, T3 Orange}; T1 and T2 match, so M is followed, even where M is T3."""
    accuracy = F.one_hot(tensor(m), 3).float()
    assert choose(tensor([APPLE, ORANGE, ORANGE]), BEST, accuracy).tolist() == accuracy.tolist()


def test_two_teachers():
    """4.6 and 4.6.1: teacher 1 is best at C2 (here 1), teacher 2 at C1 (here 0)."""
    best, accuracy = tensor([1, 0]), tensor([0.8, 0.9])
    cases = {(1, 1): [1, 0],   # both say C2: teacher 1
             (0, 0): [0, 1],   # both say C1: teacher 2
             (1, 0): [0, 1],   # both say what they are best at: the better one overall
             (0, 1): [0, 1]}   # neither: silent; the better one overall
    for predictions, expected in cases.items():
        assert choose(tensor(predictions), best, accuracy).tolist() == expected
    assert choose(tensor([1, 0]), best, tensor([0.9, 0.8])).tolist() == [1, 0]


def test_several_can_be_left_to_the_best_of_those_that_match():
    """1.3 reads so: "we took the logits of the teacher whose overall accuracy is better"."""
    predictions = tensor([[APPLE, ORANGE, ORANGE], [APPLE, ORANGE, GRASS], [APPLE, APPLE, ORANGE]])
    accuracy = tensor([0.7, 0.8, 0.9])
    assert choose(predictions, BEST, accuracy, several="matched").argmax(-1).tolist() == [T2, T3, T1]
    assert choose(predictions, BEST, accuracy, several="overall").argmax(-1).tolist() == [T3, T3, T1]


def test_no_expert_at_all():
    predictions = tensor([ORANGE, GRASS, APPLE])
    assert choose(predictions, BEST, tensor([0.7, 0.9, 0.8])).tolist() == [0, 1, 0]
    assert choose(predictions, BEST, tensor([0.7, 0.9, 0.8]), several="matched").tolist() == [0, 1, 0]
    assert_close(choose(predictions, BEST, tensor([0.7, 0.9, 0.8]), none="average"), torch.full((3,), 1 / 3))
    with pytest.raises(KitError, match="none"):
        choose(predictions, BEST, torch.zeros(3), none="nobody")
    with pytest.raises(KitError, match="several: 'all'"):
        choose(predictions, BEST, torch.zeros(3), several="all")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(2, 6), st.sampled_from(experts.SEVERAL))
def test_the_choice_is_one_teacher_who_is_an_expert_where_one_matches(seed, t, c, several):
    predictions, best = torch.randint(c, (30, t), generator=rng(seed)), torch.randint(t, (c,), generator=rng(seed + 1))
    accuracy = torch.rand(t, generator=rng(seed + 2))
    w = choose(predictions, best, accuracy, several)
    assert set(w.unique().tolist()) <= {0.0, 1.0}
    assert (w.sum(-1) == 1).all()
    for row, said in zip(w.argmax(-1).tolist(), predictions.tolist()):  # the rule again, in plain Python
        matched = [i for i, p in enumerate(said) if best[p] == i]
        pool = matched if len(matched) == 1 or (matched and several == "matched") else range(t)
        assert row == max(pool, key=lambda i: accuracy[i].item())


# --- Expertise -----------------------------------------------------------------------------------------------------------


def test_expertise_learns_who_is_best_and_follows_it():
    selection = fitted(Expertise())
    state = selection.state()
    assert_close(state["recalls"], torch.eye(3))
    assert_close(state["accuracy"], tensor([4 / 9, 3 / 9, 2 / 9]))
    assert state["best"].tolist() == [T1, T2, T3]
    assert int(state["overall"]) == T1
    said = says([[APPLE, APPLE, ORANGE], [APPLE, ORANGE, ORANGE], [ORANGE, ORANGE, ORANGE], [ORANGE, APPLE, ORANGE]])
    assert weigh(selection, said).argmax(-1).tolist() == [T1, T1, T2, T1]


@quiet
def test_a_teacher_left_out_has_no_part_in_anything():
    """T1 is best at apples and overall; without it, T2 and T3 share what it knew, whatever T1 says."""
    said, labels = specialists()
    inner = TeacherBatch(said.logits[:, 1:])
    for make in (Expertise, ClassMixture):
        chosen, small = fitted(make((1, 2)), said, labels), fitted(make(), inner, labels)
        state = chosen.state()
        assert state["recalls"][0].isnan().all()
        assert state["accuracy"].isnan().tolist() == [True, False, False]
        assert_close(state["recalls"][1:], small.state()["recalls"])
        for seed in range(5):
            z = randn(20, 3, 3, seed=seed)
            w = weigh(chosen, TeacherBatch(z))
            assert (w[:, 0] == 0).all()
            assert_close(w[:, 1:], weigh(small, TeacherBatch(z[:, 1:])))
    state = fitted(Expertise((1, 2)), said, labels).state()
    assert int(state["overall"]) == T2
    assert T1 not in state["best"]
    for selection in (InverseLoss((1, 2)), Confidence((1, 2)), Everyone((1, 2)), RandomTeacher((1, 2))):
        one, two = (weigh(s, t, labels) for s, t in ((selection, said), (replace(selection, of=None), inner)))
        assert (one[:, 0] == 0).all()
        assert_close(one[:, 1:], two)


@quiet
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(4)))
def test_permuting_teachers_permutes_weights_and_nothing_else(seed, order):
    said, labels = random_case(seed)
    moved = TeacherBatch(said.logits[:, order])
    for selection in (Everyone(), InverseLoss(), Confidence(), Expertise(ties="overall"), ClassMixture(),
                      Expertise(ties="overall", several="matched", none="average"), ClassMixture(by="label", how="softmax")):
        first, second = deepcopy(selection), deepcopy(selection)
        first.fit(said, labels)
        second.fit(moved, labels)
        assert_close(weigh(second, moved, labels), weigh(first, said, labels)[:, order])


@quiet
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(4)))
def test_the_same_teachers_named_at_other_positions_are_the_same_selection(seed, order):
    """Even draws and ties go by the order of `of`, so equal specs mean equal training. Ties are made by rounding."""
    logits, labels = (2 * randn(12, 4, 3, seed=seed)).round(), torch.arange(12) % 3
    names = ["anna", "bert", "carl", "dora"]
    place = [order.index(t) for t in (0, 2, 3)]
    shares = ((1, 2, 3), (0, 1, 1), (5, 0, 0))
    for make in (Uniform, Everyone, InverseLoss, Confidence, Expertise, ClassMixture, RandomTeacher,
                 lambda of: ClassMixture(of, shares=shares)):
        here, there = make((0, 2, 3)), make(tuple(place))
        assert json.dumps(here.spec(names)) == json.dumps(there.spec([names[t] for t in order]))
        here.fit(TeacherBatch(logits), labels)
        there.fit(TeacherBatch(logits[:, order]), labels)
        assert_close(weigh(there, TeacherBatch(logits[:, order]), labels), weigh(here, TeacherBatch(logits), labels)[:, order])


@quiet
@pytest.mark.parametrize("ties", experts.TIES)
def test_identical_teachers(ties):
    """Whoever is followed, it is the same teacher; and a mixture of them is that teacher."""
    one, labels = randn(30, 1, 3), torch.arange(30) % 3
    said = TeacherBatch(one.expand(30, 4, 3))
    for selection in (Expertise(ties=ties), ClassMixture(), RandomTeacher(), Confidence(), Uniform()):
        selection.fit(said, labels)
        w = weigh(selection, said, labels)
        assert_close(w.sum(-1), torch.ones(30))
        assert_close((w.unsqueeze(-1) * said.logits).sum(1), one[:, 0])


@quiet
def test_refitting_replaces_what_was_learned():
    said, labels = specialists()
    selection = fitted(Expertise(), said, labels)
    before = {k: v.clone() for k, v in selection.state().items()}
    turned = TeacherBatch(said.logits.flip(1))
    selection.fit(turned, labels)
    assert selection.state()["best"].tolist() == [T3, T2, T1]
    assert int(selection.state()["overall"]) == T3
    assert before["best"].tolist() == [T1, T2, T3]
    selection.fit(TeacherBatch(said.logits[:, :2]), labels)
    assert selection.state()["recalls"].shape == (2, 3)


@quiet
@pytest.mark.parametrize("make", [Expertise, ClassMixture])
def test_what_is_learned_can_be_saved_and_loaded(make, tmp_path):
    selection = fitted(make((2, 0)))
    tensors_save(tmp_path / "selection.safetensors", selection.state())
    loaded = tensors_load(tmp_path / "selection.safetensors")
    assert set(loaded) == set(selection.state()) >= {"recalls", "accuracy"}
    z = TeacherBatch(randn(20, 3, 3))
    assert_close(weigh(make((2, 0), _learned=loaded), z), weigh(selection, z))
    with pytest.raises(KitError, match="has not looked at the teachers yet"):
        weigh(make(), z)


def test_a_copy_learns_for_itself():
    first = Expertise()
    second = deepcopy(first)
    fitted(second)
    assert first.state() == {}
    assert first == second  # what is learned is no part of what the selection is


def test_one_best_teacher_everywhere_is_said():
    said, labels = says([[APPLE, ORANGE], [APPLE, ORANGE], [APPLE, ORANGE]]), tensor([ORANGE] * 3)
    with pytest.warns(UserWarning, match=r"teacher 1 \(counted from 0\) is the best one at every class"):
        Expertise().fit(said, labels)
    with pytest.warns(UserWarning, match="teacher 2 "):  # by its position in the whole list
        Expertise((0, 2)).fit(TeacherBatch(said.logits[:, [0, 0, 1]]), labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(Expertise())
        Expertise((1,)).fit(said, labels)  # asked for one teacher, got one
        ClassMixture().fit(said, labels)


# --- a mixture per class -------------------------------------------------------------------------------------------------


def test_shares_given_by_class():
    selection = ClassMixture(shares=((70, 30, 0), (0, 1, 1), (0.2, 0.2, 0.6)))
    selection.fit(*specialists())
    assert selection.state() == {}
    w = weigh(selection, says([[APPLE] * 3, [ORANGE] * 3, [GRASS] * 3]))
    assert_close(w, tensor([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5], [0.2, 0.2, 0.6]]))
    two = ClassMixture((2, 0), shares=((3, 1),) * 3)  # columns in the order of `of`
    assert_close(weigh(two, says([[APPLE] * 3])), tensor([[0.25, 0.0, 0.75]]))


def test_the_class_is_predicted_by_the_mean_of_the_members_or_given():
    shares = ((1, 0), (0, 1))
    z = tensor([[[9.0, 0.0], [0.0, 1.0]], [[9.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 9.0]]])  # means: 0, 0, 1
    labels = tensor([0, 1, -1])
    assert weigh(ClassMixture(shares=shares), TeacherBatch(z), labels).argmax(-1).tolist() == [0, 0, 1]
    assert weigh(ClassMixture(shares=shares, by="label"), TeacherBatch(z), labels).argmax(-1).tolist() == [0, 1, 1]


def test_shares_learned_from_recall():
    recall, accuracy = tensor([[0.9, 0.0, math.nan], [0.3, 0.0, math.nan]]), tensor([0.6, 0.2])
    # proportional; nobody is ever right, and nobody was asked: by overall accuracy
    assert_close(shares_of(recall, accuracy), tensor([[0.75, 0.25], [0.75, 0.25], [0.75, 0.25]]))
    soft = 1 / (1 + math.exp(-6))  # (0.9 - 0.3) / 0.1
    assert_close(shares_of(recall, accuracy, "softmax", 0.1)[0], tensor([soft, 1 - soft]))
    assert_close(shares_of(torch.zeros(2, 1), torch.zeros(2)), tensor([[0.5, 0.5]]))
    with pytest.raises(KitError, match="how: 'vote'"):
        shares_of(recall, accuracy, "vote")
    assert_close(fitted(ClassMixture()).state()["shares"], torch.eye(3))


@pytest.mark.parametrize("shares", [(), ((1, 2), (3,)), ((1, -1), (1, 1)), ((0, 0), (1, 1)), ((),)])
def test_shares_that_cannot_be(shares):
    with pytest.raises(KitError, match="one row per class"):
        ClassMixture(shares=shares)


def test_shares_that_do_not_fit_the_task():
    with pytest.raises(KitError, match="2 rows for 3 classes"):
        weigh(ClassMixture(shares=((1, 1), (1, 1))), TeacherBatch(torch.zeros(1, 2, 3)))
    with pytest.raises(KitError, match="2 columns for 3 teachers"):
        weigh(ClassMixture(shares=((1, 1),) * 3), TeacherBatch(torch.zeros(1, 3, 3)))


# --- chance --------------------------------------------------------------------------------------------------------------


def test_a_random_teacher_per_sample_is_reproducible_and_uniform():
    said = TeacherBatch(torch.zeros(3000, 4, 2))
    w = weigh(RandomTeacher(), said, seed=3)
    assert set(w.unique().tolist()) == {0.0, 1.0}
    assert (w.sum(-1) == 1).all()
    assert_close(followed(w), torch.full((4,), 0.25), atol=0.04, rtol=0)
    assert torch.equal(w, weigh(RandomTeacher(), said, seed=3))
    assert not torch.equal(w, weigh(RandomTeacher(), said, seed=4))
    assert_close(followed(weigh(RandomTeacher((3, 1)), said)), tensor([0.0, 0.5, 0.0, 0.5]), atol=0.04, rtol=0)
    draws = rng()
    first, second = (RandomTeacher().weights(None, said, step, draws) for step in (0, 1))
    assert not torch.equal(first, second)  # the next batch is another draw


def test_a_random_teacher_per_step():
    said, draws = TeacherBatch(torch.zeros(5, 3, 2)), rng()
    steps = [RandomTeacher(per="step").weights(None, said, step, draws) for step in range(300)]
    assert all((w == w[0]).all() and w[0].sum() == 1 for w in steps)
    assert_close(torch.stack([w[0] for w in steps]).mean(0), torch.full((3,), 1 / 3), atol=0.1, rtol=0)


# --- token units ---------------------------------------------------------------------------------------------------------


@quiet
def test_a_token_is_a_unit_like_any_other():
    z, labels = randn(4, 6, 3, 3), torch.randint(-1, 3, (4, 6), generator=rng(1))
    said, flat = TeacherBatch(z), TeacherBatch(z.reshape(24, 3, 3))
    for make in (Uniform, Everyone, InverseLoss, Confidence, Expertise, ClassMixture, lambda: ClassMixture(by="label"),
                 lambda: Expertise((2, 0), none="average")):
        tokens, units = make(), make()
        tokens.fit(said, labels)
        units.fit(flat, labels.flatten())
        w = weigh(tokens, said, labels)
        assert w.shape == (4, 6, 3)
        assert_close(w.reshape(24, 3), weigh(units, flat, labels.flatten()))
        assert_close(tokens.state(), units.state(), equal_nan=True)


def test_a_random_teacher_speaks_for_the_whole_sample():
    w = weigh(RandomTeacher(), TeacherBatch(torch.zeros(200, 7, 3, 2)))
    assert w.shape == (200, 7, 3)
    assert (w == w[:, :1]).all()
    assert (w.sum(-1) == 1).all()
    assert len(w[:, 0].argmax(-1).unique()) == 3
    w = weigh(RandomTeacher(per="step"), TeacherBatch(torch.zeros(5, 7, 3, 2)))
    assert (w == w[:1, :1]).all()


# --- who is followed -----------------------------------------------------------------------------------------------------


def test_who_is_followed():
    w = tensor([[1.0, 0.0, 0.0], [0.2, 0.5, 0.3], [0.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
    assert_close(followed(w), tensor([1.0, 1.5, 0.5]) / 4)
    assert_close(followed(w.reshape(2, 2, 3)), followed(w))
    assert_close(followed(Uniform().weights(None, TeacherBatch(torch.zeros(5, 4, 2)), 0, None)), torch.full((4,), 0.25))


# --- in a recipe ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", EVERY)
def test_members_and_specs(make):
    names = ["anna", "bert", "carl"]
    selection = make((2, 0))
    assert selection.members(3) == (2, 0)
    spec = selection.spec(names)
    assert spec["teachers"] == ["carl", "anna"]
    assert not [k for k in spec if k == "of" or k.startswith("_")]
    assert json.loads(json.dumps(spec)) == spec
    assert make((1,)).spec(["carl", "anna"])["teachers"] == ["anna"]
    with pytest.raises(KitError, match="not distinct positions among 2 teachers"):
        selection.members(2)
    hash(selection)


def test_a_spec_holds_everything_that_changes_the_weights():
    base = Expertise()
    others = [base, replace(base, several="matched"), replace(base, none="average"), replace(base, ties="overall"),
              replace(base, seed=1), replace(base, tolerance=0.1), replace(base, fit_split="test"), replace(base, of=(0, 1)),
              ClassMixture(), ClassMixture(how="softmax"), ClassMixture(temperature=1.0), ClassMixture(by="label"),
              ClassMixture(shares=((1, 2), (3, 4))), RandomTeacher(), RandomTeacher(per="step"), Everyone(), InverseLoss(),
              Confidence(), Uniform(), Primary(1)]
    keys = [key("model", stage_spec(Stage("s", (Term("soft_cross_entropy", s),)), ["anna", "bert", "carl"])) for s in others]
    assert len(set(keys)) == len(others)
    learned = fitted(Expertise())
    assert learned.spec(["a", "b", "c"]) == base.spec(["a", "b", "c"])


@pytest.mark.parametrize(("make", "wrong"), [
    (Expertise, {"several": "all"}), (Expertise, {"none": "nobody"}), (Expertise, {"ties": "first"}),
    (Expertise, {"fit_split": "train"}), (ClassMixture, {"how": "vote"}), (ClassMixture, {"by": "guess"}),
    (RandomTeacher, {"per": "epoch"}), (ClassMixture, {"temperature": 0})])
def test_wrong_options_are_refused_at_once(make, wrong):
    with pytest.raises(KitError, match=str(next(iter(wrong.values())))):
        make(**wrong)


class Tables:
    """Stands in for prepared data and for the store of logits: T1 to T3 are specialists on validation, and each knows the
    next class on test."""

    def __init__(self, monkeypatch):
        self.asked = []
        said, labels = specialists()
        self.logits = {"validation": said.logits, "test": said.logits[:, [1, 2, 0]].flip(0)}
        self.labels = {"validation": labels.numpy(), "test": labels.flip(0).numpy()}
        monkeypatch.setattr(distil, "logits_of", self.logits_of)

    def data(self, split):
        return SimpleNamespace(labels=self.labels[split])

    def logits_of(self, prepared, teacher, split):
        self.asked.append((teacher, split))
        return self.logits[split][:, teacher]


def test_expertise_is_learned_on_validation_without_a_warning(monkeypatch):
    tables, selection = Tables(monkeypatch), Expertise()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distil.fit_selections(tables, [0, 1, 2], Stage("s", (Term("soft_cross_entropy", selection),
                                                             Term("cross_entropy"), Term("logit_mse", Uniform()))))
    assert selection.state()["best"].tolist() == [0, 1, 2]
    assert tables.asked == [(0, "validation"), (1, "validation"), (2, "validation")]


def test_the_thesis_way_learns_on_test_and_the_leak_is_named_once(monkeypatch):
    tables = Tables(monkeypatch)
    first, second, third = Expertise(fit_split="test"), ClassMixture((0, 2), fit_split="test"), Expertise()
    stage = Stage("distil", tuple(Term("soft_cross_entropy", s) for s in (first, second, third)))
    with pytest.warns(UserWarning, match="a leak") as caught:
        distil.fit_selections(tables, [0, 1, 2], stage)
    (said,) = [str(w.message) for w in caught if "leak" in str(w.message)]
    assert "'distil'" in said
    assert "labels of the test split" in said
    assert first.state()["best"].tolist() == [2, 0, 1]
    assert second.state()["recalls"][[0, 2]].tolist() == [[0, 1, 0], [1, 0, 0]]
    assert third.state()["best"].tolist() == [0, 1, 2]
    assert (1, "test") not in tables.asked[3:]  # who is left out is not scored


def test_a_stage_that_learns_nothing_asks_for_nothing(monkeypatch):
    tables = Tables(monkeypatch)
    distil.fit_selections(tables, [0, 1, 2], Stage("s", (Term("soft_cross_entropy", InverseLoss()), Term("cross_entropy"))))
    assert tables.asked == []


def test_what_was_learned_lies_beside_the_student(text_task):
    """Through the whole loop: two teachers of a tiny task, each of the new selections in turn."""
    prepared, opt = prepare(text_task, "scratch-1x32", vocab=200), Optimisation(epochs=1, batch_size=30, lr=3e-3)
    pool = distil.finetune(prepared, "scratch-1x32", (0, 1), opt)
    for selection in (Expertise(), ClassMixture(), InverseLoss(), Confidence(), RandomTeacher()):
        stage = Stage("task", (Term("cross_entropy"), Term("soft_cross_entropy", selection, combine="losses")), opt)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            student = distil.distill(prepared, pool, "scratch-1x32", Recipe("x", (stage,)))
        file = student.folder / "selection-1.safetensors"
        assert file.exists() == isinstance(selection, experts.ByClass)
        if file.exists():
            labels = torch.from_numpy(text_task.splits["validation"].labels)
            logits = torch.stack([teacher.logits("validation") for teacher in pool], 1)
            assert_close(tensors_load(file)["recalls"], recalls(logits, labels), equal_nan=True)
