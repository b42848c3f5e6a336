"""The baselines' losses against numbers worked out by hand, and their terms: shapes, gradients, refusals, learning."""

import doctest
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

from mtkd.errors import KitError
from mtkd.models import names as models
from mtkd.models.networks import Outputs
from mtkd.rules import registry, relation_terms, relations
from mtkd.rules.registry import Setting
from mtkd.store.artifacts import Store
from mtkd.tokens.batches import Batch
from mtkd.train.outputs import Needs, TeacherBatch
from mtkd.train.prepare import prepare
from mtkd.train.recipes import Term

TERMS = {name: registry.find("loss", name).module
         for name in ("patience", "dissimilarity", "group_hint", "angle", "adaptive_kd")}


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("module", [relations, relation_terms])
def test_the_examples_in_the_docstrings_run(module):
    found = doctest.testmod(module)
    assert found.failed == 0
    assert found.attempted > 0


# --- states of samples ---------------------------------------------------------------------------------------------------


def test_sample_state_by_hand():
    hidden = tensor([[[1.0, 2.0], [3.0, 0.0], [99.0, 99.0]], [[-9.0, -9.0], [-5.0, 1.0], [-1.0, 3.0]], [[7.0, 7.0]] * 3])
    mask = tensor([[True, True, False], [False, True, True], [False, False, False]])      # the second is padded on the left
    assert_close(relations.sample_state(hidden, mask), tensor([[2.0, 1.0], [-3.0, 2.0], [0.0, 0.0]]))
    assert_close(relations.sample_state(hidden, mask, "cls"), tensor([[1.0, 2.0], [-5.0, 1.0], [0.0, 0.0]]))
    assert_close(relations.sample_state(hidden, mask, "cls", -1), tensor([[3.0, 0.0], [-1.0, 3.0], [0.0, 0.0]]))  # as XLNet
    assert_close(relations.sample_state(hidden, mask, "max"), tensor([[3.0, 2.0], [-1.0, 3.0], [0.0, 0.0]]))
    with pytest.raises(KitError, match="no such way to pool"):
        relations.sample_state(hidden, mask, "sum")


# --- BERT-PKD ------------------------------------------------------------------------------------------------------------


def test_patience_by_hand():
    student = tensor([[[3.0, 4.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]])
    teacher = tensor([[[1.0, 0.0], [-2.0, 0.0]], [[5.0, 0.0], [0.0, 1.0]]])
    # (0.6 - 1)^2 + 0.8^2 = 0.8 and 2^2 = 4; then 0 and, from a zero vector, 1
    assert_close(relations.patience(student, teacher), tensor([4.8, 1.0]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100.0))
def test_patience_sees_directions_only(seed, factor):
    a, b = randn(4, 3, 5, seed=seed), randn(4, 3, 5, seed=seed + 1)
    assert_close(relations.patience(a, factor * a), torch.zeros(4), atol=1e-6, rtol=0)
    assert_close(relations.patience(factor * a, b), relations.patience(a, b), atol=1e-5, rtol=1e-5)
    order = [2, 0, 3, 1]
    assert_close(relations.patience(a[order], b[order]), relations.patience(a, b)[order])


@pytest.mark.parametrize(("student", "teacher", "how", "pairs"), [
    (3, 12, "skip", [(1, 4), (2, 8)]), (3, 12, "last", [(1, 10), (2, 11)]), (4, 12, "skip", [(1, 3), (2, 6), (3, 9)]),
    (12, 12, "skip", [(k, k) for k in range(1, 12)]), (1, 4, "skip", [(1, 4)]), (1, 4, "last", [(1, 4)]),
    (2, 4, "skip", [(1, 2)]),
])
def test_patience_layers(student, teacher, how, pairs):
    assert relations.patience_layers(student, teacher, how) == pairs


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 24), st.integers(0, 24), st.sampled_from(relations.HOW))
def test_patience_leaves_the_last_layers_out(student, more, how):
    pairs = relations.patience_layers(student, student + more, how)
    assert [k for k, _ in pairs] == list(range(1, student))
    teachers = [j for _, j in pairs]
    assert teachers == sorted(set(teachers))
    assert teachers[0] >= 1
    assert teachers[-1] < student + more


def test_patience_layers_refuses():
    with pytest.raises(KitError, match="only 2"):
        relations.patience_layers(3, 2)
    with pytest.raises(KitError, match="skip, last"):
        relations.patience_layers(3, 4, "first")


