"""Artifacts on disk, found by the hash of what made them.

Everything expensive (teachers, teacher outputs, students) is a finished folder `<store>/<kind>/<key[:2]>/<key>/`; the
key is a hash of the spec, of the live code that makes this kind and of the versions of torch and transformers
(mtkd/store/parts.py). Asking again is free:

    store = Store()
    spec = {"task": "pydocs/topic", "model": "scratch-4x192", "seed": 0}
    teacher = store.get("teacher", spec, lambda folder: train_into(folder, seed=0))    # trains, then stores
    teacher = store.get("teacher", spec, lambda folder: train_into(folder, seed=0))    # teacher.reused is True

Folders appear whole or not at all: files are written into a temporary folder, synced, then renamed. Two processes that
want the same missing artifact make it once; the second waits for the first. The wait is on a lock that the operating
system releases when its holder dies, however it dies. Code that changes while it makes an artifact, and code that no key can
describe, makes one that is used in this process and not kept.
"""

import atexit
import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from mtkd.errors import KitError
from mtkd.store.files import canonical, file_hash, plain, sync, tensors_load, tensors_save, text_hash, write_json_atomic
from mtkd.store.keys import Undescribed, digest
from mtkd.store.parts import changes, key, made_of, without_code

__all__ = ["Artifact", "Store", "key", "tally", "tensors_load", "tensors_save", "write_json_atomic"]

_checked: set[tuple[str, str]] = set()  # (folder, checksum) of the artifacts whose files this process has hashed
_tally: Counter = Counter()  # what this process asked for: (kind, "" if it was reused, else why it was made)


@dataclass(frozen=True)
class Artifact:
    """A finished folder, what made it (`spec`), what its maker said of it (`info`), and whether it was there before."""

    folder: Path
    spec: dict = field(repr=False)
    info: dict = field(repr=False)
    reused: bool


def tally(forget: bool = False) -> str:
    """One line on what this process asked the store for; forget: begin to count anew.

    >>> tally(forget=True) and tally()
    'nothing was asked of the store'
    """
    models = {k: n for k, n in _tally.items() if k[0] in ("model", "cofinetuned")} or dict(_tally)
    parts = [f"{n} reused" for n in [sum(n for (_, why), n in models.items() if not why)] if n]
    made = Counter()
    for (_, why), n in models.items():
        made[why] += n if why else 0
    parts += [f"{n} made{' (' + why + ')' if why != 'new' else ''}" for why, n in made.items() if n]
    if forget:
        _tally.clear()
    return ("models: " + ", ".join(parts)) if parts else "nothing was asked of the store"


def default_folder() -> Path:
    """The store of this machine: environment variable MTKD_STORE, else the user's cache folder."""
    if os.environ.get("MTKD_STORE"):
        return Path(os.environ["MTKD_STORE"]).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("mtkd") / "store"


