"""Keys hold values and live code: what changes them, what does not, and what is not stored at all."""

import functools
import linecache
import subprocess
import sys
import types
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mtkd.errors import KitError
from mtkd.rules import losses
from mtkd.rules.registry import find, loss
from mtkd.rules.selection import selection
from mtkd.store.artifacts import Store, key, tally
from mtkd.store.keys import Undescribed, describe, digest, room_code

AGREEING = """
@selection
def agreeing(said, batch, *, least=0.5):
    votes = said.logits.argmax(-1)
    return (votes == votes[:, :1]).float() * least
"""


def cell(source: str, **given) -> dict:
    """The names of a notebook's cell after it was run, its source at hand as IPython keeps it."""
    name = f"<cell-{abs(hash(source))}>"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    names = {"__name__": "__main__", "selection": selection, "loss": loss, "torch": torch, **given}
    exec(compile(source, name, "exec"), names)
    return names


def spec(source: str, name: str = "agreeing", **options) -> str:
    return digest(cell(source)[name](**options).spec(["a", "b"]))


def test_layout_comments_and_docstrings_do_not_count():
    edited = AGREEING.replace("    votes =", '    "What it does."\n    # a comment\n    votes  =', 1)
    assert spec(AGREEING) == spec(edited)


@pytest.mark.parametrize("change", [("[:, :1]", "[:, 1:2]"), ("0.5", "0.4"), ("argmax", "argmin"), ("* least", "* least * 2")])
def test_a_changed_word_of_code_or_default_counts(change):
    assert spec(AGREEING) != spec(AGREEING.replace(*change))


def test_options_count():
    assert spec(AGREEING) != spec(AGREEING, least=0.6)


@pytest.mark.parametrize("source", [
    "def half(x):\n    return x * {}\n@selection\ndef f(said, batch):\n    return half(said)\n",
    "def make(c):\n    @selection\n    def f(said, batch):\n        return said * c\n    return f\nf = make({})\n",
    "w = torch.tensor([{}])\n@selection\ndef f(said, batch):\n    return said * w\n",
    "f = selection(lambda said, batch: said * {}, name='f')\n",
])
def test_helpers_closures_and_constants_count(source):
    assert spec(source.format(1.0), "f") == spec(source.format(1.0), "f") != spec(source.format(2.0), "f")


def test_a_name_of_an_attribute_is_not_a_global():
    source = "logits = open('/dev/null')\n" + AGREEING
    assert spec(source) == spec(AGREEING)


def test_classes_count_with_their_constructors():
    source = ("from mtkd.rules.selection import Chosen\n"
              "class Power(Chosen):\n"
              "    def __init__(self, p):\n        object.__setattr__(self, 'of', None); object.__setattr__(self, 'p', p)\n"
              "    def weights(self, batch, teachers, step, rng):\n        return teachers.logits.amax(-1) ** self.p * {}\n")
    power = cell(source.format(1))["Power"]
    assert power(1.0).spec(["a"]) == power(1.0).spec(["a"]) != power(50.0).spec(["a"])
    assert power(1.0).spec(["a"]) != cell(source.format(2))["Power"](1.0).spec(["a"])


def test_partials_lambdas_recursion_and_modules_have_a_description():
    assert describe(lambda x: x + 1) != describe(lambda x: x + 2)
    assert describe(functools.partial(max, 1)) != describe(functools.partial(max, 2))
    both = "def a(n):\n    return b(n - 1) if n else 0\ndef b(n):\n    return a(n - 1) if n else {}\n"
    assert describe(cell(both.format(1))["a"]) == describe(cell(both.format(1))["a"]) != describe(cell(both.format(2))["a"])
    own = types.ModuleType("a_module_of_mine")
    exec("def helper(x):\n    return x\n", own.__dict__)
    before = describe(own)
    own.helper = lambda x: x + 1
    assert describe(own) != before
    assert set(describe(torch)) == {"module", "version"}


def test_what_has_no_description_is_refused_by_name():
    with pytest.raises(Undescribed, match=r"f: handle is a .*hand it over as numbers"):
        describe(cell("handle = open('/dev/null')\ndef f():\n    return handle\n")["f"], "f")


