"""Tokenisers learned from a task's own text, each built the way its family of encoders builds them.

    kind         pieces                       one text                 two texts                        cased
    bert         WordPiece                    [CLS] A [SEP]            [CLS] A [SEP] B [SEP]            no
    mpnet        WordPiece                    <s> A </s>               <s> A </s> </s> B </s>           no
    roberta      byte-level BPE               <s> A </s>               <s> A </s> </s> B </s>           yes
    deberta      byte-level BPE               [CLS] A [SEP]            [CLS] A [SEP] B [SEP]            yes
    albert       Unigram, spaces as U+2581    [CLS] A [SEP]            [CLS] A [SEP] B [SEP]            no
    deberta-v3   Unigram, spaces as U+2581    [CLS] A [SEP]            [CLS] A [SEP] B [SEP]            yes
    xlnet        Unigram, spaces as U+2581    A <sep> <cls>            A <sep> B <sep> <cls>            yes; padded on the left
    words        whole words, others [UNK]    A [SEP]                  A [SEP] B [SEP]                  no; for the Bi-LSTM

DistilBERT and ELECTRA share BERT's. Vocabularies of a few thousand entries are right for tiny models: a table of 30k rows
would be most of their parameters. Everything here is deterministic between processes, since the fingerprint of a
tokeniser is part of the store's keys.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import tokenizers
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from mtkd.data import hub
from mtkd.data.tasks import Task
from mtkd.errors import KitError
from mtkd.store.artifacts import Store

# Special tokens by kind, in the order of their ids: where a family has an order of its own, as in its checkpoints.
SPECIAL = {
    "bert": {name: f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
    "mpnet": {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "[UNK]", "mask": "<mask>"},
    "roberta": {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"},
    "deberta": {name: f"[{name.upper()}]" for name in ("pad", "cls", "sep", "unk", "mask")},
    "albert": {"pad": "<pad>", "unk": "<unk>", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    "deberta-v3": {name: f"[{name.upper()}]" for name in ("pad", "cls", "sep", "unk", "mask")},
    "xlnet": {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "cls": "<cls>", "sep": "<sep>", "pad": "<pad>", "mask": "<mask>",
              "eod": "<eod>", "eop": "<eop>"},
    "words": {name: f"[{name.upper()}]" for name in ("pad", "unk", "sep")},
}
LONGEST_PIECE = 12  # characters; longer words are made of pieces
SEED_WORDS = 50_000  # the most frequent ones, whose substrings are the candidates


def special_ids(tokenizer: transformers.PreTrainedTokenizerBase) -> dict[str, int]:
    """Ids of the special tokens that a tokeniser has, of pad, unk, cls, sep, mask, bos and eos."""
    found = {name: getattr(tokenizer, f"{name}_token_id") for name in ("pad", "unk", "cls", "sep", "mask", "bos", "eos")}
    return {name: i for name, i in found.items() if i is not None}


def scratch_tokenizer(task: Task, vocab: int, store: Store, kind: str = "bert") -> transformers.PreTrainedTokenizerFast:
    """A tokeniser of a kind (see the table above) learned from the training text (and the unlabelled text, if any).

    vocab: entries wanted; little text gives fewer, and a byte-level one has at least its 256 bytes. Learned once and kept
    in the store. Raises KitError for a kind that does not exist.
    """
    if kind not in LEARN:
        raise KitError(f"there is no tokeniser of kind {kind!r}; there are {', '.join(LEARN)}.")

    def make(folder: Path) -> dict:
        texts = [t for name in ("train", "unlabelled") if name in task.splits for row in task.splits[name].inputs for t in row]
        learned = LEARN[kind](texts, vocab)
        learned.save_pretrained(folder)
        return {"vocabulary": len(learned)}

    spec = {"task": task.fingerprint, "vocab": vocab} | ({} if kind == "bert" else {"kind": kind})
    return read_tokenizer(store.get("tokenizer", spec, make).folder)


def read_tokenizer(place: str | Path) -> transformers.PreTrainedTokenizerBase:
    """The tokeniser beside a model, in a folder or under a hub id.

    KitError where it is missing (transformers makes one without words, to which every word is unknown), cannot be read, or
    has no padding token."""
    try:
        found = transformers.AutoTokenizer.from_pretrained(place)
    except Exception as error:  # a damaged file raises whatever its reader does
        if not os.path.isdir(place):
            raise hub.unreachable(error, str(place)) from error
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise KitError(f"the tokeniser in the folder {str(place)!r} cannot be read ({first}): save the model's own there "
                       "again, with tokenizer.save_pretrained.") from error
    if not found.is_fast:
        raise KitError(f"the tokeniser of {str(place)!r} has no fast version (tokenizer.json), which the kit needs.")
    if set(found.get_vocab()) <= set(found.all_special_tokens):
        raise KitError(f"{str(place)!r} holds no tokeniser: save the one that the model was trained with there, with "
                       "tokenizer.save_pretrained.")
    if found.pad_token_id is None:
        raise KitError(f"the tokeniser of {str(place)!r} has no padding token: give it one (tokenizer.pad_token = "
                       "tokenizer.eos_token), set the model's config.pad_token_id alike, and save both again.")
    return found


def named(kind: str) -> dict[str, str]:
    """The special tokens of a kind as transformers' keyword arguments; "eod" and "eop" have no such name."""
    return {f"{name}_token": token for name, token in SPECIAL[kind].items() if name not in ("eod", "eop")}


