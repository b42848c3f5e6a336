"""Span tasks: token labels from characters, F1 on characters, two teachers with other tokenisers on the student's tokens."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mtkd.data.tasks import Split, Task
from mtkd.errors import KitError
from mtkd.rules.selection import Confidence, Uniform
from mtkd.tokens import spans
from mtkd.tokens.align import AFTER_FIRST, AFTER_SECOND, CLS, Places
from mtkd.train import distil, outputs, teachers
from mtkd.train.distil import distill, finetune
from mtkd.train.prepare import prepare
from mtkd.train.recipes import Optimisation, Recipe, Stage, Term

WORDS = ["boat", "wave", "cow", "barn", "tram", "street", "goat", "tower"]
COLOURS = ["red", "green", "blue", "grey"]


def made_split(name: str, n: int, seed: int) -> Split:
    """"colour" asked of "red cow, blue boat": the spans are red and blue; "thing": cow and boat; "number": nothing."""
    rng = np.random.default_rng(seed)
    inputs, found = [], []
    for _ in range(n):
        asked, text, spans_ = rng.choice(["colour", "thing", "thing", "colour", "number"]), "", []
        for i, (noun, colour) in enumerate(zip(rng.choice(WORDS, 3, replace=False), rng.choice(COLOURS, 3))):
            text += ("", ", ", " and ")[i]
            for kind, word in (("colour", colour), ("thing", noun)):
                if kind == asked:
                    spans_.append((len(text), len(text) + len(word)))
                text += f"{word} " if kind == "colour" else word
        inputs.append((str(asked), text))
        found.append(tuple(spans_))
    return Split([f"{name}-{i}" for i in range(n)], inputs, np.array([int(bool(s)) for s in found]), found)


@pytest.fixture(scope="module")
def task() -> Task:
    splits = {name: made_split(name, n, i) for i, (name, n) in enumerate((("train", 240), ("validation", 40), ("test", 40)))}
    return Task("tiny/span", "span", ("outside", "inside"), splits, "char_f1", ("char_f1",))


@pytest.fixture(scope="module")
def prepared(task, tmp_path_factory):
    from mtkd.store.artifacts import Store

    return prepare(task, "scratch-1x32", max_length=96, vocab=300, store=Store(tmp_path_factory.mktemp("store")))


OPT = Optimisation(epochs=10, batch_size=16, lr=4e-3)


def one(text: str, *spans_: tuple[int, int]) -> Split:
    return Split(["a"], [("q", text)], np.array([1]), [spans_])


WHERE = Places(np.array([0, 0, 0, 0, 4, 8, 0]), np.array([1, 1, 1, 3, 7, 11, 1]),
               np.array([CLS, 0, AFTER_FIRST, 1, 1, 1, AFTER_SECOND]), np.array([0, 7]))  # [CLS] q [SEP] one two six [SEP]


def test_targets_by_hand():
    assert spans.token_targets(one("one two six", (4, 7)), WHERE).tolist() == [-1, -1, -1, 0, 1, 0, -1]
    assert spans.token_targets(one("one two six", (2, 5)), WHERE).tolist() == [-1, -1, -1, 1, 1, 0, -1]
    assert spans.token_targets(one("one two six"), WHERE).tolist() == [-1, -1, -1, 0, 0, 0, -1]


def test_f1_by_hand():
    """Said "two six" (7 characters, the blank between included), true "six": precision 3/7, recall 1."""
    logits = np.zeros((7, 2))
    logits[[4, 5], 1] = 1
    logits[[1, 2], 1] = 9                                              # the question and special tokens say nothing
    found = spans.char_f1(logits, WHERE, one("one two six", (8, 11)))
    assert found["char_precision"] == pytest.approx(3 / 7)
    assert found["char_recall"] == 1
    assert found["char_f1"] == pytest.approx(0.6)
    assert spans.char_f1(np.zeros((7, 2)), WHERE, one("one two six", (8, 11)))["char_f1"] == 0
    assert spans.char_f1(np.zeros((7, 2)), WHERE, one("one two six"))["char_f1"] == 0


def test_f1_pools_characters_not_samples():
    split = Split(["a", "b"], [("q", "one two six")] * 2, np.array([1, 1]), [((0, 3),), ((0, 11),)])
    where = Places(*(np.tile(a, 2) for a in (WHERE.starts, WHERE.ends, WHERE.role)), np.array([0, 7, 14]))
    logits = np.zeros((14, 2))
    logits[3, 1] = 1                                                   # the first is right, the second is missed
    assert spans.char_f1(logits, where, split)["char_f1"] == pytest.approx(2 * 3 / (3 + 14))


def test_text_that_was_cut_off_counts_as_missed():
    cut = Places(*(a[:4] for a in (WHERE.starts, WHERE.ends, WHERE.role)), np.array([0, 4]))
    logits = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    found = spans.char_f1(logits, cut, one("one two six", (0, 3), (8, 11)))
    assert found["char_recall"] == 0.5


def test_perfect_labels_give_an_f1_of_one_but_for_tokens_that_straddle_a_border(prepared):
    """A sentencepiece tokeniser may write "cow," as one token: then the comma is said, too."""
    for family in ("scratch-1x32", "roberta-scratch-1x32", "deberta-v3-scratch-1x32", "xlnet-scratch-1x32"):
        own = prepared.of(family)
        data = own.data("train")
        logits = np.eye(2)[np.maximum(data.targets, 0)]
        found = spans.char_f1(logits, own.places("train"), own.texts("train"))
        assert found["char_recall"] == 1
        assert found["char_f1"] == 1 if family in ("scratch-1x32", "roberta-scratch-1x32") else found["char_f1"] > 0.97
        batch = data.batch(np.array([0, 5]))
        assert batch.labels.shape == batch.mask.shape
        assert (batch.labels[~batch.mask] == -1).all()
        assert torch.equal(batch.unit_mask, batch.labels >= 0)


@pytest.fixture(scope="module")
def pool(prepared):
    return [finetune(prepared.of(f), f, [0], OPT)[0] for f in ("scratch-2x32", "roberta-scratch-2x32")]


def test_a_model_learns_to_point(prepared, pool):
    assert pool[0].metrics["test"]["char_f1"] > 0.75                   # saying everything gives about 0.5
    assert set(pool[0].metrics["test"]) == {"char_f1", "char_precision", "char_recall"}


def test_plain_transformers_loads_a_span_student(pool):
    import transformers

    network = transformers.AutoModelForTokenClassification.from_pretrained(pool[1].folder)
    words = transformers.AutoTokenizer.from_pretrained(pool[1].folder)
    assert network(**words("boat", "red boat", return_tensors="pt")).logits.shape[-1] == 2


def test_token_logits_of_another_tokeniser_come_on_the_students_tokens(prepared, pool):
    own, data = prepared.of(pool[1]), prepared.data("test")
    assert own is not prepared
    aligned = teachers.logits_of(prepared, pool[1], "test")
    assert aligned.shape == (data.offsets[-1], 2)
    raw = outputs.evaluate_logits(pool[1].network(), own.data("test"), torch.device("cpu"))
    mine, theirs = prepared.places("test"), own.places("test")
    for r in np.flatnonzero(mine.role[: mine.offsets[3]] == 1):
        i = np.searchsorted(mine.offsets, r, side="right") - 1
        part = np.arange(theirs.offsets[i], theirs.offsets[i + 1])
        near = part[(theirs.role[part] == 1) & (theirs.starts[part] < mine.ends[r]) & (theirs.ends[part] > mine.starts[r])]
        assert_close(aligned[r], raw[near].mean(0), atol=1e-5, rtol=1e-4)


def recipe(selection, combine="logits", extra=()) -> Recipe:
    terms = (Term("cross_entropy", weight=0.5), Term("soft_cross_entropy", selection, combine=combine, weight=0.5), *extra)
    return Recipe("span", (Stage("distil", terms, OPT),))


@pytest.mark.parametrize(("selection", "combine"), [(Uniform(), "logits"), (Confidence(), "losses")])
def test_a_student_of_two_tokenisers(prepared, pool, selection, combine):
    student = distill(prepared, pool, "scratch-1x32", recipe(selection, combine), seed=3)
    ends = student.info["history"]["losses"]
    assert all(last < first for first, last in ends.values()), ends


def test_the_teachers_own_loss_changes_nothing_but_the_value(prepared, pool):
    """Thesis 4.11.3, experiment 3: finished teachers, so their loss is a constant for the student."""
    plain = distill(prepared, pool, "scratch-1x32", recipe(Uniform()), seed=3)
    extra = (Term("teacher_cross_entropy", Uniform()),)
    added = distill(prepared, pool, "scratch-1x32", recipe(Uniform(), extra=extra), seed=3)
    assert plain.key != added.key
    assert torch.equal(plain.logits("test"), added.logits("test"))
    assert added.info["history"]["losses"]["teacher_cross_entropy"][0] > 0


def test_a_token_that_nobody_saw_is_not_learned_from(prepared, pool):
    from mtkd.models.networks import Outputs
    from mtkd.rules import matching as terms

    data = prepared.data("train")
    batch = data.batch(np.array([0]))
    seen = torch.ones(batch.mask.shape, dtype=torch.bool)
    seen[0, 3] = False
    z = torch.randn(1, seen.shape[1], 2, 2)
    said = outputs.TeacherBatch(z, seen={0: seen, 1: seen})
    module = terms.prepare(Term("soft_cross_entropy", Uniform()), terms.Setting({}, [{}, {}]))
    units = module(Outputs(torch.randn(1, seen.shape[1], 2)), said, batch, Uniform().weights(batch, said, 0, None))
    assert units[0, 3] == 0
    assert (units[0, [0, 1, 2, 4]] > 0).all()
    said.seen[1] = torch.ones_like(seen)                               # one teacher did: its word alone counts
    s = torch.randn(1, seen.shape[1], 2)
    units = module(Outputs(s), said, batch, Uniform().weights(batch, said, 0, None))
    from mtkd.rules.losses import soft_cross_entropy

    assert_close(units[0, 3], soft_cross_entropy(s[0, 3], z[0, 3, 1]))


def test_what_a_span_task_refuses(prepared, pool, task, tmp_path):
    (tmp_path / "t.csv").write_text("id,outside,inside\n" + "\n".join(f"{i},0,1" for i in task.splits["train"].ids))
    table = teachers.teacher_from_table(tmp_path / "t.csv")
    with pytest.raises(KitError, match="one row per sample, and a span task needs one per token"):
        distill(prepared, [table], "scratch-1x32", recipe(Uniform()))
    with pytest.raises(KitError, match="asks about every token"):
        distil.fresh(prepared, "scratch-1x32 + attentive", 0)


def test_a_start_from_a_related_task(prepared, task):
    other = replace(task, name="tiny/other", splits={**task.splits, "train": made_split("more", 60, 9)})
    related = finetune(replace(prepared, task=other, _cache={}), "scratch-1x32", [0], replace(OPT, epochs=1))[0]
    went_on = distil.undistilled(prepared, "scratch-1x32", replace(OPT, epochs=1), 0, start=related)
    fresh = distil.undistilled(prepared, "scratch-1x32", replace(OPT, epochs=1), 0)
    assert went_on.before is related
    assert went_on.key != fresh.key