# --- You et al. ----------------------------------------------------------------------------------------------------------

LINE = tensor([[0.0], [1.0], [3.0]])  # distances 1, 3 and 2
TRIPLES = relations.triplets(3)       # 0: (1, 2); 1: (0, 2); 2: (0, 1)


@pytest.mark.parametrize("n", [3, 4, 7])
def test_all_triplets_of_a_small_batch(n):
    found = {tuple(t) for t in relations.triplets(n).tolist()}
    assert found == {(i, j, k) for i in range(n) for j in range(n) for k in range(j + 1, n) if i not in (j, k)}
    assert len(relations.triplets(n)) == n * (n - 1) * (n - 2) // 2


def test_drawn_triplets_are_seeded_and_share_the_anchors_out():
    drawn = relations.triplets(20, 200, seed=3)
    assert drawn.tolist() == relations.triplets(20, 200, seed=3).tolist()
    assert drawn.tolist() != relations.triplets(20, 200, seed=4).tolist()
    assert drawn[:, 0].bincount().tolist() == [10] * 20
    every = {tuple(t) for t in relations.triplets(20).tolist()}
    assert {tuple(t) for t in drawn.tolist()} <= every
    for n in (0, 1, 2):
        assert relations.triplets(n).shape == (0, 3)


def test_distances_by_hand():
    x = tensor([[0.0, 2.0], [3.0, 6.0], [0.0, 5.0]])
    assert_close(relations.distances(x)[0], tensor([0.0, 5.0, 3.0]))
    assert_close(relations.distances(x, "squared")[0], tensor([0.0, 25.0, 9.0]))
    unit = relations.distances(x, "unit")
    assert_close(unit[0, 2], tensor(0.0))
    assert_close(unit[0, 1], tensor(math.sqrt(2 - 2 * 6 / math.sqrt(45))))
    far = (100 * randn(1, 64)).expand(40, 64)                             # identical samples, far from the origin
    assert (relations.distances(far) == 0).all()
    with pytest.raises(KitError, match="no such distance"):
        relations.distances(x, "cosine")


def test_votes_two_against_one_and_ties():
    mirrored = tensor([[0.0], [2.0], [-1.0]])     # from 0: 2 nearer than 1; from 1: 0 nearer; from 2: 0 nearer
    assert relations.dissimilarity_votes([LINE], TRIPLES).tolist() == [1, 1, -1]
    assert relations.dissimilarity_votes([mirrored], TRIPLES).tolist() == [-1, 1, 1]
    assert relations.dissimilarity_votes([LINE, LINE, mirrored], TRIPLES).tolist() == [1, 3, -1]
    assert relations.dissimilarity_votes([LINE, mirrored], TRIPLES).tolist() == [0, 2, 0]
    assert relations.dissimilarity_votes([torch.zeros(3, 1)], TRIPLES).tolist() == [0, 0, 0]


