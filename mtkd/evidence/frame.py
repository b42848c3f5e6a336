"""Records as one tidy frame, a row per trained model, for any paper; and the words and cells that are made from its rows.

What is special about a paper's rows stands in its YAML under `rows` and is read into `Rows`; nothing here knows a paper.
"""

import hashlib
import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

TIMES = ("train_s", "score_s", "intermediate_s", "teachers_s")
SPLITS = ("train", "validation", "test")
COMMON = ("arm", "task", "kind", "method", "variant", "model", "metric", "score", "validation", "n_test", "parameters",
          "energy_kwh", "folder", "one_answer", "right")  # columns that a frame has even where no row has them
FREE = ("repeats", "pools", "sections", "controls", "margin")


@dataclass(frozen=True)
class Rows:
    """How one paper's rows become a frame.

    identity: columns that, with tier and setting, name one trained model. replicate: the column that numbers independent
    repetitions. group: within which only one set of parameters is ever shown. free: parameters, besides FREE, in which records
    of one experiment may differ. blank: columns of text in which "nothing" is "" (a query cannot ask for a missing value).
    columns: further columns that queries ask for, which exist even where no row has them.
    measured: arms whose rows are measurements, of which every run's are kept, since two runs may have found the machine busy
    in different ways. parameters: those of a record that become columns of its rows.
    """

    paper: str
    identity: tuple[str, ...] = ("arm", "task", "kind", "method", "variant", "repeat")
    replicate: str = "repeat"
    group: tuple[str, ...] = ("tier", "arm", "task")
    free: tuple[str, ...] = ()
    blank: tuple[str, ...] = ("variant",)
    columns: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()


def flat(row: dict) -> dict:
    """A row of a record without nesting: lists become tuples, metrics and times columns of their own, and the entries of any
    other dictionary columns like "recalls physics"."""
    found = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= {key if name in ("metrics", "time") else f"{name} {key}": tuple(v) if isinstance(v, list) else v
                      for key, v in value.items()}
        else:
            found[name] = tuple(value) if isinstance(value, list) else value
    return found


def all_rows(rows: Rows, records: list[dict], floors: bool = False) -> pd.DataFrame:
    """All rows of a paper's records as one frame, with tier, run and setting (a hash of the parameters), doubles and all; those
    of kind "floor" only with `floors`."""
    found = []
    for record in records:
        if record.get("paper") == rows.paper:
            same = {k: v for k, v in (record.get("parameters") or {}).items() if k not in FREE + rows.free}
            text = json.dumps(same, sort_keys=True, default=str)
            source = {"tier": record.get("tier", ""), "run": record.get("run", ""),
                      **{name: (record.get("parameters") or {}).get(name) for name in rows.parameters},
                      "setting": hashlib.sha256(text.encode()).hexdigest()[:12]}
            found += [flat(row) | source for row in record.get("rows", []) if floors or row.get("kind") != "floor"]
    always = [*COMMON, *rows.identity, *rows.blank, *rows.columns, *rows.parameters, *TIMES, "tier", "run", "setting"]
    frame = pd.DataFrame(found, columns=list(dict.fromkeys([*always, *(name for row in found for name in row)])))
    for name in frame:
        values = frame[name]
        if name in TIMES:
            frame[name] = values.fillna(0.0).astype(float)
        elif name in rows.blank:
            frame[name] = values.astype(object).where(values.notna(), "")
        elif values.map(type).eq(tuple).any():
            frame[name] = [value if isinstance(value, tuple) else () for value in values]
    return frame


def rows_frame(rows: Rows, records: list[dict], every: bool = False) -> pd.DataFrame:
    """All rows of a paper's records as one frame, one trained model per row; of duplicates the first is kept.

    Records made with different parameters (another learning rate, another student) are different experiments and are never
    pooled: per group the parameters with the most replicates are kept and a warning names the rest, or with `every` all of them
    are kept, told apart by the column `setting`. Of equals those that trained most on this tier and task, so that its arms come
    from one experiment where they can (and not from a run that only counted samples, say); else the last run's. Floors are left
    out: see `floor_table`.
    """
    frame = all_rows(rows, records)
    if not every:
        frame = _one_setting(rows, frame)
    identity = frame[["tier", *rows.identity, "setting"]].assign(own_run=frame["run"].where(frame["arm"].isin(rows.measured)))
    return frame[~identity.duplicated()].reset_index(drop=True)


def _one_setting(rows: Rows, frame: pd.DataFrame) -> pd.DataFrame:
    kept, size = [], frame.groupby(["tier", "task", "setting"]).size()
    for names, part in frame.groupby(list(rows.group), sort=False):
        found = part.groupby("setting", sort=False)[rows.replicate].nunique()
        tied = found[found == found.max()].index[::-1]
        tier, task = part["tier"].iloc[0], part["task"].iloc[0]
        if len(found) > 1:
            warnings.warn(f"{' '.join(map(str, names))} was run with {len(found)} sets of parameters; the one with the most "
                          f"{rows.replicate}s ({found.max()}) is shown and the others are left out.", stacklevel=1)
        kept.append(part[part["setting"] == max(tied, key=lambda setting: size[tier, task, setting])])
    return pd.concat(kept, ignore_index=True) if kept else frame


