"""The thesis's measures (4.10, 5.1): recall per class, a student's difference from each teacher, its median and spread.

"Per-class accuracy" in the thesis is recall: of the samples of a class, the share that the model finds. For one student
and one teacher there are as many differences as classes, in points; their median is what Tables 5.3 to 5.9 report.
Worked example, EMOTION in Table 5.2, our approach against BERT:

    class         Sadness    Joy   Love  Anger   Fear  Surprise
    student          97.4   95.4   84.3   94.9   84.9      71.2
    teacher          96.7   95.6   79.8   94.1   84.3      71.2
    difference       +0.7   -0.2   +4.5   +0.8   +0.6       0.0      median (0.6 + 0.7) / 2 = +0.65, as printed
"""

import numpy as np
import pandas as pd

from mtkd.evidence import frames
from mtkd.evidence.frames import Layout, is_stand_in, points
from mtkd.papers import load, published_value

PAPER = "domain_expertise"
CLASSES, SPAN = "classes", "span"
STUDENTS = {"expertise": "our approach", "average": "average logits", "random": "baseline (random)"}  # the thesis's three
METHODS = STUDENTS | {"camkd": "CA-MKD", "mixture": "mixture per class", "average+teacher": "average, teacher loss added"}
DATA_SETS = {
    "mind/balanced": "MIND", "emotion": "EMOTION", "tweet_eval/emotion": "Twitter-Emotion",
    "tweet_eval/sentiment": "Twitter-Sentiment", "nbme": "NBME",
}  # fmt: skip
PER_CLASS = {"EMOTION": "table5_2", "MIND": "table5_4", "Twitter-Emotion": "table5_6", "Twitter-Sentiment": "table5_8"}
ROLES = ("BERT", "RoBERTa", "DeBERTa")  # the thesis's teachers, in the order of its tables
PRINTED = {"BERT": "BERT-base-uncased-12", "RoBERTa": "RoBERTa-base-12", "DeBERTa": "DeBERTa-base-12"} | {
    "expertise": "Our Approach", "average": "Average Logits", "random": "Baseline",
}  # fmt: skip
# Which class a printed label of Table 5.6 must be, by the number of test samples (see the misprints in the data file).
RELABELLED = {"Sadness": "anger", "Joy": "joy", "Anger": "optimism", "Optimism": "sadness"}

LAYOUT = Layout(
    paper=PAPER,
    plain=(
        "arm", "task", "kind", "method", "variant", "temperature", "repeat", "start", "position", "teachers",
        "model", "metric", "score", "recalls", "validation", "split", "n_test", "parameters", "layers", "energy_kwh",
        "samples_per_second", "folder",
    ),
    identity=("arm", "task", "kind", "method", "variant", "repeat", "start", "position", "model", "teachers"),
    replicate="repeat",
    replicates="repeats",
    may_differ=("repeats", "sections", "also_finetuned", "margin"),
    convert={"teachers": lambda names: tuple(names or ()), "recalls": lambda found: tuple((found or {}).items())},
)  # fmt: skip
_MODEL = ["tier", "arm", "task", "kind", "method", "variant", "repeat", "start", "model"]


def rows_frame(records: list[dict], every: bool = False) -> pd.DataFrame:
    """All rows of this paper's records, one trained model per row (see `frames.rows_frame`). `recalls` becomes a tuple
    of (class, recall) pairs in class order; variant "" is the run's own setting, any other a named departure from it."""
    return frames.rows_frame(LAYOUT, records, every)


def plain_students(frame: pd.DataFrame) -> pd.DataFrame:
    """Distilled students made with the run's own settings: no variants."""
    return frame[(frame["kind"] == "student") & (frame["variant"] == "")]


def per_class(frame: pd.DataFrame) -> pd.DataFrame:
    """One line per model and class: the columns of `frame`, and `class`, `recall` (0..1; classes without samples gone)."""
    rows = [row._asdict() | {"class": name, "recall": recall}
            for row in frame.drop(columns="recalls").assign(recalls_=frame["recalls"]).itertuples(index=False)
            for name, recall in row.recalls_ if recall is not None]
    return pd.DataFrame(rows, columns=[*frame.columns.drop("recalls"), "recalls_", "class", "recall"]).drop(columns="recalls_")


def class_differences(frame: pd.DataFrame, students: pd.DataFrame | None = None) -> pd.DataFrame:
    """Student minus teacher in points, one line per student, teacher of its own repeat, and class.

    Columns: those that name the student, `teacher` (name) and `position` of it, `class`, `difference`. Without
    `students`, all distilled and fine-tuned students and controls of the frame.
    """
    if students is None:
        students = frame[frame["kind"].isin(["student", "undistilled", "control"])]
    teachers = per_class(frame[frame["kind"] == "teacher"])
    teachers = teachers[["tier", "arm", "task", "repeat", "position", "model", "class", "recall"]]
    mine = per_class(students)[[*_MODEL, "class", "recall"]]
    both = mine.merge(teachers, on=["tier", "arm", "task", "repeat", "class"], suffixes=("", "_teacher"))
    both["difference"] = 100 * (both["recall"].astype(float) - both["recall_teacher"].astype(float))
    return both.rename(columns={"model_teacher": "teacher"}).drop(columns=["recall", "recall_teacher"])


