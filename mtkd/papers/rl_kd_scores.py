"""RL-KD's rows: what its notebook writes, how they become a frame, and the names that tables and figures print.

One row is one trained model (or one ensemble of teachers) scored on one split. `arm` is the section of the notebook that
asked for it, and every section has its own row of the full RL-KD:

    arm         kind                      method, variant
    teachers    teacher, ensemble         single; u | w | rand | lr_train | lr_dev
    main        undistilled, student      ft; v_kd (one per teacher), u | w | rand | lr_train | lr_dev | best_single,
                                          rl with variant reward_1 | reward_2 | reward_3
                control                   rl with variant average_again | w_again | lr_dev_again | best_single_again |
                                          v_kd_again | plain_ce | random_policy | shuffled | uniform
    readings    student                   rl, variant full | printed | no_baseline | ...: the paper's contradictions

The student of method u is also the one that every RL-KD student starts from.
"""

import pandas as pd

from mtkd.evidence import frames
from mtkd.evidence.frames import Layout, plain_name
from mtkd.models.families import SCRATCH

PAPER = "rl_kd"
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
TASKS = {"qqp": "QQP", "mrpc": "MRPC", "mnlimm": "MNLI-mm", "mnli": "MNLI-m", "rte": "RTE", "qnli": "QNLI", "sst2": "SST-2"}
STAND_INS = {"pydocs/topic": "SST-2"}  # one text; the paper's other tasks are pairs of texts
CHECKPOINTS = {
    "bert-base-uncased": "BERT", "roberta-base": "RoBERTa", "xlnet-base-cased": "XLNet", "albert-base-v2": "ALBERT",
    "albert-base-v1": "ALBERT",
}  # fmt: skip
FAMILIES = {"bert": "BERT", "roberta": "RoBERTa", "xlnet": "XLNet", "albert": "ALBERT", "mpnet": "MPNet",
            "distilbert": "DistilBERT", "deberta": "DeBERTa", "deberta-v3": "DeBERTa-v3", "electra": "ELECTRA"}  # fmt: skip
HYPER = ("lr", "temperature", "alpha", "gamma")  # what the paper chooses on validation, for every model on its own

LAYOUT = Layout(
    PAPER,
    plain=(
        "arm", "task", "kind", "method", "variant", "repeat", "student", "layers", "teachers", "model", "metric", "score",
        "split", "validation", "n_test", "parameters", *HYPER, "epochs", "curve", "policy", "energy_kwh", "folder",
    ),
    identity=("arm", "task", "kind", "method", "variant", "repeat", "student", "teachers", *HYPER),
    replicate="repeat", replicates="repeats",
    may_differ=("repeats", "sections", "controls", "margin", "student_lr", "temperature", "alpha", "gamma"),
    convert={"teachers": lambda teachers: tuple(teachers or ())},
)  # fmt: skip

MODEL = ["tier", "setting", *(name for name in LAYOUT.identity if name not in ("repeat", *HYPER))]  # one number in the paper


def rows_frame(records: list[dict]) -> pd.DataFrame:
    """All rows of this paper's records (see `frames.rows_frame`), no variant being "". Of a grid over learning rate, T,
    alpha and gamma each model keeps the setting that was best on validation (`best_on_validation`)."""
    return best_on_validation(grid_frame(records))


def grid_frame(records: list[dict]) -> pd.DataFrame:
    """`rows_frame` before anything was chosen: every point of a grid, which the column `point` names."""
    frame = frames.rows_frame(LAYOUT, records)
    points = [", ".join(f"{name} {value:g}" for name, value in zip(HYPER, map(float, row)) if value == value)
              for row in frame[list(HYPER)].astype(float).itertuples(index=False)]  # fmt: skip
    return frame.assign(variant=frame["variant"].fillna(""), student=frame["student"].fillna(""), point=points)


