"""Networks by name, students cut from bigger ones, attention scores before the softmax, and folders."""

import doctest

import pytest
import torch
import transformers
from torch.testing import assert_close

from mtkd.errors import KitError
from mtkd.models import grammar
from mtkd.models.names import build, count_parameters, load
from mtkd.models.networks import SCORES

VOCAB, HIDDEN = 50, frozenset({"hidden"})


def inputs(seed=0, lengths=(7, 4, 1)):
    rng = torch.Generator().manual_seed(seed)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, VOCAB, mask.shape, generator=rng) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def make(name, seed=0, outputs=3, **options):
    return build(name, outputs, seed=seed, vocab=VOCAB, **options).eval()


def same(a, b) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    make("scratch-4x32h2f48", seed=7).save(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(teacher_folder):
    return load(teacher_folder).eval()


# --- names ---------------------------------------------------------------------------------------------------------------


def test_the_examples_of_the_grammar_run():
    assert doctest.testmod(grammar) == (0, 4)


def test_names_say_the_shape():
    for name, shape, ffn in (("scratch-2x24h3f40", (2, 24, 3), 40), ("scratch-1x32", (1, 32, 4), 128)):
        network = make(name)
        assert tuple(network.shape.values()) == shape
        assert network.hf.config.intermediate_size == ffn
    tiny = build("tinybert", 2, seed=0)
    assert tuple(tiny.shape.values()) == (4, 312, 12)
    assert tiny.hf.config.vocab_size == 30522
    assert 14.3e6 < count_parameters(tiny) < 14.5e6  # TinyBERT's authors count 14.5M with the pooler's own
    assert count_parameters(build("resnet-20", 10, seed=0)) == 269_722


def test_a_seed_fixes_the_weights_and_another_changes_them():
    assert same(make("scratch-1x32", 3), make("scratch-1x32", 3))
    assert not same(make("scratch-1x32", 3), make("scratch-1x32", 4))


def test_labels_are_named_in_the_saved_config(tmp_path):
    make("scratch-1x32", labels=("a", "b", "c")).save(tmp_path)
    assert transformers.AutoConfig.from_pretrained(tmp_path).label2id == {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize(("name", "says"), [
    ("scratch-2x30", "cannot be split into 4 heads"),
    ("bottom-3 of scratch-2x32", "no 'bottom-3' student"),
    ("every-3 of scratch-2x32", "no 'every-3' student"),
    ("bottom-0 of scratch-2x32", "no 'bottom-0' student"),
    ("distilbert-1 of distilbert-scratch-2x32", "needs a BERT checkpoint, not distilbert"),
    ("resnet-21", r"6n\+2"),
    ("no such model at all", "no such model at all"),
    ("bottom-1 of nonsense", "nonsense"),
    ("scratch-1x32 + heads-0", "at least one soft head"),
    ("resnet-8w8 + heads-1", "reads images"),
])
def test_names_that_mean_nothing_are_refused(name, says):
    with pytest.raises(KitError, match=says):
        make(name)


@pytest.mark.parametrize(("name", "root", "kind", "heads", "words"), [
    ("scratch-2x64", None, "bert", 0, 400), ("tinybert", None, "bert", 0, 400), ("resnet-20", None, None, 0, 400),
    ("electra-scratch-1x8", None, "bert", 0, 400), ("deberta-v3-scratch-1x8h2f9", None, "deberta-v3", 0, 400),
    ("bottom-2 of roberta-scratch-4x8 + attentive", None, "roberta", 0, 400), ("minilm", "minilm", None, 0, 400),
    ("bottom-2 of every-3 of org/bert", "org/bert", None, 0, 400), ("gpt-scratch-1x8", "gpt-scratch-1x8", None, 0, 400),
    ("bottom-3 of minilm + attentive + heads-3", "minilm", None, 3, 400), ("bilstm-2x256e300", None, "words", 0, 15_000),
    ("bilstm-2x256e300v2000 + heads-3", None, "words", 3, 2000),
])
def test_what_a_name_needs(name, root, kind, heads, words):
    found = (grammar.root(name), grammar.tokenizer_kind(name), grammar.soft_heads(name), grammar.vocabulary_size(name, 400))
    assert found == (root, kind, heads, words)


def test_a_teacher_that_is_not_given_has_no_checkpoint():
    with pytest.raises(KitError, match="takes its layers from a finished teacher, and none is given here"):
        grammar.root("bottom-1 of teacher + heads-2")


# --- students cut from a teacher -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "layers"), [("bottom-2", (0, 1)), ("every-2", (1, 3)), ("uniform-2", (0, 3)),
                                             ("uniform-3", (0, 2, 3)), ("bottom-4", (0, 1, 2, 3))])
