"""What MT-BERT's study asks for, as data: what students learn by (recipes), and which students there are.

A row's words are those of mtkd/papers/mt_bert_scores.py. Every recipe follows all teachers of the list that it is used with;
`layered` names the positions of those that have layers to show (a table of logits has none), None meaning all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from types import SimpleNamespace

from mtkd.errors import KitError
from mtkd.papers.mt_bert_scores import ABLATIONS, BASELINES, POOLERS
from mtkd.rules.selection import Everyone, InverseLoss, Primary, Uniform
from mtkd.study import CONTROLS
from mtkd.study import Student as AnyStudent
from mtkd.train import recipes
from mtkd.train.answers import is_table
from mtkd.train.recipes import CoFinetuned, Optimisation, Recipe, Stage, Term

Positions = tuple[int, ...] | None
TOGETHER = CoFinetuned()


# --- recipes ---------------------------------------------------------------------------------------------------------------


def mt_bert(
    optimisation: Optimisation, *, task: float = 1.0, distillation: float = 1.0, hidden: float = 1.0,
    temperature: float = 1.0, weighting: bool = True, teachers: CoFinetuned = TOGETHER, layered: Positions = None,
) -> Recipe:
    """Eq. 3: the task loss, the weighted distillation loss (Eq. 2) and the hidden loss (Eq. 1), one stage.

    A weight of 0 leaves a loss out, with its parameters. weighting=False drops the denominator of Eq. 2, so that every
    teacher has weight 1 on every sample. Raises KitError where nothing is left to learn from.
    """
    terms = (
        Term("cross_entropy", weight=task),
        Term("soft_cross_entropy", InverseLoss() if weighting else Everyone(), combine="losses", weight=distillation,
             temperature=temperature),
        Term("multi_hidden", Everyone(layered), weight=hidden),
    )
    kept = tuple(term for term in terms if term.weight and not (term.loss == "multi_hidden" and layered == ()))
    if not any(term.loss != "multi_hidden" for term in kept):
        raise KitError("the student's pooler and dense layer learn from the task loss or the distillation loss; at least one "
                       "of them needs a weight above 0.")
    return Recipe("mt_bert", (Stage("distillation", kept, optimisation),), teachers)


def distilbert(optimisation: Optimisation, temperature: float = 1.0) -> Recipe:
    """DistilBERT's three losses from one teacher: CE + soft CE + cosine of the last states."""
    return replace(recipes.distilbert((0,), 0, optimisation=optimisation, temperature=temperature), name="mt_bert/distilbert")


def pkd(
    optimisation: Optimisation, *, pairs: int, width: int, how: str = "skip", alpha: float = 0.5, temperature: float = 10.0,
    beta: float = 100.0,
) -> Recipe:
    """BERT-PKD: (1 - alpha) CE + alpha KD at a high temperature + beta x patience over intermediate [CLS] states.

    Its grid is alpha in {0.2, 0.5, 0.7}, T in {5, 10, 20}, beta in {10, 100, 500, 1000}; the defaults are its middle. As
    in its authors' code KD is scaled by T squared (at T = 10 it would otherwise teach nothing), and beta belongs to the
    mean over layer pairs and widths, where mtkd.rules.relations.patience sums.
    """
    return Recipe("mt_bert/pkd", (Stage("task", (
        Term("cross_entropy", weight=1 - alpha),
        Term("soft_cross_entropy", Primary(0), weight=alpha, temperature=temperature, t_squared=True),
        Term("patience", Primary(0), weight=beta / (pairs * width), options={"how": how})), optimisation),))


def tinybert(intermediate: Optimisation, prediction: Optimisation, attention: bool = True) -> Recipe:
    """TinyBERT's two stages from one teacher; without attention where the teacher's family does not show its scores."""
    made = recipes.tinybert((0,), 0, intermediate=intermediate, prediction=prediction)
    first = made.stages[0]
    if not attention:
        first = replace(first, terms=tuple(term for term in first.terms if term.loss != "attention_mse"))
    return replace(made, name="mt_bert/tinybert", stages=(first, *made.stages[1:]))


