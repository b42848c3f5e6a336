"""Teachers in, students out: the steps a notebook calls, each one an artifact in the store.

    prepared = prepare(load_task("pydocs/topic"), "scratch-2x64")
    teachers = finetune(prepared, "scratch-2x64", seeds=range(3), optimisation=opt)
    student  = distill(prepared, teachers, "scratch-1x32", recipes.tinybert((0, 2), 0, ...), seed=0)
    student.metrics["test"], student.folder

Asking for something twice makes it once: a stage is keyed by its own terms, its data, the teachers it follows, and the
stage before it, so all combinations with the same primary share one intermediate-layer student.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mtkd.errors import KitError
from mtkd.measure.meter import Meter
from mtkd.measure.metrics import compute_metrics
from mtkd.models import heads
from mtkd.models import names as models
from mtkd.rules import matching
from mtkd.rules.registry import Setting
from mtkd.rules.selection import Selection
from mtkd.store.artifacts import tensors_load, tensors_save
from mtkd.tokens import spans
from mtkd.train import episodes, outputs, rates
from mtkd.train import loop as train
from mtkd.train.prepare import Prepared
from mtkd.train.recipes import SOFT, Optimisation, Recipe, Stage, plain, stage_spec
from mtkd.train.representation import represent
from mtkd.train.teachers import Model, gather, logits_of


@dataclass(frozen=True)
class Init:
    """Finished teachers that a fresh student starts from: the layers of one ("bottom-2 of teacher"), and the pooler and
    dense layer of one (of a co-finetuned set they are the same)."""

    layers_of: Model | None = None
    head_of: Model | None = None

    def spec(self) -> dict:
        return {k: v.key for k, v in vars(self).items() if v is not None}


def finetune(prepared: Prepared, name: str, seeds: Iterable[int], optimisation: Optimisation) -> list[Model]:
    """Independent teachers: the same architecture fine-tuned on the gold labels once per seed."""
    return [run_stage(prepared, [], name, plain(optimisation), 0, seed, None, 0) for seed in seeds]


def undistilled(prepared: Prepared, name: str, optimisation: Optimisation, seed: int, start: Model | None = None,
                data: str = "train", init: Init = Init()) -> Model:
    """The student without a teacher: plain cross-entropy, the control that every distillation must beat."""
    return run_stage(prepared, [], name, plain(optimisation, data), 0, seed, start, 0, init)


def distill(prepared: Prepared, teachers: Sequence[Model], student: str, recipe: Recipe, seed: int = 0,
            run: int = 0, start: Model | None = None, init: Init = Init()) -> Model:
    """Run a recipe's stages one after the other and return the last student.

    student: a model name (mtkd/models/names.py). run: which run of the data augmentation. start: a model to go on from
    instead of a fresh student, also one of another task read by the same tokeniser (Prepared.with_task), whose heads the
    first stage then resets; init: what a fresh one takes from finished teachers. Teachers may have tokenisers of their own.
    Raises KitError before any training where a term cannot work with these models.
    """
    for number, stage in enumerate(recipe.stages):  # checked before the first hour is spent (see also train_stage)
        predictor_of(recipe, number, student)
        recipe.members(stage, len(teachers))
        episodes.check(stage, prepared.task)
        if unknown := set(stage.reset) - {"heads"}:
            raise KitError(f"stage '{stage.name}' resets {', '.join(sorted(unknown))}, and only 'heads' can be.")
    for number in range(len(recipe.stages)):
        start = run_stage(prepared, teachers, student, recipe, number, seed, start, run, init)
    return start


def predictor_of(recipe: Recipe, number: int, name: str) -> str:
    """Who speaks for the student `name` after a stage: the recipe's predictor, but a head that the stage does not train has
    no vote. So the soft heads predict alone after tmkd's first stage, and at alpha = 1.0, where the golden head's term has
    the weight 0. KitError where the recipe asks for heads that the student does not have, or that its last stage leaves
    untrained."""
    if recipe.predictor not in heads.PREDICTORS:
        raise KitError(f"no such predictor: {recipe.predictor!r}; there are {', '.join(heads.PREDICTORS)}.")
    if not models.soft_heads(name):
        if recipe.predictor != "one_model":
            raise KitError(f"the recipe '{recipe.name}' asks for the predictor '{recipe.predictor}', and {name!r} has no soft "
                           f"heads: call the student '{name} + heads-N', with one head per teacher.")
        return "one_model"
    trained = {t.combine in SOFT for t in recipe.stages[number].terms if matching.trains_head(t) and t.weight}
    if trained == {True, False}:
        return recipe.predictor
    if not trained:
        return "one_model"  # an inner stage, after which nobody is asked
    only = "soft_heads" if True in trained else "one_model"
    if recipe.predictor not in (only, "heads") and number == len(recipe.stages) - 1:
        raise KitError(f"the recipe '{recipe.name}' asks for the predictor '{recipe.predictor}', and its last stage trains "
                       f"{'the soft heads' if True in trained else 'the golden head'} alone: use '{only}'.")
    return only


def run_stage(prepared: Prepared, teachers: Sequence[Model], name: str, recipe: Recipe, number: int, seed: int,
              start: Model | None, run: int, init: Init = Init()) -> Model:
    source = init.layers_of.name if init.layers_of else ""
    recipe = replace(recipe, stages=tuple(replace(s, optimisation=rates.settled(s.optimisation, name, source))
                                          for s in recipe.stages))
    stage = deepcopy(recipe.stages[number])  # what a selection learns stays with this run
    split = prepared.name(stage.data, run)
    follows_logits = any(matching.hears(t) for t in stage.terms)
    spec = {"model": name, "start": start.key if start else None, "stage": stage_spec(stage, [t.key for t in teachers]),
            "data": prepared.spec(split), "metric": prepared.task.metric, "seed": seed,
            "control": getattr(recipe.teachers, "control", None) if follows_logits else None,
            "device": train.device_at_hand().type}
    if start is None:
        spec |= models.content(name) | ({"init": init.spec()} if init != Init() else {})
    elif start.info.get("input") not in (None, prepared.fingerprint):
        raise KitError(f"the student {start.name} reads other tokens than this task was prepared with: prepare the task by "
                       "with_task of what the student was trained on.")
    if (predictor := predictor_of(recipe, number, name)) != "one_model":
        spec["predictor"] = predictor

    def make(folder: Path) -> dict:
        return train_stage(prepared, teachers, name, recipe, stage, split, seed, start, folder, init, predictor)

    made = prepared.store.get("model", spec, make)
    return Model(made.folder, name, made.folder.name, made.info, made.reused, start)


def train_stage(prepared: Prepared, teachers: Sequence[Model], name: str, recipe: Recipe, stage: Stage, split: str,
                seed: int, start: Model | None, folder: Path, init: Init = Init(), predictor: str = "one_model") -> dict:
    """Train one stage into `folder`: the model (plain transformers layout), its logits, and what was measured."""
    device, task = train.device_at_hand(), prepared.task
    network = going_on(prepared, start, name, stage, seed) if start else fresh(prepared, name, seed, init)
    if models.soft_heads(name):
        network.predictor = predictor
    data = prepared.data(split)
    outputs.check_lengths(network, data, prepared.data("validation"), prepared.data("test"))
    setting = Setting(network.shape, [t.shape for t in teachers], task.regression,
                            task.regression or bool((data.labels >= 0).any()), models.soft_heads(name))
    for later in recipe.stages[recipe.stages.index(stage) + 1:]:  # a stage that cannot work is refused before this one
        matching.prepare_stage(later, replace(setting, labelled=True))
    torch.manual_seed(seed)  # projections of the terms are drawn here
    modules, needs, want = matching.prepare_stage(stage, setting)
    said = gather(prepared, teachers, recipe, stage, split, needs, device) if teachers else None
    names = [t.key for t in teachers]
    take_over(stage, start, names)
    fit_selections(prepared, teachers, stage)
    learner = None
    if (term := episodes.check(stage, task)) is not None:
        module = modules[stage.terms.index(term)]
        learner = episodes.Learner(stage, term, module, said, data, prepared.data("validation"), device)
    scored = []  # validation logits after every epoch

    def validate(candidate) -> float:
        scored.append(outputs.evaluate_logits(heads.predicting(candidate), prepared.data("validation"), device))
        return metrics(prepared, "validation", scored[-1])[task.metric]

    measured = any(matching.trains_head(t) for t in stage.terms)  # an inner stage leaves the head untrained
    with Meter(device) as meter:
        history = train.fit(network, data, stage, modules, said, want=want, seed=seed, device=device,
                            validate=validate if measured else None, label=f"{name} {stage.name}", learner=learner)
        meter.count(history.samples)
    found = {}
    if measured:
        for part in ("validation", "test"):
            logits = (scored[history.best_epoch if stage.optimisation.keep == "best" else -1] if part == "validation"
                      else outputs.evaluate_logits(heads.predicting(network), prepared.data(part), device))
            found[part] = metrics(prepared, part, logits)
            tensors_save(folder / f"logits-{part}.safetensors",
                         {"logits": logits, "ids": outputs.ids_tensor(prepared.data(part).ids)})
    network.to("cpu").save(folder, prepared.tokenizer)
    learned = {}
    for number, term in enumerate(stage.terms):
        if term.selection is not None and (state := term.selection.state()):
            tensors_save(folder / f"selection-{number}.safetensors", state)
            learned[str(number)] = term.selection.spec(names)
    return {**meter.record(), "parameters": models.count_parameters(network), "shape": network.shape,
            "lr": stage.optimisation.lr, "optimiser": stage.optimisation.optimiser,
            "input": prepared.fingerprint, "history": history.summary(), "metrics": found,
            **({"selections": learned} if learned else {})}


def going_on(prepared: Prepared, start: Model, name: str, stage: Stage, seed: int):
    """The network that a stage goes on with: the one before, with new heads of this task's size where the stage says so."""
    task, network = prepared.task, start.network()
    if "heads" in stage.reset:
        return heads.renew(network, models.soft_heads(name), task.outputs, seed=seed, labels=task.classes,
                           regression=task.regression)
    heads.check_heads(network, models.soft_heads(name), task.outputs, task.classes, start.name)
    return network


