"""RL-KD's seven claims, tested over independent repeats: in each, teachers and students have seeds of their own.

Everything in one repeat shares its teachers and its students' seed, so two arms of the same repeat are compared as a pair.
All differences are in points, that is, the score times 100. "RL-KD" without a reward means reward 3, the paper's best.
R1 and R7 say that something *can* happen and are tested as such (mtkd/papers/rl_kd_existence.py); R6 is a claim about
spread (mtkd/papers/rl_kd_spread.py); for the others the rules are `verdicts.universal`'s.
"""

import pandas as pd

from mtkd import papers
from mtkd.evidence.frames import data_note, differences, in_order
from mtkd.evidence.verdicts import Member, Verdict, universal
from mtkd.papers import Exhibit
from mtkd.papers.rl_kd_existence import exists, inversions, some
from mtkd.papers.rl_kd_figures import curves
from mtkd.papers.rl_kd_looks import controls, readings, search, start
from mtkd.papers.rl_kd_scores import (
    AGAIN,
    CONTROLS,
    ENSEMBLES,
    LAYOUT,
    METHODS,
    PAPER,
    REWARDS,
    RL,
    exception,
    method_name,
    rows_frame,
    short_name,
)
from mtkd.papers.rl_kd_spread import alike, compared
from mtkd.papers.rl_kd_tables import RUNS, run_scores, summary, table1, table2, table3, table4, table5

EXHIBITS = {f"{PAPER}.{make.__name__}": make for make in (table1, table2, table3, table4, table5)}
EXTRAS = {f"{PAPER}.{make.__name__}": make for make in (start, curves, controls, readings, search)}
MORE = ", as many epochs"
FAIR = ("v_kd", "w", "rand", "lr_train", "lr_dev", "u")  # R7's rivals: as many epochs as Best-Single's student has
__all__ = ["CONTROLS", "EXHIBITS", "EXTRAS", "claims", "exhibit", "rows_frame", "summary"]


def exhibit(identifier: str, records: list[dict]) -> Exhibit:
    """One exhibit of this paper by id: "rl_kd.table4", or just "table4", "start", "curves", "controls" ..."""
    full = identifier if identifier.startswith(f"{PAPER}.") else f"{PAPER}.{identifier}"
    return EXTRAS[full](records) if full in EXTRAS else papers.exhibit(full, records)


def _against(label: str, ours: pd.DataFrame, rival: pd.DataFrame) -> Member:
    return Member(label, differences(ours, rival, LAYOUT.replicate))


