"""What only notebooks/domain_expertise.ipynb looks at: the rule at work (who is the expert of what, who is followed on which
training samples, and when), pictures of it, and the checks of the exercises.

Everything is read from finished artifacts: what the expertise student stored about its teachers, and the teachers' own
logits on the training split. Nothing is trained here.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mtkd.lecture import Exercises
from mtkd.papers.domain_expertise_study import DISTILLED, Experiment
from mtkd.rules import experts
from mtkd.store.artifacts import tensors_load
from mtkd.tokens import spans
from mtkd.tokens.batches import plan
from mtkd.train import teachers
from mtkd.train.answers import answers

ONE, SEVERAL, NONE = "one expert", "several experts", "no expert"


def rule_of(experiment: Experiment, repeat: int) -> dict[str, torch.Tensor]:
    """What the expertise student of a repeat learned: recalls [T, C], accuracy [T], best [C], overall."""
    return tensors_load(experiment.make(experiment.own(repeat)).folder / "selection-1.safetensors")


def experts_table(experiment: Experiment) -> pd.DataFrame:
    """The expert of every class and the best overall, a line per repeat."""
    names, rows = experiment.teacher_names, []
    for repeat in experiment.repeats:
        rule = rule_of(experiment, repeat)
        found = {c: names[int(t)] for c, t in zip(experiment.loaded.classes, rule["best"])}
        rows.append({"repeat": repeat} | found | {"best overall": names[int(rule["overall"])]})
    return pd.DataFrame(rows)


def followed(experiment: Experiment, repeat: int, split: str = "train") -> pd.DataFrame:
    """One line per sample of a split: its class, what happened (one, several or no expert), and who is followed."""
    rule, names = rule_of(experiment, repeat), experiment.teacher_names
    prepared = experiment.prepared_for(repeat)
    said = torch.stack([teachers.logits_of(prepared, m, split) for m in experiment.teacher_set(repeat)], dim=1)
    predictions = said.argmax(-1)                                                            # [n, T]
    weights = experts.choose(predictions, rule["best"], rule["accuracy"], experiment.several, experiment.none)
    matched = (rule["best"][predictions] == torch.arange(len(names))).sum(-1)
    case = np.array([NONE, ONE, SEVERAL])[matched.clamp(max=2).numpy()]
    labels = experiment.drawn(repeat).splits[split].labels
    frame = pd.DataFrame(weights.numpy(), columns=names)
    return frame.assign(**{"class": np.array(experiment.loaded.classes)[labels], "case": case,
                           "right": (predictions == torch.from_numpy(labels)[:, None]).float().mul(weights).sum(-1).numpy()})


def shares_by_class(frame: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Share of each class's samples on which each teacher is followed; rows sum to 1."""
    return frame.groupby("class", sort=True)[names].mean()


def cases_table(experiment: Experiment) -> pd.DataFrame:
    """How often one, several or no expert spoke up, and how often the one followed was right; a line per repeat and split."""
    rows = []
    for repeat in experiment.repeats:
        for split in ("train", "validation"):
            frame = followed(experiment, repeat, split)
            share = frame["case"].value_counts(normalize=True)
            rows.append({"repeat": repeat, "split": split} | {c: float(share.get(c, 0.0)) for c in (ONE, SEVERAL, NONE)}
                        | {"followed teacher is right": float(frame["right"].mean())})
    return pd.DataFrame(rows)


def shares_over_steps(experiment: Experiment, repeat: int, window: int = 9) -> pd.DataFrame:
    """Who is followed at each step of the distillation: shares of the batch, a running mean over `window` steps.

    The batches are those of the training: the loop draws them from the student's seed, and so does this.
    """
    frame, names = followed(experiment, repeat), experiment.teacher_names
    weights, data = frame[names].to_numpy(), experiment.prepared_for(repeat).data("train")
    rng, opt = np.random.default_rng(experiment.seed_of(repeat, DISTILLED)), experiment.optimisation("distil")
    steps = [weights[index].mean(0) for _ in range(opt.epochs) for index in plan(data, opt.batch_size, rng)]
    shares = pd.DataFrame(steps, columns=names)
    return shares.rolling(window, center=True, min_periods=1).mean()


def marked(experiment: Experiment, repeat: int, sample: int = 0) -> pd.DataFrame:
    """What each teacher and the plain student mark in one test passage of a span task, and in how many tokens they read it."""
    split = experiment.loaded.splits["test"]
    question, passage = split.inputs[sample]
    gold = " / ".join(passage[a:b] for a, b in split.spans[sample])
    rows = [{"who": "the answer", "tokens": "", "marks": gold}]
    models = dict(zip(experiment.teacher_names, experiment.teacher_set(repeat)))
    for name, model in (models | {experiment.student: experiment.make(experiment.own(repeat)).before}).items():
        where = experiment.prepared_for(repeat).of(model).places("test")
        part = slice(where.offsets[sample], where.offsets[sample + 1])
        mine = where.role[part] == 1
        inside = answers(experiment.prepared_for(repeat), model, "test")[part].argmax(-1).numpy()[mine] == 1
        found = spans.predicted_spans(inside, where.starts[part][mine], where.ends[part][mine])
        rows.append({"who": name, "tokens": str(mine.sum()), "marks": " / ".join(passage[a:b] for a, b in found)})
    return pd.DataFrame(rows).rename(columns={"marks": f"marks, asked for: {question}"})


# --- pictures ---------------------------------------------------------------------------------------------------------


