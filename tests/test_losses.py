"""Every loss against numbers worked out by hand, and the properties that must hold whatever the numbers."""

import doctest
import importlib
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

import mtkd
from mtkd.rules import losses

GOLDEN = Path(__file__).parent / "golden" / "textbrewer_multiteacher.json"


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


SOURCE = Path(mtkd.__file__).parent
WITH_EXAMPLES = [".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
                 for path in sorted(SOURCE.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]  # fmt: skip


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_in_the_docstrings_run(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0


# --- gold labels ---------------------------------------------------------------------------------------------------------


def test_cross_entropy_by_hand():
    logits = tensor([[math.log(3), 0.0], [0.0, math.log(4)]])  # probabilities (3/4, 1/4) and (1/5, 4/5)
    assert_close(losses.cross_entropy(logits, tensor([0, 0])), tensor([math.log(4 / 3), math.log(5)]))


def test_unlabelled_units_cost_nothing_and_teach_nothing():
    logits = randn(3, 4).requires_grad_()
    loss = losses.cross_entropy(logits, tensor([1, -1, 2]))
    assert loss[1] == 0
    loss.sum().backward()
    assert (logits.grad[1] == 0).all()
    assert (logits.grad[0] != 0).all()


def test_cross_entropy_takes_token_units():
    logits, labels = randn(2, 5, 3), tensor([[0, 1, 2, -1, 0], [2, 2, 1, 0, -1]])
    flat = losses.cross_entropy(logits.reshape(10, 3), labels.reshape(10))
    assert_close(losses.cross_entropy(logits, labels), flat.reshape(2, 5))


def test_squared_error_is_a_mean_over_the_last_axis_only():
    assert_close(losses.squared_error(tensor([[1.0, 3.0], [0.0, 0.0]]), tensor([[0.0, 1.0], [0.0, 4.0]])), tensor([2.5, 8.0]))


# --- soft cross-entropy, Eq. 2 -------------------------------------------------------------------------------------------


def test_soft_cross_entropy_by_hand():
    student, teacher = tensor([[math.log(3), 0.0]]), tensor([[0.0, math.log(4)]])
    expected = -(1 / 5 * math.log(3 / 4) + 4 / 5 * math.log(1 / 4))
    assert_close(losses.soft_cross_entropy(student, teacher), tensor([expected]))


def test_the_teacher_is_the_target_not_the_student():
    sure, unsure = tensor([[5.0, 0.0]]), tensor([[0.0, 0.0]])
    assert_close(losses.soft_cross_entropy(unsure, sure), tensor([math.log(2)]))  # whatever the target: -log 1/2
    assert losses.soft_cross_entropy(sure, unsure).item() > 2  # half of the mass is where the student gave 0.7%


def test_temperature_divides_both_sides():
    student, teacher = tensor([[2 * math.log(3), 0.0]]), tensor([[0.0, 2 * math.log(4)]])
    expected = -(1 / 5 * math.log(3 / 4) + 4 / 5 * math.log(1 / 4))  # at t = 2 these are the distributions above
    assert_close(losses.soft_cross_entropy(student, teacher, temperature=2.0), tensor([expected]))


def test_t_squared_is_off_and_multiplies_when_on():
    z, q = randn(4, 3), randn(4, 3, seed=1)
    plain = losses.soft_cross_entropy(z, q, 3.0)
    assert_close(losses.soft_cross_entropy(z, q, 3.0, t_squared=True), 9 * plain)


def test_t_squared_keeps_the_size_of_gradients():
    """Hinton et al.: at a high temperature the gradient shrinks as 1/t^2."""
    q = randn(8, 5, seed=1)
    sizes = []
    for t in (10.0, 40.0):
        z = randn(8, 5).requires_grad_()
        losses.soft_cross_entropy(z, q, t, t_squared=True).sum().backward()
        sizes.append(z.grad.norm())
    assert_close(sizes[0], sizes[1], rtol=0.1, atol=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 1.0, 2.0, 7.0]), st.integers(2, 6))
def test_kl_is_zero_at_the_teacher_and_positive_elsewhere(seed, t, classes):
    z, q = randn(5, classes, seed=seed), 3 * randn(5, classes, seed=seed + 1)
    assert_close(losses.soft_cross_entropy(q, q, t, kl=True), torch.zeros(5), atol=1e-5, rtol=0)
    assert (losses.soft_cross_entropy(z, q, t, kl=True) > 0).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1.0, 2.0, 7.0]))
