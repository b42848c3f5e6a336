"""Data sets as tasks: one name in, named splits of identified samples out.

    >>> task = load_task("digits", limit=100)
    >>> task.kind, task.outputs, len(task.splits["train"]), task.splits["train"].inputs.shape
    ('image', 10, 100, (100, 8, 8, 1))

Names: "pydocs/topic", "pydocs/relevance", "pydocs/acceptability", "pydocs/span" (offline), "glue/cola" and the other eight GLUE
tasks, "tweet_eval/emotion", "tweet_eval/sentiment", "emotion", "ag_news", "20_newsgroups", "snli" (the hub or a mirror of it,
mtkd/data/catalogue.yaml), "mind/topic", "mind/balanced", "nbme" (your own copy), "wiki_qa", "digits", "cifar10", or the path of
your own file or folder (mtkd/data/userfile.py).

A task of your own has a name once a function that makes it is marked with `task`; the built-in ones are marked alike:

    @task("weather", metric="macro_f1")
    def weather(days: int = 30):
        return {"train": Split(...), "validation": Split(...), "test": Split(...)}     # or a whole Task

    load_task("weather", days=10, limit=200)
"""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np

from mtkd.data.files import SUFFIXES
from mtkd.data.splits import Split, Task, check_size, check_task, content_hash, hash_order, unique_ids
from mtkd.data.userfile import load_own
from mtkd.errors import KitError

__all__ = ["Split", "Task", "check_task", "content_hash", "hash_order", "load_task", "subset", "task", "task_names",
           "unique_ids"]

# modules that register tasks; imported when a task is first asked for
BUILT_IN = tuple(f"mtkd.data.{m}" for m in ("catalogue", "images", "mind", "nbme", "pydocs", "pydocs_span", "wikiqa"))
_TASKS: dict[str, tuple[Callable, tuple[str, ...], str]] = {}  # name -> the function that makes it, classes, metric


def task(name: str | Callable, *, classes: Sequence[str] = (), metric: str = "") -> Callable:
    """Register a function (**options) -> Task, or -> {"train": Split, "validation": Split, "test": Split}, under a name
    (without one, the function's own). Again with the same name replaces it, so a cell can be run again.

    classes, metric   for a function that returns splits: names in label order (by default the labels' own numbers; labels that
                      are floats are a regression) and the main metric (by default accuracy, or pearson for a regression)

    Raises KitError for the name of a built-in task.
    """
    if callable(name):
        return task(name.__name__)(name)

    def register(function: Callable) -> Callable:
        if getattr(function, "func", function).__module__ not in BUILT_IN:
            known = _registered()
            if name in known and getattr(known[name][0], "func", known[name][0]).__module__ in BUILT_IN:
                raise KitError(f"{name!r} is a built-in task: give your own another name")
        _TASKS[name] = function, tuple(classes), metric
        return function

    return register


def load_task(name: str, *, limit: int | dict[str, int] | None = None, seed: int = 0, replicate: int = 0, **options) -> Task:
    """Load a task by name, or from a file or folder of your own.

    limit    keep this many samples: an int limits the training split alone, a dict says how many per split
             ({"train": 2000, "test": 500}). The ones kept are the first by the hash of (seed, id), so the subset is the
             same on every machine, and a smaller one is contained in a larger one.
    seed     chooses the subset; it has no effect without `limit` and never moves a sample between splits
    replicate  another subset of the training split for every number, the same ones of all other splits
    options  what the task's own loader takes: `protocol` for GLUE, `corruption` for pydocs/acceptability, `text` and
             `label` for a file ... An unknown one is an error that names the nearest.

    Raises KitError for anything wrong with the name, the options or the data, in one sentence.
    """
    name = str(name)
    loader, classes, metric = _registered().get(name) or (_file(name), (), "")
    known = list(inspect.signature(loader).parameters)
    for option in options:
        if option not in known:
            has = f"its options are {', '.join(known)}" if known else "it has none"
            raise KitError(f"task {name!r} has no option {option!r}{_nearest(option, known)}; {has}")
    made = loader(**options)
    made = made if isinstance(made, Task) else _of_splits(name, made, classes, metric)
    return subset(made, limit, seed=seed, replicate=replicate)


def subset(task: Task, limit: int | dict[str, int] | None, *, seed: int = 0, replicate: int = 0) -> Task:
    """A task cut to `limit`, which means what it does in `load_task`; the task itself stays as it is. Raises KitError for a
    limit that makes no sense and for a task that is not sound."""
    cut = dict(task.splits)
    for name, count in ({} if limit is None else limit if isinstance(limit, dict) else {"train": limit}).items():
        if name not in cut:
            raise KitError(f"limit names the split {name!r}, but task {task.name!r} has {', '.join(task.splits)}")
        check_size(f"limit for the split {name!r}", count)
        salt = f"{seed}/{replicate}" if replicate and name == "train" else str(seed)
        cut[name] = cut[name].take(hash_order(cut[name].ids, salt=salt)[:count])
    return check_task(replace(task, splits=cut))


def task_names() -> list[str]:
    """The names `load_task` knows; besides them it takes the path of a file or folder."""
    return sorted(_registered())


def _registered() -> dict[str, tuple[Callable, tuple[str, ...], str]]:
    for module in BUILT_IN:
        import_module(module)
    return _TASKS


def _of_splits(name: str, splits: dict[str, Split], classes: tuple[str, ...], metric: str) -> Task:
    """A task of splits alone; what is not said follows from them."""
    train = splits.get("train") if isinstance(splits, dict) else None
    if not train or not all(isinstance(split, Split) for split in splits.values()):
        raise KitError(f"the function of task {name!r} must return a Task, or Splits by name, 'train' among them")
    splits = {part: replace(split, labels=np.asarray(split.labels)) for part, split in splits.items()}
    train = splits["train"]
    kind = ("image" if isinstance(train.inputs, np.ndarray) else "span" if train.spans is not None
            else "pair" if len(train.inputs[0]) == 2 else "text")
    if kind == "span":
        classes, metrics = ("outside", "inside"), ("char_f1",)
    elif train.labels.dtype.kind == "f":
        metrics = ("pearson", "spearman")
    else:
        classes = classes or tuple(map(str, range(int(train.labels.max()) + 1)))
        metrics = ("accuracy", "macro_f1", "mcc", *(["f1"] if len(classes) == 2 else []))
    if metric and metric not in metrics:
        raise KitError(f"metric must be one of {', '.join(metrics)} for {name}, not {metric!r}")
    return Task(name, kind, classes, splits, metric or metrics[0], metrics)


def _file(name: str) -> Callable[..., Task]:
    """The loader of a file or folder of one's own; KitError where there is none."""
    path = os.path.expanduser(name)
    if os.path.exists(path):
        return partial(load_own, path)
    if Path(name).suffix.lower() in SUFFIXES or name.startswith((".", "/", "~")):
        raise KitError(f"there is no file or folder {name!r} (the current folder is {os.getcwd()})")
    raise KitError(f"there is no task {name!r}{_nearest(name, task_names())} (known: {', '.join(task_names())}; "
                   "or the path of a CSV, TSV, JSONL or Parquet file)")


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=2, cutoff=0.6)
    return f", did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
