"""A device that is not there: tensors that say they lie on "cuda" and compute on the CPU, so that a machine without a GPU finds
what would fail on one.

torch's own FakeTensorMode has no numbers, and selections, policies and curves look at numbers. Here every tensor keeps them:

    with elsewhere(monkeypatch) as cuda:
        x = torch.ones(3, device=cuda)
        x + torch.ones(3)            # RuntimeError, as on a GPU: one is on cuda:0, the other on the cpu

As on a GPU, a number without dimensions may come from the CPU, and so may the positions that pick from a tensor that is
elsewhere, but not the other way round. Generators belong to both sides here, so a wrong one is not found.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

HERE, THERE = torch.device("cpu"), torch.device("cuda", 0)
PICKS = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}


class There(Tensor):
    """A tensor on the device that is not there; `own` holds its numbers. For torch's own machinery it lies on the CPU, which
    a build without CUDA can serve; for whoever asks in Python it does not."""

    device, is_cuda = property(lambda self: THERE), property(lambda self: True)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, own: Tensor):
        made = Tensor._make_wrapper_subclass(cls, own.shape, strides=own.stride(), storage_offset=own.storage_offset(),
                                             dtype=own.dtype, device=HERE)
        made.own = own
        return made

    def __repr__(self):
        return f"There({self.own!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func._schema.name.split("::")[1]
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        if name in PICKS and isinstance(args[0], There):
            tensors = [t for t in (args[0], *args[2:3]) if isinstance(t, Tensor)]
        if name != "copy_" and len({isinstance(t, There) for t in tensors if isinstance(t, There) or t.dim()}) > 1:
            raise RuntimeError(f"{name}: one tensor is on {THERE} and another on {HERE}")
        out = func(*tree_map_only(There, lambda t: t.own, args), **tree_map_only(There, lambda t: t.own, kwargs))
        if name.endswith("_") and not name.endswith("__"):
            return args[0] if func._schema.returns else None
        return tree_map_only(Tensor, There, out)


class Go(torch.autograd.Function):
    """From here to there, and the gradient back."""

    @staticmethod
    def forward(ctx, x):
        return There(x.detach().clone())

    @staticmethod
    def backward(ctx, gradient):
        return gradient.own


class Return(torch.autograd.Function):
    """From there to here, and the gradient back."""

    @staticmethod
    def forward(ctx, x):
        return x.own.clone()

    @staticmethod
    def backward(ctx, gradient):
        return There(gradient)


def move(x: Tensor, device: torch.device) -> Tensor:
    if isinstance(x, There) == (device.type == "cuda"):
        return x
    return Return.apply(x) if isinstance(x, There) else Go.apply(x)


class Elsewhere(TorchFunctionMode):
    """While it is on, whatever is made on or moved to "cuda" is a There."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self.to(*args, {Tensor.cpu: HERE, Tensor.cuda: THERE}.get(func), **kwargs)
        if name == "pin_memory":
            return args[0]
        if name == "one_hot" and isinstance(args[0], There):  # made of parts that ask torch's machinery for the device
            return There(func(args[0].own, *args[1:], **kwargs))
        if name == "tolist":
            return move(args[0].detach(), HERE).tolist()
        wanted = kwargs.get("device")
        if wanted is not None and torch.device(wanted).type == "cuda" and not any(isinstance(a, There) for a in args):
            made = func(*args, **{**kwargs, "device": HERE, "requires_grad": False})
            return There(made).requires_grad_(kwargs.get("requires_grad", False))
        return func(*args, **kwargs)

    @staticmethod
    def to(x: Tensor, *wanted, device=None, dtype=None, **kwargs) -> Tensor:
        """x.to with a device, a dtype, both, or a tensor that has them."""
        for what in (*wanted, device, dtype):
            if isinstance(what, Tensor):
                x = move(x, what.device).to(what.dtype)
            elif isinstance(what, torch.dtype):
                x = x.type(what)
            elif isinstance(what, str | torch.device):
                x = move(x, torch.device(what))
        return x


@contextlib.contextmanager
def elsewhere(monkeypatch):
    """A block in which "cuda" can be used; it gives that device."""
    real = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": real())
    monkeypatch.setattr(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True)  # not by `.data =`
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)  # its tensors cannot be wrapped
    with Elsewhere():
        yield THERE
