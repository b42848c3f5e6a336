"""The words in MT-BERT's rows and what tables call them, for the study that writes rows and the tables that read them."""

import re

SECTIONS = ("main", "combinations", "ablations", "ensembles", "poolers")
BASELINES = ("distilbert", "pkd", "tinybert")
METHODS = {
    "mt_bert": "MT-BERT", "distilbert": "DistilBERT", "pkd": "BERT-PKD", "tinybert": "TinyBERT",
    "you_2017": "You et al. 2017", "liu_2020": "Liu et al. 2020",
}  # fmt: skip
TEACHERS = {"cofinetuned": "co-finetuned", "independent": "alone"}
VARIANTS = {"own": "its own teacher", "same": "MT-BERT's teacher"}
ABLATIONS = {
    "full": "MT-BERT", "no_cofinetuning": "without co-finetuning", "no_weighting": "without weighting",
    "no_task": "without task loss", "no_distillation": "without distillation loss", "no_hidden": "without hidden loss",
}  # fmt: skip
POOLERS = {"attentive": "attentive", "mean": "mean", "cls": "[CLS]"}
CONTROLS = {"shuffled_teacher": "shuffled teachers", "uniform_teacher": "uniform teachers", "plain_ce": "plain CE, same steps"}
CHECKPOINTS = {"bert-base-uncased": "BERT", "roberta-base": "RoBERTa", "mpnet-base": "MPNet (for UniLM)"}
FAMILIES = {"bert": "BERT", "roberta": "RoBERTa", "mpnet": "MPNet", "distilbert": "DistilBERT", "albert": "ALBERT",
            "xlnet": "XLNet", "deberta": "DeBERTa", "deberta-v3": "DeBERTa-v3", "electra": "ELECTRA"}  # fmt: skip
SCRATCH = re.compile(rf"(?:({'|'.join(FAMILIES)})-)?scratch-(\d+)x(\d+)(?:h\d+)?(?:f\d+)?")


def scratch_name(model: str) -> str | None:
    """Family and size of a model from scratch, as a table has it; None for any other.

    >>> scratch_name("mpnet-scratch-2x64h2f128"), scratch_name("scratch-2x64"), scratch_name("minilm")
    ('MPNet 2x64', 'BERT 2x64', None)
    """
    match = SCRATCH.fullmatch(model)
    return f"{FAMILIES[match[1] or 'bert']} {match[2]}x{match[3]}" if match else None


def short_name(model: str) -> str:
    """A teacher's name as a table has it: the paper's for its checkpoints, family and size for a model from scratch, else
    the last part of the name.

    >>> short_name("google-bert/bert-base-uncased"), short_name("scratch-2x64")
    ('BERT', 'BERT 2x64')
    """
    last = model.rstrip("/").rsplit("/", 1)[-1]
    return scratch_name(model) or CHECKPOINTS.get(last, last)
