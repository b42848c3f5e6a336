"""Encoders from scratch of nine families: their shapes, their tokenisers, and the students cut from them."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from conftest import make_pair_task
from torch.testing import assert_close

from mtkd.data.tasks import Split
from mtkd.errors import KitError
from mtkd.models import names as models
from mtkd.models.families import FAMILIES
from mtkd.models.grammar import TOKENIZERS
from mtkd.models.names import build, load
from mtkd.store.artifacts import Store
from mtkd.tokens.batches import encode
from mtkd.tokens.vocabulary import LEARN, SPECIAL, unigram
from mtkd.train.prepare import prepare, scratch_tokenizer

HIDDEN = frozenset({"hidden"})
SCORED = {"bert", "distilbert", "roberta", "albert", "electra"}  # attention that can be exchanged in transformers
UNTYPED = {"distilbert", "roberta", "mpnet", "deberta", "deberta-v3"}
CLS = {"xlnet": {"cls": -1}}  # the others' [CLS] is the first token, of which their shapes say nothing
families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for this file, so that each kind of tokeniser is learned once."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def prepared(store):
    task = make_pair_task()
    return {family: prepare(task, f"{family}-scratch-1x32", store=store, vocab=320) for family in FAMILIES}


def make(prepared, family, size="2x32h2", seed=0, outputs=3):
    p = prepared[family]
    return build(f"{family}-scratch-{size}", outputs, seed=seed, vocab=p.vocab, tokens=p.special_ids).eval()


def logits(network, batch):
    with torch.no_grad():
        return network(batch.inputs).logits


def shaken(network):
    """Fresh encoders keep their norms, biases and relative positions at neutral values; this gives them weight."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p += 0.1 * torch.randn(p.shape, generator=rng)
    return network


# --- networks ------------------------------------------------------------------------------------------------------------


@families
def test_the_shape_is_what_the_name_says(prepared, family):
    network = make(prepared, family, "3x24h3f40")
    assert network.shape == {"layers": 3, "width": 24, "heads": 3} | CLS.get(family, {})
    assert type(network.hf.config) is FAMILIES[family][0]
    assert any(tuple(p.shape) == (40, 24) for p in network.parameters())
    assert not [m.p for m in network.modules() if isinstance(m, torch.nn.Dropout) and m.p > 0]
    assert network.hf.get_input_embeddings().num_embeddings == prepared[family].vocab
    a, b, c = (make(prepared, family, seed=s).state_dict() for s in (3, 3, 4))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


@families
def test_padding_a_batch_differently_changes_nothing(prepared, family):
    data, network = prepared[family].data("validation"), shaken(make(prepared, family))
    order = np.argsort(data.lengths)
    short, long = order[0], order[-1]
    assert data.lengths[short] + 5 < data.lengths[long]
    alone, together = data.batch(np.array([short])), data.batch(np.array([long, short]))
    with torch.no_grad():
        mine, theirs = network(alone.inputs, HIDDEN), network(together.inputs, HIDDEN)
    assert_close(theirs.logits[1:], mine.logits, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(theirs.logits[0], theirs.logits[1])
    assert [tuple(h.shape) for h in theirs.hidden] == [(*together.mask.shape, 32)] * 3
    assert_close(theirs.hidden[-1][1][together.mask[1]], mine.hidden[-1][0], atol=1e-5, rtol=1e-5)


@families
def test_a_step_lowers_the_loss(prepared, family):
    torch.manual_seed(0)
    network, batch = make(prepared, family, outputs=2).train(), prepared[family].data("train").batch(np.arange(8))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)

    def loss():
        return torch.nn.functional.cross_entropy(network(batch.inputs).logits, batch.labels)

    before = loss()
    before.backward()
    optimizer.step()
    assert loss() < before


@families
def test_a_saved_folder_loads_with_its_tokeniser(prepared, family, tmp_path):
    """Plain transformers reads the folder, model and tokeniser, as the kit left them."""
    p, network = prepared[family], shaken(make(prepared, family))
    network.save(tmp_path, p.tokenizer)
    batch = p.data("validation").batch(np.arange(4))
    assert torch.equal(logits(load(tmp_path).eval(), batch), logits(network, batch))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert backend(tokenizer) == backend(p.tokenizer)
    assert tokenizer.padding_side == p.tokenizer.padding_side == ("left" if family == "xlnet" else "right")
    assert tokenizer.special_tokens_map == p.tokenizer.special_tokens_map
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    texts = [p.task.splits["validation"].inputs[i] for i in range(4)]
    given = tokenizer([t[0] for t in texts], [t[1] for t in texts], padding=True, return_tensors="pt")
    with torch.no_grad():  # with the tokeniser's own padding and its own idea of what the model takes
        assert_close(plain(**given).logits, logits(network, batch), atol=1e-5, rtol=1e-5)


