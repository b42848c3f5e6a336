"""Beyond TMKD's own exhibits: negative controls, everything measured about speed, and the README's summary."""

import pandas as pd

from mtkd.evidence import frames
from mtkd.evidence.frames import paired_table, points
from mtkd.papers import Exhibit
from mtkd.papers.tmkd_scores import (
    CONTROLS,
    LAYOUT,
    PAPER,
    beside,
    is_bilstm,
    largest_pool,
    one_ruler,
    pick,
    row_name,
    rows_frame,
    student_name,
    target_first,
)
from mtkd.papers.tmkd_tables import RULER, million, per_second


def controls(records: list[dict]) -> Exhibit:
    """TMKD, at the larger pool, beside its negative controls and the undistilled student; paired over repeats."""
    frame = rows_frame(records)
    frame = frame.assign(rival=frame["variant"].where(frame["kind"] == "control", "undistilled"))
    ours = pick(frame, "many", largest_pool(frame[frame["arm"] == "methods"]))
    rivals = frame[(frame["arm"] == "methods") & frame["kind"].isin(["control", "undistilled"])]
    entries = []
    for (tier, task, student, rival), rows in rivals.groupby(["tier", "task", "student", "rival"], sort=True):
        mine = ours[(ours["tier"] == tier) & (ours["task"] == task) & (ours["student"] == student)]
        if len(mine):
            entries.append(({"tier": tier, "task": task, "control": CONTROLS.get(rival, rival)}, mine, rows))
    if not entries:
        return Exhibit(f"{PAPER}.controls", "negative controls", "No control was run.")
    words = "Score times 100, mean ± standard deviation over repeats; difference TMKD minus control in points, paired "
    words += "over repeats, with its t interval and one-sided p. Shuffled and uniform teachers teach in both stages; plain CE "
    words += "takes as many steps as both stages together, on the gold labels. A student that is no better than its controls "
    words += "has not been shown to have learned anything from its teachers."
    table = paired_table(LAYOUT, entries, "TMKD", "control's score")
    return Exhibit(f"{PAPER}.controls", "negative controls", words, table)


def speed(records: list[dict]) -> Exhibit:
    """Everything that was measured about speed, teachers and students by the same ruler: beside the students that the tables
    show, or, in a tier without any, what there is."""
    frame = rows_frame(records)
    used = beside(rows_frame(records, every=True), frame[frame["arm"].isin(("methods", "layers"))], "speed")
    rest = frame[(frame["arm"] == "speed") & ~frame["tier"].isin(used["tier"])]
    used = one_ruler(pd.concat([used, rest], ignore_index=True))
    used = used[(used["kind"] != "ensemble") | (used["n"] > 1)]
    if used.empty:
        return Exhibit(f"{PAPER}.speed", "inference speed", "The section `speed` was not run.")
    names = {"plain": "no soft head", "one": "one soft head", "many": "a head per teacher", "each": "one student per teacher"}
    used = used.assign(what=[row_name(r) if r["kind"] in ("teacher", "ensemble") else
                             f"{row_name(r).split(' (')[0]}, {names[r['method']]}" for _, r in used.iterrows()])
    rows = []
    for (tier, what), group in used.groupby(["tier", "what"], sort=False):
        rows.append({"tier": tier, "network": what, "million parameters": million(group["parameters"]),
                     "queries per second": per_second(group["qps"]), "best batch": f"{group['best_batch'].median():g}",
                     "ms per batch": f"{group['best_latency_ms'].mean():.3g}",
                     "ms for one query": f"{group['latency_ms'].mean():.3g}",
                     "weights, MiB": f"{group['weights_mib'].mean():.3g}", "repeats": group["repeat"].nunique()})
    words = "Measured the same way for all: the same texts of the first task's test split, eval mode, no gradients, every "
    words += "batch size of a few tried and the fastest kept. Weights: the memory that parameters and buffers take. " + RULER
    return Exhibit(f"{PAPER}.speed", "inference speed", words, pd.DataFrame(rows))


def made_with(records: list[dict]) -> str:
    """The sizes that runs were made with, a line per tier, from the records' own data: training splits and pools.

    >>> data = [("topic", "train", 800), ("topic (pool)", "pool base", 600), ("topic (pool)", "pool large", 2400)]
    >>> data = [{"task": task, "split": split, "samples": n} for task, split, n in data]
    >>> made_with([{"paper": "tmkd", "tier": "demo", "data": data}])
    'demo tier: topic with 800 training texts; pools of 600 and 2,400 texts'
    """
    lines = []
    rows = [row | {"tier": r.get("tier", "")} for r in records if r.get("paper") == PAPER for row in r.get("data", [])]
    for tier, data in pd.DataFrame(rows, columns=["tier", "task", "split", "samples"]).groupby("tier", sort=True):
        train = data[data["split"] == "train"].groupby("task", sort=False)["samples"]
        words = [f"{task} with {numbers(sizes, 'or')} training texts" for task, sizes in train]
        pools = data.loc[data["split"].str.startswith("pool"), "samples"]
        lines.append(f"{tier} tier: {', '.join(words)}; " + (f"pools of {numbers(pools)} texts" if len(pools) else "no pool"))
    return "\n".join(lines)


def numbers(values: pd.Series, last: str = "and") -> str:
    """Different numbers in words: "600 and 2,400"."""
    *most, end = [f"{value:,}" for value in sorted(set(values))]
    return f"{', '.join(most)} {last} {end}" if most else end


def summary(records: list[dict]) -> pd.DataFrame:
    """One row per tier, task and architecture: best teacher, undistilled student, 1-o-1, m-o-m, MKD and TMKD."""
    frame, every, table = rows_frame(records), rows_frame(records, every=True), []
    ours = frame[(frame["arm"] == "methods") & (frame["kind"] == "student")]
    for tier, here in ours.groupby("tier", sort=True):
        for task in target_first(here):
            for student, rows in sorted(here[here["task"] == task].groupby("student"), key=lambda found: is_bilstm(found[0])):
                same = frame[(frame["tier"] == tier) & (frame["task"] == task)]
                plain = same[(same["kind"] == "undistilled") & (same["student"] == student)]
                best = beside(every, rows, "teachers")
                best = best[best["variant"] == "best"]
                found = {name: points(pick(rows, *what)["score"]) for name, what in (
                    ("1-o-1", ("one", "")), ("m-o-m", ("each", "")), ("MKD", ("many", "")),
                    ("TMKD base", ("many", "base")), ("TMKD large", ("many", "large")))}
                table.append(
                    {"tier": tier, "task": task, "metric": rows["metric"].iloc[0]}
                    | {"student": student_name(student, rows["layers"].iloc[0]), "best teacher": points(best["score"])}
                    | {"not distilled": points(plain["score"])} | found
                    | {"repeats": rows["repeat"].nunique(), "hardware": frames.hardware(PAPER, records, tier)}
                )  # fmt: skip
    return pd.DataFrame(table)
