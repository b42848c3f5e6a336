"""The Bi-LSTM student: its words, its word vectors, its two directions, and its place among the other networks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from torch.testing import assert_close

from mtkd.data.tasks import Split
from mtkd.errors import KitError
from mtkd.models import bilstm
from mtkd.models import names as models
from mtkd.rules import matching as terms
from mtkd.rules.selection import Uniform
from mtkd.store.artifacts import Store
from mtkd.tokens import batches as data
from mtkd.tokens.vocabulary import scratch_tokenizer
from mtkd.train import distil, recipes
from mtkd.train import loop as train
from mtkd.train.prepare import prepare
from mtkd.train.recipes import Optimisation, Recipe, Stage, Term

OPT = Optimisation(epochs=2, batch_size=8, lr=1e-2, keep="last")
TINY = "bilstm-1x16e8"


def ids_of(rows, pad=0):
    """Token rows of different lengths as the inputs of one padded batch."""
    width = max(map(len, rows))
    return {"input_ids": torch.tensor([row + [pad] * (width - len(row)) for row in rows]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
            "token_type_ids": torch.zeros(len(rows), width, dtype=torch.long)}


def run(network, inputs):
    network.eval()
    with torch.no_grad():
        return network(inputs).logits


# --- the network ---------------------------------------------------------------------------------------------------------


def test_the_papers_sizes():
    """2 layers of 256 units per direction on vectors of 300, 15,000 words: 4.5M + 2.7M parameters."""
    network = models.build("bilstm-2x256e300", 2, seed=0)
    lstm = network.hf.bilstm.lstm
    assert network.hf.bilstm.embeddings.weight.shape == (15_000, 300)
    assert (lstm.num_layers, lstm.hidden_size, lstm.bidirectional, lstm.input_size) == (2, 256, True, 300)
    first, second = (2 * 4 * 256 * (width + 256 + 2) for width in (300, 512))
    assert models.count_parameters(network) == 15_000 * 300 + first + second + 512 * 2 + 2
    assert 0.38 < network.hf.bilstm.embeddings.weight[1:].std() < 0.42
    assert (network.hf.bilstm.embeddings.weight[0] == 0).all()  # padding
    assert network.shape == {}


@pytest.mark.parametrize("name", ["bilstm-2x16e8", "bilstm-2x16e8-last", "bilstm-1x16e8"])
def test_padding_and_company_change_nothing(name):
    """Both directions read the words of a text and nothing else, in whatever batch it comes."""
    network, rows = models.build(name, 3, seed=0, vocab=40), [[5, 6, 7, 8, 9], [9, 3], [4]]
    together = run(network, ids_of(rows))
    for i, row in enumerate(rows):
        assert_close(run(network, ids_of([row])), together[i:i + 1])
    assert_close(run(network, ids_of(rows[::-1])), together.flip(0))


def test_the_two_directions_by_hand():
    """-last is the forward state after the last word and the backward state after the first; without it, the largest value
    of every unit over the words."""
    last, largest = (models.build(f"bilstm-1x4e3{how}", 2, seed=0, vocab=20).hf for how in ("-last", ""))
    row = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        lstm = last.bilstm.lstm
        _, (h, _) = lstm(last.bilstm.embeddings(row))
        assert_close(last(row).logits, last.classifier(torch.cat([h[0], h[1]], 1)))
        states, _ = largest.bilstm.lstm(largest.bilstm.embeddings(row))
        assert_close(largest(row).logits, largest.classifier(states.amax(1)))
        turned = nn.LSTM(3, 4, batch_first=True)  # the backward direction is a forward one over the words turned round
        turned.load_state_dict({k.removesuffix("_reverse"): v for k, v in lstm.state_dict().items() if k.endswith("_reverse")})
        _, (b, _) = turned(last.bilstm.embeddings(row.flip(1)))
        assert_close(b[0], h[1])


def test_it_is_a_transformers_model_like_any_other(tmp_path):
    network, inputs = models.build("bilstm-2x16e8-last", 3, seed=0, vocab=40, labels=("a", "b", "c")), ids_of([[5, 6], [7]])
    network.save(tmp_path)
    again = models.load(tmp_path)
    assert torch.equal(run(again, inputs), run(network, inputs))
    assert again.hf.config.pooling == "last"
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(plain(**inputs).logits, run(network, inputs))
    assert plain.config.id2label[2] == "c"
    assert transformers.AutoModel.from_pretrained(tmp_path)(**inputs).last_hidden_state.shape == (2, 2, 32)
    assert models.build(f"{TINY} + heads-3", 2, seed=0, vocab=40)(inputs).heads.shape == (2, 3, 2)
    assert run(models.build(f"{TINY} + attentive-4", 2, seed=0, vocab=40), inputs).shape == (2, 2)


def test_what_it_cannot_do_is_told():
    with pytest.raises(KitError, match="asks about every token"):
        models.build(TINY, 3, seed=0, vocab=40, per_token=True)
    with pytest.raises(KitError, match="cannot be copied one by one"):
        models.build("bottom-1 of bilstm-2x16e8", 3, seed=0, vocab=40)
    setting = terms.Setting(models.build(TINY, 3, seed=0, vocab=40).shape, [{"layers": 1, "width": 8, "heads": 4}])
    with pytest.raises(KitError, match=r"hidden_mse matches layers.*a Bi-LSTM"):
        terms.prepare(Term("hidden_mse", Uniform()), setting)


# --- its words -----------------------------------------------------------------------------------------------------------


def words_of(text_task, texts, vocab, tmp_path):
    split = Split([str(i) for i in range(len(texts))], [t if isinstance(t, tuple) else (t,) for t in texts],
                  np.zeros(len(texts), np.int64))
    task = replace(text_task, name="tiny/words", splits={**text_task.splits, "train": split})
    return scratch_tokenizer(task, vocab, Store(tmp_path / "words"), "words")


def test_the_most_frequent_words_are_the_vocabulary(text_task, tmp_path):
    tokenizer = words_of(text_task, ["the Boat, the sea", "the barn", "a sea-boat", "zebra apple"], 3 + 6, tmp_path)
    words = [tokenizer.convert_ids_to_tokens(i) for i in range(len(tokenizer))]
    # the 3, boat 2, sea 2, then the singles in alphabetical order: "," "-" "a" ...
    assert words == ["[PAD]", "[UNK]", "[SEP]", "the", "boat", "sea", ",", "-", "a"]
    assert tokenizer.tokenize("THE boat's zebra") == ["the", "boat", "[UNK]", "[UNK]", "[UNK]"]
    assert tokenizer.pad_token_id == 0
    assert tokenizer.padding_side == "right"


def test_a_pair_is_one_sequence_with_a_separator(text_task, tmp_path):
    tokenizer = words_of(text_task, [("a boat", "the barn")], 20, tmp_path)
    pair = tokenizer("a boat", "the barn", return_token_type_ids=True)
    assert tokenizer.convert_ids_to_tokens(pair["input_ids"]) == ["a", "boat", "[SEP]", "the", "barn", "[SEP]"]
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1, 1]
    assert tokenizer.convert_ids_to_tokens(tokenizer("")["input_ids"]) == ["[SEP]"]  # nothing to read is still a sequence
    offsets = tokenizer("a  boat", return_offsets_mapping=True)["offset_mapping"]
    assert offsets[:2] == [(0, 1), (3, 7)]  # so that other tokenisers can be aligned with it


def test_the_vocabulary_is_as_large_as_the_name_says(text_task, tmp_path):
    assert prepare(text_task, "bilstm-1x16e8v12").vocab == 12
    a, b = (prepare(text_task, TINY, store=Store(tmp_path / s)) for s in "ab")
    assert a.vocab < 40  # all words there are
    assert a.fingerprint == b.fingerprint != prepare(text_task, "scratch-1x32").fingerprint
    network = distil.fresh(a, TINY, 0)
    assert network.hf.bilstm.embeddings.num_embeddings == a.vocab
    assert run(network, next(data.iterate(a.data("train"), 8)).inputs).shape == (8, 3)


# --- its word vectors ----------------------------------------------------------------------------------------------------


def write(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def vectors(path, words, size=8, first=()):
    return write(path, [*first, *(f"{w} " + " ".join(f"{i + 0.25 * k:g}" for k in range(size)) for i, w in enumerate(words))])


def test_vectors_of_known_words_are_used_and_others_are_normal(text_task, tmp_path):
    path = vectors(tmp_path / "glove.txt", ["boat", "submarine", "cow", "the"])
    name = f"{TINY} with {path}"
    prepared = prepare(text_task, name)
    table = distil.fresh(prepared, name, 0).hf.bilstm.embeddings.weight
    row = prepared.tokenizer.get_vocab()
    for i, word in ((0, "boat"), (2, "cow"), (3, "the")):
        assert_close(table[row[word]], i + 0.25 * torch.arange(8.0))
    others = torch.stack([table[r] for w, r in row.items() if w not in ("boat", "cow", "the", "[PAD]")])
    assert 0.3 < others.std() < 0.5
    assert others.abs().sum(1).min() > 0
    assert (table[row["[PAD]"]] == 0).all()
    assert_close(distil.fresh(prepared, TINY, 0).hf.bilstm.embeddings.weight[row["tram"]], table[row["tram"]])


def test_vectors_go_on_learning_and_so_do_random_ones(tmp_path):
    """freeze_embeddings is for pre-trained encoders; here unknown words have yet to be learned, so it freezes nothing."""
    path = vectors(tmp_path / "glove.txt", ["boat"])
    name = f"{TINY} with {path} + heads-1"
    network = models.build(name, 3, seed=0, vocab=40, words={"boat": 7})
    network.save(tmp_path / "saved")
    for one in (network, models.load(tmp_path / "saved")):
        one.freeze_embeddings()
        assert one.hf.bilstm.embeddings.weight.requires_grad


def test_vectors_by_the_line(tmp_path):
    """A first line of word2vec's kind, blanks within a word, a word twice, words nobody asked for."""
    path = write(tmp_path / "v.txt", ["5 2", "boat 1 2", "new york 3 4", "boat 9 9", "tram -1.5 2e-1", "x 7 7"])
    rows, found = bilstm.read_vectors(path, {"boat": 3, "new york": 4, "tram": 5, "cow": 6}, 2)
    assert rows == [3, 4, 5]
    assert_close(torch.from_numpy(found), torch.tensor([[1.0, 2.0], [3.0, 4.0], [-1.5, 0.2]]))


