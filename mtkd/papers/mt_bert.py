"""MT-BERT's eight claims, tested over independent repeats: in each, teachers and students have seeds of their own.

Everything in one repeat shares its teachers' seeds, so two arms of the same repeat are compared as a pair: one difference
per repeat and setting, n = number of repeats. All differences and margins are in points, that is, the score times 100.
"""

import pandas as pd

from mtkd import papers
from mtkd.evidence.frames import data_note, differences, in_order, margin_points
from mtkd.evidence.verdicts import Member, Verdict, universal
from mtkd.papers import Exhibit
from mtkd.papers.mt_bert_figures import fig3, fig4, fig5
from mtkd.papers.mt_bert_scores import (
    ABLATIONS,
    BASELINES,
    LAYOUT,
    METHODS,
    PAPER,
    POOLERS,
    TEACHERS,
    VARIANTS,
    rows_frame,
    short_name,
    teachers_name,
)
from mtkd.papers.mt_bert_tables import controls, poolers, students, summary, table1, table2, table3

EXHIBITS = {f"{PAPER}.{make.__name__}": make for make in (table1, table2, table3, fig3, fig4, fig5)}
EXTRAS = {f"{PAPER}.controls": controls, f"{PAPER}.poolers": poolers}
__all__ = ["EXHIBITS", "EXTRAS", "claims", "controls", "exhibit", "poolers", "rows_frame", "summary"]


def exhibit(identifier: str, records: list[dict]) -> Exhibit:
    """One exhibit of this paper by id: "mt_bert.fig3", or just "fig3", "controls" or "poolers"."""
    full = identifier if identifier.startswith(PAPER) else f"{PAPER}.{identifier}"
    return EXTRAS[full](records) if full in EXTRAS else papers.exhibit(full, records)


def _against(label: str, ours: pd.DataFrame, rival: pd.DataFrame, **options) -> Member:
    return Member(label, differences(ours, rival, LAYOUT.replicate), **options)


def deep(layers: float) -> str:
    return f"{int(layers)} layer{'s' if layers != 1 else ''}"


def baseline_members(rows: pd.DataFrame) -> list[Member]:
    """M1: MT-BERT minus each baseline of the same depth, with the baseline's own teacher and with MT-BERT's."""
    members = []
    rivals = rows[rows["method"].isin(BASELINES) & (rows["kind"] == "student")]
    for (task, layers, method, variant), group in rivals.groupby(["task", "layers", "method", "variant"], sort=True):
        label = f"{task}, {deep(layers)}: {METHODS[method]}, {VARIANTS.get(variant, variant)}"
        members.append(_against(label, students(rows, "mt_bert", task=task, layers=layers), group))
    return members


def combination_members(rows: pd.DataFrame) -> list[Member]:
    """M2: all teachers minus each set with one fewer, and each set of two or more minus each of its members alone."""
    members = []
    for task, table in rows.groupby("task", sort=True):
        sets = dict(list(table.groupby("teachers")))
        largest = max(map(len, sets))
        for more in sorted(sets, key=lambda names: (len(names), names)):
            fewer = [s for s in sets if set(s) < set(more) and (len(s) == 1 or len(more) == largest == len(s) + 1)]
            for other in sorted(fewer, key=lambda names: (len(names), names)):
                if len(other) == 1 and len(more) == largest > 2:
                    continue  # all teachers against a single one is no part of the claim
                label = f"{task}: {teachers_name(more, largest)} against {' + '.join(map(short_name, other))}"
                members.append(_against(label, sets[more], sets[other]))
    return members


def variant_members(rows: pd.DataFrame, full: str, rivals: tuple[str, ...], names: dict[str, str]) -> list[Member]:
    """The full model minus each variant, per task: M3, M4, the first part of M5, M8."""
    return [_against(f"{task}: {names[rival]}", table[table["variant"] == full], table[table["variant"] == rival])
            for task, table in rows.groupby("task", sort=True) for rival in rivals
            if (table["variant"] == rival).any()]  # fmt: skip


def order_members(rows: pd.DataFrame) -> list[Member]:
    """M5's order: without the task loss is worse than without distillation, which is worse than without hidden."""
    members = []
    for task, table in rows.groupby("task", sort=True):
        by = {name: table[table["variant"] == name] for name in ("no_hidden", "no_distillation", "no_task")}
        for milder, harder, words in (("no_distillation", "no_task", "task matters more than distillation"),
                                      ("no_hidden", "no_distillation", "distillation matters more than hidden")):  # fmt: skip
            if len(by[milder]) and len(by[harder]):
                members.append(_against(f"{task}: {words}", by[milder], by[harder]))
    return members