def by_student(main: pd.DataFrame) -> list[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Per task and student: what a label calls them, the rows, and those of RL-KD with the reward that stands for it."""
    groups = main[main["kind"] != "control"].groupby(["task", "student"], sort=True)
    return [(f"{task}, {short_name(student)}", rows, rows[(rows["method"] == "rl") & (rows["variant"] == RL)])
            for (task, student), rows in groups]  # fmt: skip


def ensemble_members(teachers: pd.DataFrame) -> list[Member]:
    """R2: each ensemble minus each single teacher, and LR-Dev minus each other ensemble."""
    members = []
    for task, rows in teachers.groupby("task", sort=True):
        ensembles = {m: rows[rows["method"] == m] for m in ENSEMBLES if (rows["method"] == m).any()}
        for name, ours in ensembles.items():
            for teacher, single in rows[rows["kind"] == "teacher"].groupby("teachers", sort=True):
                members.append(_against(f"{task}: {METHODS[name]} against {short_name(teacher[0])}", ours, single))
        for name, rival in ensembles.items():
            if name != "lr_dev" and "lr_dev" in ensembles:
                members.append(_against(f"{task}: {METHODS['lr_dev']} against {METHODS[name]}", ensembles["lr_dev"], rival))
    return members


def rival_members(main: pd.DataFrame) -> tuple[list[Member], list[Member]]:
    """R3: RL-KD minus every other student of its task and size; and those of the paper's own exception, kept apart.

    Fine-tuning and what AGAIN names are rivals twice where those controls were run: as the paper has them, with fewer epochs
    than RL-KD, and with as many.
    """
    members, excepted = [], []
    again = main[main["variant"].isin(("plain_ce", *AGAIN))]
    for label, rows, ours in by_student(main):
        same = (again["task"] == rows["task"].iloc[0]) & (again["student"] == rows["student"].iloc[0])
        rivals = pd.concat([rows[rows["method"] != "rl"], again[same]])
        rivals = rivals.assign(name=[method_name(row) for _, row in rivals.iterrows()])
        found = [_against(f"{label}: RL-KD against {name}", ours, rival) for name, rival in rivals.groupby("name", sort=True)]
        apart = exception(rows["task"].iloc[0], rows["layers"].max())
        (excepted if apart else members).extend(found if len(ours) else [])
    return members, excepted


def reward_members(main: pd.DataFrame) -> list[Member]:
    """R4: reward 3 minus each of the others."""
    return [_against(f"{label}: against {name}", ours, rows[rows["variant"] == variant])
            for label, rows, ours in by_student(main) for variant, name in REWARDS.items()
            if variant != RL and (rows["variant"] == variant).any()]  # fmt: skip


def run_members(main: pd.DataFrame) -> list[Member]:
    """R5: RL-KD minus W-Ensemble and minus LR-Ensemble (LR-Dev); and with as many epochs, where that control was run."""
    members = []
    for label, rows, ours in by_student(main):
        for method, again in (("w", "w_again"), ("lr_dev", "lr_dev_again")):
            longer = main[(main["variant"] == again) & (main["task"] == rows["task"].iloc[0])]
            rivals = {RUNS[method]: rows[rows["method"] == method],
                      RUNS[method] + MORE: longer[longer["student"] == rows["student"].iloc[0]]}
            members += [_against(f"{label}: against {name}", ours, rival) for name, rival in rivals.items() if len(rival)]
    return members


def run_note(main: pd.DataFrame) -> str:
    """R5 by the paper's own test beside the paired one: p values and effect size, rival by rival."""
    words = []
    for label, rows, _ in by_student(main):
        ours = run_scores(rows, "rl")
        for method in ("w", "lr_dev"):
            both = pd.concat([ours, run_scores(rows, method)], axis=1, join="inner")
            if len(both) > 1:
                found = compared(both.iloc[:, 0], both.iloc[:, 1])
                words.append(f"{label}, {RUNS[method]}: paper's two-sided t-test of two samples p = {found.p_two_sample:.3f}, "
                             f"two-sided paired p = {found.p_paired:.3f}, d_z = {found.dz:+.1f}")
    return "; ".join(words)


def spread_pairs(main: pd.DataFrame) -> list[tuple[str, pd.Series, pd.Series]]:
    """R6: the scores by repeat of RL-KD and of each plain distillation of Table 5."""
    found = []
    for label, rows, ours in by_student(main):
        for method in ("w", "lr_dev"):
            rival = rows[rows["method"] == method]
            if len(ours) and len(rival):
                found.append((f"{label}: against {RUNS[method]}", *(r.set_index("repeat")["score"] for r in (ours, rival))))
    return found


def best_single_members(main: pd.DataFrame) -> list[Member]:
    """R7: every student with as many epochs, minus the one that followed the best single teacher of each sample."""
    members = []
    for label, rows, _ in by_student(main):
        best = rows[rows["method"] == "best_single"]
        rivals = rows[rows["method"].isin(FAIR)]
        rivals = rivals.assign(name=[method_name(row) for _, row in rivals.iterrows()])
        members += [_against(f"{label}: {name} against Best-Single", other, best)
                    for name, other in rivals.groupby("name") if len(best)]
    return members


def claims(records: list[dict], margin: float = 2.0, alpha: float = 0.05) -> list[Verdict]:
    """Verdicts on R1 to R7, per tier. `margin`: the ratio of standard deviations that R6 calls alike (1 / margin to margin).

    R1: some pair of teachers of which one is the better model and the other the better teacher; R2: each ensemble above
    each single teacher, LR-Dev above each other ensemble; R3: RL-KD above every other student but for the paper's own
    exception; R4: reward 3 above the others; R5: above W- and LR-Ensemble; R6: spread alike; R7: some student of equal
    compute above Best-Single's. A claim that no tier has data for is "not tested".
    """
    frame = rows_frame(records)
    verdicts = [verdict for tier, rows in frame.groupby("tier", sort=True)
                for verdict in _tier_claims(rows, tier, margin, alpha)]  # fmt: skip
    return in_order(PAPER, verdicts)


def _tier_claims(frame: pd.DataFrame, tier: str, margin: float, alpha: float) -> list[Verdict]:
    arm = dict(list(frame.groupby("arm")))
    teachers, main = arm.get("teachers", frame.iloc[:0]), arm.get("main", frame.iloc[:0])
    options = {"alpha": alpha, "tier": tier}
    members, excepted = rival_members(main)
    ensembles, runs = ensemble_members(teachers), run_members(main)
    plan = [("R2", ensembles, teachers, _without(ensembles, METHODS["rand"], alpha)),
            ("R3", members, main, "; ".join(filter(None, (_fewer(members, alpha), _exception_note(excepted))))),
            ("R4", reward_members(main), main, ""),
            ("R5", runs, main, "; ".join(filter(None, (_fewer(runs, alpha), run_note(main)))))]  # fmt: skip
    found = []
    for name, parts, rows, extra in plan:
        if parts:
            note = "; ".join(part for part in (data_note(LAYOUT, rows), extra) if part)
            found.append(universal(name, parts, note=note, unit="points", replicate=LAYOUT.replicates, **options))
    parts, groups = inversions(teachers, main[main["method"] == "v_kd"], short_name, alpha)
    if parts:
        test = f"two one-sided paired t-tests per ordered pair of teachers, one pair must pass both (alpha {alpha:g}, Holm-"
        test += "corrected; contradicted if in every pair the better model is the better teacher)"
        found.append(some("R1", parts, groups, test=test, note=data_note(LAYOUT, main), **options))
    if pairs := spread_pairs(main):
        note = data_note(LAYOUT, main) + "; factor chosen before any run"
        found.append(alike("R6", pairs, ratio=margin, note=note, **options))
    if best := best_single_members(main):
        note = data_note(LAYOUT, main) + "; against students of equal compute"
        found.append(exists("R7", best, words=f"each of {len(best)} settings", note=note, **options))
    return found


def _without(members: list[Member], name: str, alpha: float) -> str:
    """R2 without the ensemble that is one teacher at a time, whose expected score is the mean of the single ones."""
    rest = [member for member in members if name not in member.label]
    outcome = universal("R2", rest, alpha=alpha)
    return f"without {name} {outcome.passed} of {outcome.members} settings pass: {outcome.verdict}" if rest else ""


def _fewer(members: list[Member], alpha: float) -> str:
    """What would be said of the rivals as the paper has them, with fewer epochs than RL-KD, and how many of the others pass."""
    as_printed = [member for member in members if not member.label.endswith(MORE)]
    if not 0 < len(as_printed) < len(members):
        return ""
    outcome = universal("", as_printed, alpha=alpha)
    words = f"against rivals with fewer epochs, as in the paper, {outcome.passed} of {outcome.members} settings pass"
    longer = universal("", [member for member in members if member.label.endswith(MORE)], alpha=alpha)
    return f"{words}: {outcome.verdict}; with as many epochs, {longer.passed} of {longer.members} pass"


def _exception_note(excepted: list[Member]) -> str:
    """What came out where the paper makes an exception for itself."""
    if not excepted:
        return ""
    worst = min(excepted, key=lambda member: member.differences.mean() if len(member.differences) else 0.0)
    return (f"the paper's own exception, {worst.label.split(':')[0]}, is left out ({len(excepted)} settings; the lowest mean "
            f"difference there is {worst.differences.mean():+.1f}, {worst.label.split(': ')[1]})")
