"""Looking at the rule at work: who is the expert of what, who is followed on which training samples, and when.

Everything is read from finished artifacts: what the expertise student stored about its teachers, and the teachers' own
logits on the training split. Nothing is trained here.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from mtkd.data import spans
from mtkd.papers.domain_expertise_plans import Variant
from mtkd.papers.domain_expertise_run import DISTILLED, Experiment
from mtkd.rules import experts
from mtkd.store.artifacts import tensors_load
from mtkd.tokens.batches import plan
from mtkd.train import teachers

ONE, SEVERAL, NONE = "one expert", "several experts", "no expert"
MAIN = Variant("expertise")


def rule_of(experiment: Experiment, repeat: int) -> dict[str, torch.Tensor]:
    """What the expertise student of a repeat learned: recalls [T, C], accuracy [T], best [C], overall."""
    return tensors_load(experiment.distill(repeat, MAIN).folder / "selection-1.safetensors")


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
    rng, opt = np.random.default_rng(experiment.seed_of(repeat, DISTILLED)), experiment.distil_optimisation
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
    for name, model in (models | {experiment.student: experiment.finetuned_student(repeat)}).items():
        where = experiment.prepared_for(repeat).of(model).places("test")
        part = slice(where.offsets[sample], where.offsets[sample + 1])
        mine = where.role[part] == 1
        inside = experiment.logits(model, "test", experiment.prepared_for(repeat))[part].argmax(-1).numpy()[mine] == 1
        found = spans.predicted_spans(inside, where.starts[part][mine], where.ends[part][mine])
        rows.append({"who": name, "tokens": str(mine.sum()), "marks": " / ".join(passage[a:b] for a, b in found)})
    return pd.DataFrame(rows).rename(columns={"marks": f"marks, asked for: {question}"})
