"""Papers as data (claims, exhibits, printed numbers) and the shape every paper's exhibits come in.

Each paper has `<paper>.yaml` here (`mtkd.evidence.paper` says what may stand in it) and a module `mtkd.papers.<paper>` with
the few functions that data cannot say and PAPER, which puts both together; nothing else in the kit knows a paper by name.
"""

import importlib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from types import ModuleType

import pandas as pd
import yaml

from mtkd.errors import KitError
from mtkd.evidence.exhibits import Exhibit
from mtkd.evidence.floor_table import Floors
from mtkd.evidence.paper import Paper

FAMILY = 36  # claims of the five papers, which share Holm's correction
FIVE = ("seed_ensemble", "mt_bert", "rl_kd", "tmkd", "domain_expertise")
FOUND = {path.name.removesuffix(".yaml") for path in resources.files(__package__).iterdir() if path.name.endswith(".yaml")}
PAPERS = (*FIVE, *sorted(FOUND - set(FIVE)))  # a paper of one's own is a YAML file and a module in this folder


@dataclass(frozen=True)
class Claim:
    """One claim; kind says which test it asks for, status "working" that the kit has one."""

    id: str
    paper: str
    statement: str
    kind: str
    status: str = "working"


@dataclass(frozen=True)
class ExhibitEntry:
    """One table or figure of a paper; `says` is its qualitative claim where no numbers were printed."""

    id: str
    paper: str
    in_paper: str
    regenerates: str
    status: str = "working"
    numbers: str = ""
    says: str = ""


@dataclass(frozen=True)
class PaperData:
    """One paper's data file. `published` holds one dictionary per printed number (see `published_value`)."""

    paper: str
    title: str
    authors: str
    claims: tuple[Claim, ...]
    exhibits: tuple[ExhibitEntry, ...]
    published: tuple[dict, ...] = field(repr=False)
    misprints: tuple[dict, ...] = ()
    notes: tuple[str, ...] = ()


@cache
def raw(paper: str) -> dict:
    """The data file of one paper as it stands; KitError where there is no such paper."""
    if paper not in PAPERS:
        raise KitError(f"There is no paper {paper!r}; the five are {', '.join(PAPERS)}.")
    return yaml.safe_load(resources.files(__package__).joinpath(f"{paper}.yaml").read_text(encoding="utf-8"))


def read(paper: str, **functions) -> Paper:
    """A paper's data file with the functions that stand beside it (see `evidence.paper.Paper`)."""
    return Paper(paper, raw(paper), family=FAMILY if paper in FIVE else 0, **functions)


@cache
def load(paper: str) -> PaperData:
    """What one paper claims and shows; KitError where there is no such paper.

    >>> load("seed_ensemble").claims[0].id
    'S1'
    """
    data = raw(paper)
    claims = [Claim(name, paper, entry["says"], entry.get("kind", "superiority")) for name, entry in data["claims"].items()]
    shown = [ExhibitEntry(f"{paper}.{name}", paper, entry["title"], entry.get("regenerates", ""),
                          numbers=entry.get("numbers", ""), says=entry.get("says", ""))
             for name, entry in data["exhibits"].items() if not entry.get("extra")]
    return PaperData(paper, data["title"], data["authors"], tuple(claims), tuple(shown), tuple(data["published"]),
                     tuple(data["misprints"]), tuple(data.get("notes", ())))


def module(paper: str) -> ModuleType | None:
    """The paper's module: PAPER, and claims, exhibit, rows_frame and summary of it. None where a record is of no paper."""
    return importlib.import_module(f"{__package__}.{paper}") if paper in PAPERS else None


def all_claims() -> list[Claim]:
    """The 36 claims of the five papers, in order."""
    return [claim for paper in PAPERS for claim in load(paper).claims]


def all_exhibits() -> list[ExhibitEntry]:
    """The 50 exhibits of the five papers, in order."""
    return [entry for paper in PAPERS for entry in load(paper).exhibits]


def paper(name: str) -> Paper:
    """A paper: its data file and the functions beside it."""
    return module(name).PAPER


def extras(name: str) -> list[str]:
    """Ids of what the kit shows beside a paper's own exhibits: controls and the like."""
    return paper(name).extras()


def exhibit(identifier: str, records: list[dict]) -> Exhibit:
    """Regenerate one exhibit, or extra, from records; an `Exhibit` without content where there is no run."""
    name, _, short = identifier.partition(".")
    if name not in PAPERS or short not in raw(name)["exhibits"]:
        raise KitError(f"There is no exhibit {identifier!r}; `mtkd exhibits` lists all of them.")
    return paper(name).exhibit(short, records)


def _floors(records: list[dict]) -> list[Floors]:
    """Of each paper that there are records of, what its models must beat; a notebook of one's own may be no paper's."""
    return [Floors(paper(name), records) for name in dict.fromkeys(record["paper"] for record in records) if name in PAPERS]


def floor_table(records: list[dict]) -> pd.DataFrame:
    """One line per paper, tier and task: see `evidence.floor_table.Floors.table`."""
    tables = [found for floors in _floors(records) if len(found := floors.table())]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["paper", "tier", "task"])


def floor_sentences(records: list[dict]) -> list[str]:
    """What came out, in three sentences per paper, tier and task."""
    return [words for floors in _floors(records) for words in floors.sentences()]


def published_value(paper: str, table: str, row: str, column: str) -> float | None:
    """The number a paper prints in that table, row and column (printed labels); None where it prints none.

    >>> published_value("seed_ensemble", "table2", "TinyBERT", "QQP drop")
    -0.2
    """
    found = (n["value"] for n in raw(paper)["published"] if (n["exhibit"], n["row"], n["column"]) == (table, row, column))
    return next(found, None)
