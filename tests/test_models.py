"""Networks by name, students cut from bigger ones, and attention scores before the softmax."""

import pytest
import torch
import transformers
from torch.testing import assert_close

from mtkd.errors import KitError
from mtkd.models import names as models
from mtkd.models.names import build, load

VOCAB = 50


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
    """A saved BERT of 4 layers; its token types are given weight, so that dropping them shows."""
    folder = tmp_path_factory.mktemp("teacher")
    network = make("scratch-4x32h2f48", seed=7)
    network.save(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(teacher_folder):
    return load(teacher_folder).eval()


# --- names ---------------------------------------------------------------------------------------------------------------


def test_scratch_names_say_the_shape():
    network = make("scratch-2x24h3f40")
    assert network.shape == {"layers": 2, "width": 24, "heads": 3}
    assert network.hf.config.intermediate_size == 40
    assert make("scratch-1x32").shape == {"layers": 1, "width": 32, "heads": 4}
    assert make("scratch-1x32").hf.config.intermediate_size == 128


def test_tinybert_has_the_published_shape_and_size():
    network = build("tinybert", 2, seed=0)
    assert network.shape == {"layers": 4, "width": 312, "heads": 12}
    assert network.hf.config.vocab_size == 30522
    assert models.count_parameters(network) == pytest.approx(14.5e6, rel=0.02)  # Jiao et al. print 14.5 M


def test_a_seed_fixes_the_weights_and_another_changes_them():
    assert same(make("scratch-1x32", 3), make("scratch-1x32", 3))
    assert not same(make("scratch-1x32", 3), make("scratch-1x32", 4))
    assert same(make("resnet-8w8", 3).resnet, make("resnet-8w8", 3).resnet)


def test_distilberts_shape_has_no_token_types_and_no_pooler():
    network = make("distilbert-scratch-2x32")
    names = " ".join(network.state_dict())
    assert "token_type" not in names
    assert "pooler" not in names
    assert network.shape == {"layers": 2, "width": 32, "heads": 4}
    given = inputs()
    other = {**given, "token_type_ids": torch.ones_like(given["token_type_ids"])}
    assert torch.equal(network(given).logits, network(other).logits)


def test_labels_are_named_in_the_saved_config(tmp_path):
    make("scratch-1x32", labels=("a", "b", "c")).save(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert config.id2label == {0: "a", 1: "b", 2: "c"}
    assert config.label2id == {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize(("name", "says"), [
    ("scratch-2x30", "cannot be split into 4 heads"),
    ("bottom-3 of scratch-2x32", "no 'bottom-3' student"),
    ("every-3 of scratch-2x32", "no 'every-3' student"),
    ("bottom-0 of scratch-2x32", "no 'bottom-0' student"),
    ("distilbert-1 of distilbert-scratch-2x32", "needs a BERT checkpoint, not distilbert"),
    ("resnet-21", r"6n\+2"),
    ("no such model at all", "no such model at all"),
    ("bottom-1 of nonsense", "nonsense"),
])
def test_names_that_mean_nothing_are_refused(name, says):
    with pytest.raises(KitError, match=says):
        make(name)


@pytest.mark.parametrize(("name", "built_on"), [
    ("scratch-2x64", None), ("tinybert", None), ("resnet-20", None), ("bottom-1 of scratch-2x64", None),
    ("distilbert-6 of org/bert", "org/bert"), ("bottom-2 of every-3 of org/bert", "org/bert"), ("minilm", "minilm"),
])
def test_the_checkpoint_that_owns_the_tokeniser(name, built_on):
    assert models.root(name) == built_on


# --- students cut from a teacher -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "layers"), [("bottom-2", (0, 1)), ("every-2", (1, 3)), ("uniform-2", (0, 3)),
                                             ("uniform-3", (0, 2, 3)), ("bottom-4", (0, 1, 2, 3))])
def test_layers_are_really_copied(teacher, teacher_folder, how, layers):
    student = make(f"{how} of {teacher_folder}")
    assert student.shape == {"layers": len(layers), "width": 32, "heads": 2}
    mine, theirs = student.hf.bert, teacher.hf.bert
    assert same(mine.embeddings, theirs.embeddings)
    assert same(mine.pooler, theirs.pooler)
    for new, old in enumerate(layers):
        assert same(mine.encoder.layer[new], theirs.encoder.layer[old])
        assert not any(same(mine.encoder.layer[new], theirs.encoder.layer[k]) for k in range(4) if k != old)
    assert not torch.equal(student.hf.classifier.weight, teacher.hf.classifier.weight)


def test_a_cut_student_computes_what_the_teacher_computes_up_to_there(teacher, teacher_folder):
    student, hidden = make(f"bottom-2 of {teacher_folder}"), frozenset({"hidden"})
    mine, theirs = student(inputs(), hidden).hidden, teacher(inputs(), hidden).hidden
    assert len(mine) == 3
    for k in range(3):
        assert_close(mine[k], theirs[k])


def test_distilberts_shape_is_filled_from_bert(teacher, teacher_folder):
    """Without token types and pooler, a DistilBERT with BERT's layers gives BERT's states where type 0 adds nothing."""
    student = make(f"distilbert-4 of {teacher_folder}")
    assert student.hf.config.model_type == "distilbert"
    assert student.shape == {"layers": 4, "width": 32, "heads": 2}
    with torch.no_grad():
        kept = teacher.hf.bert.embeddings.token_type_embeddings.weight.clone()
        teacher.hf.bert.embeddings.token_type_embeddings.weight.zero_()
        theirs = teacher(inputs(), frozenset({"hidden"})).hidden
        teacher.hf.bert.embeddings.token_type_embeddings.weight.copy_(kept)
        mine = student(inputs(), frozenset({"hidden"})).hidden
    real = inputs()["attention_mask"].bool()
    for k in range(5):
        assert_close(mine[k][real], theirs[k][real], atol=1e-5, rtol=1e-5)
    ends = make(f"distilbert-2 of {teacher_folder}").hf.distilbert.transformer.layer
    for new, old in ((0, 0), (1, 3)):
        assert torch.equal(ends[new].attention.q_lin.weight, teacher.hf.bert.encoder.layer[old].attention.self.query.weight)
        assert torch.equal(ends[new].ffn.lin2.weight, teacher.hf.bert.encoder.layer[old].output.dense.weight)


def test_a_saved_students_own_lower_half_can_be_cut_again(teacher_folder, tmp_path):
    make(f"every-2 of {teacher_folder}").save(tmp_path)
    assert same(make(f"bottom-1 of {tmp_path}").hf.bert.encoder.layer[0], load(tmp_path).hf.bert.encoder.layer[0])


def test_a_cut_of_a_scratch_model_is_a_smaller_scratch_model():
    assert same(make("bottom-1 of scratch-2x32", 5).hf.bert.encoder.layer[0], make("scratch-2x32", 5).hf.bert.encoder.layer[0])


# --- attention scores ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scratch-2x32", "distilbert-scratch-2x32"])
def test_scores_are_what_eager_attention_takes_the_softmax_of(name):
    network, given = make(name), inputs()
    with torch.no_grad():
        scores = network(given, frozenset({"attention"})).attention
        network.hf.set_attn_implementation("eager")
        taken = {k: v for k, v in given.items() if k != "token_type_ids" or getattr(network.hf.config, "type_vocab_size", 0)}
        probabilities = network.hf(**taken, output_attentions=True).attentions
    masked = torch.zeros(3, 1, 1, 7).masked_fill(given["attention_mask"][:, None, None] == 0, -1e9)
    assert len(scores) == len(probabilities) == 2
    for s, p in zip(scores, probabilities):
        assert s.shape == (3, 4, 7, 7)
        assert_close((s + masked).softmax(-1), p, atol=1e-6, rtol=1e-5)
        assert (s < 0).any()  # scores, not probabilities
        assert s.abs().max() < 1e4  # before the mask


@pytest.mark.parametrize("name", ["scratch-2x32", "distilbert-scratch-2x32"])
def test_asking_for_scores_does_not_change_the_logits(name):
    network, given = make(name), inputs()
    with torch.no_grad():
        before = network(given)
        asked = network(given, frozenset({"attention", "hidden"}))
        after = network(given)
    assert before.attention is None
    assert before.hidden is None
    assert_close(asked.logits, before.logits, atol=1e-5, rtol=0)
    assert torch.equal(after.logits, before.logits)
    assert network.hf.config._attn_implementation == network.hf.mtkd_plain != models.SCORES
    assert len(asked.hidden) == 3


def test_gradients_flow_through_the_scores():
    network = make("scratch-1x32").train()
    network(inputs(), frozenset({"attention"})).attention[0].sum().backward()
    assert network.hf.bert.encoder.layer[0].attention.self.query.weight.grad.abs().sum() > 0


# --- folders -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scratch-2x32", "distilbert-scratch-1x32"])
def test_a_saved_folder_loads_with_plain_transformers(tmp_path, name):
    network = make(name)
    with torch.no_grad():
        network(inputs(), frozenset({"attention"}))  # saved while set to report scores
        network.save(tmp_path)
        plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
        given = {k: v for k, v in inputs().items() if k != "token_type_ids"}
        assert_close(plain(**given).logits, network(inputs()).logits, atol=1e-6, rtol=1e-6)
        assert same(load(tmp_path), network)
    assert not list(tmp_path.glob("*.bin"))


def test_resnets_by_name_saved_and_loaded(tmp_path):
    network = build("resnet-8w8", 3, seed=1, channels=1).eval()
    network.save(tmp_path)
    pixels = {"pixels": torch.randn(2, 1, 8, 8)}
    assert torch.equal(load(tmp_path).eval()(pixels).logits, network(pixels).logits)
    assert network(pixels).logits.shape == (2, 3)
    assert models.count_parameters(build("resnet-20", 10, seed=0)) == 269_722


def test_folders_that_hold_no_model_are_refused(tmp_path):
    with pytest.raises(KitError, match=r"config\.json is missing"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(KitError, match="no model that transformers can load"):
        load(tmp_path)