def expertise_map(recalls: np.ndarray, names: list[str], classes: list[str], best: list[int], title: str = "") -> Figure:
    """Recall of every teacher on every class, [T, C], as a heat map; the expert of each class is framed."""
    figure = Figure(figsize=(max(5.6, 0.95 * len(classes) + 2.6), 0.55 * len(names) + 1.5), layout="constrained")
    axis = figure.subplots()
    shown = 100 * np.asarray(recalls, dtype=float)
    sns.heatmap(shown, annot=True, fmt=".0f", cmap="viridis", ax=axis, xticklabels=classes, yticklabels=names,
                vmin=10 * np.floor(np.nanmin(shown) / 10), vmax=100, cbar_kws={"label": "recall, per cent"})
    for column, row in enumerate(best):
        axis.add_patch(Rectangle((column + 0.04, row + 0.04), 0.92, 0.92, fill=False, edgecolor="crimson", linewidth=2.5))
    axis.set_title(title, fontsize=10)
    axis.tick_params(axis="y", rotation=0)
    axis.tick_params(axis="x", rotation=30)
    for label in axis.get_xticklabels():
        label.set_horizontalalignment("right")
    return figure


def followed_bars(shares: pd.DataFrame, title: str = "") -> Figure:
    """Who is followed on the samples of each class, stacked. shares: index class, a column per teacher, rows sum to 1."""
    figure = Figure(figsize=(7.6, 0.38 * len(shares) + 1.7), layout="constrained")
    with sns.axes_style("whitegrid"):
        axis = figure.subplots()
    colours = dict(zip(shares.columns, sns.color_palette("colorblind", len(shares.columns))))
    (100 * shares[::-1]).plot.barh(stacked=True, ax=axis, color=colours, width=0.8)
    axis.set(xlabel="share of the class's training samples, per cent", ylabel="", xlim=(0, 100))
    axis.set_title(title, fontsize=10)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=len(shares.columns), frameon=False, fontsize=9)
    axis.grid(visible=False, axis="y")
    return figure


def followed_over_steps(shares: pd.DataFrame, title: str = "") -> Figure:
    """Who is followed at each step of training: a line per teacher. shares: index step, a column per teacher."""
    figure = Figure(figsize=(7.6, 2.9), layout="constrained")
    with sns.axes_style("whitegrid"):
        axis = figure.subplots()
    colours = sns.color_palette("colorblind", len(shares.columns))
    for colour, name in zip(colours, shares.columns):
        axis.plot(shares.index, 100 * shares[name], color=colour, label=name, linewidth=1.2)
    axis.set(xlabel="step", ylabel="share of the batch, per cent", ylim=(0, 100), xlim=(shares.index.min(), shares.index.max()))
    axis.set_title(title, fontsize=10)
    figure.legend(loc="outside lower center", ncols=len(shares.columns), frameon=False, fontsize=9)
    return figure


# --- exercises --------------------------------------------------------------------------------------------------------

# The worked example of exercise 1: three classes, three teachers; teacher 2 is the best overall.
BEST, ACCURACY = torch.tensor([0, 1, 1]), torch.tensor([0.70, 0.75, 0.80])
PREDICTIONS = torch.tensor([[0, 0, 2], [0, 1, 2], [1, 2, 0], [2, 0, 1]])   # four samples, what each teacher predicts
COUNTS = {"anger": 558, "joy": 358, "optimism": 123, "sadness": 382}       # TweetEval emotion, official test split


def followed_in_example() -> list[int]:
    """Whom the thesis's rule follows on the four samples of exercise 1."""
    return experts.choose(PREDICTIONS, BEST, ACCURACY).argmax(-1).tolist()


def printable(value: float, samples: int) -> bool:
    """Whether value per cent, with one decimal, can be k of `samples`, rounded or cut off.

    >>> printable(17.1, 123), printable(17.1, 558)
    (True, False)
    """
    return any(abs(value - shown) < 1e-9 for k in range(samples + 1)
               for shown in (round(100 * k / samples, 1), math.floor(1000 * k / samples) / 10))


def follows_the_expert(function) -> bool:
    """Whether function(predictions [n, T], best [C], accuracy [T]) gives the teacher to follow [n] as 4.7 has it.

    Drawn at random, so that every case comes up: one expert, several (best overall, even if none of them), none.
    """
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        teachers, classes = 4, 5
        predictions = torch.randint(classes, (50, teachers), generator=generator)
        best = torch.randint(teachers, (classes,), generator=generator)
        accuracy = torch.rand(teachers, generator=generator)
        right = experts.choose(predictions, best, accuracy).argmax(-1)
        if torch.as_tensor(function(predictions, best, accuracy)).tolist() != right.tolist():
            return False
    return True


def weighs_by_recall(function) -> bool:
    """Whether function(recalls [T, C], predictions [n]) gives weights [n, T], in proportion to recall on that class."""
    recalls = torch.tensor([[0.9, 0.2, 0.5], [0.3, 0.6, 0.5]])
    w = function(recalls, torch.tensor([0, 1, 2, 0]))
    wanted = torch.tensor([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5], [0.75, 0.25]])
    return bool(w.shape == (4, 2) and torch.allclose(w.float(), wanted, atol=1e-4))


exercises = Exercises({
    "1": lambda answer: list(answer) == followed_in_example(),
    "2": follows_the_expert,
    "3": lambda answer: str(answer).strip().lower() == "optimism",
    "4": weighs_by_recall,
})
