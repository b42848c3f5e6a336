"""Data sets as tasks: one name in, named splits of identified samples out.

    >>> task = load_task("digits", limit=100)
    >>> task.kind, task.outputs, len(task.splits["train"]), task.splits["train"].inputs.shape
    ('image', 10, 100, (100, 8, 8, 1))

Names: "pydocs/topic", "pydocs/relevance", "pydocs/acceptability" (offline, see mtkd.data.pydocs), "pydocs/span" (offline,
data.pydocs_span), "glue/cola" and the other eight GLUE tasks (data.glue), "tweet_eval/emotion", "tweet_eval/sentiment"
and "emotion" (data.tweets), "mind/topic" and "mind/balanced" (data.mind), "ag_news" and "20_newsgroups" (data.news), "nbme"
(your own copy, data.nbme), "wiki_qa" (data.wikiqa), "snli" (data.snli), "digits", "cifar10" (data.images), or the path of
your own file or folder (mtkd.data.userfile).
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path

import numpy as np

from mtkd.errors import KitError


@dataclass(frozen=True, eq=False)
class Split:
    """The samples of one split, in a fixed order.

    ids     n stable, unique strings: everything stored about a sample is found by its id
    inputs  n tuples of one or two texts, or a uint8 array [n, H, W, C]
    labels  int64 [n] with class numbers (-1 = unlabelled), or float32 [n] for regression
    spans   n tuples of (start, end) for a span task, else None: characters of the sample's last text, half-open
            (text[start:end]), sorted and apart from each other; such a sample's label is 1 if it has a span, else 0
    """

    ids: list[str]
    inputs: list[tuple[str, ...]] | np.ndarray
    labels: np.ndarray
    spans: list[tuple[tuple[int, int], ...]] | None = None

    def __post_init__(self):
        if not len(self.ids) == len(self.inputs) == len(self.labels):
            raise ValueError(f"{len(self.ids)} ids, {len(self.inputs)} inputs and {len(self.labels)} labels")
        if self.spans is not None and len(self.spans) != len(self.ids):
            raise ValueError(f"{len(self.ids)} ids and {len(self.spans)} entries of spans")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: Sequence[int] | np.ndarray) -> Split:
        """The samples at these positions, in this order."""
        indices = np.asarray(indices, dtype=np.int64)
        inputs = self.inputs[indices] if isinstance(self.inputs, np.ndarray) else [self.inputs[i] for i in indices]
        spans = None if self.spans is None else [self.spans[i] for i in indices]
        return Split([self.ids[i] for i in indices], inputs, self.labels[indices], spans)


@dataclass(frozen=True, eq=False)
class Task:
    """A data set ready for training: splits, what the labels mean and how a model is scored.

    kind     "text" (one text), "pair" (two texts), "image", or "span" (a feature and a passage: which characters of the
             passage say the feature? A model labels the passage's tokens with `classes`, ("outside", "inside"))
    classes  names in label order; empty for regression
    splits   "train", "validation", "test"; some tasks carry more ("unlabelled", "mismatched", "hidden_test")
    metric   the main one; `metrics` lists all that are reported (names as in mtkd.measure.metrics)
    notes    what a reader must know before quoting a number

    A task is not changed once made: use `dataclasses.replace` for another one.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    metric: str
    metrics: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def regression(self) -> bool:
        return not self.classes

    @property
    def outputs(self) -> int:
        """Width of a model's last layer: the number of classes, or 1 for regression."""
        return len(self.classes) or 1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the ids, inputs, labels and spans of every split: same fingerprint, same data."""
        digest = hashlib.sha256()
        for name in sorted(self.splits):
            split = self.splits[name]
            for text in (name, str(len(split)), *split.ids):
                _feed(digest, text.encode())
            if isinstance(split.inputs, np.ndarray):
                _feed(digest, str(split.inputs.shape).encode())
                _feed(digest, np.ascontiguousarray(split.inputs).data)
            else:
                for sample in split.inputs:
                    _feed(digest, b"\0".join(text.encode("utf-8", "surrogatepass") for text in sample))
            _feed(digest, np.ascontiguousarray(split.labels).astype(split.labels.dtype.newbyteorder("<")).data)
            if split.spans is not None:
                _feed(digest, repr([[(int(a), int(b)) for a, b in spans] for spans in split.spans]).encode())
        return digest.hexdigest()


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
    loader = _loader(str(name))
    known = list(inspect.signature(loader).parameters)
    for option in options:
        if option not in known:
            has = f"its options are {', '.join(known)}" if known else "it has none"
            raise KitError(f"task {name!r} has no option {option!r}{_nearest(option, known)}; {has}")
    return subset(loader(**options), limit, seed=seed, replicate=replicate)


def subset(task: Task, limit: int | dict[str, int] | None, *, seed: int = 0, replicate: int = 0) -> Task:
    """A task cut to `limit`, which means what it does in `load_task`; the task itself stays as it is. Raises KitError for a
    limit that makes no sense and for a task that is not sound."""
    cut = dict(task.splits)
    for name, count in _limits(task, limit).items():
        salt = f"{seed}/{replicate}" if replicate and name == "train" else str(seed)
        cut[name] = cut[name].take(hash_order(cut[name].ids, salt=salt)[:count])
    return check_task(replace(task, splits=cut))


def task_names() -> list[str]:
    """The names `load_task` knows; besides them it takes the path of a file or folder."""
    return sorted(_LOADERS)


def check_task(task: Task) -> Task:
    """Return the task if its splits are sound, else raise KitError: empty split, repeated id, empty text, bad label or span."""
    for name in ("train", "validation", "test"):
        if name not in task.splits:
            raise KitError(f"task {task.name!r} has no {name!r} split; it has {', '.join(sorted(task.splits))}")
    for name, split in task.splits.items():
        where = f"the {name!r} split of task {task.name!r}"
        if not len(split):
            if name == "unlabelled":
                continue
            raise KitError(f"{where} is empty")
        if len(set(split.ids)) < len(split):
            seen: set[str] = set()
            twice = next(i for i in split.ids if i in seen or seen.add(i))
            raise KitError(f"{where} has the id {twice!r} more than once; ids must be unique")
        if task.kind != "image":
            for i, sample in zip(split.ids, split.inputs):
                if not all(isinstance(text, str) and text.strip() for text in sample):
                    raise KitError(f"{where} has an empty or non-text value in sample {i!r}")
        if task.kind == "span":
            _check_spans(where, split, name)
        if task.regression:
            if name != "unlabelled" and not np.isfinite(split.labels).all():
                raise KitError(f"{where} has a label that is not a finite number, in sample "
                               f"{split.ids[int(np.argmin(np.isfinite(split.labels)))]!r}")
            continue
        bad = (split.labels < -1) | (split.labels >= len(task.classes))
        if bad.any():
            at = int(np.argmax(bad))
            raise KitError(f"{where} has label {split.labels[at]} in sample {split.ids[at]!r}, outside the "
                           f"{len(task.classes)} classes ({', '.join(task.classes)})")
    if task.kind == "span":
        if not any(task.splits["train"].spans):
            raise KitError(f"no training sample of task {task.name!r} has a span, so there is nothing to learn from; "
                           "raise the limit")
        return task
    present = [] if task.regression else sorted(set(task.splits["train"].labels.tolist()) - {-1})
    if not task.regression and len(present) < 2:
        only = f"the class {task.classes[present[0]]!r}" if present else "no label"
        raise KitError(f"every training sample of task {task.name!r} has {only}; two classes are needed, "
                       "so check the label column or raise the limit")
    return task


def content_hash(*parts: str | bytes) -> str:
    """16 hex digits of the SHA-256 of the parts, for ids and for splits by hash; the same on every machine."""
    digest = hashlib.sha256()
    for part in parts:
        _feed(digest, part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part)
    return digest.hexdigest()[:16]


def hash_order(keys: Sequence[str], salt: str = "") -> np.ndarray:
    """Positions of the keys, int64 [n], in the order of the hash of (salt, key): a shuffle that needs no generator."""
    hashes = [hashlib.sha256(f"{salt}:{key}".encode("utf-8", "surrogatepass")).digest() for key in keys]
    return np.array(sorted(range(len(keys)), key=hashes.__getitem__), dtype=np.int64)


def unique_ids(keys: Sequence[str]) -> list[str]:
    """Make repeated keys unique by counting the repeats: a, b, a -> a, b, a#2."""
    counts: dict[str, int] = {}
    taken: set[str] = set()
    ids = []
    for key in keys:
        name, n = key, counts.get(key, 1)
        while name in taken:
            n += 1
            name = f"{key}#{n}"
        counts[key] = n
        taken.add(name)
        ids.append(name)
    return ids


def _feed(digest, data) -> None:
    digest.update(f"{memoryview(data).nbytes}:".encode())  # lengths keep ("ab", "c") apart from ("a", "bc")
    digest.update(data)


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=2, cutoff=0.6)
    return f", did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def _check_spans(where: str, split: Split, name: str) -> None:
    if split.spans is None:
        raise KitError(f"{where} has no spans, but its kind is 'span'")
    for i, sample, label, spans in zip(split.ids, split.inputs, split.labels, split.spans):
        if len(sample) != 2:
            raise KitError(f"{where} has {len(sample)} texts instead of a feature and a passage in sample {i!r}")
        end = 0
        for span in spans:
            if not end <= span[0] < span[1] <= len(sample[-1]):
                raise KitError(f"{where} has the spans {list(spans)} in sample {i!r}: each must be a (start, end) within "
                               f"the passage's {len(sample[-1])} characters, in order and without overlap")
            end = span[1]
        if label != bool(spans) and (name != "unlabelled" or label != -1):
            raise KitError(f"{where} has label {label} for {len(spans)} spans in sample {i!r}; it must be 1 where there "
                           "is a span, else 0")