@families
def test_long_texts_fill_512_tokens(prepared, family):
    p, network = prepared[family], make(prepared, family, "1x16h2")
    data = encode(Split(["a"], [("old boat " * 400, "cow")], np.zeros(1, np.int64)), p.tokenizer, 512, "")
    assert data.lengths[0] == 512
    assert torch.isfinite(logits(network, data.batch(np.arange(1)))).all()


@families
def test_token_types_count_where_the_family_has_them(prepared, family):
    """XLNet has no table of types, it asks whether two tokens are of the same one: swapping 0 and 1 is the same to it."""
    network, batch = shaken(make(prepared, family)), prepared[family].data("validation").batch(np.arange(3))
    types = batch.inputs["token_type_ids"]
    for changed, matters in ((torch.zeros_like(types), family not in UNTYPED),
                             (torch.where(types < 2, 1 - types, types), family not in UNTYPED | {"xlnet"})):
        with torch.no_grad():
            other = network({**batch.inputs, "token_type_ids": changed}).logits
        assert torch.allclose(other, logits(network, batch), atol=1e-6) != matters


def test_position_tables_leave_room_for_the_offset(prepared):
    """RoBERTa and MPNet number positions from pad + 1; 514 rows as in their checkpoints."""
    for family in ("roberta", "mpnet"):
        assert prepared[family].special_ids["pad"] == 1
        assert make(prepared, family).hf.config.max_position_embeddings == 514
    other = build("roberta-scratch-1x16", 2, seed=0, vocab=50, tokens={"pad": 7})
    assert other.hf.config.max_position_embeddings == 520
    with pytest.raises(KitError, match="tokeniser of MPNet's kind, whose padding token has number 1 and not 0"):
        build("mpnet-scratch-1x16", 2, seed=0, vocab=50, tokens={"pad": 0})


def test_without_a_tokeniser_the_familys_own_ids_are_taken():
    for family, pad in (("xlnet", 5), ("mpnet", 1), ("deberta", 0)):
        config = build(f"{family}-scratch-1x16", 2, seed=0, vocab=50).hf.config
        assert config.pad_token_id == pad
        assert family != "xlnet" or (config.bos_token_id, config.eos_token_id) == (1, 2)


def test_albert_and_electra_have_narrow_embeddings(prepared):
    for family in ("albert", "electra"):
        assert make(prepared, family, "1x160").hf.get_input_embeddings().embedding_dim == 128
        assert make(prepared, family, "1x32").hf.get_input_embeddings().embedding_dim == 32
    sizes = [models.count_parameters(make(prepared, "albert", f"{depth}x32")) for depth in (1, 4)]
    assert sizes[0] == sizes[1]  # one layer, used at every depth


def test_weights_spread_with_the_width(prepared):
    """0.02 at a width of 768, more for narrow layers: 0.02 * sqrt(768 / 192) = 0.04."""
    for family in FAMILIES:
        weight = next(p for p in make(prepared, family, "1x192").parameters() if tuple(p.shape) == (768, 192))
        assert weight.std().item() == pytest.approx(0.04, rel=0.02)


@families
def test_attention_scores_or_a_clear_refusal(prepared, family):
    network, batch = shaken(make(prepared, family)), prepared[family].data("validation").batch(np.arange(3))
    want = frozenset({"attention"})
    assert network.hf._supports_attention_backend == (family in SCORED)
    if family not in SCORED:
        with pytest.raises(KitError, match="does not show its attention scores; match its hidden states"):
            network(batch.inputs, want)
        return
    with torch.no_grad():
        out = network(batch.inputs, want)
        network.hf.set_attn_implementation("eager")
        plain = {k: v for k, v in batch.inputs.items() if k != "token_type_ids" or family not in UNTYPED}
        probabilities = network.hf(**plain, output_attentions=True).attentions
    masked = torch.zeros(3, 1, 1, batch.mask.shape[1]).masked_fill(~batch.mask[:, None, None], -1e9)
    assert len(out.attention) == len(probabilities) == 2
    for scores, p in zip(out.attention, probabilities):
        assert_close((scores + masked).softmax(-1), p, atol=1e-6, rtol=1e-4)


# --- tokenisers ----------------------------------------------------------------------------------------------------------


def backend(tokenizer) -> dict:
    """Everything a fast tokeniser does, without the truncation and padding of its last call."""
    return {**json.loads(tokenizer.backend_tokenizer.to_str()), "truncation": None, "padding": None}


BERT_LIKE = ("[CLS] A [SEP]", "[CLS] A [SEP] B [SEP]", [0, 0, 0, 1, 1])
ROBERTA_LIKE = ("<s> A </s>", "<s> A </s> </s> B </s>", [0, 0, 0, 0, 0, 0])
XLNET = ("A <sep> <cls>", "A <sep> B <sep> <cls>", [0, 0, 1, 1, 2])
TEMPLATES = {"roberta": ROBERTA_LIKE, "mpnet": ROBERTA_LIKE, "xlnet": XLNET}


