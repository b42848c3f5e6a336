"""The data augmentation, on a tiny random masked language model and hand-made word vectors."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

from mtkd.errors import KitError
from mtkd.tokens.augment import augment, sources
from mtkd.tokens.candidates import WORD, EmbeddingNeighbours, MaskedLanguageModel, usable_tokens

WORDS = ["the", "cat", "dog", "bird", "sat", "ran", "flew", "on", "under", "mat", "tree", "red", "blue", "a", "to"]
PIECES = ["##s", "##ing", "play", "walk", ".", ",", "!", "'", "?"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass
class Split:  # what augment needs of mtkd.data.tasks.Split
    ids: list
    inputs: list
    labels: np.ndarray


@pytest.fixture(scope="module")
def tokenizer():
    vocabulary = {token: i for i, token in enumerate(SPECIAL + PIECES + WORDS)}
    return BertTokenizerFast(vocab=vocabulary, do_lower_case=True, model_max_length=32)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=64, initializer_range=0.5)
    return BertForMaskedLM(config)


@pytest.fixture(scope="module")
def both_sources(model, tokenizer):
    return [MaskedLanguageModel(model, tokenizer), EmbeddingNeighbours.from_model(model, tokenizer)]


SINGLES = Split(
    ["s/0", "s/1", "s/2"],
    [("The cat  sat, on\tthe mat!",), ("a dog ran to a tree",), ("birds playing under the tree",)],
    np.array([1, 0, 1]),
)
PAIRS = Split(["p/0", "p/1"], [("the cat sat", "a dog ran"), ("red bird", "blue tree")], np.float32([0.5, 2.5]))


def spans(text):
    return [m.span() for m in WORD.finditer(text)]


def test_counts_ids_and_labels(both_sources):
    got = augment(SINGLES, both_sources, factor=3, run=2)
    assert type(got) is Split
    assert got.ids[:5] == ["s/0", "s/0/2/0", "s/0/2/1", "s/0/2/2", "s/1"]
    assert len(got.ids) == len(set(got.ids)) == len(got.inputs) == 12
    assert got.labels.tolist() == [1] * 4 + [0] * 4 + [1] * 4
    assert got.labels.dtype == SINGLES.labels.dtype
    assert [got.inputs[i] for i in (0, 4, 8)] == SINGLES.inputs
    only_new = augment(SINGLES, both_sources, factor=3, run=2, keep_original=False)
    assert only_new.ids == [i for i in got.ids if i not in SINGLES.ids]
    assert augment(SINGLES, both_sources, factor=0).ids == SINGLES.ids
    assert augment(PAIRS, both_sources, factor=1).labels.tolist() == [0.5, 0.5, 2.5, 2.5]


def test_same_draws_whatever_else_is_in_the_split(both_sources, model, tokenizer):
    def by_id(split):
        return dict(zip(split.ids, split.inputs))

    whole = by_id(augment(SINGLES, both_sources, factor=8))
    turned = Split(SINGLES.ids[::-1], SINGLES.inputs[::-1], SINGLES.labels[::-1])
    assert by_id(augment(turned, both_sources, factor=8)) == whole
    alone = Split(SINGLES.ids[1:2], SINGLES.inputs[1:2], SINGLES.labels[1:2])
    one_by_one = MaskedLanguageModel(model, tokenizer)
    one_by_one.at_once = 1
    part = by_id(augment(alone, [one_by_one, both_sources[1]], factor=8))
    assert part == {i: whole[i] for i in part}
    fewer = by_id(augment(SINGLES, both_sources, factor=2))
    assert fewer == {i: whole[i] for i in fewer}


def test_runs_and_seeds_differ(both_sources):
    texts = {
        (run, seed): tuple(augment(SINGLES, both_sources, factor=5, run=run, seed=seed, keep_original=False).inputs)
        for run in (0, 1) for seed in (0, 1)
    }
    assert len(set(texts.values())) == 4
    # and two examples with the same text get different copies, since they have different ids
    twins = Split(["a", "b"], [SINGLES.inputs[0]] * 2, np.array([0, 0]))
    got = augment(twins, both_sources, factor=5, keep_original=False).inputs
    assert got[:5] != got[5:]


def test_probability_zero_keeps_every_byte_and_one_replaces_every_word(both_sources):
    assert set(augment(SINGLES, both_sources, factor=4, probability=0).inputs) == set(SINGLES.inputs)
    got = augment(SINGLES, both_sources, factor=4, probability=1, keep_original=False)
    for number, (text,) in enumerate(got.inputs):
        (source,) = SINGLES.inputs[number // 4]
        old, new = WORD.findall(source), WORD.findall(text)
        assert len(old) == len(new)
        assert all(a.lower() != b.lower() for a, b in zip(old, new))
        assert WORD.sub("_", text) == WORD.sub("_", source)  # blanks, tabs and punctuation as they were


def test_probability_is_the_share_of_replaced_words(both_sources):
    got = augment(SINGLES, both_sources, factor=200, probability=0.4, keep_original=False)
    pairs = [
        (a, b) for i, (text,) in enumerate(got.inputs)
        for a, b in zip(WORD.findall(SINGLES.inputs[i // 200][0]), WORD.findall(text))
    ]
    assert np.mean([a != b for a, b in pairs]) == pytest.approx(0.4, abs=0.03)


def test_pairs_both_or_the_first_only(both_sources):
    got = augment(PAIRS, both_sources, factor=3, probability=1, keep_original=False)
    assert all(new[side] != PAIRS.inputs[i // 3][side] for i, new in enumerate(got.inputs) for side in (0, 1))
    got = augment(PAIRS, both_sources, factor=3, probability=1, keep_original=False, both=False)
    assert all(new[0] != PAIRS.inputs[i // 3][0] for i, new in enumerate(got.inputs))
    assert all(new[1] == PAIRS.inputs[i // 3][1] for i, new in enumerate(got.inputs))


@pytest.mark.parametrize("masking", ["each", "none"])
def test_masked_language_model_by_the_slow_way(model, tokenizer, masking):
    """Against one forward pass per word, written out."""
    text, k = "The dog sat, under a red tree", 4
    got = MaskedLanguageModel(model, tokenizer, masking=masking).candidates([text, "a cat"], [spans(text), []], k)
    assert got[1] == []
    ids = tokenizer(text)["input_ids"]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    for (start, end), found in zip(spans(text), got[0]):
        word = text[start:end].lower()
        at = tokens.index(word)
        shown = [tokenizer.mask_token_id if i == at and masking == "each" else t for i, t in enumerate(ids)]
        with torch.no_grad():
            logits = model.eval()(input_ids=torch.tensor([shown])).logits[0, at]
        ranked = [tokenizer.convert_ids_to_tokens(i) for i in logits.argsort(descending=True).tolist()]
        best = [t for t in ranked if t in [*WORDS, "play", "walk"] and t != word][:k]
        assert found == tuple(sorted(best))


def test_words_of_several_pieces_or_unknown_are_left_to_the_neighbours(model, tokenizer):
    text = "birds xyzzy dog playing"  # bird+##s, [UNK], one token, play+##ing
    language_model = MaskedLanguageModel(model, tokenizer)
    assert [bool(c) for c in language_model.candidates([text], [spans(text)], 3)[0]] == [False, False, True, False]
    neighbours = EmbeddingNeighbours(["birds", "playing", "eagles", "games", "dog"],
                                     np.array([[1, 0], [0, 1], [0.9, 0.1], [0.1, 0.9], [-1, -1]]))
    got = augment(Split(["x"], [(text,)], np.zeros(1)), [language_model, neighbours], factor=5, probability=1,
                  candidates=1, keep_original=False)
    assert {t.split()[0] for (t,) in got.inputs} == {"eagles"}
    assert {t.split()[1] for (t,) in got.inputs} == {"xyzzy"}  # nobody knows it
    assert {t.split()[3] for (t,) in got.inputs} == {"games"}
    assert not {t.split()[2] for (t,) in got.inputs} & {"eagles", "games", "dog"}  # the language model's, not theirs


def test_candidates_are_whole_words_only(tokenizer, model, both_sources):
    assert set(usable_tokens(tokenizer).values()) == {*WORDS, "play", "walk"}
    text = SINGLES.inputs[0][0]
    for source in both_sources:
        for own, found in zip(spans(text), source.candidates([text], [spans(text)], 100)[0]):
            assert not set(found) & {*SPECIAL, "s", "ing", "##s", "##ing", ".", ","}
            assert text[own[0] : own[1]].lower() not in found
            assert len(found) == len(usable_tokens(tokenizer)) - 1  # all others


def test_byte_level_tokens_of_other_tokenizers():
    class Fake:
        all_special_ids = (0,)

        def get_vocab(self):
            return {"<s>": 0, "Ġcat": 1, "dog": 2, "Ġ,": 3, "Ġ": 4, "ĠBlue": 5}

    assert usable_tokens(Fake()) == {1: "cat", 5: "Blue"}


def test_nearest_neighbours_by_hand(tmp_path):
    lines = ["king 1 0 0", "queen 0.9 0.1 0", "prince 5 1 0", ", 1 0 0", "two words 1 0 0"]
    lines += ["apple 0 0 1", "pear 0 0.1 1"]
    path = tmp_path / "vectors.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    got = EmbeddingNeighbours.from_file(path)
    assert got.words == ["king", "queen", "prince", "apple", "pear"]
    text = "King apple plum"
    assert got.candidates([text], [spans(text)], 1) == [[("queen",), ("pear",), ()]]  # by angle, not by length
    assert got.candidates([text], [spans(text)], 2)[0][0] == ("prince", "queen")
    path.write_text("2 3\nking 1 0 0\nqueen 0.9 0.1 0\n")  # word2vec's header
    assert EmbeddingNeighbours.from_file(path).words == ["king", "queen"]
    for content in ("king 1 0 0\nqueen 1 0\n", "king 1 0 x\n", "", ", 1 0\n"):
        path.write_text(content)
        with pytest.raises(KitError, match=r"of .* has 2 numbers instead of 3|cannot be read|no word vectors"):
            EmbeddingNeighbours.from_file(path)
    with pytest.raises(KitError, match="cannot be read"):
        EmbeddingNeighbours.from_file(tmp_path / "gone")


def test_vectors_from_texts_put_words_of_the_same_use_together():
    groups = [(["red", "blue", "green"], ["cat", "dog", "bird"]), (["runs", "sleeps"], ["fast", "here", "now"])]
    texts = [f"{a} {b}" for first, second in groups for a in first for b in second] * 5
    got = EmbeddingNeighbours.from_texts(texts, dimensions=4)
    assert got.candidates(["Red sleeps"], [spans("Red sleeps")], 2)[0][0] == ("blue", "green")
    assert got.candidates(["Red sleeps"], [spans("Red sleeps")], 1)[0][1] == ("runs",)
    assert np.array_equal(EmbeddingNeighbours.from_texts(texts, dimensions=4).vectors, got.vectors)
    with pytest.raises(KitError, match="too little text"):
        EmbeddingNeighbours.from_texts(["a b c"])


def test_sources_by_name(tmp_path, model, tokenizer):
    model.save_pretrained(tmp_path / "mlm")
    tokenizer.save_pretrained(tmp_path / "mlm")
    (tmp_path / "v.txt").write_text("cat 1 0\ndog 1 0.1\n")
    folder = str(tmp_path / "mlm")
    got = sources(folder)
    assert [type(s) for s in got] == [MaskedLanguageModel, EmbeddingNeighbours]
    want = augment(SINGLES, [MaskedLanguageModel(model, tokenizer), EmbeddingNeighbours.from_model(model, tokenizer)])
    assert augment(SINGLES, got).inputs == want.inputs
    assert sources(folder, str(tmp_path / "v.txt"), masking="none")[1].words == ["cat", "dog"]
    assert len(sources("", folder)[0].words) == len(usable_tokens(tokenizer))
    assert sources(texts=["a b c d"] * 9)[0].words == ["a", "b", "c", "d"]
    with pytest.raises(KitError, match="needs a masked language model"):
        sources()
    # A checkpoint without the head would get a random one from transformers, and so random candidates.
    model.bert.save_pretrained(tmp_path / "mlm")
    with pytest.raises(KitError, match="no masked-LM head"):
        sources(folder)
    with pytest.raises(KitError):
        MaskedLanguageModel(tmp_path / "nowhere")


def test_bad_settings_are_refused(both_sources, model, tokenizer):
    for wrong in ({"factor": -1}, {"probability": 1.5}, {"candidates": 0}):
        with pytest.raises(KitError):
            augment(SINGLES, both_sources, **wrong)
    with pytest.raises(KitError):
        augment(SINGLES, [])
    with pytest.raises(KitError, match="images"):
        augment(Split(["x"], np.zeros((1, 2, 2, 3), np.uint8), np.zeros(1)), both_sources)
    with pytest.raises(KitError, match="masking"):
        MaskedLanguageModel(model, tokenizer, masking="some")
    with pytest.raises(KitError, match="fast tokenizer"):
        MaskedLanguageModel(model)
