"""News topics of MIND (Wu et al., 2020): a news title -> its topic, as in mt_bert and in domain_expertise.

mind/topic      all topics (18 in the large download). mt_bert, Table 1: 102k train, 2.6k validation, 26k test.
mind/balanced   video, finance, foodanddrink, travel and lifestyle. domain_expertise, Table 4.1: 24,428 / 10,000 / 5,000.

The news come from a download of MIND (option `folder` or environment variable MTKD_MIND), which holds news.tsv itself or
in one subfolder per part, as in MINDlarge_train/news.tsv; else from the hub's linxinyuan/mind, which the thesis names.
A piece of news that several parts list counts once. Neither paper says which rows it took, so `notes` says what is done.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from mtkd.data import hub
from mtkd.data.splits import Split, Task, content_hash, hashed
from mtkd.data.tasks import task
from mtkd.errors import KitError

HUB_ID = "linxinyuan/mind"
VARIABLE = "MTKD_MIND"
FIVE = ("video", "finance", "foodanddrink", "travel", "lifestyle")
TOPIC_SIZES = {"train": 102_000, "validation": 2_600, "test": 26_000}
BALANCED_SIZES = {"train": 24_428, "validation": 10_000, "test": 5_000}
# what a column of a hub copy may be called
_ID, _LABEL = ("news_id", "newsid", "nid", "id"), ("category", "label", "topic", "labels")
_TITLE, _ABSTRACT = ("title", "text", "sentence", "news"), ("abstract",)


@dataclass
class News:
    """Title, abstract and topic by news id; `training` are the ids that the download's training part lists, if it has one."""

    found: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    training: set[str] = field(default_factory=set)
    source: str = ""


def load(name: str, folder: str | None = None, text: str = "title") -> Task:
    """MIND's news by topic: `name` is "topic" or "balanced". Metrics: accuracy and macro F1.

    folder  of a download; without it (and without MTKD_MIND) the hub's copy
    text    "title" or "title+abstract", the two joined by a space where there is an abstract

    Raises KitError for an unknown `text`, a folder without news.tsv, rows that are not MIND's, or topics that are missing.
    """
    if text not in ("title", "title+abstract"):
        raise KitError(f"text must be 'title' or 'title+abstract', not {text!r}")
    place = folder or os.environ.get(VARIABLE)
    news = _download(Path(place).expanduser()) if place else _hub()
    texts = {i: title if text == "title" else f"{title} {abstract}".strip() for i, (title, abstract, _) in news.found.items()}
    ids = [i for i in sorted(news.found) if texts[i].strip() and news.found[i][2].strip()]
    notes = [news.source]
    if len(ids) < len(news.found):
        notes.append(f"{len(news.found) - len(ids):,} news without a text or a topic are left out")
    topics = {i: news.found[i][2] for i in ids}
    classes = FIVE if name == "balanced" else tuple(sorted(set(topics.values())))
    parts = _balanced(ids, topics, notes) if name == "balanced" else _all(ids, news.training, notes)
    splits = {split: Split(part, [(texts[i],) for i in part], np.array([classes.index(topics[i]) for i in part], np.int64))
              for split, part in parts.items()}
    seen = {texts[i] for i in parts["train"]}
    shared = sum(texts[i] in seen for i in parts["test"])
    if shared:
        notes.append(f"{shared:,} texts of test are also in train, under another news id")
    return Task(f"mind/{name}", "text", classes, splits, "accuracy", ("accuracy", "macro_f1"), tuple(notes))


def _all(ids: list[str], training: set[str], notes: list[str]) -> dict[str, list[str]]:
    others = [i for i in ids if i not in training]
    held = TOPIC_SIZES["validation"] + TOPIC_SIZES["test"]
    if training and len(others) >= 2 and len(others) < len(ids):
        pool, share = others, TOPIC_SIZES["validation"] / held
        sizes = {"validation": max(1, round(len(pool) * share))}
        sizes["test"] = len(pool) - sizes["validation"]
        how = "train is the news of the download's training part, validation and test the other news, 1 to 10 by hash of id"
    else:
        pool, total = ids, sum(TOPIC_SIZES.values())
        sizes = {name: max(1, round(len(pool) * TOPIC_SIZES[name] / total)) for name in ("validation", "test")}
        how = "the splits are by hash of the news id, in the proportions of mt_bert's Table 1"
    parts = _deal(pool, sizes)
    parts["train"] = sorted(set(ids) - set(parts["validation"]) - set(parts["test"]))
    notes.append(f"{how}: {_counts(parts)} (the paper: 102k, 2.6k, 26k; it does not say which)")
    return {name: parts[name] for name in TOPIC_SIZES}


