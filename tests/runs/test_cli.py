"""The command as a user meets it: exit statuses, one sentence for a mistake, nothing started by a wrong grid."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from seed_rows import made, record
from test_grid import Place

from mtkd import cli
from mtkd.runs import records


@pytest.fixture
def place(tmp_path, monkeypatch):
    made = Place(tmp_path)
    monkeypatch.setenv("MTKD_TEST_LOG", str(made.log))
    monkeypatch.setenv("MTKD_NOTEBOOKS", str(tmp_path / "notebooks"))
    monkeypatch.setenv("MTKD_RESULTS", str(made.results))
    return made


@pytest.fixture
def mtkd(monkeypatch, capsys):
    """Call the command; gives exit status, standard output and standard error."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["mtkd", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        return int(caught.value.code or 0), said.out, said.err

    return call


def test_help():
    done = subprocess.run([sys.executable, "-m", "mtkd.cli", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert {"run", "report", "claims", "exhibits", "params"} <= set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-p", "epochs_typo", "3"], "there is no parameter 'epochs_typo'; did you mean 'epochs'?"),
        (["-p", "epochs=many"], "epochs is 'many', a str, where the notebook has int"),
        (["-p", "lr", "'1e-4'"], "remove the quotes"),
        (["-p", "epochs"], "-p needs a name and a value"),
        (["-p", "epochs", "[1"], "'[1' is not a value"),
    ],
)
def test_wrong_parameters_start_nothing(place, mtkd, words, sentence):
    status, out, err = mtkd("run", place.file("grid: {epochs: [1, 2]}"), *words)
    assert status == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert place.ran() == []
    assert not place.results.exists()


def test_overrides_reach_every_cell(place, mtkd):
    file = place.file("grid: {epochs: [1, 2]}\nfixed: {lr: 1e-2}")
    status, out, _ = mtkd("run", file, "--dry-run", "-p", "lr", "1e-4", "-p", "members=[2, 3]")
    assert status == 0
    lines = out.splitlines()
    assert [line.partition("epochs")[2] for line in lines] == ["=1 lr=0.0001 members=[2, 3]", "=2 lr=0.0001 members=[2, 3]"]
    assert place.ran() == []


def test_a_run_ends_with_claims_and_report(place, mtkd, monkeypatch):
    """The toy paper's verdicts and report come from stand-ins: the command's part is which records they are given."""
    from mtkd import papers, report, report_page

    seen = []
    monkeypatch.setattr(papers, "module", lambda paper: SimpleNamespace(claims=lambda records: [paper, len(records)]))
    monkeypatch.setattr(report, "claims_table", lambda verdicts: f"verdicts: {verdicts}")
    monkeypatch.setattr(report_page, "write_report", lambda records, folder: seen.append(folder) or folder / "index.html")
    status, out, _ = mtkd("run", place.file("grid: {mode: [good, refuse]}"), "--jobs", "2", "--timeout", "60")
    assert status == 1
    assert "FAILED: There is no such task." in out
    assert "1 of 2 cells failed" in out
    assert "verdicts: ['toy', 1]" in out
    assert out.splitlines()[-1] == f"Report: {place.folder / 'report' / 'index.html'}"
    status, out, _ = mtkd("run", place.file("fixed: {mode: good}"), "--results", place.results)
    assert status == 0
    assert "1 of 1 cells are done already, 0 to run." in out
    assert seen == [place.folder / "report", place.results / "report"]
    status, out, _ = mtkd("report", place.results, "--out", place.folder / "out")
    assert status == 0
    assert "verdicts: ['toy', 1]" in out
    assert seen[-1] == place.folder / "out"


def test_report_without_records(place, mtkd):
    status, _, err = mtkd("report")
    assert status == 2
    assert "`mtkd run` makes records" in err
    place.results.mkdir()
    status, _, err = mtkd("report")
    assert status == 2
    assert "There are no records" in err


def test_claims_and_exhibits_are_listed(mtkd, tmp_path):
    (tmp_path / "record.json").write_text(json.dumps(record(made(pools=10))))
    status, out, _ = mtkd("claims", tmp_path, "--json")
    claims = json.loads(out)
    assert len(claims) == 36
    assert all(len(c["results"]) == 1 for c in claims)  # of a claim without runs too
    first = claims[0]["results"][0]
    assert (first["verdict"], first["as_stated"], first["n"], first["tier"]) == ("supported", "holds", 10, "demo")
    assert first["interval"][0] < first["effect"] < first["interval"][1]
    assert "supported" in mtkd("claims", tmp_path)[1]
    assert status == 0
    assert [c["id"] for c in claims if c["paper"] == "seed_ensemble"] == ["S1", "S2", "S3", "S4", "S5"]
    assert "S1  seed_ensemble" in mtkd("claims")[1]
    status, out, _ = mtkd("exhibits", "--json")
    assert status == 0
    assert {f"seed_ensemble.{x}" for x in ("table1", "table2", "fig2", "fig7")} <= {e["id"] for e in json.loads(out)}
    assert "seed_ensemble.fig2" in mtkd("exhibits")[1]
    status, out, _ = mtkd("exhibits", tmp_path, "--json")
    assert {e["shown"] for e in json.loads(out) if e["id"] == "seed_ensemble.table2"} == {True}
    assert {e["shown"] for e in json.loads(out) if e["paper"] == "tmkd"} == {False}


def test_parameters_are_listed(place, mtkd):
    status, out, _ = mtkd("params", "toy")
    assert status == 0
    assert "lr       float       0.001   peak learning rate" in out
    _, out, _ = mtkd("params", place.folder / "notebooks" / "toy.ipynb", "--json")
    assert json.loads(out)[2] == {"name": "lr", "default": 0.001, "type": "float", "help": "peak learning rate"}
    status, _, err = mtkd("params", "toi")
    assert status == 2
    assert "did you mean 'toy'?" in err


OWN = Path(__file__).parents[2] / "params" / "domain_expertise" / "own.yaml"


def test_a_file_of_ones_own_is_read_before_any_kernel_starts(mtkd, tmp_path, monkeypatch):
    monkeypatch.setenv("MTKD_RESULTS", str(tmp_path / "results"))
    status, _, err = mtkd("run", OWN, "--dry-run", "-p", "task", tmp_path / "nowhere.csv")
    assert (status, "nowhere.csv" in err) == (2, True)
    (tmp_path / "my #1 file.csv").write_text("text,mark\na,b\n")
    status, _, err = mtkd("run", OWN, "-p", "task", tmp_path / "my #1 file.csv")
    assert status == 2
    assert "my #1 file.csv' has no column 'label'" in err


def test_a_relative_path_starts_at_the_repositorys_root_as_in_a_cell(mtkd, tmp_path, monkeypatch):
    (tmp_path / "reviews.csv").write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(40)))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("MTKD_NOTEBOOKS", str(OWN.parents[2] / "notebooks"))
    monkeypatch.setattr(records, "repo_root", lambda: tmp_path)
    status, out, err = mtkd("run", OWN, "--dry-run", "-p", "task", "reviews.csv")
    assert (status, err) == (0, "")
    assert "reviews.csv: validation and test were taken from train by hash" in out


def test_no_and_yes_stay_words():
    assert cli.overrides(["task_options={classes: [no, yes]}", "x=true", "y=off"]) == {
        "task_options": {"classes": ["no", "yes"]}, "x": True, "y": "off"}
