"""Plug-point 2, what to match: a recipe's terms turned into modules that the loop can call.

A loss (mtkd/rules/losses.py) is a pure function; a term says where its two sides come from and may own parameters (W_H, W_e).
Crosses that cannot work are refused here, before any training, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtkd.errors import KitError
from mtkd.models.names import Outputs
from mtkd.rules import losses
from mtkd.tokens.batches import Batch
from mtkd.train.outputs import Needs, TeacherBatch
from mtkd.train.recipes import COMBINES, Stage, Term

GOLD = ("cross_entropy",)
LOGIT = ("soft_cross_entropy", "logit_mse", "teacher_cross_entropy", "adaptive_kd")
STATE = ("embedding_mse", "hidden_mse", "attention_mse", "cosine", "multi_hidden")
RELATION = ("patience", "dissimilarity", "angle", "group_hint")  # and adaptive_kd: relation_terms.py and adaptive_terms.py
LOSSES = GOLD + LOGIT + STATE + RELATION
HEAD = ("cross_entropy", "soft_cross_entropy", "logit_mse", "adaptive_kd")  # a stage with one of these trains the head


@dataclass(frozen=True)
class Setting:
    """What a term must fit: the student's and the teachers' shapes (empty dict: no layers to see), the task; heads: how many
    the student has besides its own logits (soft heads, or the members of a co-finetuned set)."""

    student: dict[str, int]
    teachers: list[dict[str, int]]
    regression: bool = False
    labelled: bool = True
    heads: int = 0


def layer_map(student_layers: int, teacher_layers: int) -> list[tuple[int, int]]:
    """The uniform map of the paper: student layer k learns from teacher layer g(k) = k * T / S, counted from 1.

    >>> layer_map(4, 12)
    [(1, 3), (2, 6), (3, 9), (4, 12)]
    """
    return [(k, round(k * teacher_layers / student_layers)) for k in range(1, student_layers + 1)]


class GoldTerm(nn.Module):
    """Cross-entropy with the labels; squared error where the task is a regression. With heads: the sum over them, which is
    the loss of teachers that are fine-tuned together (mt_bert, section 2.1)."""

    def __init__(self, regression: bool, heads: bool = False):
        super().__init__()
        self.regression, self.heads = regression, heads

    def forward(self, student: Outputs, teachers: TeacherBatch | None, batch: Batch, weights: Tensor | None) -> Tensor:
        if self.heads:
            return losses.cofinetuning(student.heads, batch.labels)
        if self.regression:
            return losses.squared_error(student.logits, batch.labels.unsqueeze(-1))
        return losses.cross_entropy(student.logits, batch.labels)


class LogitTerm(nn.Module):
    """Student logits (or heads) against teacher logits, combined over teachers as the term says."""

    def __init__(self, term: Term, combine: str, regression: bool):
        super().__init__()
        self.term, self.combine, self.mse = term, combine, regression or term.loss == "logit_mse"

    def pair(self, student: Tensor, target: Tensor, probabilities: bool = False) -> Tensor:
        if self.mse:
            return losses.squared_error(student, target)
        t = self.term
        return losses.soft_cross_entropy(student, target, t.temperature, t.t_squared, t.kl, probabilities)

    def forward(self, student: Outputs, teachers: TeacherBatch, batch: Batch, weights: Tensor) -> Tensor:
        z = teachers.logits                                                                # [B, T, C], span: [B, L, T, C]
        if z.dim() == 4 and teachers.seen:  # a token that a teacher has no counterpart of cannot be learned from it
            weights = weights * torch.stack([teachers.seen[t] for t in range(z.shape[-2])], -1)
        followed = (weights.sum(-1) > 0).to(z.dtype)                                       # nobody followed: no loss
        if self.combine == "logits":
            return self.pair(student.logits, losses.mean_logits(z, weights)) * followed
        if self.combine == "one_head":
            return self.pair(student.heads[..., 0, :], losses.mean_logits(z, weights)) * followed
        if self.combine == "probabilities":
            if self.mse:
                target = losses.mean_probabilities(z, weights)
                return losses.squared_error(student.logits.softmax(-1), target) * followed
            target = losses.mean_probabilities(z, weights, self.term.temperature)
            return self.pair(student.logits, target, probabilities=True) * followed
        own = student.heads if self.combine == "heads" else student.logits.unsqueeze(-2).expand_as(z)
        return (self.pair(own, z) * weights).sum(-1)                                       # [B, T] -> [B]


class TeacherTerm(nn.Module):
    """The teachers' own loss on the labels, for the value: no gradient can come of it, since they are finished models."""

    def forward(self, student: Outputs, teachers: TeacherBatch, batch: Batch, weights: Tensor) -> Tensor:
        return losses.cross_entropy(losses.mean_logits(teachers.logits, weights), batch.labels)


