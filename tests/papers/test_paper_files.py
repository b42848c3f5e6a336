"""Every query, column and label of the papers' data files, tried on the committed records: a wrong one fails here."""

import string
import warnings
from functools import cache

import pytest

from mtkd import papers, report
from mtkd.evidence.paper import Paper

READY = [name for name in papers.PAPERS if isinstance(getattr(papers.module(name), "PAPER", None), Paper)]
CONTRASTS = [(name, claim, number) for name in READY for claim, entry in papers.raw(name)["claims"].items()
             for number in range(len(entry.get("contrasts", ())))]
EXHIBITS = [(name, shown) for name in READY for shown in papers.raw(name)["exhibits"]]


@cache
def paper(name: str) -> Paper:
    return papers.module(name).PAPER


@cache
def frame(name: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return paper(name).frame(report.read_committed(name))


@pytest.mark.parametrize(("name", "claim", "number"), CONTRASTS)
def test_contrasts_ask_for_columns_that_exist(name, claim, number):
    contrast, rows = paper(name).contrasts(claim)[number], frame(name)
    rows.query(contrast.ours)
    rows.query(contrast.theirs)
    assert {*contrast.by, *contrast.each, *contrast.over, contrast.value} <= set(rows.columns)
    assert contrast.pairs in ("", *paper(name).pairs)
    named = {field for _, field, _, _ in string.Formatter().parse(contrast.label) if field}
    theirs = {f"their_{column}" for column in (*contrast.by, *contrast.over)}
    assert named <= {"ours", "theirs", *contrast.by, *contrast.each, *theirs}


@pytest.mark.parametrize("name", READY)
def test_every_claim_can_be_tested(name):
    for claim, entry in paper(name).data["claims"].items():
        assert entry.get("contrasts") or claim in paper(name).parts, claim
        assert entry.get("holds", "every") in ("every", "some")
        frame(name).query(entry["rows"]) if "rows" in entry else None
    assert {*paper(name).parts, *paper(name).notes} <= set(paper(name).data["claims"])


@pytest.mark.parametrize(("name", "shown"), EXHIBITS)
def test_exhibits_ask_for_columns_that_exist(name, shown):
    entry, rows = paper(name).data["exhibits"][shown], frame(name)
    rows = rows.assign(name=[paper(name).label(row) for _, row in rows.iterrows()])  # every row has a name
    for query in ("rows", "must"):
        rows.query(entry[query]) if query in entry else None
    columns = {entry[word] for word in ("bar", "x", "hue") if word in entry}
    assert {*columns, *entry.get("order", ()), *entry.get("lines", ())} <= set(rows.columns)
    for against in entry.get("against", ()):
        rows.query(against["ours"])
        rows.query(against["theirs"])
        assert {*against["by"], *against.get("over", ())} <= set(rows.columns)
    assert callable(paper(name).drawing(entry["draw"]))
    if "printed" in entry:
        assert any(number["exhibit"] == entry["printed"] for number in paper(name).published)
