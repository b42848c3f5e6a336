"""Eq. 7 by hand, the policy's pre-training reward, and the accuracy of reward 3."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mtkd.models.names import build
from mtkd.models.networks import Outputs
from mtkd.rules import losses, rewards
from mtkd.tokens.batches import ImageData
from mtkd.train.outputs import evaluate_logits
from mtkd.train.prepare import prepare

CPU = torch.device("cpu")


def test_the_three_rewards_by_hand():
    ce, dl = torch.tensor([0.2, 1.0]), torch.tensor([0.6, 0.0])
    assert_close(rewards.reward_1(ce), torch.tensor([-0.2, -1.0]))
    assert_close(rewards.reward_2(ce, dl), torch.tensor([-0.8, -1.0]))
    assert_close(rewards.reward_3(ce, dl, 0.75, gamma=0.3), torch.tensor([0.3 * -0.8 + 0.7 * 0.75, 0.3 * -1.0 + 0.7 * 0.75]))
    assert_close(rewards.reward_3(ce, dl, 0.75, gamma=1.0), rewards.reward_2(ce, dl))
    assert_close(rewards.reward_3(ce, dl, 0.75, gamma=0.0), torch.full((2,), 0.75))


def test_rewards_one_and_two_are_never_positive():
    z, labels = torch.randn(50, 4), torch.randint(4, (50,))
    ce, dl = losses.cross_entropy(z, labels), losses.soft_cross_entropy(z, torch.randn(50, 4), 5.0)
    assert (rewards.reward_1(ce) <= 0).all()
    assert (rewards.reward_2(ce, dl) <= 0).all()


def test_the_selected_teachers_are_paid_by_their_mean_probability():
    z, labels = torch.randn(6, 3, 4), torch.tensor([0, 1, 2, 3, 0, -1])
    actions = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 1, 1]])
    found = rewards.reward_of_teachers(z, actions, labels)
    for i in range(4):
        mean = z[i].softmax(-1)[actions[i] > 0].mean(0)
        assert found[i].item() == pytest.approx(float(mean[labels[i]].log()), rel=1e-5)
    assert found[4:].tolist() == [0, 0]  # nobody selected; no label
    assert torch.isfinite(rewards.reward_of_teachers(1e4 * z, actions, labels)).all()


def test_the_dev_subset_is_the_same_in_every_run_and_at_most_everything():
    torch.manual_seed(1)
    np.random.seed(1)
    one = rewards.dev_subset(100, 20)
    np.random.seed(2)
    assert (one == rewards.dev_subset(100, 20)).all()
    assert len(set(one)) == 20
    assert (np.diff(one) > 0).all()
    assert rewards.dev_subset(7, 20).tolist() == list(range(7))


class Brightest(nn.Module):
    """Says the class of the brightest of three pixels; knows whether it was asked in eval mode."""

    def forward(self, inputs, want=frozenset()):
        assert not self.training
        return Outputs(inputs["pixels"].flatten(1))


def test_dev_accuracy_counts_the_subset_in_eval_mode_and_puts_the_mode_back(monkeypatch):
    monkeypatch.setattr(rewards, "DEV_BATCH", 4)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (30, 3, 1, 1)).astype(np.uint8)
    data = ImageData([str(i) for i in range(30)], pixels, rng.integers(0, 3, 30), 1, 0, False, (0.5,), (0.5,))
    index = rewards.dev_subset(30, 11)
    network = Brightest().train()
    right = pixels.reshape(30, 3).argmax(1)[index] == data.labels[index]
    assert rewards.dev_accuracy(network, data, index, CPU) == pytest.approx(right.mean())
    assert network.training


def test_dev_accuracy_of_texts_does_not_depend_on_how_they_are_batched(text_task, monkeypatch):
    prepared = prepare(text_task, "scratch-1x32", vocab=200)
    network, data = build("scratch-1x32", 3, seed=0, vocab=prepared.vocab), prepared.data("validation")
    index = rewards.dev_subset(len(data), 20)
    expected = (evaluate_logits(network, data, CPU).argmax(-1).numpy() == data.labels)[index].mean()
    for size in (256, 3):
        monkeypatch.setattr(rewards, "DEV_BATCH", size)
        assert rewards.dev_accuracy(network, data, index, CPU) == pytest.approx(expected)
