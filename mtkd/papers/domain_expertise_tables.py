"""The thesis's tables and figures that follow from recall per class, its numbers beside ours; and the names that they print.

Columns are roles: the teacher that stands where the thesis has BERT (RoBERTa, DeBERTa), and the three students. Where there is
no run on a data set, its exhibit shows the stand-in's, named as such.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mtkd.evidence.frame import is_stand_in, points
from mtkd.evidence.paper import Paper

CLASSES, SPAN, THESIS, FINE_TUNED = "classes", "span", "thesis", "fine-tuned only"
STUDENTS = {"expertise": "our approach", "average": "average logits", "random": "baseline (random)"}  # the thesis's three
METHODS = STUDENTS | {"camkd": "CA-MKD", "mixture": "mixture per class", "average+teacher": "average, teacher loss added"}
CONTROLS = {"plain_ce": "plain CE, same compute", "shuffled_teacher": "shuffled teachers",
            "uniform_teacher": "uniform teachers"}
DATA_SETS = {"mind/balanced": "MIND", "emotion": "EMOTION", "tweet_eval/emotion": "Twitter-Emotion",
             "tweet_eval/sentiment": "Twitter-Sentiment", "nbme": "NBME"}
PER_CLASS = {"EMOTION": "table5_2", "MIND": "table5_4", "Twitter-Emotion": "table5_6", "Twitter-Sentiment": "table5_8"}
ROLES = ("BERT", "RoBERTa", "DeBERTa")  # the thesis's teachers, in the order of its tables
PRINTED = {"BERT": "BERT-base-uncased-12", "RoBERTa": "RoBERTa-base-12", "DeBERTa": "DeBERTa-base-12",
           "our approach": "Our Approach", "average logits": "Average Logits", "baseline (random)": "Baseline"}
# Which class a printed label of Table 5.6 must be, by the number of test samples (see the misprints in the data file).
RELABELLED = {"Sadness": "anger", "Joy": "joy", "Anger": "optimism", "Optimism": "sadness"}


# --- names ------------------------------------------------------------------------------------------------------------


def of_thesis(task: str) -> bool:
    """Whether the thesis's claims speak of a task: its own data sets, and the kit's stand-ins for them.

    >>> of_thesis("emotion"), of_thesis("pydocs/topic"), of_thesis("reviews.csv")
    (True, True, False)
    """
    return task in DATA_SETS or is_stand_in(task)


def source(tier: str, task: str) -> str:
    """Where a line of a table comes from, in words.

    >>> source("demo", "pydocs/topic"), source("small", "tweet_eval/emotion")
    ('demo tier: pydocs/topic (stand-in)', 'small tier')
    """
    if task in DATA_SETS:
        return f"{tier} tier"
    return f"{tier} tier: {task}" + (" (stand-in)" if is_stand_in(task) else "")


def roles(names: list[str]) -> dict[str, str]:
    """Which teacher stands where the thesis has BERT, RoBERTa, DeBERTa: by family, the rest by position, others as named.

    >>> roles(["roberta-scratch-2x64", "scratch-2x64", "electra-scratch-2x64"])
    {'BERT': 'scratch-2x64', 'RoBERTa': 'roberta-scratch-2x64', 'DeBERTa': 'electra-scratch-2x64'}
    """
    found, left = {}, []
    for name in names:
        low = name.lower()
        role = next((r for r in ("DeBERTa", "RoBERTa") if r.lower() in low), None)
        role = role or ("BERT" if "bert" in low or low.startswith("scratch") or "minilm" in low else None)
        if role and role not in found:
            found[role] = name
        else:
            left.append(name)
    for role in ROLES:
        if role not in found and left:
            found[role] = left.pop(0)
    return {role: found[role] for role in ROLES if role in found} | {name: name for name in left}


def plain_class(name: str) -> str:
    return "".join(c for c in name.lower().replace("&", "and") if c.isalnum())


def class_of(data_set: str, printed: str) -> str:
    """A printed class label in the form that `plain_class` gives to a task's own: where Table 5.6 has the labels of its
    rows exchanged, the class that the row must be.

    >>> class_of("MIND", "Food & Drink"), class_of("Twitter-Emotion", "Sadness")
    ('foodanddrink', 'anger')
    """
    return plain_class(RELABELLED[printed] if data_set == "Twitter-Emotion" else printed)


def with_printed(data_set: str, name: str) -> str:
    """A task's class as the figures name it: with the label that Table 5.6 prints for it, where that is another one.

    >>> with_printed("Twitter-Emotion", "optimism"), with_printed("Twitter-Emotion", "joy"), with_printed("MIND", "video")
    ('optimism\\n(printed Anger)', 'joy', 'video')
    """
    printed = {plain_class(ours): label for label, ours in RELABELLED.items()}.get(plain_class(name), name)
    same = data_set != "Twitter-Emotion" or plain_class(printed) == plain_class(name)
    return name if same else f"{name}\n(printed {printed})"


def for_data_set(rows: pd.DataFrame, name: str | None) -> pd.DataFrame:
    """The rows on one of the thesis's data sets; where there is no run on it, those on the stand-ins (for NBME: on any span
    task). All rows without a name."""
    real = rows[rows["task"].map(DATA_SETS) == name]
    if name is None or (name == "NBME" and real.empty):
        return rows
    return real if len(real) else rows[rows["task"].map(is_stand_in).astype(bool)]


# --- tables -----------------------------------------------------------------------------------------------------------


def signed(values: pd.Series) -> str:
    """Mean ± sample standard deviation of differences in points, with a sign.

    >>> signed(pd.Series([0.005, 0.01]))
    '+0.75 ± 0.35'
    """
    found = 100 * values.dropna().astype(float)
    return f"{found.mean() + 0.0:+.2f}" + (f" ± {found.std(ddof=1):.2f}" if len(found) > 1 else "")


def in_columns(rows: pd.DataFrame, first: str, cell, printed: Iterable[dict], order: Iterable[str] = ()) -> pd.DataFrame:
    """Our lines, one per value of the column `first` and source, and the thesis's (`printed`), side by side where `first` is
    the same, in `order` where it has it; the thesis's columns in its order, dashes for what is not there. cell: a column's
    values to words; a column without any cell goes."""
    lines: dict[tuple, dict] = {}
    rows = rows.sort_values(["tier", "task"], kind="stable")
    for (name, where, column), group in rows.groupby([first, "source", "column"], sort=False):
        lines.setdefault((name, where), {})[column] = cell(group)
    table = pd.DataFrame([{first: name, "source": where} | line for (name, where), line in lines.items()] + list(printed))
    place = {name: at for at, name in enumerate(dict.fromkeys([*order, *table[first]]))}
    table = table.sort_values(first, key=lambda names: names.map(place), kind="stable")
    known = [first, "source", "printed as", *ROLES]
    last = [*STUDENTS.values(), FINE_TUNED]
    wanted = [*known, *(c for c in table if c not in (*known, *last)), *last]
    used = [c for c in wanted if c in table and table[c].notna().any()]
    return table[used].fillna("-").reset_index(drop=True)


def validation(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame:
    """Table 5.1: validation accuracy of teachers and students, one line per data set and source."""
    printed = [{"data set": name, "source": THESIS} | {column: f"{value:.1f}" for column, row in PRINTED.items()
               if (value := paper.printed("table5_1", name, row)) is not None} for name in PER_CLASS]
    rows = rows.assign(**{"data set": rows["task"].map(DATA_SETS).fillna("-")})
    return in_columns(rows, "data set", lambda group: points(group["validation"]), printed, ["-", *PER_CLASS])


def per_class(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame | None:
    """Recall per class of teachers and students, the thesis's where the classes are its own."""
    name, printed = entry.get("data_set"), []
    if (rows := for_data_set(rows, name)).empty:
        return None
    ours = {plain_class(one): one for one in rows["class"]}
    for row in printed_classes(paper, name) if name else ():
        line = {"class": ours.get(class_of(name, row), row), "source": THESIS}
        line |= {"printed as": row} if name == "Twitter-Emotion" else {}
        printed.append(line | {column: f"{value:.1f}" for column, label in PRINTED.items()
                               if (value := paper.printed(PER_CLASS[name], row, label)) is not None})
    return in_columns(rows, "class", lambda group: points(group["score"]), printed)


