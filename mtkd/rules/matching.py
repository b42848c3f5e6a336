"""From terms to modules: what a stage matches, checked before any training, with the reason where a cross cannot work."""

from __future__ import annotations

from torch import nn

from mtkd.errors import KitError
from mtkd.rules import ensembles, experts, policy, relation_terms, rewards, terms  # noqa: F401  (each registers its rules)
from mtkd.rules.registry import Needs, Rule, Setting, Term, find
from mtkd.rules.terms import RuleTerm


def hears(term: Term) -> bool:
    """Whether a term reads the logits of teachers."""
    return find("loss", term.loss).sees == "logits"


def trains_head(term: Term) -> bool:
    """Whether a term trains the head of the student, so that its answers mean something afterwards."""
    return find("loss", term.loss).head


def term_spec(term: Term, names: list[str]) -> dict:
    """A term for the store's keys, teachers by name; a reader's own loss with its code."""
    rule = find("loss", term.loss)
    return {**vars(term), "selection": term.selection.spec(names) if term.selection else None,
            **({"rule": rule.spec()} if rule.own else {})}


def prepare(term: Term, setting: Setting) -> nn.Module:
    """The module of one term, or a KitError that says why this term cannot work here."""
    rule: Rule = find("loss", term.loss)
    if not setting.labelled and (rule.sees == "labels" or term.loss == "teacher_cross_entropy"):
        raise KitError(f"{term.loss} needs labels and this stage's data has none.")
    if rule.sees != "labels" and (term.selection is None or not setting.teachers):
        raise KitError(f"{term.loss} needs a teacher to follow: give the term a selection, and the stage teachers.")
    followed = term.selection.members(len(setting.teachers)) if term.selection else ()
    return (rule.module or RuleTerm)(term, setting, followed)


def prepare_stage(stage, setting: Setting) -> tuple[nn.ModuleList, dict[int, Needs], frozenset[str]]:
    """All terms of a stage (it has `terms` and a `name`), what each teacher must show, and what the student must show."""
    modules = nn.ModuleList(prepare(t, setting) for t in stage.terms)
    own = [t for t in stage.terms if hears(t) and t.combine == "heads"]
    followed = {i for t in own for i in t.selection.members(len(setting.teachers))}
    if own and len(followed) < len(setting.teachers):
        raise KitError(f"combine='heads' trains one head per teacher, and stage '{stage.name}' follows only {len(followed)} of "
                       f"{len(setting.teachers)}: hand over only the teachers that are followed.")
    needs: dict[int, Needs] = {}
    for module in modules:
        if hasattr(module, "needs"):
            for t in module.followed:
                old, new = needs.get(t, Needs()), module.needs(t)
                needs[t] = Needs(tuple(sorted({*old.hidden, *new.hidden})),
                                 tuple(sorted({*old.attention, *new.attention})))
    want = frozenset().union(*(m.want for m in modules if hasattr(m, "want")))
    return modules, {t: n for t, n in needs.items() if n != Needs()}, want
