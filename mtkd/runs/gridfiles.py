"""Grid files: which cells a file under params/ asks for, every one checked before any of them runs.

    paper: seed_ensemble            # the notebook notebooks/seed_ensemble.ipynb
    tier: demo
    description: Two pools of three teachers.
    fixed: {epochs: 2}              # the same in every cell
    cells: [{arm: tinybert, lr: 1e-3}, {arm: resnet, lr: 0.1}]    # settings that belong together
    grid: {seed: [0, 1]}            # lists of values; every combination is run with every one of `cells`: 4 cells
    exhibits: [seed_ensemble.fig2]  # what it regenerates

A file without `grid` and `cells` asks for one cell, that of `fixed`.
"""

import itertools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from mtkd.errors import KitError
from mtkd.runs.parameters import check, nearest, notebook_path, read_parameters
from mtkd.store.files import canonical

GRID_KEYS = ("paper", "tier", "description", "fixed", "grid", "cells", "exhibits")


@dataclass(frozen=True)
class Cell:
    """One run asked for: the file that asks, the paper, all parameters (defaults filled in), and those that vary."""

    file: Path
    paper: str
    notebook: Path
    parameters: dict
    label: str = ""


@dataclass(frozen=True)
class Grid:
    """A grid file, read and checked."""

    file: Path
    paper: str
    tier: str
    description: str
    exhibits: tuple[str, ...]
    cells: list[Cell]
    notes: list[str] = field(default_factory=list)


def read_yaml(text: str):
    """YAML with numbers as people write them (1e-4 is one) and no name given twice; yaml.YAMLError if it is not."""
    return yaml.load(text, Loader=_Loader)


def read_grid(file: Path | str, overrides: dict | None = None, notebooks: Path | None = None, first: int | None = None) -> Grid:
    """Read, check and expand a grid file; `overrides` replace the file's values in every cell. first: of every list in `grid`
    take so many values, which are the first replicates where the grid runs over replicates.

    Raises KitError where the file is not YAML, has an unknown key, names no notebook, asks for nothing, or asks for a
    parameter that the notebook does not have or a value it cannot take.
    """
    file = Path(file)
    asked = _read_file(file)
    notebook = notebook_path(asked["paper"], notebooks)
    declared = read_parameters(notebook)
    overrides = overrides or {}
    check(overrides, declared)
    fixed, grid, explicit = asked.get("fixed") or {}, asked.get("grid"), asked.get("cells")
    if first:
        grid = {name: values[:first] for name, values in (grid or {}).items()}
    tier = asked["tier"]
    if "tier" in declared:
        stated = [d["tier"] for d in (fixed, *(explicit or [])) if "tier" in d] + (grid or {}).get("tier", [])
        if other := [t for t in stated if t != tier]:
            raise KitError(f"{file}: tier is {tier} in one place and {other[0]} in another.")
        fixed = {"tier": tier, **fixed}
    combinations = [dict(zip(grid or {}, values)) for values in itertools.product(*(grid or {}).values())]
    cells: dict[str, Cell] = {}
    merged = 0
    for varying in [{**own, **combination} for own in explicit or [{}] for combination in combinations]:
        given = check({**fixed, **varying, **overrides}, declared, str(file))
        parameters = {name: given.get(name, parameter.default) for name, parameter in declared.items()}
        shown = {name: parameters[name] for name in {**varying, **overrides}}
        label = " ".join(f"{name}={json.dumps(value)}" for name, value in shown.items())
        merged += canonical(parameters) in cells
        cells.setdefault(canonical(parameters), Cell(file, asked["paper"], notebook, parameters, label))
    notes = [f"{file}: {merged} of {len(cells) + merged} cells are the same as another and run once."] if merged else []
    exhibits = tuple(asked.get("exhibits") or ())
    return Grid(file, asked["paper"], tier, asked.get("description", ""), exhibits, list(cells.values()), notes)


def expand(file: Path | str, overrides: dict | None = None, notebooks: Path | None = None) -> list[Cell]:
    """The cells of a grid file, each once; raises what `read_grid` raises."""
    return read_grid(file, overrides, notebooks).cells


def _read_file(file: Path) -> dict:
    """The file as a dictionary whose parts have the right shapes."""
    try:
        asked = read_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise KitError(f"The grid file {file} cannot be read: {getattr(error, 'strerror', error)}.") from error
    except yaml.YAMLError as error:
        raise KitError(f"{file} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(asked, dict):
        raise KitError(f"{file} is not a grid file: it should begin with a line such as paper: seed_ensemble.")
    for name in asked:
        if name not in GRID_KEYS:
            raise KitError(f"{file}: there is no key {name!r}{nearest(str(name), GRID_KEYS)}")
    for name in ("paper", "tier"):
        if not isinstance(asked.get(name), str):
            raise KitError(f"{file}: the key {name} is missing or is not a name.")
    fixed, grid, cells = asked.get("fixed", {}), asked.get("grid"), asked.get("cells")
    if not isinstance(fixed or {}, dict):
        raise KitError(f"{file}: fixed should be names with values.")
    if "grid" in asked:
        if not isinstance(grid, dict) or not all(isinstance(v, list) for v in grid.values()):
            raise KitError(f"{file}: grid should be names with lists of values.")
        if not grid or not all(grid.values()):
            raise KitError(f"{file}: the grid is empty{''.join(f' ({n} has no values)' for n in grid if not grid[n])}.")
        if both := sorted(set(grid) & set(fixed or {})):
            raise KitError(f"{file}: {both[0]} is in fixed and in grid; it can be in one of them only.")
        if both := sorted({name for cell in cells or [] if isinstance(cell, dict) for name in cell} & set(grid)):
            raise KitError(f"{file}: {both[0]} is in cells and in grid; it can be in one of them only.")
    if "cells" in asked and (not isinstance(cells, list) or not cells or not all(isinstance(c, dict) for c in cells)):
        raise KitError(f"{file}: cells should be a list of names with values, and not empty.")
    exhibits = asked.get("exhibits")
    if exhibits is not None and not (isinstance(exhibits, list) and all(isinstance(e, str) for e in exhibits)):
        raise KitError(f"{file}: exhibits should be a list of names.")
    return asked


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-4 is a number and a name given twice is an error."""

    def construct_mapping(self, node, deep=False):
        names = [self.construct_object(n, deep=True) for n, _ in node.value if n.tag != "tag:yaml.org,2002:merge"]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
