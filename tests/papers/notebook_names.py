"""What the cells of a paper's notebook define for themselves, for tests of them: nothing of the notebook is run."""

import ast
import json
from types import SimpleNamespace

from mtkd.runs.parameters import notebook_path


def is_kept(node: ast.stmt) -> bool:
    """Imports, functions, CONSTANTS and the checks of exercises; not what a cell does or what it calls its results."""
    if isinstance(node, ast.Assign):
        names = [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        return all((len(name) > 1 and name.isupper()) or name == "exercises" for name in names)
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef)


def defined_in(paper: str) -> SimpleNamespace:
    """A notebook's functions and constants by name, in the order of its cells."""
    found: dict[str, object] = {"__name__": paper}
    for cell in json.loads(notebook_path(paper).read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            body = [node for node in ast.parse("".join(cell["source"])).body if is_kept(node)]
            exec(compile(ast.Module(body, []), cell["id"], "exec"), found)
    return SimpleNamespace(**found)