def ensemble_members(rows: pd.DataFrame) -> list[Member]:
    """M6: MT-BERT minus each ensemble-based method."""
    return [_against(f"{task}: {METHODS[rival]}", students(table, "mt_bert"), students(table, rival))
            for task, table in rows.groupby("task", sort=True) for rival in ("you_2017", "liu_2020")
            if (table["method"] == rival).any()]  # fmt: skip


def teacher_members(rows: pd.DataFrame, teachers: pd.DataFrame, margin: float) -> list[Member]:
    """M7: MT-BERT minus each teacher of the same repeat, fine-tuned alone and co-finetuned; not worse by the margin, or better.

    The paper compares with "the 12-layer version of the teacher models", a group of baselines (3.2) whose SST-2 and RTE
    scores are quoted (footnote 7), so with models that were fine-tuned alone; its students' own teachers are the others.
    """
    members = []
    ours = students(rows, "mt_bert")
    for (task, metric, layers), mine in ours.groupby(["task", "metric", "layers"], sort=True):
        same = teachers[(teachers["task"] == task) & teachers["setting"].isin(set(mine["setting"]))]
        for (name, method), theirs in same.groupby(["teachers", "method"], sort=True):
            options = {"margin": margin_points(metric, margin), "or_better": True}
            label = f"{task}: {deep(layers)} against {short_name(name[0])}, {TEACHERS[method]}"
            members.append(_against(label, mine, theirs, **options))
    return members


def claims(records: list[dict], margin: float = 0.01, alpha: float = 0.05) -> list[Verdict]:
    """Verdicts on M1 to M8, per tier. `margin` is in units of accuracy (0.01 = one point; MCC gets twice that).

    M1: above each baseline of equal depth; M2: three above two above one; M3, M4: above MT-BERT without co-finetuning,
    without weighting; M5: above MT-BERT without each loss, and in the order task, distillation, hidden; M6: above two
    ensemble-based methods; M7: not below any teacher, fine-tuned alone or together, by the margin; M8: attentive pooling
    above the others. Rules: `verdicts.universal`. A claim that no tier has data for is "not tested".
    """
    frame, every = rows_frame(records), rows_frame(records, every=True)
    verdicts = [verdict for tier, rows in frame.groupby("tier", sort=True)
                for verdict in _tier_claims(rows, every[every["tier"] == tier], tier, margin, alpha)]  # fmt: skip
    return in_order(PAPER, verdicts)


def _tier_claims(frame: pd.DataFrame, every: pd.DataFrame, tier: str, margin: float, alpha: float) -> list[Verdict]:
    arm = dict(list(frame.groupby("arm")))
    none = frame.iloc[:0]
    main, ablations = arm.get("main", none), arm.get("ablations", none)
    teachers = every[(every["kind"] == "teacher") & every["method"].isin(TEACHERS)]
    losses = ("no_task", "no_distillation", "no_hidden")
    fair = [m for m in baseline_members(main) if m.label.endswith(VARIANTS["same"])]
    plan = [
        ("M1", baseline_members(main), main, _fair_note(fair, alpha)),
        ("M2", combination_members(arm.get("combinations", none)), arm.get("combinations", none), ""),
        ("M3", variant_members(ablations, "full", ("no_cofinetuning",), ABLATIONS), ablations, ""),
        ("M4", variant_members(ablations, "full", ("no_weighting",), ABLATIONS), ablations, ""),
        ("M5", variant_members(ablations, "full", losses, ABLATIONS) + order_members(ablations), ablations, ""),
        ("M6", ensemble_members(arm.get("ensembles", none)), arm.get("ensembles", none), ""),
        ("M7", teacher_members(main, teachers, margin), main,
         "margin chosen before any run; against each teacher, fine-tuned alone (the paper's first baselines) and together"),
        ("M8", variant_members(arm.get("poolers", none), "attentive", ("mean", "cls"), POOLERS), arm.get("poolers", none), ""),
    ]  # fmt: skip
    verdicts = []
    for name, members, rows, extra in plan:
        if members:
            options = {"alpha": alpha, "tier": tier, "unit": "points", "replicate": LAYOUT.replicates}
            note = "; ".join(part for part in (data_note(LAYOUT, rows), extra) if part)
            verdicts.append(universal(name, members, note=note, **options))
    return verdicts


def _fair_note(members: list[Member], alpha: float) -> str:
    """M1 among equals: only the baselines that had MT-BERT's own teacher and initialisation."""
    outcome = universal("M1", members, alpha=alpha)
    words = f"{outcome.passed} of {outcome.members} settings pass: {outcome.verdict}"
    return f"with equal teacher and initialisation alone {words}" if members else ""
