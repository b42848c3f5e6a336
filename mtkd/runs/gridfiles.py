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
from typing import ClassVar

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


def read_grid(file: Path | str, overrides: dict | None = None, notebooks: Path | None = None, first: int | None = None) -> Grid:
    """Read, check and expand a grid file; `overrides` replace the file's values in every cell. first: of every list in `grid`
    take so many values, which are the first replicates where the grid runs over replicates.

    Raises KitError where the file is not YAML, has an unknown key, names no notebook, asks for nothing, or asks for a
    parameter that the notebook does not have or a value it cannot take.
    """
    file, overrides = Path(file), overrides or {}
    asked = read_file(file)
    paper, tier, fixed, grid = asked["paper"], asked["tier"], asked["fixed"], asked["grid"]
    notebook = notebook_path(paper, notebooks)
    declared = read_parameters(notebook)
    check(overrides, declared)
    if "tier" in declared:
        stated = [d["tier"] for d in (fixed, *asked["cells"]) if "tier" in d] + grid.get("tier", [])
        if other := [t for t in stated if t != tier]:
            raise KitError(f"{file}: tier is {tier} in one place and {other[0]} in another.")
        fixed = {"tier": tier, **fixed}
    combinations = [dict(zip(grid, values)) for values in itertools.product(*(values[:first] for values in grid.values()))]
    cells: dict[str, Cell] = {}
    for varying in [{**own, **combination} for own in asked["cells"] or [{}] for combination in combinations]:
        given = check({**fixed, **varying, **overrides}, declared, str(file))
        parameters = {name: given.get(name, parameter.default) for name, parameter in declared.items()}
        label = " ".join(f"{name}={json.dumps(parameters[name])}" for name in {**varying, **overrides})
        cells.setdefault(canonical(parameters), Cell(file, paper, notebook, parameters, label))
    wanted = len(asked["cells"] or [{}]) * len(combinations)
    notes = [f"{file}: {wanted - len(cells)} of {wanted} cells are the same as another and run once."]
    return Grid(file, paper, tier, asked["description"], tuple(asked["exhibits"]), list(cells.values()),
                notes if wanted > len(cells) else [])


def expand(file: Path | str, overrides: dict | None = None, notebooks: Path | None = None) -> list[Cell]:
    """The cells of a grid file, each once; raises what `read_grid` raises."""
    return read_grid(file, overrides, notebooks).cells


def read_file(file: Path) -> dict:
    """The file as a dictionary of all GRID_KEYS, each of the right shape; empty where the file does not have it."""
    try:
        asked = read_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise KitError(f"The grid file {file} cannot be read: {getattr(error, 'strerror', error)}.") from error
    except yaml.YAMLError as error:
        raise KitError(f"{file} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(asked, dict):
        raise KitError(f"{file} is not a grid file: it should begin with a line such as paper: seed_ensemble.")

    def refuse(wrong, words: str) -> None:
        if wrong:
            raise KitError(f"{file}: {words}")

    for name in asked:
        refuse(name not in GRID_KEYS, f"there is no key {name!r}{nearest(str(name), GRID_KEYS)}")
    for name in ("paper", "tier"):
        refuse(not isinstance(asked.get(name), str), f"the key {name} is missing or is not a name.")
    fixed, grid, cells, exhibits = (asked.get(name) for name in ("fixed", "grid", "cells", "exhibits"))
    refuse(not isinstance(fixed or {}, dict), "fixed should be names with values.")
    if "cells" in asked:
        refuse(not isinstance(cells, list) or not cells or not all(isinstance(c, dict) for c in cells),
               "cells should be a list of names with values, and not empty.")
    if "grid" in asked:
        refuse(not isinstance(grid, dict) or not all(isinstance(v, list) for v in grid.values()),
               "grid should be names with lists of values.")
        refuse(not grid or not all(grid.values()),
               f"the grid is empty{''.join(f' ({name} has no values)' for name in grid if not grid[name])}.")
        for part, names in (("fixed", fixed or {}), ("cells", {name for cell in cells or [] for name in cell})):
            both = sorted(set(grid) & set(names))
            refuse(both, f"{both and both[0]} is in {part} and in grid; it can be in one of them only.")
    refuse(exhibits is not None and not (isinstance(exhibits, list) and all(isinstance(e, str) for e in exhibits)),
           "exhibits should be a list of names.")
    empty = {"description": "", "fixed": {}, "grid": {}, "cells": [], "exhibits": []}
    return empty | {name: value for name, value in asked.items() if value is not None}


def read_yaml(text: str):
    """YAML with numbers as people write them (1e-4 is one) and no name given twice; yaml.YAMLError if it is not."""
    return yaml.load(text, Loader=Loader)


class Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-4 is a number, no and yes are words (as in YAML 1.2), and a name given twice is an error."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, how) for tag, how in found if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()}

    def construct_mapping(self, node, deep=False):
        names = [self.construct_object(n, deep=True) for n, _ in node.value if n.tag != "tag:yaml.org,2002:merge"]
        if twice := [name for name in names if names.count(name) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))