def test_layers_are_really_copied(teacher, teacher_folder, how, layers):
    student = make(f"{how} of {teacher_folder}")
    assert tuple(student.shape.values()) == (len(layers), 32, 2)
    mine, theirs = student.hf.bert, teacher.hf.bert
    assert same(mine.embeddings, theirs.embeddings)
    assert same(mine.pooler, theirs.pooler)
    for new, old in enumerate(layers):
        assert [same(mine.encoder.layer[new], theirs.encoder.layer[k]) for k in range(4)] == [k == old for k in range(4)]
    assert not torch.equal(student.hf.classifier.weight, teacher.hf.classifier.weight)
    if how == "bottom-2":  # and computes what the teacher computes up to there
        for a, b in zip(student(inputs(), HIDDEN).hidden, teacher(inputs(), HIDDEN).hidden):
            assert_close(a, b)


def test_distilberts_shape_is_filled_from_bert(teacher, teacher_folder):
    """Without token types and pooler, a DistilBERT with BERT's layers gives BERT's states where type 0 adds nothing."""
    student, bert = make(f"distilbert-4 of {teacher_folder}"), load(teacher_folder).eval()
    assert student.hf.config.model_type == "distilbert"
    with torch.no_grad():
        bert.hf.bert.embeddings.token_type_embeddings.weight.zero_()
        mine, theirs = student(inputs(), HIDDEN).hidden, bert(inputs(), HIDDEN).hidden
    real = inputs()["attention_mask"].bool()
    for a, b in zip(mine, theirs):
        assert_close(a[real], b[real], atol=1e-5, rtol=1e-5)
    ends = make(f"distilbert-2 of {teacher_folder}").hf.distilbert.transformer.layer
    for new, old in ((0, 0), (1, 3)):
        assert torch.equal(ends[new].attention.q_lin.weight, teacher.hf.bert.encoder.layer[old].attention.self.query.weight)
        assert torch.equal(ends[new].ffn.lin2.weight, teacher.hf.bert.encoder.layer[old].output.dense.weight)


def test_cuts_of_cuts_of_random_models_and_of_finished_teachers(teacher_folder, tmp_path):
    make(f"every-2 of {teacher_folder}").save(tmp_path)
    assert same(make(f"bottom-1 of {tmp_path}").hf.bert.encoder.layer[0], load(tmp_path).hf.bert.encoder.layer[0])
    assert same(make("bottom-1 of scratch-2x32", 5).hf.bert.encoder.layer[0], make("scratch-2x32", 5).hf.bert.encoder.layer[0])
    for kind in ("", " + heads-2", " + mean"):  # of whatever is handed over, the encoder counts
        source = make(f"scratch-2x32{kind}")
        student = make("bottom-1 of teacher + heads-1", 1, source=source)
        key = "encoder.layer.0.attention.self.query.weight"
        encoder = getattr(source, "base", source).body.base_model
        assert torch.equal(student.hf.base_model.state_dict()[key], encoder.state_dict()[key])
        assert same(student, make("bottom-1 of teacher + heads-1", 1, source=source))  # what is new comes from the seed


# --- attention scores ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scratch-2x32", "distilbert-scratch-2x32"])
def test_asking_for_scores_does_not_change_the_logits(name):
    network, given = make(name), inputs()
    with torch.no_grad():
        before, asked, after = (network(given, frozenset(want)) for want in ((), ("attention", "hidden"), ()))
    assert (before.attention, before.hidden) == (None, None)
    assert_close(asked.logits, before.logits, atol=1e-5, rtol=0)
    assert torch.equal(after.logits, before.logits)
    assert network.hf.config._attn_implementation == network.hf.mtkd_plain != SCORES
    assert len(asked.hidden) == 3
    assert all((scores < 0).any() and scores.abs().max() < 1e4 for scores in asked.attention)  # neither shares nor masked


def test_gradients_flow_through_the_scores():
    network = make("scratch-1x32").train()
    network(inputs(), frozenset({"attention"})).attention[0].sum().backward()
    assert network.hf.bert.encoder.layer[0].attention.self.query.weight.grad.abs().sum() > 0


# --- folders -------------------------------------------------------------------------------------------------------------


def test_a_folder_saved_while_scores_were_asked_for_is_a_plain_one(tmp_path):
    network = make("scratch-2x32")
    with torch.no_grad():
        network(inputs(), frozenset({"attention"}))
        network.save(tmp_path)
        plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
        assert_close(plain(**inputs()).logits, network(inputs()).logits, atol=1e-6, rtol=1e-6)
    assert same(load(tmp_path), network)
    assert not list(tmp_path.glob("*.bin"))


def test_resnets_by_name_saved_and_loaded(tmp_path):
    network, pixels = build("resnet-8w8", 3, seed=1, channels=1).eval(), {"pixels": torch.randn(2, 1, 8, 8)}
    network.save(tmp_path)
    assert torch.equal(load(tmp_path).eval()(pixels).logits, network(pixels).logits)
    assert network(pixels).logits.shape == (2, 3)


def test_folders_that_hold_no_model_are_refused(tmp_path):
    with pytest.raises(KitError, match=r"config\.json is missing"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(KitError, match="no model that transformers can load"):
        load(tmp_path)