def wordpiece(texts: list[str], vocab: int, kind: str) -> dict[str, int]:
    """Pieces and their numbers of a lower-casing WordPiece vocabulary, special tokens first."""

    def learn(size: int, first: list[str]) -> dict[str, int]:
        learned = tokenizers.BertWordPieceTokenizer(lowercase=True)
        learned.train_from_iterator(texts, vocab_size=size, min_frequency=2, show_progress=False,
                                    special_tokens=[*SPECIAL[kind].values(), *first])
        return learned.get_vocab()

    # The trainer numbers the inner letters (##a) in the order of a randomised hash table and breaks ties by number,
    # so two processes would learn two vocabularies: a pass without merges finds the letters, a second is told them.
    letters = sorted(t for t in learn(0, []) if t.startswith("##") and len(t) == 3)
    return learn(vocab, letters)


def byte_pairs(texts: list[str], vocab: int, kind: str) -> Tokenizer:
    """Byte-level BPE: every text can be spelled, there is no unknown token. Bytes and ties have a fixed order already."""
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.decoder = tokenizers.decoders.ByteLevel()
    learned.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab, min_frequency=2, show_progress=False, special_tokens=list(SPECIAL[kind].values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return learned


def unigram(texts: list[str], vocab: int, kind: str, blank: Tokenizer) -> list[tuple[str, float]]:
    """Pieces and log-probabilities of a Unigram vocabulary (Kudo 2018), special tokens first.

    The library's trainer adds up floats in the order of a randomised hash table, so that two processes learn two
    vocabularies. This one counts in integers: seed pieces are the most frequent substrings of words (by frequency times
    length), and each round splits every word at its most probable place (Viterbi instead of the paper's sum over all
    splits), counts the pieces again and keeps the better half, until `vocab` entries are left. `blank` supplies the
    family's normaliser and its way to cut words. Single characters are always kept, so that only unseen ones are unknown.
    """
    special = list(SPECIAL[kind].values())
    words = Counter(w for t in texts
                    for w, _ in blank.pre_tokenizer.pre_tokenize_str(blank.normalizer.normalize_str(t)))
    counts: Counter[str] = Counter()
    for word, times in words.most_common(SEED_WORDS):
        for start in range(len(word)):
            for end in range(start + 1, min(start + LONGEST_PIECE, len(word)) + 1):
                counts[word[start:end]] += times
    letters = set().union(*words)
    room = max(vocab - len(special) - len(letters), 0)

    def best(size: int) -> dict[str, int]:
        longer = [p for p, times in counts.items() if len(p) > 1 and times > 1 and p not in special]
        longer.sort(key=lambda p: (-counts[p] * len(p), p))
        return {p: counts[p] for p in [*sorted(letters), *longer[:size]]}

    def scored(counted: dict[str, int]) -> list[tuple[str, float]]:
        total = math.log(max(sum(counted.values()), 1))
        pieces = sorted(counted, key=lambda p: (-counted[p], p))
        return [(s, 0.0) for s in special] + [(p, math.log(max(counted[p], 0.5)) - total) for p in pieces]

    size = 8 * room
    kept = best(size)
    while True:
        for _ in range(2):
            model = models.Unigram(scored(kept), unk_id=special.index(SPECIAL[kind]["unk"]), byte_fallback=False)
            counts = Counter()
            for word, times in words.items():
                for token in model.tokenize(word):
                    counts[token.value] += times
            kept = {p: counts[p] for p in kept}
        if size <= room:
            return scored(best(room))
        size = max(size // 2, room)
        kept = best(size)


def as_bert(texts: list[str], vocab: int):
    learned = tokenizers.BertWordPieceTokenizer(wordpiece(texts, vocab, "bert"), lowercase=True)
    return transformers.BertTokenizerFast(tokenizer_object=learned._tokenizer, **named("bert"))


def as_mpnet(texts: list[str], vocab: int):
    return transformers.MPNetTokenizer(vocab=wordpiece(texts, vocab, "mpnet"), **named("mpnet"))


def as_roberta(texts: list[str], vocab: int):
    model = json.loads(byte_pairs(texts, vocab, "roberta").to_str())["model"]
    return transformers.RobertaTokenizer(vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]], **named("roberta"))


