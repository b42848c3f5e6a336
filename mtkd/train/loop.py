"""The one loop. Teachers, students, every stage of every paper: all of them are trained here."""

from __future__ import annotations

import contextlib
import math
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mtkd.errors import KitError
from mtkd.tokens.batches import ImageData, TextData, plan
from mtkd.train.recipes import Optimisation, Stage

if TYPE_CHECKING:
    from mtkd.train.episodes import Learner

CHECK_EVERY = 50  # steps between looks at the loss on an accelerator, where each look waits for the device


def device_at_hand() -> torch.device:
    """MTKD_DEVICE if set, else CUDA where there is one, else the CPU."""
    return torch.device(os.environ.get("MTKD_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@dataclass
class History:
    """What happened: per-step loss of every term, validation score per epoch, the best epoch, steps and samples."""

    losses: dict[str, list[float]] = field(default_factory=dict)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = 0
    steps: int = 0
    samples: int = 0
    policy: dict = field(default_factory=dict)  # mtkd.train.episodes.Curves, where the stage learns a policy

    def summary(self) -> dict:
        """First and last loss (mean over the first and last tenth of the steps) per term; small enough to store."""
        part = max(1, self.steps // 10)
        ends = {k: [float(np.mean(v[:part])), float(np.mean(v[-part:]))] for k, v in self.losses.items() if v}
        return {"losses": ends, "validation": self.validation, "best_epoch": self.best_epoch, "steps": self.steps,
                "samples": self.samples, **({"policy": self.policy} if self.policy else {})}


def learning_rate(opt: Optimisation, step: int, total: int) -> float:
    """Learning rate of step 0..total-1: linear warm-up, then the decay.

    >>> opt = Optimisation(lr=1.0, warmup=0.5, decay="linear")
    >>> [round(learning_rate(opt, s, 4), 2) for s in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    warm = math.ceil(opt.warmup * total)
    if step < warm:
        return opt.lr * (step + 1) / warm
    if opt.decay == "constant":
        return opt.lr
    if opt.decay == "steps":
        return opt.lr * (0.1 if step >= 0.5 * total else 1.0) * (0.1 if step >= 0.75 * total else 1.0)
    if opt.decay == "linear":
        return opt.lr * (total - step) / max(1, total - warm)
    raise KitError(f"no such decay: {opt.decay!r}; there are linear, constant and steps.")


def make_optimiser(opt: Optimisation, *modules: nn.Module) -> torch.optim.Optimizer:
    named = [(n, p) for m in modules for n, p in m.named_parameters() if p.requires_grad]
    groups = [{"params": [p for _, p in named if p.dim() > 1], "weight_decay": opt.weight_decay},
              {"params": [p for _, p in named if p.dim() <= 1], "weight_decay": 0.0}]
    groups = [g for g in groups if g["params"]]
    if opt.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=opt.lr, fused=True)
    if opt.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=opt.lr, momentum=0.9, fused=True)
    raise KitError(f"no such optimiser: {opt.optimiser!r}; there are adamw and sgd.")


def autocast(device: torch.device):
    """bfloat16 where the accelerator computes in it, float16 where it does not, nothing on the CPU."""
    if device.type != "cuda":
        return contextlib.nullcontext(), None
    bf16 = torch.cuda.is_bf16_supported()
    return (torch.autocast("cuda", torch.bfloat16 if bf16 else torch.float16),
            None if bf16 else torch.amp.GradScaler("cuda"))


def fit(
    network: nn.Module, data: TextData | ImageData, stage: Stage, modules: nn.ModuleList, teachers=None, *,
    want: frozenset[str] = frozenset(), seed: int, device: torch.device, validate: Callable[[nn.Module], float] | None = None,
    label: str = "", learner: Learner | None = None,
) -> History:
    """Train `network` in place on one stage and leave it in eval mode with the weights that `keep` asks for.

    modules: one per term of the stage (mtkd.rules.matching.prepare_stage); teachers: StoredOutputs or LiveOutputs, or None;
    want: inner states the student must show; validate(network) -> score, larger is better, called after each epoch;
    learner: trains the stage's policy, where the stage learns one (mtkd/train/episodes.py).
    Raises KitError at a loss that is not a number, with the step.
    """
    if (learner is None) != (stage.learns == "student"):
        raise KitError(f"stage '{stage.name}' learns '{stage.learns}': a learner is for the stages that train a policy.")
    opt = stage.optimisation
    if opt.lr <= 0:
        raise KitError(f"the learning rate of stage '{stage.name}' is {opt.lr:g}, and the loop needs one above 0; train.rates "
                       "has one that fits a model by name.")
    seed_everything(seed)
    rng, policy_rng = np.random.default_rng(seed), torch.Generator(device).manual_seed(seed)
    network.to(device)
    modules.to(device)
    if opt.freeze_embeddings and hasattr(network, "freeze_embeddings"):
        network.freeze_embeddings()
    optimiser = make_optimiser(opt, network, modules)
    trained = [p for g in optimiser.param_groups for p in g["params"]]
    cast, scaler = autocast(device)
    total = opt.epochs * math.ceil(len(data) / opt.batch_size)
    names = term_names(stage)
    history, traces, best = History(), {name: [] for name in names}, None
    bar = tqdm(total=total, desc=label or stage.name, leave=False, disable=os.environ.get("MTKD_PROGRESS") == "0",
               mininterval=0.5)
    for epoch in range(opt.epochs):
        network.train()
        for index in plan(data, opt.batch_size, rng):
            batch = data.batch(index, epoch).to(device)
            said = None if teachers is None else teachers.batch(batch)
            if learner is not None and learner.takes(history.steps):
                learner.learn(network, batch, said, policy_rng)
                history.steps += 1
                history.samples += len(index)
                bar.update()
                continue
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(opt, history.steps, total)
            with cast:
                out = network(batch.inputs, want)
            out.logits = out.logits.float()
            out.heads = None if out.heads is None else out.heads.float()
            loss = torch.zeros((), device=device)
            for name, term, module in zip(names, stage.terms, modules):
                weights = None
                if term.selection is not None:
                    weights = term.selection.weights(batch, said, history.steps, policy_rng)
                units = module(out, said, batch, weights)
                mean = batch_mean(units, batch.unit_mask)
                loss = loss + term.weight * mean
                traces[name].append(mean.detach())
                if learner is not None and term.selection is learner.policy:
                    learner.remember(index, weights)
            step(loss, optimiser, trained, opt.clip, scaler)
            if learner is not None:
                learner.after_step(network)
            history.steps += 1
            history.samples += len(index)
            if device.type == "cpu" or history.steps % CHECK_EVERY == 0:
                check_finite(traces, history.steps, stage.name, 1 if device.type == "cpu" else CHECK_EVERY)
            if history.steps % CHECK_EVERY == 0:
                settle(traces, history)
            bar.update()
        check_finite(traces, history.steps, stage.name, CHECK_EVERY)
        settle(traces, history)
        if learner is not None:
            learner.end_epoch(network)
        if validate is not None and (epoch == 0 or stage.learns != "selection"):  # a fixed student is validated once
            history.validation.append(float(validate(network)))
            if history.validation[-1] > max(history.validation[:-1], default=-math.inf):
                history.best_epoch = epoch
                if opt.keep == "best" and epoch < opt.epochs - 1:
                    best = {k: v.detach().to("cpu", copy=True) for k, v in network.state_dict().items()}
            bar.set_postfix(validation=f"{history.validation[-1]:.3f}")
            if opt.patience and epoch - history.best_epoch >= opt.patience:
                break
    bar.close()
    if best is not None and history.best_epoch < len(history.validation) - 1:
        network.load_state_dict(best)
    network.eval()
    if learner is not None:
        history.policy = learner.summary()
    return history


def settle(traces: dict[str, list[Tensor]], history: History) -> None:
    """Move losses from tensors to plain numbers, a hundredth of their size: a big pool has many steps."""
    for name, values in traces.items():
        if values:
            history.losses.setdefault(name, []).extend(torch.stack(values).float().cpu().tolist())
            values.clear()


def batch_mean(units: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over units: samples [B], or the tokens of [B, L] that the mask keeps."""
    return units.mean() if units.dim() == 1 else (units * mask).sum() / mask.sum().clamp(min=1)


def step(loss: Tensor, optimiser: torch.optim.Optimizer, trained: list[Tensor], clip: float, scaler) -> None:
    optimiser.zero_grad(set_to_none=True)
    if scaler is not None:
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
    else:
        loss.backward()
    if clip:
        nn.utils.clip_grad_norm_(trained, clip)
    if scaler is not None:
        scaler.step(optimiser)
        scaler.update()
    else:
        optimiser.step()


def term_names(stage: Stage) -> list[str]:
    """A name per term for the history: the loss, numbered where a stage uses the same loss twice."""
    losses = [t.loss for t in stage.terms]
    return [n if losses.count(n) == 1 else f"{n}#{losses[:i].count(n)}" for i, n in enumerate(losses)]


def check_finite(traces: dict[str, list[Tensor]], steps: int, stage: str, last: int) -> None:
    """Look at the last few losses; KitError at the first that is not a number, with its step (counted from 1)."""
    for name, values in traces.items():
        recent = values[-last:]
        if recent and not (good := torch.isfinite(torch.stack(recent))).all():
            at = steps - len(recent) + int((~good).nonzero()[0]) + 1
            raise KitError(f"the loss '{name}' of stage '{stage}' is not a number at step {at}: try a lower learning "
                           "rate (lr), a longer warm-up, or look for broken rows in the data.")
