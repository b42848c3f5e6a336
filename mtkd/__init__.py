"""mtkd: the thin shared module behind the notebooks on multi-teacher knowledge distillation.

The names of the public road are here, each loaded when it is first asked for, so that `import mtkd` takes no time:

    from mtkd import distil, finetune, load_task, prepare, recipe, soft_cross_entropy

Losses that are named here can be computed with tensors, and called with a selection they are a term of a recipe.
"""

from importlib import import_module

__version__ = "0.1.0"
PUBLIC = {  # where each name lives
    "data.tasks": ("Split", "Task", "load_task", "task"),
    "models.names": ("build", "load"),
    "measure.meter": ("Meter",),
    "measure.metrics": ("compute_metrics",),
    "rules.registry": ("TeacherBatch", "Term", "loss", "reward"),
    "rules.selection": ("Everyone", "Primary", "Selection", "Uniform", "following", "selection"),
    "rules.policy": ("Policy",),
    "store.artifacts": ("Store",),
    "train.prepare": ("prepare",),
    "train.recipes": ("Optimisation", "Recipe", "Stage"),
    "train.road": ("distil", "finetune", "recipe"),
    "train.teachers": ("teacher_from_folder", "teacher_from_table"),
}
HOMES = {name: module for module, names in PUBLIC.items() for name in names}
LOSSES = ("attention_mse", "cosine", "cross_entropy", "hidden_mse", "logit_mse", "soft_cross_entropy")
__all__ = ["recipes", *HOMES, *LOSSES]  # found by __getattr__


def __getattr__(name: str):
    if name == "recipes":
        return import_module("mtkd.train.recipes")
    if name in LOSSES:
        import_module("mtkd.rules.matching")
        return import_module("mtkd.rules.registry").find("loss", name)
    if name in HOMES:
        return getattr(import_module(f"mtkd.{HOMES[name]}"), name)
    raise AttributeError(f"module 'mtkd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
