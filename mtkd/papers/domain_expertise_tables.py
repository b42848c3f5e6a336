"""The thesis's tables and figures, its numbers beside ours; and the names that they print.

Columns are roles: the teacher that stands where the thesis has BERT (RoBERTa, DeBERTa), and the three students. Where there is
no run on a data set, its exhibit shows the stand-in's, named as such.
"""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mtkd.evidence.exhibits import sizes
from mtkd.evidence.frame import WORDS, is_stand_in, points
from mtkd.evidence.paper import Paper
from mtkd.papers import raw

CLASSES, SPAN, THESIS, FINE_TUNED = "classes", "span", "thesis", "fine-tuned only"
STUDENTS = {"expertise": "our approach", "average": "average logits", "random": "baseline (random)"}  # the thesis's three
METHODS = STUDENTS | {"camkd": "CA-MKD", "mixture": "mixture per class", "average+teacher": "average, teacher loss added"}
CONTROLS = {"plain_ce": "plain CE, same compute", "shuffled_teacher": "shuffled teachers",
            "uniform_teacher": "uniform teachers"}
DATA_SETS: dict[str, str] = raw("domain_expertise")["tasks"]
PER_CLASS = {"EMOTION": "table5_2", "MIND": "table5_4", "Twitter-Emotion": "table5_6", "Twitter-Sentiment": "table5_8"}
ROLES = ("BERT", "RoBERTa", "DeBERTa")  # the thesis's teachers, in the order of its tables
PRINTED = {"BERT": "BERT-base-uncased-12", "RoBERTa": "RoBERTa-base-12", "DeBERTa": "DeBERTa-base-12",
           "our approach": "Our Approach", "average logits": "Average Logits", "baseline (random)": "Baseline"}
OURS = {printed: ours for ours, printed in PRINTED.items()}


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


def short(model: str) -> str:
    return model.rsplit("/", 1)[-1].lower()


def plain_class(name: str) -> str:
    """A class label as it is compared, the thesis's and a task's own.

    >>> plain_class("Food & Drink")
    'foodanddrink'
    """
    return "".join(c for c in name.lower().replace("&", "and") if c.isalnum())


def for_data_set(rows: pd.DataFrame, name: str | None) -> pd.DataFrame:
    """The rows on one of the thesis's data sets; where there is no run on it, those on the stand-ins (for NBME: on any span
    task). All rows without a name."""
    real = rows[rows["task"].map(DATA_SETS) == name]
    if name is None or (name == "NBME" and real.empty):
        return rows
    return real if len(real) else rows[rows["task"].map(is_stand_in).astype(bool)]


# --- tables -----------------------------------------------------------------------------------------------------------