@families
def test_one_and_two_texts_in_the_familys_form(prepared, family):
    tokenizer = prepared[family].tokenizer
    single, pair, types = TEMPLATES.get(family, BERT_LIKE)
    for given, form in ((("old boat",), single), (("old boat", "cow near the barn"), pair)):
        out = tokenizer(*given, return_token_type_ids=True)
        tokens, whose = tokenizer.convert_ids_to_tokens(out["input_ids"]), out.sequence_ids()
        seen, seen_types = [], []
        for token, text, kind in zip(tokens, whose, out["token_type_ids"]):
            name = token if text is None else "AB"[text]
            if name != (seen or [None])[-1] or text is None:  # tokens of one text count once
                seen.append(name)
                seen_types.append(kind)
        assert " ".join(seen) == form
        assert len(given) == 1 or seen_types == types
    ids = prepared[family].special_ids
    assert {tokenizer.convert_ids_to_tokens(i) for i in ids.values()} <= set(SPECIAL[TOKENIZERS[family]].values())
    assert {"pad", "unk", "cls", "sep", "mask"} <= ids.keys()
    assert max(ids.values()) < len(SPECIAL[TOKENIZERS[family]])


@families
def test_tokens_know_their_place_in_the_text(prepared, family):
    """Offsets of the last text's tokens spell its words; some families count the space before a word as its own."""
    tokenizer, text = prepared[family].tokenizer, "old  boat with goat"
    out = tokenizer("cow", text, return_offsets_mapping=True)
    places = [place for place, whose in zip(out["offset_mapping"], out.sequence_ids()) if whose == 1]
    covered = sorted({i for start, end in places for i in range(start, end) if not text[i].isspace()})
    assert covered == [i for i, c in enumerate(text) if not c.isspace()]
    assert all(len(text[start:end].split()) <= 1 for start, end in places)  # no token reaches over two words


@families
def test_any_text_can_be_read(prepared, family):
    """Letters, accents, scripts and signs that the vocabulary has never seen, and nothing at all between the spaces."""
    p = prepared[family]
    rows = [("naïve Übung — 漢字 ☃",), ("мир \u200d 👩‍🚀 \t\n",), ("e\u0301 İ ß ﬁ",), ("  ",), ("boat " * 3,)]
    split = Split([str(i) for i in range(len(rows))], rows, np.zeros(len(rows), np.int64))
    data = encode(split, p.tokenizer, 64, "")
    assert data.tokens.min() >= 0
    assert data.tokens.max() < p.vocab
    assert torch.isfinite(logits(make(prepared, family), data.batch(np.arange(len(rows))))).all()
    unknown = p.tokenizer.unk_token_id in p.tokenizer(rows[0][0])["input_ids"]
    assert unknown == (TOKENIZERS[family] not in ("roberta", "deberta"))  # bytes spell everything


def test_families_share_bert_s_artifact(prepared, store):
    """DistilBERT and ELECTRA read BERT's vocabulary; its entry in the store is named as before there were kinds."""
    assert backend(prepared["bert"].tokenizer) == backend(prepared["electra"].tokenizer)
    spec = {"task": prepared["bert"].task.fingerprint, "vocab": 320}
    assert store.has("tokenizer", spec)
    assert all(store.has("tokenizer", {**spec, "kind": kind}) for kind in LEARN if kind not in ("bert", "words"))
    assert store.usage()["tokenizer"]["artifacts"] == len(LEARN) - 1  # whole words are read by the Bi-LSTM alone


LEARN_ALL = """
import hashlib, json, sys
sys.path.insert(0, sys.argv[1])
from conftest import make_pair_task
from mtkd.tokens.vocabulary import LEARN
texts = [t for row in make_pair_task().splits["train"].inputs for t in row]
for kind, learn in LEARN.items():
    print(kind, hashlib.sha256(learn(texts, 320).backend_tokenizer.to_str().encode()).hexdigest())
"""


def test_another_process_learns_the_same_vocabulary():
    """The trainers' hash tables are seeded anew in each process; store keys depend on what they learn."""
    out = subprocess.run([sys.executable, "-c", LEARN_ALL, str(Path(__file__).parents[1])], capture_output=True, text=True,
                         check=True, env={**os.environ, "PYTHONHASHSEED": "7"}).stdout
    theirs = dict(line.split() for line in out.splitlines())
    texts = [t for row in make_pair_task().splits["train"].inputs for t in row]
    mine = {kind: hashlib.sha256(learn(texts, 320).backend_tokenizer.to_str().encode()).hexdigest()
            for kind, learn in LEARN.items()}
    assert mine == theirs


