"""What every paper's exhibits and claims share: rows as a frame, replicates compared, captions that say what they rest on.

A paper describes its rows once with a `Layout`; everything here reads that and knows no paper by name.
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mtkd.evidence.stats import holm, paired
from mtkd.evidence.verdicts import NOT_TESTED, Verdict
from mtkd.papers import Exhibit, exhibit_entry, load
from mtkd.store.files import canonical, text_hash

TIMES = ("train_s", "score_s", "intermediate_s", "teachers_s")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Layout:
    """How one paper's rows become a frame.

    plain: fields of a row that become columns. identity: columns that, with tier and setting, name one trained model.
    replicate: the column that numbers independent repetitions, `replicates` the word for them. group: within which
    only one set of parameters is ever shown. may_differ: parameters in which records of one experiment may differ.
    convert: field to a function that makes its value hashable (lists become tuples). measured: arms whose rows are
    measurements, of which every run's are kept, since two runs may have found the machine busy in different ways.
    """

    paper: str
    plain: tuple[str, ...]
    identity: tuple[str, ...]
    replicate: str
    replicates: str
    may_differ: tuple[str, ...] = ()
    group: tuple[str, ...] = ("tier", "arm", "task")
    convert: dict[str, Callable] = field(default_factory=dict)
    measured: tuple[str, ...] = ()


def rows_frame(layout: Layout, records: list[dict], every: bool = False) -> pd.DataFrame:
    """All rows of a paper's records as one frame, one trained model per row; of duplicates the first is kept.

    The four times become columns of their own, in seconds; tier, run and setting are added. Records made with different
    parameters (another learning rate, another student) are different experiments and are never pooled: per group the
    parameters with the most replicates are kept and a warning names the rest, or with `every` all of them are kept, told
    apart by the column `setting`. Of equals those that trained most on this tier and task, so that its arms come from one
    experiment where they can (and not from a run that only counted samples, say); else the last run's.
    """
    rows = []
    for record in records:
        if record.get("paper") != layout.paper:
            continue
        same = {k: v for k, v in (record.get("parameters") or {}).items() if k not in layout.may_differ}
        setting = text_hash(canonical(same))[:12]
        for row in record.get("rows", []):
            if row.get("kind") == "floor":  # what any model must beat has a table of its own, mtkd/evidence/floor_table.py
                continue
            flat = {name: row.get(name) for name in layout.plain}
            flat |= {name: float((row.get("time") or {}).get(name) or 0.0) for name in TIMES}
            flat |= {name: make(row.get(name)) for name, make in layout.convert.items()}
            rows.append(flat | {"tier": record.get("tier", ""), "run": record.get("run", ""), "setting": setting})
    frame = pd.DataFrame(rows, columns=[*layout.plain, *TIMES, "tier", "run", "setting"])
    if not every:
        frame = _one_setting(layout, frame)
    own_run = frame["run"].where(frame["arm"].isin(layout.measured))
    identity = frame[["tier", *layout.identity, "setting"]].assign(own_run=own_run)
    return frame[~identity.duplicated()].reset_index(drop=True)


def _one_setting(layout: Layout, frame: pd.DataFrame) -> pd.DataFrame:
    kept, size = [], frame.groupby(["tier", "task", "setting"]).size()
    for names, rows in frame.groupby(list(layout.group), sort=False):
        found = rows.groupby("setting", sort=False)[layout.replicate].nunique()
        tied = found[found == found.max()].index[::-1]
        chosen = max(tied, key=lambda setting: size[rows["tier"].iloc[0], rows["task"].iloc[0], setting])
        if len(found) > 1:
            warnings.warn(f"{' '.join(map(str, names))} was run with {len(found)} sets of parameters; the one with the most "
                          f"{layout.replicates} ({found.max()}) is shown and the others are left out.", stacklevel=1)
        kept.append(rows[rows["setting"] == chosen])
    return pd.concat(kept, ignore_index=True) if kept else frame


def points(scores: pd.Series) -> str:
    """Mean ± sample standard deviation of scores times 100, one decimal; "n/a" for none, no ± for one.

    >>> points(pd.Series([0.70, 0.72]))
    '71.0 ± 1.4'
    """
    values = 100 * scores.dropna().astype(float)
    if not len(values):
        return "n/a"
    return f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")


def differences(ours: pd.DataFrame, rival: pd.DataFrame, replicate: str, column: str = "score") -> np.ndarray:
    """Ours minus rival in points, one number per replicate that both have (each the mean over its models), [n]."""
    both = ours.groupby(replicate)[column].mean() - rival.groupby(replicate)[column].mean()
    return 100 * both.dropna().to_numpy(dtype=float)


def margin_points(metric: str, margin: float) -> float:
    """An equivalence margin in points; twice as wide for MCC, whose scale from -1 to 1 is twice as long."""
    return 100 * margin * (2 if metric == "mcc" else 1)


def paired_table(
    layout: Layout, entries: Iterable[tuple[dict, pd.DataFrame, pd.DataFrame]], ours: str, theirs: str
) -> pd.DataFrame:
    """Two arms side by side, one line per (labels, our rows, their rows): scores, difference, interval, p after Holm.

    Differences are paired over replicates, the test is the one-sided t-test for ours being better, and Holm's
    correction runs over all lines of the table.
    """
    table = []
    for labels, mine, other in entries:
        result = paired(differences(mine, other, layout.replicate), "greater", level=0.95)
        table.append(
            labels | {ours: points(mine["score"]), theirs: points(other["score"])}
            | {"difference": f"{result.mean:+.1f}" if result.n else "n/a"}
            | {"95% interval": "[{:+.1f}, {:+.1f}]".format(*result.interval) if result.n > 1 else "n/a"}
            | {layout.replicates: result.n, "p": result.p}
        )  # fmt: skip
    frame = pd.DataFrame(table)
    if len(frame):
        tested = frame["p"].notna()
        frame.loc[tested, "p"] = holm(frame.loc[tested, "p"].to_list())
        frame["p (Holm)"] = [f"{p:.3f}" if pd.notna(p) else "n/a" for p in frame.pop("p")]
    return frame


# --- words ------------------------------------------------------------------------------------------------------------


def is_stand_in(task: str) -> bool:
    """True for the kit's offline tasks, which stand in for the papers' data sets."""
    return task.startswith("pydocs/") or task == "digits"


def plain_name(task: str) -> str:
    """The last part of a task's name in small letters and digits only: "glue/SST-2" gives "sst2"."""
    return "".join(c for c in task.rsplit("/", 1)[-1].lower() if c.isalnum())