def comparable(rows: pd.DataFrame) -> pd.DataFrame:
    """Of one model's rows: those by which points of a grid are compared, on the repeats that all of the points have.

    A search has one repeat of many points, and Table 4 five of one: they share one. A point that lacks the repeat that most
    points have is not compared.
    """
    points = rows.groupby("repeat")["point"].nunique()
    compared = rows[rows["point"].isin(rows["point"][rows["repeat"] == points.idxmax()])]
    have = compared.groupby("repeat")["point"].nunique()
    return compared[compared["repeat"].isin(have.index[have == have.max()])]


def means_on_validation(rows: pd.DataFrame) -> pd.Series:
    """Of one model's rows: mean validation score per point of the grid, over the repeats that they share."""
    return comparable(rows).groupby("point", sort=False)["validation"].mean()


def best_on_validation(frame: pd.DataFrame) -> pd.DataFrame:
    """For each model, all rows of the hyper-parameters with the highest validation score; `grid` says of how many.

    A model is what the paper gives one number (tier, section, task, student, method, teachers); its score on validation
    is the mean over the repeats that all settings have, so that one that was run more often than others competes on equal
    terms. What is kept are all repeats of the winner. The test score has no part in this.
    """
    kept = []
    for _, rows in frame.groupby(MODEL, sort=False, dropna=False):
        means = means_on_validation(rows)
        kept.append(rows[rows["point"] == means.idxmax()].assign(grid=len(means)))
    return pd.concat(kept).sort_index() if kept else frame.assign(grid=0)


def starts(every: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """The rows of the students that those of `after` went on from: U-Ensemble's with the same learning rate, T and alpha, which
    in a search need not be those that were best for U-Ensemble itself. every: a `grid_frame`."""
    same = ["tier", "setting", "arm", "task", "student", "repeat", "lr", "temperature", "alpha"]
    before = every[(every["method"] == "u") & (every["kind"] == "student")]
    return before.merge(after[same].drop_duplicates(), on=same)


def printed_name(task: str) -> str | None:
    """The paper's name for a task of its own data; None for any other.

    >>> printed_name("glue/sst2"), printed_name("glue/mnli"), printed_name("glue/mnli-mm"), printed_name("pydocs/topic")
    ('SST-2', 'MNLI-m', 'MNLI-mm', None)
    """
    return TASKS.get(plain_name(task))


def short_name(model: str) -> str:
    """A model's name as a table has it: the paper's for its checkpoints, with the layers of a student cut from one; family
    and size for a model from scratch; else the last part of the name.

    >>> short_name("google-bert/bert-base-uncased"), short_name("bottom-3 of google-bert/bert-base-uncased")
    ('BERT', 'BERT 3')
    >>> short_name("roberta-scratch-2x64h2"), short_name("bottom-2 of minilm"), short_name("finished:/home/me/my_bert")
    ('RoBERTa 2x64', 'bottom-2 of minilm', 'my_bert')
    """
    if match := SCRATCH.fullmatch(model):
        return f"{FAMILIES[match[1] or 'bert']} {match[2]}x{match[3]}"
    cut, _, source = model.rpartition(" of ")
    last = source.removeprefix("finished:").rstrip("/").rsplit("/", 1)[-1]
    if cut:
        return f"{CHECKPOINTS[last]} {cut.rpartition('-')[2]}" if last in CHECKPOINTS else f"{cut} of {last}"
    return CHECKPOINTS.get(last, last)


def method_name(row: pd.Series) -> str:
    """What the paper's tables call a row's model, without its student: "W-Ensemble", "RL-KD reward 1", or for vanilla KD
    from one teacher that teacher's name ("RoBERTa 12")."""
    if row["kind"] == "control":
        return CONTROLS.get(row["variant"], row["variant"])
    if row["method"] in ("v_kd", "single"):
        name = short_name(row["teachers"][0])
        return f"{name} 12" if name in CHECKPOINTS.values() else name
    if row["method"] == "rl":
        return REWARDS.get(row["variant"]) or READINGS.get(row["variant"], row["variant"])
    return METHODS[row["method"]]


def exception(task: str, layers: float) -> bool:
    """The exception that the paper makes for itself in its claim R3: BERT with 3 layers on MRPC."""
    return printed_name(task) == "MRPC" and layers <= 3
