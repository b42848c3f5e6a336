"""TMKD's tables 2 to 9 from records, with the paper's numbers below ours."""

import pandas as pd

from mtkd.evidence import frames
from mtkd.evidence.frames import missing, points
from mtkd.papers import Exhibit, load
from mtkd.papers.tmkd_scores import (
    PAPER,
    POOLS,
    STAND_INS,
    beside,
    is_bilstm,
    largest_pool,
    one_ruler,
    pick,
    printed_name,
    row_name,
    rows_frame,
    shown_metrics,
    target_first,
    task_label,
)

COSTS = ("QPS", "Parameters (M)")  # columns of costs, after the scores
LARGER = "larger"  # in place of the name of a pool: see `compared`
RULER = ("Where several runs timed a network, the run that timed the most networks is shown; runs may have gone side by side "
         "on one machine, which slows them.")


def made(identifier: str, frame: pd.DataFrame, records: list[dict], content, words: str) -> Exhibit:
    """An exhibit whose caption also says how many repeats each tier has (see `frames.made` for the rest)."""
    repeats = ""
    if "repeat" in frame:
        counts = frame.groupby("tier")["repeat"].nunique()
        repeats = "Independent repeats: " + ", ".join(f"{n} ({tier} tier)" for tier, n in counts.items()) + "."
    return frames.made(identifier, frame, records, content, words, repeats)


def score_cells(rows: pd.DataFrame) -> dict[str, str]:
    """Table cells of one model: per task its metric with n, and MAP where it was measured."""
    cells = {}
    for task in target_first(rows):
        group = rows[rows["task"] == task]
        for number, (label, column) in enumerate(shown_metrics(group)):
            cells[task_label(task, label)] = points(group[column]) + (f" n={len(group)}" if number == 0 else "")
    return cells


def printed(entry: dict) -> str:
    """A published number the way the paper writes it."""
    if entry.get("note", "").startswith("printed as "):
        return entry["note"].removeprefix("printed as ")
    whole = float(entry["value"]).is_integer() and entry["unit"] != "accuracy in per cent"
    return f"{entry['value']:g}" if whole or entry["unit"] == "ms" else f"{entry['value']:.2f}"


def with_paper(rows: dict[tuple[str, str], dict], table: str, first: str) -> pd.DataFrame:
    """Our rows, keyed by (source, label), above the paper's: a frame with the columns source, `first`, and the cells."""
    for entry in load(PAPER).published:
        if entry["exhibit"] == table:
            rows.setdefault(("paper", entry["row"]), {})[entry["column"]] = printed(entry)
    frame = pd.DataFrame.from_dict(rows, orient="index").fillna("-").rename_axis(["source", first]).reset_index()
    return frame[[c for c in frame if c not in COSTS] + [c for c in COSTS if c in frame]]


def million(parameters: pd.Series) -> str:
    """Parameters in millions, a range where the models of a line differ (tasks with other numbers of classes)."""
    low, high = (f"{n / 1e6:.4g}" if n >= 1e6 else f"{n / 1e6:.3g}" for n in (parameters.min(), parameters.max()))
    return low if low == high else f"{low} to {high}"


def per_second(values: pd.Series) -> str:
    """Queries per second: three digits, ± the standard deviation over repeats (two digits).

    >>> per_second(pd.Series([10_630.0, 11_090.0]))
    '10,900 ± 330'
    """
    values = values.dropna()
    if not len(values):
        return "-"
    mean, sd = float(f"{values.mean():.3g}"), float(f"{values.std(ddof=1):.2g}") if len(values) > 1 else None
    words = [f"{value:,.0f}" if value >= 100 else f"{value:g}" for value in (mean, sd) if value is not None]
    return " ± ".join(words)


def speeds_of(speeds: pd.DataFrame, row: pd.Series) -> pd.DataFrame:
    """The rows of the section "speed" whose network is built like the one of `row`: the teacher, N of them, the student
    without soft heads, with one, with N, or N students. What it has learned makes no difference to its speed."""
    same = speeds[(speeds["tier"] == row["tier"]) & (speeds["kind"] == row["kind"])]
    if row["kind"] in ("teacher", "ensemble"):
        return same
    method = "one" if row["method"] == "average" else row["method"]
    return same[(same["method"] == method) & (same["student"] == row["student"])]


def cost_cells(rows: pd.DataFrame, speeds: pd.DataFrame) -> dict[str, str]:
    cells, size, found = {}, rows["parameters"].dropna(), speeds_of(speeds, rows.iloc[0])
    if len(found):
        cells["QPS"] = per_second(found["qps"])
    if len(size):
        cells["Parameters (M)"] = million(size)
    return cells


