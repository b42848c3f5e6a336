"""What tmkd.yaml cannot say: the names of TMKD's models, speeds that were measured side by side (T4, T8), and gains by depth
and by share (T5, T6). Its tables and figures are in tmkd_tables.py.

Everything in one repeat shares its teachers' seeds, so two arms of the same repeat are compared as a pair: one difference
per repeat and setting (a task, an architecture), n = number of repeats. Differences of scores and margins are in points,
that is, the score times 100; differences of speed are in per cent, and say so in their label.
"""

from __future__ import annotations

import pandas as pd

from mtkd.evidence.verdicts import Member
from mtkd.papers import read
from mtkd.papers import tmkd_tables as tables
from mtkd.papers.tmkd_tables import beside

SECTIONS = ("main", "stages", "averages", "bilstm", "layers", "alpha", "pools", "largest", "controls", "speed")
POOLS = ("base", "large", "extreme")  # names of the pools, in the order of their sizes
METHODS = {"one": "1-o-1", "average": "1avg-o-1", "each": "m-o-m", "many": "m-o-1"}
SPEED = {"qps": "samples_per_second", "latency_ms": "latency_p50_ms", "best_batch": "best_batch",
         "best_latency_ms": "best_latency_ms", "weights_mib": "weights_mib"}  # fmt: skip
FASTER = 2.0  # "three times", "many times" the speed: tested as more than twice


def is_bilstm(student: str) -> bool:
    return student.startswith("bilstm")


def method_name(method: str, pool: str = "") -> str:
    """What the paper calls a way to distil.

    >>> method_name("many"), method_name("many", "base"), method_name("one", "large"), method_name("each")
    ('MKD', 'TMKD base', 'TKD large (1-o-1)', 'm-o-m')
    """
    if method == "many":
        return f"TMKD {pool}" if pool else "MKD"
    return f"TKD {pool} ({METHODS[method]})" if pool and method in METHODS else METHODS.get(method, method)


