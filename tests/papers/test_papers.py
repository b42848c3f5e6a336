"""The papers' data files: ids and counts of exhibits and claims, printed numbers, and the misprints among them."""

from collections import Counter

import pytest

from mtkd import papers
from mtkd.errors import KitError

GLUE = ["MNLI-m", "MNLI-mm", "QQP", "SST-2", "QNLI", "MRPC", "RTE", "CoLA", "STS-B"]


def test_claims_and_exhibits_are_all_there():
    claims, exhibits = papers.all_claims(), papers.all_exhibits()
    assert len({claim.id for claim in claims}) == len(claims) == 36
    assert len({entry.id for entry in exhibits}) == len(exhibits) == 50
    by_paper = Counter(entry.paper for entry in exhibits)
    assert by_paper == {"seed_ensemble": 8, "mt_bert": 6, "rl_kd": 5, "tmkd": 10, "domain_expertise": 21}
    assert all(entry.id.startswith(f"{entry.paper}.") for entry in exhibits)
    letters = {"seed_ensemble": "S", "mt_bert": "M", "rl_kd": "R", "tmkd": "T", "domain_expertise": "D"}
    assert all(claim.id[0] == letters[claim.paper] for claim in claims)
    assert {f"domain_expertise.{name}" for name in ("table5_2", "table5_9", "fig5_1", "fig5_8")} <= {e.id for e in exhibits}


def test_every_published_entry_has_the_form():
    for paper in papers.PAPERS:
        data = papers.load(paper)
        names = {entry.id.split(".")[1] for entry in data.exhibits}
        keys = [(entry["exhibit"], entry["row"], entry["column"]) for entry in data.published]
        assert len(set(keys)) == len(keys)
        for entry in data.published:
            assert set(entry) - {"note"} == {"exhibit", "table", "row", "column", "value", "unit"}
            assert entry["exhibit"] in names
            assert entry["value"] is not None or entry["note"]


def test_table_1_is_complete():
    rows = [entry for entry in papers.load("seed_ensemble").published if entry["exhibit"] == "table1"]
    assert len(rows) == 4 * 7
    assert papers.published_value("seed_ensemble", "table1", "SST-2", "samples train") == 67349
    assert papers.published_value("seed_ensemble", "table1", "MRPC", "tokens test") == 43.5
    assert papers.published_value("seed_ensemble", "table1", "CIFAR-10", "samples validation") is None


def test_table_2_arithmetic_finds_exactly_the_known_misprint():
    scores = {
        model: [papers.published_value("seed_ensemble", "table2", model, column) for column in GLUE]
        for model in ("BERT-base (teacher)", "BERT-small", "DistilBERT", "TinyBERT")
    }
    assert all(isinstance(value, float) for row in scores.values() for value in row)
    assert sum(map(sum, scores.values())) == pytest.approx(715.2 + 631.6 + 647.4 + 688.4)  # row sums added by hand
    found = []
    for model in ("DistilBERT", "TinyBERT"):
        for column, teacher, student in zip(GLUE, scores["BERT-base (teacher)"], scores[model]):
            drop = papers.published_value("seed_ensemble", "table2", model, f"{column} drop")
            if abs(teacher - student - drop) > 0.05:
                found.append((model, f"{column} drop", drop, round(teacher - student, 1)))
    assert found == [("DistilBERT", "MRPC drop", 5.3, 5.1)]
    listed = [m for m in papers.load("seed_ensemble").misprints if m["where"] == "Table 2"]
    assert [(m["row"], m["column"], m["printed"], m["expected"]) for m in listed] == found


def test_the_other_misprints_are_listed():
    listed = papers.load("seed_ensemble").misprints
    assert (30552, 30522) in [(m["printed"], m["expected"]) for m in listed]
    assert "Eq. 9" in [m["where"] for m in listed]


def test_figures_have_no_numbers_but_a_claim():
    for entry in papers.load("seed_ensemble").exhibits:
        if ".fig" in entry.id:
            assert entry.numbers.startswith("not published as numbers")
            assert entry.says
    printed = {entry["exhibit"] for entry in papers.load("seed_ensemble").published}
    assert printed == {"table1", "table2", "fig6"}
    assert papers.published_value("seed_ensemble", "fig6", "CIFAR-10", "teacher") == 93.68
    assert papers.published_value("seed_ensemble", "fig6", "CIFAR-10", "student") == 91.73


def test_unknown_names_are_one_sentence():
    with pytest.raises(KitError, match="no paper 'seed'"):
        papers.load("seed")
    with pytest.raises(KitError, match="no exhibit"):
        papers.exhibit("seed_ensemble.fig9", [])
    with pytest.raises(KitError, match="no exhibit"):
        papers.exhibit("fig9", [])
