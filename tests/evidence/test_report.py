"""Records read back, the claims table, the page and the README's spliced numbers."""

import json
import re
from html.parser import HTMLParser

import pytest
from seed_rows import everything, made, record

from mtkd import papers, report
from mtkd.errors import KitError
from mtkd.evidence.verdicts import Verdict
from mtkd.report_page import render, study, write_report


def write(folder, content):
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(content if isinstance(content, str) else json.dumps(content))


def test_read_records_skips_the_damaged_by_name(tmp_path):
    write(tmp_path / "seed_ensemble" / "b", record([]) | {"run": "b"})
    write(tmp_path / "seed_ensemble" / "a", record([]) | {"run": "a"})
    write(tmp_path / "cut", '{"run": "c", ')
    write(tmp_path / "list", "[1, 2]")
    write(tmp_path / "short", {"run": "d"})
    with pytest.warns(report.DamagedRecord) as caught:
        records = report.read_records(tmp_path)
    assert [r["run"] for r in records] == ["a", "b"]
    told = " ".join(str(w.message) for w in caught)
    assert all(f"{name}/record.json" in told for name in ("cut", "list", "short"))
    assert "has no paper, tier, rows" in told


def test_read_records_without_a_folder(tmp_path):
    with pytest.raises(KitError, match="no folder"):
        report.read_records(tmp_path / "nowhere")


def test_claims_table_is_plain_and_fits():
    text = report.claims_table(report.all_verdicts([record(made())]), width=100)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in text
    assert sum(bool(re.match(r"│ S[1-5] ", line)) for line in lines) == 5
    assert "supported" in text
    assert "not tested" in text
    assert "90% interval" in text
    coloured = report.claims_table(report.all_verdicts([record(made())]), width=100, colour=True)
    assert "\x1b[32m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured).split() == text.split()


def test_claims_table_shows_brackets_in_names():
    verdict = Verdict("S1", "open", effect=1.0, n=3, members=2, left_out=("task [bold]x[/bold]",), unit="points")
    assert "[bold]x[/bold]" in " ".join(report.claims_table([verdict], width=160).split())


def test_numbers_for_people():
    assert report.number(-0.001) == "0.00"
    assert report.number(1.256, sign=True) == "+1.26"
    assert report.number(float("nan")) == report.number(None) == "n/a"
    assert report.p_value(0.0001) == "p < 0.001"


def test_claims_as_json():
    verdicts = report.all_verdicts([record(made())])
    working = [claim.id for claim in papers.all_claims() if papers.module(claim.paper)]
    assert sorted(v.claim for v in verdicts) == sorted(working)
    data = json.loads(report.claims_json(verdicts))
    assert [v["claim"] for v in data] == [v.claim for v in verdicts]
    first = next(v for v in data if v["claim"] == "S1")
    assert first["statement"] == papers.load("seed_ensemble").claims[0].statement
    assert len(first["parts"]) == first["members"] == first["passed"]
    assert (first["verdict"], first["as_stated"]) == ("supported", "holds")


def test_a_matrix_has_a_line_per_claim_and_a_column_per_tier():
    verdicts = [Verdict("S1", "supported", tier="demo", members=4, passed=4), Verdict("S2", "not tested"),
                Verdict("S1", "supported", "but below 1 point", tier="small", members=4, passed=1)]  # fmt: skip
    head, _, first, second = report.claims_matrix(verdicts).splitlines()
    assert head == "| claim | the paper says | demo | small |"
    assert first.startswith("| S1 | the worst student")
    assert first.endswith("| supported (4/4) | supported, but below 1 point (1/4) |")
    assert second.endswith("| - | - |")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report's folder by name: on no records, and on some of every paper."""
    folders = {name: tmp_path_factory.mktemp(name) / "out" for name in ("empty", "full")}
    write_report([], folders["empty"])
    write_report(everything(), folders["full"])
    return folders


def test_the_markdown_has_every_verdict_and_run(written):
    records = everything()
    text = (written["full"] / "README.md").read_text()
    found = report.all_verdicts(records)
    assert all(f"| {verdict.claim} |" in text for verdict in found)
    assert f"{sum(v.verdict == 'supported' for v in found)} supported" in text
    assert all(line.count("|") == 8 for line in text.splitlines() if line.startswith("| S"))
    assert all(r["run"] in text for r in records)


class Page(HTMLParser):
    """Ids, references and unclosed tags of a page."""

    def __init__(self):
        super().__init__()
        self.ids, self.references, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.references += [attrs[name] for name in ("src", "href") if name in attrs]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", ["empty", "full"])
def test_page_is_whole_and_self_contained(written, name):
    text = (written[name] / "index.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    for identifier in (entry.id for entry in papers.load("seed_ensemble").exhibits):
        assert identifier in page.ids
    assert all(ref.startswith(("data:image/png;base64,", "#")) for ref in page.references)
    assert {ref[1:] for ref in page.references if ref.startswith("#")} <= set(page.ids)
    assert text.count("data:image/png") == (6 if name == "full" else 0)
    assert len(list((written[name] / "figures").glob("*.png"))) == (7 if name == "full" else 0)
    for paper in ("mt_bert", "rl_kd", "tmkd", "domain_expertise"):
        assert papers.load(paper).title.replace("'", "&#39;") in text
    said = json.loads((written[name] / "claims.json").read_text())
    assert {v["claim"] for v in said} == {claim.id for claim in papers.all_claims() if papers.module(claim.paper)}
    assert "nan" not in re.sub(r"data:image/png;base64,[^\"]*", "", text).lower().replace("finan", "").split()


def test_page_escapes_what_records_say():
    hostile = record(made(3)) | {"run": "<script>alert(1)</script>"}
    hostile["provenance"] = {"command": "<b>x</b>", "hardware": {"cpu": "<i>cpu</i>"}}
    text = render("report.html.j2", study([hostile], [], {}))
    for raw in ("<script>", "<b>x</b>", "<i>cpu</i>"):
        assert raw not in text
    assert "&lt;b&gt;x&lt;/b&gt;" in text


def test_readme_table():
    assert report.readme_table([]) == "No run of this yet.\n"
    lines = [line for line in report.readme_table(everything()).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3
    assert len({line.count("|") for line in lines}) == 1


def test_splice(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("a\n<!-- mtkd:numbers -->\nold\n<!-- /mtkd:numbers -->\nb\n")
    assert report.splice(path, "numbers", "new \\1 | x\n")
    assert path.read_text() == "a\n<!-- mtkd:numbers -->\nnew \\1 | x\n<!-- /mtkd:numbers -->\nb\n"
    assert not report.splice(path, "numbers", "new \\1 | x")
    with pytest.raises(KitError, match="exactly one pair"):
        report.splice(path, "claims", "text")
