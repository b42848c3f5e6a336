"""MT-BERT's rows: what its notebook writes, how they become a frame, and the names that tables and figures print.

One row is one trained model. `arm` is the section of the notebook that asked for it, and every section has its own row of
the full MT-BERT, so that each exhibit needs the rows of one section only:

    arm             kind                             method, variant
    teachers        teacher, ensemble                cofinetuned | independent
    main            student                          mt_bert; distilbert, pkd, tinybert with variant own | same
                    undistilled, control             plain; mt_bert with shuffled_teacher, uniform_teacher, plain_ce
    combinations    student                          mt_bert, one row per set of teachers
    ablations       student                          mt_bert, variant full | no_cofinetuning | no_weighting | ...
    ensembles       student                          mt_bert, you_2017, liu_2020
    poolers         student                          mt_bert, variant attentive | mean | cls
"""

import pandas as pd

from mtkd.evidence import frames
from mtkd.evidence.frames import Layout, plain_name
from mtkd.models.families import SCRATCH

PAPER = "mt_bert"
SECTIONS = ("main", "combinations", "ablations", "ensembles", "poolers")
METHODS = {
    "mt_bert": "MT-BERT", "distilbert": "DistilBERT", "pkd": "BERT-PKD", "tinybert": "TinyBERT",
    "you_2017": "You et al. 2017", "liu_2020": "Liu et al. 2020",
}  # fmt: skip
BASELINES = ("distilbert", "pkd", "tinybert")
TEACHERS = {"cofinetuned": "co-finetuned", "independent": "alone"}
VARIANTS = {"own": "its own teacher", "same": "MT-BERT's teacher"}
ABLATIONS = {
    "full": "MT-BERT", "no_cofinetuning": "without co-finetuning", "no_weighting": "without weighting",
    "no_task": "without task loss", "no_distillation": "without distillation loss", "no_hidden": "without hidden loss",
}  # fmt: skip
POOLERS = {"attentive": "attentive", "mean": "mean", "cls": "[CLS]"}
CONTROLS = {
    "shuffled_teacher": "shuffled teachers", "uniform_teacher": "uniform teachers", "plain_ce": "plain CE, same steps",
    "undistilled": "not distilled",
}  # fmt: skip
WITHOUT_HIDDEN = ("shuffled_teacher", "uniform_teacher")  # the hidden loss would show them the right states
TASKS = {"sst2": "SST-2", "rte": "RTE", "mind": "MIND"}
STAND_INS = {"pydocs/topic": "MIND"}
CHECKPOINTS = {"bert-base-uncased": "BERT", "roberta-base": "RoBERTa", "mpnet-base": "MPNet (for UniLM)"}
FAMILIES = {"bert": "BERT", "roberta": "RoBERTa", "mpnet": "MPNet", "distilbert": "DistilBERT", "albert": "ALBERT",
            "xlnet": "XLNet", "deberta": "DeBERTa", "deberta-v3": "DeBERTa-v3", "electra": "ELECTRA"}  # fmt: skip

LAYOUT = Layout(
    PAPER,
    plain=(
        "arm", "task", "kind", "method", "variant", "repeat", "layers", "teachers", "model", "metric", "score", "metrics",
        "split", "validation", "n_test", "parameters", "energy_kwh", "folder",
    ),
    identity=("arm", "task", "kind", "method", "variant", "repeat", "layers", "teachers"),
    replicate="repeat", replicates="repeats", may_differ=("repeats", "sections", "controls", "margin"),
    convert={"teachers": lambda teachers: tuple(teachers or ())},
)  # fmt: skip


def rows_frame(records: list[dict], every: bool = False) -> pd.DataFrame:
    """All rows of this paper's records (see `frames.rows_frame`), macro-F1 in a column of its own; no variant is ""."""
    frame = frames.rows_frame(LAYOUT, records, every)
    macro = [(metrics or {}).get("macro_f1") for metrics in frame.pop("metrics")]
    return frame.assign(macro_f1=pd.array(macro, dtype="Float64").astype(float), variant=frame["variant"].fillna(""))


def printed_name(task: str) -> str | None:
    """The paper's name for a task of its own data ("glue/sst2" gives "SST-2", "mind/topic" "MIND"); None for any other."""
    return TASKS.get(plain_name(task)) or ("MIND" if task.startswith("mind/") else None)


def short_name(model: str) -> str:
    """A teacher's name as a table has it: the paper's for its checkpoints, family and size for a model from scratch, else
    the last part of the name.

    >>> short_name("google-bert/bert-base-uncased"), short_name("mpnet-scratch-2x64h2f128"), short_name("scratch-2x64")
    ('BERT', 'MPNet 2x64', 'BERT 2x64')
    """
    if match := SCRATCH.fullmatch(model):
        return f"{FAMILIES[match[1] or 'bert']} {match[2]}x{match[3]}"
    last = model.rstrip("/").rsplit("/", 1)[-1]
    return CHECKPOINTS.get(last, last)


def teachers_name(teachers: tuple[str, ...], largest: int) -> str:
    """A combination of teachers as Table 3 names it: "All", or names joined by +."""
    return "All" if len(teachers) == largest > 1 else " + ".join(short_name(t) for t in teachers)


def method_name(row: pd.Series) -> str:
    """What Table 2 calls a model: "MT-BERT 6", "DistilBERT 6, its own teacher", "not distilled 6", "RoBERTa 12 alone"."""
    depth = f" {int(row['layers'])}" if pd.notna(row["layers"]) else ""
    if row["kind"] == "undistilled":
        return f"not distilled{depth}"
    if row["kind"] in ("teacher", "ensemble"):
        how = TEACHERS[row["method"]]
        if row["kind"] == "ensemble":
            return f"mean of the teachers' logits, {how}"
        name = short_name(row["teachers"][0])
        return f"{name}{depth if name in CHECKPOINTS.values() else ''}, {how}"  # other names say their depth
    name = METHODS.get(row["method"], str(row["method"]))
    return f"{name}{depth}" + (f", {VARIANTS[row['variant']]}" if row["variant"] in VARIANTS else "")


def metric_name(metric: str) -> str:
    return {"accuracy": "Acc", "macro_f1": "Macro-F", "mcc": "MCC", "f1": "F1"}.get(metric, metric)


def shown_metrics(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """(label, column of the frame) for the rows of one task: its metric, and macro-F1 but on the paper's balanced sets."""
    name, metric = printed_name(rows["task"].iloc[0]), rows["metric"].iloc[0]
    shown = [(metric_name(metric), "score")]
    if name not in ("SST-2", "RTE") and metric != "macro_f1" and rows["macro_f1"].notna().any():
        shown.append(("Macro-F", "macro_f1"))
    return shown
