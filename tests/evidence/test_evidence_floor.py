"""The evidence wing reads records without torch, and knows no paper."""

import subprocess
import sys
from pathlib import Path

import mtkd
from mtkd.papers import PAPERS

ROOM = Path(mtkd.__file__).parent / "evidence"


def test_a_table_from_records_does_not_import_torch():
    code = ("import sys; from mtkd import papers; [papers.paper(name).claims([]) for name in papers.PAPERS]; "
            "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_engine_names_no_paper_and_imports_none():
    for path in ROOM.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "mtkd.papers" not in text, path.name
        code = "\n".join(line for line in text.splitlines() if "import" in line)
        assert not any(paper in code for paper in PAPERS), path.name
