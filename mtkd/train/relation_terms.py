"""The terms of mtkd/rules/relations.py on states: BERT-PKD (patience), You et al. (dissimilarity), Liu et al. (group_hint).

Each is a module like StateTerm of mtkd/train/terms.py: what it needs of every followed teacher, what the student must show, its
own parameters, one value per sample. A term's options are named in its class with their defaults; another name is refused.
Teachers are followed and never trained: no gradient goes into what they said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from mtkd.errors import KitError
from mtkd.rules import relations
from mtkd.train.outputs import Needs, TeacherBatch

if TYPE_CHECKING:
    from mtkd.models.names import Outputs
    from mtkd.tokens.batches import Batch
    from mtkd.train.recipes import Term
    from mtkd.train.terms import Setting


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


def regressor(student: int, teacher: int) -> nn.Linear:
    """A learned bias-free map from the student's width to the teacher's; the identity to begin with where they agree."""
    linear = nn.Linear(student, teacher, bias=False)
    if student == teacher:
        nn.init.eye_(linear.weight)
    return linear


class RelationTerm(nn.Module):
    """What the terms here share: options with defaults, refusals, states by teacher and layer."""

    options: ClassVar[dict] = {}

    def __init__(self, term: Term, setting: Setting, followed: tuple[int, ...]):
        super().__init__()
        self.term, self.loss, self.followed = term, term.loss, tuple(followed)
        if unknown := sorted(set(term.options) - set(self.options)):
            there = f"there are {', '.join(self.options)}" if self.options else "there are none"
            raise KitError(f"{term.loss} has no option {unknown[0]!r}; {there}.")
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
        self.maps = nn.ModuleDict({str(t): regressor(mine["width"], setting.teachers[t]["width"]) for t in followed
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
        self.maps = nn.ModuleDict({str(t): regressor(setting.student["width"], setting.teachers[t]["width"])
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


TERMS = {"patience": PatienceTerm, "dissimilarity": DissimilarityTerm, "group_hint": HintTerm}
