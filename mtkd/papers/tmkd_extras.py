"""Beyond TMKD's own exhibits: negative controls, everything measured about speed, and the README's summary."""

import pandas as pd

from mtkd.papers import Exhibit, frames
from mtkd.papers.frames import paired_table, points
from mtkd.papers.tmkd_scores import (
    CONTROLS,
    LAYOUT,
    PAPER,
    is_bilstm,
    largest_pool,
    pick,
    row_name,
    rows_frame,
    student_name,
    target_first,
)
from mtkd.papers.tmkd_tables import million, per_second


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
    words += "learned nothing from its teachers."
    table = paired_table(LAYOUT, entries, "TMKD", "control's score")
    return Exhibit(f"{PAPER}.controls", "negative controls", words, table)


def speed(records: list[dict]) -> Exhibit:
    """Everything that was measured about speed, teachers and students by the same ruler."""
    frame = rows_frame(records)
    used = frame[frame["arm"] == "speed"]
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
    words += "batch size of a few tried and the fastest kept. Weights: the memory that parameters and buffers take."
    return Exhibit(f"{PAPER}.speed", "inference speed", words, pd.DataFrame(rows))


def summary(records: list[dict]) -> pd.DataFrame:
    """One row per tier, task and architecture: best teacher, undistilled student, 1-o-1, m-o-m, MKD and TMKD."""
    frame, table = rows_frame(records), []
    ours = frame[(frame["arm"] == "methods") & (frame["kind"] == "student")]
    for tier, here in ours.groupby("tier", sort=True):
        for task in target_first(here):
            for student, rows in sorted(here[here["task"] == task].groupby("student"), key=lambda found: is_bilstm(found[0])):
                same = frame[(frame["tier"] == tier) & (frame["task"] == task)]
                plain = same[(same["kind"] == "undistilled") & (same["student"] == student)]
                best = same[(same["arm"] == "teachers") & (same["variant"] == "best")]
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