def _balanced(ids: list[str], topics: dict[str, str], notes: list[str]) -> dict[str, list[str]]:
    of = {topic: [i for i in ids if topics[i] == topic] for topic in FIVE}
    missing = [topic for topic in FIVE if not of[topic]]
    if missing:
        known = ", ".join(sorted(set(topics.values()))[:20]) or "none"
        raise KitError(f"MIND has no news on {', '.join(missing)} here; its topics are {known}")
    total = sum(BALANCED_SIZES.values())
    each = -(-total // len(FIVE))
    pool = [i for topic in FIVE for i in hashed(of[topic], "mind")[:each]]
    scale = min(1, len(pool) / total)
    parts = _deal(pool, {name: max(1, round(scale * BALANCED_SIZES[name])) for name in ("validation", "test")})
    parts["train"] = parts["train"][:BALANCED_SIZES["train"]]
    notes.append("of each topic the first by hash of the news id, as many as there are up to "
                 f"{each:,} ({', '.join(f'{topic} {min(each, len(of[topic])):,}' for topic in FIVE)})")
    notes.append(f"the splits are by hash of the news id: {_counts(parts)} (the paper: 24,428, 10,000, 5,000; it does not say "
                 f"which{'' if scale == 1 else ', and here are too few different news for them: the proportions are kept'})")
    return {name: parts[name] for name in BALANCED_SIZES}


def _deal(pool: list[str], sizes: dict[str, int]) -> dict[str, list[str]]:
    order, parts, at = hashed(pool, "split"), {}, 0
    for name, size in sizes.items():
        parts[name], at = order[at:at + size], at + size
    return {**parts, "train": order[at:]}


def _counts(parts: dict[str, list[str]]) -> str:
    return ", ".join(f"{len(parts[name]):,} {name}" for name in ("train", "validation", "test"))


# ---- where the rows come from ----

def _download(root: Path) -> News:
    if not root.is_dir():
        raise KitError(f"there is no folder {str(root)!r} (the current folder is {os.getcwd()}); it must hold MIND's news.tsv")
    files = [root / "news.tsv"] if (root / "news.tsv").is_file() else sorted(
        root.glob("*/news.tsv"), key=lambda f: ("train" not in f.parent.name, f.parent.name))  # a training part goes first
    if not files:
        raise KitError(f"{str(root)!r} holds no news.tsv, neither itself nor in a subfolder such as MINDlarge_train")
    news = News(source=f"from {len(files)} news.tsv of a download of MIND")
    for file in files:
        try:
            lines = file.read_bytes().decode().split("\n")
        except (OSError, ValueError) as error:
            raise KitError(f"{str(file)!r} cannot be read as TSV: {str(error).splitlines()[0]}") from error
        table = [line.rstrip("\r").split("\t") for line in lines if line.strip()]
        short = min(map(len, table), default=0)
        if short < 5:
            raise KitError(f"{str(file)!r} has {short} columns; MIND's news.tsv has news id, category, subcategory, "
                           "title, abstract and more, without a header")
        for i, topic, _, title, abstract, *_ in table:
            news.found.setdefault(i, (title, abstract, topic))
        if len(files) > 1 and "train" in file.parent.name:
            news.training.update(row[0] for row in table)
    return news


def _hub() -> News:
    rows = hub.load_hub_dataset(HUB_ID)
    news = News(source=f"from the hub's {HUB_ID}")
    for part in rows:
        table, columns = rows[part], rows[part].column_names
        known = {column.lower(): column for column in columns}
        name = {wanted: next((known[n] for n in names if n in known), None) for wanted, names in
                (("id", _ID), ("label", _LABEL), ("title", _TITLE), ("abstract", _ABSTRACT))}
        if name["label"] is None or name["title"] is None:
            raise KitError(f"{HUB_ID} has no column for the topic ({' or '.join(_LABEL)}) or the text ({' or '.join(_TITLE)}); "
                           f"its columns are {', '.join(columns)}")
        titles, labels = table[name["title"]][:], table[name["label"]][:]
        abstracts = table[name["abstract"]][:] if name["abstract"] else [""] * len(titles)
        feature = table.features[name["label"]]
        if hasattr(feature, "int2str"):
            labels = [None if label is None or label < 0 else feature.int2str(label) for label in labels]
        ids = table[name["id"]][:] if name["id"] else [content_hash(str(title)) for title in titles]
        for i, label, title, abstract in zip(ids, labels, titles, abstracts):
            news.found.setdefault(str(i), (title or "", abstract or "", "" if label is None else str(label)))
        if part == "train" and len(rows) > 1:
            news.training.update(map(str, ids))
    return news


for _name in ("topic", "balanced"):
    task(f"mind/{_name}")(partial(load, _name))