# --- numbers ------------------------------------------------------------------------------------------------------------


def points(scores: pd.Series) -> str:
    """Mean ± sample standard deviation of scores times 100, one decimal; "n/a" for none, no ± for one.

    >>> points(pd.Series([0.70, 0.72]))
    '71.0 ± 1.4'
    """
    values = 100 * scores.dropna().astype(float)
    if not len(values):
        return "n/a"
    return f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")


def signed(values: pd.Series) -> str:
    """Mean ± sample standard deviation of differences in points, with a sign.

    >>> signed(pd.Series([0.005, 0.01]))
    '+0.75 ± 0.35'
    """
    found = 100 * values.dropna().astype(float)
    return f"{found.mean() + 0.0:+.2f}" + (f" ± {found.std(ddof=1):.2f}" if len(found) > 1 else "")


def million(parameters: pd.Series) -> str:
    """Parameters in millions, a range where the models of a line differ (tasks with other numbers of classes)."""
    low, high = (f"{n / 1e6:.4g}" if n >= 1e6 else f"{n / 1e6:.3g}" for n in (parameters.min(), parameters.max()))
    return low if low == high else f"{low} to {high}"


def per_second(values: pd.Series) -> str:
    """A speed: three digits, ± the standard deviation over repeats (two digits).

    >>> per_second(pd.Series([10_630.0, 11_090.0]))
    '10,900 ± 330'
    """
    mean, sd = float(f"{values.mean():.3g}"), float(f"{values.std(ddof=1):.2g}") if len(values) > 1 else None
    return " ± ".join(f"{value:,.0f}" if value >= 100 else f"{value:g}" for value in (mean, sd) if value is not None)


WORDS = {"points": points, "signed": signed, "million": million, "per second": per_second,
         "median": lambda values: f"{values.median():g}", "mean": lambda values: f"{values.mean():.3g}",
         "first": lambda values: values.iloc[0], "number": lambda values: values.nunique()}  # as YAML files name them


def differences(ours: pd.DataFrame, theirs: pd.DataFrame, replicate: str = "repeat", value: str = "score") -> pd.Series:
    """Ours minus theirs in points, one number per replicate that both have (each the mean over its models)."""
    both = ours.groupby(replicate)[value].mean() - theirs.groupby(replicate)[value].mean()
    return 100 * both.dropna().astype(float)


def in_order(frame: pd.DataFrame, order: dict[str, list | None]) -> pd.DataFrame:
    """Rows sorted by the columns named in `order`: by the place of a value in the list, values that it lacks first; by the
    value itself where there is no list. Equals keep their order."""
    keys = {f"key {i}": frame[name] if values is None else frame[name].map(lambda v, values=values: values.index(v)
                                                                       if v in values else -1)
            for i, (name, values) in enumerate(order.items())}
    if not keys or frame.empty:
        return frame
    return frame.loc[pd.DataFrame(keys, index=frame.index).sort_values(list(keys), kind="stable").index]


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
        if record.get("paper") == paper and tier in (None, record.get("tier")):
            machine = (record.get("provenance") or {}).get("hardware") or {}
            seen.append(f"{machine.get('cpu') or 'unknown CPU'}, {machine.get('cores', '?')} cores"
                        + (f", {machine['gpu']}" if machine.get("gpu") else ""))
    return "; ".join(dict.fromkeys(seen))


def split_counts(rows: pd.DataFrame, column: str, digits: int = 0) -> str:
    """"3668 / 408 / 1725" from a data table's rows of one task, by split; a dash where there is no such number."""
    ours = rows.set_index("split")
    values = [ours[column].get(split) if column in ours else None for split in SPLITS]
    return " / ".join("-" if value is None or pd.isna(value) else f"{value:.{digits}f}" for value in values)


def stood_on(parts: Iterable[pd.DataFrame], replicate: str) -> str:
    """What a verdict stood on: the number of replicates, and the tasks, stand-ins named as such. parts: our rows by setting."""
    parts = list(parts)
    counts, tasks = [part[replicate].nunique() for part in parts], sorted({t for part in parts for t in part["task"].unique()})
    low, high = min(counts), max(counts)
    words = (f"{low}" if low == high else f"{low} to {high}") + f" {replicate}{'' if high == 1 else 's'}"
    stand_ins = ", ".join(task for task in tasks if is_stand_in(task))
    own = ", ".join(task for task in tasks if not is_stand_in(task))
    stand_ins = f"{stand_ins} (standing in for the paper's data)" if stand_ins else ""
    return f"{words}; on {'; '.join(filter(None, [own, stand_ins]))}"
