"""Every built-in task from rows made here is what it was when tests/golden/tasks.json was written: ids, texts, labels, order.

`python -m tests.data.test_golden_tasks` writes the file anew; do that only where a task is meant to change.
"""

import csv
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtkd.data.tasks import load_task

GOLDEN = Path(__file__).parents[1] / "golden" / "tasks.json"
GLUE = {"cola": ("sentence",), "sst2": ("sentence",), "mrpc": ("sentence1", "sentence2"), "qqp": ("question1", "question2"),
        "mnli": ("premise", "hypothesis"), "qnli": ("question", "sentence"), "rte": ("sentence1", "sentence2"),
        "wnli": ("sentence1", "sentence2"), "stsb": ("sentence1", "sentence2")}
TOPICS = ("finance", "foodanddrink", "lifestyle", "news", "sports", "travel", "video")
PLAIN = {"cardiffnlp/tweet_eval/emotion": 4, "cardiffnlp/tweet_eval/sentiment": 3, "dair-ai/emotion/split": 6,
         "fancyzhx/ag_news/data": 4, "SetFit/20_newsgroups/data": 20}


def table(columns, split, n, classes, hidden=False):
    frame = {c: [f"{c} of {split} {i}" if i != 7 or c != columns[0] else "" for i in range(n)] for c in columns}
    label = [-1] * n if hidden else [i / n * 5 for i in range(n)] if classes == 1 else [(i * i) % classes for i in range(n)]
    return pd.DataFrame(frame | {"label": label})