def test_unigram_pieces_are_the_probable_ones():
    """Frequent words become pieces, probabilities are those of the pieces' use, and every letter stays."""
    blank = transformers.XLNetTokenizer().backend_tokenizer
    texts = ["boat boat boat boat boat goat goat goat goat x"] * 2
    pieces = unigram(texts, 9 + 7 + 2, "xlnet", blank)  # 9 special tokens, the letters _boatgx, 2 more
    special, learned = pieces[:9], dict(pieces[9:])
    assert [s for s, _ in special] == list(SPECIAL["xlnet"].values())
    assert all(score == 0 for _, score in special)
    assert set(learned) == {"▁", "b", "o", "a", "t", "g", "x", "▁boat", "▁goat"}
    # 10 boats, 8 goats and 2 x of two pieces: 22 pieces in all
    assert learned["▁boat"] == pytest.approx(np.log(10 / 22))
    assert learned["▁goat"] == pytest.approx(np.log(8 / 22))
    assert learned["x"] == pytest.approx(np.log(2 / 22))
    assert learned["b"] == pytest.approx(np.log(0.5 / 22))  # unused, but kept for words to come
    assert unigram([], 20, "xlnet", blank) == special


def test_kinds_that_do_not_exist_are_refused(pair_task):
    with pytest.raises(KitError, match=r"no tokeniser of kind 'gpt'; there are bert, mpnet, .*xlnet\."):
        scratch_tokenizer(pair_task, 100, Store(), "gpt")


# --- students cut from a teacher -----------------------------------------------------------------------------------------


@families
@pytest.mark.parametrize(("how", "layers"), [("bottom-2", (0, 1)), ("every-2", (1, 3)), ("uniform-2", (0, 3))])
def test_cut_students_have_their_teachers_layers(prepared, family, how, layers, tmp_path):
    """All that comes before the layers is copied, then each chosen layer: checked on what they compute, and on sizes."""
    p, teacher = prepared[family], shaken(make(prepared, family, "4x32h2"))
    teacher.save(tmp_path)
    student = build(f"{how} of {tmp_path}", 3, seed=1).eval()
    assert student.shape == {"layers": 2, "width": 32, "heads": 2} | CLS.get(family, {})
    batch = p.data("validation").batch(np.arange(4))
    with torch.no_grad():
        mine, theirs = student(batch.inputs, HIDDEN).hidden, teacher(batch.inputs, HIDDEN).hidden
    assert len(mine) == 3
    assert_close(mine[0], theirs[0])
    if layers == (0, 1) or family == "albert":
        assert_close(mine[1], theirs[1])
        assert_close(mine[2], theirs[2])
    else:
        assert not torch.allclose(mine[2], theirs[2], atol=1e-3)
    a, b = student.hf.base_model.state_dict(), teacher.hf.base_model.state_dict()
    for key in a:
        source = key
        for new, old in reversed(list(enumerate(layers))):
            source = source.replace(f"layer.{new}.", f"layer.{old}.") if f"layer.{new}." in key else source
        assert torch.equal(a[key], b[source]), key
    one_layer = sum(p.numel() for k, p in teacher.hf.base_model.named_parameters() if "layer.0." in k)
    smaller = 0 if family == "albert" else 2 * one_layer
    assert models.count_parameters(student) == models.count_parameters(teacher) - smaller


@families
def test_layers_that_a_teacher_does_not_have_are_refused(prepared, family):
    p = prepared[family]
    with pytest.raises(KitError, match="a model of 2 layers has no 'bottom-3' student"):
        build(f"bottom-3 of {family}-scratch-2x32", 2, seed=0, vocab=p.vocab, tokens=p.special_ids)
    if family != "bert":
        with pytest.raises(KitError, match="needs a BERT checkpoint, not"):
            build(f"distilbert-1 of {family}-scratch-2x32", 2, seed=0, vocab=p.vocab, tokens=p.special_ids)


@pytest.mark.parametrize(("kind", "sizes", "says"), [
    ("Albert", {"hidden_size": 8, "embedding_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 8,
                "num_hidden_groups": 2}, "shared in several groups"),
    ("GPT2", {"n_positions": 8, "n_embd": 8, "n_layer": 4, "n_head": 2}, "layers of a gpt2 cannot be copied one by one"),
])
def test_layers_that_cannot_be_picked_by_number_are_refused(tmp_path, kind, sizes, says):
    config = getattr(transformers, f"{kind}Config")(vocab_size=20, **sizes)
    getattr(transformers, f"{kind}ForSequenceClassification")(config).save_pretrained(tmp_path)
    with pytest.raises(KitError, match=says):
        build(f"bottom-2 of {tmp_path}", 2, seed=0)