def medians(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame | None:
    """Median over classes of student minus teacher, in points: a line per student and source, a column per teacher."""
    name = entry.get("data_set")
    rows = for_data_set(rows, name)
    rows = rows[(rows["variant"] == "") & rows["kind"].isin(["student", "undistilled"])]
    names = rows["method"].map(STUDENTS).where(rows["kind"] == "student", FINE_TUNED)
    rows = rows.assign(student=names).dropna(subset="student")
    if rows.empty:
        return None
    printed = [{"student": student, "source": THESIS}
               | {role: f"{value:+.2f}" for role in ROLES
                  if (value := paper.printed(entry["printed"], PRINTED[student], PRINTED[role])) is not None}
               for student in STUDENTS.values()] if name else []
    return in_columns(rows, "student", lambda group: signed(group["score"]), printed, [*STUDENTS.values(), FINE_TUNED])


# --- figures ----------------------------------------------------------------------------------------------------------


def printed_classes(paper: Paper, data_set: str) -> list[str]:
    """The classes of a data set as its per-class table prints them, in that order."""
    return list(dict.fromkeys(n["row"] for n in paper.published if n["exhibit"] == PER_CLASS[data_set]))


def published_differences(paper: Paper, data_set: str) -> pd.DataFrame:
    """The thesis's own per-class differences (figures 5.1 to 5.8), computed from its table of that data set.

    Columns role (BERT, RoBERTa, DeBERTa), method, class, difference in points.
    """
    table, rows = PER_CLASS[data_set], []
    for name in printed_classes(paper, data_set):
        for role in ROLES:
            teacher = paper.printed(table, name, PRINTED[role])
            for method, student in STUDENTS.items() if teacher is not None else ():
                difference = round(paper.printed(table, name, PRINTED[student]) - teacher, 2)
                rows.append({"role": role, "method": method, "class": name, "difference": difference})
    return pd.DataFrame(rows)


def differences(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> Figure | None:
    """Figures 5.1 to 5.8: per class the difference of the three students from the teacher in a role, a panel per tier and task
    and one of the thesis's numbers."""
    name, role, panels = entry["data_set"], entry["role"], []
    rows = for_data_set(rows, name)
    rows = rows[(rows["column"] == role) & (rows["variant"] == "")]
    rows = rows.assign(student=rows["method"].map(STUDENTS), difference=100 * rows["score"]).dropna(subset="student")
    for (_, task, where), group in rows.groupby(["tier", "task", "source"], sort=True):
        repeats = group["repeat"].nunique()
        title = f"{where}{f': {task}' if task in DATA_SETS else ''}, difference from {group['teacher'].iloc[0]}, "
        panels.append((title + f"{repeats} repeat{'s' if repeats > 1 else ''}",
                       group.assign(**{"class": [with_printed(DATA_SETS.get(task, ""), one) for one in group["class"]]})))
    if not panels:
        return None
    theirs = published_differences(paper, name)
    theirs = theirs[theirs["role"] == role].assign(student=theirs["method"].map(STUDENTS))
    if name == "Twitter-Emotion":
        theirs["class"] = [with_printed(name, class_of(name, printed)) for printed in theirs["class"]]
    return bars([*panels, (f"the thesis: {name}, difference from {role}", theirs)])


def bars(panels: list[tuple[str, pd.DataFrame]]) -> Figure:
    """One row of bars per panel (title, frame with class, student, difference): classes side by side, a bar per student, ± one
    standard deviation over repeats."""
    colours = dict(zip(STUDENTS.values(), sns.color_palette("colorblind", 3)))
    widest = max(data["class"].nunique() for _, data in panels)
    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=(max(6.4, 1.15 * widest + 1.5), 2.9 * len(panels) + 0.5), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axis, (title, data) in zip(axes, panels):
        sns.barplot(data, x="class", y="difference", hue="student", hue_order=list(colours), palette=colours,
                    order=list(dict.fromkeys(data["class"])), errorbar="sd", err_kws={"linewidth": 1.2, "color": "0.25"},
                    capsize=0.15, legend=False, ax=axis)
        axis.axhline(0, color="0.2", linewidth=1)
        axis.set(xlabel="", ylabel="points above the teacher")
        axis.set_title(title, fontsize=10)
    handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


DRAWS = {"validation": validation, "per_class": per_class, "medians": medians, "differences": differences}
