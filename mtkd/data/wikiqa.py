"""WikiQA (Yang, Yih & Meek, 2015), from the hub's `microsoft/wiki_qa` or a mirror of it: does a sentence answer the question?

It stands in for the proprietary question-answering data of tmkd. One row is a question of a search engine's log and one
sentence of the Wikipedia page that its users clicked; a question has about ten rows, and 5% of all rows are right.

split        rows
train        balanced: per question with a right answer as many right as wrong sentences (k = the smaller of the two
             numbers, drawn by hash), so that the question alone says nothing; some of these questions are withheld
validation   balanced in the same way, from the official validation split; for accuracy
test         balanced in the same way, from the official test split; for accuracy
ranking      the official test split, whole, of all questions that have a right answer (the usual convention: no ranking
             can be right where nothing is); for mean average precision, see `ranking_score`
unlabelled   questions of the official training split that are outside the labelled part: those without any right answer,
             and the withheld ones, so that the pool has right answers too. Each is paired with its own sentences and with
             sentences of other pool questions, in hash order, so that any prefix is a fair sample of it

Sample ids are the official split, the question's id and the number of its row, such as "train/Q12/3"; the id of a foreign
pair names both, such as "pool/Q12+Q40/3".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mtkd.data import hub
from mtkd.data.splits import Split, Task, check_size, content_hash, hash_order
from mtkd.data.tasks import task
from mtkd.errors import KitError

HUB_ID = "microsoft/wiki_qa"
COLUMNS = ("question_id", "question", "answer", "label")
CLASSES = ("wrong", "right")
Row = tuple[str, str, str, int]  # id, question, sentence, label


@task("wiki_qa")
def load(unlabelled: int = 20000, withheld: float = 0.25, draw: int = 0) -> Task:
    """WikiQA as a pair task. Metrics: accuracy (chance is 1 in 2), F1.

    unlabelled  rows of the pool at most; its own pairs (some 15,000) and as many foreign pairs as it takes, but never
                fewer foreign ones than own ones
    withheld    share of the training questions with a right answer that go to the pool, without their labels
    draw        chooses the wrong sentences of the balanced splits, the withheld questions and the foreign pairs

    Raises KitError when an option makes no sense, the data set cannot be had, or its rows are not as they should be.
    """
    check_size("the size of unlabelled", unlabelled, least=0)
    if isinstance(withheld, bool) or not isinstance(withheld, (int, float)) or not 0 <= withheld < 1:
        raise KitError(f"withheld must be a share from 0 to below 1, not {withheld!r}")
    rows = hub.load_hub_dataset(HUB_ID)
    notes: list[str] = []
    official = {}
    for name in ("train", "validation", "test"):
        if name not in rows:
            raise KitError(f"{HUB_ID} has no split {name!r}; it has {', '.join(rows)}")
        official[name] = _questions(name, rows[name], notes)
    answered = {name: {q: r for q, r in found.items() if any(label for *_, label in r)} for name, found in official.items()}
    names = list(answered["train"])
    held = {names[i] for i in hash_order(names, salt=f"withheld {draw}")[:round(withheld * len(names))]}
    splits = {"train": _balanced({q: r for q, r in answered["train"].items() if q not in held}, draw),
              "validation": _balanced(answered["validation"], draw), "test": _balanced(answered["test"], draw),
              "ranking": _split([row for own in answered["test"].values() for row in own])}
    if unlabelled:
        outside = {q: r for q, r in official["train"].items() if q in held or q not in answered["train"]}
        known = {row[1].lower() for part in ("validation", "test") for own in official[part].values() for row in own}
        known |= {row[1].lower() for q, own in answered["train"].items() if q not in held for row in own}
        outside = {q: r for q, r in outside.items() if r[0][1].lower() not in known}  # asked in other words, it stays
        splits["unlabelled"] = _pool(outside, unlabelled, draw)
        if len(splits["unlabelled"]) < unlabelled:
            notes.append("the unlabelled split is smaller than asked for: there are no more pairs")
        notes.append(f"the pool has {len(outside):,} questions outside the labelled part, {len(held):,} of them with a right "
                     "answer")
    dropped = len(official["test"]) - len(answered["test"])
    notes.append(f"ranking leaves out the {dropped:,} of {len(official['test']):,} test questions that have no right answer")
    return Task("wiki_qa", "pair", CLASSES, splits, "accuracy", ("accuracy", "f1"), (*notes, *hub.mirror_note(HUB_ID)))


def ranking_score(task: Task, logits: np.ndarray, split: str = "ranking") -> float:
    """Mean average precision of logits [n, 2] on a split, its sentences ranked per question by right minus wrong."""
    from mtkd.measure.metrics import (
        mean_average_precision,  # its libraries take a second, and whoever asks for a task comes here
    )

    logits, rows = np.asarray(logits, dtype=np.float64), task.splits[split]
    if logits.shape != (len(rows), 2):
        raise KitError(f"a ranking of {len(rows):,} sentences needs logits [{len(rows)}, 2], not {list(logits.shape)}.")
    return mean_average_precision(logits[:, 1] - logits[:, 0], rows.labels, questions(rows))


def questions(split: Split) -> list[str]:
    """The question of every row, by id.

    >>> questions(Split(["test/Q1/0", "test/Q1/1"], [("q", "a"), ("q", "b")], np.array([0, 1])))
    ['test/Q1', 'test/Q1']
    """
    return [name.rsplit("/", 1)[0] for name in split.ids]


def _questions(name: str, rows, notes: list[str]) -> dict[str, list[Row]]:
    """Question id -> its rows, in the official order; rows with an empty text are left out with a note."""
    for column in COLUMNS:
        if column not in rows.column_names:
            raise KitError(f"{HUB_ID} has no column {column!r}; it has {', '.join(rows.column_names)}")
    found: dict[str, list[Row]] = {}
    counted: dict[str, int] = {}
    empty = 0
    for question_id, question, answer, label in zip(*(rows[column][:] for column in COLUMNS)):
        if label not in (0, 1):
            raise KitError(f"{HUB_ID} has the label {label!r} in its {name} split, outside 0 and 1")
        number = counted[question_id] = counted.get(question_id, -1) + 1
        if not all(isinstance(text, str) and text.strip() for text in (question, answer)):
            empty += 1
            continue
        found.setdefault(str(question_id), []).append((f"{name}/{question_id}/{number}", question, answer, int(label)))
    if empty:
        notes.append(f"{empty:,} {name} rows with an empty text are left out")
    return found


def _balanced(found: dict[str, list[Row]], draw: int) -> Split:
    """Of every question min(right, wrong) rows of each class, by hash; a question with one class alone is left out."""
    kept = []
    for own in found.values():
        sides = [[row for row in own if row[3] == label] for label in (0, 1)]
        for side in sides:
            order = hash_order([row[0] for row in side], salt=f"balance {draw}")
            kept += [side[i] for i in order[:min(map(len, sides))]]
    if not kept:
        raise KitError(f"{HUB_ID} has no question with both a right and a wrong answer in one of its splits")
    return _split([kept[i] for i in hash_order([row[0] for row in kept], salt="order")])


def _pool(found: dict[str, list[Row]], size: int, draw: int) -> Split:
    """At most `size` unlabelled pairs: own ones (at most half, unless there are no foreign ones), foreign ones for the rest."""
    own = list({row[1:3]: row for rows in found.values() for row in rows}.values())
    own = [own[i] for i in hash_order([row[0] for row in own], salt=f"own {draw}")]
    taken = {row[1:3] for row in own}
    kept = own[:max(size // 2, 0)] if len(found) > 1 else own[:size]
    for row in _foreign(found, own, draw) if len(found) > 1 else ():
        if len(kept) >= size:
            break
        if row[1:3] not in taken:
            taken.add(row[1:3])
            kept.append(row)
    return _split([(*kept[i][:3], -1) for i in hash_order([row[0] for row in kept], salt="order")])


def _foreign(found: dict[str, list[Row]], own: Sequence[Row], draw: int) -> Iterator[Row]:
    """Pairs of a question with a sentence of another one: round after round, one such pair per question."""
    names = list(found)
    for turn in range(len(own)):
        for name in names:
            row = own[int(content_hash(f"foreign {draw}", str(turn), name), 16) % len(own)]
            other, number = row[0].removeprefix("train/").rsplit("/", 1)
            if other != name:
                yield f"pool/{name}+{other}/{number}", found[name][0][1], row[2], -1


def _split(rows: Sequence[Row]) -> Split:
    return Split([row[0] for row in rows], [row[1:3] for row in rows], np.array([row[3] for row in rows], dtype=np.int64))
