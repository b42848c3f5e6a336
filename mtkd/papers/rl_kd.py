"""What rl_kd.yaml cannot say: the point of a grid that validation chose, inversions among teachers (R1), and equal spread (R6).
Table 5 and the learning curves are in rl_kd_tables.py.

Everything in one repeat shares its teachers and its students' seed, so two arms of the same repeat are compared as a pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from mtkd.evidence.frame import differences, points, rows_frame
from mtkd.evidence.paper import Paper
from mtkd.evidence.verdicts import Member, examine
from mtkd.papers import read
from mtkd.papers.mt_bert_scores import scratch_name
from mtkd.papers.rl_kd_tables import compared, learning, runs, table5_runs

SECTIONS = ("main", "readings")
METHODS = {
    "ft": "FT", "v_kd": "V-KD", "u": "U-Ensemble", "w": "W-Ensemble", "rand": "Rand-Single-Ensemble",
    "lr_train": "LR-Train-Ensemble", "lr_dev": "LR-Dev-Ensemble", "best_single": "Best-Single-Ensemble", "rl": "RL-KD",
}  # fmt: skip
ENSEMBLES = ("u", "w", "rand", "lr_train", "lr_dev")  # can be used on new samples; best_single needs their labels
REWARDS = {"reward_1": "RL-KD reward 1", "reward_2": "RL-KD reward 2", "reward_3": "RL-KD reward 3"}
RL = "reward_3"  # what "RL-KD" means in a claim that names no reward: the paper's best one, and that of Table 5
CONTROLS = {
    "average_again": "U-Ensemble, as many epochs", "w_again": "W-Ensemble, as many epochs",
    "lr_dev_again": "LR-Dev-Ensemble, as many epochs", "best_single_again": "Best-Single-Ensemble, as many epochs",
    "v_kd_again": "V-KD of the best teacher, as many epochs", "plain_ce": "FT, as many epochs",
    "random_policy": "an untrained policy (chance)", "shuffled": "RL-KD, shuffled teachers",
    "uniform": "RL-KD, uniform teachers",
}  # fmt: skip
AGAIN = {"average_again": "u", "w_again": "w", "lr_dev_again": "lr_dev", "best_single_again": "best_single",
         "v_kd_again": "v_kd"}  # no policy, for as many epochs as RL-KD has  # fmt: skip
READINGS = {
    "full": "as in the other sections", "printed": "gradient of π as printed (Eq. 8)",
    "no_baseline": "no baseline subtracted from the reward", "batch_credit": "one reward per batch (= episode)",
    "batchwise": "KD and policy on alternate batches", "student_reward": "policy pre-trained on the student's reward",
    "unscaled": "distillation loss not multiplied by T squared", "loss_scale": "rewards with the distillation loss as the "
    "student's loss has it, times T squared",
}  # fmt: skip
UNIT = "doublings of the standard deviation"
HYPER = ("lr", "temperature", "alpha", "gamma")  # what the paper chooses on validation, for every model on its own
MODEL = ["tier", "setting", "arm", "task", "kind", "method", "variant", "student", "teachers"]  # one number in the paper
START = ["tier", "setting", "task", "student", "repeat", "lr", "temperature", "alpha"]  # equal for a student and its start


# --- the search on validation -----------------------------------------------------------------------------------------


def comparable(rows: pd.DataFrame) -> pd.DataFrame:
    """Of one model's rows: those by which points of a grid are compared, on the repeats that all of the points have.

    A search has one repeat of many points, and Table 4 five of one: they share one. A point that lacks the repeat that most
    points have is not compared.
    """
    points = rows.groupby("repeat")["point"].nunique()
    compared = rows[rows["point"].isin(rows["point"][rows["repeat"] == points.idxmax()])]
    have = compared.groupby("repeat")["point"].nunique()
    return compared[compared["repeat"].isin(have.index[have == have.max()])]


def with_points(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with `point`, the hyper-parameters of a row in words, and with `pupil`, `followed` and `teacher`, what
    tables call its student, its teachers and the first of these."""
    values = frame.reindex(columns=HYPER).astype(float).to_numpy()
    words = [", ".join(f"{name} {value:g}" for name, value in zip(HYPER, row) if value == value) for row in values]
    followed = [tuple(map(short_name, names)) for names in frame["teachers"]]
    return frame.assign(point=words, pupil=frame["student"].map(short_name), followed=followed,
                        teacher=[names[0] if names else "-" for names in followed])


