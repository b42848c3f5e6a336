"""The three plug-points of the kit, and the names of what is plugged in: the papers' own rules and a reader's alike.

    @loss                                          @selection                           @reward
    def f(student, teacher, batch, *, power=2.0):  def f(said, batch, *, least=0.5):    def f(ce, dl, accuracy, *, gamma=0.5):
        return one value per sample                    return weights [B, T]                return one value per sample

A rule is a plain function of tensors whose keyword-only arguments are its options. Called with tensors it computes; called with
options it gives what a recipe holds: a loss a `Term`, a selection a `Selection`, a reward itself with these values. By name it
is a value of a notebook's parameter or a grid file. The same name may be given again: the last one counts, and its key in the
store is another, since keys hold the code (mtkd/store/keys.py).

    >>> @reward
    ... def bold(ce, dl, accuracy, *, gamma=0.5):
    ...     return -gamma * ce
    >>> bold(gamma=0.9).options, find("reward", "bold").name
    ({'gamma': 0.9}, 'bold')
    >>> bold(gama=0.9)
    Traceback (most recent call last):
    mtkd.errors.KitError: the reward 'bold' has no option 'gama'; did you mean 'gamma'?
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from mtkd.errors import KitError, nearest
from mtkd.store.keys import KIT, describe

if TYPE_CHECKING:
    from mtkd.rules.selection import Selection

KINDS = ("loss", "selection", "reward")
_RULES: dict[str, dict[str, Rule]] = {kind: {} for kind in KINDS}  # no part of the room's code: a reader's rules come in here
GIVEN = ("step", "rng")  # keyword arguments of a selection that the loop fills in; they are no options
HOW = ("weight", "temperature", "t_squared", "kl", "combine")  # a term's own fields, of every loss


@dataclass(frozen=True)
class Needs:
    """Which inner states of one teacher a stage reads: hidden layers (0 = embeddings) and attention layers (1-based)."""

    hidden: tuple[int, ...] = ()
    attention: tuple[int, ...] = ()

    @property
    def want(self) -> frozenset[str]:
        return frozenset(w for w in ("hidden", "attention") if getattr(self, w))


@dataclass
class TeacherBatch:
    """What the teachers say of a batch. logits [B, T, C], or [B, L, T, C] in a span task; hidden[t][layer] [B, L, d];
    attention[t][layer] [B, h, L, L]; only what was asked for. seen[t] [B, L]: student tokens that teacher t has a counterpart
    of (absent: all of them). features [B, d]: what the samples are, by an encoder that is no teacher, for selections that
    look at it."""

    logits: Tensor
    hidden: dict[int, dict[int, Tensor]] = field(default_factory=dict)
    attention: dict[int, dict[int, Tensor]] = field(default_factory=dict)
    seen: dict[int, Tensor] = field(default_factory=dict)
    features: Tensor | None = None


@dataclass(frozen=True)
class Term:
    """One summand of a stage's loss: a loss by name (`mtkd rules` lists them), whom it follows, how teachers combine.

    combine: "logits" (Eq. 9: mean of logits), "probabilities" (mean of probabilities), "losses" (one loss per teacher,
    summed with the selection's weights as they are), "heads" (student head i against teacher i), "one_head" (the only
    soft head against the mean of logits). The three things called "averaging teachers" in the five papers differ; this
    field is where the difference is visible.
    """

    loss: str
    selection: Selection | None = None
    combine: str = "logits"
    weight: float = 1.0
    temperature: float = 1.0
    t_squared: bool = False
    kl: bool = False
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """What a term must fit: the student's and the teachers' shapes (empty dict: no layers to see), the task; heads: how many
    the student has besides its own logits (soft heads, or the members of a co-finetuned set)."""

    student: dict[str, int]
    teachers: list[dict[str, int]]
    regression: bool = False
    labelled: bool = True
    heads: int = 0


@dataclass(frozen=True)
class Rule:
    """A registered function, or class, with values of its options.

    sees: what a loss reads of the teachers ("labels": nothing, "logits", "hidden", "attention"); head: whether it trains the
    head of the student; module: the class that makes a loss a part of a stage, where the function alone does not.
    """

    kind: str
    name: str
    function: Callable = field(repr=False)
    options: dict = field(default_factory=dict)
    sees: str = "logits"
    head: bool = True
    module: type | None = field(default=None, repr=False)
    bind: Callable | None = field(default=None, repr=False)

    def __call__(self, *given, **options):
        if len(given) > 1 or (given and (self.kind == "selection" or isinstance(given[0], Tensor))):
            return self.function(*given, **{**self.options, **options})
        if self.kind == "loss":
            return self.term(*given, **options)
        self.check(options)
        made = replace(self, options={**self.options, **options})
        return made.bind(made) if made.bind else made

    def term(self, selection: Selection | None = None, **options) -> Term:
        """A term with this loss; options beside the loss's own: weight, temperature, t_squared, kl, combine."""
        how = {name: options.pop(name) for name in HOW if name in options}
        self.check(options)
        return Term(self.name, selection() if isinstance(selection, Rule) else selection, **how, options=options)

    @property
    def known(self) -> tuple[str, ...]:
        """The names of the options."""
        if self.module is not None:
            return tuple(getattr(self.module, "options", ()))
        if isinstance(self.function, type):
            return tuple(n for n in getattr(self.function, "__dataclass_fields__", ()) if not n.startswith("_"))
        found = inspect.signature(self.function).parameters.values()
        return tuple(p.name for p in found if p.kind is p.KEYWORD_ONLY and p.name not in (*GIVEN, *HOW))

    def check(self, options: dict) -> None:
        """KitError at an option that the rule does not have."""
        for name in options:
            if name not in self.known:
                raise KitError(f"the {self.kind} {self.name!r} has no option {name!r}{nearest(name, self.known)}")

    def given(self, **values) -> dict:
        """Those of the values that the function asks for by name."""
        asked = inspect.signature(self.function).parameters
        return {name: value for name, value in values.items() if name in asked}

    @property
    def own(self) -> bool:
        """Whether it is a reader's, whose code its key has to hold; the code of the kit's counts room by room."""
        return not (getattr(self.module or self.function, "__module__", None) or "").startswith(f"{KIT}.")

    def spec(self) -> dict:
        """What the store's keys hold of it."""
        code = {"code": describe(self.module or self.function, self.name)} if self.own else {}
        return {self.kind: self.name, **self.options, **code}

    @property
    def says(self) -> str:
        """The first line of its description."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


def register(kind: str, thing: Callable | None = None, *, name: str = "", **about):
    """Decorator: the function or class becomes a rule of that kind, under its own name in lower case unless another is given.
    A function is replaced by its Rule, a class stays what it is."""
    if thing is None:
        return partial(register, kind, name=name, **about)
    if kind == "loss" and isinstance(thing, type):
        about = {"module": thing, **about}
    name = name or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", thing.__name__).lower()
    _RULES[kind][name] = rule = Rule(kind, name, thing, **about)
    return thing if isinstance(thing, type) else rule


loss, reward = partial(register, "loss"), partial(register, "reward")


def term(name: str, function: Callable, **about) -> Callable:
    """Decorator: a module class is the loss of that name; `function` is its equation."""
    def decorate(module: type) -> type:
        register("loss", function, name=name, module=module, **about)
        return module
    return decorate


def registered(kind: str) -> list[Rule]:
    """All rules of a kind, in the order they came."""
    return list(_RULES[kind].values())


def find(kind: str, name: str) -> Rule:
    """A rule by name, as a parameter or a grid file says it; KitError with the nearest name where there is none."""
    if name not in _RULES[kind]:
        raise KitError(f"no such {kind}: {name!r}{nearest(str(name), _RULES[kind])}")
    return _RULES[kind][name]
