"""The equations, as pure functions on tensors.

Every function returns one value *per unit* and no reduction over units: a unit is a sample for the sentence tasks of
this kit, or a token for span tasks. The loop weighs the units (a selection may follow teacher 1 on one sample and
teacher 2 on the next) and takes the mean over the batch, never over classes too. Shapes below use
B = batch, L = tokens, C = classes, T = teachers, d = hidden width, h = attention heads.

Equation numbers are those of Ilichev et al., "Multiple Teacher Distillation for Robust and Greener Models"
(`seed_ensemble`); the other papers' equations join them here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """L_CE of Eq. 1 and Eq. 8: cross-entropy against the gold labels. [..., C], [...] -> [...].

    Units labelled -1 (unlabelled text) give exactly zero.

    >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2])).item()   # uniform over 4 classes: ln 4
    1.3862943649291992
    """
    loss = F.cross_entropy(logits.movedim(-1, 1) if logits.dim() > 2 else logits, labels.clamp(min=0), reduction="none")
    return loss * (labels >= 0)


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error averaged over the last axis: regression (STS-B) and raw-logit matching. [..., C] -> [...]."""
    return (prediction - target).pow(2).mean(-1)


def soft_cross_entropy(
    student: Tensor, target: Tensor, temperature: float = 1.0, t_squared: bool = False, kl: bool = False,
    probabilities: bool = False,
) -> Tensor:
    """L_KD of Eq. 2: cross-entropy of the student's tempered distribution under the teacher's. [..., C] x 2 -> [...].

    -softmax(z_T / t) . log_softmax(z_S / t)

    t_squared multiplies by t**2 (Hinton et al. 2014, so that gradients keep their size; stated by none of the five
    papers, so off). kl subtracts the teacher's entropy: same gradient, but zero when student equals teacher.
    probabilities says that `target` already holds probabilities (combine="probabilities").

    >>> z = torch.tensor([[2.0, 0.0]])
    >>> round(soft_cross_entropy(z, z).item(), 4)                    # the entropy of (0.8808, 0.1192)
    0.3653
    >>> round(abs(soft_cross_entropy(z, z, kl=True).item()), 4)
    0.0
    """
    p = target if probabilities else F.softmax(target / temperature, dim=-1)
    loss = -(p * F.log_softmax(student / temperature, dim=-1)).sum(-1)
    if kl:
        loss = loss + torch.special.xlogy(p, p).sum(-1)
    return loss * temperature**2 if t_squared else loss


def mean_logits(teachers: Tensor, weights: Tensor | None = None) -> Tensor:
    """The averaged teacher of Eq. 9: weighted mean of logits over teachers. [B, T, C], [B, T] -> [B, C].

    Weights are normalised per unit; a unit that follows nobody gets zeros. Without weights every teacher counts 1/T.

    >>> mean_logits(torch.tensor([[[2.0, 0.0], [0.0, 4.0]]]))
    tensor([[1., 2.]])
    """
    if weights is None:
        return teachers.mean(-2)
    return (teachers * normalised(weights).unsqueeze(-1)).sum(-2)