def best_on_validation(frame: pd.DataFrame) -> pd.DataFrame:
    """For each model, all rows of the hyper-parameters with the highest mean validation score; `grid` says of how many.

    The mean is over the repeats that all settings have, so that one that was run more often than others competes on equal
    terms; what is kept are all repeats of the winner. The test score has no part in this. Rows of one more arm, "starts", are
    the students that those of RL-KD went on from, with their variant: U-Ensemble's with the same learning rate, T and alpha,
    which need not be those that were best for U-Ensemble itself.
    """
    frame, kept = with_points(frame), []
    for _, rows in frame.groupby(MODEL, sort=False):
        means = comparable(rows).groupby("point", sort=False)["validation"].mean()
        kept.append(rows[rows["point"] == means.idxmax()].assign(grid=len(means)))
    best = pd.concat(kept).sort_index() if kept else frame.assign(grid=0)
    before = frame[(frame["method"] == "u") & (frame["kind"] == "student")].drop(columns="variant").assign(grid=1)
    after = best[(best["arm"] == "main") & (best["method"] == "rl")]
    starts = before.merge(after[[*START, "variant"]].drop_duplicates(), on=START).assign(arm="starts")
    return pd.concat([best, starts], ignore_index=True)


# --- names ------------------------------------------------------------------------------------------------------------

CHECKPOINTS = {"bert-base-uncased": "BERT", "roberta-base": "RoBERTa", "xlnet-base-cased": "XLNet", "albert-base-v2": "ALBERT",
               "albert-base-v1": "ALBERT"}


def short_name(model: str) -> str:
    """A model's name as a table has it: the paper's for its checkpoints, with the layers of a student cut from one; family
    and size for a model from scratch; else the last part of the name; a dash for none.

    >>> short_name("google-bert/bert-base-uncased"), short_name("bottom-3 of google-bert/bert-base-uncased")
    ('BERT', 'BERT 3')
    >>> short_name("roberta-scratch-2x64h2"), short_name("bottom-2 of minilm"), short_name("finished:/home/me/my_bert")
    ('RoBERTa 2x64', 'bottom-2 of minilm', 'my_bert')
    """
    if name := scratch_name(model):
        return name
    cut, _, source = model.rpartition(" of ")
    last = source.removeprefix("finished:").rstrip("/").rsplit("/", 1)[-1]
    if cut:
        return f"{CHECKPOINTS[last]} {cut.rpartition('-')[2]}" if last in CHECKPOINTS else f"{cut} of {last}"
    return CHECKPOINTS.get(last, last) or "-"


def label(row: pd.Series) -> str:
    """What the paper's tables call a row's model, without its student: "W-Ensemble", "RL-KD reward 1", or for vanilla KD
    from one teacher that teacher's name ("RoBERTa 12")."""
    if row["kind"] != "control" and row["method"] in ("v_kd", "single"):
        name = short_name(row["teachers"][0])
        return f"{name} 12" if name in CHECKPOINTS.values() else name
    if row["method"] == "rl":
        return {**REWARDS, **CONTROLS, **READINGS}.get(row["variant"], row["variant"])
    return METHODS[row["method"]]


# --- R1: something happens; R6: two spreads are alike -----------------------------------------------------------------


def inversions(rows: pd.DataFrame, every: pd.DataFrame, margin: float, alpha: float) -> list[Member]:
    """R1: of every ordered pair of teachers per task and student: is the first the better model, and the second the better
    teacher? Both must hold, so a part's p is the larger of the two (an intersection-union test), and so is the p of the
    opposite: better model and better teacher. The two directions of a pair are one group, since they exclude each other."""
    models, found = rows[(rows["arm"] == "teachers") & (rows["kind"] == "teacher")], []
    students = rows[(rows["arm"] == "main") & (rows["method"] == "v_kd") & (rows["kind"] == "student")]
    for (task, student), mine in students.groupby(["task", "student"], sort=True):
        by = {short_name(t[0]): (models[(models["task"] == task) & (models["teachers"] == t)], pupils)
              for t, pupils in mine.groupby("teachers", sort=True)}
        for pair in combinations(by, 2):
            for a, b in (pair, pair[::-1]):
                words = f"{task}, {short_name(student)}: {a} the better model, {b} the better teacher"
                taught = differences(by[b][1], by[a][1])
                model, pupil = (examine(Member(words, d), alpha) for d in (differences(by[a][0], by[b][0]), taught))
                own = {name: max(model["p"], pupil[name]) for name in ("p", "p_against")}
                weaker = max(model, pupil, key=lambda part: part["p"])                     # how far the inversion goes
                own |= {"group": str((task, student, *pair)), "upper": min(model["interval"][1], pupil["interval"][1]),
                        "shown": {name: weaker[name] for name in ("effect", "interval", "sd")}}
                found.append(Member(f"{words} (itself {model['effect']:+.1f})", taught, own=own, where=(task, student)))
    return found


