"""Alignment of two tokenisations by characters: hand-made splits, learned tokenisers, truncation, unicode, both roads."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from mtkd.data.tasks import Split
from mtkd.tokens import align
from mtkd.tokens.align import AFTER_FIRST, AFTER_SECOND, CLS, Places, averaging_matrix, block, places
from mtkd.train import outputs, teachers
from mtkd.train.distil import finetune
from mtkd.train.prepare import prepare
from mtkd.train.recipes import Optimisation

FAMILIES = ("scratch-1x32", "roberta-scratch-1x32", "mpnet-scratch-1x32", "albert-scratch-1x32", "deberta-v3-scratch-1x32",
            "xlnet-scratch-1x32")


def made_of(*samples: list[tuple[int, int, int]]) -> Places:
    """Places of samples given as (start, end, role) per token."""
    flat = [token for sample in samples for token in sample]
    starts, ends, role = (np.array(column) for column in zip(*flat))
    return Places(starts, ends, role, np.concatenate([[0], np.cumsum([len(s) for s in samples])]))


def special(role: int) -> tuple[int, int, int]:
    return (0, 1, role)


def texts(*rows) -> Split:
    return Split([f"s{i}" for i in range(len(rows))], [r if isinstance(r, tuple) else (r,) for r in rows],
                 np.zeros(len(rows), dtype=np.int64))


@pytest.mark.parametrize(("student", "teacher", "matrix"), [
    # un|believ|able|! against unbeliev|able! (the example of the module), and back
    ([(0, 2, 0), (2, 8, 0), (8, 12, 0), (12, 13, 0)], [(0, 8, 0), (8, 13, 0)], [[1, 0], [1, 0], [0, 1], [0, 1]]),
    ([(0, 8, 0), (8, 13, 0)], [(0, 2, 0), (2, 8, 0), (8, 12, 0), (12, 13, 0)], [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]),
    # every token that shares a character counts
    ([(0, 5, 0), (5, 9, 0)], [(0, 3, 0), (3, 6, 0), (6, 9, 0)], [[0.5, 0.5, 0], [0, 0.5, 0.5]]),
    # characters of one text never meet those of the other
    ([(0, 3, 0), (0, 3, 1)], [(0, 3, 1)], [[0], [1]]),
    # a token of blanks says nothing and learns nothing
    ([(0, 3, 0), (3, 3, 0)], [(0, 3, 0), (3, 3, 0), (3, 3, 0)], [[1, 0, 0], [0, 0, 0]]),
])
def test_by_hand(student, teacher, matrix):
    assert averaging_matrix(made_of(student), made_of(teacher)).toarray().tolist() == matrix


def test_special_tokens_meet_by_their_place():
    """BERT's [CLS] A [SEP] B [SEP] against RoBERTa's <s> A </s></s> B </s>, and against XLNet's A <sep> B <sep> <cls>."""
    bert = made_of([special(CLS), (0, 3, 0), special(AFTER_FIRST), (0, 4, 1), special(AFTER_SECOND)])
    roberta = made_of([special(CLS), (0, 3, 0), special(AFTER_FIRST), special(AFTER_FIRST), (0, 4, 1), special(AFTER_SECOND)])
    xlnet = made_of([(0, 3, 0), special(AFTER_FIRST), (0, 4, 1), special(AFTER_SECOND), special(CLS)])
    assert averaging_matrix(bert, roberta).toarray().tolist() == [
        [1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0.5, 0.5, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]]
    assert averaging_matrix(bert, xlnet).toarray().argmax(-1).tolist() == [4, 0, 1, 2, 3]


def test_what_the_teacher_cut_off_has_no_counterpart():
    student = made_of([special(CLS), (0, 2, 0), (3, 5, 0), (6, 9, 0)])
    teacher = made_of([special(CLS), (0, 5, 0)])
    matrix = averaging_matrix(student, teacher)
    assert align.seen(matrix).tolist() == [True, True, True, False]
    assert matrix.toarray()[3].tolist() == [0, 0]


def test_samples_are_blocks():
    student = made_of([(0, 2, 0)], [(0, 2, 0), (2, 4, 0)])
    teacher = made_of([(0, 1, 0), (1, 2, 0)], [(0, 4, 0)])
    matrix = averaging_matrix(student, teacher)
    assert matrix.toarray().tolist() == [[0.5, 0.5, 0], [0, 0, 1], [0, 0, 1]]
    assert block(matrix, 1, student, teacher).toarray().tolist() == [[1], [1]]


pieces = st.lists(st.integers(1, 4), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(pieces, pieces), min_size=1, max_size=4))
def test_against_a_double_loop(samples):
    """Any two ways of cutting texts: row r is 1/m at exactly the m tokens that share a character."""
    def cut(lengths, total):
        ends = [min(e, total) for e in np.cumsum(lengths)]
        return [(s, e, 0) for s, e in zip([0, *ends[:-1]], ends) if e > s]

    both = [(cut(a, 12), cut(b, 12)) for a, b in samples]
    student, teacher = made_of(*(a for a, _ in both)), made_of(*(b for _, b in both))
    matrix = averaging_matrix(student, teacher)
    for i, (mine, theirs) in enumerate(both):
        share = np.array([[max(s, a) < min(e, b) for a, b, _ in theirs] for s, e, _ in mine], dtype=float)
        expected = share / np.maximum(share.sum(1, keepdims=True), 1)
        assert_close(block(matrix, i, student, teacher).toarray(), expected.astype(np.float32))


