"""Three further ways to match inner states, as pure functions on tensors: the baselines that mt_bert compares with.

    patience      BERT-PKD: Sun et al. 2019, "Patient Knowledge Distillation for BERT Model Compression" (EMNLP)
    dissimilarity You et al. 2017, "Learning from Multiple Teacher Networks" (KDD)
    adaptive, angle, hint   AMTML-KD: Liu et al. 2020, "Adaptive multi-teacher multi-level knowledge distillation"
                  (Neurocomputing 415), with the definitions that its authors' published code makes precise

As in mtkd/rules/losses.py every function returns one value per sample. Dissimilarity and angle compare samples of a batch with
each other: a sample's value is the mean over the triplets that have it as their anchor (You) or vertex (Liu), and a batch
of fewer than three samples gives zeros. Shapes: B = batch, L = tokens, K = layer pairs, T = teachers, d = width, C =
classes. Gradients stay finite for zero vectors and identical samples: what has no direction gets no gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mtkd.errors import KitError
from mtkd.rules import losses

POOLS = ("mean", "cls", "max")
DISTANCES = ("euclidean", "squared", "unit")
HOW = ("skip", "last")


def unit(x: Tensor) -> Tensor:
    """x / |x| along the last axis; a zero vector stays zero and gets a zero gradient. [..., d] -> [..., d].

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    real = norm > 1e-12
    return torch.where(real, x / torch.where(real, norm, 1.0), 0.0)


def cls_token(mask: Tensor, cls: int = 0) -> Tensor:
    """Position of every sample's [CLS] token: the first (cls = 0) or the last (cls = -1) of the mask. [B, L] bool -> [B].

    >>> mask = torch.tensor([[True, True, False], [False, True, True]])     # the second is padded on the left
    >>> cls_token(mask).tolist(), cls_token(mask, -1).tolist()
    ([0, 1], [1, 2])
    """
    mask = mask.to(torch.uint8)
    return mask.shape[1] - 1 - mask.flip(1).argmax(-1) if cls else mask.argmax(-1)


