"""`domain_expertise` (Hossain) as data: a fine-tuned student is distilled once more, and whom it follows is the question.

One stage, two terms, and only the selection of the second differs between the thesis's students:

    loss = alpha * cross-entropy(student, label) + (1 - alpha) * soft cross-entropy(student, teacher)          (3.5.1)

alpha sits on the hard loss (in RL-KD it sits on the other one); the thesis does not state it, 0.5 is this kit's default.
The stage starts from the student that was fine-tuned before: `distill(..., recipe, start=fine_tuned)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mtkd.errors import KitError
from mtkd.rules.experts import ClassMixture, Expertise, RandomTeacher
from mtkd.rules.selection import Confidence, Selection, Uniform
from mtkd.train.recipes import Independent, Optimisation, Recipe, Stage, Term


def student(name: str, selection: Selection, *, optimisation: Optimisation, alpha: float = 0.5, temperature: float = 1.0,
            combine: str = "logits") -> Recipe:
    """The thesis's loss with one selection; everything below is this."""
    if not 0 <= alpha <= 1:
        raise KitError(f"alpha, the weight of the loss on labels, is between 0 and 1; this one is {alpha}.")
    return Recipe(f"domain_expertise/{name}", (Stage("distil", (
        Term("cross_entropy", weight=alpha),
        Term("soft_cross_entropy", selection, combine=combine, weight=1 - alpha, temperature=temperature),
    ), optimisation),))


def expertise(*, several: str = "overall", none: str = "overall", ties: str = "random", fit_split: str = "validation",
              seed: int = 0, **loss) -> Recipe:
    """"Our approach" (4.5 to 4.7): the teacher that predicts the class it is the best at. See mtkd.rules.experts.Expertise."""
    rule = Expertise(several=several, none=none, ties=ties, fit_split=fit_split, seed=seed)
    return student("expertise", rule, **loss)


def average(**loss) -> Recipe:
    """The average of all teachers' logits (4.8), also experiment 1 on the span task (4.11.3)."""
    return student("average", Uniform(), **loss)


def random_teacher(*, per: str = "sample", **loss) -> Recipe:
    """The baseline (4.9): a teacher drawn for every sample, or (Table 5.1's footnote) for every step."""
    return student("random", RandomTeacher(per=per), **loss)


def camkd(*, combine: str = "losses", **loss) -> Recipe:
    """Experiment 2 (4.11.3): CA-MKD's confidence-weighted loss, w_k = (1 - softmax_k(CE)) / (K - 1), logits only.

    combine: "losses" as CA-MKD has it, one loss per teacher; "logits" weighs the teachers' logits into one target.
    """
    return student("camkd", Confidence(), combine=combine, **loss)


def mixture(*, how: str = "proportional", fit_split: str = "validation", **loss) -> Recipe:
    """The thesis's future work (6.2): "for class c, take a% from Teacher A and b% from Teacher B"."""
    return student("mixture", ClassMixture(how=how, fit_split=fit_split), **loss)


def with_teacher_loss(recipe: Recipe) -> Recipe:
    """Experiment 3 (4.11.3): the teachers' own loss on the labels added. A constant for the student: no gradient."""
    (stage,) = recipe.stages
    terms = (*stage.terms, Term("teacher_cross_entropy", Uniform()))
    return replace(recipe, name=f"{recipe.name}+teacher", stages=(replace(stage, terms=terms),))


def average_with_teacher_loss(**loss) -> Recipe:
    """Experiment 3 as the thesis has it: averaged logits, and the teachers' own loss."""
    return with_teacher_loss(average(**loss))


def controlled(recipe: Recipe, control: str) -> Recipe:
    """The same recipe after teachers without knowledge: "shuffled" (those of other samples) or "uniform"."""
    return replace(recipe, teachers=Independent(control))


METHODS: dict[str, Callable[..., Recipe]] = {
    "expertise": expertise, "average": average, "random": random_teacher, "camkd": camkd, "mixture": mixture,
    "average+teacher": average_with_teacher_loss,
}