# --- with the tokenisers of the families ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    from mtkd.store.artifacts import Store
    from tests.conftest import make_text_task

    return prepare(make_text_task(), FAMILIES[0], max_length=96, vocab=60, store=Store(tmp_path_factory.mktemp("store")))


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_tokenisers_give_the_identity(prepared, family):
    own = prepared.of(family)
    where = own.places("train")
    matrix = averaging_matrix(where, where)
    sample = np.repeat(np.arange(len(where.offsets) - 1), np.diff(where.offsets))
    spans = list(zip(sample.tolist(), where.role.tolist(), where.starts.tolist(), where.ends.tolist()))
    real = where.ends > where.starts
    shared = [sum(a[:2] == b[:2] and max(a[2], b[2]) < min(a[3], b[3]) for b in spans[lo:hi])  # itself included
              for i, a in enumerate(spans) for lo, hi in [where.offsets[sample[i]:sample[i] + 2]]]
    alone = real & (np.array(shared) == 1)
    assert alone.sum() > 0.9 * real.sum()                    # bytes of one character, and RoBERTa's </s></s>, share a span
    identity = np.eye(matrix.shape[0], dtype=np.float32)[alone]
    assert (matrix.toarray()[alone] == identity).all()
    assert (matrix.diagonal()[real] > 0).all()               # the others average what shares their characters, themselves too


@pytest.mark.parametrize("family", FAMILIES[1:])
def test_every_token_of_the_student_is_seen_and_rows_sum_to_one(prepared, family):
    matrix = averaging_matrix(prepared.places("train"), prepared.of(family).places("train"))
    assert matrix.shape == (prepared.data("train").offsets[-1], prepared.of(family).data("train").offsets[-1])
    assert_close(np.asarray(matrix.sum(1)).ravel(), np.ones(matrix.shape[0], dtype=np.float32), atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_places_are_the_words_themselves(prepared, family):
    """Unicode: offsets are in characters of the text as given, whatever the tokeniser normalises or counts in bytes."""
    rows = ["the Größe of a café", "old \U0001f41f fish", "two  blanks\tand a tab", ("naïve boat", "日本 tide")]
    for row in rows:
        split = texts(row)
        where = places(split, prepared.of(family).tokenizer, 64)
        sample = split.inputs[0]
        covered = [np.zeros(len(t), dtype=bool) for t in sample]
        for start, end, role in zip(where.starts, where.ends, where.role):
            if role >= 0 and end > start:
                assert not sample[role][start].isspace()
                assert not sample[role][end - 1].isspace()
                covered[role][start:end] = True
        for text, mask in zip(sample, covered):
            assert all(m or c.isspace() for m, c in zip(mask, text)), (family, text)
        specials = where.role[where.role < 0].tolist()
        assert specials.count(CLS) == 1
        assert specials.count(AFTER_FIRST) in ((1, 2) if len(sample) == 2 else (1,))
        assert specials.count(AFTER_SECOND) == (1 if len(sample) == 2 else 0)


def test_truncation(prepared):
    long = texts("boat wave fish sail harbour tide " * 4)
    mine = places(long, prepared.tokenizer, 40)
    theirs = places(long, prepared.of("roberta-scratch-1x32").tokenizer, 12)
    matrix = averaging_matrix(mine, theirs)
    words = (mine.role == 0)
    assert align.seen(matrix).numpy()[~words].all()
    cut = theirs.ends[theirs.role == 0].max()
    assert (align.seen(matrix).numpy()[words] == (mine.starts[words] < cut)).all()
    assert not align.seen(matrix).all()


def test_stored_and_live_states_of_another_tokeniser_are_equal(prepared):
    """Both roads bring a teacher's states to the student's tokens; the padding of either side changes nothing."""
    for family in ("roberta-scratch-1x32", "xlnet-scratch-1x32"):
        teacher = finetune(prepared.of(family), family, [0], Optimisation(epochs=1))[0]
        needs, matrix = outputs.Needs(hidden=(0, 1)), teachers.alignment(prepared, teacher, "train")
        data, own = prepared.data("train"), prepared.of(teacher).data("train")
        states = teachers.states_of(prepared, teacher, "train", needs)
        stored = outputs.StoredOutputs(data, torch.zeros(len(data), 1, 3), {0: states})
        live = outputs.LiveOutputs([teacher.network()], {0: needs}, torch.device("cpu"), None, data,
                                   {0: outputs.Other(own, matrix)})
        for index in (np.arange(7), np.array([50, 3, 21])):
            batch = data.batch(index)
            one, two = stored.batch(batch), live.batch(batch)
            assert torch.equal(one.seen[0], two.seen[0])
            for layer in (0, 1):
                assert one.hidden[0][layer].shape == (*batch.mask.shape, 32)
                assert_close(one.hidden[0][layer], two.hidden[0][layer], atol=1e-5, rtol=1e-4)
        first = data.batch(np.array([0]))
        token = own.batch(np.array([0]))
        dense = block(matrix, 0, data, own).toarray()
        states = teacher.network()(token.inputs, frozenset({"hidden"})).hidden[1][token.mask]
        assert_close(stored.batch(first).hidden[0][1][0], torch.from_numpy(dense) @ states, atol=1e-5, rtol=1e-4)


def test_of_shares_what_it_can(prepared):
    assert prepared.of("scratch-3x16") is prepared
    assert prepared.of("distilbert-scratch-1x32") is prepared
    other = prepared.of("roberta-scratch-1x32")
    assert other.fingerprint == prepared.of("roberta-scratch-2x64 + attentive").fingerprint
    assert other.data("test").ids == prepared.data("test").ids
    renamed = prepare(replace(prepared.task, name="other"), FAMILIES[0], max_length=96, vocab=60, store=prepared.store)
    assert renamed.fingerprint == prepared.fingerprint
