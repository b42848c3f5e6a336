"""Looks inside, for TMKD's notebook: how sure teachers are of texts they have seen and of others, and what the heads learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure

from mtkd.models.heads import HeadsNetwork
from mtkd.papers import Exhibit
from mtkd.papers.tmkd_plans import Plan
from mtkd.papers.tmkd_run import Experiment
from mtkd.tokens.batches import iterate
from mtkd.tokens.streamed import mapped
from mtkd.train import loop as train
from mtkd.train import teachers

BATCH = 256


def pool_logits(experiment: Experiment, repeat: int, pool: str) -> np.ndarray:
    """What every teacher of the target task says of a pool, [T, n, C], from the shards in the store."""
    found = []
    for model in experiment.teacher_set(experiment.task, repeat):
        files = teachers.score(experiment.prepared_for(repeat), model, f"pool-{experiment.pools[pool]}").files
        parts = [mapped(file).column("logits").values.to_numpy() for file in files]
        found.append(np.concatenate(parts).reshape(-1, experiment.loaded(experiment.task).outputs))
    return np.stack(found)


def split_logits(experiment: Experiment, repeat: int, split: str) -> np.ndarray:
    """What every teacher of the target task says of a split, [T, n, C]."""
    models = experiment.teacher_set(experiment.task, repeat)
    return np.stack([experiment.logits(experiment.task, repeat, model, split) for model in models])


def rates_of(experiment: Experiment, repeat: int) -> list[float]:
    """The learning rate that each teacher of the target task was trained at; 0 for one that is finished."""
    return [model.info.get("lr", 0.0) for model in experiment.teacher_set(experiment.task, repeat)]


def sureness(experiment: Experiment, repeat: int) -> pd.DataFrame:
    """The largest probability that each teacher gives, on the texts that it was trained on, on test and, where there is a pool,
    on the smallest one's.

    Columns teacher (its learning rate), texts, probability, right (missing where there is no label).
    """
    splits, tables = experiment.drawn(repeat).splits, []
    for texts, logits, labels in (
        ("seen in training", split_logits(experiment, repeat, "train"), splits["train"].labels),
        ("test", split_logits(experiment, repeat, "test"), splits["test"].labels),
        *(("pool", pool_logits(experiment, repeat, pool), None) for pool in list(experiment.pools)[:1]),
    ):
        sure = torch.from_numpy(logits).softmax(-1).amax(-1).numpy()                                        # [T, n]
        right = np.full(sure.shape, np.nan) if labels is None else (logits.argmax(-1) == labels).astype(float)
        tables += [pd.DataFrame({"teacher": f"learning rate {rate:g}", "texts": texts, "probability": values, "right": good})
                   for rate, values, good in zip(rates_of(experiment, repeat), sure, right)]
    return pd.concat(tables, ignore_index=True)


def sureness_figure(table: pd.DataFrame) -> Exhibit:
    """One panel per teacher: how its largest probabilities are spread, on the texts it was trained on and on the pool's, or the
    test's where there is no pool."""
    if (table["texts"] == "pool").any():
        table = table[table["texts"] != "test"]
    names = list(dict.fromkeys(table["teacher"]))
    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=(3.3 * len(names) + 0.6, 3.0), layout="constrained")
        axes = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    order = list(dict.fromkeys(table["texts"]))
    colours = dict(zip(order, sns.color_palette("colorblind", 2)))
    for axis, name in zip(axes, names):
        part = table[table["teacher"] == name]
        for texts in order:
            axis.hist(part.loc[part["texts"] == texts, "probability"], bins=np.linspace(0, 1, 21), density=True, alpha=0.6,
                      color=colours[texts], label=texts)
        axis.set(xlabel="largest probability", ylabel="density" if name == names[0] else "")
        axis.set_title(name, fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    words = "How sure each teacher is of texts that it was trained on, and of texts that it has never seen."
    return Exhibit("sureness", "teachers on texts that they were trained on and on others", words, figure)


def every_head(experiment: Experiment, plan: Plan, split: str = "test") -> torch.Tensor:
    """Logits of the golden head and of all soft heads of a student, [n, 1 + N, C]."""
    prepared, device = experiment.prepared(plan.task, plan.repeat, plan.student), train.device_at_hand()
    network = experiment.make(plan).network().to(device).eval()
    if not isinstance(network, HeadsNetwork):
        raise ValueError("a student that was not distilled has no soft heads")
    data, found = prepared.data(split), None
    with torch.inference_mode():
        for batch in iterate(data, BATCH, None, 0, device):
            out = network(batch.inputs)
            every = torch.cat([out.logits.unsqueeze(1), out.heads], 1).float().cpu()
            found = torch.empty(len(data), *every.shape[1:]) if found is None else found
            found[torch.from_numpy(batch.rows)] = every
    return found


def head_scores(experiment: Experiment, plan: Plan) -> pd.DataFrame:
    """Accuracy on test of every head alone and of their vote (Eq. 6), the teacher of each soft head beside it."""
    labels = torch.from_numpy(experiment.prepared(plan.task, plan.repeat, plan.student).data("test").labels)
    every = every_head(experiment, plan)
    accuracy = lambda logits: (logits.argmax(-1) == labels).float().mean().item()  # noqa: E731
    models = experiment.teacher_set(plan.task, plan.repeat)
    rows = [{"head": "golden", "accuracy": accuracy(every[:, 0])}]
    rows += [{"head": f"soft {i}", "accuracy": accuracy(every[:, 1 + i]), "its teacher": model.metrics["test"]["accuracy"]}
             for i, model in enumerate(models)]
    rows.append({"head": "vote of all (Eq. 6)", "accuracy": accuracy(every.softmax(-1).mean(1))})
    return pd.DataFrame(rows).set_index("head")


def head_distances(experiment: Experiment, plan: Plan) -> pd.DataFrame:
    """Mean squared distance of the logits of every soft head (rows) to those of every teacher (columns), on test: if heads
    learn their own teachers, the diagonal is the smallest of each column."""
    soft = every_head(experiment, plan)[:, 1:]                                                              # [n, N, C]
    models = experiment.teacher_set(plan.task, plan.repeat)
    each = [torch.from_numpy(experiment.logits(plan.task, plan.repeat, m, "test")) for m in models]
    said = torch.stack(each, 1)                                                                              # [n, N, C]
    distance = (soft[:, :, None] - said[:, None]).pow(2).mean((0, 3))
    names = [f"teacher {i}" for i in range(len(models))]
    return pd.DataFrame(distance.numpy(), [f"soft head {i}" for i in range(len(models))], names)