def test_kl_and_cross_entropy_have_the_same_gradient(seed, t):
    q, grads = randn(5, 4, seed=seed + 1), []
    for kl in (False, True):
        z = randn(5, 4, seed=seed).requires_grad_()
        losses.soft_cross_entropy(z, q, t, kl=kl).sum().backward()
        grads.append(z.grad)
    assert_close(grads[0], grads[1])


def test_kl_with_certain_targets_is_finite():
    assert_close(losses.soft_cross_entropy(tensor([[0.0, 0.0]]), tensor([[1.0, 0.0]]), kl=True, probabilities=True),
                 tensor([math.log(2)]))


def test_the_mean_is_never_over_classes_too():
    """Ten classes of uniform logits cost ln 10, not ln 10 / 10 (the `mean` for `batchmean` mistake)."""
    z = torch.zeros(4, 10)
    assert_close(losses.soft_cross_entropy(z, z), torch.full((4,), math.log(10)))
    torch_kl = torch.nn.functional.kl_div(randn(4, 10).log_softmax(-1), randn(4, 10, seed=1).softmax(-1), reduction="batchmean")
    assert_close(losses.soft_cross_entropy(randn(4, 10), randn(4, 10, seed=1), kl=True).mean(), torch_kl)


# --- several teachers, Eq. 9 ---------------------------------------------------------------------------------------------


def test_three_things_called_averaging_differ():
    student, teachers = tensor([[1.0, 0.0]]), tensor([[[6.0, 0.0], [0.0, 2.0]]])
    of_logits = losses.soft_cross_entropy(student, losses.mean_logits(teachers))
    of_probabilities = losses.soft_cross_entropy(student, losses.mean_probabilities(teachers), probabilities=True)
    of_losses = losses.soft_cross_entropy(student.unsqueeze(1).expand_as(teachers), teachers).mean(-1)
    p = lambda a, b: 1 / (1 + math.exp(b - a))  # noqa: E731 - probability of the first of two classes
    ce = lambda q: -(q * math.log(p(1, 0)) + (1 - q) * math.log(1 - p(1, 0)))  # noqa: E731
    assert_close(of_logits, tensor([ce(p(3, 1))]))
    assert_close(of_probabilities, tensor([ce((p(6, 0) + p(0, 2)) / 2)]))
    assert_close(of_losses, of_probabilities)  # cross-entropy is linear in its target; not so with KL's value
    assert abs(of_logits - of_probabilities) > 0.1


def test_mean_of_logits_is_textbrewers_multi_teacher_loss():
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert golden["settings"]["average"] == "logits"
    assert not golden["settings"]["temperature_squared"]
    for case in golden["cases"]:
        student, teachers = tensor(case["student"]), tensor(case["teachers"]).transpose(0, 1)  # file: [T, B, C]
        ours = losses.multi_teacher_kd(student, teachers, case["temperature"]).mean().item()
        assert ours == pytest.approx(case["loss"], abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_k_identical_teachers_equal_one(seed, k):
    student, one = randn(4, 3, seed=seed), randn(4, 1, 3, seed=seed + 1)
    assert_close(losses.multi_teacher_kd(student, one.expand(4, k, 3), 2.0),
                 losses.soft_cross_entropy(student, one[:, 0], 2.0))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(4)))
def test_permuting_teachers_permutes_weights_and_nothing_else(seed, order):
    teachers, weights = randn(5, 4, 3, seed=seed), randn(5, 4, seed=seed + 1).abs()
    for mean in (losses.mean_logits, losses.mean_probabilities):
        assert_close(mean(teachers[:, order], weights[:, order]), mean(teachers, weights))
    assert_close(losses.normalised(weights[:, order]), losses.normalised(weights)[:, order])


def test_weights_are_normalised_per_unit_and_nobody_gives_zeros():
    teachers = tensor([[[2.0, 0.0], [0.0, 4.0]]]).expand(3, 2, 2)
    weights = tensor([[3.0, 1.0], [0.0, 5.0], [0.0, 0.0]])
    assert_close(losses.mean_logits(teachers, weights), tensor([[1.5, 1.0], [0.0, 4.0], [0.0, 0.0]]))


