"""The store against real faults: killed makers, racing processes, damaged files, a full disk."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mtkd.errors import KitError
from mtkd.store import artifacts as store
from mtkd.store import parts
from mtkd.store.artifacts import Store, key, tensors_load, tensors_save, write_json_atomic
from mtkd.store.files import canonical, plain

SPEC = {"task": "pydocs/topic", "seed": 0, "members": (0, 2)}


def make(folder: Path) -> dict:
    tensors_save(folder / "logits.safetensors", {"logits": torch.arange(6.0).reshape(3, 2)})
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"layers": 1}')
    return {"seconds": 1.5, "members": (0, 2)}


def forget_checks() -> None:
    """Do as a new process would: hash the files again."""
    store._checked.clear()


def start_maker(folder: Path, log: Path, seconds: float) -> subprocess.Popen:
    """A process of its own that makes SPEC slowly, logging when it begins to make and how it ended."""
    code = f"""
import time
from pathlib import Path
from mtkd.store.artifacts import Store
log = Path({str(log)!r})
def note(word):
    with log.open("a") as file:
        file.write(word + "\\n")
def make(folder):
    (folder / "half.bin").write_bytes(b"x" * 1000)
    note("making")
    time.sleep({seconds})
    (folder / "whole.bin").write_bytes(b"y" * 1000)
    return {{"seconds": 1.0}}