def hardware(paper: str, records: list[dict], tier: str | None = None) -> str:
    """The machines that a paper's records (of one tier) were made on, in words."""
    seen = []
    for record in records:
        if record.get("paper") != paper or (tier is not None and record.get("tier") != tier):
            continue
        machine = (record.get("provenance") or {}).get("hardware") or {}
        words = f"{machine.get('cpu') or 'unknown CPU'}, {machine.get('cores', '?')} cores"
        words += f", {machine['gpu']}" if machine.get("gpu") else ""
        if words not in seen:
            seen.append(words)
    return "; ".join(seen)


def missing(identifier: str) -> Exhibit:
    """An exhibit that no record has anything for: its caption says what to run."""
    paper, name = identifier.split(".", 1)
    caption = f"No run of this yet: `mtkd run params/{paper}/demo.yaml`, or at the paper's own scale "
    return Exhibit(identifier, exhibit_entry(identifier).in_paper, caption + f"`mtkd run params/{paper}/{name}.yaml`.")


def made(identifier: str, frame: pd.DataFrame, records: list[dict], content, words: str, replicates: str = "") -> Exhibit:
    """An exhibit whose caption also says replicates, stand-ins, what the paper says in words, and the hardware."""
    entry = exhibit_entry(identifier)
    stand_ins = [task for task in sorted(frame["task"].unique()) if is_stand_in(task)]
    parts = [words, replicates]
    if stand_ins:
        parts.append(f"Stand-ins for the paper's data: {', '.join(stand_ins)}.")
    if entry.says:
        exception = entry.numbers.removeprefix("not published as numbers")
        parts.append(f"The paper prints no numbers for this figure{exception}; what it says: {entry.says}.")
    machines = hardware(entry.paper, records)
    parts.append(f"Hardware: {machines}." if machines else "")
    return Exhibit(identifier, entry.in_paper, " ".join(part for part in parts if part), content)


def split_counts(rows: pd.DataFrame, column: str, digits: int = 0) -> str:
    """"3668 / 408 / 1725" from a data table's rows of one task, by split; a dash where there is no such number."""
    ours = rows.set_index("split")
    values = [ours[column].get(split) if column in ours else None for split in SPLITS]
    return " / ".join("-" if value is None or pd.isna(value) else f"{value:.{digits}f}" for value in values)


def data_note(layout: Layout, frame: pd.DataFrame, what: str = "") -> str:
    """What a verdict stood on: number of replicates, then `what`, then the tasks, stand-ins named as such."""
    counts = frame.groupby("arm")[layout.replicate].nunique()
    low, high = counts.min(), counts.max()
    words = f"{low}" if low == high else f"{low} to {high}"
    words += f" {layout.replicates.removesuffix('s') if high == 1 else layout.replicates}"
    tasks = sorted(frame["task"].unique())
    stand_ins = [task for task in tasks if is_stand_in(task)]
    own = ", ".join(task for task in tasks if task not in stand_ins)
    parts = [own, f"{', '.join(stand_ins)} (standing in for the paper's data)" if stand_ins else ""]
    return f"{words}; {what + ' ' if what else ''}on {'; '.join(part for part in parts if part)}"


def in_order(paper: str, verdicts: list[Verdict]) -> list[Verdict]:
    """Verdicts sorted by tier and claim; a claim of the paper that has none gets "not tested", which says what to run."""
    note = f"no run of this yet: `mtkd run params/{paper}/demo.yaml`"
    names = {verdict.claim for verdict in verdicts}
    rest = [Verdict(claim.id, NOT_TESTED, note=note) for claim in load(paper).claims if claim.id not in names]
    return sorted([*verdicts, *rest], key=lambda verdict: (verdict.tier, verdict.claim))
