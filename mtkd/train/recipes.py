"""The papers as data: a recipe says which teachers, in which stages, matched by which terms, read how.

    recipe = a way to make the SET of teachers (independent | co-finetuned)
           + stages (data, initialisation, optimisation, heads reset or kept)
           + per stage a list of terms (loss, selection, combine)
           + a predictor (one model | the vote of its heads)

Print one, change it with `dataclasses.replace`, store it: it is plain frozen dataclasses all the way down. The recipes
of later papers are in mtkd/papers/*_study.py; those still to come are written in these words, and checked, in
tests/test_recipes.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mtkd.errors import KitError
from mtkd.rules.matching import term_spec
from mtkd.rules.registry import Term
from mtkd.rules.selection import Primary, Uniform

SOFT = ("heads", "one_head")  # the ways to combine that train soft heads, not the golden one


@dataclass(frozen=True)
class Optimisation:
    """How one stage is trained. lr per step after warm-up, where 0 means the one that fits the model (train/rates.py); warmup
    and decay as fractions of all steps."""

    epochs: int = 3
    batch_size: int = 32
    lr: float = 0.0
    optimiser: str = "adamw"        # adamw | sgd (momentum 0.9, Nesterov off)
    warmup: float = 0.1             # share of the steps over which lr rises from 0
    decay: str = "linear"           # linear (to 0) | constant | steps (x0.1 at 50% and 75%, He et al. 2016)
    weight_decay: float = 0.01      # not applied to biases and normalisation weights
    clip: float = 1.0               # largest gradient norm; 0 turns clipping off
    keep: str = "best"              # best (epoch on the validation split) | last
    patience: int = 0               # epochs without a better validation score before stopping; 0 = never
    freeze_embeddings: bool = False # pre-trained ones only; saves a large share of the time on small CPU runs


@dataclass(frozen=True)
class Stage:
    """A pass of training. `data` names a split ("train", "unlabelled") or "augmented"; `reset` names what of the student
    starts anew ("heads": the golden one and the soft ones, in the size of the task); `learns` says whether the student, the
    selection, or both in turn are updated."""

    name: str
    terms: tuple[Term, ...]
    optimisation: Optimisation = Optimisation()
    data: str = "train"
    reset: tuple[str, ...] = ()
    learns: str = "student"  # student | selection | alternate


@dataclass(frozen=True)
class Independent:
    """Teachers trained one by one. control: None | "shuffled" (outputs of other samples) | "uniform" (no knowledge)."""

    control: str | None = None


@dataclass(frozen=True)
class CoFinetuned:
    """Teachers trained together on one shared pooler and head (mt_bert); the artifact is keyed by the whole set."""

    pooler: str = "attentive"  # attentive | mean | cls
    query: int = 200           # size of the attention query
    control: str | None = None


@dataclass(frozen=True)
class Recipe:
    name: str
    stages: tuple[Stage, ...]
    teachers: Independent | CoFinetuned = Independent()
    predictor: str = "one_model"  # one_model (the golden head) | heads (Eq. 6 of tmkd) | soft_heads (without the golden one)

    def members(self, stage: Stage, n: int) -> tuple[int, ...]:
        """Teachers that the stage can follow, of n."""
        return tuple(sorted({i for t in stage.terms if t.selection for i in t.selection.members(n)}))


def stage_spec(stage: Stage, names: list[str]) -> dict:
    """JSON-able description of a stage for the store, teachers by name: two recipes whose stage follows the same
    teachers share its artifact, whatever positions or other teachers the recipes have."""
    return {**vars(stage), "optimisation": vars(stage.optimisation), "terms": [term_spec(t, names) for t in stage.terms]}


# --- seed_ensemble: Ilichev, Sorokin, Malykh, Piontkovskaya ------------------------------------------------------------


def tinybert(
    members: tuple[int, ...], primary: int, *, intermediate: Optimisation, prediction: Optimisation,
    temperature: float = 1.0, data: str = "augmented",
) -> Recipe:
    """TinyBERT's task-specific distillation with k teachers (paper, 3.2 and 3.5).

    Stage 1 (intermediate layers, Eq. 3-6) follows the primary alone; stage 2 (prediction layer, Eq. 9) the mean of all
    members' logits at t = 1. members and primary are positions in the list of teachers given to `distill`.
    """
    check_primary(members, primary)
    inner = Primary(primary)
    return Recipe(
        "seed_ensemble/tinybert",
        (
            Stage("intermediate", (Term("embedding_mse", inner), Term("hidden_mse", inner),
                                   Term("attention_mse", inner)), intermediate, data),
            Stage("prediction", (Term("soft_cross_entropy", Uniform(members), temperature=temperature),),
                  prediction, data),
        ),
    )


def tinybert_general(optimisation: Optimisation) -> Recipe:
    """TinyBERT's stage one, general distillation: Eq. 5 from the pre-trained encoder on unlabelled text (Jiao et al.).

    An option: the paper at hand starts from the published general models instead."""
    inner = Primary(0)
    return Recipe("seed_ensemble/tinybert_general", (
        Stage("general", (Term("embedding_mse", inner), Term("hidden_mse", inner), Term("attention_mse", inner)),
              replace(optimisation, keep="last"), "unlabelled"),))


DISTILBERT_TERMS = {"CE": "cross_entropy", "KD": "soft_cross_entropy", "cos": "cosine"}


def distilbert(
    members: tuple[int, ...], primary: int, *, optimisation: Optimisation, terms: str = "CE+KD+cos",
    temperature: float = 1.0, weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Recipe:
    """DistilBERT's task-specific distillation (Eq. 8): CE + KD on the mean of all members + cos to the primary.

    terms picks a subset ("CE", "KD", "CE+KD", "CE+cos", "KD+cos"), for claim S5.
    """
    check_primary(members, primary)
    wanted = terms.split("+")
    if unknown := [t for t in wanted if t not in DISTILBERT_TERMS]:
        raise KitError(f"no such loss term: {unknown[0]!r}; there are {', '.join(DISTILBERT_TERMS)}")
    every = {
        "CE": Term("cross_entropy", weight=weights[0]),
        "KD": Term("soft_cross_entropy", Uniform(members), weight=weights[1], temperature=temperature),
        "cos": Term("cosine", Primary(primary), weight=weights[2]),
    }
    return Recipe(f"seed_ensemble/distilbert[{terms}]",
                  (Stage("task", tuple(every[t] for t in every if t in wanted), optimisation),))


def resnet(members: tuple[int, ...], *, optimisation: Optimisation, lam: float = 1.0, temperature: float = 1.0) -> Recipe:
    """ResNet on images (3.4, 3.5): CE + lambda * KD on the mean of the members' logits; no primary, one stage."""
    return Recipe("seed_ensemble/resnet", (
        Stage("task", (Term("cross_entropy"),
                       Term("soft_cross_entropy", Uniform(members), weight=lam, temperature=temperature)),
              optimisation),))


def plain(optimisation: Optimisation, data: str = "train") -> Recipe:
    """No teacher at all: fine-tuning on the gold labels. Makes teachers, undistilled students and the CE control."""
    return Recipe("plain", (Stage("task", (Term("cross_entropy"),), optimisation, data),))


def check_primary(members: tuple[int, ...], primary: int) -> None:
    if primary not in members:
        raise KitError(f"the primary teacher {primary} is not one of the members {tuple(members)}")