def sample_state(hidden: Tensor, mask: Tensor, pool: str = "mean", cls: int = 0) -> Tensor:
    """One vector per sample from its tokens' states. [B, L, d], [B, L] bool -> [B, d].

    "mean" or "max" over the tokens of the mask; "cls" the first of them, or the last where cls is -1 (XLNet's place, see
    mtkd.models.networks.cls_place). A sample without a single token gives zeros. KitError at another word.
    """
    if pool == "cls":
        place = cls_token(mask, cls)
        return hidden[torch.arange(len(hidden), device=hidden.device), place] * mask.any(-1, keepdim=True)
    if pool == "max":
        top = hidden.masked_fill(~mask.unsqueeze(-1), torch.finfo(hidden.dtype).min).amax(1)
        return torch.where(mask.any(-1, keepdim=True), top, 0.0)
    if pool != "mean":
        raise KitError(f"no such way to pool tokens: {pool!r}; there are {', '.join(POOLS)}.")
    return (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(-1, keepdim=True).clamp(min=1)


# --- BERT-PKD ------------------------------------------------------------------------------------------------------------


def patience_layers(student_layers: int, teacher_layers: int, how: str = "skip") -> list[tuple[int, int]]:
    """Which student layer learns from which teacher layer (both from 1), the last layer of either side left out.

    A student of S layers has S - 1 intermediate ones. "skip" gives layer k the teacher's layer g(k) = round(k * T / S),
    "last" the teacher's layers just before its last. A student of one layer has no intermediate layer by this rule: its
    only layer then learns from teacher layer g(1), which is the last. KitError if the student is deeper, or at another
    word.

    >>> patience_layers(6, 12, "skip")
    [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10)]
    >>> patience_layers(6, 12, "last")
    [(1, 7), (2, 8), (3, 9), (4, 10), (5, 11)]
    """
    if how not in HOW:
        raise KitError(f"no such way to pair layers: {how!r}; there are {', '.join(HOW)}.")
    if student_layers > teacher_layers:
        raise KitError(f"patience: the student has {student_layers} layers and its teacher only {teacher_layers}.")
    if student_layers == 1:
        return [(1, teacher_layers)]
    shift = teacher_layers - student_layers
    return [(k, round(k * teacher_layers / student_layers) if how == "skip" else shift + k)
            for k in range(1, student_layers)]


def patience(student: Tensor, teacher: Tensor) -> Tensor:
    """L_PT of Sun et al.: squared distance of unit-length [CLS] states, summed over layers. [B, K, d] x 2 -> [B].

    Between 0 and 4 K. The authors' code takes the mean over K and d where the paper prints the sum: their beta of 10 to
    1000 is this term's weight times K * d.

    >>> patience(torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[0.0, 5.0]]]))
    tensor([2.])
    """
    return (unit(student) - unit(teacher)).pow(2).sum((-2, -1))


# --- You et al.: relative dissimilarity ----------------------------------------------------------------------------------


def triplets(n: int, most: int = 16384, seed: int = 0) -> Tensor:
    """Triplets (i, j, k) of n samples, i the anchor and j < k: all n(n-1)(n-2)/2, or `most` drawn by the seed. -> [m, 3].

    A drawn set has the anchors in turn, each with pairs drawn with replacement. Fewer than three samples: none.

    >>> triplets(3).tolist()
    [[0, 1, 2], [1, 0, 2], [2, 0, 1]]
    """
    if n < 3:
        return torch.empty(0, 3, dtype=torch.long)
    pairs = torch.triu_indices(n - 1, n - 1, 1)                       # [2, P]: pairs among the n - 1 others
    if n * pairs.shape[1] <= most:
        anchor, pair = torch.arange(n).repeat_interleave(pairs.shape[1]), pairs.repeat(1, n)
    else:
        drawn = torch.randint(pairs.shape[1], (most,), generator=torch.Generator().manual_seed(seed))
        anchor, pair = torch.arange(most) % n, pairs[:, drawn]
    return torch.stack([anchor, *(pair + (pair >= anchor))], 1)       # the others, numbered around the anchor


def distances(x: Tensor, distance: str = "euclidean") -> Tensor:
    """Distances between all samples of a batch. [B, d] -> [B, B]. "unit" is Euclidean between states of length one."""
    if distance not in DISTANCES:
        raise KitError(f"no such distance: {distance!r}; there are {', '.join(DISTANCES)}.")
    x = unit(x) if distance == "unit" else x
    if distance == "squared":
        return (x.unsqueeze(0) - x.unsqueeze(1)).pow(2).sum(-1)
    # the direct sum: the faster matrix product is not exact, and would tell identical samples apart
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


def nearer(x: Tensor, of: Tensor, distance: str = "euclidean") -> Tensor:
    """d(i, k) - d(i, j) of every triplet: positive where j is the nearer. [B, d], [m, 3] -> [m]."""
    d, (i, j, k) = distances(x, distance), of.unbind(1)
    return d[i, k] - d[i, j]


def dissimilarity_votes(teachers: list[Tensor], of: Tensor, weights: Tensor | None = None,
                        distance: str = "euclidean") -> Tensor:
    """How the teachers vote on the order of every triplet: +1 for "j is nearer than k", -1 for k, 0 for equal. -> [m].

    teachers: T states [B, d_t] (widths may differ); of: triplets [m, 3]; weights [B, T]: a teacher's vote counts as much
    as the anchor follows it (absent: one each). The sum's sign is the order the student is asked for; 0 is a tie.
    """
    votes = torch.stack([nearer(x, of, distance).sign() for x in teachers], 1)               # [m, T]
    votes = (votes if weights is None else votes * weights[of[:, 0]]).sum(1)
    return torch.where(votes.abs() < 1e-6, 0.0, votes)                # six votes of 1/6 must tie too


def relative_dissimilarity(student: Tensor, of: Tensor, votes: Tensor, margin: float = 0.2,
                           distance: str = "euclidean") -> Tensor:
    """Hinge loss of the voted order on the student's distances: max(0, d(i, near) - d(i, far) + margin). [B, d] -> [B].

    Mean over the voted triplets anchored at a sample; ties are left out, and an anchor without any gives zero.
    """
    hinge = (margin - votes.sign() * nearer(student, of, distance)).clamp(min=0) * (votes != 0)
    total = student.new_zeros(len(student)).index_add(0, of[:, 0], hinge)
    count = student.new_zeros(len(student)).index_add(0, of[:, 0], (votes != 0).to(student.dtype))
    return total / count.clamp(min=1)


# --- Liu et al.: AMTML-KD ------------------------------------------------------------------------------------------------


def adaptive_weights(representation: Tensor, factors: Tensor, projection: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Per-sample weights of the teachers: softmax over t of v . (theta_t * h). [B, d], [T, d], [d] -> [B, T].

    representation: the student's state h of each sample; factors: one latent factor theta_t per teacher; projection: v,
    shared. allowed [B, T] bool: who may be followed at all; a row with nobody gives zeros.

    >>> adaptive_weights(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.5]]), torch.ones(2))
    tensor([[0.5000, 0.5000]])
    """
    scores = representation @ (factors * projection).T
    if allowed is None:
        return scores.softmax(-1)
    return scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-1) * allowed


def integrated_kd(student: Tensor, teachers: Tensor, weights: Tensor, temperature: float = 1.0,
                  t_squared: bool = False) -> Tensor:
    """KL divergence of the student from the weighted mean of the teachers' soft targets. [B, C], [B, T, C], [B, T] -> [B].

    Divergence and not cross-entropy: the target is learned too, and cross-entropy would also reward it for being certain.
    Its gradient reaches the weights. A sample that follows nobody gives zero.
    """
    target = losses.mean_probabilities(teachers, weights, temperature)
    target = target.clamp(min=torch.finfo(target.dtype).tiny)         # p log p has an infinite slope at 0
    loss = losses.soft_cross_entropy(student, target, temperature, t_squared, kl=True, probabilities=True)
    return torch.where(weights.sum(-1) > 0, loss, 0.0)


def angle_cosines(x: Tensor) -> Tensor:
    """Cosine of the angle at vertex v between the directions to i and to k, for all samples. [B, d] -> [B, B, B] (v, i, k)."""
    directions = unit(x.unsqueeze(0) - x.unsqueeze(1))                # [v, i, d]
    return directions @ directions.transpose(1, 2)


def angle_loss(student: Tensor, target: Tensor, delta: float = 1.0) -> Tensor:
    """Huber loss of cosines, mean over the pairs (i, k) seen from a vertex, all three distinct. [B, B, B] x 2 -> [B]."""
    n = len(student)
    same = torch.eye(n, dtype=torch.bool, device=student.device)
    distinct = ~(same.unsqueeze(0) | same.unsqueeze(1) | same.unsqueeze(2))
    loss = F.huber_loss(student, target, reduction="none", delta=delta) * distinct
    return loss.sum((1, 2)) / max(1, (n - 1) * (n - 2))


def angle(student: Tensor, teacher: Tensor, delta: float = 1.0) -> Tensor:
    """Structural loss of Liu et al. (after Park et al. 2019): angles of triplets of samples. [B, d], [B, d2] -> [B].

    Blind to position, scale and rotation of either side, so widths may differ. Quadratic up to delta, then linear.
    """
    return angle_loss(angle_cosines(student), angle_cosines(teacher), delta)


def hint_groups(student_layers: int, teachers: int) -> list[int]:
    """The guided student layer of every teacher: the last of its group, the layers being cut into equal groups.

    >>> hint_groups(6, 3), hint_groups(4, 3), hint_groups(1, 2)
    ([2, 4, 6], [1, 3, 4], [1, 1])
    """
    return [max(1, round((t + 1) * student_layers / teachers)) for t in range(teachers)]


def hint(guided: Tensor, teacher: Tensor, mask: Tensor, normalise: bool = True) -> Tensor:
    """FitNets' hint: squared error of the regressed student state, mean over real tokens and d. [B, L, d] x 2 -> [B].

    guided: the student's states, already through the learned regressor. normalise brings the teacher's states to unit
    length, as the authors do (and the student's before the regressor, which is the caller's part).
    """
    return losses.hidden_mse(guided, unit(teacher) if normalise else teacher, mask)
