"""Looks inside, for MT-BERT's notebook: how two tokenisers are aligned, where the pooler looks, whom Eq. 2 listens to."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure

from mtkd.data.tasks import Split
from mtkd.papers import Exhibit
from mtkd.papers.mt_bert_scores import TEACHERS, short_name
from mtkd.papers.mt_bert_study import Experiment
from mtkd.rules.selection import inverse_loss, teacher_losses
from mtkd.tokens import align
from mtkd.train import teachers
from mtkd.train.answers import is_finished
from mtkd.train.prepare import Prepared
from mtkd.train.teachers import Model


def one(text: str) -> Split:
    """A text as a split of its own."""
    return Split(["a text"], [(text,)], np.array([-1]))


def pieces(prepared: Prepared, text: str) -> list[str]:
    """The tokens that a tokeniser cuts a text into, special ones included."""
    ids = prepared.tokenizer(text, truncation=True, max_length=prepared.max_length)["input_ids"]
    return prepared.tokenizer.convert_ids_to_tokens(ids)


def alignment(student: Prepared, teacher: Prepared, text: str) -> pd.DataFrame:
    """The averaging matrix A of one text (mtkd/tokens/align.py): student tokens by teacher tokens, rows summing to 1 or 0."""
    places = [align.places(one(text), p.tokenizer, p.max_length) for p in (student, teacher)]
    return pd.DataFrame(align.averaging_matrix(*places).toarray(), pieces(student, text), pieces(teacher, text))


def alignment_figure(experiment: Experiment, text: str) -> Exhibit:
    """A heatmap of A for every teacher whose tokeniser differs from the student's."""
    own = experiment.prepared
    others = [(name, own.of(name)) for name in experiment.teachers if not is_finished(name)]
    tables = [(short_name(name), alignment(own, other, text)) for name, other in others if other is not own]
    if not tables:
        return Exhibit("alignment", "tokens that overlap in the text", "All teachers cut texts into the student's tokens.")
    rows, widths = len(tables[0][1]), [table.shape[1] for _, table in tables]
    figure = Figure(figsize=(0.36 * sum(widths) + 1.6, 0.27 * rows + 1.6), layout="constrained")
    axes = figure.subplots(1, len(widths), squeeze=False, gridspec_kw={"width_ratios": widths})[0]
    for number, (axis, (name, table)) in enumerate(zip(axes, tables)):
        sns.heatmap(table, vmin=0, vmax=1, cmap="Blues", cbar=False, linewidths=0.5, linecolor="0.9", ax=axis,
                    annot=table.map(lambda x: f"{x:.2g}" if x else ""), fmt="", xticklabels=True,
                    yticklabels=number == 0, annot_kws={"fontsize": 8})
        axis.set(xlabel=f"tokens of {name}", ylabel="tokens of the student" if number == 0 else "")
        axis.tick_params(axis="x", rotation=60)
        axis.tick_params(axis="y", rotation=0)
    words = "Rows: the student's tokens, columns: a teacher's; numbers: how much each counts in the mean that the student's "
    words += "token is compared with. A row without any is a token that has no counterpart and does not count."
    return Exhibit("alignment", "tokens that overlap in the text", words, figure)


def looked_at(experiment: Experiment, model: Model, text: str) -> pd.Series:
    """The pooler's weight on every token of a text, by one finished teacher or student of the first repeat; they sum to 1.
    Empty for a model without a pooler of the kit's own (a teacher made elsewhere)."""
    if not (model.folder / "head.json").is_file():
        return pd.Series(dtype=float)
    prepared = experiment.prepared.of(model)
    network = model.network().eval()
    inputs = prepared.tokenizer(text, truncation=True, max_length=prepared.max_length, return_tensors="pt")
    with torch.inference_mode():
        states = network(dict(inputs), frozenset({"hidden"})).hidden[-1]
        states = states if network.adapt is None else network.adapt(states)
        weights = network.pooler.weights(states, inputs["attention_mask"])[0]
    return pd.Series(weights.tolist(), pieces(prepared, text))


