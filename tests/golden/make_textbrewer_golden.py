"""Makes textbrewer_multiteacher.json: the loss TextBrewer's own MultiTeacherDistiller computes on fixed logits.

The tests read the JSON and never run this file. TextBrewer is no dependency of the kit; to make the JSON again, put it
in a folder of its own and run this script with that folder on the path:

    pip install --no-deps --target build/textbrewer textbrewer==0.2.1.post1
    PYTHONPATH=build/textbrewer python tests/golden/make_textbrewer_golden.py

What is computed: `MultiTeacherDistiller.train_on_batch` on one batch, whose student and teachers are stubs returning
the logits below. In version 0.2.1.post1 that is the mean of the teachers' *logits*, then `kd_ce_loss`: soft
cross-entropy at temperature t on both sides, summed over classes, mean over the batch, without a factor t squared
(TextBrewer has no setting for one; `kd_loss_weight` is 1 here). Arithmetic is float64, so that the stored losses are
good to 1e-12 and a test may ask for 1e-6 of a float32 implementation.
"""

import json
import sys
import types
import warnings
from pathlib import Path

import torch
from torch import nn

# TextBrewer imports a summary writer at module level and uses it only when a log folder is given, which is not so here.
sys.modules.setdefault("tensorboardX", types.SimpleNamespace(SummaryWriter=None))
warnings.filterwarnings("ignore", category=SyntaxWarning)  # its `is not 'none'`

import textbrewer  # noqa: E402

STUDENT = [[1.2, -0.4, 0.3], [0.0, 0.0, 0.0], [-2.0, 3.5, 0.1], [0.7, 0.6, -4.0]]  # [4 samples, 3 classes]
TEACHERS = [  # [3 teachers, 4 samples, 3 classes]; the teachers disagree, so mean of logits and of probabilities differ
    [[3.0, -1.0, 0.5], [0.2, -0.1, 1.4], [-1.0, 4.0, 0.0], [2.5, 0.5, -3.0]],
    [[-2.0, 2.5, 1.0], [4.0, -3.0, 0.0], [0.5, 2.0, -6.0], [-1.5, 1.0, 0.25]],
    [[0.1, 0.2, 0.3], [-5.0, 5.0, 1.0], [-3.0, 1.0, 2.0], [6.0, -6.0, 0.0]],
]
TEMPERATURES = (1, 4)


class Stub(nn.Module):
    """A model whose output is one fixed table of logits, whatever the input."""

    def __init__(self, logits: list[list[float]]):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float64))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.logits[rows]


def adaptor(batch, output):
    """Tells TextBrewer which part of a model's output are the logits."""
    return {"logits": output}


def textbrewer_loss(temperature: float) -> float:
    settings = textbrewer.DistillationConfig(
        temperature=temperature, kd_loss_type="ce", kd_loss_weight=1, hard_label_weight=0, probability_shift=False
    )
    distiller = textbrewer.MultiTeacherDistiller(
        textbrewer.TrainingConfig(log_dir=None, output_dir=str(Path(__file__).parent), device="cpu"),
        settings, [Stub(logits) for logits in TEACHERS], Stub(STUDENT), adaptor, adaptor,
    )  # fmt: skip
    with distiller:  # as its train() does: teachers in eval mode, student in train mode
        total, parts = distiller.train_on_batch((torch.arange(len(STUDENT)),), {})
    assert torch.equal(total, parts["unweighted_kd_loss"])  # the loss is the distillation term alone
    return total.item()


def main() -> None:
    golden = {
        "textbrewer": textbrewer.__version__,
        "torch": torch.__version__.split("+")[0],
        "settings": {"kd_loss_type": "ce", "kd_loss_weight": 1, "hard_label_weight": 0, "probability_shift": False,
                     "temperature_squared": False, "average": "logits", "dtype": "float64"},
        "cases": [
            {"temperature": temperature, "student": STUDENT, "teachers": TEACHERS, "loss": textbrewer_loss(temperature)}
            for temperature in TEMPERATURES
        ],
    }  # fmt: skip
    target = Path(__file__).with_name("textbrewer_multiteacher.json")
    target.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
    print(target.name, [case["loss"] for case in golden["cases"]])


if __name__ == "__main__":
    main()