def side_by_side(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame | None:
    """Tables 5.1 to 5.9: a line per value of the column entry["line"] and source, a column per model, ours and the thesis's
    under each other; dashes for what is not there, and no column without a cell.

    entry: of (the column that is shown), as (in which words), printed and format (the thesis's table), relabelled (its
    class labels to the class that each must be), order (of lines, by that column, as far as they are named).
    """
    if (rows := for_data_set(rows, entry.get("data_set"))).empty:
        return None
    line, words, found = entry["line"], WORDS[entry.get("as", "points")], {}
    ours = rows.sort_values(["tier", "task"], kind="stable").groupby([line, "source", "column"], sort=False)
    for (name, where, column), values in ours[entry.get("of", "score")]:
        found.setdefault((name, where), {})[column] = words(values)
    classes = {plain_class(name): name for name in rows["class"].dropna()}
    for number in paper.published:
        if number["exhibit"] == entry.get("printed"):
            name = OURS.get(number["row"], number["row"])
            must = entry.get("relabelled", {}).get(name, name)
            cells = found.setdefault((classes.get(plain_class(must), name), THESIS), {})
            cells |= {"printed as": name} if "relabelled" in entry else {}
            cells[OURS[number["column"]]] = entry["format"].format(number["value"])
    table = pd.DataFrame.from_dict(found, orient="index").rename_axis([line, "source"]).reset_index()
    place = {name: at for at, name in enumerate(dict.fromkeys([*entry.get("order", {}).get(line, ()), *table[line]]))}
    table = table.sort_values(line, key=lambda names: names.map(place), kind="stable", ignore_index=True)
    first, last = [line, "source", "printed as", *ROLES], [*STUDENTS.values(), FINE_TUNED]
    used = [*first, *(column for column in table if column not in (*first, *last)), *last]
    return table[[column for column in used if column in table]].fillna("-")


def data_sizes(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame | None:
    """Table 4.1: samples of train / validation / test for each task in use, the thesis's beside them."""
    if (table := sizes(paper, entry, rows, records)) is None:
        return None
    run, name = table["tier"] != "-", table.pop("paper's data")
    table = table.assign(tier=(table["tier"] + " tier").where(run, THESIS), task=table["task"].where(run, name),
                         classes=table["classes"].map(lambda n: n if n == "-" else str(int(n))))
    return table.rename(columns={"tier": "source"})


def model_sizes(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame:
    """Table 4.2: layers and parameters of teachers and student, the thesis's beside them. Shown are the thesis's own models
    (entry["models"]), and those of runs that distilled a student: what a run for table 4.1 builds only to count samples is left
    out. entry["stands_for"]: the thesis's row for a role."""
    runs = rows["tier"] + rows["setting"]
    known = runs.isin(runs[rows["kind"] == "student"]) | rows["model"].map(short).isin(entry["models"])
    rows = rows[known & rows["kind"].isin(["teacher", "finetuned", "undistilled"])]
    table = []
    for _, row in rows.drop_duplicates(["tier", "kind", "model"]).iterrows():
        name = entry["stands_for"].get(row["column"], "-")
        layers, parameters = (paper.printed("table4_2", name, column) for column in ("layers", "parameters"))
        table.append({"tier": row["tier"], "model": row["model"], "stands for": name,
                      "layers": f"{row['layers']:.0f}", "thesis's layers": layers,
                      "parameters": f"{row['parameters'] / 1e6:.3g}M", "thesis's parameters": parameters and f"{parameters}M"})
    return pd.DataFrame(table).drop_duplicates().astype(object).replace(["nan", "nanM"], "-").fillna("-")


def span_models(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame:
    """Table 5.10: F1 of every model fine-tuned on the span task: teachers, models beside them, students before distillation.
    entry["models"]: what the thesis calls a model."""
    theirs = {n["row"]: f"{100 * n['value']:.0f}" for n in paper.published if n["exhibit"] == "table5_10"}
    table, shown = [], set()
    rows = for_data_set(rows, "NBME").sort_values(["tier", "task"], kind="stable")
    for (where, task, kind, model), group in rows.groupby(["source", "task", "kind", "model"], sort=False):
        name = entry["models"].get(short(model)) if task in DATA_SETS else None
        shown.add(name)
        role = {"undistilled": "student, before distillation", "finetuned": "fine-tuned beside"}.get(kind)
        table.append({"source": where, "model": model, "role": role or f"teacher {int(group['position'].iloc[0]) + 1}",
                      "F1": points(group["score"]), "thesis's F1": theirs.get(name)})
    table += [{"source": THESIS, "model": name, "thesis's F1": value} for name, value in theirs.items() if name not in shown]
    return pd.DataFrame(table).fillna("-")


def span_students(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame:
    """Table 5.11: F1 of the students on the span task by loss; the third experiment, described and never reported, besides.
    entry: models (what the thesis calls its students), losses (a method's), starts (in words)."""
    found, rows = {}, for_data_set(rows, "NBME")
    for (_, task, start, model, where), group in rows.groupby(["tier", "task", "start", "model", "source"], sort=True):
        name = entry["models"].get(short(model), "-") if DATA_SETS.get(task) == "NBME" else "-"
        found[where, model, entry["starts"][start], name] = dict(list(group.groupby("method")["score"]))
    shown = {name for *_, name in found}
    found |= {(THESIS, name, "-", name): {} for name in entry["models"].values() if name not in shown}
    table = []
    for (where, model, start, name), scores in found.items():
        for method, loss in entry["losses"].items():
            value = paper.printed("table5_11", name, loss)
            theirs = "-" if name == "-" else "not reported" if value is None else f"{100 * value:.0f}"
            table.append({"source": where, "student": model, "start": start, "stands for": name, "loss": loss,
                          "F1": points(scores[method]) if method in scores else "-", "thesis's F1": theirs})
    return pd.DataFrame(table)


# --- figures ----------------------------------------------------------------------------------------------------------


def published_differences(paper: Paper, data_set: str) -> pd.DataFrame:
    """The thesis's own per-class differences (figures 5.1 to 5.8), computed from its table of that data set.

    Columns role (BERT, RoBERTa, DeBERTa), method, class, difference in points.
    """
    of = {(n["row"], n["column"]): n["value"] for n in paper.published if n["exhibit"] == PER_CLASS[data_set]}
    return pd.DataFrame([{"role": role, "method": method, "class": name,
                          "difference": round(of[name, PRINTED[student]] - of[name, PRINTED[role]], 2)}
                         for name in dict.fromkeys(name for name, _ in of) for role in ROLES if (name, PRINTED[role]) in of
                         for method, student in STUDENTS.items()])


def differences(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> Figure | None:
    """Figures 5.1 to 5.8: per class the difference of the three students from the teacher in a role, a panel per tier and task
    and one of the thesis's numbers. Where its labels are exchanged (entry["relabelled"]), both have the class and its label."""
    name, role, must, panels = entry["data_set"], entry["role"], entry.get("relabelled", {}), []
    rows = for_data_set(rows, name)
    rows = rows[rows["column"] == role].assign(difference=lambda rows: 100 * rows["score"])
    both = {ours: f"{ours}\n(printed {printed})" for printed, ours in must.items() if printed.lower() != ours}
    for (_, task, where), group in rows.groupby(["tier", "task", "source"], sort=True):
        repeats, where = group["repeat"].nunique(), f"{where}: {task}" if task in DATA_SETS else where
        panels.append((f"{where}, difference from {group['teacher'].iloc[0]}, {repeats} repeat{'s' if repeats > 1 else ''}",
                       group.replace({"class": both})))
    if not panels:
        return None
    theirs = published_differences(paper, name).query("role == @role").replace({"class": must}).replace({"class": both})
    panels.append((f"the thesis: {name}, difference from {role}", theirs.assign(student=theirs["method"].map(STUDENTS))))
    return bars(panels)


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


DRAWS = {"validation": side_by_side, "per_class": side_by_side, "medians": side_by_side, "differences": differences,
         "data_sizes": data_sizes, "model_sizes": model_sizes, "span_models": span_models, "span_students": span_students}