class Store:
    """A folder of artifacts; safe to share between threads, processes and interrupted runs."""

    def __init__(self, folder: Path | str | None = None):
        self.folder = (Path(folder) if folder is not None else default_folder()).absolute()
        self._swept = False

    def get(self, kind: str, spec: dict, make: Callable[[Path], dict | None]) -> Artifact:
        """The finished artifact of `spec`, made by `make(folder)` if it is missing or damaged.

        spec: numbers, text, lists, dictionaries, tensors; also functions, classes and dataclasses, whose code then counts.
        `make` writes files into the folder it is given and returns plain data to keep beside them (seconds, metrics) or
        None; the name artifact.json is taken. What has no description, or whose code changes meanwhile, is made and not kept,
        with a warning that says why. Raises KitError if the spec or that data is not plain, the store cannot be written or
        the disk is full; an exception of `make` passes through. In each case nothing half-written stays.
        """
        try:
            parts = made_of(kind, spec)
        except Undescribed as why:
            return self._unkept(kind, f"not stored, since {why}", make)
        folder = self._folder(kind, digest(parts))
        with contextlib.suppress(_Damaged):  # without the lock, so that a read-only store can be read
            if found := self._found(kind, folder):
                return found
        with self._full_disk(kind), self._lock(kind, folder.name):
            why = self._reason(kind, parts)
            try:
                if found := self._found(kind, folder):
                    return found
            except _Damaged as damage:
                self._set_aside(kind, folder, str(damage))
                why = "the stored one was damaged"
            self._sweep()
            _tally[kind, why] += 1
            return self._make(kind, spec, parts, folder, make)

    def has(self, kind: str, spec: dict) -> bool:
        """Whether a finished artifact of `spec` is there, its files present in their right sizes."""
        try:
            return self._read(self._folder(kind, key(kind, spec)), hashes=False) is not None
        except (_Damaged, Undescribed):
            return False

    def usage(self) -> dict[str, dict[str, int]]:
        """Per kind, the number of finished artifacts and their bytes: {"teacher": {"artifacts": 6, "bytes": 1234}}."""
        found: dict[str, dict[str, int]] = {}
        for sheet in sorted(self.folder.glob("[a-z]*/??/*/artifact.json")):
            entry = found.setdefault(sheet.relative_to(self.folder).parts[0], {"artifacts": 0, "bytes": 0})
            entry["artifacts"] += 1
            entry["bytes"] += sum(p.stat().st_size for p in _files(sheet.parent))
        return found

    def _folder(self, kind: str, name: str) -> Path:
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", kind) or kind == "damaged":
            raise ValueError(f"not a kind of artifact: {kind!r}")
        return self.folder / kind / name[:2] / name

    def _found(self, kind: str, folder: Path) -> Artifact | None:
        if found := self._read(folder):
            _tally[kind, ""] += 1
        return found

    def _last(self, parts: dict) -> Path:
        """The file that holds the key of the last artifact of this spec, whatever the code was."""
        return self.folder / parts["kind"] / ".last" / digest(without_code(parts["spec"]))

    def _reason(self, kind: str, parts: dict) -> str:
        """Why an artifact has to be made: what changed since the last one of the same spec."""
        try:
            name = self._last(parts).read_text(encoding="utf-8")
            return changes(json.loads((self._folder(kind, name) / "artifact.json").read_text(encoding="utf-8")), parts)
        except (OSError, ValueError, KeyError):
            return "new"

    def _unkept(self, kind: str, why: str, make: Callable[[Path], dict | None], work: Path | None = None) -> Artifact:
        """An artifact for this process alone: made now, or moved here from `work` where it is made already."""
        warnings.warn(f"A {kind} is {why}", stacklevel=3)
        place = self.folder / ".unkept"
        place.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="unkept-", dir=place))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        if work is not None:
            os.rename(work, folder)
            info = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))["info"]
            return Artifact(folder, {}, info, reused=False)
        _tally[kind, why] += 1
        return Artifact(folder, {}, plain(make(folder) or {}, "info"), reused=False)

    def _lock(self, kind: str, name: str, timeout: float = -1) -> FileLock:
        """A lock over one key; a new object per use, so that threads exclude each other as processes do."""
        place = self.folder / ".locks"
        try:
            place.mkdir(parents=True, exist_ok=True)
            if not os.access(place, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise KitError(
                f"The store {self.folder} cannot be written ({error.strerror}); make it writable, or set MTKD_STORE to "
                "another folder."
            ) from error
        return FileLock(place / f"{kind}.{name}", timeout=timeout, thread_local=False)

    def _read(self, folder: Path, hashes: bool = True) -> Artifact | None:
        """The artifact in `folder`, None if there is none; raises _Damaged where it is not what was written."""
        if not folder.is_dir():
            return None
        try:
            sheet = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))
            checksum = sheet.pop("checksum")
            if checksum != text_hash(canonical(sheet)):
                raise _Damaged("artifact.json has changed")
            for name, expected in sheet["files"].items():
                if (folder / name).stat().st_size != expected["bytes"]:
                    raise _Damaged(f"{name} has not the size it was written with")
            if hashes and (str(folder), checksum) not in _checked:
                for name, expected in sheet["files"].items():
                    if file_hash(folder / name) != expected["sha256"]:
                        raise _Damaged(f"{name} has not the content it was written with")
                _checked.add((str(folder), checksum))
        except FileNotFoundError as error:
            if not folder.is_dir():  # another process has just set it aside
                return None
            raise _Damaged(f"{Path(error.filename).name} is missing") from error
        except (ValueError, KeyError, TypeError, AttributeError, KitError) as error:
            raise _Damaged("artifact.json cannot be read") from error
        return Artifact(folder, sheet["spec"], sheet["info"], reused=True)

    def _make(self, kind: str, spec: dict, parts: dict, folder: Path, make: Callable[[Path], dict | None]) -> Artifact:
        work = self.folder / ".making" / f"{kind}.{folder.name}"  # one name per key: who holds the lock owns it
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            info = plain(make(work) or {}, "info")
            files = {
                path.relative_to(work).as_posix(): {"bytes": path.stat().st_size, "sha256": file_hash(path)}
                for path in _files(work)
            }
            created = datetime.now(UTC).isoformat(timespec="seconds")
            sheet = {**parts, "info": info, "files": files, "created": created}
            checksum = text_hash(canonical(sheet))
            write_json_atomic(work / "artifact.json", {**sheet, "checksum": checksum})
            if (now := made_of(kind, spec)) != parts:
                what = [r for r in parts["code"] if now["code"][r] != parts["code"][r]] or ["a rule"]
                return self._unkept(kind, f"not stored: the code of {', '.join(what)} changed while it was made", make, work)
            for path in [*work.rglob("*"), work]:
                sync(path)
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.rename(work, folder)
            sync(folder.parent)
            self._last(parts).parent.mkdir(exist_ok=True)
            self._last(parts).write_text(folder.name, encoding="utf-8")
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        _checked.add((str(folder), checksum))
        return Artifact(folder, sheet["spec"], info, reused=False)

    def _set_aside(self, kind: str, folder: Path, reason: str) -> None:
        place = self.folder / "damaged" / kind
        place.mkdir(parents=True, exist_ok=True)
        moved = tempfile.mkdtemp(prefix=f"{folder.name}.", dir=place)
        os.rename(folder, moved)  # a rename onto an empty folder replaces it
        warnings.warn(f"A stored {kind} is damaged ({reason}): moved to {moved} and made again.", stacklevel=3)

    def _sweep(self) -> None:
        """Remove what processes that died while making have left: a temporary folder whose lock is free."""
        if self._swept:
            return
        self._swept = True
        for left in (self.folder / ".making").glob("*"):
            kind, _, name = left.name.partition(".")
            with contextlib.suppress(Timeout), self._lock(kind, name, timeout=0):
                shutil.rmtree(left, ignore_errors=True)

    @contextlib.contextmanager
    def _full_disk(self, kind: str) -> Iterator[None]:
        try:
            yield
        except KitError:
            raise
        except Exception as error:
            # safetensors reports a full disk as an exception of its own, with the system's words in it
            code = getattr(error, "errno", None)
            if code not in (errno.ENOSPC, errno.EDQUOT) and os.strerror(errno.ENOSPC) not in str(error):
                raise
            raise KitError(
                f"The disk is full: no {kind} could be stored in {self.folder}; free some space, or set MTKD_STORE to "
                "a folder on another disk."
            ) from error


class _Damaged(Exception):
    """A stored folder is not what was written."""


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / "artifact.json")
