"""Two tokenisers on one text: which tokens of the one cover the characters of which tokens of the other.

A student token takes the mean of the teacher tokens that overlap it in the text. Written as one sparse matrix per
sample, A [student tokens, teacher tokens], whose rows sum to 1 (or to 0 where no teacher token overlaps), the aligned
states of a teacher are A @ H. The matrices of a whole split are kept as the blocks of one sparse matrix over all its
tokens.

    text          "unbelievable!"
    student       un | believ | able | !
    teacher       unbeliev | able!
    A             [[1, 0],        un      lies within the teacher's first token
                   [1, 0],        believ  does, too
                   [0, 1],        able    and ! share the second one
                   [0, 1]]

Special tokens have no characters. They meet by their place: the [CLS]-like token with the other's, the tokens that
follow the first text (RoBERTa writes two there) with those that follow it, and those that follow the second likewise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from mtkd.data.splits import Split

CLS, AFTER_FIRST, AFTER_SECOND = -1, -2, -3


@dataclass
class Places:
    """Where the tokens of a split come from. starts, ends [total]: characters of the token's own text, blanks at either
    end not counted; role [total]: 0 or 1 (which text), CLS, AFTER_FIRST or AFTER_SECOND; offsets [n + 1] of the samples."""

    starts: np.ndarray
    ends: np.ndarray
    role: np.ndarray
    offsets: np.ndarray


def places(split: Split, tokenizer, max_length: int) -> Places:
    """Characters and roles of every token, in the packed order of `mtkd.tokens.batches.encode` with the same arguments."""
    pairs = len(split.inputs[0]) > 1
    out = tokenizer([t[0] for t in split.inputs], [t[1] for t in split.inputs] if pairs else None, truncation=True,
                    max_length=max_length, padding=False, return_offsets_mapping=True, return_attention_mask=False)
    starts, ends, roles, lengths = [], [], [], []
    for i, (ids, spans) in enumerate(zip(out["input_ids"], out["offset_mapping"])):
        seen, texts = 0, split.inputs[i]
        for token, (start, end), text in zip(ids, spans, out.sequence_ids(i)):
            if text is None:
                roles.append(CLS if token == tokenizer.cls_token_id or not seen else -1 - seen)
                starts.append(0)
                ends.append(1)
                continue
            seen = text + 1
            words = texts[text]
            while start < end and words[start].isspace():
                start += 1
            while end > start and words[end - 1].isspace():
                end -= 1
            roles.append(text)
            starts.append(start)
            ends.append(end)
        lengths.append(len(ids))
    return Places(np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64), np.array(roles, dtype=np.int8),
                  np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def averaging_matrix(student: Places, teacher: Places) -> sparse.csr_matrix:
    """A [student tokens, teacher tokens] of a whole split; sample i's own block is `block(A, i, ...)`.

    Row r holds 1 / m at the m teacher tokens that share at least one character with student token r (or, for special
    tokens, its place), and nothing where there is none: text that the teacher cut off, or blanks.
    """
    wide = 1 + int(max(student.ends.max(initial=1), teacher.ends.max(initial=1)))
    usable = np.flatnonzero(teacher.ends > teacher.starts)                         # a token of blanks says nothing
    group = _groups(teacher)[usable]
    order = usable[np.argsort(group, kind="stable")]                               # by sample and role, in text order
    key = _groups(teacher)[order] * wide
    mine = _groups(student) * wide
    first = np.searchsorted(key + teacher.ends[order], mine + student.starts, side="right")
    last = np.searchsorted(key + teacher.starts[order], mine + student.ends, side="left")
    count = np.where(student.ends > student.starts, np.maximum(last - first, 0), 0)
    indptr = np.concatenate([[0], np.cumsum(count)])
    within = np.arange(indptr[-1]) - np.repeat(indptr[:-1], count)
    columns = order[np.repeat(first, count) + within]
    values = np.repeat(1.0 / np.maximum(count, 1), count).astype(np.float32)
    return sparse.csr_matrix((values, columns, indptr), shape=(len(student.starts), len(teacher.starts)))


def _groups(where: Places) -> np.ndarray:
    """A number per (sample, role), increasing with the sample. [total]"""
    sample = np.repeat(np.arange(len(where.offsets) - 1), np.diff(where.offsets))
    return sample * 5 + (where.role.astype(np.int64) + 3)


def block(matrix: sparse.csr_matrix, i: int, student: Places | object, teacher: Places | object) -> sparse.csr_matrix:
    """Sample i's own matrix [its student tokens, its teacher tokens]; anything with `offsets` will do for the two."""
    rows, columns = student.offsets[i : i + 2], teacher.offsets[i : i + 2]
    return matrix[rows[0] : rows[1], columns[0] : columns[1]]


def apply(matrix: sparse.csr_matrix, packed: Tensor) -> Tensor:
    """A @ H for packed states: [teacher tokens, ...] -> [student tokens, ...]."""
    flat = packed.reshape(len(packed), -1).numpy()
    return torch.from_numpy(np.ascontiguousarray(matrix @ flat)).reshape(matrix.shape[0], *packed.shape[1:])


def seen(matrix: sparse.csr_matrix) -> Tensor:
    """Which student tokens have a counterpart. bool [student tokens]"""
    return torch.from_numpy(np.diff(matrix.indptr) > 0)


def dense(matrix: sparse.csr_matrix, rows: np.ndarray, student, teacher, student_mask: Tensor, teacher_mask: Tensor) -> Tensor:
    """The matrices of a padded batch. [B, student tokens, teacher tokens]; padding on either side of either is zero."""
    found = torch.zeros(len(rows), student_mask.shape[1], teacher_mask.shape[1])
    for b, i in enumerate(rows):
        part = torch.from_numpy(block(matrix, int(i), student, teacher).toarray())
        mine, theirs = student_mask[b].nonzero()[:, 0], teacher_mask[b].nonzero()[:, 0]
        found[b, mine[:, None], theirs[None, :]] = part
    return found
