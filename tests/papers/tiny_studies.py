"""The five studies on tiny tasks: a few sentences, a few steps. What every study must keep is said here once."""

import json
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
from conftest import CLASSES, COMMON, WORDS, make_image_task, make_regression_task, make_text_task, text_split

from mtkd import papers, study
from mtkd.data.tasks import Split, Task
from mtkd.evidence.frame import rows_frame
from mtkd.papers.rl_kd import CONTROLS
from mtkd.runs import records
from mtkd.runs.parameters import notebook_path, read_parameters
from mtkd.store.artifacts import Store
from mtkd.train.recipes import Optimisation

OPT = Optimisation(epochs=1, batch_size=16, lr=3e-3)  # what the parameters below say of every stage
NAMES = ["roberta-scratch-2x16h2", "mpnet-scratch-2x16h2", "scratch-2x16h2"]
PAIR = ["scratch-2x16h2", "roberta-scratch-1x16h2"]
SMALL = {
    "mt_bert": {"teachers": NAMES, "student_depths": [1], "combination_start": "own", "query_size": 8,
                "sections": ["main", "combinations", "ablations", "ensembles", "poolers"]},
    "rl_kd": {"teachers": PAIR, "students": ["scratch-1x16h2"], "teacher_lrs": [3e-3], "sections": ["main", "readings"],
              "controls": list(CONTROLS), "encoder": "lsa-8",
              "dev_size": 10, "dev_every": 2, "alpha": 0.5, "temperature": 10.0, "gamma": 0.5},
    "seed_ensemble": {"teacher": "scratch-2x32", "student": "scratch-1x32", "n_teachers": 2, "augmentation": 0},
    "tmkd": {"task": "tiny/text", "transfer": ["tiny/other"], "teachers": ["scratch-1x16h2"] * 3, "student": "scratch-1x16h2",
             "teacher_lrs": [3e-3, 2e-3, 1e-3], "bilstm": "bilstm-1x8e8v100", "depths": [1, 2, 3], "pool_sizes": [20, 40],
             "alphas": [0.5, 1.0], "speed_texts": 8, "speed_repeats": 1, "ranking": ["main"],
             "sections": ["main", "stages", "averages", "bilstm", "layers", "alpha", "pools", "largest", "controls", "speed"]},
    "domain_expertise": {"task": "tiny/classes", "teachers": ["scratch-1x32", "roberta-scratch-1x32"],
                         "student": "scratch-1x16", "max_length": 32, "vocab": 200},
}
SPAN = {"arm": "span", "task": "tiny/span", "tuned_student": "other questions", "questions": 2}
COST = {"parameters", "time", "energy_kwh", "peak_memory_mib", "samples_per_second", "folder"}
ROW = COST | {"arm", "task", "kind", "variant", "repeat", "model", "metric", "score", "metrics", "split", "validation",
              "n_test", "right", "one_answer"}
OWN = {"mt_bert": {"method", "layers", "teachers"},
       "rl_kd": {"method", "student", "layers", "teachers", "lr", "temperature", "alpha", "gamma", "epochs", "curve", "policy"},
       "seed_ensemble": {"pool", "members", "k", "primary"},
       "tmkd": {"role", "method", "pool", "pool_size", "student", "layers", "alpha", "n", "speed"},
       "domain_expertise": {"method", "temperature", "start", "position", "teachers", "recalls", "layers"}}
TIME = {"train_s", "score_s", "intermediate_s", "teachers_s"}


def parameters(paper: str, **changes) -> dict:
    """The notebook's parameters, made small."""
    found = {name: p.default for name, p in read_parameters(notebook_path(paper)).items()}
    found |= {name: 1 for name in found if name.endswith("_epochs") and name != "general_epochs"}
    found |= {name: 3e-3 for name in found if name.endswith("_lr") and name != "policy_lr"}
    found |= {name: 0 for name in found if name.endswith(("train_size", "validation_size", "test_size"))}
    found |= {"task": "tiny", "vocab": 150, "max_length": 16, "batch_size": 16, "weight_decay": 0.01, "weak_teachers": "mark",
              ("pools" if paper == "seed_ensemble" else "repeats"): [0]}
    return {**found, **({"repeats": 1} if paper == "seed_ensemble" else {}), **SMALL[paper], **changes}


def study_of(paper: str, **changes):
    return import_module(f"mtkd.papers.{paper}_study").from_parameters(parameters(paper, **changes))