def test_votes_weigh_as_the_anchor_follows_its_teachers():
    mirrored = tensor([[0.0], [2.0], [-1.0]])
    weights = tensor([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    assert_close(relations.dissimilarity_votes([LINE, mirrored], TRIPLES, weights), tensor([0.8, 1.0, 0.8]))
    three, shares = [LINE, LINE, mirrored], tensor([0.6, 0.3, 0.9]).expand(3, 3)        # 0.6 + 0.3 - 0.9 is a tie, not 6e-8
    assert relations.dissimilarity_votes(three, TRIPLES, shares)[[0, 2]].tolist() == [0, 0]


def test_relative_dissimilarity_by_hand():
    votes = tensor([1.0, 1.0, 1.0])               # asked for: 0 nearer to 1 than 2; 1 nearer to 0 than 2; 2 nearer to 0 than 1
    # the student's distances: d01 = 1, d02 = 3, d12 = 2; only the last order is wrong, by 3 - 2
    assert_close(relations.relative_dissimilarity(LINE, TRIPLES, votes, 0.0), tensor([0.0, 0.0, 1.0]))
    assert_close(relations.relative_dissimilarity(LINE, TRIPLES, votes, 1.5), tensor([0.0, 0.5, 2.5]))
    assert_close(relations.relative_dissimilarity(LINE, TRIPLES, -votes, 0.0), tensor([2.0, 1.0, 0.0]))
    assert_close(relations.relative_dissimilarity(LINE, TRIPLES, tensor([0.0, 0.0, 0.5]), 0.5), tensor([0.0, 0.0, 1.5]))


def test_relative_dissimilarity_is_a_mean_over_the_voted_triplets_of_an_anchor():
    x, of = tensor([[0.0], [1.0], [3.0], [6.0]]), relations.triplets(4)
    votes = torch.where(of[:, 0] == 0, tensor(-1.0), 0.0)                # from 0: 1, 3, 6 away, all asked for the other way
    assert_close(relations.relative_dissimilarity(x, of, votes, 0.0), tensor([(2 + 5 + 3) / 3, 0.0, 0.0, 0.0]))
    votes[0] = 0.0                                                        # (0, 1, 2) ties: out of the sum and the count
    assert_close(relations.relative_dissimilarity(x, of, votes, 0.0), tensor([(5 + 3) / 2, 0.0, 0.0, 0.0]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(relations.DISTANCES))
def test_a_student_in_the_voted_order_costs_nothing(seed, distance):
    x, of = randn(6, 3, seed=seed), relations.triplets(6)
    votes = relations.dissimilarity_votes([x], of, None, distance)
    assert_close(relations.relative_dissimilarity(x, of, votes, 0.0, distance), torch.zeros(6))
    other = relations.dissimilarity_votes([randn(6, 4, seed=seed + 1), x, 2 * x], of, None, distance)
    assert_close(other.sign(), votes)                                     # outvoted, by teachers of other widths and sizes


# --- Liu et al. ----------------------------------------------------------------------------------------------------------


def test_adaptive_weights_by_hand():
    state, factors = tensor([[1.0, 2.0], [0.0, 1.0]]), tensor([[1.0, 0.0], [0.0, 1.0]])
    projection = tensor([math.log(3), math.log(2)])                       # scores (ln 3, 2 ln 2) and (0, ln 2)
    assert_close(relations.adaptive_weights(state, factors, projection), tensor([[3 / 7, 4 / 7], [1 / 3, 2 / 3]]))
    allowed = tensor([[True, False], [False, False]])
    assert_close(relations.adaptive_weights(state, factors, projection, allowed), tensor([[1.0, 0.0], [0.0, 0.0]]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(4)))
def test_permuting_teachers_permutes_the_adaptive_weights_and_nothing_else(seed, order):
    state, factors, v = randn(5, 3, seed=seed), randn(4, 3, seed=seed + 1), randn(3, seed=seed + 2)
    weights, z, s = relations.adaptive_weights(state, factors, v), randn(5, 4, 6, seed=seed + 3), randn(5, 6, seed=seed + 4)
    moved = relations.adaptive_weights(state, factors[order], v)
    assert_close(moved, weights[:, order])
    assert_close(weights.sum(-1), torch.ones(5))
    assert_close(relations.integrated_kd(s, z[:, order], moved, 2.0), relations.integrated_kd(s, z, weights, 2.0))


def test_integrated_kd_by_hand():
    z = tensor([[[math.log(3), 0.0], [0.0, math.log(4)]]])                # soft targets (3/4, 1/4) and (1/5, 4/5)
    p = (3 / 4 + 3 / 5) / 4                                               # a quarter of the first, three of the second
    expected = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))      # the student is undecided
    found = relations.integrated_kd(torch.zeros(1, 2), z, tensor([[0.25, 0.75]]))
    assert_close(found, tensor([expected]))
    assert_close(relations.integrated_kd(torch.zeros(1, 2), 3 * z, tensor([[0.25, 0.75]]), 3.0, t_squared=True), 9 * found)
    assert_close(relations.integrated_kd(torch.zeros(1, 2), z, torch.zeros(1, 2)), tensor([0.0]))


def test_integrated_kd_teaches_the_weights_and_stays_finite_with_certain_teachers():
    weights = tensor([[0.5, 0.5]]).requires_grad_()
    z = tensor([[[300.0, 0.0], [0.0, 300.0]]])
    student = tensor([[2.0, 0.0]]).requires_grad_()
    relations.integrated_kd(student, z, weights).sum().backward()
    assert weights.grad[0, 0] < weights.grad[0, 1]                        # more of the teacher that the student agrees with
    sure = tensor([[1.0, 0.0]]).requires_grad_()                          # a target with a true zero
    relations.integrated_kd(student, z, sure).sum().backward()
    assert sure.grad.isfinite().all()
    assert student.grad.isfinite().all()


def test_angles_by_hand():
    corner = tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])                 # a right angle at 0
    line = tensor([[0.0], [1.0], [-1.0]])                                 # 0 lies between: 180 degrees there, 0 elsewhere
    cosines = relations.angle_cosines(corner)
    assert_close(cosines[0, 1, 2], tensor(0.0))
    assert_close(cosines[1, 0, 2], tensor(1 / math.sqrt(5)))
    assert_close(cosines[2, 0, 1], tensor(2 / math.sqrt(5)))
    by_hand = [0.5 * 1, 0.5 * (1 - 1 / math.sqrt(5)) ** 2, 0.5 * (1 - 2 / math.sqrt(5)) ** 2]
    assert_close(relations.angle(corner, line), tensor(by_hand))
    # delta = 0.5: linear beyond it, 0.5 * (|x| - 0.25); at the third vertex the error of 0.106 is still quadratic
    assert_close(relations.angle(corner, line, 0.5),
                 tensor([0.5 * 0.75, 0.5 * (1 - 1 / math.sqrt(5) - 0.25), by_hand[2]]))
    # samples 0 and 1 fall together: no direction between them counts as a right angle, against 0, 180 and 0 degrees
    assert_close(relations.angle(tensor([[0.0], [0.0], [1.0]]), LINE), tensor([0.5, 0.5, 0.0]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 30.0))
