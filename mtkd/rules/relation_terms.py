"""The terms of mtkd/rules/relations.py on states: BERT-PKD (patience), You et al. (dissimilarity), Liu et al. (group_hint).

Each is a module like StateTerm of mtkd/rules/terms.py: what it needs of every followed teacher, what the student must show, its
own parameters, one value per sample. A term's options are named in its class with their defaults; another name is refused.
Teachers are followed and never trained: no gradient goes into what they said.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from mtkd.errors import KitError
from mtkd.models.networks import Outputs
from mtkd.rules import losses, relations
from mtkd.rules.registry import Needs, Setting, TeacherBatch, Term, find, term
from mtkd.rules.terms import linear_map
from mtkd.tokens.batches import Batch


def matched_layer(k: int, student_layers: int, teacher_layers: int) -> int:
    """Teacher layer at the depth of student layer k: g(k) = round(k * T / S), at least 1.

    >>> matched_layer(2, 4, 12), matched_layer(1, 4, 2)
    (6, 1)
    """
    return max(1, round(k * teacher_layers / student_layers))


def seen_tokens(teachers: TeacherBatch, t: int, mask: Tensor) -> Tensor:
    """Real tokens of the student that have a counterpart in teacher t. [B, L] bool."""
    seen = getattr(teachers, "seen", {}).get(t)
    return mask.bool() if seen is None else mask.bool() & seen.bool()


class RelationTerm(nn.Module):
    """What the terms here share: options with defaults, refusals, states by teacher and layer."""

    options: ClassVar[dict] = {}

    def __init__(self, term: Term, setting: Setting, followed: tuple[int, ...]):
        super().__init__()
        self.term, self.loss, self.followed = term, term.loss, tuple(followed)
        find("loss", term.loss).check(term.options)
        self.opt = {**self.options, **term.options}
        self.check("pool", relations.POOLS)
        self.want = frozenset({"hidden"}) if self.student_shows() else frozenset()
        shapes = [setting.student] if self.want else []
        shapes += [setting.teachers[t] for t in followed] if self.teachers_show() else []
        if not all(shapes):
            raise KitError(f"{term.loss} matches layers, and one of these models shows none (a ResNet, or a table of logits).")
        self.layers: dict[int, tuple[int, ...]] = dict.fromkeys(followed, ())
        self.cls = setting.student.get("cls", 0)  # aligned teachers have their [CLS] at the student's (mtkd/tokens/align.py)

    def student_shows(self) -> bool:
        """Whether the term reads hidden states of the student; asked once the options are set."""
        return True

    def teachers_show(self) -> bool:
        """Whether it reads those of the teachers. A table of logits has none."""
        return True

    def check(self, option: str, words: tuple[str, ...]) -> None:
        if option in self.opt and self.opt[option] not in words:
            raise KitError(f"{self.loss}: {option} is {self.opt[option]!r}; there are {', '.join(words)}.")

    def depth(self, setting: Setting, default: int) -> int:
        """The student layer of the option `layer`, from 1; the default where the option is None."""
        layer = default if self.opt["layer"] is None else self.opt["layer"]
        if not 1 <= layer <= setting.student["layers"]:
            raise KitError(f"{self.loss}: the student has layers 1 to {setting.student['layers']}, not {layer}.")
        return layer

    def needs(self, t: int) -> Needs:
        return Needs(hidden=tuple(sorted(set(self.layers[t]))))

    def student_state(self, student: Outputs, layer: int, batch: Batch) -> Tensor:
        return relations.sample_state(student.hidden[layer].float(), batch.mask.bool(), self.opt["pool"], self.cls)

    def teacher_state(self, teachers: TeacherBatch, t: int, layer: int, batch: Batch) -> Tensor:
        said = teachers.hidden[t][layer].detach().float()
        return relations.sample_state(said, seen_tokens(teachers, t, batch.mask), self.opt["pool"], self.cls)


@term("patience", relations.patience, sees="hidden", head=False)
class PatienceTerm(RelationTerm):
    """L_PT of BERT-PKD: unit-length [CLS] states of intermediate layers, a sum over teachers weighted by the selection.

    Options: how = "skip" (or "last"; see relations.patience_layers); pool = "cls" (the paper), "mean" or "max". Another
    width than the teacher's (not in the paper): a learned bias-free map on the student's side, one for all its layers. A
    [CLS] that has no counterpart in the teacher's tokens costs nothing.
    """

    options: ClassVar[dict] = {"how": "skip", "pool": "cls"}

    def __init__(self, term: Term, setting: Setting, followed: tuple[int, ...]):
        super().__init__(term, setting, followed)
        mine = setting.student
        self.pairs = {t: relations.patience_layers(mine["layers"], setting.teachers[t]["layers"], self.opt["how"])
                      for t in followed}
        self.layers = {t: tuple(j for _, j in pairs) for t, pairs in self.pairs.items()}
        self.maps = nn.ModuleDict({str(t): linear_map(mine["width"], setting.teachers[t]["width"]) for t in followed
                                   if setting.teachers[t]["width"] != mine["width"]})

    def forward(self, student: Outputs, teachers: TeacherBatch, batch: Batch, weights: Tensor) -> Tensor:
        total = student.logits.new_zeros(len(batch.rows))
        for t in self.followed:
            mine = torch.stack([self.student_state(student, i, batch) for i, _ in self.pairs[t]], 1)       # [B, K, d]
            said = torch.stack([self.teacher_state(teachers, t, j, batch) for _, j in self.pairs[t]], 1)
            mine = self.maps[str(t)](mine) if str(t) in self.maps else mine
            seen = seen_tokens(teachers, t, batch.mask)
            if self.opt["pool"] == "cls":                      # the student's [CLS] itself must have a counterpart
                seen = seen.gather(1, relations.cls_token(batch.mask, self.cls).unsqueeze(1))
            total = total + weights[:, t] * relations.patience(mine, said) * seen.any(1)
        return total


@term("dissimilarity", relations.relative_dissimilarity, sees="hidden", head=False)
class DissimilarityTerm(RelationTerm):
    """Relative dissimilarity of You et al.: the student keeps the order of distances that the teachers vote for.

    The abstract, which is all of the paper that was at hand, fixes the triplets of samples, the intermediate states and the
    vote. The hinge and these defaults are those of the reproduction in Liu et al.'s code: distance = "euclidean" (or
    "squared", "unit"), margin = 0.2, the middle of the network. This kit's own: triplets = 16384 per batch at most (all of
    them up to 32 samples; Liu et al. draw one per sample, and follow one teacher where the paper votes), seed = 0 of that
    draw, pool = "mean" over tokens, layer = None (the student's middle layer, against the teacher's at the same depth).
    The selection's weights only count votes: with Uniform, one teacher one vote.
    """

    options: ClassVar[dict] = {"margin": 0.2, "distance": "euclidean", "triplets": 16384, "seed": 0, "pool": "mean",
                               "layer": None}

    def __init__(self, term: Term, setting: Setting, followed: tuple[int, ...]):
        super().__init__(term, setting, followed)
        self.check("distance", relations.DISTANCES)
        deep = setting.student["layers"]
        self.layer = self.depth(setting, (deep + 1) // 2)
        self.layers = {t: (matched_layer(self.layer, deep, setting.teachers[t]["layers"]),) for t in followed}
        self.draws = 0

    def forward(self, student: Outputs, teachers: TeacherBatch, batch: Batch, weights: Tensor) -> Tensor:
        mine = self.student_state(student, self.layer, batch)
        of = relations.triplets(len(mine), self.opt["triplets"], self.opt["seed"] + self.draws).to(mine.device)
        self.draws += 1
        said = [self.teacher_state(teachers, t, self.layers[t][0], batch) for t in self.followed]
        votes = relations.dissimilarity_votes(said, of, weights[:, list(self.followed)], self.opt["distance"])
        return relations.relative_dissimilarity(mine, of, votes, self.opt["margin"], self.opt["distance"])


@term("group_hint", relations.hint, sees="hidden", head=False)
class HintTerm(RelationTerm):
    """Multi-group hints of Liu et al.: each teacher guides one group of student layers, through a learned regressor.

    The student's layers are cut into as many equal groups as teachers are followed; the last layer of group t, mapped
    bias-free to the teacher's width, is brought to a layer of teacher t, token by token. Options: of = "last" (the
    teacher's last layer, as in the authors' code) or "depth" (its layer at the depth of the guided one); normalise = True
    (unit-length states on both sides, as there; the value is then of the order of 1 / d, so give the term a weight).
    The sum over teachers is weighted by the selection; the authors' sum has weight 1 each (Everyone).
    """

    options: ClassVar[dict] = {"of": "last", "normalise": True}

    def __init__(self, term: Term, setting: Setting, followed: tuple[int, ...]):
        super().__init__(term, setting, followed)
        self.check("of", ("last", "depth"))
        deep, self.guided = setting.student["layers"], {}
        for t, layer in zip(followed, relations.hint_groups(setting.student["layers"], len(followed))):
            top = setting.teachers[t]["layers"]
            self.guided[t] = layer
            self.layers[t] = (top if self.opt["of"] == "last" else matched_layer(layer, deep, top),)
        self.maps = nn.ModuleDict({str(t): linear_map(setting.student["width"], setting.teachers[t]["width"])
                                   for t in followed})

    def forward(self, student: Outputs, teachers: TeacherBatch, batch: Batch, weights: Tensor) -> Tensor:
        total = student.logits.new_zeros(len(batch.rows))
        for t in self.followed:
            mine = student.hidden[self.guided[t]].float()
            mine = self.maps[str(t)](relations.unit(mine) if self.opt["normalise"] else mine)
            said = teachers.hidden[t][self.layers[t][0]].detach().float()
            seen = seen_tokens(teachers, t, batch.mask).to(mine.dtype)
            total = total + weights[:, t] * relations.hint(mine, said, seen, self.opt["normalise"])
        return total


@term("angle", relations.angle, sees="logits", head=False)
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


@term("adaptive_kd", relations.integrated_kd, sees="logits")
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
