"""Plug-point 2, what to match: a recipe's terms as modules that the loop can call.

A loss (mtkd/rules/losses.py) is a pure function; a term says where its two sides come from and may own parameters (W_H, W_e).
Every class here is registered under the names of its losses, refuses in its constructor what cannot work, and answers
forward(student, teachers, batch, weights) with one value per sample (or token, in a span task). A reader's own function becomes
a `RuleTerm`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtkd.errors import KitError
from mtkd.models.networks import Outputs
from mtkd.rules import losses
from mtkd.rules.registry import Needs, Setting, TeacherBatch, Term, find, term
from mtkd.tokens.batches import Batch

COMBINES = ("logits", "probabilities", "losses", "heads", "one_head")


def layer_map(student_layers: int, teacher_layers: int) -> list[tuple[int, int]]:
    """The uniform map of the paper: student layer k learns from teacher layer g(k) = k * T / S, counted from 1.

    >>> layer_map(4, 12)
    [(1, 3), (2, 6), (3, 9), (4, 12)]
    """
    return [(k, round(k * teacher_layers / student_layers)) for k in range(1, student_layers + 1)]


@term("cross_entropy", losses.cross_entropy, sees="labels")
class GoldTerm(nn.Module):
    """Cross-entropy with the labels; squared error where the task is a regression. With heads: the sum over them, which is
    the loss of teachers that are fine-tuned together (mt_bert, section 2.1)."""

    def __init__(self, term: Term, setting: Setting, followed: tuple[int, ...] = ()):
        super().__init__()
        self.regression, self.heads = setting.regression, term.combine == "heads"
        if self.heads and not setting.heads:
            raise KitError(f"{term.loss} with combine='heads' needs a network with several heads.")

    def forward(self, student: Outputs, teachers: TeacherBatch | None, batch: Batch, weights: Tensor | None) -> Tensor:
        if self.heads:
            return losses.cofinetuning(student.heads, batch.labels)
        if self.regression:
            return losses.squared_error(student.logits, batch.labels.unsqueeze(-1))
        return losses.cross_entropy(student.logits, batch.labels)


@term("soft_cross_entropy", losses.soft_cross_entropy)
@term("logit_mse", losses.squared_error)
class LogitTerm(nn.Module):
    """Student logits (or heads) against teacher logits, combined over teachers as the term says."""

    def __init__(self, term: Term, setting: Setting, followed: tuple[int, ...]):
        super().__init__()
        self.term, self.combine, self.mse = term, term.combine, setting.regression or term.loss == "logit_mse"
        check_combine(term, setting)

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


def check_combine(term: Term, setting: Setting, ways: tuple[str, ...] = COMBINES) -> None:
    """KitError where the student has not the heads that a way to combine teachers is for."""
    if term.combine not in ways:
        raise KitError(f"no such way to combine teachers: {term.combine!r}; there are {', '.join(ways)}.")
    if term.combine == "heads" and setting.heads != len(setting.teachers):
        raise KitError(f"combine='heads' needs one student head per teacher: {setting.heads} heads, {len(setting.teachers)} "
                       "teachers.")
    if term.combine == "one_head" and setting.heads != 1:
        raise KitError("combine='one_head' needs a student with one soft head ('NAME + heads-1'): this one has "
                       f"{setting.heads}.")


@term("teacher_cross_entropy", losses.cross_entropy, head=False)
class TeacherTerm(nn.Module):
    """The teachers' own loss on the labels, for the value: no gradient can come of it, since they are finished models."""

    def __init__(self, term: Term, setting: Setting, followed: tuple[int, ...]):
        super().__init__()

    def forward(self, student: Outputs, teachers: TeacherBatch, batch: Batch, weights: Tensor) -> Tensor:
        return losses.cross_entropy(losses.mean_logits(teachers.logits, weights), batch.labels)


