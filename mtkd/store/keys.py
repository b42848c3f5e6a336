"""What an artifact is made of, as one hash: plain values, and the code that is alive when it is made.

Two cells with the same rule have one key; a changed word of code, a default, a closure's value or a helper gives another. The
kit's own code counts room by room (`room_code`): an edited table keeps everything, an edited loss keeps tokens. Counted is what
would *run* (bytecode, constants, names) and not what a file says, so a function that was replaced at run time
(`losses.hint = mine`, a mock, a debugger) changes every key of its room and can never be stored under the old one.
Comments, docstrings and layout do not count. Libraries count by version.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import importlib
import json
import math
import pkgutil
import re
import sys
import types
from dataclasses import fields, is_dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path

import numpy as np

from mtkd.errors import KitError

KIT = "mtkd"


class Undescribed(KitError):
    """A value that no key can describe: what is made with it is made, and not stored."""


def digest(value) -> str:
    """sha256 (hex) of plain data.

    >>> digest({"b": (1, 2), "a": None}) == digest({"a": None, "b": [1, 2]})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def describe(x, where: str = "spec", seen: tuple[int, ...] = ()):
    """A value as plain JSON data, with the code of functions and classes and of all that they reach.

    Raises KitError, naming the place, for NaN, infinity and keys that are not text; Undescribed for what has no description
    that would mean the same in another process (an open file, a random generator).
    """
    if isinstance(x, np.generic):
        x = x.item()
    if x is None or isinstance(x, bool | int | str):
        return x
    if isinstance(x, float):
        if math.isfinite(x):
            return x
        raise KitError(f"{where} is {x}, which JSON cannot hold.")
    if isinstance(x, list | tuple):
        return [describe(v, f"{where}[{i}]", seen) for i, v in enumerate(x)]
    if isinstance(x, set | frozenset):
        return {"set": sorted((describe(v, where, seen) for v in x), key=digest)}
    if isinstance(x, dict):
        if odd := [k for k in x if not isinstance(k, str)]:
            raise KitError(f"{where} has the key {odd[0]!r}, and keys must be text.")
        return {k: describe(v, f"{where}.{k}", seen) for k, v in x.items()}
    tensor = isinstance(x, getattr(sys.modules.get("torch"), "Tensor", ()))  # without importing torch
    if tensor or isinstance(x, np.ndarray):
        a = np.ascontiguousarray(x.detach().cpu().numpy() if tensor else x)
        return {"array": str(a.dtype), "shape": list(a.shape), "sha256": hashlib.sha256(a.tobytes()).hexdigest()}
    if isinstance(x, Path | bytes | complex | re.Pattern) or x is Ellipsis or type(x).__qualname__ in ("dtype", "device"):
        return {type(x).__name__: str(x)}
    if id(x) in seen:  # recursion, or two functions that call each other: the name is enough the second time
        return {"again": getattr(x, "__qualname__", type(x).__qualname__)}
    return _code(x, where, (*seen, id(x)))


def _code(x, where: str, seen: tuple[int, ...]):
    if isinstance(x, functools.partial):
        return {"partial": describe([x.func, x.args, x.keywords], where, seen)}
    home = x.__name__ if isinstance(x, types.ModuleType) else getattr(x, "__module__", None) or "builtins"
    if home.partition(".")[0] == KIT and (isinstance(x, types.ModuleType | type) or callable(x)) and hasattr(x, "__name__"):
        room = ".".join(home.split(".")[1:2]) or "errors"
        return {"of": f"{home}.{getattr(x, '__qualname__', '')}", "room": room_code(room)}
    if isinstance(x, types.ModuleType):
        return {"module": home, "version": release(home)} if _installed(home) else {"module": home, "code": module_code(x)}
    if _installed(home) and (isinstance(x, type) or callable(x)) and hasattr(x, "__qualname__"):
        return {"of": f"{home}.{x.__qualname__}", "version": release(home)}
    if hasattr(x, "__wrapped__"):
        return describe(x.__wrapped__, where, seen)
    if isinstance(x, types.MethodType):
        return {"method": describe([x.__func__, x.__self__], where, seen)}
    if isinstance(x, types.FunctionType):
        return _function(x, where, seen)
    if isinstance(x, type):
        body = {k: _unwrapped(v) for k, v in vars(x).items() if _counts(k, v)}
        return {"class": x.__qualname__, "bases": describe(x.__bases__, where, seen), "body": describe(body, where, seen)}
    if is_dataclass(x):
        own = {f.name: getattr(x, f.name) for f in fields(x)}
        return {"is": describe(type(x), where, seen), "with": describe(own, where, seen)}
    raise Undescribed(f"{where} is a {type(x).__name__}, which a key cannot describe: hand it over as numbers, text or a "
                      "dataclass, or make it inside the rule.")


