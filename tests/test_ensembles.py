"""Fixed ensembles of teachers: weights by hand, as classifiers, as teachers of a student, and what BestSingle may not do."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mtkd.errors import KitError
from mtkd.rules import ensembles
from mtkd.rules.ensembles import BestSingle, DevWeighted, LogisticWeighted, ensemble, random_single, weighted_logits
from mtkd.rules.experts import RandomTeacher
from mtkd.rules.selection import Primary, Uniform
from mtkd.store.artifacts import tensors_load
from mtkd.tokens.batches import Batch
from mtkd.train import distil
from mtkd.train.outputs import TeacherBatch
from mtkd.train.prepare import prepare
from mtkd.train.recipes import Optimisation, Recipe, Stage, Term

OPT = Optimisation(epochs=1, batch_size=16, lr=5e-3, keep="last")


def skilled(*share, n=400, classes=3, seed=0):
    """Teachers that are right about a share of the samples and surely wrong about the others. -> [n, T, C], [n]"""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=rng)
    right = torch.rand(n, len(share), generator=rng) < torch.tensor(share)
    said = torch.where(right, labels[:, None], (labels[:, None] + 1) % classes)
    return 3.0 * torch.nn.functional.one_hot(said, classes) + 0.1 * torch.randn(n, len(share), classes, generator=rng), labels


def test_weights_go_by_accuracy():
    z = torch.tensor([[[1.0, 0], [1, 0]], [[1, 0], [0, 1]], [[1, 0], [0, 1]], [[0, 1], [0, 1]]])
    assert_close(ensembles.dev_weights(z, torch.tensor([0, 0, 1, 1])), torch.tensor([0.75, 0.75]) / 1.5)
    assert_close(ensembles.dev_weights(z, torch.tensor([0, 0, 0, 1])), torch.tensor([1.0, 0.5]) / 1.5)
    assert_close(ensembles.dev_weights(z[:1], torch.tensor([1])), torch.tensor([0.5, 0.5]))  # nobody is ever right
    assert_close(ensembles.dev_weights(z, torch.tensor([0, -1, -1, -1])), torch.tensor([0.5, 0.5]))


def test_logistic_regression_finds_who_is_worth_hearing():
    z, labels = skilled(0.9, 0.6, 0.1)
    w = ensembles.logistic_weights(z, labels)
    assert w.sum().item() == pytest.approx(1)
    assert w[0] > w[1] > w[2] == 0  # who is mostly wrong would get a negative coefficient
    assert_close(ensembles.logistic_weights(z.flip(1), labels), w.flip(0), atol=1e-3, rtol=0)
    assert_close(ensembles.logistic_weights(z[:, 2:], labels), torch.ones(1))  # nothing positive: equal
    with pytest.raises(KitError, match="has none"):
        ensembles.logistic_weights(z, torch.full((400,), -1))
    with pytest.raises(KitError, match="has none"):
        ensembles.logistic_weights(z, labels.float())


def test_an_ensemble_says_the_weighted_mean_probability():
    z = torch.randn(5, 3, 4)
    w = torch.tensor([0.5, 0.3, 0.2])
    assert_close(weighted_logits(z, w).exp(), (z.softmax(-1) * w[:, None]).sum(1))
    assert_close(weighted_logits(z, torch.tensor([0.0, 1.0, 0.0])).softmax(-1), z[:, 1].softmax(-1))
    assert_close(weighted_logits(z, 10 * w), weighted_logits(z, w))  # weights are normalised
    assert_close(ensemble(Uniform(), z).exp(), z.softmax(-1).mean(1))
    assert_close(ensemble(Primary(2), z).exp(), z[:, 2].softmax(-1))
    assert torch.isfinite(weighted_logits(1e5 * z, w)).all()


def test_random_single_takes_one_teacher_per_batch_or_sample():
    z = torch.arange(3.0).view(1, 3, 1).expand(100, 3, 2)  # teacher t says t
    rng = torch.Generator().manual_seed(0)
    each = random_single(z, rng)[:, 0]
    assert set(each.tolist()) == {0.0, 1.0, 2.0}
    blocks = random_single(z, rng, batch_size=32)[:, 0].split(32)
    assert [len(set(b.tolist())) for b in blocks] == [1, 1, 1, 1]
    assert torch.equal(random_single(z, torch.Generator().manual_seed(3)), random_single(z, torch.Generator().manual_seed(3)))
    assert_close(ensemble(RandomTeacher(), torch.randn(6, 2, 3)).shape, torch.Size([6, 3]))


def test_the_weighted_selections_learn_their_weights_and_keep_them():
    z, labels = skilled(0.9, 0.2, 0.6)
    for selection, expected in ((DevWeighted(), ensembles.dev_weights(z, labels)),
                                (LogisticWeighted(), ensembles.logistic_weights(z, labels))):
        selection.fit(TeacherBatch(z), labels)
        assert_close(selection.state()["weights"], expected)
        assert_close(selection.weights(None, TeacherBatch(z[:7]), 0, None), expected.expand(7, 3))
        assert_close(ensemble(selection, z), weighted_logits(z, expected))
    some = DevWeighted(of=(2, 0))
    some.fit(TeacherBatch(z), labels)
    assert some.state()["weights"][1] == 0
    assert_close(some.state()["weights"].sum(), torch.tensor(1.0))
    with pytest.raises(KitError, match="DevWeighted has not looked at the teachers yet"):
        DevWeighted().weights(None, TeacherBatch(z), 0, None)
    with pytest.raises(KitError, match="no such value of fit_split: 'test'"):
        LogisticWeighted(fit_split="test")


def test_the_best_single_teacher_is_the_one_with_the_lowest_loss_on_the_label():
    z = torch.tensor([[[3.0, 0], [1, 0]], [[3, 0], [1, 0]], [[0, 1], [0, 1]]])
    batch = Batch(np.arange(3), {}, torch.tensor([0, 1, 1]))
    assert BestSingle().weights(batch, TeacherBatch(z), 0, None).tolist() == [[1, 0], [0, 1], [1, 0]]
    assert BestSingle(of=(1,)).weights(batch, TeacherBatch(z), 0, None).tolist() == [[0, 1]] * 3


def test_the_best_single_teacher_is_never_evaluated():
    z, labels = skilled(0.9, 0.2)
    with pytest.raises(KitError, match="cannot be used where there are no labels, nor be evaluated"):
        ensemble(BestSingle(), z)
    labels[3] = -1
    with pytest.raises(KitError, match="nor be evaluated"):
        BestSingle().weights(Batch(np.arange(400), {}, labels), TeacherBatch(z), 0, None)


@pytest.fixture(scope="module")
def made(text_task, tmp_path_factory):
    from mtkd.store.artifacts import Store

    prepared = prepare(text_task, "scratch-1x32", vocab=200, store=Store(tmp_path_factory.mktemp("store")))
    return prepared, distil.finetune(prepared, "scratch-1x32", range(2), replace(OPT, epochs=3))


@pytest.mark.parametrize("selection", [DevWeighted(), LogisticWeighted(), LogisticWeighted(fit_split="train"), BestSingle(),
                                       RandomTeacher(per="step")])
def test_every_ensemble_teaches_a_student(made, selection):
    prepared, teachers = made
    kd = (Term("cross_entropy", weight=0.5), Term("soft_cross_entropy", selection, combine="probabilities", weight=0.5))
    student = distil.distill(prepared, teachers, "scratch-1x32", Recipe("kd", (Stage("kd", kd, OPT),)))
    assert 0 <= student.metrics["test"]["accuracy"] <= 1
    if isinstance(selection, ensembles.Fixed):
        w = tensors_load(student.folder / "selection-1.safetensors")["weights"]
        split = selection.fit_split
        from mtkd.train.teachers import logits_of

        z = torch.stack([logits_of(prepared, t, split) for t in teachers], 1)
        assert_close(w, selection.learn(z, torch.from_numpy(prepared.data(split).labels)))


def test_doctests():
    import doctest

    for module in (ensembles,):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0
