"""What a data set is once it is loaded: named splits of identified samples, what their labels mean, how a model is scored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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
        """SHA-256 (hex) over all that a model can learn from or be chosen by: kind, class names and metrics, and the ids,
        inputs, labels and spans of every split. Same fingerprint, same task; its name and notes do not count."""
        digest = hashlib.sha256(repr((self.kind, self.classes, self.metric, self.metrics)).encode())
        for name in sorted(self.splits):
            split = self.splits[name]
            for text in (name, str(len(split)), *split.ids):
                _feed(digest, text.encode("utf-8", "surrogatepass"))
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


def check_task(task: Task) -> Task:
    """Return the task if its splits are sound, else raise KitError: empty split, repeated id, empty text, bad label or span."""
    for name in ("train", "validation", "test"):
        if name not in task.splits:
            raise KitError(f"task {task.name!r} has no {name!r} split; it has {', '.join(sorted(task.splits))}")
    for name, split in task.splits.items():
        if len(split) or name != "unlabelled":
            _check_split(f"the {name!r} split of task {task.name!r}", task, split, name)
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


def _check_split(where: str, task: Task, split: Split, name: str) -> None:
    if not len(split):
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
        return
    bad = (split.labels < -1) | (split.labels >= len(task.classes))
    if bad.any():
        at = int(np.argmax(bad))
        raise KitError(f"{where} has label {split.labels[at]} in sample {split.ids[at]!r}, outside the "
                       f"{len(task.classes)} classes ({', '.join(task.classes)})")


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


def check_size(what: str, value, least: int = 1, hint: str = "") -> None:
    """KitError unless a value is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise KitError(f"{what} must be a whole number of at least {least}{hint}, not {value!r}")


def hold_out(train: Split, largest: int = 2000) -> tuple[Split, Split]:
    """What is left of train, and a validation split of a tenth of it (at most `largest`), chosen by hash of id."""
    order, held = hash_order(train.ids, salt="validation"), min(len(train) // 10, largest)
    return train.take(np.sort(order[held:])), train.take(np.sort(order[:held]))


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


def hashed(keys, salt: str = "") -> list[str]:
    """The keys themselves in hash order, whatever order they came in."""
    keys = sorted(keys)
    return [keys[i] for i in hash_order(keys, salt)]


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