def test_a_room_sees_what_is_patched_and_forgets_it_again(monkeypatch):
    rules, tokens = room_code("rules"), room_code("tokens")
    with monkeypatch.context() as patched:
        patched.setattr(losses, "soft_cross_entropy", lambda *a, **k: a[0].sum(-1))
        assert room_code("rules") != rules
        assert room_code("tokens") == tokens
    assert room_code("rules") == rules
    with monkeypatch.context() as patched:
        patched.setattr(losses.cross_entropy, "__code__", (lambda logits, labels: logits).__code__)
        assert room_code("rules") != rules
    assert room_code("rules") == rules


def test_an_edited_loss_keeps_tokens_and_no_model(monkeypatch):
    before = {kind: key(kind, {"a": 1}) for kind in ("tokenizer", "model", "logits")}
    monkeypatch.setattr(losses, "squared_error", lambda a, b: (a - b).abs().mean(-1))
    after = {kind: key(kind, {"a": 1}) for kind in before}
    assert {kind for kind in before if before[kind] != after[kind]} == {"model"}


def test_keys_are_the_same_in_another_process():
    code = ("import sys; sys.path.insert(0, sys.argv[1]); from test_keys import *; "
            "print(spec(AGREEING), key('model', {'a': {1, 2, 'x'}}), *map(room_code, ('tokens', 'rules', 'train', 'models')))")
    outputs = set()
    for seed in ("1", "2"):
        done = subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, text=True,
                              env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path.cwd())}, check=True)
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert len(outputs.pop().split()) == 6


# --- the store -----------------------------------------------------------------------------------------------------------


def made(store: Store, rule, calls: list):
    return store.get("model", {"stage": {"selection": rule.spec(["a"])}}, lambda folder: calls.append(1) or {"n": len(calls)})


def test_an_edited_rule_is_made_anew_and_the_reason_is_said(tmp_path):
    store, calls = Store(tmp_path), []
    tally(forget=True)
    old = cell(AGREEING)["agreeing"]()
    new = cell(AGREEING.replace("argmax", "argmin"))["agreeing"]()
    assert not made(store, old, calls).reused
    assert made(store, old, calls).reused
    assert not made(store, new, calls).reused
    assert len(calls) == 2
    assert tally(forget=True) == "models: 1 reused, 1 made, 1 made (the code of `agreeing` changed)"


def test_another_code_of_a_room_is_said(tmp_path, monkeypatch):
    store, calls = Store(tmp_path), []
    rule = cell(AGREEING)["agreeing"]()
    made(store, rule, calls)
    tally(forget=True)
    monkeypatch.setattr(losses, "hidden_mse", lambda *a: a[0])
    made(store, rule, calls)
    assert tally(forget=True) == "models: 1 made (the code in mtkd/rules changed)"


def test_code_that_changes_while_it_trains_is_not_stored(tmp_path, monkeypatch):
    store = Store(tmp_path)

    def make(folder: Path) -> dict:
        (folder / "weights").write_text("half by one loss, half by another")
        monkeypatch.setattr(losses, "soft_cross_entropy", lambda *a, **k: a[0].sum(-1))
        return {"seconds": 1.0}

    with pytest.warns(UserWarning, match="A model is not stored: the code of rules changed while it was made"):
        found = store.get("model", {"seed": 0}, make)
    assert (found.folder / "weights").is_file()
    assert found.info == {"seconds": 1.0}
    assert not store.has("model", {"seed": 0})
    monkeypatch.undo()
    assert not store.has("model", {"seed": 0})


def test_what_no_key_can_describe_is_made_and_not_stored(tmp_path):
    store, calls = Store(tmp_path), []
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        first, second = (store.get("model", {"rule": torch.Generator()}, lambda folder: calls.append(1)) for _ in range(2))
    assert len(calls) == 2
    assert first.folder != second.folder
    assert "not stored, since spec.rule is a Generator" in str(seen[0].message)


def test_the_last_definition_of_a_name_counts():
    cell(AGREEING)
    assert find("selection", "agreeing").options == {}
    again = cell(AGREEING.replace("0.5", "0.9"))["agreeing"]
    assert find("selection", "agreeing") is again
    with pytest.raises(KitError, match="has no option 'lest'; did you mean 'least'"):
        again(lest=1)
    with pytest.raises(KitError, match="no such selection: 'agreing'; did you mean 'agreeing'"):
        find("selection", "agreing")


@dataclass(frozen=True)
class Holder:
    value: float = 1.0


def test_dataclasses_count_by_class_and_fields():
    assert describe(Holder(1.0)) == describe(Holder()) != describe(Holder(2.0))
