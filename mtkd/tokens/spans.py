"""Span tasks: which characters of a passage answer a feature, as one two-class decision per token, scored on characters.

The clinical experiment of `domain_expertise` (NBME) is of this kind: the input is a pair (feature, note), the answer a
set of character spans in the note. A token is "inside" (1) where it shares a character with a span.
"""

from __future__ import annotations

import numpy as np

from mtkd.data.splits import Split
from mtkd.tokens.align import Places


def token_targets(split: Split, where: Places) -> np.ndarray:
    """1 inside a span, 0 outside, -1 for tokens that are not in the passage (the feature, special tokens). int8 [total]"""
    passage = len(split.inputs[0]) - 1
    targets = np.where((where.role == passage) & (where.ends > where.starts), 0, -1).astype(np.int8)
    for i, spans in enumerate(split.spans):
        part = slice(where.offsets[i], where.offsets[i + 1])
        for start, end in spans:
            targets[part][(targets[part] == 0) & (where.starts[part] < end) & (where.ends[part] > start)] = 1
    return targets


def predicted_spans(inside: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[tuple[int, int]]:
    """Neighbouring inside tokens joined, blanks between them included. All [tokens of one passage], in text order.

    >>> predicted_spans(np.array([True, True, False, True]), np.array([0, 4, 9, 12]), np.array([3, 8, 11, 15]))
    [(0, 8), (12, 15)]
    """
    found: list[tuple[int, int]] = []
    before = False
    for now, start, end in zip(inside, starts, ends):
        if now and before:
            found[-1] = (found[-1][0], int(max(end, found[-1][1])))
        elif now:
            found.append((int(start), int(end)))
        before = bool(now)
    return found


def char_f1(logits: np.ndarray, where: Places, split: Split) -> dict[str, float]:
    """F1, precision and recall over characters, pooled over all samples, as the NBME competition scores.

    logits [total tokens, 2]. Text that a tokeniser cut off counts as predicted outside. With nothing to find and nothing
    found the F1 is 0, as scikit-learn has it.
    """
    passage = len(split.inputs[0]) - 1
    inside = logits.argmax(-1) == 1
    hit = said = gold = 0
    for i, spans in enumerate(split.spans):
        part = slice(where.offsets[i], where.offsets[i + 1])
        mine = (where.role[part] == passage) & (where.ends[part] > where.starts[part])
        truth = np.zeros(len(split.inputs[i][passage]), dtype=bool)
        guess = truth.copy()
        for start, end in spans:
            truth[start:end] = True
        for start, end in predicted_spans(inside[part][mine], where.starts[part][mine], where.ends[part][mine]):
            guess[start:end] = True
        hit, said, gold = hit + int((truth & guess).sum()), said + int(guess.sum()), gold + int(truth.sum())
    precision, recall = hit / max(said, 1), hit / max(gold, 1)
    return {"char_f1": 2 * hit / max(said + gold, 1), "char_precision": precision, "char_recall": recall}