@pytest.mark.parametrize(("lines", "says"), [
    (["boat 1 2 3"], "line 1 of the word vectors in .* has 3 numbers, and the model's word vectors have 8"),
    (["boat " + "1 " * 50], "line 1 .* has 50 numbers, and the model's word vectors have 8"),
    (["5 8", "boat " + "1 " * 9], "line 2 .* has 9 numbers"),
    (["boat " + "1 " * 8, "cow 1"], "line 2 .* has 1 numbers"),
    (["zzz " + "1 " * 8], "none of the vocabulary's 1 words has a vector in"),
    (["boat a b c d e f g h"], "holds no word vectors in GloVe's text format"),
    (["boat " + "nan " * 8], "holds a vector that is not made of finite numbers: that of 'boat'"),
])
def test_files_that_are_no_such_vectors(tmp_path, lines, says):
    path = write(tmp_path / "v.txt", lines)
    with pytest.raises(KitError, match=says) as refusal:
        models.build(f"{TINY} with {path}", 2, seed=0, vocab=10, words={"boat": 3})
    assert "\n" not in str(refusal.value)


def test_files_that_are_not_there_or_not_text(tmp_path, text_task, monkeypatch):
    with pytest.raises(KitError, match="needs the words of a tokeniser"):
        models.build(f"{TINY} with somewhere.txt", 2, seed=0, vocab=10)
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(KitError, match="holds no word vectors in GloVe's text format"):
        models.build(f"{TINY} with {tmp_path / 'binary'}", 2, seed=0, vocab=10, words={"boat": 3})
    monkeypatch.setattr(train, "fit", lambda *a, **k: pytest.fail("something was trained"))
    for place in (tmp_path, tmp_path / "nothing.txt"):
        with pytest.raises(KitError, match="there are no word vectors to read at"):
            distil.undistilled(prepare(text_task, TINY), f"{TINY} with {place}", OPT, 0)