def _function(f: types.FunctionType, where: str, seen: tuple[int, ...]) -> dict:
    """Code, defaults, closure, and every global that the code reads: helpers and constants count, libraries by version."""
    uses = {name: describe(f.__globals__[name], f"{where}: {name}", seen)
            for name in sorted(_globals(f.__code__)) if name in f.__globals__}
    cells = {n: c.cell_contents for n, c in zip(f.__code__.co_freevars, f.__closure__ or ()) if n != "__class__"}
    return {"def": f.__name__, "code": _bytecode(f.__code__), "uses": uses,
            "defaults": describe([f.__defaults__, f.__kwdefaults__], f"{where}: defaults", seen),
            "closure": describe(cells, f"{where}: closure", seen)}


def _globals(code: types.CodeType) -> set[str]:
    own = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*(_globals(c) for c in code.co_consts if isinstance(c, types.CodeType)))


@functools.cache
def _bytecode(code: types.CodeType) -> str:
    """Hash of what runs: instructions with the names and constants that they read, without line numbers and docstrings."""
    def seen(value):
        if isinstance(value, types.CodeType):
            return _bytecode(value)
        return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)

    steps = [(i.opname, seen(i.argval)) for i in dis.get_instructions(code)]
    return hashlib.sha256(repr((steps, code.co_varnames, code.co_argcount, code.co_kwonlyargcount)).encode()).hexdigest()[:16]


# --- the kit's own code ----------------------------------------------------------------------------------------------------


_rooms: dict[str, tuple[tuple, str]] = {}  # room -> what it looked like, and its hash


def room_code(room: str) -> str:
    """Hash of the live code of a room (mtkd/rules, say): every function, method and constant of its modules."""
    modules = _modules(room)
    look = tuple(part for module in modules for part in _look(module))
    if room not in _rooms or _rooms[room][0] != look:
        _rooms[room] = look, "in the making"  # met again where a function was put into a room that reaches the room itself
        try:
            _rooms[room] = look, digest({module.__name__: module_code(module) for module in modules})
        except BaseException:
            del _rooms[room]
            raise
    return _rooms[room][1]


def _modules(room: str) -> list[types.ModuleType]:
    top = importlib.import_module(f"{KIT}.{room}")
    inner = [importlib.import_module(f"{top.__name__}.{m.name}") for m in pkgutil.iter_modules(getattr(top, "__path__", []))]
    return [top, *inner]


def _look(module: types.ModuleType):
    """What stands for the code of a module, cheap enough to be asked at every key: which objects it holds."""
    for value in list(vars(module).values()):
        yield id(value)
        yield id(getattr(value, "__code__", None))
        if isinstance(value, type) and value.__module__ == module.__name__:
            for v in list(vars(value).values()):
                yield id(v)
                yield id(getattr(v, "__code__", None))


def module_code(module: types.ModuleType) -> dict:
    """What a module defines, as plain data; what it imports goes by name."""
    return {name: _live(value, module.__name__) for name, value in sorted(vars(module).items()) if _counts(name, value)}


def _live(value, home: str):
    value = _unwrapped(value)
    place = getattr(value, "__module__", None)
    if isinstance(value, types.FunctionType):
        if place == home:
            return [_bytecode(value.__code__), _plain([value.__defaults__, value.__kwdefaults__])]
        return f"{place}.{value.__qualname__}" if _installed(place) or place.startswith(f"{KIT}.") else describe(value)
    if isinstance(value, type):
        if place != home:
            return f"{place}.{value.__qualname__}"
        return {"bases": [b.__qualname__ for b in value.__bases__],
                **{k: _live(v, home) for k, v in sorted(vars(value).items()) if _counts(k, v)}}
    return _plain(value)


def _plain(value):
    """Constants as they are; of anything else the type."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if is_dataclass(value) and not isinstance(value, type):
        return {"is": type(value).__qualname__, **{f.name: _plain(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, str | int | float | types.NoneType | re.Pattern | Path):
        return repr(value)
    return getattr(value, "__qualname__", type(value).__qualname__)


def _counts(name: str, value) -> bool:
    """Whether a name of a module or class is code: not what Python itself or a dataclass puts there, not a cache."""
    if name.startswith("__"):
        return name in ("__init__", "__call__", "__post_init__", "__new__") and "<string>" not in getattr(
            getattr(value, "__code__", None), "co_filename", "")
    if name.startswith("_") and not callable(_unwrapped(value)):
        return False  # a cache, or what a library notes on a class while it runs
    return not isinstance(value, types.MemberDescriptorType | types.ModuleType)


def _unwrapped(value):
    """The function behind a property, a class method, a cache or a registered rule."""
    for name in ("fget", "__func__", "func", "__wrapped__", "function"):
        if isinstance(found := getattr(value, name, None), types.FunctionType):
            return found
    return value


# --- libraries -------------------------------------------------------------------------------------------------------------


def _installed(module: str) -> bool:
    """Whether code counts by version: the standard library and installed packages, not a notebook's or a script's own."""
    top = module.partition(".")[0]
    return top != KIT and (top in sys.stdlib_module_names or top in _distributions()) and top != "__main__"


@functools.cache
def _distributions() -> dict:
    return packages_distributions()


@functools.cache
def release(module: str) -> str:
    """The version of the package that holds a module; Python's own for the standard library."""
    top = module.partition(".")[0]
    return version(_distributions()[top][0]) if top in _distributions() else "{}.{}".format(*sys.version_info[:2])
