"""TMKD's rows: what its notebook writes, how they become a frame, and the names that tables and figures print.

One row is one trained model, or one ensemble of them. Whom a student listened to and what it read before the task are two
columns, and the paper's names are their combinations:

    method      learns in both stages from                 pool ""            pool "base", "large"
    plain       the gold labels                            BERT-3
    one         the best teacher                           1-o-1              TKD (1-o-1)
    average     the mean of the teachers' logits           1avg-o-1           TKD (1avg-o-1)
    each        is an ensemble: one student per teacher    m-o-m
    many        every teacher, through a head of its own   MKD                TMKD

`arm` is what a row is for: "teachers"; "methods" (Tables 4 to 7, Figure 2, controls); "layers" (Table 9), "alpha"
(Figure 3), "pools" (growing pools) and "largest" (Table 8) have their own row of TMKD; "speed" holds speeds only.
"""

import pandas as pd

from mtkd.evidence import frames
from mtkd.evidence.frames import Layout, plain_name

PAPER = "tmkd"
SECTIONS = ("main", "stages", "averages", "bilstm", "layers", "alpha", "pools", "largest", "controls", "speed")
POOLS = ("base", "large", "extreme")  # names of the pools, in the order of their sizes
METHODS = {"one": "1-o-1", "average": "1avg-o-1", "each": "m-o-m", "many": "m-o-1"}
CONTROLS = {
    "shuffled_teacher": "shuffled teachers", "uniform_teacher": "uniform teachers", "plain_ce": "plain CE, same compute",
    "undistilled": "not distilled",
}  # fmt: skip
TASKS = {"mnli": "MNLI", "snli": "SNLI", "qnli": "QNLI", "rte": "RTE"}
STAND_INS = {"pydocs/topic": "DeepQA", "wiki_qa": "DeepQA"}
METRICS = {"accuracy": "Acc", "mcc": "MCC", "map": "MAP", "macro_f1": "Macro-F", "f1": "F1"}

LAYOUT = Layout(
    PAPER,
    plain=(
        "arm", "task", "role", "kind", "method", "pool", "pool_size", "student", "layers", "alpha", "variant", "repeat", "n",
        "model", "metric", "score", "metrics", "split", "validation", "n_test", "parameters", "speed", "energy_kwh", "folder",
    ),
    identity=("arm", "task", "kind", "method", "pool", "student", "alpha", "variant", "repeat"),
    replicate="repeat", replicates="repeats",
    may_differ=("repeats", "sections", "transfer", "transfer_sections", "margin", "alphas", "depths", "ranking"),
    measured=("speed",),
)  # fmt: skip
SPEED = {"qps": "samples_per_second", "latency_ms": "latency_p50_ms", "best_batch": "best_batch",
         "best_latency_ms": "best_latency_ms", "weights_mib": "weights_mib"}  # fmt: skip


def rows_frame(records: list[dict], every: bool = False) -> pd.DataFrame:
    """All rows of this paper's records (see `frames.rows_frame`); MAP and the speeds in columns of their own; "" for none.

    A speed has no pool, since what a network has learned does not change it (rows of older records name one).
    """
    frame = frames.rows_frame(LAYOUT, records, every)
    found = {"map": [(metrics or {}).get("map") for metrics in frame.pop("metrics")]}
    speeds = frame.pop("speed")
    found |= {name: [(speed or {}).get(key) for speed in speeds] for name, key in SPEED.items()}
    columns = {name: pd.to_numeric(pd.Series(values, dtype="object", index=frame.index)) for name, values in found.items()}
    texts = {name: frame[name].fillna("") for name in ("pool", "variant", "student")}
    texts["pool"] = texts["pool"].mask(frame["arm"] == "speed", "")
    return frame.assign(**columns, **texts)


