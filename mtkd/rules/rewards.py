"""What RL-KD's policy is paid: Eq. 7 as pure functions, one value per sample.

Yuan et al., "Reinforced Multi-Teacher Selection for Knowledge Distillation" (`rl_kd`). L_CE is the student's cross-entropy
with the gold label (Eq. 2), L_DL its distillation loss against the teachers that were selected (Eq. 1, at the term's own
temperature; as printed or times T squared, see `Policy.reward_scale`). The paper sums both over a batch; here they stay per
sample, [B], and who wants an episode's reward takes the mean (`Policy.credit`).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mtkd.rules import losses
from mtkd.rules.registry import reward
from mtkd.tokens.batches import ImageData, TextData

DEV_SEED, DEV_BATCH = 0, 256


@reward
def reward_1(ce: Tensor) -> Tensor:
    """-L_CE. [B] -> [B]"""
    return -ce


@reward
def reward_2(ce: Tensor, dl: Tensor) -> Tensor:
    """-L_CE - L_DL. [B], [B] -> [B]

    >>> reward_2(torch.tensor([0.5]), torch.tensor([0.25]))
    tensor([-0.7500])
    """
    return -ce - dl


@reward
def reward_3(ce: Tensor, dl: Tensor, accuracy: Tensor | float, *, gamma: float = 0.5) -> Tensor:
    """gamma (-L_CE - L_DL) + (1 - gamma) Accuracy on D'. [B], [B], one number for all -> [B]

    >>> reward_3(torch.tensor([0.5]), torch.tensor([0.25]), 0.8, gamma=0.5)
    tensor([0.0250])
    """
    return gamma * (-ce - dl) + (1 - gamma) * accuracy


def reward_of_teachers(logits: Tensor, actions: Tensor, labels: Tensor) -> Tensor:
    """The policy's pre-training: minus the cross-entropy of the mean probability of the selected teachers ("TS Pretraining":
    "the performance of the average ensemble of the selected teacher models"). [B, K, C], [B, K], [B] -> [B]; an empty selection
    gives 0, which nobody is to learn from.

    >>> z = torch.tensor([[[9.0, 0.0], [0.0, 0.0]]])                       # the first teacher knows, the second does not
    >>> [round(reward_of_teachers(z, torch.tensor([a]), torch.tensor([0])).item(), 2) for a in ([1.0, 0], [0, 1.0], [1.0, 1])]
    [-0.0, -0.69, -0.29]
    """
    mean = losses.mean_probabilities(logits, actions)                                            # [B, C]
    right = mean.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    known = (labels >= 0) & (actions.sum(-1) > 0)
    return torch.where(known, right.clamp(min=torch.finfo(right.dtype).tiny).log(), 0.0)


def dev_subset(n: int, size: int) -> np.ndarray:
    """D' of reward 3: `size` positions of the n validation samples, the same ones in every run. Sorted."""
    return np.sort(np.random.default_rng(DEV_SEED).permutation(n)[:size])


def dev_accuracy(network: nn.Module, data: TextData | ImageData, index: np.ndarray, device: torch.device) -> float:
    """Accuracy of the student on the samples `index`, in eval mode; its mode is put back."""
    mode = network.training
    network.eval()
    if hasattr(data, "lengths"):
        index = index[np.argsort(data.lengths[index], kind="stable")]
    right = 0
    with torch.no_grad():
        for part in np.split(index, range(DEV_BATCH, len(index), DEV_BATCH)):
            batch = data.batch(part).to(device)
            right += int((network(batch.inputs).logits.argmax(-1) == batch.labels).sum())
    network.train(mode)
    return right / len(index)
