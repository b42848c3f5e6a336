"""TinyBERT's data augmentation (Jiao et al. 2019, Algorithm 1): new training texts by replacing words.

For every example N new ones are made. Each word has K candidates: where it is a single token of a masked language
model, the K tokens the model finds likeliest in its place; else its K nearest neighbours in an embedding space. With
probability p each word is replaced by one of its candidates, drawn evenly. The paper's values are N = 20, K = 15,
p = 0.4.

Choices where the algorithm is silent, and deviations: candidates are found in the *original* text, so the N copies
share them and the order of the words does not matter (Algorithm 1 can be read as masking a text whose earlier words
are already replaced). A candidate is never the word itself, a special token, a piece of a word or punctuation. Each
text of a pair is given to the language model on its own. A word that no source knows stays as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mtkd.data import hub
from mtkd.data.splits import Split
from mtkd.errors import KitError
from mtkd.tokens.candidates import WORD, EmbeddingNeighbours, MaskedLanguageModel, Span, Words

Source = MaskedLanguageModel | EmbeddingNeighbours  # or anything else with their method `candidates`


def sources(model: str = "", vectors: str = "", texts: Iterable[str] | None = None, *, masking: str = "each",
            device=None) -> list[Source]:
    """The candidate sources for `augment`, by name: the masked language model, if any, then the embedding space.

    Args:
        model: a masked language model by folder or hub id; "" for none, so that all candidates are neighbours.
        vectors: a file in GloVe's format, or a model by folder or hub id whose input embeddings are used; "" for
            those of `model`, or, where there is no model either, for word vectors learned from `texts`.
        texts: the training texts; needed in that last case only, the one that works offline with nothing at hand.
        masking: "each" or "none", see `MaskedLanguageModel`.
        device: where the model computes.
    """
    found: list[Source] = []
    if model:
        found = [MaskedLanguageModel(hub.find(model, "model"), masking=masking, device=device)]
    if vectors and Path(vectors).is_file():
        return [*found, EmbeddingNeighbours.from_file(vectors)]
    if vectors:
        from transformers import AutoModel, AutoTokenizer

        try:
            place = hub.find(vectors, "model")
            network, tokenizer = AutoModel.from_pretrained(place), AutoTokenizer.from_pretrained(place)
        except (OSError, ValueError) as error:
            raise KitError(f"{vectors} is neither a file of word vectors nor a model with embeddings.") from error
        return [*found, EmbeddingNeighbours.from_model(network, tokenizer)]
    if model:
        return [*found, EmbeddingNeighbours.from_model(found[0].model, found[0].tokenizer)]
    if texts is None:
        raise KitError("Augmentation needs a masked language model, word vectors, or texts to learn word vectors from.")
    return [EmbeddingNeighbours.from_texts(texts)]


def augment(split: Split, sources: Sequence[Source], *, factor: int = 20, run: int = 0, seed: int = 0, probability: float = 0.4,
            candidates: int = 15, keep_original: bool = True, both: bool = True) -> Split:
    """A split with `factor` new examples after each one of `split`, labels copied.

    Args:
        split: texts or pairs of texts.
        sources: asked in turn for each word; the first that has candidates is used. Algorithm 1 is
            `[MaskedLanguageModel(...), EmbeddingNeighbours(...)]`; one source alone works too.
        factor: new examples per example (N).
        run: which of several independent augmentations this is; the multiple-teacher paper makes three (0, 1, 2).
        seed: seeds all draws. What an example becomes depends on (seed, run, its id) and its texts alone, not on what
            else is in the split or in which order. A larger factor begins with the examples of a smaller one.
        probability: of replacing a word (p).
        candidates: per word (K).
        keep_original: put the example itself, under its own id, before its new ones.
        both: change both texts of a pair, as the multiple-teacher paper; else only the first, near to TinyBERT, which
            leaves one of them unchanged.

    Returns:
        A split of the same type. New ids are "parent/run/n". Text between replaced words is unchanged, byte by byte.

    Raises:
        KitError: the split holds images, or a setting is out of range.
    """
    if isinstance(split.inputs, np.ndarray):
        raise KitError("Words can only be replaced in texts, and this split holds images.")
    if factor < 0 or candidates < 1 or not 0 <= probability <= 1 or not sources:
        raise KitError("Augmentation needs factor >= 0, candidates >= 1, 0 <= probability <= 1 and a candidate source.")
    found = _candidates(sorted({text for row in split.inputs for text in (row if both else row[:1])}), sources, candidates)
    ids, inputs = [], []
    for parent, row in zip(split.ids, split.inputs, strict=True):
        if keep_original:
            ids.append(parent)
            inputs.append(tuple(row))
        changed = row if both else row[:1]
        ends = np.cumsum([0, *(len(found[text]) for text in changed)])
        key = hashlib.sha256(f"{seed}\0{run}\0{parent}".encode()).digest()
        # Two numbers per word and copy: whether to replace it, and by which candidate.
        draws = np.random.default_rng(int.from_bytes(key, "big")).random((factor, 2, ends[-1]))
        for copy in range(factor):
            new = [_replace(text, found[text], *draws[copy, :, a:b], probability)
                   for text, a, b in zip(changed, ends, ends[1:])]
            ids.append(f"{parent}/{run}/{copy}")
            inputs.append((*new, *row[len(changed):]))
    return replace(split, ids=ids, inputs=inputs, labels=np.repeat(split.labels, factor + keep_original))


def _candidates(texts: list[str], sources: Sequence[Source], k: int) -> dict[str, list[tuple[Span, Words]]]:
    """For every text its words that have candidates, in order."""
    found: list[dict[Span, Words]] = [{m.span(): () for m in WORD.finditer(text)} for text in texts]
    for source in sources:
        left = [[span for span, words in own.items() if not words] for own in found]
        asked = [i for i, spans in enumerate(left) if spans]
        answers = source.candidates([texts[i] for i in asked], [left[i] for i in asked], k) if asked else ()
        for i, answer in zip(asked, answers):
            found[i].update(zip(left[i], answer, strict=True))
    return {text: [(span, words) for span, words in own.items() if words] for text, own in zip(texts, found, strict=True)}


def _replace(text: str, words, decide: np.ndarray, pick: np.ndarray, probability: float) -> str:
    pieces, at = [], 0
    for ((start, end), options), chance, which in zip(words, decide, pick, strict=True):
        if chance < probability:
            pieces += [text[at:start], options[int(which * len(options))]]
            at = end
    return "".join([*pieces, text[at:]])
