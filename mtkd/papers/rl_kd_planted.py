"""A problem small enough to see whether the policy can learn at all: one teacher knows one half of the inputs, another the
other half, and the input says which. No student, no text, a second of time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mtkd.papers import Exhibit
from mtkd.rules import rewards
from mtkd.rules.policy import Policy
from mtkd.train.outputs import TeacherBatch

BATCH = 32
CASES = {"paid for the selected teachers": {}, "rewards of other samples": {"shuffled": True}}


def planted(n: int = 600, classes: int = 4, seed: int = 0) -> tuple[TeacherBatch, Tensor, Tensor]:
    """Two teachers; the first is right where the first of 16 features is positive, the second where it is negative, and each is
    surely wrong elsewhere. -> what they say with features [n, 16], labels [n], who is right [n, 2]"""
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 16, generator=rng)
    labels = torch.randint(classes, (n,), generator=rng)
    right = (features[:, :1] > 0) == torch.tensor([True, False])
    wrong = (labels[:, None] + torch.randint(1, classes, (n, 2), generator=rng)) % classes
    logits = 0.7 * torch.randn(n, 2, classes, generator=rng)
    logits.scatter_add_(2, torch.where(right, labels[:, None], wrong).unsqueeze(-1), torch.full((n, 2, 1), 2.5))
    return TeacherBatch(logits, features=features), labels, right


def learning(policy: Policy, epochs: int = 4, seed: int = 0, shuffled: bool = False) -> pd.DataFrame:
    """The policy on the planted problem, paid by the mean of the teachers it selects, update by update.

    Columns update, follows right, follows wrong (mean probability over all inputs), nobody. shuffled: every sample is paid what
    some sample of the batch before was paid, so that there is nothing to learn.
    """
    (said, labels, right), rng, before, found = planted(), torch.Generator().manual_seed(seed), torch.zeros(1), []
    policy.fit(said, labels)
    state = policy.look(said, labels)
    for _ in range(epochs):
        for index in torch.randperm(len(labels), generator=rng).split(BATCH):
            actions = torch.bernoulli(policy.probabilities(state[index]), generator=rng)
            reward = rewards.reward_of_teachers(said.logits[index], actions, labels[index])
            other = before[torch.randint(len(before), (len(index),), generator=rng)]
            policy.update(state[index], actions, other if shuffled else reward)
            before, p = reward, policy.probabilities(state)
            found.append([len(found) + 1, *(float(x) for x in (p[right].mean(), p[~right].mean(), (1 - p).prod(1).mean()))])
    return pd.DataFrame(found, columns=["update", "follows right", "follows wrong", "nobody"])


def figure(seeds: int = 3) -> Exhibit:
    """Whom the policy follows as it learns: with the true rewards, and with those of other samples."""
    drawn = Figure(figsize=(9.6, 2.9), layout="constrained")
    with sns.axes_style("whitegrid"):
        axes = drawn.subplots(1, len(CASES), sharey=True)
    colours = dict(zip(("follows right", "follows wrong", "nobody"), [*sns.color_palette("colorblind", 2), "0.5"]))
    for axis, (title, options) in zip(axes, CASES.items()):
        runs = [learning(Policy(), seed=seed, **options) for seed in range(seeds)]
        for name, colour in colours.items():
            curves = np.stack([run[name] for run in runs])
            axis.plot(runs[0]["update"], curves.T, color=colour, linewidth=0.8, alpha=0.5)
            axis.plot(runs[0]["update"], curves.mean(0), color=colour, linewidth=2, label=name)
        axis.set(title=title, xlabel="update of the policy", ylim=(0, 1))
        axis.title.set_fontsize(10)
    axes[0].set_ylabel("mean probability")
    axes[1].legend(fontsize=8)
    words = "Mean probability of following the teacher that is right on an input, the one that is wrong, and nobody; "
    words += f"{seeds} runs and their mean."
    return Exhibit("planted", "a problem with a known answer", words, drawn)
