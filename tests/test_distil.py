"""End to end on a tiny task: teachers in, students out, everything found again instead of made again."""

import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from conftest import make_image_task, make_text_task, text_split
from torch.testing import assert_close

from mtkd.errors import KitError
from mtkd.measure.metrics import compute_metrics
from mtkd.models import names as models
from mtkd.store.artifacts import Store, tensors_load
from mtkd.train import distil, outputs, recipes, teachers
from mtkd.train.prepare import Augmentation, Views, prepare
from mtkd.train.recipes import Independent, Optimisation

OPT = Optimisation(epochs=2, batch_size=16, lr=3e-3)
TEACHER, STUDENT = "scratch-2x32", "scratch-1x32"


def tinybert(members, primary, **changes):
    return recipes.tinybert(members, primary, intermediate=OPT, prediction=OPT, **changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One store with two teachers and three students; the tests below look at it and add to it."""
    prepared = prepare(make_text_task(), TEACHER, vocab=200, store=Store(tmp_path_factory.mktemp("store")))
    pool = distil.finetune(prepared, TEACHER, (0, 1), OPT)
    return {
        "prepared": prepared, "pool": pool,
        "tinybert": distil.distill(prepared, pool, STUDENT, tinybert((0, 1), 0), seed=5),
        "distilbert": distil.distill(prepared, pool, "distilbert-1 of " + str(pool[0].folder),
                                     recipes.distilbert((0, 1), 1, optimisation=OPT), seed=5),
        "undistilled": distil.undistilled(prepared, STUDENT, OPT, seed=5),
    }


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(Store, "_make", lambda self, kind, *rest: pytest.fail(f"a {kind} was made"))


def test_an_empty_store_is_filled_once(made):
    assert not any(made[name].reused for name in ("tinybert", "distilbert", "undistilled"))
    assert not any(m.reused for m in made["pool"])
    assert made["tinybert"].before is not None
    assert made["distilbert"].before is None
    usage = made["prepared"].store.usage()
    assert usage["model"]["artifacts"] >= 6  # 2 teachers, 2 stages, distilbert, undistilled
    assert {"tokenizer", "logits", "states"} <= set(usage)


def test_the_second_call_trains_and_scores_nothing(made, no_training):
    prepared = prepare(make_text_task(), TEACHER, vocab=200, store=Store(made["prepared"].store.folder))
    pool = distil.finetune(prepared, TEACHER, (0, 1), OPT)
    assert all(m.reused for m in pool)
    again = distil.distill(prepared, pool, STUDENT, tinybert((0, 1), 0), seed=5)
    assert again.reused
    assert again.before.reused
    assert again.key == made["tinybert"].key
    assert again.metrics == made["tinybert"].metrics
    assert distil.undistilled(prepared, STUDENT, OPT, seed=5).reused


def test_the_intermediate_student_is_shared_by_all_with_the_same_primary(made, monkeypatch):
    stages, make = [], Store._make

    def counted(self, kind, spec, *rest):
        stages.extend([spec["stage"]["name"]] if kind == "model" else [])
        return make(self, kind, spec, *rest)

    monkeypatch.setattr(Store, "_make", counted)
    alone = distil.distill(made["prepared"], made["pool"], STUDENT, tinybert((0,), 0), seed=5)
    assert stages == ["prediction"]
    assert alone.before.key == made["tinybert"].before.key
    assert alone.key != made["tinybert"].key
    other = distil.distill(made["prepared"], made["pool"], STUDENT, tinybert((0, 1), 1), seed=5)
    assert stages == ["prediction", "intermediate", "prediction"]
    assert other.before.key != alone.before.key


def test_another_seed_is_another_student(made):
    other = distil.distill(made["prepared"], made["pool"], STUDENT, tinybert((0, 1), 0), seed=6)
    assert other.key != made["tinybert"].key
    assert not torch.equal(other.logits("test"), made["tinybert"].logits("test"))


def test_what_is_kept_of_a_model(made):
    model = made["tinybert"]
    assert set(model.metrics) == {"validation", "test"}
    assert set(model.metrics["test"]) == {"accuracy", "macro_f1"}
    assert model.seconds > 0
    assert model.shape == {"layers": 1, "width": 32, "heads": 4}
    assert model.info["history"]["steps"] == 8
    assert model.info["parameters"] == models.count_parameters(model.network())
    assert made["tinybert"].before.metrics == {}  # an inner stage leaves the head untrained
    labels = made["prepared"].task.splits["test"].labels
    assert compute_metrics(model.logits("test").numpy(), labels, ("accuracy",))["accuracy"] == model.metrics["test"]["accuracy"]
    stored = tensors_load(model.folder / "logits-test.safetensors")
    assert outputs.ids_from(stored["ids"]) == made["prepared"].task.splits["test"].ids


@pytest.mark.parametrize("name", ["tinybert", "distilbert"])
def test_a_student_loads_with_plain_transformers_and_says_what_was_stored(made, name):
    student = made[name]
    tokenizer = transformers.AutoTokenizer.from_pretrained(student.folder)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(student.folder).eval()
    texts = [row[0] for row in made["prepared"].task.splits["test"].inputs]
    given = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = network(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits
    assert_close(logits, student.logits("test"), atol=1e-5, rtol=1e-5)
    assert list(network.config.id2label.values()) == ["sea", "farm", "city"]
    assert network.config.model_type == {"tinybert": "bert", "distilbert": "distilbert"}[name]


def test_a_student_learns_from_teachers_without_seeing_a_label(made):
    """TinyBERT's two stages have no gold term: with enough steps the student knows the task from its teachers alone."""
    prepared, more = made["prepared"], replace(OPT, epochs=20, lr=5e-3)
    pool = distil.finetune(prepared, TEACHER, (0, 1), more)
    blind = replace(prepared.task.splits["train"], labels=np.full(60, -1))
    unlabelled = prepare(replace(prepared.task, splits={**prepared.task.splits, "train": blind}), TEACHER, vocab=200,
                         store=prepared.store)
    recipe = recipes.tinybert((0, 1), 0, intermediate=OPT, prediction=more)
    student = distil.distill(unlabelled, pool, STUDENT, recipe, seed=0)
    assert min(m.metrics["test"]["accuracy"] for m in pool) > 0.7
    assert student.metrics["test"]["accuracy"] > 0.6  # a third is chance


@pytest.mark.parametrize("kind", ["shuffled", "uniform"])
def test_controls_are_students_of_their_own_but_share_the_intermediate_stage(made, kind):
    recipe = replace(tinybert((0, 1), 0), teachers=Independent(kind))
    control = distil.distill(made["prepared"], made["pool"], STUDENT, recipe, seed=5)
    assert control.key != made["tinybert"].key
    assert control.before.key == made["tinybert"].before.key
    if kind == "uniform":  # nothing to learn but to be uniform
        spread = control.logits("test").softmax(-1).std()
        assert spread < made["tinybert"].logits("test").softmax(-1).std()


def test_gold_labels_alone_are_not_changed_by_a_control(made, no_training):
    recipe = replace(recipes.plain(OPT), teachers=Independent("shuffled"))
    assert distil.distill(made["prepared"], [], STUDENT, recipe, seed=5).key == made["undistilled"].key


def test_general_distillation_comes_before_and_leaves_its_mark(made, tmp_path):
    """TinyBERT's stage one: inner layers of a pre-trained encoder (here a folder) on unlabelled text."""
    task = made["prepared"].task
    pool_of_text = replace(text_split("pool", 40, 99), labels=np.full(40, -1))
    task = replace(task, splits={**task.splits, "unlabelled": pool_of_text})
    encoder = str(made["pool"][0].folder)
    prepared = prepare(task, encoder, store=made["prepared"].store)
    general = distil.distill(prepared, [teachers.pretrained(prepared, encoder)], STUDENT, recipes.tinybert_general(OPT), seed=0)
    assert general.metrics == {}
    assert general.info["history"]["samples"] == 80
    student = distil.distill(prepared, distil.finetune(prepared, encoder, (0,), OPT), STUDENT, tinybert((0,), 0), seed=0,
                             start=general)
    assert student.before.before is general
    with pytest.raises(KitError, match="starts from random weights"):
        teachers.pretrained(prepared, TEACHER)


def test_projections_are_drawn_from_the_students_seed(made, tmp_path):
    """A stage that goes on from a stored model draws nothing but its projections; what was drawn before must not matter."""
    start = distil.undistilled(made["prepared"], "scratch-1x16", OPT, seed=0)
    recipe = recipes.tinybert((0,), 0, intermediate=OPT, prediction=OPT)
    found = []
    for name, noise in (("a", 1), ("b", 2)):
        prepared = replace(made["prepared"], store=Store(tmp_path / name))
        torch.manual_seed(noise)
        found.append(distil.distill(prepared, made["pool"], "scratch-1x16", recipe, seed=4, start=start))
    assert found[0].folder != found[1].folder
    assert torch.equal(found[0].logits("test"), found[1].logits("test"))


# --- images, pairs, regression, augmentation -----------------------------------------------------------------------------


def test_resnets_with_two_views():
    prepared = prepare(make_image_task(), "resnet-8w8", views=Views(2, crop=1, flip=False))
    opt = Optimisation(epochs=3, batch_size=16, lr=0.05, optimiser="sgd", weight_decay=1e-4)
    pool = distil.finetune(prepared, "resnet-8w8", (0, 1), opt)
    recipe = recipes.resnet((0, 1), optimisation=opt, temperature=2.0)
    student = distil.distill(prepared, pool, "resnet-8w4", recipe, seed=0)
    scored = teachers.score(prepared, pool[0], "train")
    kept = tensors_load(scored.folder / "logits.safetensors")
    assert kept["logits"].shape == (120, 3)
    assert outputs.ids_from(kept["ids"])[:3] == ["train-0/view0", "train-0/view1", "train-1/view0"]
    assert student.info["parameters"] < pool[0].info["parameters"]
    history = student.info["history"]["losses"]
    assert history["soft_cross_entropy"][1] < history["soft_cross_entropy"][0]
    network = models.load(student.folder).eval()
    assert_close(outputs.evaluate_logits(network, prepared.data("test"), torch.device("cpu")), student.logits("test"))
    assert distil.distill(prepared, pool, "resnet-8w4", recipe, seed=0).reused


def test_pairs(pair_task):
    prepared = prepare(pair_task, TEACHER, vocab=200)
    pool = distil.finetune(prepared, TEACHER, (0,), OPT)
    student = distil.distill(prepared, pool, STUDENT, tinybert((0,), 0))
    assert set(student.metrics["test"]) == {"accuracy", "f1", "mcc"}
    assert student.logits("test").shape == (30, 2)


def test_a_regression_is_trained_with_squared_error(regression_task):
    prepared = prepare(regression_task, TEACHER, vocab=200)
    opt = replace(OPT, epochs=10, lr=5e-3)
    pool = distil.finetune(prepared, TEACHER, (0, 1), opt)
    student = distil.distill(prepared, pool, STUDENT, recipes.distilbert((0, 1), 0, optimisation=opt), seed=0)
    assert set(student.metrics["test"]) == {"pearson", "spearman"}
    assert student.logits("test").shape == (30, 1)
    assert pool[0].metrics["test"]["pearson"] > 0.7
    assert student.metrics["test"]["pearson"] > 0.5
    gold = pool[0].info["history"]["losses"]["cross_entropy"]
    assert gold[1] < 0.5 * gold[0]


def test_augmented_text(made):
    few = {**made["prepared"].task.splits, "train": text_split("train", 24, 7)}
    task = replace(made["prepared"].task, splits=few)
    prepared = prepare(task, TEACHER, vocab=200, store=made["prepared"].store, augmentation=Augmentation(factor=2))
    data = prepared.data("augmented/0")
    assert len(data) == 72
    assert data.ids[:4] == ["train-0", "train-0/0/0", "train-0/0/1", "train-1"]
    assert data.labels[:6].tolist() == [0, 0, 0, 1, 1, 1]
    pool = distil.finetune(prepared, TEACHER, (0,), OPT)
    first, second = (distil.distill(prepared, pool, STUDENT, tinybert((0,), 0), seed=0, run=run) for run in (0, 1))
    assert first.key != second.key
    assert first.before.info["history"]["samples"] == 144
    off = prepare(task, TEACHER, vocab=200, store=made["prepared"].store)
    assert off.name("augmented", 3) == "train"
    assert prepared.spec("train") == off.spec("train")  # teachers are shared
    assert prepared.spec("augmented/0") != off.spec("train")
    assert prepared.spec("augmented/0") != replace(prepared, augmentation=Augmentation(factor=3)).spec("augmented/0")


# --- teachers made elsewhere ---------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(made, tmp_path):
    """A classifier saved with plain transformers, with the task's tokeniser."""
    folder = tmp_path / "mine"
    network = models.build(TEACHER, 3, seed=77, vocab=made["prepared"].vocab, labels=("sea", "farm", "city"))
    network.hf.save_pretrained(folder)
    made["prepared"].tokenizer.save_pretrained(folder)
    return folder


def test_a_folder_fine_tuned_elsewhere_teaches(made, elsewhere):
    prepared = made["prepared"]
    teacher = teachers.teacher_from_folder(prepared, elsewhere)
    assert teacher.shape == {"layers": 2, "width": 32, "heads": 4}
    student = distil.distill(prepared, [made["pool"][0], teacher], STUDENT, tinybert((0, 1), 1), seed=1)
    assert student.metrics["test"]["accuracy"] >= 0
    kept = tensors_load(teachers.score(prepared, teacher, "train").folder / "logits.safetensors")["logits"]
    assert_close(kept, outputs.evaluate_logits(models.load(elsewhere), prepared.data("train"), torch.device("cpu")))


def test_a_teacher_with_another_tokeniser_gives_logits_and_aligned_states_but_no_attention(made, tmp_path):
    other = prepare(replace(make_text_task(), name="other"), TEACHER, vocab=60, store=made["prepared"].store)
    models.build(TEACHER, 3, seed=1, vocab=other.vocab).save(tmp_path, other.tokenizer)
    teacher = teachers.teacher_from_folder(made["prepared"], tmp_path)
    assert teacher.info["input"] != made["prepared"].fingerprint
    kept = tensors_load(teachers.score(made["prepared"], teacher, "test").folder / "logits.safetensors")["logits"]
    assert_close(kept, outputs.evaluate_logits(models.load(tmp_path), other.data("test"), torch.device("cpu")))
    student = distil.distill(made["prepared"], [teacher], STUDENT, recipes.distilbert((0,), 0, optimisation=OPT, terms="CE+KD"))
    assert student.metrics["test"]
    with pytest.raises(KitError, match="another tokeniser than the student"):
        distil.distill(made["prepared"], [teacher], STUDENT, tinybert((0,), 0))


def test_a_teachers_classes_are_found_by_name_and_what_does_not_fit_is_refused(made, tmp_path):
    prepared = made["prepared"]
    for name, count, labels in (("five", 5, ()), ("order", 3, ("farm", "sea", "city"))):
        network = models.build(TEACHER, count, seed=0, vocab=prepared.vocab, labels=labels)
        network.save(tmp_path / name, prepared.tokenizer)
    with pytest.raises(KitError, match=r"has 5 outputs without names, .* say which is which with a label_map"):
        teachers.teacher_from_folder(prepared, tmp_path / "five")
    with pytest.warns(UserWarning, match="in the order farm, sea, city: they were brought by name to the task's"):
        moved = teachers.teacher_from_folder(prepared, tmp_path / "order")
    asked = teachers.teacher_from_folder(prepared, tmp_path / "five", {"4": "sea", "LABEL_0": "farm", "2": "city"})
    for teacher, name, order in ((moved, "order", [1, 0, 2]), (asked, "five", [4, 0, 2])):
        raw = outputs.evaluate_logits(models.load(tmp_path / name), prepared.data("train"), torch.device("cpu"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it has learned nothing
            assert_close(teachers.logits_of(prepared, teacher, "train"), raw[:, order])
    with pytest.raises(KitError, match="there is no model"):
        teachers.teacher_from_folder(prepared, tmp_path / "nowhere")


def table(model, prepared, path, classes=("sea", "farm", "city"), order=None, drop=0):
    """A teacher's logits as a user would bring them: a file with an id and a column per class, in any order."""
    logits, ids = {}, []
    stored = teachers.logits_of(prepared, model, "train").numpy()
    order = np.random.default_rng(0).permutation(60) if order is None else order
    order = order[drop:]
    ids = [prepared.data("train").ids[i] for i in order]
    logits = {c: stored[order, k] for k, c in enumerate(classes)}
    frame = pd.DataFrame({"id": ids, **logits})
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    return ids


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_table_of_logits_teaches_like_the_model_it_came_from(made, tmp_path, suffix):
    prepared, pool = made["prepared"], made["pool"]
    table(pool[1], prepared, path := tmp_path / f"mine{suffix}")
    recipe = recipes.distilbert((0, 1), 0, optimisation=OPT, terms="CE+KD")
    bring = distil.distill(prepared, [pool[0], teachers.teacher_from_table(path)], STUDENT, recipe, seed=2)
    model = distil.distill(prepared, pool, STUDENT, recipe, seed=2)
    assert bring.key != model.key
    assert_close(bring.logits("test"), model.logits("test"), atol=1e-4, rtol=1e-4)
    with pytest.raises(KitError, match="matches layers"):
        distil.distill(prepared, [pool[0], teachers.teacher_from_table(path)], STUDENT, tinybert((0, 1), 1))


def test_columns_are_found_by_class_name(made, tmp_path):
    prepared, pool = made["prepared"], made["pool"]
    table(pool[0], prepared, path := tmp_path / "mine.csv", order=np.arange(60))
    frame = pd.read_csv(path)
    frame[["city", "note", "id", "sea", "farm"]].to_csv(path, index=False) if "note" in frame else frame[
        ["city", "id", "sea", "farm"]].to_csv(path, index=False)
    _, ids, values = teachers.read_table(path, ("sea", "farm", "city"))
    assert ids == prepared.data("train").ids
    assert_close(torch.from_numpy(values), teachers.logits_of(prepared, pool[0], "train"), atol=1e-5, rtol=1e-5)


def test_a_table_for_a_regression_has_one_column_of_any_name(tmp_path):
    pd.DataFrame({"id": ["b", "a"], "predicted": [1.5, 2.5]}).to_csv(tmp_path / "x.csv", index=False)
    _, ids, values = teachers.read_table(tmp_path / "x.csv", ())
    assert (ids, values.tolist()) == (["b", "a"], [[1.5], [2.5]])


def test_bad_tables_are_refused(made, tmp_path):
    prepared, pool = made["prepared"], made["pool"]
    recipe = recipes.distilbert((0,), 0, optimisation=OPT, terms="KD")
    path = tmp_path / "short.parquet"
    present = table(pool[0], prepared, path, order=np.arange(60), drop=2)
    assert "train-0" not in present
    with pytest.raises(KitError, match=r"short\.parquet has no logits for sample 'train-0' \(and 1 more\)"):
        distil.distill(prepared, [teachers.teacher_from_table(path)], STUDENT, recipe)
    pd.DataFrame({"name": ["a"], "x": [0.0]}).to_csv(tmp_path / "no_id.csv", index=False)
    with pytest.raises(KitError, match=r"no column 'id' .*; it has name, x"):
        teachers.read_table(tmp_path / "no_id.csv", ("x",))
    pd.DataFrame({"id": ["a"], "x": [np.nan]}).to_csv(tmp_path / "nan.csv", index=False)
    with pytest.raises(KitError, match="not numbers"):
        teachers.read_table(tmp_path / "nan.csv", ("x",))
    for columns in (["x", "other"], ["class_1", "class_0"], ["0"]):  # any order of theirs would be a guess
        pd.DataFrame([["a", *[0.0] * len(columns)]], columns=["id", *columns]).to_csv(tmp_path / "names.csv", index=False)
        with pytest.raises(KitError, match="classes are x, y: name its columns like them"):
            teachers.read_table(tmp_path / "names.csv", ("x", "y"))
    pd.DataFrame({"id": ["a"], "logit_0": [1], "logit_1": [2]}).to_csv(tmp_path / "names.csv", index=False)
    assert teachers.read_table(tmp_path / "names.csv", ("x", "y"))[2].tolist() == [[1.0, 2.0]]
    pd.DataFrame({"id": ["a"], "x": ["high"]}).to_csv(tmp_path / "words.csv", index=False)
    with pytest.raises(KitError, match="not numbers"):
        teachers.read_table(tmp_path / "words.csv", ("x",))
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(KitError, match=r"cut\.parquet' cannot be read"):
        teachers.read_table(tmp_path / "cut.parquet", ("x",))
    with pytest.raises(KitError, match="no table of logits"):
        teachers.teacher_from_table(tmp_path / "missing.csv")


# --- the same bytes ------------------------------------------------------------------------------------------------------


ONCE = """
import sys
sys.path.insert(0, {tests!r})
from conftest import make_text_task
from mtkd.train import distil, recipes
from mtkd.train.prepare import prepare
from mtkd.train.recipes import Optimisation

opt = Optimisation(epochs=1, batch_size=16, lr=3e-3)
prepared = prepare(make_text_task(), "scratch-2x32", vocab=200)
pool = distil.finetune(prepared, "scratch-2x32", (0, 1), opt)
recipe = recipes.tinybert((0, 1), 0, intermediate=opt, prediction=opt)
student = distil.distill(prepared, pool, "scratch-1x32", recipe, seed=5)
import hashlib, json
digest = lambda m: [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(m.folder.glob("*.safetensors"))]
print(json.dumps([student.key, student.reused, student.metrics, digest(student), [digest(m) for m in pool]]))
"""


def test_two_processes_with_empty_stores_make_the_same_bytes(tmp_path, monkeypatch):
    running = []
    for name in ("a", "b"):
        monkeypatch.setenv("MTKD_STORE", str(tmp_path / name))
        monkeypatch.setenv("PYTHONHASHSEED", {"a": "1", "b": "2"}[name])
        code = ONCE.format(tests=str(Path(__file__).parent))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        running.append(subprocess.Popen([sys.executable, "-c", code], text=True, **pipes))
    (first, error), (second, _) = (p.communicate(timeout=120) for p in running)
    assert first, error
    assert first == second
    assert '", false, {' in first  # made, not found