class StateTerm(nn.Module):
    """Hidden states, embeddings or attention scores of the followed teachers, one loss per teacher, weighted.

    Projections are bias-free maps, by default on the student's side: one W_H for all layers, one W_e for the embedding.
    multi_hidden (mt_bert, Eq. 1) has them on the teacher's side, one W_ij per teacher and layer. Equal widths start from
    the identity (a student cut from its teacher is already in the teacher's space); the papers do not say.
    """

    def __init__(self, term: Term, setting: Setting, followed: tuple[int, ...]):
        super().__init__()
        self.loss, self.followed = term.loss, followed
        self.pairs = {t: self.layers(term.loss, setting.student, setting.teachers[t]) for t in followed}
        self.maps, self.loss_of = nn.ModuleDict(), losses.cosine if self.loss == "cosine" else losses.hidden_mse
        if self.loss != "attention_mse":
            ds = setting.student["width"]
            for t in followed:
                dt = setting.teachers[t]["width"]
                if self.loss == "cosine" and ds == dt:
                    continue  # DistilBERT compares the states as they are
                if self.loss == "multi_hidden":
                    self.maps.update({f"{t}-{j}": linear_map(dt, ds) for _, j in self.pairs[t]})
                else:
                    self.maps[str(t)] = linear_map(ds, dt)

    @staticmethod
    def layers(loss: str, student: dict[str, int], teacher: dict[str, int]) -> list[tuple[int, int]]:
        if loss == "embedding_mse":
            return [(0, 0)]
        if loss == "cosine":
            return [(student["layers"], teacher["layers"])]
        return layer_map(student["layers"], teacher["layers"])

    @property
    def want(self) -> frozenset[str]:
        return frozenset({"attention" if self.loss == "attention_mse" else "hidden"})

    def needs(self, t: int) -> Needs:
        layers = tuple(j for _, j in self.pairs[t])
        return Needs(attention=layers) if self.loss == "attention_mse" else Needs(hidden=layers)

    def forward(self, student: Outputs, teachers: TeacherBatch, batch: Batch, weights: Tensor) -> Tensor:
        total = torch.zeros(len(batch.rows), device=weights.device)
        for t in self.followed:
            mask = batch.mask if t not in teachers.seen else batch.mask & teachers.seen[t]
            mask = mask.to(student.logits.dtype)
            for i, j in self.pairs[t]:
                if self.loss == "attention_mse":
                    one = losses.attention_mse(student.attention[i - 1], teachers.attention[t][j], mask)
                else:
                    mine, theirs = student.hidden[i], teachers.hidden[t][j]
                    if str(t) in self.maps:
                        mine = self.maps[str(t)](mine)
                    if f"{t}-{j}" in self.maps:
                        theirs = self.maps[f"{t}-{j}"](theirs)
                    one = self.loss_of(mine, theirs, mask)
                total = total + weights[:, t] * one
        return total


