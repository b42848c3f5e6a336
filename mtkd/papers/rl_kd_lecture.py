"""What only notebooks/rl_kd.ipynb looks at: views of a state, of what teachers know and of whom a
policy follows, a planted problem with a known answer, and the checks of its exercises."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import stats
from torch import Tensor

from mtkd.evidence.exhibits import Exhibit
from mtkd.lecture import Exercises
from mtkd.measure.metrics import agreement
from mtkd.papers.rl_kd import short_name
from mtkd.papers.rl_kd_study import Experiment
from mtkd.rules import losses, rewards
from mtkd.rules.policy import Policy, entropy
from mtkd.rules.selection import teacher_losses
from mtkd.train import episodes, teachers
from mtkd.train.outputs import TeacherBatch
from mtkd.train.representation import represent
from mtkd.train.teachers import Model

# --- what teachers know and rewards pay for ---------------------------------------------------------------------------


def names_of(experiment: Experiment) -> list[str]:
    return [short_name(name) for name in experiment.teachers]


def who_is_right(experiment: Experiment, repeat: int, split: str = "train") -> Tensor:
    """Which teacher is right on which sample, [n, K]."""
    return experiment.said(repeat, split).argmax(-1) == experiment.labels(split, repeat)[:, None]


def disputed(experiment: Experiment, repeat: int) -> int:
    """The number of the first training sample on which some teachers are right and some are wrong."""
    right = who_is_right(experiment, repeat)
    return int((right.any(1) & ~right.all(1)).int().argmax())


def one_state(experiment: Experiment, repeat: int, number: int) -> pd.DataFrame:
    """The parts of F(s) that teachers give for one training sample: their probability of each class and their loss."""
    logits = experiment.said(repeat, "train")[number : number + 1]
    ce = teacher_losses(logits, experiment.labels("train", repeat)[number : number + 1])[0]
    frame = pd.DataFrame(logits[0].softmax(-1).numpy(), names_of(experiment), list(experiment.loaded.classes)).round(2)
    return frame.assign(cross_entropy=ce.numpy().round(2))


def widths(experiment: Experiment) -> dict[str, int]:
    """How many numbers each of the three features has, and the state."""
    d, k = represent(experiment.prepared, experiment.policy.encoder, "train").shape[1], len(experiment.teachers)
    c = experiment.loaded.outputs
    return {"R(x)": d, "probabilities": c * k, "losses": k, "state": d + (c + 1) * k}


def knowledge(experiment: Experiment, repeat: int) -> pd.DataFrame:
    """Per split: each teacher's accuracy, the share of samples on which only it is right, and what the best possible choice
    among them would score. Columns split, teacher, accuracy, only this one."""
    table = []
    for split in ("train", "test"):
        right = who_is_right(experiment, repeat, split)
        alone = right & (right.sum(1, keepdim=True) == 1)
        table += [{"split": split, "teacher": name, "accuracy": one.item(), "only this one is right": only.item()}
                  for name, one, only in zip(names_of(experiment), right.float().mean(0), alone.float().mean(0))]
        table.append({"split": split, "teacher": "at least one is right", "accuracy": right.any(1).float().mean().item()})
    return pd.DataFrame(table)


def agreement_figure(experiment: Experiment, repeat: int) -> Exhibit:
    """The share of test samples on which two teachers predict the same class."""
    shares = agreement(list(experiment.said(repeat, "test").permute(1, 0, 2).numpy()))
    names = names_of(experiment)
    figure = Figure(figsize=(1.25 * len(names) + 2.6, 0.8 * len(names) + 1.2), layout="constrained")
    axis = figure.subplots()
    sns.heatmap(shares, annot=True, fmt=".2f", vmin=0.3, vmax=1, cmap="viridis", ax=axis, xticklabels=names,
                yticklabels=names)
    axis.tick_params(axis="y", rotation=0)
    axis.tick_params(axis="x", rotation=20)
    return Exhibit("agreement", f"share of equal predictions, repeat {repeat}", "On the test split.", figure)


def what_rewards_pay(experiment: Experiment, student: Model, repeat: int) -> pd.DataFrame:
    """Each teacher as a model on the training data, and the mean reward if it alone were selected everywhere, the student
    being as it is. Columns teacher, accuracy, entropy (of its predictions), pre-training, reward 1, reward 2."""
    prepared, labels, loss = experiment.prepared_for(repeat), experiment.labels("train", repeat), experiment.loss
    said, mine = experiment.said(repeat, "train"), teachers.logits_of(prepared, student, "train")
    ce, table = losses.cross_entropy(mine, labels), []
    scaled = loss.t_squared and experiment.policy.reward_scale == "loss"
    for position, name in enumerate(names_of(experiment)):
        theirs, alone = said[:, position], torch.zeros(said.shape[:2])
        alone[:, position] = 1.0
        dl = losses.soft_cross_entropy(mine, theirs, loss.temperature, scaled)
        p = theirs.softmax(-1)
        values = {"accuracy": (theirs.argmax(-1) == labels).float(), "entropy": -torch.special.xlogy(p, p).sum(-1),
                  "agrees with the student": (theirs.argmax(-1) == mine.argmax(-1)).float(),
                  "pre-training": rewards.reward_of_teachers(said, alone, labels),
                  "reward 1": rewards.reward_1(ce), "reward 2": rewards.reward_2(ce, dl)}
        table.append({"teacher": name} | {word: float(value.mean()) for word, value in values.items()})
    return pd.DataFrame(table)


def whom(experiment: Experiment, student: Model, repeat: int) -> pd.DataFrame:
    """Whom a finished policy would follow on every training sample. Columns teacher, sample, probability, and whether that
    teacher is right there ("right" or "wrong")."""
    _, p = episodes.look(experiment.prepared_for(repeat), experiment.teacher_set(repeat), experiment.policy, student)
    right, n, names = who_is_right(experiment, repeat), len(p), names_of(experiment)
    return pd.DataFrame({"teacher": np.tile(names, n), "sample": np.repeat(np.arange(n), len(names)),
                         "probability": p.flatten().numpy(), "says": np.where(right.flatten().numpy(), "right", "wrong")})


def whom_figure(table: pd.DataFrame) -> Exhibit:
    """How a policy's probabilities are spread, one panel per teacher, where it is right and where it is wrong."""
    names = list(dict.fromkeys(table["teacher"]))
    figure = Figure(figsize=(3.3 * len(names) + 0.6, 2.7), layout="constrained")
    with sns.axes_style("whitegrid"):
        axes = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    colours = dict(zip(("right", "wrong"), sns.color_palette("colorblind", 2)))
    for axis, name in zip(axes, names):
        sns.histplot(table[table["teacher"] == name], x="probability", hue="says", palette=colours, multiple="stack", ax=axis,
                     hue_order=list(colours), binwidth=0.05, binrange=(0, 1), legend=False)
        axis.set(xlabel="probability of being selected", ylabel="training samples")
        axis.set_title(name, fontsize=10)
    handles = [Patch(color=colour, alpha=0.75, label=word) for word, colour in colours.items()]
    figure.legend(handles=handles, title="the teacher is", loc="outside right upper", frameon=False)
    return Exhibit("whom", "whom the policy follows", "Training samples by the probability that the teacher is selected there.",
                   figure)