def test_angle_is_blind_to_scale_position_and_rotation(seed, factor):
    a, b = randn(6, 4, seed=seed), randn(6, 5, seed=seed + 1)
    turned = factor * a @ torch.linalg.qr(randn(4, 4, seed=seed + 2))[0] + 3.0
    assert_close(relations.angle(turned, a), torch.zeros(6), atol=1e-5, rtol=0)
    assert_close(relations.angle(turned, b), relations.angle(a, b), atol=1e-4, rtol=1e-4)
    order = [3, 1, 5, 0, 2, 4]
    assert_close(relations.angle(a[order], b[order]), relations.angle(a, b)[order])


def test_hint_by_hand():
    guided, teacher = tensor([[[1.0, 1.0], [0.0, 0.0], [9.0, 9.0]]]), tensor([[[3.0, 4.0], [2.0, 0.0], [0.0, 0.0]]])
    mask = tensor([[1.0, 1.0, 0.0]])
    assert_close(relations.hint(guided, teacher, mask), tensor([((0.4**2 + 0.2**2) / 2 + 1 / 2) / 2]))
    assert_close(relations.hint(guided, teacher, mask, normalise=False), tensor([((4 + 9) / 2 + 4 / 2) / 2]))


def test_hint_groups_end_at_the_last_layer():
    assert relations.hint_groups(12, 3) == [4, 8, 12]
    assert relations.hint_groups(4, 1) == [4]
    assert relations.hint_groups(2, 3) == [1, 1, 2]


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_samples_give_zeros(n):
    x = randn(n, 4).requires_grad_()
    of = relations.triplets(n)
    apart = relations.relative_dissimilarity(x, of, relations.dissimilarity_votes([x.detach()], of), 0.2)
    for value in (apart, relations.angle(x, randn(n, 3))):
        assert value.tolist() == [0.0] * n
        grad, = torch.autograd.grad(value.sum(), x)                       # a batch at the end of an epoch can be that small
        assert (grad == 0).all()


@pytest.mark.parametrize("x", [torch.zeros(4, 3), torch.ones(4, 3), tensor([[1.0, 0.0]] * 2 + [[0.0, 0.0]] * 2)])
@pytest.mark.parametrize("distance", relations.DISTANCES)
def test_gradients_are_finite_for_zero_and_identical_states(x, distance):
    x, of = x.clone().requires_grad_(), relations.triplets(4)
    votes = relations.dissimilarity_votes([randn(4, 5)], of)
    total = relations.relative_dissimilarity(x, of, votes, 0.2, distance).sum() + relations.angle(x, randn(4, 2)).sum()
    total = total + relations.patience(x.unsqueeze(1), randn(4, 1, x.shape[1])).sum()
    total.backward()
    assert total.isfinite()
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() < 100


# --- the terms -----------------------------------------------------------------------------------------------------------

