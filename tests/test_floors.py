"""What any model must beat, which teachers stop a run, rates that fit a model, and replicates with data of their own."""

import json
from importlib import import_module

import numpy as np
import pytest
import torch

from mtkd import papers
from mtkd import study as experiments
from mtkd.data.tasks import Split, Task, load_task, subset
from mtkd.errors import KitError
from mtkd.measure.metrics import pack_right, unpack_right
from mtkd.report import read_records
from mtkd.runs.gridfiles import read_grid
from mtkd.runs.parameters import notebook_path, read_parameters
from mtkd.runs.records import repo_root
from mtkd.train import answers as judged
from mtkd.train import distil, floors, rates
from mtkd.train.prepare import prepare
from mtkd.train.recipes import Optimisation
from mtkd.train.teachers import Model

WORDS = ("sun sea wind", "tax vote law", "goal team ball")


def made(n=90, classes=3, seed=0, noise=0) -> Task:
    """Texts in which three words say their class, among `noise` others; class 0 is twice as frequent as the others."""
    rng = np.random.default_rng(seed)

    def split(part: str, n: int) -> Split:
        labels = np.array([0, 0, 1, 2] * (n // 4 + 1))[:n]
        texts = []
        for i, y in enumerate(labels):
            words = [*WORDS[y].split()[:1 if noise else 3], part, f"number{i}", *(f"w{k}" for k in rng.integers(0, 300, noise))]
            texts.append((" ".join(rng.permutation(words)),))
        return Split([f"{part}/{i}" for i in range(n)], texts, labels.astype(np.int64))

    splits = {"train": split("train", n), "validation": split("validation", 40), "test": split("test", 60)}
    return Task("made", "text", ("weather", "politics", "sport")[:classes], splits, "accuracy", ("accuracy",))


# ---- floors ----

def test_the_majority_class_is_that_of_train_and_scores_its_share():
    said = floors.majority(made())
    assert {part: (logits.argmax(1) == 0).all() for part, logits in said.items()} == {"validation": True, "test": True}
    assert said["test"].shape == (60, 3)


def test_the_linear_baseline_reads_words_and_learns_nothing_from_labels_that_are_shuffled():
    task = made()
    assert (floors.linear(task)["test"].argmax(1) == task.splits["test"].labels).all()
    train = task.splits["train"]
    shuffled = Split(train.ids, train.inputs, np.random.default_rng(0).permutation(train.labels))
    other = Task("made", "text", task.classes, {**task.splits, "train": shuffled}, "accuracy", ("accuracy",))
    assert (floors.linear(other)["test"].argmax(1) == task.splits["test"].labels).mean() < 0.7


def test_a_class_that_train_lacks_is_never_named():
    task = made()
    train = task.splits["train"]
    some = train.take(np.flatnonzero(train.labels != 1))
    task = Task("made", "text", task.classes, {**task.splits, "train": some}, "accuracy", ("accuracy",))
    said = floors.linear(task)["test"]
    assert np.isfinite(said).all()
    assert 1 not in said.argmax(1)


def test_images_have_a_floor_too():
    task = load_task("digits", limit={"train": 300, "validation": 100, "test": 200})
    right = floors.linear(task)["test"].argmax(1) == task.splits["test"].labels
    assert 0.8 < right.mean() < 1


def test_rows_of_a_record():
    rows = experiments.floor_rows(prepare(made(), "scratch-1x16"), "made", {"repeat": 3})
    assert [(r["kind"], r["method"], r["repeat"], r["score"]) for r in rows] == [
        ("floor", "majority", 3, 0.5), ("floor", "linear", 3, 1.0)]
    assert unpack_right(rows[0]["right"], 60).mean() == 0.5
    assert rows[0]["one_answer"]
    assert not rows[1]["one_answer"]
    json.dumps(rows)


# ---- which items were right ----

@pytest.mark.parametrize("n", [1, 7, 8, 9, 1000])
def test_marks_of_items_come_back(n):
    right = np.random.default_rng(n).random(n) < 0.5
    assert (unpack_right(pack_right(right), n) == right).all()
    with pytest.raises(KitError, match="and there are"):
        unpack_right(pack_right(right), n + 8)


# ---- a replicate has data of its own ----

def test_a_replicate_has_its_own_training_subset_and_everybodys_test():
    task = load_task("digits")
    cut = [subset(task, {"train": 100, "test": 50}, replicate=r) for r in (0, 1, 2, 1)]
    train = [set(t.splits["train"].ids) for t in cut]
    assert train[1] == train[3]
    assert train[0] != train[1] != train[2]
    assert len({tuple(t.splits["test"].ids) for t in cut}) == len({tuple(t.splits["validation"].ids) for t in cut}) == 1
    assert load_task("digits", limit={"train": 100, "test": 50}).fingerprint == cut[0].fingerprint
    assert len(task.splits["test"]) > 50  # the whole task stays as it is


# ---- learning rates ----

@pytest.mark.parametrize(("name", "low", "high"), [
    ("scratch-2x64", 2e-3, 6e-3), ("scratch-1x8h2 + mean", 2e-2, 6e-2), ("roberta-scratch-2x64 + attentive", 2e-3, 6e-3),
    ("bilstm-1x8e8v300", 5e-3, 2e-2), ("resnet-8", 5e-4, 2e-3)])
def test_rates_of_small_models(name, low, high):
    assert low < rates.fitted(name) < high


def test_rates_of_checkpoints_fall_with_size_and_are_far_below_those_from_scratch(tmp_path):
    found = []
    for layers, width in ((2, 384), (6, 384), (12, 768), (24, 1024)):
        folder = tmp_path / f"{layers}x{width}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"num_hidden_layers": layers, "hidden_size": width}))
        found.append(rates.fitted(str(folder)))
    assert found == sorted(found, reverse=True)
    assert found[1] == pytest.approx(1e-4, rel=0.1)
    assert 2e-5 < found[2] < 5e-5
    assert rates.fitted(f"bottom-2 of {tmp_path}/6x384 + mean") == found[0]
    assert rates.fitted("scratch-6x384") > 3 * found[1]


def test_a_rate_left_to_the_kit_is_the_one_that_fits_and_is_kept_with_the_model():
    prepared = prepare(made(), "scratch-1x16")
    model = distil.finetune(prepared, "scratch-1x16h2", [0], Optimisation(epochs=1))[0]
    assert model.info["lr"] == rates.fitted("scratch-1x16h2")
    same = distil.finetune(prepared, "scratch-1x16h2", [0], Optimisation(epochs=1, lr=rates.fitted("scratch-1x16h2")))[0]
    assert same.key == model.key
    with pytest.raises(KitError, match="cannot be below 0"):
        distil.finetune(prepared, "scratch-1x16h2", [0], Optimisation(epochs=1, lr=-1.0))


# ---- teachers that have learned nothing ----

def said(task: Task, tmp_path, logits: np.ndarray, name="scratch-2x64") -> tuple:
    from mtkd.store.artifacts import tensors_save
    from mtkd.train.outputs import ids_tensor

    prepared = prepare(task, "scratch-1x16")
    tensors_save(tmp_path / "logits-validation.safetensors", {
        "logits": torch.tensor(logits, dtype=torch.float32), "ids": ids_tensor(task.splits["validation"].ids)})
    return prepared, Model(tmp_path, name, "key", {"seconds": 0.0, "lr": 0.2})


def test_one_answer_to_everything_stops_the_run_and_says_what_to_try(tmp_path):
    task = made()
    prepared, model = said(task, tmp_path, np.tile([0.0, 1.0, 0.0], (40, 1)))
    with pytest.raises(KitError, match=r"gives the same answer to every .*rate 0\.2; try 0\.0039, which fits this model"):
        judged.sound(prepared, [model])
    assert judged.sound(prepared, [model], "mark") == [model]


def test_the_advice_knows_the_optimiser(tmp_path):
    model = Model(tmp_path, "resnet-8", "key", {"lr": 0.1, "optimiser": "sgd"})
    assert "which fits" not in judged.advice(model, 0.1)
    assert "try 0.1, which fits" in judged.advice(model, 10.0)


def test_no_better_than_the_majority_class_stops_the_run(tmp_path):
    task = made()
    wrong = np.eye(3)[(task.splits["validation"].labels + 1) % 3]
    with pytest.raises(KitError, match="no better on validation"):
        judged.sound(*(lambda p, m: (p, [m]))(*said(task, tmp_path, wrong)))


def test_a_teacher_that_knows_something_passes(tmp_path):
    task = made()
    prepared, model = said(task, tmp_path, np.eye(3)[task.splits["validation"].labels])
    assert judged.sound(prepared, [model]) == [model]


FAMILIES = ["scratch-1x32h2 + mean", "roberta-scratch-1x32h2 + mean"]
MUCH = {  # of every notebook: a teacher's rate a hundred times what fits it, and how the run asks for that teacher
    "seed_ensemble": ({"teacher": "scratch-1x32h2 + mean", "teacher_lr": 100.0, "augmentation": 0}, lambda e: e.teacher_set(0)),
    "mt_bert": ({"teachers": ["roberta-scratch-1x32h2", "scratch-1x32h2"], "teacher_lr": 100.0},
                lambda e: e.teacher_set(0, (0, 1))),
    "rl_kd": ({"teachers": FAMILIES, "teacher_lrs": [100.0]}, lambda e: e.teacher(0, 0)),
    "tmkd": ({"teachers": FAMILIES, "teacher_lrs": [100.0, 100.0], "transfer": [], "pool_sizes": []},
             lambda e: e.teacher_set(0)),
    "domain_expertise": ({"teachers": FAMILIES, "teacher_lr": 100.0}, lambda e: e.teacher(0, 0)),
}


@pytest.mark.parametrize("paper", MUCH)
@pytest.mark.parametrize("times", [1.0, 100.0])
def test_in_every_notebook_a_rate_a_hundred_times_too_large_is_refused(paper, times, monkeypatch):
    monkeypatch.setattr(experiments, "load_task", lambda name, **options: made(400, noise=6))
    changes, ask = MUCH[paper]
    fits = rates.fitted("scratch-1x32h2")
    changes = {k: fits * times if v == 100.0 else [fits * times] * len(v) if k == "teacher_lrs" else v
               for k, v in changes.items()}
    common = {"task": "made", "train_size": 0, "max_length": 24, "vocab": 600, "teacher_epochs": 5, "batch_size": 16}
    declared = {name: p.default for name, p in read_parameters(notebook_path(paper)).items()}
    run = import_module(f"mtkd.papers.{paper}_study").from_parameters({**declared, **common, **changes})
    if times == 1.0:
        assert ask(run)
        return
    with pytest.raises(KitError, match=r"so there is nothing to learn from it\. .* which fits this model"):
        ask(run)


# ---- tables and sentences from records ----

def record(paper="rl_kd", teachers=(0.7, 0.5), students=(0.6, 0.2), linear=0.6):
    row = {"arm": "main", "task": "made", "metric": "accuracy", "repeat": 0, "variant": None, "method": None}
    rows = [row | {"kind": "floor", "arm": "floor", "method": method, "score": score}
            for method, score in (("majority", 0.3), ("linear", linear))]
    rows += [row | {"kind": "teacher", "score": s, "one_answer": False} for s in teachers]
    rows += [row | {"kind": "student", "method": "v_kd", "score": s, "one_answer": s < 0.3} for s in students]
    rows += [row | {"kind": "undistilled", "score": 0.5}]
    return {"paper": paper, "tier": "demo", "rows": rows}


def test_the_table_marks_what_is_below_a_floor():
    (line,) = papers.floor_table([record()]).to_dict("records")
    assert line["marked"] == ("1 of 2 teachers not above the linear baseline; 1 of 2 students at the majority class; "
                              "1 of 2 distilled students below the undistilled one; 1 models give one answer to everything")
    assert (line["linear baseline"], line["teachers"]) == ("60.0", "60.0")
    (line,) = papers.floor_table([record(teachers=(0.7, 0.7), students=(0.6, 0.6))]).to_dict("records")
    assert line["marked"] == "nothing"
    assert not len(papers.floor_table([]))


def test_sentences_say_teachers_floors_and_students():
    (words,) = papers.floor_sentences([record(students=(0.6, 0.6))])
    assert words == ("rl_kd (demo, made; 1 replicate): the teachers reach 60.0, the linear baseline 60.0, the majority class "
                     "30.0. The student alone reaches 50.0. Distilled it reaches 60.0 from one teacher.")


# ---- make demo is the first replicate of the reference grid ----

@pytest.mark.parametrize("paper", ["seed_ensemble", "mt_bert", "rl_kd", "tmkd", "domain_expertise"])
def test_the_demo_is_the_first_replicate_of_twenty(paper):
    file, replicate = repo_root() / "params" / paper / "demo.yaml", "pools" if paper == "seed_ensemble" else "repeats"
    whole, first = read_grid(file).cells, read_grid(file, first=1).cells
    assert len(whole) == 20 * len(first)
    assert {tuple(cell.parameters[replicate]) for cell in first} == {(0,)}
    assert {tuple(cell.parameters[replicate]) for cell in whole} == {(n,) for n in range(20)}
    assert all(cell.parameters in [c.parameters for c in whole] for cell in first)


# ---- what is committed was made as the committed files say ----

def committed() -> list[dict]:
    folder = repo_root() / "results" / "reference"
    return read_records(folder) if folder.is_dir() else []


@pytest.mark.parametrize("paper", MUCH)
def test_every_committed_record_has_the_parameters_of_the_file_it_names(paper):
    asked: dict[str, list[dict]] = {}
    for record in committed():
        if record["paper"] != paper:
            continue
        words = record["provenance"]["command"].split()
        (file,) = (word for word in words if word.endswith(".yaml") and f"/{paper}/" in word)
        if file not in asked:
            asked[file] = [cell.parameters for cell in read_grid(repo_root() / file).cells]
        assert "-p" not in words, f"{record['run']} was run with values that its file does not have"
        assert record["parameters"] in asked[file], f"{record['run']} has not the parameters of {file}"
        assert not record["provenance"]["dirty"], f"{record['run']} was run from a tree with changes"


def test_every_committed_model_says_which_items_it_had_right_where_items_have_classes():
    for record in committed():
        for row in record["rows"]:
            if row["metric"] == "accuracy" and row["arm"] != "speed" and "accuracy_matched" not in row.get("metrics", {}):
                right = unpack_right(row["right"], row["n_test"])
                assert right.mean() == pytest.approx(row["score"], abs=1e-6), (record["run"], row["kind"], row.get("method"))