def write_everything(root: Path) -> None:
    """A mirror of all hub sets in `root`/hub, MIND, NBME and a table of one's own beside it."""
    def parquet(place, split, frame):
        (root / "hub" / place).mkdir(parents=True, exist_ok=True)
        frame.to_parquet(root / "hub" / place / f"{split}-00000-of-00001.parquet")

    for task, columns in GLUE.items():
        names = ["train", "validation", "test"]
        if task == "mnli":
            names = ["train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched"]
        for k, split in enumerate(names):
            hidden = split.startswith("test") and task not in ("mrpc", "sst2")
            frame = table(columns, split, (120, 30, 25, 20, 15)[k], {"mnli": 3, "stsb": 1}.get(task, 2), hidden)
            parquet(f"nyu-mll/glue/{task}", split, frame.assign(idx=np.arange(len(frame)) + 3))
    for place, classes in PLAIN.items():
        for split, n in (("train", 130), ("validation", 20), ("test", 30)):
            if split != "validation" or "eval" in place or "dair" in place:
                parquet(place, split, table(("text",), split, n, classes))
    for split, n in (("train", 50), ("validation", 12), ("test", 14)):
        rows = table(("premise", "hypothesis"), split, n, 3)
        parquet("stanfordnlp/snli/data", split, rows.assign(label=[-1 if i == 3 else y for i, y in enumerate(rows.label)]))
    for split, n in (("train", 24), ("validation", 6), ("test", 8)):
        rows = [(f"Q{q}", f"{split} question {q}", f"answer {i} of {q} in {split}", int(q % 2 == 0 and i < 2), "")
                for q in range(n) for i in range(5)]
        parquet("microsoft/wiki_qa/data", split,
                pd.DataFrame(rows, columns=["question_id", "question", "answer", "label", "document_title"]))
    for part, first, last in (("MINDlarge_train", 0, 200), ("MINDlarge_dev", 150, 280)):
        (root / "mind" / part).mkdir(parents=True)
        news = [(f"N{i}", TOPICS[(i + i // 11) % 7 if i % 3 else 6], "sub", f'Title "{i}', f"Abstract {i}" if i % 2 else "",
                 "u", "[]", "[]") for i in range(first, last)]
        (root / "mind" / part / "news.tsv").write_text("".join("\t".join(row) + "\n" for row in news), encoding="utf-8")
    note = 'HPI: 17yo M\r\nwith "palpitations", 3-4 months. Note {}.'
    (root / "nbme").mkdir()
    tables = {"patient_notes.csv": [("pn_num", "case_num", "pn_history"), *((n, 0, note.format(n)) for n in range(30))],
              "features.csv": [("feature_num", "case_num", "feature_text"), (0, 0, "17-year"), (1, 0, "A-OR-b")],
              "train.csv": [("id", "case_num", "pn_num", "feature_num", "annotation", "location"),
                            *((f"{n:05}_{f}", 0, n, f, "[]", ("['5 9', '7 11']", "[]")[f]) for n in range(30) for f in (0, 1))]}
    for name, lines in tables.items():
        with (root / "nbme" / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(lines)
    own = [(f"text {i % 50}, so \"{i % 7}\"", f"other {i}", ("good", "bad", "so so")[i % 3], i / 7, f"k{i}") for i in range(90)]
    pd.DataFrame(own, columns=["text", "pair", "label", "score", "key"]).to_csv(root / "own.csv", index=False)


CASES = {
    **{f"glue/{t} {p}": (f"glue/{t}", {"protocol": p}) for t in GLUE for p in ("honest", "paper")},
    **{n: (n, {}) for n in ("tweet_eval/emotion", "tweet_eval/sentiment", "emotion", "snli", "ag_news", "20_newsgroups",
                            "mind/topic", "mind/balanced", "nbme", "digits", "own.csv")},
    "tweet_eval/sentiment paper": ("tweet_eval/sentiment", {"protocol": "paper"}),
    "mind/topic abstracts": ("mind/topic", {"text": "title+abstract"}),
    "wiki_qa": ("wiki_qa", {"unlabelled": 150}), "wiki_qa draw": ("wiki_qa", {"unlabelled": 40, "draw": 1, "withheld": 0.5}),
    "own.csv pair": ("own.csv", {"text_pair": "pair", "id": "key"}),
    "own.csv regression": ("own.csv", {"label": "score", "regression": True}),
    "digits limit": ("digits", {"limit": {"train": 60, "test": 20}, "seed": 3}),
    "digits replicate": ("digits", {"limit": {"train": 60, "test": 20}, "seed": 3, "replicate": 2}),
}


def summary(task) -> dict:
    def hashed(split) -> list:
        inputs = hashlib.sha256(split.inputs.tobytes() if isinstance(split.inputs, np.ndarray) else repr(split.inputs).encode())
        rest = [split.ids, split.labels.dtype.str, split.labels.tolist(),
                split.spans and [[[int(x) for x in s] for s in own] for own in split.spans]]
        return [len(split), split.ids[0], hashlib.sha256(json.dumps(rest).encode() + inputs.digest()).hexdigest()[:16]]

    notes = sorted(note for note in task.notes if "download" not in note)
    return {"task": [task.name, task.kind, list(task.classes), task.metric, list(task.metrics), notes],
            "splits": {name: hashed(task.splits[name]) for name in sorted(task.splits)}}


def environment(root: Path) -> dict:
    return {"MTKD_HUB": str(root / "hub"), "MTKD_MIND": str(root / "mind"), "MTKD_NBME": str(root / "nbme")}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    place = tmp_path_factory.mktemp("golden")
    write_everything(place)
    return place


@pytest.mark.parametrize("case", CASES)
def test_a_task_is_what_it_was(root, case, monkeypatch):
    for name, value in environment(root).items():
        monkeypatch.setenv(name, value)
    name, options = CASES[case]
    task = load_task(str(root / name) if name.startswith("own") else name, **options)
    assert json.loads(json.dumps(summary(task))) == json.loads(GOLDEN.read_text(encoding="utf-8"))[case]


if __name__ == "__main__":
    place = Path(tempfile.mkdtemp())
    write_everything(place)
    os.environ.update(environment(place))
    made = {case: summary(load_task(str(place / name) if name.startswith("own") else name, **options))
            for case, (name, options) in CASES.items()}
    lines = ",\n".join(f"{json.dumps(case)}: {json.dumps(found)}" for case, found in made.items())
    GOLDEN.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    sys.stdout.write(f"{len(made)} tasks\n")