def test_mean_probabilities_sums_to_one_and_tempers_before_the_mean():
    teachers = tensor([[[2 * math.log(3), 0.0], [0.0, 2 * math.log(4)]]])  # at t = 2: (3/4, 1/4) and (1/5, 4/5)
    assert_close(losses.mean_probabilities(teachers, temperature=2.0), tensor([[(3 / 4 + 1 / 5) / 2, (1 / 4 + 4 / 5) / 2]]))


# --- inner layers, Eq. 3-8 -----------------------------------------------------------------------------------------------


def test_hidden_mse_by_hand():
    student, teacher = torch.zeros(1, 3, 2), tensor([[[1.0, 3.0], [2.0, 0.0], [100.0, 100.0]]])
    assert_close(losses.hidden_mse(student, teacher, tensor([[1.0, 1.0, 0.0]])), tensor([(5.0 + 2.0) / 2]))


def test_attention_mse_by_hand():
    """Two heads off by 1 and 3 everywhere: (1 + 9) / 2, whatever the padded rows and columns hold."""
    teacher = torch.zeros(1, 2, 3, 3)
    student = torch.stack([torch.full((3, 3), 1.0), torch.full((3, 3), 3.0)]).unsqueeze(0).clone()
    student[..., 2, :] = 50.0
    student[..., :, 2] = -50.0
    assert_close(losses.attention_mse(student, teacher, tensor([[1.0, 1.0, 0.0]])), tensor([5.0]))


def test_cosine_by_hand():
    student = tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]])
    teacher = tensor([[[2.0, 0.0], [0.0, 5.0], [-3.0, 0.0]]])  # the same direction, at right angles, opposite
    assert_close(losses.cosine(student, teacher, torch.ones(1, 3)), tensor([1.0]))
    assert_close(losses.cosine(student, teacher, tensor([[1.0, 0.0, 0.0]])), tensor([0.0]))


@pytest.mark.parametrize(("loss", "shape"), [(losses.hidden_mse, (3, 5, 4)), (losses.cosine, (3, 5, 4)),
                                             (losses.attention_mse, (3, 2, 5, 5))])
def test_inner_losses_are_zero_at_the_teacher_and_do_not_see_padding(loss, shape):
    mask = tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.float32)
    a, b = randn(*shape), randn(*shape, seed=1)
    assert_close(loss(a, a, mask), torch.zeros(3), atol=1e-6, rtol=0)
    narrow = loss(a, b, mask)
    assert (narrow > 0).all()
    pad = (0, 3, 0, 3) if len(shape) == 4 else (0, 0, 0, 3)
    wider = [torch.nn.functional.pad(x, pad, value=v) for x, v in ((a, 7.0), (b, -2.0))]
    assert_close(loss(*wider, torch.nn.functional.pad(mask, (0, 3))), narrow)
    for i, n in enumerate((5, 3, 1)):  # each sample by itself, without padding
        cut = (slice(i, i + 1), slice(None), slice(n), slice(n)) if len(shape) == 4 else (slice(i, i + 1), slice(n))
        assert_close(loss(a[cut], b[cut], torch.ones(1, n)), narrow[i : i + 1])


def test_masked_lm_by_hand():
    logits = tensor([[[math.log(3), 0.0], [0.0, 0.0], [9.0, 0.0]], [[0.0, 0.0]] * 3])
    labels = tensor([[0, 1, -100], [-100, -100, -100]])
    assert_close(losses.masked_lm(logits, labels), tensor([(math.log(4 / 3) + math.log(2)) / 2, 0.0]))


def test_sums_of_terms():
    a, b, c = tensor([1.0, 2.0]), tensor([10.0, 20.0]), tensor([100.0, 200.0])
    assert_close(losses.original_kd(a, b, 0.5), tensor([6.0, 12.0]))                              # Eq. 1
    assert_close(losses.transformer_layer(a, b), tensor([11.0, 22.0]))                            # Eq. 3
    assert_close(losses.tinybert_intermediate(a, [b, c, c]), tensor([211.0, 422.0]))              # Eq. 5, 6
    assert_close(losses.distilbert(a, b, c), tensor([111.0, 222.0]))                              # Eq. 8
    assert_close(losses.distilbert(a, b, c, (1.0, 0.0, 2.0)), tensor([201.0, 402.0]))
