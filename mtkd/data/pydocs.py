"""PyDocs: the kit's own offline corpus and three of the four tasks made from it (the fourth is in mtkd.data.pydocs_span).

The text is real English that is already on the disk of everybody who installed the kit: the docstrings of the standard
library, numpy, scipy, scikit-learn, pandas, matplotlib, torch and transformers (mtkd.data.docstrings says how they are cut
and cleaned). Nothing is shipped or downloaded. The same package versions give the same tasks on every machine: order,
splits, labels and corruptions come from SHA-256 hashes of the text alone.

- topic: first paragraph of a docstring -> the library it comes from (8 classes, the libraries' names masked).
- acceptability: a sentence as written or with its words out of order (2 classes, scored with MCC).
- relevance: (question, paragraph) -> does the paragraph belong to what the question asks about (2 classes, balanced).
  A tiny model does not learn this one from scratch; it takes a pretrained encoder.

Splits: the texts are put in hash order; the first `test` are the test split, the next `validation`, the next `train`, so
another size of train moves nothing else. What is left over is the "unlabelled" split (labels -1), at most `unlabelled`
texts, none of which is in another split.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mtkd.data import docstrings
from mtkd.data.hub import cache_folder, write_whole
from mtkd.data.splits import Split, Task, check_size, content_hash, hash_order, hashed
from mtkd.data.tasks import task
from mtkd.errors import KitError

PER_CLASS = 1400
Corpus = dict[str, list[tuple[str, list[str]]]]  # library -> (qualified name, its paragraphs), in a fixed order


@task("pydocs/topic")
def topic(train: int = 7500, validation: int = 600, test: int = 3000, unlabelled: int = 20000) -> Task:
    """First paragraph of a docstring -> its library. Metric: accuracy; chance is about 1 in 8.

    Every class gives 1,400 texts (numpy, the smallest, all it has: about 1,300). A text that two libraries share is
    left out. The unlabelled split holds further first paragraphs and then later paragraphs of the docstrings.
    """
    texts, notes = corpus()
    names = tuple(texts)
    owners: dict[str, set[str]] = {}
    for name in names:
        for _, prose in texts[name]:
            for text in prose:
                owners.setdefault(text, set()).add(name)
    # Another salt than the splits' own, or the classes with many texts would come first in every split.
    firsts = {name: hashed({prose[0] for _, prose in texts[name] if len(owners[prose[0]]) == 1}, "class")
              for name in names}
    labelled = {text: names.index(name) for name in names for text in firsts[name][:PER_CLASS]}
    splits, rest, notes = _cut(hashed(labelled), train, validation, test, notes)
    pool = rest + [text for name in names for text in firsts[name][PER_CLASS:]]
    taken = set(labelled) | set(pool)
    pool = hashed(pool) + hashed(text for text in owners if text not in taken)
    made = {name: _text_split(part, [labelled[text] for text in part]) for name, part in splits.items()}
    made["unlabelled"] = _text_split(pool[:unlabelled], [-1] * len(pool[:unlabelled]))
    return Task("pydocs/topic", "text", names, made, "accuracy", ("accuracy", "macro_f1"), notes)


@task("pydocs/acceptability")
def acceptability(train: int = 8000, validation: int = 500, test: int = 4000, unlabelled: int = 0,
                  corruption: str = "shuffle") -> Task:
    """A sentence as written, or with its words out of order. Metric: MCC; chance is 0.

    corruption  "shuffle" (all words), "rotate" (three words in a row, moved round by one) or "swap" (two neighbours):
                from easy to hard. The first letter is made small and the full stop dropped in both classes, since a
                capital or a full stop in the middle would give the answer away.

    A sentence is used once, corrupted or as written by its own hash, so its two versions never meet across splits.
    """
    if corruption not in CORRUPTIONS:
        raise KitError(f"corruption must be one of {', '.join(CORRUPTIONS)}, not {corruption!r}")
    texts, notes = corpus()
    found = {_plain(sentence) for rows in texts.values() for _, prose in rows for paragraph in prose
             for sentence in docstrings.sentences(paragraph) if _is_sentence(sentence)}
    splits, rest, notes = _cut(hashed(found), train, validation, test, notes)
    splits["unlabelled"] = rest[:unlabelled]
    made = {}
    for name, part in splits.items():
        intact = [int(content_hash("intact", sentence), 16) % 2 for sentence in part]
        inputs = [(sentence if keep else corrupt(sentence, corruption),) for sentence, keep in zip(part, intact)]
        labels = np.array([-1] * len(part) if name == "unlabelled" else intact, dtype=np.int64)
        made[name] = Split([content_hash(sentence) for sentence in part], inputs, labels)
    if not unlabelled:
        del made["unlabelled"]
    return Task("pydocs/acceptability", "text", ("corrupted", "wellformed"), made, "mcc", ("mcc", "accuracy"), notes)


@task("pydocs/relevance")
def relevance(train: int = 8000, validation: int = 1500, test: int = 1500, unlabelled: int = 0) -> Task:
    """Does the paragraph belong to what the question asks about? Metric: accuracy; chance is 1 in 2.

    The question is made from a documented name and its first sentence, the paragraph is a later one of the same
    docstring (relevant) or of another docstring of the same library (irrelevant). Every question and every paragraph
    comes once with each label, so neither says anything alone; both pairs of a question are in one split.

    Not learnable from scratch at the demo tier's size: use a pretrained encoder.
    """
    texts, notes = corpus()
    asked: dict[str, tuple[str, str]] = {}  # paragraph -> question, library; shared by several names, it counts once
    for library, rows in texts.items():
        for name, prose in rows:
            later = [p for p in prose[1:] if len(p.split()) >= 8]
            if later and later[0] not in asked:
                asked[later[0]] = (_question(name, prose[0]), library)
    questions = {question: (paragraph, library) for paragraph, (question, library) in asked.items()}
    parts, rest, notes = _cut(hashed(questions), train // 2, validation // 2, test // 2, notes)
    parts["unlabelled"] = rest[: unlabelled // 2]
    made = {}
    for name, part in parts.items():
        rows = []
        for library in texts:
            own = [(question, questions[question][0]) for question in part if questions[question][1] == library]
            if len(own) > 1:  # the next one in hash order is as good as a random one, and uses each exactly once
                for (question, paragraph), (_, other) in zip(own, own[1:] + own[:1]):
                    rows += [(question, paragraph, 1), (question, other, 0)]
        ids = [content_hash(question, paragraph) for question, paragraph, _ in rows]
        order = hash_order(ids)
        labels = np.array([-1 if name == "unlabelled" else label for *_, label in rows], dtype=np.int64)
        made[name] = Split(ids, [row[:2] for row in rows], labels).take(order)
    if not unlabelled:
        del made["unlabelled"]
    return Task("pydocs/relevance", "pair", ("irrelevant", "relevant"), made, "accuracy", ("accuracy", "f1"), notes)


# ---- the corpus and its cache ----

def corpus() -> tuple[Corpus, tuple[str, ...]]:
    """The paragraphs of every library that is installed, and a note for each that is not.

    Built once (some ten seconds on two cores) and kept, see `gather`, which says what it raises.
    """
    return gather("pydocs", tuple(docstrings.LIBRARIES))


def gather(name: str, libraries: Sequence[str], what: str = "prose") -> tuple[Corpus, tuple[str, ...]]:
    """The "prose" or the "parameters" of every library that is installed; a note for each that is not.

    Kept in the user's cache folder, or in the folder that the environment variable MTKD_CACHE names, under this name
    and the hash of the versions of Python and the packages and of the code. A damaged file is made again.

    Raises KitError when fewer than two libraries are found or the cache folder cannot be written.
    """
    found = {library: docstrings.find(library) for library in libraries}
    missing = [library for library, place in found.items() if place is None]
    present = [library for library in found if library not in missing]
    if len(present) < 2:
        raise KitError("PyDocs needs the docstrings of at least two libraries, but found only "
                       f"{', '.join(present) or 'none'}; install the packages of requirements.lock")
    notes = tuple(f"PyDocs without {library}: it is not installed here" for library in missing)
    source = Path(docstrings.__file__).read_bytes()
    key = content_hash(source, json.dumps({library: found[library][1] for library in present}))
    path = cache_folder() / f"{name}-{key}.jsonl"
    texts = _read(path, present)
    if texts is None:
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            texts = dict(zip(present, pool.map(lambda library: _extract(library, what), present)))
        _write(path, texts)
    return texts, notes


def _extract(library: str, what: str = "prose") -> list[tuple[str, list]]:
    # A child that runs one light module: unlike multiprocessing, it never runs the user's own script or notebook again.
    here = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-m", "mtkd.data.docstrings", library, what]
    try:
        rows = json.loads(subprocess.run(command, capture_output=True, env=env, check=True).stdout)
    except (OSError, subprocess.SubprocessError, ValueError):  # no interpreter of its own, as in an embedded Python
        rows = docstrings.extract(library, what)
    return [(name, found) for name, found in rows]


def _read(path: Path, present: list[str]) -> Corpus | None:
    try:
        digest, _, body = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    if digest != hashlib.sha256(body).hexdigest().encode():
        return None
    texts: Corpus = {library: [] for library in present}
    for line in body.decode().splitlines():
        library, name, prose = json.loads(line)
        texts[library].append((name, prose))
    return texts


def _write(path: Path, texts: Corpus) -> None:
    body = "".join(json.dumps([library, *row]) + "\n" for library, rows in texts.items() for row in rows).encode()
    write_whole(path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


# ---- small parts ----

def corrupt(sentence: str, corruption: str) -> str:
    """The sentence with its words out of order; the same sentence always gives the same result, never itself.

    >>> corrupt("return the sum of all array elements", "swap")
    'the return sum of all array elements'
    """
    words = sentence.split()
    draw = random.Random(hashlib.sha256(f"{corruption}:{sentence}".encode()).digest())
    for _ in range(100):
        mixed = CORRUPTIONS[corruption](words, draw)
        if mixed != words:
            return " ".join(mixed)
    raise ValueError(f"all words of {sentence!r} are the same")


def _shuffle(words: list[str], draw: random.Random) -> list[str]:
    return draw.sample(words, len(words))


def _rotate(words: list[str], draw: random.Random) -> list[str]:
    at = draw.randrange(len(words) - 2)
    return [*words[:at], words[at + 2], *words[at:at + 2], *words[at + 3:]]


def _swap(words: list[str], draw: random.Random) -> list[str]:
    at = draw.randrange(len(words) - 1)
    return [*words[:at], words[at + 1], words[at], *words[at + 2:]]


CORRUPTIONS = {"shuffle": _shuffle, "rotate": _rotate, "swap": _swap}


def _is_sentence(text: str) -> bool:
    words = text.split()
    return 5 <= len(words) <= 30 and text[0].isupper() and text.endswith(".") and len(set(words)) > 3


def _plain(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:].rstrip(".")


def _question(name: str, first: str) -> str:
    words = " ".join(docstrings.strip_markup(" ".join(name.split(".")[-2:]).replace("_", " ")).split())
    return f"What about {words}: {docstrings.sentences(first)[0]}"


def _cut(texts: list[str], train: int, validation: int, test: int, notes: tuple[str, ...]
         ) -> tuple[dict[str, list[str]], list[str], tuple[str, ...]]:
    """The three splits off the front of the list, the rest of it, and the notes."""
    for name, size in {"train": train, "validation": validation, "test": test}.items():
        check_size(f"the size of {name}", size, hint=" (2 for pairs)")
    held = test + validation
    if held >= len(texts):
        raise KitError(f"PyDocs has {len(texts):,} texts for this task here: too few for {held:,} of validation and test")
    splits = {"train": texts[held:held + train], "validation": texts[test:held], "test": texts[:test]}
    if len(splits["train"]) < train:
        notes = (*notes, "the training split is smaller than asked for: there are no more texts here")
    return splits, texts[held + train:], notes


def _text_split(texts: list[str], labels: list[int]) -> Split:
    return Split([content_hash(text) for text in texts], [(text,) for text in texts], np.array(labels, dtype=np.int64))
