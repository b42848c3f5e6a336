"""A notebook's parameters, read from its cell tagged "parameters" without running it, and values checked against them.

papermill itself passes a name that the notebook does not know with a warning only, and text where a number was meant.
Here both are errors before anything runs. The cell holds `name = value` or `name: type = value`, and a comment:

    tier = "demo"                   # demo, small or paper
    seeds = [0, 1, 2]               # one teacher each
    lr = 1e-3                       # peak learning rate
    limit: int | None = None        # at most this many training samples
"""

import ast
import difflib
import io
import json
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mtkd.errors import KitError
from mtkd.runs.records import notebooks_folder

_WORDS = {int: "int", float: "float", str: "str", bool: "bool", list: "list", dict: "dict", type(None): "None"}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook: its name, default, type as written (`int | None`) and the comment beside it."""

    name: str
    default: object
    type: str
    help: str = ""


def notebook_path(paper: str, folder: Path | None = None) -> Path:
    """The notebook of a paper; KitError naming the nearest where there is none."""
    folder = Path(folder) if folder else notebooks_folder()
    path = folder / f"{paper}.ipynb"
    if not path.is_file():
        names = [p.stem for p in folder.glob("*.ipynb")]
        raise KitError(f"There is no notebook {path}{nearest(paper, names)}")
    return path


def read_parameters(notebook: Path | str) -> dict[str, Parameter]:
    """The parameters of a notebook in the order of its parameters cell; KitError where that cell cannot be read."""
    try:
        cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
        tagged = [c for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
        sources = ["".join(c["source"]) for c in tagged]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KitError(f"The notebook {notebook} cannot be read: {error}.") from error
    if len(sources) != 1:
        raise KitError(f"The notebook {notebook} has {len(sources)} cells tagged parameters, and one is needed.")
    try:
        body = ast.parse(sources[0]).body
    except SyntaxError as error:
        raise KitError(f"The parameters cell of {notebook} is not Python: {error.msg}, line {error.lineno}.") from error
    comments = _comments(sources[0])
    found = {}
    for line in body:
        if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant):  # a text that explains the cell
            continue
        name, value, annotation = _assignment(line, notebook)
        try:
            default = ast.literal_eval(value)
        except ValueError as error:
            words = ast.unparse(value)
            raise KitError(f"The default of {name} in {notebook} is not a plain value: {words}.") from error
        default = as_lists(default)
        words = " ".join(comments[n] for n in range(line.lineno, (line.end_lineno or line.lineno) + 1) if n in comments)
        kind = ast.unparse(annotation) if annotation else _type_of(default)
        found[name] = Parameter(name, default, kind, words)
        if not _fits(default, kind):
            raise KitError(f"The default {default!r} of {name} in {notebook} is not of its own type {kind}.")
    return found


def check(given: dict, declared: dict[str, Parameter], where: str = "") -> dict:
    """`given`, checked against `declared`; whole numbers given for a float become floats.

    Raises KitError for a name that is not declared, naming the nearest, and for a value of another type than the
    parameter's. A whole number may stand for a float; True is no number; None fits only where the type says so.
    """
    place = f"{where}: " if where else ""
    checked = {}
    for name, value in given.items():
        if name not in declared:
            raise KitError(f"{place}there is no parameter {name!r}{nearest(str(name), declared)}")
        kind = declared[name].type
        value = as_lists(value)
        if not _fits(value, kind):
            hint = " (remove the quotes)" if isinstance(value, str) and _is_number(value) and "str" not in kind else ""
            raise KitError(f"{place}{name} is {value!r}, a {_type_of(value)}, where the notebook has {kind}{hint}.")
        checked[name] = _as_float(value, kind)
    return checked


def _assignment(line: ast.stmt, notebook: Path | str) -> tuple[str, ast.expr, ast.expr | None]:
    if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value is not None:
        return line.target.id, line.value, line.annotation
    if isinstance(line, ast.Assign) and len(line.targets) == 1 and isinstance(line.targets[0], ast.Name):
        return line.targets[0].id, line.value, None
    raise KitError(f"The parameters cell of {notebook} should hold only name = value, not: {ast.unparse(line)}.")


def _comments(source: str) -> dict[int, str]:
    """Line number (from 1) to the comment on it."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}


def as_lists(value):
    """`value` with tuples as lists, as JSON and YAML have them."""
    if isinstance(value, (list, tuple)):
        return [as_lists(v) for v in value]
    if isinstance(value, dict):
        return {name: as_lists(v) for name, v in value.items()}
    return value


def _type_of(value) -> str:
    """The type of a default without annotation: [0.1, 1] is list[float], [] is list."""
    if isinstance(value, list) and value:
        kinds = {_type_of(v) for v in value}
        if kinds == {"int", "float"}:
            kinds = {"float"}
        return f"list[{' | '.join(sorted(kinds))}]"
    return _WORDS.get(type(value), type(value).__name__)


def _fits(value, kind: str | ast.expr) -> bool:
    """Whether a value is of a type as written: names, list[...], dict[...] and unions of them."""
    tree = ast.parse(kind, mode="eval").body if isinstance(kind, str) else kind
    if isinstance(tree, ast.BinOp):
        return _fits(value, tree.left) or _fits(value, tree.right)
    if isinstance(tree, ast.Constant):
        return value is None if tree.value is None else False
    if isinstance(tree, ast.Subscript):
        outer = ast.unparse(tree.value)
        if outer == "dict":
            return isinstance(value, dict) and all(_fits(v, tree.slice.elts[1]) for v in value.values())
        inner = tree.slice.elts[0] if isinstance(tree.slice, ast.Tuple) else tree.slice  # tuple[int, ...]
        return isinstance(value, list) and all(_fits(v, inner) for v in value)
    name = ast.unparse(tree)
    if name == "float":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    known = {"str": str, "bool": bool, "list": list, "tuple": list, "dict": dict}
    if name not in known:
        raise KitError(f"A notebook's parameter has the type {name}, not one of {', '.join(['int', 'float', *known])}.")
    return isinstance(value, known[name])


def _as_float(value, kind: str):
    """Whole numbers as floats where the type has float and not int, so that 1 and 1.0 name the same run."""
    if "float" not in kind or "int" in kind:
        return value
    if isinstance(value, list):
        return [_as_float(v, kind) for v in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a sentence about a name that does not exist: the one that was probably meant, else all there are."""
    names = list(names)
    if close := difflib.get_close_matches(name, names, n=1, cutoff=0.4):
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(names)}." if names else "."
