"""What a kind of artifact is made of, and what changed since the last one of the same spec."""

from collections.abc import Iterator
from functools import cache
from importlib.metadata import version

from mtkd.store.keys import describe, digest, room_code

# The rooms whose code makes a kind of artifact. A kind that is not listed counts all of them.
EVERY = ("tokens", "models", "rules", "measure", "train")
ROOMS = {
    "tokenizer": ("tokens",), "augmented": ("tokens",), "pool": ("data",), "pool-tokens": ("tokens",),
    "pretrained": ("models",), "floor": ("measure", "train"),
    **dict.fromkeys(("logits", "states", "representation"), ("tokens", "models", "train")),
}


@cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries whose arithmetic ends up in an artifact."""
    return {name: version(name) for name in ("torch", "transformers")}


def made_of(kind: str, spec: dict) -> dict:
    """All that an artifact is made of, as plain data: its spec, the live code of its rooms, the libraries' versions."""
    rooms = {room: room_code(room) for room in ROOMS.get(kind, EVERY)}
    return {"kind": kind, "spec": describe(spec), "code": rooms, "versions": library_versions()}


def key(kind: str, spec: dict) -> str:
    """sha256 (hex) of `made_of`; raises KitError where the spec holds what no key can describe."""
    return digest(made_of(kind, spec))


def changes(before: dict, now: dict) -> str:
    """Why an artifact is made anew, from what an earlier one of the same spec was made of; "new" where nothing tells."""
    rules = sorted(set(_changed(before["spec"], now["spec"])))
    rooms = [room for room, code in now["code"].items() if before["code"].get(room) != code]
    said = [f"the code of {', '.join(f'`{r}`' for r in rules)} changed"] if rules else []
    said += [f"the code in {', '.join(f'mtkd/{r}' for r in rooms)} changed"] if rooms else []
    said += [f"{name} is {v}" for name, v in now["versions"].items() if before["versions"].get(name) != v]
    return "; ".join(said) or "new"


def without_code(spec):
    """A described spec without the code in it: what stays the same when a rule is edited."""
    if isinstance(spec, dict):
        return {k: without_code(v) for k, v in spec.items() if k != "code"}
    return [without_code(v) for v in spec] if isinstance(spec, list) else spec


def _changed(before, now, name: str = "a rule") -> Iterator[str]:
    """The names of the rules whose code differs between two specs that are else the same."""
    if isinstance(now, dict) and isinstance(before, dict):
        name = next((now[k] for k in ("loss", "selection", "reward", "name") if isinstance(now.get(k), str)), name)
        for k, v in now.items():
            if k == "code" and before.get(k) != v:
                yield name
            elif k != "code":
                yield from _changed(before.get(k), v, name)
    elif isinstance(now, list) and isinstance(before, list):
        for old, new in zip(before, now):
            yield from _changed(old, new, name)