@term("embedding_mse", losses.hidden_mse, sees="hidden", head=False)
@term("hidden_mse", losses.hidden_mse, sees="hidden", head=False)
@term("attention_mse", losses.attention_mse, sees="attention", head=False)
@term("cosine", losses.cosine, sees="hidden", head=False)
@term("multi_hidden", losses.hidden_mse, sees="hidden", head=False)
class StateTerm(nn.Module):
    """Hidden states, embeddings or attention scores of the followed teachers, one loss per teacher, weighted.

    Projections are bias-free maps, by default on the student's side: one W_H for all layers, one W_e for the embedding.
    multi_hidden (mt_bert, Eq. 1) has them on the teacher's side, one W_ij per teacher and layer. Equal widths start from
    the identity (a student cut from its teacher is already in the teacher's space); the papers do not say.
    """

    def __init__(self, term: Term, setting: Setting, followed: tuple[int, ...]):
        super().__init__()
        self.loss, self.followed = term.loss, followed
        shapes = showing(term, setting, followed)
        if term.loss == "attention_mse" and len({s["heads"] for s in shapes}) > 1:
            raise KitError(f"{term.loss} needs equal numbers of attention heads; student and teachers have "
                           f"{[s['heads'] for s in shapes]}.")
        if any(s["layers"] < setting.student["layers"] for s in shapes):
            raise KitError(f"{term.loss}: the student has more layers than its teacher.")
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


def showing(term: Term, setting: Setting, followed: tuple[int, ...]) -> list[dict[str, int]]:
    """The shapes of the student and of the teachers it follows; KitError where one shows no layers."""
    shapes = [setting.student, *(setting.teachers[t] for t in followed)]
    if not all(shapes):
        raise KitError(f"{term.loss} matches layers, and one of these models shows none (a ResNet, a Bi-LSTM, "
                       "or a table of logits).")
    return shapes


class RuleTerm(nn.Module):
    """A function registered with @loss, f(student, teacher, batch, *, options) -> one value per sample.

    student, teacher: `Outputs`. With sees="logits" the teacher's logits [B, C] are all followed teachers' as the term combines
    them: "logits" (their weighted mean), "probabilities" (the log of the mean of probabilities, so that softmax gives it back)
    or "losses" (the function once per teacher, summed with the selection's weights). With sees="hidden" or "attention" the
    function is called once per teacher too and finds all layers of both sides, teacher.hidden[k] [B, L, d] (0: embeddings).
    """

    def __init__(self, term: Term, setting: Setting, followed: tuple[int, ...]):
        super().__init__()
        self.term, self.followed, self.rule = term, followed, find("loss", term.loss)
        self.rule.check(term.options)
        check_combine(term, setting, ("logits", "probabilities", "losses"))
        self.inner = self.rule.sees in ("hidden", "attention")
        if self.inner:
            showing(term, setting, followed)
            self.depths = {t: setting.teachers[t]["layers"] for t in followed}
        self.want = frozenset({self.rule.sees} if self.inner else ())

    def needs(self, t: int) -> Needs:
        if not self.inner:
            return Needs()
        first = 0 if self.rule.sees == "hidden" else 1
        return Needs(**{self.rule.sees: tuple(range(first, self.depths[t] + 1))})

    def value(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        how = {"temperature": self.term.temperature, "t_squared": self.term.t_squared, "kl": self.term.kl}
        found = self.rule.function(student, teacher, batch, **self.rule.given(**how), **self.term.options)
        if not isinstance(found, Tensor) or found.shape != student.logits.shape[:-1]:
            raise KitError(f"the loss {self.rule.name!r} gave {tuple(getattr(found, 'shape', ()))}, where one value per sample "
                           f"is wanted, {tuple(student.logits.shape[:-1])}: take no mean over the batch.")
        return found

    def forward(self, student: Outputs, teachers: TeacherBatch | None, batch: Batch, weights: Tensor | None) -> Tensor:
        if teachers is None or weights is None:
            return self.value(student, Outputs(torch.zeros_like(student.logits)), batch)
        z = teachers.logits
        if self.inner or self.term.combine == "losses":
            return sum(weights[..., t] * self.value(student, self.one(teachers, t), batch) for t in self.followed)
        said = losses.mean_logits(z, weights) if self.term.combine == "logits" else losses.mean_probabilities(
            z, weights, self.term.temperature).clamp(min=torch.finfo(z.dtype).tiny).log()
        return self.value(student, Outputs(said), batch) * (weights.sum(-1) > 0).to(z.dtype)

    def one(self, teachers: TeacherBatch, t: int) -> Outputs:
        """Teacher t alone, as the outputs of a network."""
        return Outputs(teachers.logits[..., t, :], teachers.hidden.get(t), teachers.attention.get(t))