def label(row: pd.Series) -> str:
    """What Table 4 calls a model: "BERT-3 (1-o-1)", "Bi-LSTM (TMKD base)", "teacher, the best of 3"."""
    if row["kind"] == "teacher":
        return f"teacher, the best of {int(row['n'])}" if row["variant"] == "best" else "teacher"
    if row["kind"] == "ensemble":
        return f"ensemble of {int(row['n'])} teachers"
    return row["built"] if row["kind"] == "undistilled" else f"{row['built']} ({row['way']})"


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with bilstm, built (the architecture as Table 4 has it), network (what is timed: the teacher, all of them, the
    student without soft heads, with one, with N, or N students), way (what the paper calls method and pool), top (the pool is
    the larger one of its tier), and speeds in columns of their own. A speed has no pool, since what a network has learned does
    not change it (rows of older records name one)."""
    pool = frame["pool"].mask(frame["arm"] == "speed", "")
    has_large = ((frame["arm"] == "methods") & (pool == "large")).groupby(frame["tier"]).transform("any")
    built = ["" if not student else "Bi-LSTM" if is_bilstm(student) else f"BERT-{int(layers)}"
             for student, layers in zip(frame["student"], frame["layers"])]
    speeds = {name: pd.to_numeric(frame[f"speed {key}"]) for name, key in SPEED.items() if f"speed {key}" in frame}
    network = frame["kind"] + " " + frame["method"].replace("average", "one").fillna("") + " " + frame["student"]
    network = network.mask(frame["kind"].isin(["teacher", "ensemble"]), frame["kind"])
    return frame.assign(pool=pool, bilstm=frame["student"].map(is_bilstm).astype(bool), built=built, network=network, **speeds,
                        way=[method_name(*where) for where in zip(frame["method"], pool)],
                        top=pool == has_large.map({True: "large", False: "base"}))


# --- claims that are no contrast ------------------------------------------------------------------------------------------


def speed_ratios(ours: pd.DataFrame, rival: pd.DataFrame, column: str = "qps") -> pd.Series:
    """Ours by the rival's, one number per repeat: the mean over the runs that measured both, each in the same process.

    >>> row = {"repeat": 0, "run": "a", "qps": 300.0}
    >>> speed_ratios(pd.DataFrame([row, row | {"run": "b", "qps": 900.0}]), pd.DataFrame([row | {"qps": 100.0}])).to_dict()
    {0: 3.0}
    """
    mean = [rows.groupby(["repeat", "run"])[column].mean() for rows in (ours, rival)]
    return (mean[0] / mean[1]).dropna().groupby("repeat").mean()


def faster(rival: str, what: str):
    """T4, T8: per cent by which the student's queries per second exceed FASTER times the rival's, one per repeat; both were
    timed by the same run, since two runs may have found the machine busy in different ways."""
    def parts(rows: pd.DataFrame, every: pd.DataFrame, margin: float, alpha: float) -> list[Member]:
        methods = rows[rows["arm"] == "methods"]
        speeds = beside(every, methods, "speed")
        own = speeds[speeds["student"].isin(methods[(methods["kind"] == "student") & ~methods["bilstm"]]["student"])]
        theirs = own[own["method"] == "each"] if rival == "each" else speeds[speeds["kind"] == "teacher"]
        ours = own[own["method"] == "many"]
        ratio, size = (speed_ratios(ours, theirs, column) for column in ("qps", "parameters"))
        words = f"speed in per cent: above {FASTER:g} times that of {what} "
        words += f"(here {ratio.mean():.1f} times, with {size.mean():.2f} of its parameters)"
        found = 100 * (ratio / FASTER - 1).astype(float)
        return [Member(words, found, unit="per cent of the speed", part=f"speed against {what}")] if len(ratio) else []
    return parts


def depths(rows: pd.DataFrame, every: pd.DataFrame, margin: float, alpha: float) -> list[Member]:
    """T5: the gain from the first depth to the second, and that gain minus the one to the third (1, 3, 5 in the paper)."""
    members = []
    for task, found in rows[rows["arm"] == "layers"].groupby("task", sort=True):
        table = 100 * found.pivot_table(index="repeat", columns="layers", values="score")
        if table.shape[1] >= 3:
            (low, a), (middle, b), (high, c) = list(table.items())[:3]
            words, where = f"{task}: gain from {low:g} to {middle:g} layers", (task, f"BERT-{middle:g}")
            members += [Member(words, (b - a).dropna(), where=where),
                        Member(f"{words} less that to {high:g}", (2 * b - a - c).dropna(), where=where)]
    return members


def shares(rows: pd.DataFrame, every: pd.DataFrame, margin: float, alpha: float) -> list[Member]:
    """T6: the score rises with alpha below 1 (slope of a straight line per repeat, over the whole range), and falls at 1."""
    found = []
    for task, own in rows[rows["arm"] == "alpha"].groupby("task", sort=True):
        table, where = 100 * own.pivot_table(index="repeat", columns="alpha", values="score"), (task, own["built"].iloc[0])
        below = [a for a in table if a < 1]
        if len(below) > 1:
            x = pd.Series(below, index=below) - sum(below) / len(below)
            slope = table[below].dropna().mul(x).sum(axis=1) / (x**2).sum()
            found.append(Member(f"{task}: rise from {below[0]:g} to {below[-1]:g}", slope * (below[-1] - below[0]),
                                part="a rise with alpha below 1", where=where))
        if below and 1.0 in table:
            found.append(Member(f"{task}: {below[-1]:g} against 1", (table[below[-1]] - table[1.0]).dropna(),
                                part="a fall at alpha = 1", where=where))
    return found


def made_with(records: list[dict]) -> str:
    """The sizes that runs were made with, a line per tier, from the records' own data: training splits and pools.

    >>> data = [("topic", "train", 800), ("topic (pool)", "pool base", 600), ("topic (pool)", "pool large", 2400)]
    >>> data = [{"task": task, "split": split, "samples": n} for task, split, n in data]
    >>> made_with([{"paper": "tmkd", "tier": "demo", "data": data}])
    'demo tier: topic with 800 training texts; pools of 600 and 2,400 texts'
    """
    def numbers(values: pd.Series, last: str = "and") -> str:
        *most, end = [f"{value:,}" for value in sorted(set(values))]
        return f"{', '.join(most)} {last} {end}" if most else end

    lines = []
    for tier, data in PAPER.data_frame(records, every=True).groupby("tier", sort=True):
        train = data[data["split"] == "train"].groupby("task", sort=False)["samples"]
        words = [f"{task} with {numbers(sizes, 'or')} training texts" for task, sizes in train]
        pools = data.loc[data["split"].str.startswith("pool"), "samples"]
        lines.append(f"{tier} tier: {', '.join(words)}; " + (f"pools of {numbers(pools)} texts" if len(pools) else "no pool"))
    return "\n".join(lines)


PAPER = read("tmkd", label=label, derive=named, draws=tables.DRAWS,
             parts={"T4": faster("each", "m-o-m"), "T5": depths, "T6": shares, "T8": faster("teacher", "the teacher")})
claims, exhibit, frame, summary = PAPER.claims, PAPER.exhibit, PAPER.frame, PAPER.summary