def fresh(prepared: Prepared, name: str, seed: int, init: Init = Init()):
    """A network that has seen nothing of the task, but for what `init` takes from finished teachers."""
    task = prepared.task
    source = init.layers_of.network() if init.layers_of else None
    network = models.build(name, task.outputs, seed=seed, vocab=prepared.vocab, tokens=prepared.special_ids,
                           channels=prepared.channels, regression=task.regression, labels=task.classes,
                           per_token=task.kind == "span", source=source,
                           words=prepared.tokenizer.get_vocab() if "word_vectors" in models.content(name) else None)
    if init.head_of is not None:
        if not (hasattr(network, "take_head") and hasattr(head := init.head_of.network(), "take_head")):
            raise KitError(f"the head of {init.head_of.name} cannot be taken over by {name!r}: both need a pooler of the kit's "
                           "own (such as 'NAME + attentive').")
        network.take_head(head)
    return network


def take_over(stage: Stage, start: Model | None, names: list[str]) -> None:
    """Hand what the selections of the stage before have learned (selection-<n>.safetensors in its folder) to those of the
    same kind here that go on from it. KitError where it was learned of other teachers or inputs."""
    stored = start.info.get("selections", {}) if start else {}
    for selection in {id(t.selection): t.selection for t in stage.terms if t.selection is not None}.values():
        if type(selection).load is Selection.load:
            continue
        own = selection.spec(names)
        for number, before in stored.items():
            if before["selection"] == own["selection"]:
                if differs := [k for k in ("teachers", "encoder", "standardise") if before.get(k) != own.get(k)]:
                    raise KitError(f"stage '{stage.name}' goes on with the {own['selection']} of the stage before, which had "
                                   f"other {' and '.join(differs)}.")
                selection.load(tensors_load(start.folder / f"selection-{number}.safetensors"))