LAYERS, WIDTH = 4, 6
SHAPES = [{"layers": 6, "width": 8, "heads": 2}, {"layers": 4, "width": 6, "heads": 2}, {"layers": 12, "width": 5, "heads": 1}]
SETTING = Setting({"layers": LAYERS, "width": WIDTH, "heads": 2}, SHAPES)
FOLLOWED = (0, 1, 2)
CASES = [Term("patience"), Term("patience", options={"how": "last", "pool": "mean"}), Term("dissimilarity"),
         Term("dissimilarity", options={"distance": "unit", "layer": 4}), Term("adaptive_kd", temperature=2.0),
         Term("adaptive_kd", options={"angle": 1.0, "l2": 0.01}), Term("angle"), Term("angle", options={"space": "states"}),
         Term("group_hint"), Term("group_hint", options={"of": "depth", "normalise": False})]
NAMES = [f"{t.loss}{'+' if t.options else ''}{'+'.join(t.options)}" for t in CASES]
cases = pytest.mark.parametrize("term", CASES, ids=NAMES)


def build(term, setting=SETTING, followed=FOLLOWED, seed=0):
    torch.manual_seed(seed)
    return TERMS[term.loss](replace(term, options=dict(term.options)), setting, followed)


def batch_of(n=7, tokens=5):
    mask = torch.arange(tokens) < tensor([max(1, tokens - i % 4) for i in range(n)]).unsqueeze(1)
    return Batch(np.arange(n), {}, torch.zeros(n, dtype=torch.long), mask)


def student_of(n=7, tokens=5, classes=4, seed=0, width=WIDTH, layers=LAYERS):
    hidden = tuple(randn(n, tokens, width, seed=seed + k).requires_grad_() for k in range(layers + 1))
    return Outputs(randn(n, classes, seed=seed + 50).requires_grad_(), hidden)


def teachers_of(module, n=7, tokens=5, classes=4, seed=900, shapes=SHAPES):
    hidden = {t: {k: randn(n, tokens, shapes[t]["width"], seed=seed + 20 * t + k).requires_grad_()
                  for k in module.needs(t).hidden} for t in module.followed}
    return TeacherBatch(2 * randn(n, len(shapes), classes, seed=seed + 99), {t: h for t, h in hidden.items() if h})


def uniform(n=7, teachers=3):
    return torch.full((n, teachers), 1 / teachers)


def pick(batch, student, teachers, rows):
    """The same batch with its samples in another order."""
    return (Batch(batch.rows[rows], {}, batch.labels[rows], batch.mask[rows]),
            Outputs(student.logits[rows], tuple(h[rows] for h in student.hidden)),
            TeacherBatch(teachers.logits[rows], {t: {k: h[rows] for k, h in layers.items()}
                                                 for t, layers in teachers.hidden.items()}))


@cases
def test_one_value_per_sample_and_gradients_where_they_belong(term):
    module, batch, student = build(term), batch_of(), student_of()
    said = teachers_of(module)
    said.logits.requires_grad_()
    units = module(student, said, batch, uniform())
    assert units.shape == (7,)
    assert (units > 0).all()
    units.mean().backward()
    leaves = [student.logits, *student.hidden]
    reached = [x.grad for x in leaves if x.grad is not None]
    assert reached
    assert all(g.isfinite().all() for g in reached)
    assert any((g != 0).any() for g in reached)
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all()
        assert (parameter.grad != 0).any(), name
    assert said.logits.grad is None
    assert all(h.grad is None for layers in said.hidden.values() for h in layers.values())
    assert isinstance(module.want, frozenset)
    if module.want:
        assert any(h.grad is not None for h in student.hidden)