def beside(every: pd.DataFrame, rows: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The rows of an arm that come from the experiments (tier, parameters and task) of `rows`; every is rows_frame's "every".

    Another experiment of the tier, say one that only times throw-away teachers for Table 2, may have more repeats and so be
    the one that an arm shows; its teachers and speeds say nothing of these students.
    """
    of = ["tier", "setting", "task"]
    same = pd.MultiIndex.from_frame(every[of]).isin(pd.MultiIndex.from_frame(rows[of]))
    return every[(every["arm"] == arm) & same]


def one_ruler(speeds: pd.DataFrame) -> pd.DataFrame:
    """One measurement of every network and repeat: where several runs timed it, that of the run that timed the most of these
    networks in the repeat (Bi-LSTMs, a comparison of their own, do not count), so that numbers that stand side by side were
    measured side by side where they can be."""
    of = ["tier", "setting", "repeat"]
    timed = speeds.assign(timed=~speeds["student"].map(is_bilstm).astype(bool)).groupby([*of, "run"])["timed"].transform("sum")
    ordered = speeds.assign(timed=timed).sort_values(["timed", "run"], ascending=[False, True], kind="stable")
    return ordered.drop_duplicates([*of, "task", "kind", "method", "student"]).drop(columns="timed").sort_index()


def speed_ratios(ours: pd.DataFrame, rival: pd.DataFrame, column: str = "qps") -> pd.Series:
    """Ours by the rival's, one number per repeat: the mean over the runs that measured both, each in the same process.

    >>> row = {"repeat": 0, "run": "a", "qps": 300.0}
    >>> speed_ratios(pd.DataFrame([row, row | {"run": "b", "qps": 900.0}]), pd.DataFrame([row | {"qps": 100.0}])).to_dict()
    {0: 3.0}
    """
    mean = [rows.groupby(["repeat", "run"])[column].mean() for rows in (ours, rival)]
    return (mean[0] / mean[1]).dropna().groupby("repeat").mean()


def pick(frame: pd.DataFrame, method: str, pool: str = "", **where) -> pd.DataFrame:
    """The students of one method and pool ("" = no stage 1), further narrowed by equal columns."""
    where = {"arm": "methods", "kind": "student", "method": method, "pool": pool} | where
    chosen = pd.Series(True, index=frame.index)
    for column, value in where.items():
        chosen &= frame[column] == value
    return frame[chosen]


def largest_pool(rows: pd.DataFrame) -> str:
    """The name of the larger of the two pools of Table 4 that the rows (of one tier) have: "large", else "base"."""
    return "large" if (rows["pool"] == "large").any() else "base"


def is_bilstm(student: str) -> bool:
    return student.startswith("bilstm")


def transformers(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that are no Bi-LSTM's."""
    return rows[~rows["student"].str.startswith("bilstm")]


def printed_name(task: str) -> str | None:
    """The paper's name for a task of its own data ("glue/rte" gives "RTE"); None for any other.

    >>> printed_name("glue/rte"), printed_name("pydocs/topic")
    ('RTE', None)
    """
    return TASKS.get(plain_name(task))


def method_name(method: str, pool: str = "") -> str:
    """What the paper calls a way to distil.

    >>> method_name("many"), method_name("many", "base"), method_name("one", "large"), method_name("each")
    ('MKD', 'TMKD base', 'TKD large (1-o-1)', 'm-o-m')
    """
    if method == "many":
        return f"TMKD {pool}" if pool else "MKD"
    return f"TKD {pool} ({METHODS[method]})" if pool else METHODS.get(method, method)


def student_name(student: str, layers: float) -> str:
    """The architecture as Table 4 has it: "BERT-3", "Bi-LSTM"."""
    return "Bi-LSTM" if is_bilstm(student) else f"BERT-{int(layers)}"


def row_name(row: pd.Series) -> str:
    """What Table 4 calls a model: "BERT-3 (1-o-1)", "Bi-LSTM (TMKD base)", "teacher, the best of 3"."""
    if row["kind"] == "teacher":
        return f"teacher, the best of {int(row['n'])}" if row["variant"] == "best" else "teacher"
    if row["kind"] == "ensemble":
        return f"ensemble of {int(row['n'])} teachers"
    name = student_name(row["student"], row["layers"])
    return name if row["kind"] == "undistilled" else f"{name} ({method_name(row['method'], row['pool'])})"


def shown_metrics(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """(label, column of the frame) for the rows of one task: its metric, and MAP where it was measured."""
    metric = rows["metric"].iloc[0]
    return [(METRICS.get(metric, metric), "score"), *([("MAP", "map")] if rows["map"].notna().any() else [])]


def task_label(task: str, label: str) -> str:
    """The head of a column: the paper's own where the numbers are comparable, else the task and the metric."""
    name = printed_name(task)
    return name if name and label == "Acc" else f"{name or task} {label}"


def target_first(frame: pd.DataFrame) -> list[str]:
    """Tasks, those that the pool belongs to before those that the student is transferred to."""
    roles = frame.drop_duplicates("task")
    return roles.sort_values(["role", "task"])["task"].tolist()  # "target" sorts before "transfer"
