"""Beyond RL-KD's tables: does the policy add anything to its start, to chance, to the same epochs without it; the paper's
contradictory readings side by side; what a search on validation chose."""

from __future__ import annotations

import pandas as pd

from mtkd.evidence.frames import missing, paired_table, points
from mtkd.papers import Exhibit
from mtkd.papers.rl_kd_scores import (
    CONTROLS,
    LAYOUT,
    MODEL,
    PAPER,
    READINGS,
    REWARDS,
    RL,
    best_on_validation,
    comparable,
    grid_frame,
    means_on_validation,
    method_name,
    rows_frame,
    short_name,
    starts,
)

P_WORDS = "Score times 100, mean ± standard deviation over repeats; differences in points, paired over repeats, with their t "
P_WORDS += "interval and one-sided p."


def _nothing(name: str, title: str) -> Exhibit:
    return Exhibit(f"{PAPER}.{name}", title, missing(f"{PAPER}.table4").caption)


def _groups(frame: pd.DataFrame):
    """The section "main" by tier, task and student: labels, rows."""
    main = frame[frame["arm"] == "main"]
    for (tier, task, student), rows in main.groupby(["tier", "task", "student"], sort=True):
        yield {"tier": tier, "task": task, "student": short_name(student)}, rows


def start(records: list[dict]) -> Exhibit:
    """What the stage after pre-training adds to the student it starts from: with each reward, and without a policy."""
    title, entries, every = "RL-KD against its own start", [], grid_frame(records)
    for labels, rows in _groups(best_on_validation(every)):
        for variant, name in (*REWARDS.items(), *((v, CONTROLS[v]) for v in ("average_again", "random_policy"))):
            after = rows[(rows["variant"] == variant) & (rows["method"] == "rl")]
            before = starts(every, after)
            if len(after) and len(before):
                entries.append((labels | {"second stage": name}, after, before))
    if not entries:
        return _nothing("start", title)
    words = P_WORDS + " The start is U-Ensemble, the student distilled from the average of all teachers (Algorithm 1, step 1), "
    words += "with the learning rate, T and α of the line it belongs to. "
    words += "What the last two lines gain as well, more epochs gain and not the policy."
    return Exhibit(f"{PAPER}.start", title, words, paired_table(LAYOUT, entries, "after", "start"))


def controls(records: list[dict]) -> Exhibit:
    """RL-KD with reward 3 minus each control of equal compute, and minus plain fine-tuning."""
    title, entries = "negative controls", []
    for labels, rows in _groups(rows_frame(records)):
        ours = rows[(rows["method"] == "rl") & (rows["variant"] == RL)]
        rivals = rows[(rows["kind"] == "control") | (rows["kind"] == "undistilled")]
        for name in ("ft", *CONTROLS):
            theirs = rivals[rivals["kind"] == "undistilled"] if name == "ft" else rivals[rivals["variant"] == name]
            if len(theirs) and len(ours):
                entries.append((labels | {"control": CONTROLS.get(name, "FT, fewer epochs")}, ours, theirs))
    if not entries:
        return _nothing("controls", title)
    table = paired_table(LAYOUT, entries, "RL-KD", "control's score")
    return Exhibit(f"{PAPER}.controls", title, f"{P_WORDS} RL-KD is {REWARDS[RL]}.", table)


def readings(records: list[dict]) -> Exhibit:
    """RL-KD with each of the paper's contradictions read the other way, against the default reading."""
    title = "the paper's contradictions, each read the other way"
    frame = rows_frame(records)
    used, entries = frame[frame["arm"] == "readings"], []
    for (tier, task, student), rows in used.groupby(["tier", "task", "student"], sort=True):
        labels = {"tier": tier, "task": task, "student": short_name(student)}
        full = rows[rows["variant"] == "full"]
        for variant, name in READINGS.items():
            other = rows[rows["variant"] == variant]
            if variant != "full" and len(other) and len(full):
                entries.append((labels | {"reading": name}, other, full))
    if not entries:
        return Exhibit(f"{PAPER}.readings", title, "The section `readings` was not run.")
    words = f"{P_WORDS} All with {REWARDS[RL]}; the default reading is in mtkd/rules/policy.py."
    return Exhibit(f"{PAPER}.readings", title, words, paired_table(LAYOUT, entries, "this reading", "default"))


def search(records: list[dict]) -> Exhibit:
    """What the paper's search over learning rate, T, alpha and gamma chose, and what choosing on the test split would show."""
    title, table = "hyper-parameters chosen on validation", []
    frame = grid_frame(records)
    for _, rows in frame[frame["arm"] == "main"].groupby(MODEL, sort=False, dropna=False):
        if rows["point"].nunique() > 1:
            means = means_on_validation(rows)
            first, chosen = rows.iloc[0], rows[rows["point"] == means.idxmax()]
            tests = comparable(rows).groupby("point")["score"].mean()
            table.append({
                "tier": first["tier"], "task": first["task"], "student": short_name(first["student"]),
                "method": method_name(first), "settings": len(means), "chosen": means.idxmax(),
                "validation": points(chosen["validation"]), "test": points(chosen["score"]),
                "worst to best test score": f"{100 * tests.min():.1f} to {100 * tests.max():.1f}"})
    if not table:
        return Exhibit(f"{PAPER}.search", title, f"No search was run: `mtkd run params/{PAPER}/grid.yaml`.")
    words = "One line per model: of all settings the one with the highest mean score on validation, over the repeats that all "
    words += "of them have, and its scores over all of its own. The last column's upper end is what choosing on the test split "
    words += "would have reported."
    return Exhibit(f"{PAPER}.search", title, words, pd.DataFrame(table))