def _limits(task: Task, limit: int | dict[str, int] | None) -> dict[str, int]:
    limits = {} if limit is None else limit if isinstance(limit, dict) else {"train": limit}
    for name, count in limits.items():
        if name not in task.splits:
            raise KitError(f"limit names the split {name!r}, but task {task.name!r} has {', '.join(task.splits)}")
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
            raise KitError(f"limit for the split {name!r} must be a whole number of at least 1, not {count!r}")
    return limits


def _loader(name: str) -> Callable[..., Task]:
    if name in _LOADERS:
        module, function, *first = _LOADERS[name]
        return partial(getattr(import_module(module), function), *first)
    path = os.path.expanduser(name)
    if os.path.exists(path):
        return partial(import_module("mtkd.data.userfile").load_own, path)
    if Path(name).suffix.lower() in {".csv", ".tsv", ".jsonl", ".parquet"} or name.startswith((".", "/", "~")):
        raise KitError(f"there is no file or folder {name!r} (the current folder is {os.getcwd()})")
    raise KitError(f"there is no task {name!r}{_nearest(name, list(_LOADERS))} (known: {', '.join(task_names())}; "
                   "or the path of a CSV, TSV, JSONL or Parquet file)")


# name -> module, function there, leading arguments; a module is imported when one of its tasks is first asked for
_LOADERS: dict[str, tuple[str, ...]] = {
    **{f"pydocs/{task}": ("mtkd.data.pydocs", task) for task in ("topic", "relevance", "acceptability")},
    "pydocs/span": ("mtkd.data.pydocs_span", "span"),
    **{f"glue/{task}": ("mtkd.data.glue", "load", task)
       for task in ("cola", "sst2", "mrpc", "qqp", "mnli", "qnli", "rte", "wnli", "stsb")},
    **{f"tweet_eval/{task}": ("mtkd.data.tweets", "tweet_eval", task) for task in ("emotion", "sentiment")},
    "emotion": ("mtkd.data.tweets", "emotion"),
    **{f"mind/{task}": ("mtkd.data.mind", "load", task) for task in ("topic", "balanced")},
    **{task: ("mtkd.data.news", "load", task) for task in ("ag_news", "20_newsgroups")},
    "nbme": ("mtkd.data.nbme", "load"),
    "wiki_qa": ("mtkd.data.wikiqa", "load"),
    "snli": ("mtkd.data.snli", "load"),
    "digits": ("mtkd.data.images", "digits"),
    "cifar10": ("mtkd.data.images", "cifar10"),
}
