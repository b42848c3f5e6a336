"""The equations that are sums (1, 5, 8, 9) are written out in mtkd/rules/losses.py for the reader; the loop adds a
recipe's terms. Both must be the same number."""

import numpy as np
import torch

from mtkd.models.networks import Outputs
from mtkd.rules import losses
from mtkd.rules import matching as terms
from mtkd.tokens.batches import Batch
from mtkd.train import recipes
from mtkd.train.outputs import TeacherBatch
from mtkd.train.recipes import Optimisation

B, L, C, D, H = 3, 5, 4, 8, 2


def draw(*shape):
    return torch.randn(*shape)


def as_the_loop_adds(stage, student, teachers, batch) -> torch.Tensor:
    shape = {"width": D, "heads": H}
    setting = terms.Setting({"layers": 1, **shape}, [{"layers": 2, **shape}] * 2)
    modules, _, _ = terms.prepare_stage(stage, setting)
    total = torch.zeros(B)
    for term, module in zip(stage.terms, modules):
        weights = term.selection.weights(batch, teachers, 0, torch.Generator()) if term.selection else None
        total = total + term.weight * module(student, teachers, batch, weights)
    return total


def setting():
    torch.manual_seed(0)
    mask = torch.arange(L) < torch.tensor([[5], [3], [2]])
    batch = Batch(np.arange(B), {}, torch.tensor([0, 3, 1]), mask)
    student = Outputs(draw(B, C), (draw(B, L, D), draw(B, L, D)), (draw(B, H, L, L),))
    teachers = TeacherBatch(draw(B, 2, C), {1: {0: draw(B, L, D), 2: draw(B, L, D)}}, {1: {2: draw(B, H, L, L)}})
    return batch, student, teachers, mask.float()


def test_the_loop_adds_up_to_the_equations():
    batch, student, teachers, mask = setting()
    opt, kd = Optimisation(), losses.multi_teacher_kd(student.logits, teachers.logits)                       # Eq. 9
    ce = losses.cross_entropy(student.logits, batch.labels)
    cos = losses.cosine(student.hidden[1], teachers.hidden[1][2], mask)
    embedding = losses.hidden_mse(student.hidden[0], teachers.hidden[1][0], mask)                            # Eq. 4
    layer = losses.transformer_layer(losses.hidden_mse(student.hidden[1], teachers.hidden[1][2], mask),
                                     losses.attention_mse(student.attention[0], teachers.attention[1][2], mask))  # Eq. 3
    resnet = recipes.resnet((0, 1), optimisation=opt, lam=0.5).stages[0]
    distilbert = recipes.distilbert((0, 1), 1, optimisation=opt).stages[0]
    inner, prediction = recipes.tinybert((0, 1), 1, intermediate=opt, prediction=opt).stages
    for stage, equation in ((resnet, losses.original_kd(ce, kd, 0.5)), (distilbert, losses.distilbert(ce, kd, cos)),
                            (inner, losses.tinybert_intermediate(embedding, [layer])), (prediction, kd)):
        torch.testing.assert_close(as_the_loop_adds(stage, student, teachers, batch), equation)
