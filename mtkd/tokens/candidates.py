"""Where the data augmentation gets its words from: a masked language model, or neighbours in an embedding space.

The sources of Algorithm 1 of TinyBERT (Jiao et al. 2019), which `mtkd.tokens.augment` puts to use. A source has one method:

    candidates(texts, spans, k)   up to k words for every span (start, end) of every text, in alphabetical order; () where it
                                  has none. They do not depend on what other texts it is asked about in the same call.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from mtkd.errors import KitError

WORD = re.compile(r"[^\W_]+")  # letters and digits; splits at the same places as BERT's own first step
Span = tuple[int, int]  # where a word begins and ends in its text
Words = tuple[str, ...]


def usable_tokens(tokenizer) -> dict[int, str]:
    """The tokens that can stand for a word of their own: token id to word, without special tokens and word pieces.

    Knows the three usual ways to mark pieces: "##" on continuations (WordPiece), "Ġ" or "▁" on beginnings.
    """
    vocabulary, special = tokenizer.get_vocab(), set(tokenizer.all_special_ids)
    marks = () if any(token.startswith("##") for token in vocabulary) else ("Ġ", "▁")
    begins = next((mark for mark in marks if any(token.startswith(mark) for token in vocabulary)), "")
    words = {number: token[len(begins):] for token, number in vocabulary.items()
             if number not in special and token.startswith(begins)}
    return {number: word for number, word in words.items() if WORD.fullmatch(word)}


class MaskedLanguageModel:
    """Candidates from a masked language model, for words that are one token of it; () for all others.

    Args:
        model: a transformers model with a masked-LM head, or the folder or hub id of one.
        tokenizer: its fast tokenizer; read from the same folder if None.
        masking: "each" masks one word at a time, as Algorithm 1: a forward pass per word. "none" shows the model the
            whole text and reads its distribution at every position: a forward pass per text, many times cheaper, but
            the model sees the word it is to replace. A deviation, for machines without a GPU.
        device: where to compute; where the model already is if None.
    """

    at_once = 2048  # tokens of a batch, which is free of padding; bounds the memory of the logits

    def __init__(self, model, tokenizer=None, *, masking: str = "each", device=None):
        if masking not in ("each", "none"):
            raise KitError(f"The masking of the augmentation is 'each' or 'none', not {masking!r}.")
        if isinstance(model, str | Path):
            model, tokenizer = self._loaded(str(model), tokenizer)
        if tokenizer is None or not getattr(tokenizer, "is_fast", False):
            raise KitError("The masked language model needs its fast tokenizer, which says where each token begins.")
        if masking == "each" and tokenizer.mask_token_id is None:
            raise KitError("This tokenizer has no mask token, so it does not belong to a masked language model.")
        self.model = (model.to(device) if device is not None else model).eval()
        self.tokenizer, self.masking = tokenizer, masking
        known = self.model.get_input_embeddings().weight
        self.words = {i: word for i, word in usable_tokens(tokenizer).items() if i < len(known)}
        self._usable = torch.tensor(sorted(self.words), device=known.device)

    @staticmethod
    def _loaded(name: str, tokenizer):
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        try:
            tokenizer = tokenizer if tokenizer is not None else AutoTokenizer.from_pretrained(name)
            model, report = AutoModelForMaskedLM.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
        except (OSError, ValueError) as error:
            raise KitError(f"No masked language model can be read from {name} ({_line(error)}).") from error
        if report["missing_keys"]:  # transformers would fill them at random, and the candidates with noise
            raise KitError(f"The model in {name} has no masked-LM head; name one that has, or none.")
        return model, tokenizer

    def candidates(self, texts: Sequence[str], spans: Sequence[Sequence[Span]], k: int) -> list[list[Words]]:
        found: list[list[Words]] = [[()] * len(of_text) for of_text in spans]
        positions = getattr(self.model.config, "max_position_embeddings", None) or 512
        length = min(self.tokenizer.model_max_length, positions - 2)  # RoBERTa keeps two positions to itself
        encoded = self.tokenizer(list(texts), truncation=True, max_length=length, return_offsets_mapping=True)
        # One row per forward pass: the text it is of, and the (word number, token position) pairs read from it.
        rows: list[tuple[int, list[tuple[int, int]]]] = []
        for text, of_text in enumerate(spans):
            ids = encoded["input_ids"][text]
            token_at = {tuple(offset): at for at, offset in enumerate(encoded["offset_mapping"][text])}
            single = [(word, at) for word, span in enumerate(of_text)
                      if (at := token_at.get(tuple(span))) is not None and ids[at] in self.words]
            rows += [(text, [pair]) for pair in single] if self.masking == "each" else [(text, single)] * bool(single)
        by_length: dict[int, list] = {}  # rows of equal length need no padding
        for row in rows:
            by_length.setdefault(len(encoded["input_ids"][row[0]]), []).append(row)
        for tokens, same in sorted(by_length.items()):
            size = max(1, self.at_once // tokens)
            for batch in (same[start:start + size] for start in range(0, len(same), size)):
                tops = iter(self._top(batch, encoded, k))
                for text, pairs in batch:
                    for word, _ in pairs:
                        start, end = spans[text][word]
                        found[text][word] = _select(texts[text][start:end], [self.words[i] for i in next(tops)], k)
        return found

    @torch.inference_mode()
    def _top(self, batch, encoded, k: int) -> list[list[int]]:
        """For every word read from the rows of a batch the likeliest usable token ids, best first."""
        device = self._usable.device
        inputs = {name: torch.tensor([encoded[name][text] for text, _ in batch], device=device)
                  for name in ("input_ids", "attention_mask", "token_type_ids") if name in encoded}
        row = torch.tensor([i for i, (_, pairs) in enumerate(batch) for _ in pairs], device=device)
        at = torch.tensor([at for _, pairs in batch for _, at in pairs], device=device)
        if self.masking == "each":
            inputs["input_ids"][row, at] = self.tokenizer.mask_token_id

        def only_asked(module, arguments, output):
            # The head with its large vocabulary then runs at the positions asked for, not at every one.
            output["last_hidden_state"] = output[0][row, at][None]  # [1, words, width]
            return output

        hook = self.model.base_model.register_forward_hook(only_asked)
        try:
            logits = self.model(**inputs, return_dict=True).logits[0].float()  # [words, vocabulary]
        finally:
            hook.remove()
        # A few more than k, because the word itself, in any capitals, is dropped afterwards.
        return self._usable[logits[:, self._usable].topk(min(k + 8, len(self._usable)), dim=1).indices].tolist()


class EmbeddingNeighbours:
    """Candidates by cosine similarity in an embedding space, whatever the context.

    Args:
        words: the n words that can be proposed.
        vectors: [n, d] their embeddings.
        embed: gives a vector [d] for a word that is not among them, or None if it cannot.
    """

    def __init__(self, words: Sequence[str], vectors: np.ndarray,
                 embed: Callable[[str], np.ndarray | None] = lambda word: None):
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(words) or not len(words):
            raise KitError(f"{len(words)} words and vectors of shape {list(vectors.shape)} do not make a word list.")
        self.words, self.vectors, self.embed = list(words), _unit(vectors), embed
        self.index = {word: i for i, word in reversed(list(enumerate(self.words)))}
        self._known: dict[tuple[str, int], Words] = {}

    @classmethod
    def from_file(cls, path: str | Path) -> EmbeddingNeighbours:
        """Read vectors in GloVe's text format, a word and its numbers per line.

        Lines whose word is not made of letters and digits are passed over. A first line with two numbers (word2vec's
        text format) is too. Raises KitError if the file cannot be read or a line has another number of columns.
        """
        words, vectors, width = [], [], None
        try:
            with open(path, encoding="utf-8", newline="\n") as lines:
                for number, line in enumerate(lines, start=1):
                    parts = line.rstrip().split(" ")
                    if number == 1 and len(parts) == 2:
                        continue
                    width = width or len(parts) - 1
                    if len(parts) < width + 1:
                        raise KitError(f"Line {number} of {path} has {len(parts) - 1} numbers instead of {width}.")
                    word = " ".join(parts[:-width])  # some GloVe tokens contain blanks
                    if WORD.fullmatch(word):
                        words.append(word)
                        vectors.append(np.array(parts[-width:], dtype=np.float32))
        except (OSError, ValueError) as error:
            raise KitError(f"The word vectors in {path} cannot be read ({_line(error)}).") from error
        if not words:
            raise KitError(f"There are no word vectors in {path}.")
        return cls(words, np.stack(vectors))

    @classmethod
    def from_model(cls, model, tokenizer) -> EmbeddingNeighbours:
        """The input embeddings of a transformers model; a word of several pieces is the mean of its pieces.

        Needs no download beyond the model, so it is the default where no file of word vectors is at hand; GloVe is
        what the paper uses.
        """
        table = model.get_input_embeddings().weight.detach().float().cpu().numpy()

        def embed(word: str) -> np.ndarray | None:
            pieces = tokenizer(word, add_special_tokens=False)["input_ids"]
            return None if not pieces or tokenizer.unk_token_id in pieces else table[pieces].mean(axis=0)

        usable = usable_tokens(tokenizer)
        ids = sorted(i for i in usable if i < len(table))
        if not ids:
            raise KitError("The tokenizer has no whole words in its vocabulary, so it has no neighbours to propose.")
        return cls([usable[i] for i in ids], table[ids], embed)

    @classmethod
    def from_texts(cls, texts: Iterable[str], dimensions: int = 64, window: int = 5, limit: int = 10_000,
                   least: int = 5) -> EmbeddingNeighbours:
        """Learn word vectors from the texts themselves: needs nothing but them, and their size limits how good it is.

        Co-occurrence within `window` words, weighted by 1/distance, as positive pointwise mutual information
        (contexts smoothed with exponent 0.75), then a truncated singular value decomposition, U sqrt(S) (Levy,
        Goldberg and Dagan 2015). Words are lower-cased; the `limit` most frequent that occur `least` times are kept.
        """
        lines = [WORD.findall(text.lower()) for text in texts]
        counts = Counter(word for line in lines for word in line)
        words = sorted((w for w, n in counts.items() if n >= least), key=lambda w: (-counts[w], w))[:limit]
        if len(words) < 3:
            raise KitError(f"Only {len(words)} words occur {least} times or more: too little text for word vectors.")
        index, n = {word: i for i, word in enumerate(words)}, len(words)
        gap = [""] * window  # keeps the texts apart
        ids = np.array([index.get(word, -1) for line in lines for word in [*line, *gap]])
        joint = sparse.csr_matrix((n, n))
        for distance in range(1, window + 1):
            left, right = ids[:-distance], ids[distance:]
            both = (left >= 0) & (right >= 0)
            weight = np.full(both.sum(), 1 / distance)
            joint = joint + sparse.coo_matrix((weight, (left[both], right[both])), shape=(n, n)).tocsr()
        joint = (joint + joint.T).tocoo()
        word_mass = np.asarray(joint.sum(axis=1)).ravel()
        context_mass = word_mass**0.75
        share = joint.data * context_mass.sum() / (word_mass[joint.row] * context_mass[joint.col])
        association = sparse.csr_matrix((np.maximum(np.log(share), 0), (joint.row, joint.col)), shape=(n, n))
        left, strength, _ = randomized_svd(association, min(dimensions, n), random_state=0)
        return cls(words, left * np.sqrt(strength))

    def candidates(self, texts: Sequence[str], spans: Sequence[Sequence[Span]], k: int) -> list[list[Words]]:
        asked = [[text[start:end] for start, end in of_text] for text, of_text in zip(texts, spans, strict=True)]
        new = sorted({word for words in asked for word in words if (word, k) not in self._known})
        for start in range(0, len(new), 256):
            self._look_up(new[start:start + 256], k)
        return [[self._known[word, k] for word in words] for words in asked]

    def _look_up(self, words: list[str], k: int) -> None:
        found = {word: vector for word in words if (vector := self._vector(word)) is not None}
        self._known.update({(word, k): () for word in words if word not in found})
        if not found:
            return
        similarity = _unit(np.stack(list(found.values()))) @ self.vectors.T  # [words, n]
        width = min(k + 8, len(self.words))
        best = np.argpartition(-similarity, width - 1, axis=1)[:, :width]
        for word, row, top in zip(found, similarity, best, strict=True):
            nearest = top[np.argsort(-row[top], kind="stable")]
            self._known[word, k] = _select(word, [self.words[i] for i in nearest], k)

    def _vector(self, word: str) -> np.ndarray | None:
        form = next((form for form in (word, word.lower()) if form in self.index), None)
        return self.embed(word) if form is None else self.vectors[self.index[form]]


def _select(word: str, ranked: Sequence[str], k: int) -> Words:
    # Alphabetical order, so that rounding (which depends on the batch) cannot change the order of near equals and
    # with it the word that a random number picks.
    others = [other for other in dict.fromkeys(ranked) if other.casefold() != word.casefold()]
    return tuple(sorted(others[:k]))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
