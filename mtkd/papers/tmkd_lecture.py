"""What only notebooks/tmkd.ipynb looks at: data and models of the experiment, how sure teachers are of texts that they have
seen and of others, what the heads learn, and the checks of the exercises."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mtkd.evidence.exhibits import Exhibit
from mtkd.lecture import Exercises
from mtkd.models import heads
from mtkd.models.heads import HeadsNetwork
from mtkd.papers.tmkd_study import Experiment, Student
from mtkd.rules import losses
from mtkd.tokens.batches import iterate
from mtkd.train import loop as train
from mtkd.train import teachers
from mtkd.train.answers import answers

# --- a look inside ----------------------------------------------------------------------------------------------------

BATCH = 256


def pool_logits(experiment: Experiment, repeat: int, pool: str) -> np.ndarray:
    """What every teacher of the target task says of a pool, [T, n, C], from the shards in the store."""
    found = []
    for model in experiment.teacher_set(repeat):
        files = teachers.score(experiment.prepared_for(repeat), model, f"pool-{experiment.pools[pool]}").files
        found.append(np.concatenate([np.load(file) for file in files]))
    return np.stack(found)


def split_logits(experiment: Experiment, repeat: int, split: str) -> np.ndarray:
    """What every teacher of the target task says of a split, [T, n, C]."""
    models = experiment.teacher_set(repeat)
    return np.stack([answers(experiment.prepared_for(repeat), model, split).numpy() for model in models])


def rates_of(experiment: Experiment, repeat: int) -> list[float]:
    """The learning rate that each teacher of the target task was trained at; 0 for one that is finished."""
    return [model.info.get("lr", 0.0) for model in experiment.teacher_set(repeat)]


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


def every_head(experiment: Experiment, plan: Student, split: str = "test") -> torch.Tensor:
    """Logits of the golden head and of all soft heads of a student, [n, 1 + N, C]."""
    prepared, device = experiment.reading(plan.task, plan.replicate, plan.student), train.device_at_hand()
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


def head_scores(experiment: Experiment, plan: Student) -> pd.DataFrame:
    """Accuracy on test of every head alone and of their vote (Eq. 6), the teacher of each soft head beside it."""
    labels = torch.from_numpy(experiment.reading(plan.task, plan.replicate, plan.student).data("test").labels)
    every = every_head(experiment, plan)
    accuracy = lambda logits: (logits.argmax(-1) == labels).float().mean().item()  # noqa: E731
    models = experiment.teacher_set(plan.replicate, plan.task)
    rows = [{"head": "golden", "accuracy": accuracy(every[:, 0])}]
    rows += [{"head": f"soft {i}", "accuracy": accuracy(every[:, 1 + i]), "its teacher": model.metrics["test"]["accuracy"]}
             for i, model in enumerate(models)]
    rows.append({"head": "vote of all (Eq. 6)", "accuracy": accuracy(every.softmax(-1).mean(1))})
    return pd.DataFrame(rows).set_index("head")


def head_distances(experiment: Experiment, plan: Student) -> pd.DataFrame:
    """Mean squared distance of the logits of every soft head (rows) to those of every teacher (columns), on test: if heads
    learn their own teachers, the diagonal is the smallest of each column."""
    soft = every_head(experiment, plan)[:, 1:]                                                              # [n, N, C]
    models = experiment.teacher_set(plan.replicate, plan.task)
    each = [answers(experiment.reads(plan), m, "test") for m in models]
    said = torch.stack(each, 1)                                                                              # [n, N, C]
    distance = (soft[:, :, None] - said[:, None]).pow(2).mean((0, 3))
    names = [f"teacher {i}" for i in range(len(models))]
    return pd.DataFrame(distance.numpy(), [f"soft head {i}" for i in range(len(models))], names)


# --- exercises --------------------------------------------------------------------------------------------------------

GOLD, SOFT = (0.0, 1.0), ((2.0, 0.0), (0.0, 0.0))  # logits of a golden head and two soft ones


def combined_loss(golden: Tensor, soft: Tensor, labels: Tensor, teachers: Tensor, alpha: float) -> Tensor:
    """Eq. 5 over a batch, head i against teacher i: [B, C], [B, N, C], [B], [B, N, C] -> one number."""
    gold = losses.cross_entropy(golden, labels)                              # Eq. 2, [B]
    matched = losses.squared_error(soft, teachers).mean(-1)                  # Eq. 4, [B, N] -> [B]
    return ((1 - alpha) * gold + alpha * matched).mean()


def right_loss(function) -> bool:
    """Whether function(golden, soft, labels, teachers, alpha) is Eq. 5 with a teacher of its own for every head."""
    generator = torch.Generator().manual_seed(0)
    for alpha in (0.0, 0.9, 1.0):
        golden, soft, teachers = (2 * torch.randn(*shape, generator=generator) for shape in ((6, 4), (6, 3, 4), (6, 3, 4)))
        labels = torch.tensor([0, 1, 2, 3, 0, 1])
        wanted = combined_loss(golden, soft, labels, teachers, alpha)
        if not torch.allclose(wanted, torch.as_tensor(function(golden, soft, labels, teachers, alpha)), atol=1e-5):
            return False
    return True


def vote_of_example() -> float:
    """Probability of class 0 after Eq. 6 for GOLD and SOFT."""
    return heads.vote(torch.tensor([GOLD]), torch.tensor([SOFT])).exp()[0, 0].item()


def trainings(tasks: int, teachers: int) -> int:
    """Distillations behind the rows of the 3-layer student in Tables 4 to 7: TMKD at two pools, TKD with one teacher at two
    pools and with the mean at one, each with a first stage that all tasks share; 1-o-1, 1avg-o-1, MKD and m-o-m without."""
    with_pool, without = 5, 3
    ensemble = teachers - 1  # 1-o-1 from the best teacher is one of its members already
    return with_pool + tasks * (with_pool + without + ensemble)


def more_parameters(width: int, classes: int, teachers: int) -> int:
    """What N soft heads add to a student: a matrix and a bias each."""
    return teachers * (width * classes + classes)


exercises = Exercises({
    "1": lambda answer: abs(answer - vote_of_example()) < 5e-4,
    "2": right_loss,
    "3": lambda answer: answer == trainings(5, 3),
    "4": lambda function: all(function(*case) == more_parameters(*case) for case in ((768, 2, 3), (768, 3, 3), (16, 8, 5))),
})