def fit_selections(prepared: Prepared, teachers: Sequence[Model], stage: Stage) -> None:
    """Show the selections that want to learn what their teachers say on a split, with its labels: the validation split, or
    the one that a selection names as its `fit_split`. Warns where that is the test split. Who is no member stays zero."""
    learning = [t.selection for t in stage.terms if t.selection is not None and type(t.selection).fit is not Selection.fit]
    splits = [getattr(selection, "fit_split", "validation") for selection in learning]
    if "test" in splits:
        warnings.warn(f"stage '{stage.name}' learns whom to follow from the labels of the test split (fit_split='test'), "
                      "a leak that flatters the student's score on that split.", stacklevel=2)
    for selection, split in zip(learning, splits):
        said = {t: logits_of(prepared, teachers[t], split) for t in selection.members(len(teachers))}
        blank = torch.zeros_like(next(iter(said.values())))
        logits = torch.stack([said.get(t, blank) for t in range(len(teachers))], dim=1)                       # [n, T, C]
        features = represent(prepared, selection.encoder, split) if "features" in selection.needs else None
        selection.fit(outputs.TeacherBatch(logits, features=features), torch.from_numpy(prepared.data(split).labels))


def metrics(prepared: Prepared, split: str, logits: torch.Tensor) -> dict[str, float]:
    if prepared.task.kind == "span":
        return spans.char_f1(logits.numpy(), prepared.places(split), prepared.texts(split))
    return compute_metrics(logits.numpy(), prepared.task.splits[split].labels, prepared.task.metrics)
