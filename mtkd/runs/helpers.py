"""All cores for one notebook: helper processes that ask for the same models from the other end of the list.

A tiny model cannot use a second core, but a second model can. Helpers share nothing with the notebook except the store,
whose single flight sees to it that no model is made twice, so there is nothing to pass around and nothing to go wrong:
a helper that dies only leaves more for the notebook to do, and an error is met again, and shown, by the notebook.

    with_helpers("mtkd.papers.seed_ensemble_study", parameters)   # then ask for models as usual

`mtkd run` starts none (its cells fill the cores already), nor does a machine with a GPU; MTKD_HELPERS=n overrides.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import torch

from mtkd.runs.records import cores


def wanted() -> int:
    """How many helpers to start: MTKD_HELPERS, else one per spare core (at most 3), none beside a GPU."""
    if os.environ.get("MTKD_HELPERS"):
        return max(0, int(os.environ["MTKD_HELPERS"]))
    return 0 if torch.cuda.is_available() else max(0, min(3, cores() - 1))


def with_helpers(module: str, parameters: dict) -> int:
    """Start helpers for `module.from_parameters(parameters).jobs()` and return how many; they end with this process.

    This process then keeps to its share of the cores.
    """
    count = wanted()
    if count:
        torch.set_num_threads(max(1, cores() // (count + 1)))
    for number in range(count):
        process = subprocess.Popen(
            [sys.executable, "-m", "mtkd.runs.helpers", module, json.dumps(parameters), str(number), str(count)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | {"MTKD_HELPERS": "0", "MTKD_PROGRESS": "0",
                              **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(torch.get_num_threads()))})
        atexit.register(end, process)
    return count


def end(process: subprocess.Popen) -> None:
    """Stop a helper; what it was making is left unfinished in the store's temporary folder and swept later."""
    process.kill()
    process.wait()


def order(groups: list[list], number: int, count: int) -> Iterator:
    """The jobs of helper `number` of `count`: group by group (teachers before students), each from its far end, helpers
    spread over it.

    >>> list(order([["t0", "t1"], ["s0", "s1", "s2", "s3"]], 0, 1))
    ['t1', 't0', 's3', 's2', 's1', 's0']
    >>> list(order([["s0", "s1", "s2", "s3"]], 1, 2))
    ['s1', 's0', 's3', 's2']
    """
    for group in groups:
        backwards = group[::-1]
        start = len(group) * number // count
        yield from backwards[start:] + backwards[:start]


def main() -> None:
    module, parameters, number, count = sys.argv[1:]
    parent, experiment = os.getppid(), importlib.import_module(module).from_parameters(json.loads(parameters))
    for job in order(experiment.jobs(), int(number), int(count)):
        if os.getppid() != parent:  # the notebook is gone
            return
        job()


if __name__ == "__main__":
    main()