def linear_map(width_in: int, width_out: int) -> nn.Linear:
    """A learnable bias-free map that starts as the identity where it can."""
    linear = nn.Linear(width_in, width_out, bias=False)
    if width_in == width_out:
        nn.init.eye_(linear.weight)
    return linear


def prepare(term: Term, setting: Setting) -> nn.Module:
    """The module of one term, or a KitError that says why this term cannot work here."""
    n = len(setting.teachers)
    if term.loss not in LOSSES:
        raise KitError(f"no such loss: {term.loss!r}; there are {', '.join(LOSSES)}.")
    if term.loss in (*GOLD, "teacher_cross_entropy") and not setting.labelled:
        raise KitError(f"{term.loss} needs labels and this stage's data has none.")
    if term.loss in GOLD:
        if term.combine == "heads" and not setting.heads:
            raise KitError(f"{term.loss} with combine='heads' needs a network with several heads.")
        return GoldTerm(setting.regression, term.combine == "heads")
    if term.selection is None or n == 0:
        raise KitError(f"{term.loss} needs a teacher to follow: give the term a selection, and the stage teachers.")
    followed = term.selection.members(n)
    if term.loss == "teacher_cross_entropy":
        return TeacherTerm()
    if term.loss in (*RELATION, "adaptive_kd"):
        from mtkd.train import adaptive_terms, relation_terms

        return {**relation_terms.TERMS, **adaptive_terms.TERMS}[term.loss](term, setting, followed)
    if term.loss in LOGIT:
        if term.combine not in COMBINES:
            raise KitError(f"no such way to combine teachers: {term.combine!r}; there are {', '.join(COMBINES)}.")
        if term.combine == "heads" and setting.heads != n:
            raise KitError(f"combine='heads' needs one student head per teacher: {setting.heads} heads, {n} teachers.")
        if term.combine == "one_head" and setting.heads != 1:
            raise KitError(f"combine='one_head' needs a student with one soft head ('NAME + heads-1'): this one has "
                           f"{setting.heads}.")
        return LogitTerm(term, term.combine, setting.regression)
    shapes = [setting.student, *(setting.teachers[t] for t in followed)]
    if not all(shapes):
        raise KitError(f"{term.loss} matches layers, and one of these models shows none (a ResNet, a Bi-LSTM, "
                       "or a table of logits).")
    if term.loss == "attention_mse" and len({s["heads"] for s in shapes}) > 1:
        raise KitError(f"{term.loss} needs equal numbers of attention heads; student and teachers have "
                       f"{[s['heads'] for s in shapes]}.")
    if any(s["layers"] < setting.student["layers"] for s in shapes):
        raise KitError(f"{term.loss}: the student has more layers than its teacher.")
    return StateTerm(term, setting, followed)


def prepare_stage(stage: Stage, setting: Setting) -> tuple[nn.ModuleList, dict[int, Needs], frozenset[str]]:
    """All terms of a stage, what each teacher must show, and what the student must show."""
    modules = nn.ModuleList(prepare(t, setting) for t in stage.terms)
    own = [t for t in stage.terms if t.loss in LOGIT and t.combine == "heads"]
    followed = {i for t in own for i in t.selection.members(len(setting.teachers))}
    if own and len(followed) < len(setting.teachers):
        raise KitError(f"combine='heads' trains one head per teacher, and stage '{stage.name}' follows only {len(followed)} of "
                       f"{len(setting.teachers)}: hand over only the teachers that are followed.")
    needs: dict[int, Needs] = {}
    for module in modules:
        if hasattr(module, "needs"):
            for t in module.followed:
                old, new = needs.get(t, Needs()), module.needs(t)
                needs[t] = Needs(tuple(sorted({*old.hidden, *new.hidden})),
                                 tuple(sorted({*old.attention, *new.attention})))
    want = frozenset().union(*(m.want for m in modules if hasattr(m, "want")))
    return modules, {t: n for t, n in needs.items() if n != Needs()}, want
