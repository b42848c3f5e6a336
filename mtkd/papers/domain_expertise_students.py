"""What the thesis's studies ask for, as data: what students learn by (recipes), and which students there are.

Two arms. "classes": teachers of different families on a task of several classes (5.1 to 5.4). "span": two teachers of
different tokenisers on a token task (NBME, 5.6), two students.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace

from mtkd.errors import KitError
from mtkd.papers.domain_expertise import CLASSES, SPAN
from mtkd.rules import experts
from mtkd.rules.experts import ClassMixture, Expertise, RandomTeacher
from mtkd.rules.selection import Confidence, Selection, Uniform
from mtkd.study import CONTROLS
from mtkd.study import Student as AnyStudent
from mtkd.train.recipes import Optimisation, Recipe, Stage, Term

STUDENTS = {CLASSES: ("expertise", "average", "random"), SPAN: ("average", "camkd", "average+teacher")}
OTHER_STUDENTS = {CLASSES: ("camkd", "mixture"), SPAN: ()}
SWITCHES = {  # a parameter: its values, the method that it belongs to, what another value is called
    "several": (experts.SEVERAL, "expertise", "several experts: {}"), "none": (experts.NONE, "expertise", "no expert: {}"),
    "fit_split": (experts.SPLITS, "expertise", "fit on {}"), "random_per": (experts.PER, "random", "one draw per {}"),
}


# --- recipes ---------------------------------------------------------------------------------------------------------------


def student(name: str, selection: Selection, *, optimisation: Optimisation, alpha: float = 0.5, temperature: float = 1.0,
            combine: str = "logits") -> Recipe:
    """The thesis's loss with one selection; everything below is this. One stage, two terms:

        loss = alpha * cross-entropy(student, label) + (1 - alpha) * soft cross-entropy(student, teacher)          (3.5.1)

    alpha sits on the hard loss (in RL-KD it sits on the other one); the thesis does not state it, 0.5 is this kit's default.
    The stage starts from the student that was fine-tuned before: `distill(..., recipe, start=fine_tuned)`.
    """
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


def average_with_teacher_loss(**loss) -> Recipe:
    """Experiment 3 (4.11.3): averaged logits, and the teachers' own loss on the labels added. A constant for the student: no
    gradient."""
    made = average(**loss)
    (stage,) = made.stages
    terms = (*stage.terms, Term("teacher_cross_entropy", Uniform()))
    return replace(made, name=f"{made.name}+teacher", stages=(replace(stage, terms=terms),))


METHODS: dict[str, Callable[..., Recipe]] = {
    "expertise": expertise, "average": average, "random": random_teacher, "camkd": camkd, "mixture": mixture,
    "average+teacher": average_with_teacher_loss,
}


# --- which students --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Student(AnyStudent):
    """start: "plain", or "tuned" on a related task before; changes: what its variant changes of the run's parameters."""

    start: str = "plain"
    changes: tuple[tuple[str, str | float], ...] = ()


def students(p: SimpleNamespace) -> Iterator[Student]:
    """Every student of one replicate: from each start the fine-tuned one, then what is distilled from it, in the order of the
    notebook. The controls "shuffled" and "uniform" follow teachers without knowledge.

    With fewer than three teachers several experts are all there are, the best of them is the best overall, and the other
    reading of `several` would train the same student again: it is left out.

    >>> p = SimpleNamespace(arm="classes", teachers=("a", "b"), tuned_student="", sections=("variants",), temperatures=(1.0,),
    ...                     several="overall", none="overall", fit_split="validation", random_per="sample")
    >>> [s.variant for s in students(p)]
    ['', 'no expert: average', 'fit on test', 'one draw per step']
    """
    main = STUDENTS[p.arm]
    for start in ("plain", "tuned") if p.tuned_student else ("plain",):
        yield Student(p.arm, kind="undistilled", start=start)
        one = Student(p.arm, members=tuple(range(len(p.teachers))), start=start)
        if "methods" in p.sections:
            yield from (replace(one, method=method) for method in main)
        if "others" in p.sections:
            yield from (replace(one, method=method) for method in OTHER_STUDENTS[p.arm])
        if "temperature" in p.sections:
            yield from (replace(one, method=method, variant=f"temperature {t:g}", changes=(("temperature", t),))
                        for method in main[:2] for t in p.temperatures[1:])
        for name, (values, method, words) in SWITCHES.items() if "variants" in p.sections and p.arm == CLASSES else ():
            other = next(value for value in values if value != getattr(p, name))
            if name != "several" or len(p.teachers) > 2:
                yield replace(one, method=method, variant=words.format(other), changes=((name, other),))
        for name in ("plain_ce", *CONTROLS) if "controls" in p.sections and start == "plain" else ():
            yield replace(one, method=main[0], variant=name, kind="control")
