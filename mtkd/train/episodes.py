"""Stages that learn whom to follow: what the loop (mtkd.train.loop.fit) calls to train a selection beside the student.

    learns          the student                          the selection (RL-KD's policy)
    "selection"     fixed                                on every batch, paid at once (TS pre-training)
    "alternate"     "epoch": on every batch, following   after each epoch, batch by batch in the order they came, paid by
                    what was drawn, which is kept        the student as it then is (Algorithm 2's delayed reward)
                    "batch": batches 1, 3, 5, ..         batches 2, 4, 6, .., paid by the student as it is

The delayed rewards of an epoch cost one pass of the student over its data, without gradient and in eval mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from mtkd.data.tasks import Task
from mtkd.errors import KitError
from mtkd.models.networks import Outputs
from mtkd.rules import losses, rewards
from mtkd.rules.policy import Policy, entropy
from mtkd.rules.registry import TeacherBatch
from mtkd.store.artifacts import tensors_load
from mtkd.tokens.batches import Batch, TextData
from mtkd.train.outputs import LiveOutputs, evaluate_logits
from mtkd.train.prepare import Prepared
from mtkd.train.recipes import Stage, Term
from mtkd.train.representation import represent
from mtkd.train.teachers import Model, logits_of

LEARNS = ("student", "selection", "alternate")
TRACE = 200  # points of a stored curve at most


def check(stage: Stage, task: Task) -> Term | None:
    """The one term whose policy a stage trains, None where it trains the student alone; KitError where it cannot work."""
    if stage.learns not in LEARNS:
        raise KitError(f"stage '{stage.name}' learns '{stage.learns}'; there are {', '.join(LEARNS)}.")
    policies = [t for t in stage.terms if isinstance(t.selection, Policy)]
    if policies and (task.regression or task.kind not in ("text", "pair")):
        raise KitError(f"stage '{stage.name}' follows a policy, which sees teachers through their classes and the texts they "
                       f"read: the task {task.name} is none of classifying texts.")
    if stage.learns == "student":
        return None
    if len(policies) != 1:
        raise KitError(f"stage '{stage.name}' learns '{stage.learns}' and needs exactly one term with a Policy; it has "
                       f"{len(policies)}.")
    term = policies[0]
    if term.loss not in ("soft_cross_entropy", "logit_mse") or term.combine == "heads":
        raise KitError(f"a policy is paid by the distillation loss on the student's logits, and stage '{stage.name}' has it in "
                       f"{term.loss} with combine='{term.combine}'.")
    return term


@dataclass
class Curves:
    """What is written down per batch of the policy, and its means per epoch."""

    rows: list[dict] = field(default_factory=list)
    epochs: list[dict] = field(default_factory=list)
    begin: int = 0

    def end_epoch(self) -> None:
        rows, self.begin = self.rows[self.begin:], len(self.rows)
        found = {}
        for name in ("entropy", "selected", "empty", "reward", "dev_accuracy"):
            known = [r for r in rows if r[name] is not None]
            sizes = [r["samples"] for r in known]
            found[name] = np.average([r[name] for r in known], axis=0, weights=sizes).tolist() if known else None
        self.epochs.append(found)

    def summary(self) -> dict:
        """{"entropy": [..], "selected": [[..]], "empty": [..], "reward": [..], "dev_accuracy": [..]}, an entry per epoch (None:
        not measured), and under "trace" the same for single batches (at most 200 of them, evenly spread) with their number
        ("batch", counted from 1)."""
        found = {name: [e[name] for e in self.epochs] for name in self.epochs[0]} if self.epochs else {}
        some = np.unique(np.linspace(0, len(self.rows) - 1, min(TRACE, len(self.rows))).astype(int)) if self.rows else []
        trace = {name: [self.rows[i][name] for i in some] for name in found}
        return {**found, "trace": {"batch": [int(i) + 1 for i in some], **trace}}


def look(prepared: Prepared, teachers: Sequence[Model], policy: Policy, model: Model, split: str = "train",
         ) -> tuple[Tensor, Tensor]:
    """Whom a finished model's policy follows: states F(s) [n, D] and probabilities [n, K] on all samples of training data.

    policy, teachers: those the model was distilled with. Raises KitError for any other split, since a state holds the
    teachers' loss on the gold label, and where the model's folder holds no policy.
    """
    if split in ("validation", "test"):
        raise KitError(f"the policy's state reads gold labels: it is looked at on training data, not on the split '{split}'.")
    numbers = [n for n, spec in model.info.get("selections", {}).items() if spec["selection"] == "Policy"]
    if not numbers:
        raise KitError(f"the model {model.name} was distilled without a policy.")
    own = replace(policy, _learned={})
    own.load(tensors_load(model.folder / f"selection-{numbers[0]}.safetensors"))
    logits = torch.stack([logits_of(prepared, t, split) for t in teachers], dim=1)                # [n, T, C]
    said = TeacherBatch(logits, features=represent(prepared, policy.encoder, split))
    state = own.look(said, torch.from_numpy(prepared.data(split).labels))
    return state, own.probabilities(state)


class Learner:
    """Trains the policy of one stage. term, module: the policy's term and what rules.matching made of it; teachers: the outputs
    the loop reads; data, dev: the stage's samples and the validation split (reward 3)."""

    def __init__(self, stage: Stage, term: Term, module: nn.Module, teachers, data: TextData, dev: TextData,
                 device: torch.device):
        self.stage, self.module, self.data, self.dev, self.device = stage, module, data, dev, device
        self.policy: Policy = term.selection
        self.policy.forget_rewards()
        self.measures = "accuracy" in self.policy.paid  # reward 3: the student's accuracy on D'
        # inner states are not needed again for the delayed rewards: read the stored logits alone
        self.teachers = teachers.logits if isinstance(teachers, LiveOutputs) and teachers.logits is not None else teachers
        self.subset = rewards.dev_subset(len(dev), self.policy.dev_size)
        scaled = term.loss == "soft_cross_entropy" and term.t_squared and self.policy.reward_scale == "printed"
        self.unit = term.temperature**2 if scaled else 1.0  # the term's distillation loss over that of the rewards
        self.curves, self.history, self.accuracies = Curves(), [], []
        self.trained = 0  # student steps
        if not bool((data.labels >= 0).all()):
            raise KitError(f"stage '{stage.name}' trains a policy, whose state and reward read the gold label of every sample; "
                           "its data has samples without one.")

    # --- called by the loop ---

    def takes(self, step: int) -> bool:
        """Whether batch number `step` (from 0) trains the policy and not the student."""
        return self.stage.learns == "selection" or (self.policy.alternation == "batch" and step % 2 == 1)

    def learn(self, network: nn.Module, batch: Batch, said: TeacherBatch, rng: torch.Generator) -> None:
        """Draw actions for a batch, be paid at once, update. The student stays as it is."""
        state = self.policy.look(said, batch.labels)
        if self.stage.learns == "selection" and self.policy.pretrain_reward == "teachers":
            actions = self.draw(state, rng)
            reward = rewards.reward_of_teachers(self.policy.of_members(said.logits), actions, batch.labels)
            return self.improve(state, actions, reward, None)
        everyone = self.stage.learns == "selection"  # Algorithm 1, line 2: "with all teacher models selected"
        actions = torch.ones_like(self.policy.logit(state)) if everyone else self.draw(state, rng)
        mode = network.training
        network.eval()
        with torch.no_grad():
            logits = network(batch.inputs).logits.float()
        network.train(mode)
        if self.measures and not self.accuracies:
            self.measure(network)
        accuracy = self.accuracies[-1] if self.accuracies else None
        self.improve(state, actions, self.pay(logits, batch, said, actions, accuracy), accuracy)

    def remember(self, index: np.ndarray, weights: Tensor) -> None:
        """What was drawn for a batch of the student: the paper's history H."""
        if self.policy.alternation == "epoch":
            drawn = weights[:, list(self.policy.members(weights.shape[-1]))].to(torch.bool)
            self.history.append((index, drawn, len(self.accuracies)))  # the accuracy measured next is the one that counts

    def after_step(self, network: nn.Module) -> None:
        """After a step of the student: reward 3's accuracy, now and then."""
        self.trained += 1
        if self.measures and self.trained % self.policy.dev_every == 0:
            self.measure(network)

    def end_epoch(self, network: nn.Module) -> None:
        """The delayed rewards of the epoch, one update per batch, after one pass of the student over its data."""
        if self.history:
            if self.measures and self.history[-1][2] == len(self.accuracies):
                self.measure(network)
            logits = evaluate_logits(network, self.data, self.device)
            for index, actions, block in self.history:
                batch = self.data.batch(index).to(self.device)
                said = self.teachers.batch(batch)
                actions = actions.to(said.logits.dtype)
                accuracy = self.accuracies[block] if self.measures else None
                reward = self.pay(logits[index].to(self.device), batch, said, actions, accuracy)
                self.improve(self.policy.look(said, batch.labels), actions, reward, accuracy)
            self.history.clear()
        self.curves.end_epoch()

    def summary(self) -> dict:
        return self.curves.summary()

    # --- its parts ---

    def draw(self, state: Tensor, rng: torch.Generator) -> Tensor:
        return torch.bernoulli(self.policy.probabilities(state), generator=rng)

    def measure(self, network: nn.Module) -> None:
        self.accuracies.append(rewards.dev_accuracy(network, self.dev, self.subset, self.device))

    def pay(self, logits: Tensor, batch: Batch, said: TeacherBatch, actions: Tensor, accuracy: float | None) -> Tensor:
        """Eq. 7 for every sample, by the student's logits [B, C]; its distillation loss is the term's own, without the factor T
        squared that the term may have unless the policy's `reward_scale` keeps it."""
        rule, known = self.policy.rule, {"ce": losses.cross_entropy(logits, batch.labels), "accuracy": accuracy}
        if "dl" in self.policy.paid:
            with torch.no_grad():
                weights = self.policy.to_all(actions, said.logits.shape[-2])
                known["dl"] = self.module(Outputs(logits), said, batch, weights) / self.unit
        paid = rule.function(**rule.given(gamma=self.policy.gamma, **known) | rule.options)
        if paid.shape != known["ce"].shape:
            raise KitError(f"the reward {rule.name!r} gave {tuple(paid.shape)}, where one value per sample is wanted.")
        return paid

    def improve(self, state: Tensor, actions: Tensor, reward: Tensor, accuracy: float | None) -> None:
        """Write down what happened, then update."""
        some, reward = actions.sum(-1) > 0, reward.to(actions.device)
        self.curves.rows.append({
            "samples": len(reward), "entropy": float(entropy(self.policy.probabilities(state))),
            "selected": actions.float().mean(0).tolist(),
            "empty": 1 - float(some.float().mean()), "reward": float(reward[some].mean()) if some.any() else None,
            "dev_accuracy": accuracy})
        self.policy.update(state, actions, reward)
