"""RL-KD and what it is compared with, as recipes: plain data for mtkd.train.distil.

Every distillation has the same two terms (Eq. 3) and differs in whom it follows. RL-KD is three stages, of which the first
is the student of U-Ensemble: the store makes it once for all rewards, and for the controls that go on from it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mtkd.errors import KitError
from mtkd.rules.ensembles import BestSingle, DevWeighted, LogisticWeighted
from mtkd.rules.experts import RandomTeacher
from mtkd.rules.policy import Policy
from mtkd.rules.selection import Primary, Selection, Uniform
from mtkd.train.recipes import Independent, Optimisation, Recipe, Stage, Term

FIXED = {"u": Uniform(), "w": DevWeighted(), "rand": RandomTeacher(per="step"), "lr_train": LogisticWeighted(fit_split="train"),
         "lr_dev": LogisticWeighted(fit_split="validation"), "best_single": BestSingle()}  # fmt: skip
READ = {"printed": {"gradient": "printed"}, "no_baseline": {"baseline": "none"}, "batch_credit": {"credit": "batch"},
        "batchwise": {"alternation": "batch"}, "student_reward": {"pretrain_reward": "student"},
        "loss_scale": {"reward_scale": "loss"}}  # what a reading changes of the policy  # fmt: skip


@dataclass(frozen=True)
class Loss:
    """Eq. 3's settings. t_squared scales the distillation loss by T squared, so that it weighs the same at every T."""

    alpha: float = 0.5
    temperature: float = 10.0
    t_squared: bool = True

    def __post_init__(self):
        if not 0 <= self.alpha <= 1:
            raise KitError(f"alpha is the distillation loss's share and lies between 0 and 1, not at {self.alpha:g}.")
        if not self.temperature > 0:
            raise KitError(f"the temperature must be above 0, and is {self.temperature:g}.")

    def terms(self, selection: Selection) -> tuple[Term, ...]:
        """Eq. 3: (1 - alpha) L_CE + alpha L_DL, the target being the mean probability of whom the selection follows."""
        return (Term("cross_entropy", weight=1 - self.alpha),
                Term("soft_cross_entropy", selection, combine="probabilities", weight=self.alpha,
                     temperature=self.temperature, t_squared=self.t_squared))


def vanilla(method: str, loss: Loss, optimisation: Optimisation, teacher: int = 0) -> Recipe:
    """KD from one teacher ("v_kd", by position) or from an ensemble with fixed weights ("u", "w", "rand", "lr_train",
    "lr_dev") or from the best teacher of each sample ("best_single")."""
    if method != "v_kd" and method not in FIXED:
        raise KitError(f"no such method: {method!r}; there are v_kd, {', '.join(FIXED)}.")
    selection = Primary(teacher) if method == "v_kd" else FIXED[method]
    return Recipe(f"rl_kd/{method}", (Stage("kd", loss.terms(selection), optimisation),))


def rl_kd(policy: Policy, loss: Loss, optimisation: Optimisation, policy_optimisation: Optimisation,
          rl_optimisation: Optimisation, control: str | None = None) -> Recipe:
    """Algorithm 1: the student learns from the average of all teachers; the policy learns, the student staying as it is; both
    learn in turn (Algorithm 2). control: None, "shuffled" or "uniform" teachers. Where they alternate batch by batch every
    other batch is the policy's: twice as many epochs then, so that the student learns from as many batches either way."""
    if policy.alternation == "batch":
        rl_optimisation = replace(rl_optimisation, epochs=2 * rl_optimisation.epochs)
    return Recipe("rl_kd", (
        Stage("kd", loss.terms(Uniform()), optimisation),
        Stage("policy", loss.terms(policy.trained_in("selection")), policy_optimisation, learns="selection"),
        Stage("alternate", loss.terms(policy.trained_in("alternate")), rl_optimisation, learns="alternate"),
    ), Independent(control))  # fmt: skip


def without_policy(first: str, second: Selection, loss: Loss, optimisation: Optimisation,
                   rl_optimisation: Optimisation, teacher: int = 0) -> Recipe:
    """RL-KD's first and last stage without what is between: as many epochs, and whom to follow decided as in `vanilla` in the
    first stage, by `second` in the other (the same again; or an untrained Policy: the toss of a coin)."""
    return Recipe("rl_kd/without_policy", (*vanilla(first, loss, optimisation, teacher).stages,
                                           Stage("alternate", loss.terms(second), rl_optimisation)))