def mean_probabilities(teachers: Tensor, weights: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """Weighted mean of the teachers' tempered probabilities. [B, T, C], [B, T] -> [B, C]. Not the same as Eq. 9."""
    return mean_logits(F.softmax(teachers / temperature, dim=-1), weights)


def normalised(weights: Tensor) -> Tensor:
    """Weights [.., T] divided by their sum over teachers; all-zero rows stay zero."""
    return weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def multi_teacher_kd(student: Tensor, teachers: Tensor, temperature: float = 1.0) -> Tensor:
    """L^k_KD of Eq. 9, read the right way round: soft cross-entropy against the mean of k teachers' logits.

    [B, C], [B, T, C] -> [B]. The paper prints the teacher and the student swapped (softmax of one z^T against the
    log-softmax of the averaged z^S_i); with Eq. 2 and the text, the averaged logits are the *target*.
    """
    return soft_cross_entropy(student, mean_logits(teachers), temperature)


def original_kd(ce: Tensor, kd: Tensor, lam: float = 1.0) -> Tensor:
    """L_OKD of Eq. 1: L_CE + lambda * L_KD. The paper leaves lambda unstated; 1 is this kit's default."""
    return ce + lam * kd


def hidden_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """First summand of Eq. 3, and Eq. 4 for the embedding layer: MSE of hidden states. [B, L, d] x 2, [B, L] -> [B].

    The student side comes already projected (H_S W_H, or E_S W_e). Mean over the real tokens of a sample and over d,
    so padding a batch differently changes nothing.
    """
    per_token = (student - teacher).pow(2).mean(-1)
    return (per_token * mask).sum(-1) / mask.sum(-1).clamp(min=1)


def attention_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Second summand of Eq. 3: (1/h) sum over heads of the MSE of attention matrices. [B, h, L, L] x 2, [B, L] -> [B].

    TinyBERT matches the scores *before* the softmax. Pairs with a padded token on either side count for nothing.
    """
    pairs = mask.unsqueeze(-1) * mask.unsqueeze(-2)                    # [B, L, L]
    per_pair = (student - teacher).pow(2).mean(1)                      # [B, L, L], mean over heads = (1/h) sum
    return (per_pair * pairs).sum((-2, -1)) / pairs.sum((-2, -1)).clamp(min=1)


def transformer_layer(hidden: Tensor, attention: Tensor) -> Tensor:
    """L_Transformer(k) of Eq. 3: hidden-state term plus attention term of one layer pair."""
    return hidden + attention


def tinybert_intermediate(embedding: Tensor, layers: list[Tensor]) -> Tensor:
    """L_tiny of Eq. 5 and 6: the embedding loss (k = 0) plus the Transformer losses of layers 1..M."""
    return embedding + torch.stack(layers).sum(0)


def cosine(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """L_cos of Eq. 7 and 8: 1 - cosine of the last layers' outputs, averaged over real tokens. [B, L, d] x 2 -> [B]."""
    distance = 1 - F.cosine_similarity(student, teacher, dim=-1)       # [B, L]
    return (distance * mask).sum(-1) / mask.sum(-1).clamp(min=1)


def masked_lm(logits: Tensor, labels: Tensor) -> Tensor:
    """L_MLM of Eq. 7: cross-entropy at the masked positions (others labelled -100). [B, L, V], [B, L] -> [B]."""
    per_token = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
    return per_token.sum(-1) / (labels != -100).sum(-1).clamp(min=1)


def distilbert(first: Tensor, kd: Tensor, cos: Tensor, weights: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Tensor:
    """Eq. 7 (first = L_MLM) and Eq. 8 (first = L_CE): first + L_KD + L_cos, with equal weights by default."""
    return weights[0] * first + weights[1] * kd + weights[2] * cos


# --- mt_bert: Wu, Wu, Huang, "One Teacher is Enough? Pre-trained Language Model Distillation from Multiple Teachers" ------


def cofinetuning(heads: Tensor, labels: Tensor) -> Tensor:
    """Section 2.1: sum_i CE(y, y_i) over the logits of N teachers. [B, N, C], [B] -> [B]

    >>> round(cofinetuning(torch.zeros(1, 3, 2), torch.tensor([1])).item(), 4)      # 3 ln 2
    2.0794
    """
    return cross_entropy(heads, labels.unsqueeze(-1).expand(heads.shape[:-1])).sum(-1)


def multi_teacher_hidden(student: list[Tensor], teachers: list[list[Tensor]], mask: Tensor) -> Tensor:
    """Eq. 1: sum over teachers i and student layers j of MSE(H_j^s, W_ij H_Tj^i). [B]

    student: per layer [B, L, d]; teachers: per teacher and student layer W_ij H_Tj^i, already mapped, [B, L, d]. The
    paper prints T as the upper limit of the inner sum; with its text it is K, the number of student layers.
    """
    return torch.stack([hidden_mse(mine, theirs, mask) for states in teachers for mine, theirs in zip(student, states)]).sum(0)


def multi_teacher_distillation(student: Tensor, teachers: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """Eq. 2: sum_i CE(y_i / t, y_s / t) / (1 + CE(y, y_i)). [B, C], [B, N, C], [B] -> [B]

    >>> z = torch.tensor([[[0.0, 0.0]]])                                            # one teacher that does not know
    >>> round(multi_teacher_distillation(torch.tensor([[0.0, 0.0]]), z, torch.tensor([0])).item(), 4)   # ln 2 / (1 + ln 2)
    0.4094
    """
    ce = cross_entropy(teachers, labels.unsqueeze(-1).expand(teachers.shape[:-1]))                     # [B, N]
    soft = soft_cross_entropy(student.unsqueeze(-2).expand_as(teachers), teachers, temperature)        # [B, N]
    return (soft / (1 + ce)).sum(-1)
