"""Plain data, checksums and writes that are whole or absent: what the store and the records are made of."""

import contextlib
import hashlib
import json
import math
import os
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from mtkd.errors import KitError


def plain(value, where: str = "spec"):
    """`value` as plain JSON data: tuples become lists, numpy scalars Python ones.

    Raises KitError naming the place of anything that JSON cannot hold exactly: NaN, infinity, arrays, tensors, paths,
    keys that are not text.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise KitError(f"{where} is {value}, which JSON cannot hold.")
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise KitError(f"{where} has the key {name!r}, and keys must be text.")
        return {name: plain(item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise KitError(f"{where} is a {type(value).__name__}: only numbers, text, lists and dictionaries can be stored.")


def canonical(value, where: str = "spec") -> str:
    """One text for one value: sorted keys, no spaces, tuples as lists.

    >>> canonical({"b": (1, 2), "a": None})
    '{"a":null,"b":[1,2]}'
    """
    return json.dumps(plain(value, where), sort_keys=True, separators=(",", ":"), allow_nan=False)


def text_hash(text: str) -> str:
    """sha256 (hex) of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=4096)
def _hashed(path: Path, size: int, changed: int) -> str:
    return file_hash(path)


def content_hash(path: Path) -> str:
    """sha256 (hex) of a file's bytes, read again only when its size or its time of change is another."""
    about = path.stat()
    return _hashed(path.resolve(), about.st_size, about.st_mtime_ns)


def folder_hash(folder: Path, patterns: tuple[str, ...] = ("*",)) -> str:
    """sha256 (hex) of the names and bytes of a folder's own files (not of folders in it) that match a pattern."""
    found = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return text_hash(canonical([(path.name, content_hash(path)) for path in found]))


def hash_sources(root: Path, skip: tuple[str, ...] = ()) -> str:
    """sha256 of the names and texts of all .py files under `root`; `skip` names files, or folders ending in a slash."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
        name = path.relative_to(root).as_posix()
        if name in skip or any(s.endswith("/") and name.startswith(s) for s in skip):
            continue
        text = path.read_bytes().replace(b"\r\n", b"\n")  # a checkout on another system is still the same source
        digest.update(f"{name}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's list of names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json_atomic(path: Path | str, obj) -> None:
    """Write plain data as JSON so that a reader sees the old file or the whole new one, also after a power cut."""
    path = Path(path)
    text = json.dumps(plain(obj, path.stem), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # mkstemp's files are for their owner alone
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    sync(path.parent)


def tensors_save(path: Path | str, tensors: dict) -> None:
    """Save named tensors (or numpy arrays) as safetensors; tensors that share memory are saved separately."""
    import torch
    from safetensors.torch import save_file

    # cloned because the format refuses tensors that overlap in memory
    whole = torch.contiguous_format
    save_file({name: torch.as_tensor(t).detach().cpu().clone(memory_format=whole) for name, t in tensors.items()}, path)


def tensors_load(path: Path | str) -> dict:
    """Load what `tensors_save` wrote, on the CPU; KitError if the file is missing or is not safetensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise KitError(f"{path} cannot be read as safetensors: {error}.") from error