def test_the_content_of_the_file_counts_not_only_its_name(text_task, tmp_path):
    path = vectors(tmp_path / "glove.txt", ["boat", "cow"])
    prepared, name = prepare(text_task, TINY), f"{TINY} with {path}"
    first = distil.undistilled(prepared, name, OPT, 0)
    assert distil.undistilled(prepared, name, OPT, 0).reused
    vectors(path, ["cow", "boat", "tram"])
    second = distil.undistilled(prepared, name, OPT, 0)
    assert not second.reused
    assert second.key != first.key
    assert models.content("scratch-1x32 + heads-2") == models.content(TINY) == {}


# --- in the loop ---------------------------------------------------------------------------------------------------------


def test_it_learns_by_tmkd_from_teachers_with_another_tokeniser(text_task):
    """Teachers read pieces, the student words: only logits pass between them, by sample."""
    task = replace(text_task, splits={**text_task.splits, "unlabelled": replace(text_task.splits["train"],
                                                                                labels=np.full(60, -1))})
    pieces = prepare(task, "scratch-1x32", vocab=200)
    teachers = distil.finetune(pieces, "scratch-1x32", range(2), replace(OPT, epochs=10))
    words, name = prepare(task, TINY), f"{TINY} + heads-2"
    soft = Term("logit_mse", Uniform(), combine="heads")
    opt = replace(OPT, epochs=12, lr=2e-2)
    recipe = Recipe("tmkd", (Stage("pre-training", (soft,), opt, "unlabelled"),
                             Stage("task", (Term("cross_entropy", weight=0.1), replace(soft, weight=0.9)), opt)),
                    predictor="heads")
    student = distil.distill(words, teachers, name, recipe)
    assert student.metrics["test"]["accuracy"] > 0.85
    assert student.network().n_heads == 2


def test_it_can_be_a_teacher_of_a_student_that_reads_pieces(text_task):
    teacher = distil.undistilled(prepare(text_task, TINY), TINY, OPT, 0)
    recipe = recipes.distilbert((0,), 0, optimisation=OPT, terms="KD")
    assert "test" in distil.distill(prepare(text_task, "scratch-1x16", vocab=200), [teacher], "scratch-1x16", recipe).metrics


def test_pairs_are_read(pair_task):
    prepared = prepare(pair_task, TINY)
    student = distil.undistilled(prepared, TINY, replace(OPT, epochs=15, lr=2e-2), 0)
    losses = student.info["history"]["losses"]["cross_entropy"]
    assert losses[1] < 0.5 * losses[0]  # whether it generalises from 60 pairs is another matter
    found = run(student.network(), prepared.data("train").batch(np.arange(60)).inputs)
    assert (found.argmax(1).numpy() == pair_task.splits["train"].labels).mean() > 0.8
