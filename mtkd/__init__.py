"""mtkd: the thin shared module behind the notebooks on multi-teacher knowledge distillation."""

__version__ = "0.1.0"