def make_span_task(name: str = "tiny/span") -> Task:
    """Which words are about the sea (a farm, a city)? Three questions, sentences of six words."""
    splits = {}
    for k, (part, n) in enumerate({"train": 60, "validation": 24, "test": 30}.items()):
        rng, inputs, spans = np.random.default_rng(60 + k), [], []
        for i in range(n):
            text, found, asked = "", [], CLASSES[i % 3]
            for about_it in rng.random(6) < 0.4:
                word = rng.choice(WORDS[asked] if about_it else COMMON)
                text += " " if text else ""
                found += [(len(text), len(text) + len(word))] if about_it else []
                text += word
            inputs.append((asked, text))
            spans.append(tuple(found))
        labels = np.array([int(bool(s)) for s in spans], dtype=np.int64)
        splits[part] = Split([f"{part}-{i}" for i in range(n)], inputs, labels, spans)
    return Task(name, "span", ("outside", "inside"), splits, "char_f1", ("char_f1",))


def load(name: str, **options) -> Task:
    """A tiny task of the kind that its name says; "text" has a pool of 40, "other" asks two classes of the same sentences."""
    if "span" in name:
        return make_span_task(name)
    if "regression" in name or "image" in name:
        return replace(make_image_task() if "image" in name else make_regression_task(), name=name)
    task = replace(make_text_task(), name=name)
    if "other" in name:
        halves = {k: replace(s, labels=(s.labels == 0).astype(np.int64)) for k, s in task.splits.items()}
        return replace(task, classes=("not sea", "sea"), splits=halves)
    pool = replace(text_split("pool", 40, 99), labels=np.full(40, -1))
    return replace(task, splits={**task.splits, "unlabelled": pool}) if "text" in name else task


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(study, "load_task", load)


def hidden_rows(e) -> None:
    """Turn a study's task into one whose test labels GLUE keeps to itself."""
    task = e.whole
    hidden = Split([f"test/{i}" for i in range(6)], task.splits["test"].inputs[:6], np.full(6, -1))
    e.__dict__["whole"] = replace(task, name="glue/mnli", splits={**task.splits, "hidden_test": hidden})


def all_rows(e) -> list[dict]:
    found = []
    for r in getattr(e.p, e.replicates):
        found += [*e.teacher_rows(r), *e.result_rows(r), *(e.speed_rows(r) if hasattr(type(e), "speed_rows") else ())]
    return found


def kept(paper: str, monkeypatch, **changes):
    """A study and its rows, after the checks that all studies share: the jobs leave nothing to train, rows have their columns
    and hold plain data, folders are there, no two rows are one, another process finds the same rows."""
    for group in study_of(paper, **changes).jobs():
        for job in group:
            job()
    make = Store._make  # the store is watched and not the loop: another loop would change every key

    def watched(self, kind, *rest):
        if kind in ("model", "cofinetuned"):
            pytest.fail(f"a {kind} was left to make, or made again")
        return make(self, kind, *rest)

    monkeypatch.setattr(Store, "_make", watched)
    e = study_of(paper, **changes)
    rows = all_rows(e)
    json.dumps(rows, allow_nan=False)
    for row in rows:
        assert set(row) - {"weights"} == ROW | OWN[paper]
        assert set(row["time"]) == TIME
        assert row["score"] == row["metrics"][row["metric"]]
        assert 0 <= row["score"] <= 1
        assert 0 <= row["validation"] <= 1
        assert row["split"] == "test"
        assert all(v >= 0 for v in row["time"].values())
        if row["folder"]:  # of a set tuned together, a member's
            assert any((Store().folder / row["folder"] / name).is_file() for name in ("artifact.json", "config.json"))
        if row["kind"] in ("undistilled", "teacher") or row["variant"] == "plain_ce":
            assert (row["time"]["teachers_s"], row["time"]["score_s"]) == (0, 0)
    record = {"paper": paper, "tier": "demo", "parameters": {}, "rows": rows}
    assert len(rows_frame(papers.paper(paper).rows, [record])) == len(rows)  # no two rows are one
    again = all_rows(study_of(paper, **changes))
    alike = [records.stable_view({"rows": found}) if paper == "tmkd" else found for found in (again, rows)]  # speeds may differ
    assert json.dumps(alike[0]) == json.dumps(alike[1])
    bill = e.bill()
    assert bill["models"] == len(e.used)
    assert bill["training_s"] > 0
    return e, rows
