"""Teachers in, students out: the steps a notebook calls, each one an artifact in the store.

    prepared = prepare(load_task("pydocs/topic"), "scratch-2x64")
    teachers = finetune(prepared, "scratch-2x64", seeds=range(3), optimisation=opt)
    student  = distill(prepared, teachers, "scratch-1x32", recipes.tinybert((0, 2), 0, ...), seed=0)
    student.metrics["test"], student.folder

Asking for something twice makes it once: a stage is keyed by its own terms, its data, the teachers it follows, and the
stage before it, so all combinations with the same primary share one intermediate-layer student.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch

from mtkd import models, outputs, terms, train
from mtkd.errors import KitError
from mtkd.evaluate import compute_metrics
from mtkd.measure import Meter
from mtkd.prepare import Prepared
from mtkd.recipes import CoFinetuned, Optimisation, Recipe, Stage, plain, stage_spec
from mtkd.selection import Selection
from mtkd.store import tensors_save
from mtkd.teachers import Model, gather, logits_of


def finetune(prepared: Prepared, name: str, seeds: Iterable[int], optimisation: Optimisation) -> list[Model]:
    """Independent teachers: the same architecture fine-tuned on the gold labels once per seed."""
    return [run_stage(prepared, [], name, plain(optimisation), 0, seed, None, 0) for seed in seeds]


def undistilled(prepared: Prepared, name: str, optimisation: Optimisation, seed: int, start: Model | None = None,
                data: str = "train") -> Model:
    """The student without a teacher: plain cross-entropy, the control that every distillation must beat."""
    return run_stage(prepared, [], name, plain(optimisation, data), 0, seed, start, 0)


def distill(prepared: Prepared, teachers: Sequence[Model], student: str, recipe: Recipe, seed: int = 0,
            run: int = 0, start: Model | None = None) -> Model:
    """Run a recipe's stages one after the other and return the last student.

    student: a model name (mtkd/models.py). run: which run of the data augmentation. start: a model to go on from
    instead of a fresh student. Raises KitError before any training where a term cannot work with these models.
    """
    if isinstance(recipe.teachers, CoFinetuned) or recipe.predictor != "one_model":
        raise KitError(f"the recipe '{recipe.name}' asks for {recipe.teachers} and the predictor '{recipe.predictor}'; this "
                       "version has independent teachers and one_model.")
    for stage in recipe.stages:  # every cross is checked before the first hour is spent (see also train_stage)
        recipe.members(stage, len(teachers))
        if stage.learns != "student":
            raise KitError(f"stage '{stage.name}' learns '{stage.learns}', which no recipe of this version uses.")
        if stage.reset:
            raise KitError(f"stage '{stage.name}' resets {', '.join(stage.reset)}, which no recipe of this version uses.")
    for number in range(len(recipe.stages)):
        start = run_stage(prepared, teachers, student, recipe, number, seed, start, run)
    return start


def run_stage(prepared: Prepared, teachers: Sequence[Model], name: str, recipe: Recipe, number: int, seed: int,
              start: Model | None, run: int) -> Model:
    stage = deepcopy(recipe.stages[number])  # what a selection learns stays with this run
    split = prepared.name(stage.data, run)
    follows_logits = any(t.loss in terms.LOGIT for t in stage.terms)
    spec = {"model": name, "start": start.key if start else None, "stage": stage_spec(stage, [t.key for t in teachers]),
            "data": prepared.spec(split), "seed": seed,
            "control": getattr(recipe.teachers, "control", None) if follows_logits else None,
            "device": train.device_at_hand().type}

    def make(folder: Path) -> dict:
        return train_stage(prepared, teachers, name, recipe, stage, split, seed, start, folder)

    made = prepared.store.get("model", spec, make)
    return Model(made.folder, name, made.folder.name, made.info, made.reused, start)


def train_stage(prepared: Prepared, teachers: Sequence[Model], name: str, recipe: Recipe, stage: Stage, split: str,
                seed: int, start: Model | None, folder: Path) -> dict:
    """Train one stage into `folder`: the model (plain transformers layout), its logits, and what was measured."""
    device, task = train.device_at_hand(), prepared.task
    network = start.network() if start else models.build(
        name, task.outputs, seed=seed, vocab=prepared.vocab, channels=prepared.channels, regression=task.regression,
        labels=task.classes)
    data = prepared.data(split)
    setting = terms.Setting(network.shape, [t.shape for t in teachers], task.regression,
                            task.regression or bool((data.labels >= 0).any()))
    for later in recipe.stages[recipe.stages.index(stage) + 1:]:  # a stage that cannot work is refused before this one
        terms.prepare_stage(later, replace(setting, labelled=True))
    torch.manual_seed(seed)  # projections of the terms are drawn here
    modules, needs, want = terms.prepare_stage(stage, setting)
    said = gather(prepared, teachers, recipe, stage, split, needs, device) if teachers else None
    fit_selections(prepared, teachers, stage)
    scored = []  # validation logits after every epoch

    def validate(candidate) -> float:
        scored.append(outputs.evaluate_logits(candidate, prepared.data("validation"), device))
        return metrics(prepared, "validation", scored[-1])[task.metric]

    measured = any(t.loss in terms.GOLD + terms.LOGIT for t in stage.terms)  # an inner stage leaves the head untrained
    with Meter(device) as meter:
        history = train.fit(network, data, stage, modules, said, want=want, seed=seed, device=device,
                            validate=validate if measured else None, label=f"{name} {stage.name}")
        meter.count(history.samples)
    found = {}
    if measured:
        for part in ("validation", "test"):
            logits = (scored[history.best_epoch if stage.optimisation.keep == "best" else -1] if part == "validation"
                      else outputs.evaluate_logits(network, prepared.data(part), device))
            found[part] = metrics(prepared, part, logits)
            tensors_save(folder / f"logits-{part}.safetensors",
                         {"logits": logits, "ids": outputs.ids_tensor(prepared.data(part).ids)})
    network.to("cpu").save(folder, prepared.tokenizer)
    for number, term in enumerate(stage.terms):
        if term.selection is not None and (state := term.selection.state()):
            tensors_save(folder / f"selection-{number}.safetensors", state)
    return {**meter.record(), "parameters": models.count_parameters(network), "shape": network.shape,
            "history": history.summary(), "metrics": found}


def fit_selections(prepared: Prepared, teachers: Sequence[Model], stage: Stage) -> None:
    """Show the validation split to the selections that want to learn from it: the teachers' logits and the labels."""
    learning = [t.selection for t in stage.terms if t.selection is not None and type(t.selection).fit is not Selection.fit]
    if learning:
        logits = torch.stack([logits_of(prepared, teacher, "validation") for teacher in teachers], dim=1)     # [n, T, C]
        for selection in learning:
            selection.fit(outputs.TeacherBatch(logits), torch.from_numpy(prepared.data("validation").labels))


def metrics(prepared: Prepared, split: str, logits: torch.Tensor) -> dict[str, float]:
    return compute_metrics(logits.numpy(), prepared.task.splits[split].labels, prepared.task.metrics)