found = Store({str(folder)!r}).get("teacher", {SPEC!r}, make)
note("reused" if found.reused else "made")
"""
    return subprocess.Popen([sys.executable, "-c", code])


def wait_for(log: Path, words: int) -> list[str]:
    for _ in range(600):
        found = log.read_text().split() if log.exists() else []
        if len(found) >= words:
            return found
        time.sleep(0.05)
    raise AssertionError(f"only {found} after 30 seconds")


def test_made_once_then_reused(tmp_path):
    calls = []
    first = Store(tmp_path).get("teacher", SPEC, lambda folder: calls.append(1) or make(folder))
    second = Store(tmp_path).get("teacher", SPEC, lambda folder: calls.append(1) or make(folder))
    assert calls == [1]
    assert (first.reused, second.reused) == (False, True)
    assert first.folder == second.folder == tmp_path / "teacher" / key("teacher", SPEC)[:2] / key("teacher", SPEC)
    assert first.info == second.info == {"seconds": 1.5, "members": [0, 2]}
    assert second.spec["members"] == [0, 2]
    assert tensors_load(second.folder / "logits.safetensors")["logits"].tolist() == [[0, 1], [2, 3], [4, 5]]
    sheet = json.loads((first.folder / "artifact.json").read_text())
    assert set(sheet["files"]) == {"logits.safetensors", "model/config.json"}
    assert sheet["files"]["model/config.json"]["bytes"] == 13


def test_has_and_usage(tmp_path):
    kept = Store(tmp_path)
    assert not kept.has("teacher", SPEC)
    assert kept.usage() == {}
    folder = kept.get("teacher", SPEC, make).folder
    assert kept.has("teacher", SPEC)
    assert not kept.has("student", SPEC)
    size = sum((folder / name).stat().st_size for name in ("logits.safetensors", "model/config.json"))
    assert kept.usage() == {"teacher": {"artifacts": 1, "bytes": size}}


def test_key_is_stable_and_sees_what_matters(monkeypatch):
    assert canonical({"b": (1, 2.5), "a": np.int64(3)}) == '{"a":3,"b":[1,2.5]}'
    assert key("x", {"a": (1, 2)}) == key("x", {"a": [1, 2]}) == key("x", {"a": [np.int32(1), 2]})
    monkeypatch.setattr(parts, "room_code", lambda room: room * 2)
    monkeypatch.setattr(parts, "library_versions", lambda: {"torch": "1", "transformers": "2"})
    # golden: every artifact a user has would be lost if this changed
    assert key("model", {"b": 1, "a": (1, 2)}) == "a2ea613b8e6503df0a979da45f26e4d16900b5100e370c8ebbd7eba297e7f927"
    before = key("model", SPEC)
    assert key("logits", SPEC) != before
    monkeypatch.setattr(parts, "library_versions", lambda: {"torch": "1.1", "transformers": "2"})
    assert key("model", SPEC) != before
    monkeypatch.setattr(parts, "library_versions", lambda: {"torch": "1", "transformers": "2"})
    monkeypatch.setattr(parts, "room_code", lambda room: room * 3)
    assert key("model", SPEC) != before


@pytest.mark.parametrize(("value", "words"), [
    (float("nan"), "lr is nan"), (float("inf"), "lr is inf"), ({1: 2}, "keys must be text"),
    (np.random.default_rng(0), "lr is a Generator")])
def test_specs_that_cannot_be_told_apart_are_refused(value, words):
    with pytest.raises(KitError, match=words):
        key("model", {"lr": value})


def test_an_exception_leaves_nothing_behind(tmp_path):
    def fail(folder):
        (folder / "half.bin").write_bytes(b"x")
        raise ZeroDivisionError("no")

    kept = Store(tmp_path)
    with pytest.raises(ZeroDivisionError):
        kept.get("teacher", SPEC, fail)
    assert not kept.has("teacher", SPEC)
    assert list((tmp_path / ".making").iterdir()) == []
    assert not kept.get("teacher", SPEC, make).reused


def test_info_that_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(KitError, match=r"info\.loss is nan"):
        Store(tmp_path).get("teacher", SPEC, lambda folder: {"loss": float("nan")})


def truncate(folder: Path) -> None:
    path = folder / "logits.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_byte(folder: Path) -> None:
    path = folder / "logits.safetensors"
    text = bytearray(path.read_bytes())
    text[-1] ^= 1
    path.write_bytes(text)


def remove_a_file(folder: Path) -> None:
    (folder / "model" / "config.json").unlink()


def change_the_sheet(folder: Path) -> None:
    path = folder / "artifact.json"
    path.write_text(path.read_text().replace('"seconds": 1.5', '"seconds": 1.6'))


def cut_the_sheet(folder: Path) -> None:
    path = folder / "artifact.json"
    path.write_text(path.read_text()[:40])


@pytest.mark.parametrize("harm", [truncate, flip_a_byte, remove_a_file, change_the_sheet, cut_the_sheet])
def test_damage_is_reported_set_aside_and_remade(tmp_path, harm):
    kept = Store(tmp_path)
    folder = kept.get("teacher", SPEC, make).folder
    harm(folder)
    forget_checks()
    with pytest.warns(UserWarning, match="A stored teacher is damaged"):
        again = kept.get("teacher", SPEC, make)
    assert not again.reused
    assert again.info["seconds"] == 1.5
    assert len(list((tmp_path / "damaged" / "teacher").iterdir())) == 1
    forget_checks()
    assert kept.get("teacher", SPEC, make).reused


def test_a_truncated_file_is_noticed_even_when_hashed_before(tmp_path):
    kept = Store(tmp_path)
    truncate(kept.get("teacher", SPEC, make).folder)
    assert not kept.has("teacher", SPEC)
    with pytest.warns(UserWarning, match="has not the size"):
        assert not kept.get("teacher", SPEC, make).reused


def test_kill_in_the_middle_then_another_completes(tmp_path):
    log = tmp_path / "log"
    folder = tmp_path / "store"
    victim = start_maker(folder, log, 60)
    wait_for(log, 1)
    assert [p.name for p in (folder / ".making").glob("*/*")] == ["half.bin"]
    os.kill(victim.pid, signal.SIGKILL)
    assert victim.wait(10) == -signal.SIGKILL
    kept = Store(folder)
    assert not kept.has("teacher", SPEC)
    started = time.monotonic()
    found = kept.get("teacher", SPEC, make)
    assert time.monotonic() - started < 10  # the dead holder's lock was free at once
    assert not found.reused
    assert not (found.folder / "half.bin").exists()


def test_leftovers_of_dead_processes_are_removed(tmp_path):
    log = tmp_path / "log"
    folder = tmp_path / "store"
    victim = start_maker(folder, log, 60)
    wait_for(log, 1)
    living = Store(folder)
    living.get("teacher", {"seed": 1}, make)
    assert len(list((folder / ".making").iterdir())) == 1  # the victim is alive: its folder is left alone
    victim.kill()
    victim.wait(10)
    Store(folder).get("teacher", {"seed": 2}, make)
    assert list((folder / ".making").iterdir()) == []


def test_racing_processes_make_it_once(tmp_path):
    log = tmp_path / "log"
    racers = [start_maker(tmp_path / "store", log, 1.0) for _ in range(2)]
    assert [racer.wait(60) for racer in racers] == [0, 0]
    assert sorted(log.read_text().split()) == ["made", "making", "reused"]


def test_racing_threads_make_it_once(tmp_path):
    calls = []

    def slow(folder):
        calls.append(1)
        time.sleep(0.3)
        return make(folder)

    kept = Store(tmp_path)
    found = []
    threads = [threading.Thread(target=lambda: found.append(kept.get("teacher", SPEC, slow))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert calls == [1]
    assert sorted(a.reused for a in found) == [False, True, True, True]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "full"), RuntimeError("I/O error: No space left on device (os error 28)")],
)
def test_full_disk_is_one_sentence(tmp_path, error):
    def fill(folder):
        (folder / "half.bin").write_bytes(b"x")
        raise error

    kept = Store(tmp_path)
    with pytest.raises(KitError, match="The disk is full") as caught:
        kept.get("teacher", SPEC, fill)
    assert "\n" not in str(caught.value)
    assert not kept.has("teacher", SPEC)
    assert list((tmp_path / ".making").iterdir()) == []


def test_full_disk_for_real(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a disk of 256 KiB needs the right to mount: {mounted.stderr.strip()}")
    try:
        kept = Store(disk / "store")
        big = torch.zeros(100_000)  # 400 kB
        with pytest.raises(KitError, match="The disk is full"):
            kept.get("teacher", SPEC, lambda folder: tensors_save(folder / "big.safetensors", {"big": big}))
        with pytest.raises(KitError, match="The disk is full"):
            kept.get("teacher", SPEC, lambda folder: (folder / "big.bin").write_bytes(bytes(400_000)) and None)
        assert not kept.has("teacher", SPEC)
        assert list((disk / "store" / ".making").iterdir()) == []
        assert not kept.get("teacher", SPEC, make).reused  # there is room again
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_store_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KitError, match="cannot be written"):
        Store(tmp_path / "file" / "store").get("teacher", SPEC, make)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_store_without_permission(tmp_path):
    kept = Store(tmp_path / "store")
    kept.get("teacher", SPEC, make)
    for path in [kept.folder, *kept.folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o555)
    try:
        assert kept.get("teacher", SPEC, make).reused
        with pytest.raises(KitError, match="cannot be written"):
            kept.get("teacher", {"seed": 9}, make)
    finally:
        for path in [kept.folder, *kept.folder.rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)


def test_folder_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MTKD_STORE", str(tmp_path / "here"))
    assert Store().folder == tmp_path / "here"
    monkeypatch.delenv("MTKD_STORE")
    assert Store().folder.parts[-2:] == ("mtkd", "store")


def test_tensors_that_share_memory(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    tensors_save(tmp_path / "x.safetensors", {"whole": whole, "turned": whole.T, "row": whole[1], "n": np.arange(3)})
    back = tensors_load(tmp_path / "x.safetensors")
    assert torch.equal(back["turned"], whole.T)
    assert back["row"].tolist() == [3, 4, 5]
    assert back["n"].dtype == torch.int64
    with pytest.raises(KitError, match="cannot be read"):
        tensors_load(tmp_path / "missing.safetensors")


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a" / "record.json"
    write_json_atomic(path, {"x": (1, 2)})
    with pytest.raises(KitError, match=r"record\.x is nan"):
        write_json_atomic(path, {"x": float("nan")})
    assert json.loads(path.read_text()) == {"x": [1, 2]}
    assert [p.name for p in path.parent.iterdir()] == ["record.json"]
    assert plain(np.float64(0.25)) == 0.25