def table2(records: list[dict]) -> Exhibit:
    """Speed and size of every teacher that was timed, above the paper's: here runs with other parameters have their place."""
    frame = rows_frame(records, every=True)
    used = frame[(frame["arm"] == "speed") & ((frame["kind"] == "teacher") | (frame["kind"] == "ensemble") & (frame["n"] > 1))]
    if used.empty:
        return missing(f"{PAPER}.table2")
    used = one_ruler(used)
    rows = {}
    for (tier, kind, model), group in used.groupby(["tier", "kind", "model"], sort=True):
        group = group[group["setting"] == group["setting"].value_counts().sort_index().idxmax()]
        name = model if kind == "teacher" else f"{int(group['n'].iloc[0])} of them"
        rows[f"{tier} tier", name] = {
            "Parameter": million(group["parameters"]), "Samples Per second": per_second(group["qps"]),
            "Latency": f"{(1000 / group['qps']).mean():.3g}", "Latency of one query": f"{group['latency_ms'].mean():.3g}"}
    words = "Parameters in millions, latency in ms. The paper's latency is one over the throughput, and so is the column of "
    words += "that name here; a query that comes alone waits longer (last column, median). " + RULER
    return made(f"{PAPER}.table2", used, records, with_paper(rows, "table2", "model"), words)


def table3(records: list[dict]) -> Exhibit:
    """Samples per split and pool, and mean numbers of words, the paper's data sets below."""
    rows = [row | {"tier": r.get("tier", "")} for r in records if r.get("paper") == PAPER for row in r.get("data", [])]
    if not rows:
        return missing(f"{PAPER}.table3")
    frame = pd.DataFrame(rows).drop_duplicates(["tier", "task", "split"])
    table = {}
    for (tier, task), group in frame.groupby(["tier", "task"], sort=False):
        first, is_pool = group.iloc[0], group["split"].iloc[0].startswith("pool")
        columns = [split.replace("pool ", "train (") + ")" * is_pool for split in group["split"]]
        sizes = {column: f"{n:,}" for column, n in zip(columns, group["samples"])}
        table[f"{tier} tier", task] = sizes | {
            "question words": f"{first['words_first']:.2f}",
            "answer words": "-" if pd.isna(first["words_second"]) else f"{first['words_second']:.2f}",
            "stands in for": "CommQA-Unlabeled" if is_pool else printed_name(task) or STAND_INS.get(task, "-")}
    shown = with_paper(table, "table3", "data set")
    order = ["source", "data set", "train", "validation", "test", "train (base)", "train (large)", "train (extreme)",
             "question words", "answer words", "stands in for"]
    words = ("Numbers of samples, and of words per text; single texts have no answer. Base, large and extreme: pools without "
             "labels.")
    return made(f"{PAPER}.table3", frame, records, shown[[c for c in order if c in shown]], words)


def table4(records: list[dict]) -> Exhibit:
    """Teachers, the undistilled student, single-stage and two-stage students: scores, speed and size."""
    frame, every = rows_frame(records), rows_frame(records, every=True)
    main = frame[(frame["arm"] == "methods") & frame["kind"].isin(["undistilled", "student"])]
    if main.empty:
        return missing(f"{PAPER}.table4")
    teachers, speeds = beside(every, main, "teachers"), beside(every, main, "speed")
    speeds = one_ruler(speeds[speeds["student"].isin({"", *main["student"]})])
    best = teachers["variant"].eq("best") | teachers["kind"].eq("ensemble") & (teachers["n"] > 1)
    main = main[(main["method"] == "many") | (main["pool"] == "")]  # TKD is in Tables 5 and 7
    used = pd.concat([teachers[best], main], ignore_index=True)
    used = used.assign(name=[row_name(row) for _, row in used.iterrows()])
    rank = {"undistilled": 0, "teacher": 1, "ensemble": 2, "student": 3}
    steps = {"one": 0, "average": 1, "each": 2, "many": 3}
    order = 100 * used["kind"].map(rank) - 10 * used["student"].map(is_bilstm).astype(int)
    order += used["method"].map(lambda m: steps.get(m, 0))
    order += (used["pool"] != "") * (50 + used["pool"].map(lambda p: POOLS.index(p) if p in POOLS else len(POOLS)))
    rows = {}
    for (tier, _, name), group in used.assign(order=order).groupby(["tier", "order", "name"], sort=True):
        rows[f"{tier} tier", name] = score_cells(group) | cost_cells(group, speeds)
    words = "Scores times 100, here mean ± standard deviation over n models. QPS: queries per second at the best batch size, "
    words += f"measured on the first task with the same batches for all. {RULER} MKD stands here too; the paper has it in "
    words += "Table 6."
    return made(f"{PAPER}.table4", used, records, with_paper(rows, "table4", "model"), words)


