"""What claims and exhibits of all papers do alike, on the rows that each paper's own tests make; and their doctests."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from mtkd import papers
from mtkd.errors import KitError
from mtkd.evidence.verdicts import NOT_TESTED
from mtkd.runs.parameters import notebook_path, read_parameters

MODULES = sorted(f"papers.{path.stem}" for path in Path(papers.__file__).parent.glob("*.py") if path.stem != "__init__")


def everything(paper: str) -> list[dict]:
    return import_module(f"test_{paper}").everything()


@pytest.mark.parametrize("module", ["evidence.frame", "study.rows", "train.answers", "papers", *MODULES])
def test_doctests(module):
    found = import_module(f"mtkd.{module}")
    result = doctest.testmod(found)
    assert bool(result.attempted) == (">>> " in Path(found.__file__).read_text(encoding="utf-8"))
    assert not result.failed


@pytest.mark.parametrize("paper", papers.FIVE)
def test_without_records_nothing_is_tested_and_exhibits_say_what_to_run(paper):
    module = papers.module(paper)
    for name, entry in papers.raw(paper)["exhibits"].items():
        exhibit = papers.exhibit(f"{paper}.{name}", [])
        assert exhibit.missing
        assert entry.get("none", f"mtkd run params/{paper}/") in exhibit.caption
    assert [v.verdict for v in module.claims([])] == [NOT_TESTED] * len(papers.load(paper).claims)
    assert module.summary([]).empty


@pytest.mark.parametrize("paper", papers.FIVE)
def test_every_exhibit_is_made(paper):
    records = everything(paper)
    for name, entry in papers.raw(paper)["exhibits"].items():
        exhibit = papers.exhibit(f"{paper}.{name}", records)
        assert exhibit.id == f"{paper}.{name}"
        if (paper, name) == ("rl_kd", "search"):  # one point of a grid is no search
            assert exhibit.missing
            continue
        assert exhibit.is_table or isinstance(exhibit.content, Figure)
        assert "Test CPU" in exhibit.caption
        if not entry.get("extra"):
            assert exhibit.is_table == name.startswith("table")
            assert "Stand-ins for the paper's data" in exhibit.caption or paper != "domain_expertise"
            assert ("The paper prints no numbers for this figure" in exhibit.caption) == bool(entry.get("says"))
        if exhibit.is_table:
            assert not exhibit.content.isna().any().any()
        else:
            assert exhibit.png() == papers.exhibit(exhibit.id, records).png()  # the same records give the same bytes


@pytest.mark.parametrize("paper", papers.FIVE)
@pytest.mark.parametrize("replicates", [1, 2])
def test_no_verdict_from_one_or_two_replicates(paper, replicates):
    (record,) = everything(paper)
    name = papers.paper(paper).rows.replicate
    few = record | {"rows": [row for row in record["rows"] if row[name] < replicates]}
    found = papers.module(paper).claims([few])
    assert {v.verdict for v in found} == {NOT_TESTED}
    assert "not tested: too few" in {v.words for v in found}


@pytest.mark.parametrize("paper", papers.FIVE)
def test_a_list_that_came_as_text_is_refused_before_anything_is_read(paper):
    """papermill -p gives "[0]" as text; design: one sentence with the way out, and no TypeError from arithmetic."""
    usual = {name: p.default for name, p in read_parameters(notebook_path(paper)).items()}
    study = import_module(f"mtkd.papers.{paper}_study")
    replicates = "pools" if paper == "seed_ensemble" else "repeats"
    with pytest.raises(KitError, match=rf"{replicates} is the text '\[0, 1\]': papermill takes a list with -y"):
        study.from_parameters(usual | {replicates: "[0, 1]"})
