"""The two terms of Liu et al. on what teachers and student put out: weights learned per sample, and angles between samples.

They extend RelationTerm (mtkd/train/relation_terms.py), which says what all these terms share.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from mtkd.errors import KitError
from mtkd.rules import losses, relations
from mtkd.train.outputs import TeacherBatch
from mtkd.train.relation_terms import RelationTerm, matched_layer

if TYPE_CHECKING:
    from mtkd.models.names import Outputs
    from mtkd.tokens.batches import Batch
    from mtkd.train.recipes import Term
    from mtkd.train.terms import Setting


class AngleTerm(RelationTerm):
    """Angle-based structural loss of Liu et al.: the student against the integrated teachers.

    Options: space = "outputs" (the authors' code: tempered probabilities against the mean soft targets; at least three
    classes, since points on a line have no angles) or "states" (pooled hidden states of `layer`, None = the last, against
    the weighted mean of the teachers' cosines at the same depth); delta = 1.0 of the Huber loss; pool = "mean". Weights are
    normalised per sample. Unlike their code, both sides are probabilities (theirs sets log-probabilities against
    probabilities), and pairs of a sample with itself do not count.
    """

    options: ClassVar[dict] = {"space": "outputs", "delta": 1.0, "pool": "mean", "layer": None}

    def student_shows(self) -> bool:
        return self.opt["space"] == "states"

    teachers_show = student_shows

    def __init__(self, term: Term, setting: Setting, followed: tuple[int, ...]):
        super().__init__(term, setting, followed)
        self.check("space", ("outputs", "states"))
        if self.opt["space"] == "states":
            deep = setting.student["layers"]
            self.layer = self.depth(setting, deep)
            self.layers = {t: (matched_layer(self.layer, deep, setting.teachers[t]["layers"]),) for t in followed}
        elif setting.regression:
            raise KitError(f"{term.loss} compares angles of class probabilities, and a regression has none: set the option "
                           "space to 'states'.")

    def forward(self, student: Outputs, teachers: TeacherBatch, batch: Batch, weights: Tensor) -> Tensor:
        shares = losses.normalised(weights)
        if self.opt["space"] == "outputs":
            refuse_tokens(self.loss, teachers.logits)
            if student.logits.shape[-1] < 3:
                raise KitError(f"{self.loss} compares angles of class probabilities, and two classes lie on one line: set "
                               "the option space to 'states'.")
            heat = self.term.temperature
            target = losses.mean_probabilities(teachers.logits.detach(), shares, heat)
            value = relations.angle((student.logits.float() / heat).softmax(-1), target, self.opt["delta"])
        else:
            mine = relations.angle_cosines(self.student_state(student, self.layer, batch))
            target = sum(shares[:, t, None, None]
                         * relations.angle_cosines(self.teacher_state(teachers, t, self.layers[t][0], batch))
                         for t in self.followed)
            value = relations.angle_loss(mine, target, self.opt["delta"])
        return value * (weights.sum(-1) > 0)


class AdaptiveKDTerm(RelationTerm):
    """Adaptive soft targets of Liu et al.: KL from the mean of soft targets under learned per-sample teacher weights.

    softmax over t of v . (theta_t * h) with the student's own last state h; theta_t and v are learned along with the
    student, by the same loss. The selection only says who may be followed (a weight above 0). Options: pool = "mean" of
    the tokens (the authors pool their last feature map); init_std = 1.0 of the factors theta_t, v being drawn with
    1 / sqrt(d) (theirs are both 1, which at the widths of text models starts, and at their small learning rates stays, at
    one teacher per sample); l2 = 0.0, the weight of |theta|^2 + |v|^2 (theirs: 0.1, at a learning rate of 0.1); angle =
    0.0, the weight of the structural loss (see AngleTerm for space, delta, layer) against the teachers integrated with
    these same weights. The paper's whole L_KD + L_angle is angle = 1.0. The term's `kl` is always on. Teachers may be
    tables of logits, unless angle looks at states.
    """

    options: ClassVar[dict] = {"pool": "mean", "init_std": 1.0, "l2": 0.0, "angle": 0.0, "space": "outputs", "delta": 1.0,
                               "layer": None}

    def teachers_show(self) -> bool:
        return bool(self.opt["angle"]) and self.opt["space"] == "states"

    def __init__(self, term: Term, setting: Setting, followed: tuple[int, ...]):
        super().__init__(term, setting, followed)
        width = setting.student["width"]
        self.regression = setting.regression
        self.factors = nn.Parameter(torch.randn(len(followed), width) * self.opt["init_std"])
        self.projection = nn.Parameter(torch.randn(width) / width**0.5)
        self.angle = None
        if self.opt["angle"]:
            own = {k: v for k, v in self.opt.items() if k in AngleTerm.options}
            self.angle = AngleTerm(replace(term, options=own), setting, followed)
            self.layers = self.angle.layers

    def shares(self, student: Outputs, batch: Batch, weights: Tensor) -> Tensor:
        """The learned weights of all teachers; those not followed get zero. [B, T]."""
        chosen = list(self.followed)
        state = self.student_state(student, len(student.hidden) - 1, batch)
        own = relations.adaptive_weights(state, self.factors, self.projection, weights[:, chosen] > 0)
        return torch.zeros_like(weights, dtype=own.dtype).index_copy(1, torch.tensor(chosen, device=own.device), own)

    def forward(self, student: Outputs, teachers: TeacherBatch, batch: Batch, weights: Tensor) -> Tensor:
        refuse_tokens(self.loss, teachers.logits)
        shares, said = self.shares(student, batch, weights), teachers.logits.detach()
        if self.regression:
            total = losses.squared_error(student.logits, losses.mean_logits(said, shares)) * (weights.sum(-1) > 0)
        else:
            total = relations.integrated_kd(student.logits, said, shares, self.term.temperature, self.term.t_squared)
        if self.angle is not None:
            total = total + self.opt["angle"] * self.angle(student, teachers, batch, shares)
        if self.opt["l2"]:
            total = total + self.opt["l2"] * (self.factors.pow(2).sum() + self.projection.pow(2).sum())
        return total


def refuse_tokens(loss: str, logits: Tensor) -> None:
    """KitError for token units: these losses weigh and compare whole samples."""
    if logits.dim() != 3:
        raise KitError(f"{loss} weighs whole samples, and this task's teachers answer token by token.")


TERMS = {"angle": AngleTerm, "adaptive_kd": AdaptiveKDTerm}