def medians(frame: pd.DataFrame) -> pd.DataFrame:
    """Median and spread over classes of the differences, one line per student and teacher, in points.

    `spread` is the sample standard deviation of the per-class differences: how unevenly a student follows its teacher.
    """
    keys = [*_MODEL, "position", "teacher"]
    grouped = class_differences(frame).groupby(keys, sort=True, dropna=False)["difference"]
    return grouped.agg(median="median", spread="std").reset_index()


def published_differences(data_set: str) -> pd.DataFrame:
    """The thesis's own per-class differences (figures 5.1 to 5.8), computed from its table of that data set.

    Columns role (BERT, RoBERTa, DeBERTa), method, class, difference in points.
    """
    table, rows = PER_CLASS[data_set], []
    for name in printed_classes(data_set):
        for role in ROLES:
            teacher = published_value(PAPER, table, name, PRINTED[role])
            for method in STUDENTS:
                if teacher is not None:
                    student = published_value(PAPER, table, name, PRINTED[method])
                    rows.append({"role": role, "method": method, "class": name, "difference": round(student - teacher, 2)})
    return pd.DataFrame(rows)


def printed_classes(data_set: str) -> list[str]:
    """The classes of a data set as its per-class table prints them, in that order."""
    rows = (entry["row"] for entry in load(PAPER).published if entry["exhibit"] == PER_CLASS[data_set])
    return list(dict.fromkeys(rows))


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
    if data_set != "Twitter-Emotion":
        return name
    printed = {plain_class(ours): label for label, ours in RELABELLED.items()}.get(plain_class(name), name)
    return name if plain_class(printed) == plain_class(name) else f"{name}\n(printed {printed})"


def plain_class(name: str) -> str:
    return "".join(c for c in name.lower().replace("&", "and") if c.isalnum())


def data_set(task: str) -> str | None:
    """The thesis's name of a task of its own data; None for any other."""
    return DATA_SETS.get(task)


def of_thesis(task: str) -> bool:
    """Whether the thesis's claims speak of a task: its own data sets, and the kit's stand-ins for them.

    >>> of_thesis("emotion"), of_thesis("pydocs/topic"), of_thesis("reviews.csv")
    (True, True, False)
    """
    return data_set(task) is not None or is_stand_in(task)


def leak_note(rows: pd.DataFrame, records: list[dict]) -> str:
    """A warning for a caption or a verdict where the run's own rule found its experts on the test split; else nothing."""
    leaky = {r.get("run", "") for r in records if (r.get("parameters") or {}).get("fit_split") == "test"}
    tiers = sorted(set(rows[rows["run"].isin(leaky) & rows["method"].isin(["expertise", "mixture"])]["tier"]))
    words = "experts found on the test split that is reported, as in the thesis: a leak"
    return f"{words} ({', '.join(tiers)} tier)" if tiers else ""


def for_data_set(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of one of the thesis's data sets; where there is no run on it, those of the stand-ins (for NBME: of any
    span task)."""
    arm = SPAN if name == "NBME" else CLASSES
    mine = frame[frame["arm"] == arm]
    real = mine[mine["task"].map(data_set) == name]
    return real if len(real) else mine if arm == SPAN else mine[mine["task"].map(is_stand_in).astype(bool)]


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


def signed(values: pd.Series) -> str:
    """Mean ± sample standard deviation of differences in points, with a sign; "n/a" for none.

    >>> signed(pd.Series([0.5, 1.0]))
    '+0.75 ± 0.35'
    """
    found = values.dropna().to_numpy(dtype=float)
    if not len(found):
        return "n/a"
    return f"{found.mean() + 0.0:+.2f}" + (f" ± {np.std(found, ddof=1):.2f}" if len(found) > 1 else "")


def source(tier: str, task: str) -> str:
    """Where a line of a table comes from, in words.

    >>> source("demo", "pydocs/topic"), source("small", "tweet_eval/emotion")
    ('demo tier: pydocs/topic (stand-in)', 'small tier')
    """
    if data_set(task):
        return f"{tier} tier"
    return f"{tier} tier: {task}" + (" (stand-in)" if is_stand_in(task) else "")


def scores(rows: pd.DataFrame, column: str = "score") -> str:
    """Mean ± standard deviation times 100 of one column over the rows; a dash for no row."""
    return points(rows[column]) if len(rows) else "-"
