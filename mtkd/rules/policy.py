"""RL-KD's policy: one logistic agent per teacher decides, sample by sample, whether that teacher is followed.

Yuan et al., "Reinforced Multi-Teacher Selection for Knowledge Distillation" (`rl_kd`). First the equations as pure functions
(n samples, K teachers, C classes, D = d + (C + 1) K numbers in a state), then the selection that carries what was learned.
When it acts and when it learns is decided by the loop (mtkd/train/episodes.py); what it is paid is in mtkd/rules/rewards.py.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mtkd.errors import KitError
from mtkd.rules.experts import one_of
from mtkd.rules.registry import Rule, find
from mtkd.rules.selection import Chosen, selection, teacher_losses

GRADIENTS, BASELINES, CREDITS = ("log", "printed"), ("moving_average", "none"), ("sample", "batch")
PRETRAIN, ALTERNATIONS, EMPTY = ("teachers", "student"), ("epoch", "batch"), ("conditional", "masked")
SCALES = ("printed", "loss")
MEMORY = 0.9  # of the moving average


# --- the equations -------------------------------------------------------------------------------------------------------


def observe(features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """F(s) of the section State: R(x), then the probabilities of all teachers (Eq. 4), then their cross-entropies (Eq. 5).

    features [n, d], logits [n, K, C], labels [n] of the *training* data -> [n, d + C K + K].

    >>> observe(torch.zeros(1, 2), torch.zeros(1, 2, 2), torch.tensor([0]))
    tensor([[0.0000, 0.0000, 0.5000, 0.5000, 0.5000, 0.5000, 0.6931, 0.6931]])
    """
    return torch.cat([features, logits.softmax(-1).flatten(1), teacher_losses(logits, labels)], dim=1)


def choice(state: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Eq. 6: sigma(A F(s) + b), the probability that each teacher is selected. [n, D], A [K, D], b [K] -> [n, K]"""
    return (state @ a.T + b).sigmoid()


def score(logit: Tensor, actions: Tensor, gradient: str = "log", empty: str = "conditional") -> Tensor:
    """The factor of Eq. 8 that says which way the agents' logits A F(s) + b go for one unit of reward. [n, K] x 2 -> [n, K]

    gradient "log": d log pi(a) / d logit = a - p, the policy gradient of Williams (1992), which the paper cites. "printed":
    d pi(a) / d logit = (2 a - 1) p (1 - p), what Eq. 8 prints, which is not the slope of the expected reward.
    empty (with "log" only): samples that follow nobody are left out of the update, always. "conditional" then takes the
    policy for what it is, a choice among the selections that follow somebody, pi(a) / (1 - pi(nobody)), and the score is
    a - p / (1 - pi(nobody)). "masked" changes nothing else, and its expected update is that of a game in which following
    nobody pays as much as the baseline: on samples that are harder than others whatever the teachers say, nobody is what it
    learns to follow, also with a moving average (tests/test_policy.py).

    >>> score(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), empty="masked")
    tensor([[ 0.5000, -0.5000]])
    >>> score(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))       # of three selections, each teacher is in two
    tensor([[ 0.3333, -0.6667]])
    >>> score(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), "printed")
    tensor([[ 0.2500, -0.2500]])
    """
    p = logit.sigmoid()
    some = (actions.sum(-1, keepdim=True) > 0).to(p.dtype)
    if gradient == "printed":
        return (2 * actions - 1) * p * (1 - p) * some
    if empty == "conditional":
        somebody = -torch.expm1(logsigmoid(-logit).sum(-1, keepdim=True))                        # 1 - prod (1 - p)
        p = (p / somebody.clamp(min=torch.finfo(p.dtype).tiny)).clamp(max=1)
    return (actions - p) * some


def entropy(p: Tensor) -> Tensor:
    """Of the agents' coins, in nats: ln 2 = 0.693 where every teacher is as likely in as out. [n, K] -> one number"""
    return -(torch.special.xlogy(p, p) + torch.special.xlog1py(1 - p, -p)).mean()


# --- the selection -------------------------------------------------------------------------------------------------------


