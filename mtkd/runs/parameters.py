"""A notebook's parameters, read from its cell tagged "parameters" without running it, and values checked against them.

papermill itself passes a name that the notebook does not know with a warning only, and text where a number was meant.
Here both are errors before anything runs. The cell holds `name = value` or `name: type = value`, and a comment:

    tier = "demo"                   # demo, small or paper
    seeds = [0, 1, 2]               # one teacher each
    limit: int | None = None        # at most this many training samples
    pooler: Literal["attentive", "mean"] = "attentive"
    epochs: Annotated[int, Ge(1)] = 3

Where the types need them, `from typing import Annotated, Literal` and `from annotated_types import Ge` may stand above.
"""

import ast
import contextlib
import difflib
import io
import json
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import ConfigDict, TypeAdapter, ValidationError

from mtkd.errors import KitError
from mtkd.runs.records import notebooks_folder

TYPES = {kind.__name__: kind for kind in (int, float, str, bool, list, dict)}
MORE = {"Annotated": Annotated, "Literal": Literal, "Ge": Ge, "Gt": Gt, "Le": Le, "Lt": Lt, "Len": Len}


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
        raise KitError(f"There is no notebook {path}{nearest(paper, [p.stem for p in folder.glob('*.ipynb')])}")
    return path


def read_parameters(notebook: Path | str) -> dict[str, Parameter]:
    """The parameters of a notebook in the order of its parameters cell; KitError where that cell cannot be read."""
    try:
        cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
        sources = ["".join(c["source"]) for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KitError(f"The notebook {notebook} cannot be read: {error}.") from error
    if len(sources) != 1:
        raise KitError(f"The notebook {notebook} has {len(sources)} cells tagged parameters, and one is needed.")
    try:
        lines = ast.parse(sources[0]).body
    except SyntaxError as error:
        raise KitError(f"The parameters cell of {notebook} is not Python: {error.msg}, line {error.lineno}.") from error
    comments = {t.start[0]: t.string.lstrip("# ").strip() for t in tokenize.generate_tokens(io.StringIO(sources[0]).readline)
                if t.type == tokenize.COMMENT}
    found = {}
    for line in lines:
        match line:
            case ast.Expr(ast.Constant()) | ast.ImportFrom(module="typing" | "annotated_types"):
                continue
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, ast.expr() as value):
                pass
            case _:
                raise KitError(f"The parameters cell of {notebook} should hold only name = value, not: {ast.unparse(line)}.")
        try:
            default = as_lists(ast.literal_eval(value))
        except ValueError as error:
            raise KitError(f"The default of {name} in {notebook} is not a plain value: {ast.unparse(value)}.") from error
        kind = ast.unparse(line.annotation) if isinstance(line, ast.AnnAssign) else type_of(default)
        words = " ".join(comments[n] for n in range(line.lineno, line.end_lineno + 1) if n in comments)
        found[name] = Parameter(name, default, kind, words)
        try:
            reader(kind).validate_python(default)
        except ValidationError as error:
            raise KitError(f"The default {default!r} of {name} in {notebook} is not of its own type {kind}.") from error
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
        kind, value = declared[name].type, as_lists(value)
        try:
            checked[name] = reader(kind).validate_python(value)
        except ValidationError as error:
            hint = " (remove the quotes)" if isinstance(value, str) and is_number(value) and "str" not in kind else ""
            raise KitError(f"{place}{name} is {value!r}, a {type_of(value)}, where the notebook has {kind}{hint}.") from error
    return checked


@cache
def reader(kind: str) -> TypeAdapter:
    """What checks values of a type as written: nothing is converted but whole numbers to floats."""
    try:
        return TypeAdapter(eval(kind, {"__builtins__": {}}, TYPES | MORE), config=ConfigDict(strict=True))
    except Exception as error:  # whatever is written there, it is no type
        raise KitError(f"A notebook's parameter has the type {kind}, not one of {', '.join(TYPES)}.") from error


def as_lists(value):
    """`value` with tuples as lists, as JSON and YAML have them."""
    if isinstance(value, (list, tuple)):
        return [as_lists(v) for v in value]
    return {name: as_lists(v) for name, v in value.items()} if isinstance(value, dict) else value


def type_of(value) -> str:
    """The type of a default without annotation: [0.1, 1] is list[float], [] is list."""
    if isinstance(value, list) and value:
        kinds = {type_of(v) for v in value}
        return f"list[{' | '.join(sorted(kinds - {'int'} if kinds == {'int', 'float'} else kinds))}]"
    return "None" if value is None else type(value).__name__


def is_number(text: str) -> bool:
    with contextlib.suppress(ValueError):
        float(text)
        return True
    return False


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a sentence about a name that does not exist: the one that was probably meant, else all there are."""
    names = list(names)
    if close := difflib.get_close_matches(name, names, n=1, cutoff=0.4):
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(names)}." if names else "."