@cases
def test_samples_may_come_in_any_order_and_padding_does_not_matter(term):
    module, batch, student = build(term), batch_of(), student_of()
    said = teachers_of(module)
    units = module(student, said, batch, uniform())
    order = np.array([3, 0, 6, 5, 1, 4, 2])
    moved_batch, moved, moved_said = pick(batch, student, said, order)
    assert_close(module(moved, moved_said, moved_batch, uniform()), units[order], atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        for states in [*student.hidden, *(h for layers in said.hidden.values() for h in layers.values())]:
            states[~batch.mask] = 77.0
    assert_close(module(student, said, batch, uniform()), units)


@cases
def test_only_followed_teachers_count(term):
    batch, student = batch_of(), student_of()
    weights = uniform()
    weights[:, 2] = 0.0
    module = build(term)
    said = teachers_of(module)
    before = module(student, said, batch, weights)
    with torch.no_grad():
        said.logits[:, 2] = randn(7, 4, seed=4)
        for h in said.hidden.get(2, {}).values():
            h.neg_()
    assert_close(module(student, said, batch, weights), before)
    weights[3] = 0.0
    nobody = module(student, said, batch, weights)[3].item()
    assert nobody == pytest.approx(term.options.get("l2", 0) * sum(p.pow(2).sum().item() for p in module.parameters()))


@cases
def test_tokens_without_a_counterpart_do_not_count(term):
    module, batch, student = build(term), batch_of(), student_of()
    said = teachers_of(module)
    seen = batch.mask.clone()
    seen[:, 1] = False
    said.seen = {0: seen}
    before = module(student, said, batch, uniform())
    with torch.no_grad():
        for h in said.hidden.get(0, {}).values():
            h[:, 1] += 5.0
    assert_close(module(student, said, batch, uniform()), before)
    said.seen = {t: torch.zeros_like(seen) for t in FOLLOWED}             # nothing in common: still numbers, not NaN
    assert module(student, said, batch, uniform()).isfinite().all()


@cases
@pytest.mark.parametrize("n", [1, 2])
def test_small_batches(term, n):
    module, student = build(term), student_of(n)
    units = module(student, teachers_of(module, n), batch_of(n), uniform(n))
    assert units.shape == (n,)
    if term.loss in ("dissimilarity", "angle"):
        assert (units == 0).all()
    units.sum().backward()
    assert all(x.grad.isfinite().all() for x in (student.logits, *student.hidden) if x.grad is not None)


@cases
def test_identical_samples_and_zero_states(term):
    module, batch = build(term), batch_of()
    batch.mask[:] = True
    student, said = student_of(), teachers_of(module)
    with torch.no_grad():
        for x in (student.logits, *student.hidden, said.logits):
            x.copy_(x[:1].expand_as(x))
        student.hidden[LAYERS].zero_()
        student.hidden[2].zero_()
        for layers in said.hidden.values():
            for h in layers.values():
                h.zero_()
    units = module(student, said, batch, uniform())
    assert units.isfinite().all()
    units.sum().backward()
    assert all(x.grad.isfinite().all() for x in (student.logits, *student.hidden, *module.parameters()) if x.grad is not None)


@cases
def test_the_loss_falls(term):
    module, batch, student = build(term), batch_of(), student_of()
    said = teachers_of(module)
    with torch.no_grad():
        student.logits.mul_(2)
    optimiser = torch.optim.Adam([student.logits, *student.hidden, *module.parameters()], lr=0.05)
    trace = []
    for _ in range(30):
        loss = module(student, said, batch, uniform()).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        trace.append(loss.item())
    assert trace[-1] < 0.7 * trace[0]


@pytest.mark.parametrize("name", ["patience", "dissimilarity", "angle", "group_hint"])
def test_a_student_equal_to_its_teacher_costs_nothing(name):
    """Equal depth and width, identity maps: zero, for dissimilarity at margin 0."""
    shape = {"layers": LAYERS, "width": WIDTH, "heads": 2}
    options = {"dissimilarity": {"margin": 0.0}, "angle": {"space": "states"}}.get(name, {})
    module = build(Term(name, options=options), Setting(shape, [shape]), (0,))
    student = student_of()
    said = TeacherBatch(student.logits.detach().unsqueeze(1), {0: {k: student.hidden[k] for k in module.needs(0).hidden}})
    if name == "group_hint":       # the student's unit-length states go through the identity
        assert torch.equal(module.maps["0"].weight, torch.eye(WIDTH))
    assert_close(module(student, said, batch_of(), uniform(teachers=1)), torch.zeros(7), atol=1e-6, rtol=0)


def test_outputs_equal_to_the_integrated_teachers_cost_nothing():
    student = student_of()
    said = TeacherBatch(student.logits.detach().unsqueeze(1).expand(7, 3, 4))
    for term in (Term("angle", temperature=3.0), Term("adaptive_kd", temperature=3.0, options={"angle": 2.0})):
        assert_close(build(term)(student, said, batch_of(), uniform()), torch.zeros(7), atol=1e-5, rtol=0)


@pytest.mark.parametrize("term", [t for t in CASES if t.loss not in ("group_hint", "adaptive_kd")],
                         ids=[n for t, n in zip(CASES, NAMES) if t.loss not in ("group_hint", "adaptive_kd")])
def test_teachers_may_come_in_any_order(term):
    order = [2, 0, 1]
    shapes = [SHAPES[t] for t in order]
    here, there = build(term), build(term, Setting(SETTING.student, shapes))
    for t, old in enumerate(order):
        if getattr(here, "maps", None) and str(old) in here.maps:
            there.maps[str(t)].load_state_dict(here.maps[str(old)].state_dict())
    said, weights = teachers_of(here), randn(7, 3).abs()
    moved = TeacherBatch(said.logits[:, order], {t: said.hidden[old] for t, old in enumerate(order) if old in said.hidden})
    student, batch = student_of(), batch_of()
    assert_close(there(student, moved, batch, weights[:, order]), here(student, said, batch, weights))


def test_what_the_terms_ask_for():
    assert build(Term("patience")).needs(2) == Needs(hidden=(3, 6, 9))
    assert build(Term("patience", options={"how": "last"})).needs(0) == Needs(hidden=(3, 4, 5))
    assert [build(Term("dissimilarity")).needs(t).hidden for t in FOLLOWED] == [(3,), (2,), (6,)]
    assert [build(Term("group_hint")).needs(t).hidden for t in FOLLOWED] == [(6,), (4,), (12,)]
    assert build(Term("group_hint")).guided == {0: 1, 1: 3, 2: 4}
    assert [build(Term("group_hint", options={"of": "depth"})).needs(t).hidden for t in FOLLOWED] == [(2,), (3,), (12,)]
    assert build(Term("angle")).needs(0) == build(Term("adaptive_kd")).needs(0) == Needs()
    assert build(Term("angle")).want == frozenset()
    assert build(Term("adaptive_kd")).want == frozenset({"hidden"})
    assert build(Term("angle", options={"space": "states"})).needs(2) == Needs(hidden=(12,))


def test_followed_may_be_some_of_the_teachers():
    for term in CASES:
        module = build(term, followed=(0, 2))
        assert module.followed == (0, 2)
        weights = tensor([0.5, 0.0, 0.5]).expand(7, 3)
        assert module(student_of(), teachers_of(module), batch_of(), weights).isfinite().all()


def test_adaptive_shares_are_learned_and_sum_to_one():
    module, student, batch = build(Term("adaptive_kd"), followed=(0, 2)), student_of(), batch_of()
    weights = tensor([0.5, 0.0, 0.5]).expand(7, 3).clone()
    weights[1], weights[2] = tensor([0.0, 0.0, 0.1]), 0.0
    shares = module.shares(student, batch, weights)
    assert_close(shares.sum(-1), tensor([1.0, 1, 0, 1, 1, 1, 1]))
    assert (shares[:, 1] == 0).all()
    assert shares[1].tolist() == [0.0, 0.0, 1.0]
    assert len({round(x, 4) for x in shares[:, 0].tolist()}) > 3         # they differ between samples


def test_adaptive_kd_reads_tables_and_fits_regressions():
    tables = Setting(SETTING.student, [{}, {}, {}], regression=True)
    module, student = build(Term("adaptive_kd"), tables), student_of(classes=1)
    z = randn(7, 3, 1)
    shares = module.shares(student, batch_of(), uniform())
    expected = (student.logits[:, 0] - (shares.unsqueeze(-1) * z).sum(1)[:, 0]) ** 2
    assert_close(module(student, TeacherBatch(z), batch_of(), uniform()), expected)


def test_a_cls_without_a_counterpart_costs_nothing():
    module, student, batch = build(Term("patience"), followed=(1,)), student_of(), batch_of()
    said = teachers_of(module)
    seen = batch.mask.clone()
    seen[2, 0] = False
    said.seen = {1: seen}
    units = module(student, said, batch, uniform())
    assert units[2] == 0
    assert (units > 0).sum() == 6


@pytest.mark.parametrize("seen", [False, True])
def test_patience_reads_the_last_token_of_an_xlnet(seen):
    """Its [CLS] stands last, and an aligned teacher's at the same place; nothing else of the sample counts."""
    setting = Setting(SETTING.student | {"cls": -1}, SHAPES)
    module, student, batch = build(Term("patience"), setting, followed=(1,)), student_of(), batch_of()
    batch.mask = batch.mask.flip(1)                                       # padded on the left
    said = teachers_of(module)
    said.seen = {1: batch.mask.clone()} if seen else {}
    last = [h[:, -1] for h in student.hidden]
    expected = sum((relations.unit(last[i]) - relations.unit(said.hidden[1][j][:, -1])).pow(2).sum(-1)
                   for i, j in module.pairs[1])
    before = module(student, said, batch, torch.ones(7, 3))
    assert_close(before, expected)
    with torch.no_grad():
        for states in [*student.hidden, *said.hidden[1].values()]:
            states[:, :-1] = 77.0
    assert_close(module(student, said, batch, torch.ones(7, 3)), before)
    if seen:
        said.seen[1][2, -1] = False                                       # its [CLS] has no counterpart: costs nothing
        assert module(student, said, batch, torch.ones(7, 3))[2] == 0


@pytest.mark.parametrize("pooler", ["", " + cls"])
@pytest.mark.parametrize(("family", "place"), [("xlnet-scratch-1x32", -1), ("scratch-1x32", 0)])
def test_a_network_says_where_its_cls_is(text_task, family, place, pooler, tmp_path):
    """From the model to the term, with real tokens: the place that the term reads holds the [CLS] token."""
    prepared = prepare(text_task, family, max_length=32, vocab=60, store=Store(tmp_path))
    network = models.build(f"{family}{pooler}", 3, seed=0, vocab=prepared.vocab, tokens=prepared.special_ids)
    assert network.shape.get("cls", 0) == place
    batch = prepared.data("train").batch(np.arange(9))
    where = relations.cls_token(batch.mask, network.shape.get("cls", 0))
    ids = batch.inputs["input_ids"][torch.arange(9), where]
    assert set(ids.tolist()) == {prepared.tokenizer.cls_token_id}
    term = relation_terms.PatienceTerm(Term("patience"), Setting(network.shape, [network.shape]), (0,))
    hidden = network(batch.inputs, frozenset({"hidden"})).hidden
    assert_close(term.student_state(Outputs(None, hidden), 1, batch), hidden[1][torch.arange(9), where])


def test_the_angle_of_adaptive_kd_is_against_the_teachers_integrated_by_the_learned_weights():
    module = build(Term("adaptive_kd", temperature=2.0, options={"angle": 3.0}))
    student, batch, said = student_of(), batch_of(), teachers_of(module)
    shares = module.shares(student, batch, uniform())
    target = (shares.unsqueeze(-1) * (said.logits / 2).softmax(-1)).sum(1)
    expected = relations.integrated_kd(student.logits, said.logits, shares, 2.0)
    expected = expected + 3.0 * relations.angle((student.logits / 2).softmax(-1), target)
    assert_close(module(student, said, batch, uniform()), expected)


def test_triplets_are_drawn_anew_for_every_batch_and_the_same_in_every_run():
    few = Term("dissimilarity", options={"triplets": 7})
    student, batch = student_of(), batch_of()
    runs = []
    for _ in range(2):
        module = build(few)
        said = teachers_of(module)
        runs.append([module(student, said, batch, uniform()).tolist() for _ in range(3)])
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[0][1]


@pytest.mark.parametrize("name", sorted(TERMS))
def test_refusals(name):
    with pytest.raises(KitError, match="no option 'marginn'"):
        build(Term(name, options={"marginn": 1}))
    states = Term(name, options={"space": "states", **({"angle": 1.0} if name == "adaptive_kd" else {})}
                  if name in ("angle", "adaptive_kd") else {})
    with pytest.raises(KitError, match="matches layers"):
        build(states, Setting(SETTING.student, [SHAPES[0], {}, SHAPES[2]]))
    with pytest.raises(KitError, match="matches layers"):
        build(states, Setting({}, SHAPES))


def test_more_refusals():
    with pytest.raises(KitError, match="only 2"):
        build(Term("patience"), Setting(SETTING.student, [{"layers": 2, "width": 4}]), (0,))
    with pytest.raises(KitError, match="layers 1 to 4, not 5"):
        build(Term("dissimilarity", options={"layer": 5}))
    with pytest.raises(KitError, match="distance is 'far'"):
        build(Term("dissimilarity", options={"distance": "far"}))
    with pytest.raises(KitError, match="pool is 'sum'"):
        build(Term("adaptive_kd", options={"pool": "sum"}))
    with pytest.raises(KitError, match="a regression has none"):
        build(Term("angle"), Setting(SETTING.student, SHAPES, regression=True))
    two = student_of(classes=2)
    with pytest.raises(KitError, match="two classes lie on one line"):
        build(Term("angle"))(two, TeacherBatch(randn(7, 3, 2)), batch_of(), uniform())
    for name in ("angle", "adaptive_kd"):
        with pytest.raises(KitError, match="token by token"):
            build(Term(name))(student_of(), TeacherBatch(randn(7, 5, 3, 4)), batch_of(), uniform())