@selection
@dataclass(frozen=True)
class Policy(Chosen):
    """A learned selection: action 1 or 0 per teacher and sample, drawn from Eq. 6 with the loop's generator.

    Use it with combine="probabilities": the target is then the mean of the selected teachers' probabilities (Algorithm 2),
    and where nobody is selected the term is 0 and the gold label alone teaches. A stage that learns "student" only draws
    from it (untrained: every teacher with probability 1/2); "selection" and "alternate" also train it.

    encoder         R(x): "lsa-64", or a pre-trained model by name; the paper: [CLS] of BERT-Base, not fine-tuned
    lr              beta of Eq. 8, unstated; the update is a mean over the samples of a batch, Eq. 8 prints a sum. 1.0 is for a
                    few hundred updates of a standardised state: noise adds up with the root of their number, and after
                    ten thousand makes a policy certain of nothing but noise; 0.1 to 0.05 for that many and more
    gradient        "log" (the policy gradient the text cites) or "printed" (Eq. 8 as it stands), see `score`
    baseline        "moving_average": rewards count from a running mean of the rewards before; "none" is what is printed:
                    rewards 1 and 2 are all negative, so whatever was drawn is drawn less often, and with empty="masked" (the
                    printed form) the policy drifts to nobody at once
    credit          "sample": each sample's own reward ("this instance will not receive any reward"); "batch": their mean for
                    all of a batch, which is the paper's episode
    reward, gamma   Eq. 7: 1, 2 or 3, or a reward of your own (mtkd/rules/registry.py), itself or by name; gamma weighs the
                    training part of reward 3 (the paper tries 0.3, 0.5, 0.7, 0.9)
    reward_scale    "printed": rewards 2 and 3 have the distillation loss as Eq. 1 prints it; "loss": as the student's loss has
                    it, times T squared where the term says so: whom it is near to then counts for far more than accuracy
    dev_size, dev_every   reward 3's accuracy is taken on this many validation samples, the same in every run, after every
                    dev_every batches (and at the end of an epoch), and counts for the batches since. The paper does not say
    pretrain_reward how learns="selection" pays: "teachers": -CE of the mean of the selected teachers (text), or "student":
                    Eq. 7 of the fixed student "with all teacher models selected" (Algorithm 1), where every action is 1
    alternation     "epoch": Algorithm 2, KD on all batches of an epoch, then the policy on all of them; "batch": KD on one
                    batch, the policy on the next ("Iterative Training")
    standardise     numbers of the state to mean 0 and variance 1 over the training data, each of the three features
                    divided by the root of its width, so that 768 numbers do not drown K. False: as they are; not stated
    empty           "conditional" or "masked", see `score`; the paper says only that an empty selection gets no reward

    State: A [K, D] and b [K], start at 0; mean and scale [D]; baseline. Teachers go in the order of `of`.
    """

    needs = frozenset({"logits", "features"})
    fit_split = "train"  # not a field: the state is standardised on what the policy learns from, never on test data

    encoder: str = "lsa-64"
    lr: float = 1.0
    gradient: str = "log"
    baseline: str = "moving_average"
    credit: str = "sample"
    reward: int | str | Rule = 1
    gamma: float = 0.5
    reward_scale: str = "printed"
    dev_size: int = 200
    dev_every: int = 10
    pretrain_reward: str = "teachers"
    alternation: str = "epoch"
    standardise: bool = True
    empty: str = "conditional"
    _learned: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False, kw_only=True)

    def __post_init__(self):
        for name, allowed in (("gradient", GRADIENTS), ("baseline", BASELINES), ("credit", CREDITS), ("empty", EMPTY),
                              ("pretrain_reward", PRETRAIN), ("alternation", ALTERNATIONS), ("reward_scale", SCALES)):
            one_of(getattr(self, name), allowed, name)
        if isinstance(self.reward, int) and self.reward not in (1, 2, 3):
            raise KitError(f"there is no reward {self.reward}; there are 1, 2 and 3.")
        if odd := set(self.paid) - {"ce", "dl", "accuracy", "gamma"} - set(self.rule.known):
            raise KitError(f"the reward {self.rule.name!r} asks for {sorted(odd)[0]!r}; it can have ce, dl and accuracy.")
        if min(self.dev_size, self.dev_every) < 1 or not 0 <= self.gamma <= 1 or not self.lr > 0:
            raise KitError("a policy needs dev_size and dev_every of at least 1, lr above 0, and gamma between 0 and 1.")

    @property
    def rule(self) -> Rule:
        """The reward, registered."""
        return self.reward if isinstance(self.reward, Rule) else find(
            "reward", f"reward_{self.reward}" if isinstance(self.reward, int) else self.reward)

    @property
    def paid(self) -> tuple[str, ...]:
        """What the reward is made of: some of ce, dl, accuracy, and the names of its options."""
        return tuple(inspect.signature(self.rule.function).parameters)

    def spec(self, names):
        return super().spec(names) | ({"reward": self.rule.spec()} if self.rule.own else {})

    def trained_in(self, learns: str) -> Policy:
        """This policy with the defaults for what has no part in how a stage that learns `learns` pays and trains it, so that
        stages that do the same are one in the store: gamma and the development set are reward 3's, the scale is that of
        rewards 2 and 3, and a policy that is paid by the teachers it selects, or not at all, is paid by none of the three.

        >>> Policy(gamma=0.9).trained_in("alternate") == Policy(), Policy(reward=3).trained_in("selection") == Policy()
        (True, True)
        """
        idle = set() if learns == "alternate" else {"alternation"}
        if "accuracy" not in self.paid:
            idle |= {"gamma", "dev_size", "dev_every"}
        if "dl" not in self.paid:
            idle |= {"reward_scale"}
        if learns == "student" or (learns == "selection" and self.pretrain_reward == "teachers"):
            idle |= {"reward", "gamma", "dev_size", "dev_every", "reward_scale"}
        return replace(self, **{name: getattr(type(self), name) for name in idle})

    def fit(self, teachers, labels):
        """Start at 0 with the statistics of the training states, unless an earlier stage's policy has been taken over."""
        if not self._learned:
            state = self.look(teachers, labels)
            k, d = len(self.members(teachers.logits.shape[-2])), teachers.features.shape[1]
            mean, scale = torch.zeros_like(state[0]), torch.ones_like(state[0])
            if self.standardise:
                parts = (d, state.shape[1] - d - k, k)
                width = torch.tensor([w for w in parts for _ in range(w)], device=state.device)
                spread = state.std(0, correction=0)
                mean, scale = state.mean(0), torch.where(spread > 1e-6, spread, 1.0) * width.sqrt()
            self._learned.update(A=state.new_zeros(k, state.shape[1]), b=state.new_zeros(k), mean=mean, scale=scale,
                                 baseline=state.new_full((), torch.nan))

    def look(self, teachers, labels: Tensor) -> Tensor:
        """F(s) of what a batch's (or a split's) teachers say, as it is. -> [n, D]. KitError where it cannot be made."""
        if teachers.logits.dim() != 3 or teachers.features is None:
            raise KitError("the policy chooses teachers per sample, by the sample's representation, and finds none here.")
        return observe(teachers.features, self.of_members(teachers.logits), labels)

    def logit(self, state: Tensor) -> Tensor:
        """A F(s) + b, the state standardised. [n, D] -> [n, K]"""
        if not self._learned:
            raise KitError("the policy has not looked at the teachers yet: call fit with their outputs and the labels.")
        own = {k: v.to(state.device) for k, v in self._learned.items()}
        return (state - own["mean"]) / own["scale"] @ own["A"].T + own["b"]

    def probabilities(self, state: Tensor) -> Tensor:
        """Eq. 6 on states as `look` makes them: who would be selected how probably. [n, D] -> [n, K]"""
        return self.logit(state).sigmoid()

    def weights(self, batch, teachers, step, rng):
        p = self.probabilities(self.look(teachers, batch.labels))
        return self.to_all(torch.bernoulli(p, generator=rng), teachers.logits.shape[-2])

    def update(self, state, actions, reward):
        """One step of Eq. 8. States [B, D], actions of the members [B, K], reward per sample [B]."""
        some = actions.sum(-1) > 0
        if not some.any():
            return
        mean = reward[some].mean()
        if self.credit == "batch":
            reward = mean.expand_as(reward)
        if self.baseline == "moving_average":
            before = self._learned["baseline"].to(mean)
            before = torch.where(before.isnan(), mean, before)  # the first batch counts from its own mean
            self._learned["baseline"] = MEMORY * before + (1 - MEMORY) * mean
            reward = reward - before
        slope = score(self.logit(state), actions, self.gradient, self.empty) * reward.unsqueeze(-1) / len(reward)    # [B, K]
        own = {k: v.to(state.device) for k, v in self._learned.items()}
        self._learned["A"] = own["A"] + self.lr * slope.T @ ((state - own["mean"]) / own["scale"])
        self._learned["b"] = own["b"] + self.lr * slope.sum(0)

    def state(self):
        return {k: v.cpu().contiguous() for k, v in self._learned.items()}

    def load(self, state):
        self._learned.update(state)

    def forget_rewards(self) -> None:
        """Begin the running mean of rewards anew, at the start of a stage: it pays in another currency than the one before,
        and against the old mean all that is done in its first batches would look like a great loss, or a great gain."""
        self._learned["baseline"] = torch.full((), torch.nan)
