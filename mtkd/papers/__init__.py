"""The five papers as data (claims, exhibits, printed numbers) and the shape every paper's exhibits come in.

Each paper has `<paper>.yaml` here. A paper that works also has a module `mtkd.papers.<paper>` with

    EXHIBITS: dict[str, Callable[[list[dict]], Exhibit]]     one function per exhibit id, from records
    claims(records, ...) -> list[Verdict]                    one verdict per claim and tier
    EXTRAS, summary                                          optional: further exhibits; the README's table

and nothing else in the kit knows a paper by name.
"""

import base64
import importlib
import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from types import ModuleType

import pandas as pd
import yaml

from mtkd.errors import KitError

PAPERS = ("seed_ensemble", "mt_bert", "rl_kd", "tmkd", "domain_expertise")


@dataclass(frozen=True)
class Claim:
    """One claim; kind says which test it asks for, status "working" that the kit has one."""

    id: str
    paper: str
    statement: str
    kind: str
    status: str


@dataclass(frozen=True)
class ExhibitEntry:
    """One table or figure of a paper; `says` is its qualitative claim where no numbers were printed."""

    id: str
    paper: str
    in_paper: str
    regenerates: str
    status: str
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


@dataclass(frozen=True)
class Exhibit:
    """A regenerated table or figure: content is a DataFrame, a matplotlib Figure, or None where there is no run yet.

    Displayed by a notebook as its title, its content (the figure as a PNG) and its caption.
    """

    id: str
    title: str
    caption: str
    content: object = None

    @property
    def missing(self) -> bool:
        return self.content is None

    @property
    def is_table(self) -> bool:
        return isinstance(self.content, pd.DataFrame)

    def png(self, dpi: int = 100) -> bytes:
        """The figure as PNG bytes, without a time stamp, so that the same figure gives the same bytes."""
        buffer = io.BytesIO()
        self.content.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
        return buffer.getvalue()

    def data_uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png()).decode()

    def _ipython_display_(self):
        from IPython.display import Image, Markdown, display

        display(Markdown(f"**{self.id}: {self.title}**"))
        if self.is_table:
            display(self.content)
        elif not self.missing:
            display(Image(data=self.png(), format="png"))
        display(Markdown(self.caption))


@cache
def load(paper: str) -> PaperData:
    """The data file of one paper; KitError where there is no such paper.

    >>> load("seed_ensemble").claims[0].id
    'S1'
    """
    if paper not in PAPERS:
        raise KitError(f"There is no paper {paper!r}; the five are {', '.join(PAPERS)}.")
    raw = yaml.safe_load(resources.files(__package__).joinpath(f"{paper}.yaml").read_text(encoding="utf-8"))
    return PaperData(
        paper, raw["title"], raw["authors"],
        tuple(Claim(paper=paper, **claim) for claim in raw["claims"]),
        tuple(ExhibitEntry(paper=paper, **entry) for entry in raw["exhibits"]),
        tuple(raw["published"]), tuple(raw["misprints"]), tuple(raw.get("notes", ())),
    )  # fmt: skip


def module(paper: str) -> ModuleType | None:
    """The paper's module, or None while the paper is only planned."""
    if importlib.util.find_spec(f"{__package__}.{paper}") is None:
        return None
    return importlib.import_module(f"{__package__}.{paper}")


def all_claims() -> list[Claim]:
    """The 36 claims of the five papers, in order."""
    return [claim for paper in PAPERS for claim in load(paper).claims]


def all_exhibits() -> list[ExhibitEntry]:
    """The 50 exhibits of the five papers, in order."""
    return [entry for paper in PAPERS for entry in load(paper).exhibits]


def exhibit_entry(identifier: str) -> ExhibitEntry:
    """The entry of one exhibit id such as "seed_ensemble.fig2"; KitError where there is none."""
    for entry in all_exhibits():
        if entry.id == identifier:
            return entry
    raise KitError(f"There is no exhibit {identifier!r}; `mtkd exhibits` lists all of them.")


def exhibit(identifier: str, records: list[dict]) -> Exhibit:
    """Regenerate one exhibit from records; an `Exhibit` without content where the paper is planned or has no run."""
    entry = exhibit_entry(identifier)
    found = module(entry.paper)
    make: Callable | None = found.EXHIBITS.get(identifier) if found else None
    if make is None:
        return Exhibit(identifier, entry.in_paper, "planned: not part of the kit yet")
    return make(records)


def published_value(paper: str, table: str, row: str, column: str) -> float | None:
    """The number a paper prints in that table, row and column (printed labels); None where it prints none.

    >>> published_value("seed_ensemble", "table2", "TinyBERT", "QQP drop")
    -0.2
    """
    for entry in load(paper).published:
        if (entry["exhibit"], entry["row"], entry["column"]) == (table, row, column):
            return entry["value"]
    return None


def published_beside_ours(ours: pd.DataFrame, paper: str, table: str) -> pd.DataFrame:
    """Add a column "paper" to a table with columns "row" and "column" (printed labels) and any of ours beside them."""
    values = [published_value(paper, table, row, column) for row, column in zip(ours["row"], ours["column"])]
    return ours.assign(paper=pd.array(values, dtype="object"))