def you_2017(optimisation: Optimisation, *, temperature: float = 1.0, layered: Positions = None) -> Recipe:
    """You et al.: CE + soft CE against the mean of the teachers' probabilities + relative dissimilarity by vote.

    The weights of the three are not in its abstract: 1 each.
    """
    terms = [Term("cross_entropy"), Term("soft_cross_entropy", Uniform(), combine="probabilities", temperature=temperature)]
    if layered != ():
        terms.append(Term("dissimilarity", Uniform(layered)))
    return Recipe("mt_bert/you_2017", (Stage("task", tuple(terms), optimisation),))


def liu_2020(optimisation: Optimisation, *, classes: int, width: int, temperature: float = 1.0,
             layered: Positions = None) -> Recipe:
    """Liu et al.: CE + KD under learned per-sample teacher weights + angles between samples + multi-group hints.

    With two classes there are no angles between outputs, so those of states are taken. Hints are of unit-length states,
    hence of the order of 1 / width: their weight is the width.
    """
    space = "outputs" if classes > 2 or layered == () else "states"
    angle = 0.0 if classes < 3 and layered == () else 1.0
    terms = [Term("cross_entropy"), Term("adaptive_kd", Everyone(), temperature=temperature, kl=True,
                                         options={"angle": angle, "space": space})]
    if layered != ():
        terms.append(Term("group_hint", Everyone(layered), weight=float(width)))
    return Recipe("mt_bert/liu_2020", (Stage("task", tuple(terms), optimisation),))


# --- which students --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Student(AnyStudent):
    """set_of: positions of the teachers that were fine-tuned with the members, together if `joint`; source: of the one whose
    lower layers and head it takes; fixed: the layers as they were before fine-tuning, whoever is in the set, and the head of
    a teacher that is in it."""

    depth: int = 0
    source: int = 0
    set_of: tuple[int, ...] = ()
    joint: bool = True
    pooler: str = ""
    fixed: bool = False


def students(p: SimpleNamespace) -> Iterator[Student]:
    """Every student of one replicate, section by section; student_depths[0] is the depth of all but the section "main".

    A combination without the teacher `student_from` takes the layers of its last one instead (combination_start "own"), so
    that its student owes nothing to a teacher that is no part of it; or all combinations take its layers as they were before
    fine-tuning ("fixed"), so that their students differ in nothing but their teachers. Three teachers make 7 combinations:

    >>> p = SimpleNamespace(teachers=("a", "b", "c"), student_from=-1, baseline_teacher=0, student_depths=(1,),
    ...                     sections=("combinations",), controls=True, combination_start="own")
    >>> [(s.members, s.source) for s in students(p)][:4]
    [((0,), 0), ((1,), 1), ((2,), 2), ((0, 1), 1)]
    """
    names, everyone = p.teachers, tuple(range(len(p.teachers)))
    source, own = p.student_from % len(names), p.baseline_teacher % len(names)
    full = Student("", "mt_bert", everyone, depth=p.student_depths[0], source=source, set_of=everyone)
    if "main" in p.sections:
        for depth in p.student_depths:
            here = replace(full, arm="main", depth=depth)
            yield here
            yield replace(here, method="plain", kind="undistilled", members=())
            for name in BASELINES:
                if not is_table(names[own]):  # a table has no layers to start from
                    yield replace(here, method=name, variant="own", members=(own,), source=own, set_of=(own,))
                yield replace(here, method=name, variant="same", members=(source,))
        for name in (*CONTROLS, "plain_ce") if p.controls else ():
            yield replace(full, arm="main", kind="control", variant=name)
    if "combinations" in p.sections:
        fixed = p.combination_start == "fixed"
        for members in (chosen for k in everyone for chosen in combinations(everyone, k + 1)):
            layered = [i for i in members if not is_table(names[i])]
            if fixed or layered:
                start = source if fixed or source in members else layered[-1]
                yield replace(full, arm="combinations", members=members, set_of=members, source=start, fixed=fixed)
    if "ablations" in p.sections:
        yield from (replace(full, arm="ablations", variant=name, joint=name != "no_cofinetuning") for name in ABLATIONS)
    if "ensembles" in p.sections:
        yield from (replace(full, arm="ensembles", method=name) for name in ("mt_bert", "you_2017", "liu_2020"))
    if "poolers" in p.sections:
        yield from (replace(full, arm="poolers", variant=name, pooler=name) for name in POOLERS)