def summed_up(table: pd.DataFrame) -> pd.DataFrame:
    """Mean probability of being selected, by teacher and by whether it is right, with the number of samples and the entropy."""
    means = table.groupby(["teacher", "says"])["probability"].agg(["size", "mean"]).round(3)
    sure = table.groupby("teacher", sort=False)["probability"].agg(lambda p: float(entropy(torch.tensor(p.to_numpy()))))
    return means.join(sure.rename("entropy of its coin").round(3)).rename(
        columns={"size": "training samples", "mean": "mean probability"})


# --- a problem small enough to see whether the policy can learn at all: no student, no text, a second of time ---------

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
        for index in torch.randperm(len(labels), generator=rng).split(32):
            actions = torch.bernoulli(policy.probabilities(state[index]), generator=rng)
            reward = rewards.reward_of_teachers(said.logits[index], actions, labels[index])
            other = before[torch.randint(len(before), (len(index),), generator=rng)]
            policy.update(state[index], actions, other if shuffled else reward)
            before, p = reward, policy.probabilities(state)
            found.append([len(found) + 1, *(float(x) for x in (p[right].mean(), p[~right].mean(), (1 - p).prod(1).mean()))])
    return pd.DataFrame(found, columns=["update", "follows right", "follows wrong", "nobody"])


def planted_figure(seeds: int = 3) -> Exhibit:
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
        axis.set(xlabel="update of the policy", ylim=(0, 1))
        axis.set_title(title, fontsize=10)
    axes[0].set_ylabel("mean probability")
    axes[1].legend(fontsize=8)
    words = "Mean probability of following the teacher that is right on an input, the one that is wrong, and nobody; "
    return Exhibit("planted", "a problem with a known answer", words + f"{seeds} runs and their mean.", drawn)


# --- exercises --------------------------------------------------------------------------------------------------------


def parameters(d: int, classes: int, teachers: int) -> int:
    """Numbers that the agents learn: A and b of Eq. 6, for every teacher."""
    return teachers * (d + (classes + 1) * teachers + 1)


def runs_needed(ratio: float = 2.0, alpha: float = 0.05) -> int:
    """Runs of each of two methods with equal spread and independent runs, until the interval of level 1 - 2 alpha around an
    observed ratio of exactly 1 lies within the factor."""
    n = 2
    while math.sqrt(stats.f.ppf(1 - alpha, n - 1, n - 1)) > ratio:
        n += 1
    return n


def right_update(function) -> bool:
    """Whether function(logit, actions, ce, dl) is the slope of one step on reward 2, [n, K], that samples without a teacher
    have no part in, neither in the mean that rewards count from nor in the slope."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        logit = torch.randn(6, 3, generator=generator)
        actions = torch.bernoulli(torch.full((6, 3), 0.5), generator=generator)
        actions[1], actions[4, 0] = 0.0, 1.0
        ce, dl = torch.rand(6, generator=generator), 2 + torch.rand(6, generator=generator)
        some = (actions.sum(-1, keepdim=True) > 0).float()
        paid = -ce - dl
        wanted = (actions - logit.sigmoid()) * (paid - paid[some[:, 0] > 0].mean()).unsqueeze(-1) * some
        if not torch.allclose(function(logit, actions, ce, dl), wanted, atol=1e-5):
            return False
    return True


def right_expectation(function) -> bool:
    """Whether function(p, rewards) is the expected reward over all 2^K selections. p [K]; rewards: a function of a tuple of
    0s and 1s."""
    def paid(actions) -> float:
        return sum(v * a for v, a in zip((3.0, -1.0, 0.5), actions)) - 2.0 * actions[0] * actions[1]

    return all(math.isclose(float(function(torch.tensor(p), paid)), sum(v * q for v, q in zip((3.0, -1.0, 0.5), p))
                            - 2.0 * p[0] * p[1], abs_tol=1e-5) for p in ((0.5, 0.5), (0.9, 0.2, 0.7)))


exercises = Exercises({"1": lambda answer: answer == parameters(768, 3, 4), "2": right_update,
                       "3": lambda answer: answer == runs_needed(), "4": right_expectation})
