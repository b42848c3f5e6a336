"""Teachers of different families fine-tuned together on one shared pooler and dense layer (mt_bert, section 2.1).

The loss is the sum of the teachers' cross-entropies, sum_i CE(y, y_i). What comes out is ONE artifact for the whole set:
its encoders in plain transformers layout, the shared head once, and every teacher's logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from mtkd.errors import KitError
from mtkd.measure.meter import Meter
from mtkd.models import names as models
from mtkd.models.pooling import JointNetwork, bare
from mtkd.rules import matching
from mtkd.rules.registry import Setting
from mtkd.store.artifacts import tensors_save
from mtkd.tokens.batches import JointData
from mtkd.train import loop as train
from mtkd.train import outputs, rates
from mtkd.train.distil import metrics
from mtkd.train.prepare import Prepared
from mtkd.train.recipes import CoFinetuned, Optimisation, Stage, Term
from mtkd.train.teachers import Model


def stage_of(optimisation: Optimisation) -> Stage:
    """The summed cross-entropies of all teachers, as a stage of the one loop."""
    return Stage("cofinetuning", (Term("cross_entropy", combine="heads"),), optimisation)


def joint_network(prepared: Prepared, names: list[str], how: CoFinetuned, seed: int,
                  seeds: Sequence[int] | None = None) -> JointNetwork:
    """The set before training. Encoder i is drawn from seeds[i] (seed + i where there are none), pooler and dense layer from
    seed: a set of one is exactly the network "NAME + attentive" with that seed."""
    task = prepared.task
    encoders = []
    for i, name in enumerate(names):
        own, drawn = prepared.of(name), seeds[i] if seeds else seed + i
        encoders.append(bare(models.build(name, task.outputs, seed=drawn, vocab=own.vocab, tokens=own.special_ids).hf))
    torch.manual_seed(seed)
    return JointNetwork(encoders, task.outputs, how.pooler, how.query, task.classes)


def cofinetune(prepared: Prepared, names: list[str], how: CoFinetuned, seed: int, optimisation: Optimisation,
               seeds: Sequence[int] | None = None) -> list[Model]:
    """N teachers that share pooler and dense layer, from the store or trained together once; one Model per name.

    seeds: one per teacher, so that a teacher starts alike in every set it is in; see `joint_network`. The teachers' metrics
    are each one's own; the epoch that is kept is the best one of the mean of their logits. seconds are the set's, divided
    by N. Raises KitError for a task without classes to pool a text for, fewer than one name, or another number of seeds.
    """
    task = prepared.task
    if task.kind not in ("text", "pair") or task.regression:
        raise KitError(f"co-finetuning pools whole texts into classes, which the task {task.name} does not ask for.")
    if not names:
        raise KitError("co-finetuning needs at least one teacher.")
    if seeds is not None and len(seeds) != len(names):
        raise KitError(f"co-finetuning needs one seed per teacher, and there are {len(seeds)} seeds and {len(names)} teachers.")
    counted = seeds is None or list(seeds) == [seed + i for i in range(len(names))]  # the same start under the same key
    inputs = [prepared.of(name) for name in names]
    optimisation = min((rates.settled(optimisation, name) for name in names), key=lambda settled: settled.lr)
    device = train.device_at_hand()
    stage = stage_of(optimisation)

    def make(folder: Path) -> dict:
        network = joint_network(prepared, names, how, seed, seeds)
        setting = Setting({}, [], heads=len(names))
        modules, _, _ = matching.prepare_stage(stage, setting)
        joint = {part: JointData([own.data(part) for own in inputs]) for part in ("train", "validation")}
        outputs.check_lengths(network, *joint.values())

        def validate(candidate) -> float:
            return metrics(prepared, "validation", outputs.evaluate_logits(candidate, joint["validation"], device))[task.metric]

        with Meter(device) as meter:
            history = train.fit(network, joint["train"], stage, modules, seed=seed, device=device, validate=validate,
                                label=f"{len(names)} teachers together")
            meter.count(history.samples)
        network.save(folder, [own.tokenizer for own in inputs])
        each = []
        for i, own in enumerate(inputs):
            member, found = network.member(i), {}
            for part in ("validation", "test"):
                logits = outputs.evaluate_logits(member, own.data(part), device)
                found[part] = metrics(prepared, part, logits)
                tensors_save(folder / f"teacher-{i}" / f"logits-{part}.safetensors",
                             {"logits": logits, "ids": outputs.ids_tensor(own.data(part).ids)})
            each.append({"metrics": found, "shape": member.shape, "parameters": models.count_parameters(member),
                         "input": own.fingerprint})
        return {**meter.record(), "lr": optimisation.lr, "optimiser": optimisation.optimiser, "teachers": each,
                "history": history.summary()}

    spec = {"models": names, "pooler": how.pooler, "query": how.query, "optimisation": vars(optimisation), "seed": seed,
            "data": [own.spec("train") for own in inputs], "device": device.type, "metric": task.metric,
            "content": [models.content(name) for name in names], **({} if counted else {"seeds": list(seeds)})}
    made = prepared.store.get("cofinetuned", spec, make)
    shared = {k: v for k, v in made.info.items() if k != "teachers"}
    split = {k: shared[k] / len(names) for k in ("seconds", "energy_kwh", "co2_kg") if shared.get(k) is not None}
    return [Model(made.folder / f"teacher-{i}", name, f"{made.folder.name}/{i}", {**shared, **split, **info}, made.reused)
            for i, (name, info) in enumerate(zip(names, made.info["teachers"]))]
