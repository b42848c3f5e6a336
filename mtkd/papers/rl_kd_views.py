"""Looks inside, for RL-KD's notebook: a state, what teachers know that others do not, what rewards pay for, whom a finished
policy follows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mtkd.measure.metrics import agreement
from mtkd.papers import Exhibit
from mtkd.papers.rl_kd_run import Experiment
from mtkd.papers.rl_kd_scores import short_name
from mtkd.rules import losses, rewards
from mtkd.rules.policy import entropy
from mtkd.rules.selection import teacher_losses
from mtkd.train import episodes, teachers
from mtkd.train.representation import represent
from mtkd.train.teachers import Model


def names_of(experiment: Experiment) -> list[str]:
    return [short_name(name) for name in experiment.teachers]


def disputed(experiment: Experiment, repeat: int) -> int:
    """The number of the first training sample on which some teachers are right and some are wrong."""
    right = experiment.said(repeat, "train").argmax(-1) == experiment.labels("train", repeat)[:, None]
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
        right = experiment.said(repeat, split).argmax(-1) == experiment.labels(split, repeat)[:, None]           # [n, K]
        for position, name in enumerate(names_of(experiment)):
            alone = right[:, position] & (right.sum(1) == 1)
            table.append({"split": split, "teacher": name, "accuracy": right[:, position].float().mean().item(),
                          "only this one is right": alone.float().mean().item()})
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
        table.append({"teacher": name, "accuracy": (theirs.argmax(-1) == labels).float().mean(),
                      "entropy": -torch.special.xlogy(p, p).sum(-1).mean(),
                      "agrees with the student": (theirs.argmax(-1) == mine.argmax(-1)).float().mean(),
                      "pre-training": rewards.reward_of_teachers(said, alone, labels).mean(),
                      "reward 1": rewards.reward_1(ce).mean(), "reward 2": rewards.reward_2(ce, dl).mean()})
    return pd.DataFrame([{k: v if isinstance(v, str) else float(v) for k, v in row.items()} for row in table])


def whom(experiment: Experiment, student: Model, repeat: int) -> pd.DataFrame:
    """Whom a finished policy would follow on every training sample. Columns teacher, sample, probability, and whether that
    teacher is right there ("right" or "wrong")."""
    prepared = experiment.prepared_for(repeat)
    _, p = episodes.look(prepared, experiment.teacher_set(repeat), experiment.policy, student)
    right = experiment.said(repeat, "train").argmax(-1) == experiment.labels("train", repeat)[:, None]
    n, names = len(p), names_of(experiment)
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
        axis.set(title=name, xlabel="probability of being selected", ylabel="training samples")
        axis.title.set_fontsize(10)
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
