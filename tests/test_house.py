"""The rooms of mtkd and who may import whom: every import counts, also one inside a function."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mtkd

ROOT = Path(mtkd.__file__).parent
ABOVE = {  # a room may import the rooms that are named beside it
    "errors": "",
    "store": "errors",
    "measure": "errors",
    "evidence": "errors store",
    "data": "errors store measure",
    "tokens": "errors store data",
    "models": "errors store measure tokens data.hub",
    "rules": "errors store tokens models",
    "train": "errors store measure data tokens models rules",
    "study": "errors store measure data rules train",
    "papers": "errors store measure evidence data tokens models rules train study",
    "runs": "errors store evidence",
    "report": "errors store evidence papers runs",
    "report_page": "errors store evidence papers report",
    "lecture": "errors evidence papers report",
    "miniatures": "errors data models tokens",
    "cli": "errors data evidence papers report report_page rules runs miniatures",
    "__init__": "errors store measure data tokens models rules train lecture",
}
# What still breaks the table, as "room -> room". It may only shrink: a line whose break is gone must go too.
BREAKS = ""


def imports(path: Path) -> set[str]:
    """What a module imports of mtkd, as dotted names without the mtkd."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return {name.removeprefix("mtkd.") for name in found if name.startswith("mtkd.")} - {"__version__"}


def edges() -> set[tuple[str, str]]:
    """(room, dotted name it imports) of all modules."""
    rooms = {path: path.relative_to(ROOT).parts[0].removesuffix(".py") for path in ROOT.rglob("*.py")}
    return {(room, name) for path, room in rooms.items() for name in imports(path)}


def allowed(room: str, name: str) -> bool:
    return any(f"{name}.".startswith(f"{may}.") for may in (room, *ABOVE[room].split()))


def test_a_room_imports_only_rooms_above_it():
    broken = {f"{room} -> {name.split('.')[0]}" for room, name in edges() if not allowed(room, name)}
    known = set(BREAKS.strip().splitlines())
    assert broken - known == set(), "these imports break the order of the rooms"
    assert known - broken == set(), "these breaks are mended: take them off the list"


def test_the_table_has_no_circle():
    order = list(ABOVE)
    assert all(order.index(may.split(".")[0]) < order.index(room) for room, rooms in ABOVE.items() for may in rooms.split())
    assert {path.name.removesuffix(".py") for path in ROOT.iterdir()
            if path.suffix in ("", ".py") and path.name != "__pycache__"} <= set(ABOVE)


HEAVY = {"torch", "transformers", "pandas", "matplotlib", "papermill"}


def loaded(code: str) -> set[str]:
    """Which of the heavy libraries a program has loaded when it ends."""
    program = f"import sys\n{code}\nprint('loaded', *({HEAVY} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(ran.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("code", ["import mtkd", "import mtkd.cli", "import mtkd.models.grammar, mtkd.runs.records"])
def test_what_must_answer_at_once_loads_nothing_heavy(code):
    assert loaded(code) == set()


def test_public_names_are_found():
    assert len(mtkd.__all__) == len({id(getattr(mtkd, name)) for name in mtkd.__all__}) > 15
    assert {"load_task", "prepare", "distil", "__version__"} <= set(dir(mtkd))
    with pytest.raises(AttributeError, match="no attribute 'distillation'"):
        mtkd.distillation  # noqa: B018


def test_tables_and_verdicts_need_no_torch():
    folder = ROOT.parent / "results" / "reference" / "mt_bert"
    code = (f"from mtkd import papers, report\nrecords = list(report.read_records({str(folder)!r}))\n"
            "paper = [papers.module(name) for name in papers.PAPERS][papers.PAPERS.index('mt_bert')]\n"
            "assert paper.claims(records) and paper.exhibit('table2', records).content is not None")
    assert not loaded(code) & {"torch", "transformers", "papermill"}