def spread_test(ours: Sequence[float], theirs: Sequence[float], ratio: float = 2.0, alpha: float = 0.05) -> dict:
    """Are two paired samples' standard deviations within a factor `ratio` of each other (Pitman and Morgan, one-sided twice)?

    Runs of one repeat share their seeds, so the samples are paired: where X and Y have equal variances, X + Y and X - Y do not
    correlate. effect: log2 of ours / theirs; interval: of level 1 - 2 alpha, on the same scale; p: for "within the factor";
    p_against: for "ours is larger by more than the factor"; 1 below three pairs or where a sample has no spread. Five pairs
    are few for a variance:

    >>> found = spread_test([71.0, 73, 75, 74, 72], [72.0, 73.5, 75.5, 73, 71])
    >>> [round(float(2**x), 2) for x in (found["effect"], *found["interval"])]
    [0.93, 0.47, 1.85]
    """
    x, y = np.asarray(ours, float), np.asarray(theirs, float)
    n = len(x)
    found = {"n": n, "effect": math.nan, "interval": (math.nan, math.nan), "p": 1.0, "p_against": 1.0}
    if n < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return found

    def larger(factor: float) -> float:
        """One-sided p of "the standard deviation of x is more than `factor` times that of y"."""
        r = np.corrcoef(x / factor + y, x / factor - y)[0, 1]
        return float(stats.t.sf(r * math.sqrt((n - 2) / max(1e-15, 1 - r * r)), n - 2))

    effect = math.log2(x.std(ddof=1) / y.std(ddof=1))
    r2 = float(np.corrcoef(x, y)[0, 1] ** 2)
    k = 1 + 2 * (1 - r2) * stats.t.ppf(1 - alpha, n - 2) ** 2 / (n - 2)
    half = 0.5 * math.log2(k + math.sqrt(k * k - 1))                    # of the log2 of a ratio of standard deviations
    return found | {"effect": effect, "interval": (effect - half, effect + half), "p_against": larger(ratio),
                    "p": max(larger(1 / ratio), 1 - larger(ratio))}


def jackknife(both: pd.DataFrame) -> pd.Series:
    """log2 of the ratio of two columns' standard deviations as one value per row: n times that of all rows less n - 1 times
    that of all others (Miller 1968); their mean is nearly the ratio itself, and they vary as it does."""
    n = len(both)

    def ratio(rows: pd.DataFrame) -> float:
        return math.log2(rows.iloc[:, 0].std() / rows.iloc[:, 1].std())

    if n < 4 or (both.nunique() < 3).any():
        return pd.Series(dtype=float)
    return pd.Series({at: n * ratio(both) - (n - 1) * ratio(both.drop(at)) for at in both.index})


def spreads(rows: pd.DataFrame, every: pd.DataFrame, margin: float, alpha: float) -> list[Member]:
    """R6: RL-KD's scores by repeat and those of each plain distillation of Table 5, their spreads within a factor `margin`. A
    setting has the test of Pitman and Morgan; for the mean over settings each has a value per repeat, the jackknife's."""
    found = []
    for (task, _, pupil), scores in table5_runs(rows):
        for name, theirs in list(scores.items())[:-1]:
            both = pd.concat([scores["RL-KD"], theirs], axis=1, join="inner").dropna()
            if len(scores["RL-KD"]) and len(theirs):
                own = spread_test(*both.to_numpy().T, margin, alpha)
                label = f"{task}, {pupil}: against {name}"
                found.append(Member(label, jackknife(both), "equal", math.log2(margin), UNIT, own=own))
    return found


def search(paper: Paper, entry: dict, rows: pd.DataFrame, records: list[dict]) -> pd.DataFrame:
    """What the search over learning rate, T, alpha and gamma chose, and what choosing on the test split would show."""
    frame, table = with_points(rows_frame(paper.rows, records)), []
    for _, rows in frame[frame["arm"] == "main"].groupby(MODEL, sort=False):
        if rows["point"].nunique() > 1:
            by = comparable(rows).groupby("point", sort=False)[["validation", "score"]].mean()
            first, best, tests = rows.iloc[0], by["validation"].idxmax(), 100 * by["score"]
            chosen = rows[rows["point"] == best]
            table.append({
                "tier": first["tier"], "task": first["task"], "student": first["pupil"], "method": paper.label(first),
                "settings": len(by), "chosen": best, "validation": points(chosen["validation"]),
                "test": points(chosen["score"]), "worst to best test score": f"{tests.min():.1f} to {tests.max():.1f}"})
    return pd.DataFrame(table)


def about(rows: pd.DataFrame, records: list[dict]) -> str:
    """What a caption adds where a search chose."""
    most = rows["grid"].max() if "grid" in rows else 0
    return f"Learning rate, T, α and γ of each row were chosen on validation, from up to {most} settings." if most > 1 else ""


PAPER = read("rl_kd", label=label, derive=best_on_validation, parts={"R1": inversions, "R6": spreads}, about=about,
                   draws={"runs": runs, "search": search, "learning": learning})
__all__ = ["PAPER", "claims", "compared", "exhibit", "frame", "short_name", "spread_test", "summary"]
claims, exhibit, frame, summary = PAPER.claims, PAPER.exhibit, PAPER.frame, PAPER.summary