def as_deberta(texts: list[str], vocab: int):
    """Not the library's DeBERTa class, which puts two [SEP] between two texts and gives both the type 0."""
    learned = byte_pairs(texts, vocab, "deberta")
    learned.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
                                      special_tokens=[(t, learned.token_to_id(t)) for t in ("[CLS]", "[SEP]")])])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=learned, bos_token="[CLS]", eos_token="[SEP]",
                                                **named("deberta"))


def as_sentencepiece(kind: str, cls: type) -> Callable:
    def learn(texts: list[str], vocab: int):
        return cls(vocab=unigram(texts, vocab, kind, cls().backend_tokenizer), **named(kind),
                   model_input_names=["input_ids", "token_type_ids", "attention_mask"])  # the ALBERT class forgets the types

    return learn


def as_words(texts: list[str], vocab: int):
    """The most frequent words, lower-cased and cut at blanks and punctuation; ties in alphabetical order."""
    blank = Tokenizer(models.WordLevel({}, unk_token="[UNK]"))
    blank.normalizer, blank.pre_tokenizer = tokenizers.normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    counts = Counter(w for t in texts for w, _ in blank.pre_tokenizer.pre_tokenize_str(blank.normalizer.normalize_str(t)))
    special = list(SPECIAL["words"].values())
    kept = sorted(counts, key=lambda w: (-counts[w], w))[:max(vocab - len(special), 0)]
    blank.model = models.WordLevel({w: i for i, w in enumerate([*special, *kept])}, unk_token="[UNK]")
    blank.post_processor = processors.TemplateProcessing(
        single="$A:0 [SEP]:0", pair="$A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=[("[SEP]", special.index("[SEP]"))])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=blank, **named("words"))


LEARN: dict[str, Callable] = {
    "bert": as_bert, "mpnet": as_mpnet, "roberta": as_roberta, "deberta": as_deberta,
    "albert": as_sentencepiece("albert", transformers.AlbertTokenizer),
    "deberta-v3": as_sentencepiece("deberta-v3", transformers.DebertaV2Tokenizer),
    "words": as_words, "xlnet": as_sentencepiece("xlnet", transformers.XLNetTokenizer),
}