def compared(identifier: str, records: list[dict], wanted: list[tuple[str, str]], words: str) -> Exhibit:
    """Students of some (method, pool) combinations side by side, above the paper's table; LARGER is the larger pool of a
    tier."""
    frame, table = rows_frame(records), identifier.split(".")[1]
    rows, parts = {}, []
    for tier in sorted(frame["tier"].unique()):
        here = frame[(frame["tier"] == tier) & (frame["arm"] == "methods")]
        pools = {LARGER: largest_pool(here)}
        for student in sorted(here.loc[here["kind"] == "student", "student"].unique(), key=is_bilstm, reverse=True):
            found = [pick(here, method, pools.get(pool, pool), student=student) for method, pool in wanted]
            if sum(len(part) > 0 for part in found) > 1:
                parts += found
                rows |= {(f"{tier} tier", row_name(part.iloc[0])): score_cells(part) for part in found if len(part)}
    if not rows:
        return missing(identifier)
    used = pd.concat([part for part in parts if len(part)])
    words = f"Scores times 100, here mean ± standard deviation over n repeats. {words}"
    return made(identifier, used, records, with_paper(rows, table, "model"), words)


def table5(records: list[dict]) -> Exhibit:
    """One teacher without and with pre-training on the larger pool (the paper's large one, or the only one there is)."""
    return compared(f"{PAPER}.table5", records, [("one", ""), ("one", LARGER)],
                    "Both listen to the best teacher of the task; the row says which pool was read first, of two the larger.")


def table6(records: list[dict]) -> Exhibit:
    """No pre-training: the teachers' mean against one head per teacher."""
    return compared(f"{PAPER}.table6", records, [("average", ""), ("many", "")], "Neither has seen the pool.")


def table7(records: list[dict]) -> Exhibit:
    """Pre-trained on the base pool: one teacher, their mean, one head per teacher."""
    return compared(f"{PAPER}.table7", records, [("one", "base"), ("average", "base"), ("many", "base")],
                    "All were pre-trained on the base pool, by the teachers that they listen to later.")


def table8(records: list[dict]) -> Exhibit:
    """Teacher, KD, MKD and TMKD with the largest pool in use."""
    frame = rows_frame(records)
    used = frame[frame["arm"] == "largest"]
    if used.empty:
        return missing(f"{PAPER}.table8")
    rows = {}
    names = {"teacher": "BERT_large", ("one", ""): "KD", ("many", ""): "MKD"}
    for (tier, task), group in used.groupby(["tier", "task"], sort=True):
        column = task_label(task, shown_metrics(group)[0][0])
        column += f" ({int(group['n'].max())} teachers, pool of {int(group['pool_size'].max()):,})"
        for (kind, method, pool), part in group.groupby(["kind", "method", "pool"], sort=False):
            name = "teacher" if kind == "teacher" else names.get((method, pool), "TMKD")
            rows.setdefault((f"{tier} tier", name), {})[column] = points(part["score"]) + f" n={len(part)}"
    words = "Scores times 100, here mean ± standard deviation over n repeats; the teacher is the best of its set."
    return made(f"{PAPER}.table8", used, records, with_paper(rows, "table8", "model"), words)


def table9(records: list[dict]) -> Exhibit:
    """TMKD base by number of student layers: scores and queries per second."""
    frame = rows_frame(records)
    used = frame[frame["arm"] == "layers"]
    if used["layers"].nunique() < 2:
        return missing(f"{PAPER}.table9")
    speeds = beside(rows_frame(records, every=True), used, "speed")
    speeds = one_ruler(speeds[(speeds["method"] == "many") & speeds["student"].isin(used["student"])])
    rows = {}
    for tier, group in used.groupby("tier", sort=True):
        source = f"{tier} tier"
        for layers, part in group.groupby("layers", sort=True):
            for label, cell in score_cells(part).items():
                rows.setdefault((source, label), {})[str(int(layers))] = cell
            own = speeds[(speeds["tier"] == tier) & (speeds["student"] == part["student"].iloc[0])]
            rows.setdefault((source, "QPS"), {})[str(int(layers))] = per_second(own["qps"])
    table = with_paper(rows, "table9", "data set")
    table = table[["source", "data set", *sorted((c for c in table if c.isdigit()), key=int)]]
    words = "Columns: layers of the student. Scores times 100, here mean ± standard deviation over n repeats; students "
    words += f"pre-trained on the base pool (the paper's footnote 4). {RULER}"
    return made(f"{PAPER}.table9", used, records, table, words)