def sample_weights(experiment: Experiment, repeat: int, split: str = "train") -> pd.DataFrame:
    """Eq. 2's weight 1 / (1 + CE) of every teacher on every sample, and whether that teacher is right there.

    Columns teacher, sample, weight, says ("right" or "wrong").
    """
    models = experiment.teacher_set(repeat, experiment.everyone)
    prepared = experiment.prepared_for(repeat)
    labels = torch.from_numpy(prepared.data(split).labels)
    logits = torch.stack([teachers.logits_of(prepared, model, split) for model in models.values()], 1)
    weights, right = inverse_loss(teacher_losses(logits, labels)), logits.argmax(-1) == labels[:, None]
    names = [short_name(experiment.teachers[p]) for p in models]
    return pd.DataFrame({
        "teacher": np.tile(names, len(labels)), "sample": np.repeat(np.arange(len(labels)), len(names)),
        "weight": weights.flatten().numpy(), "says": np.where(right.flatten().numpy(), "right", "wrong")})


def headroom(rows: list[dict]) -> pd.DataFrame:
    """What every teacher has above the student that no teacher had a part in (the best of its depths), in points over the
    repeats that both were run in. A teacher that has next to nothing has little to teach. Empty without such students."""
    frame = pd.DataFrame(rows)
    untaught = frame[frame["kind"] == "undistilled"].groupby("repeat")["score"].max()
    own = frame[frame["kind"].isin(["teacher", "ensemble"]) & frame["repeat"].isin(untaught.index)]
    if own.empty:
        return pd.DataFrame()
    names = ["mean of the teachers' logits" if kind == "ensemble" else short_name(teachers[0])
             for kind, teachers in zip(own["kind"], own["teachers"])]
    above = 100 * (own["score"] - own["repeat"].map(untaught))
    grouped = own.assign(teacher=names, fine_tuned=own["method"].map(TEACHERS), above=above).groupby(
        ["fine_tuned", "teacher"], sort=False)["above"]
    return grouped.agg(["mean", "min", "max", "size"]).round(1).rename(
        columns={"mean": "points above the undistilled student", "min": "lowest", "max": "highest", "size": "repeats"})


def sizes_of(records: list[dict]) -> pd.DataFrame:
    """What runs were made with, from their records: samples, epochs and repeats, one line per tier, task and size."""
    lines: dict[tuple, set] = {}
    for record in records:
        p = record["parameters"]
        samples = " / ".join(str(row["samples"]) for row in record["data"])
        key = (record["tier"], p["task"], samples, f"{p['teacher_epochs']} / {p['student_epochs']}", len(p["teachers"]))
        lines.setdefault(key, set()).update(row["repeat"] for row in record["rows"])
    columns = ["tier", "task", "train / validation / test", "epochs of teachers / students", "teachers", "repeats"]
    return pd.DataFrame([(*key, len(repeats)) for key, repeats in sorted(lines.items())], columns=columns)


def weights_figure(table: pd.DataFrame) -> Exhibit:
    """How the weights are spread, one panel per teacher, right and wrong predictions in two colours."""
    names = list(dict.fromkeys(table["teacher"]))
    figure = Figure(figsize=(3.3 * len(names) + 0.6, 2.7), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    colours = dict(zip(("right", "wrong"), sns.color_palette("colorblind", 2)))
    for number, (axis, name) in enumerate(zip(axes, names)):
        sns.histplot(table[table["teacher"] == name], x="weight", hue="says", palette=colours, multiple="stack", ax=axis,
                     hue_order=list(colours), binwidth=0.05, binrange=(0, 1), legend=number == 0)
        axis.set(title=name, xlabel="weight 1 / (1 + CE)", ylabel="training samples")
        axis.title.set_fontsize(10)
    if axes[0].get_legend():
        axes[0].get_legend().set_title("the teacher is")
    words = "Training samples by the weight that Eq. 2 gives the teacher there."
    return Exhibit("weights", "whom Eq. 2 listens to", words, figure)
