"""Miniatures: tiny models and data sets that stand in for the hub's, so that a grid for GPUs is tried on a CPU first.

    mtkd smoke params/mt_bert/table2.yaml       every cell from data to record, in a minute or two

A miniature checkpoint has the architecture, the depth and the kind of tokeniser of the one it stands for, a width of 32, and
random weights; a miniature data set has its columns, splits and classes, and sentences of made-up words. What is learned means
nothing. What is found is a wrong name, a missing column, a layer that does not exist, a loss that does not fit a model.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers

from mtkd.data.catalogue import SETS
from mtkd.errors import KitError
from mtkd.models.families import from_scratch
from mtkd.models.grammar import RESNET, SCRATCH, TOKENIZERS, root
from mtkd.tokens.vocabulary import LEARN, special_ids

MODELS = ("teacher", "teachers", "student", "students", "tuned_student", "encoder", "also_finetuned", "augmentation_model")
TASKS = ("task", "transfer")
SIZES = {"train": 48, "validation": 24, "test": 24}
LEAST = {  # a parameter: the most that a miniature run has of it
    "max_length": 24, "vocab": 400, "batch_size": 8, "augmentation": 1, "n_teachers": 3, "speed_texts": 8, "speed_repeats": 1,
    "dev_size": 8, "dev_every": 2, "views": 2, "query_size": 8,
}
WORDS = [a + b + c for a in ("ba", "de", "ki", "lo", "mu") for b in ("na", "po", "ri", "su") for c in ("", "ta", "ne", "ko")]
transformers.logging.disable_progress_bar()
DEEP = ((r"L-(\d+)", 0), (r"(\d+)L", 0), (r"-L(\d+)", 0), (r"large", 24), (r"distil", 6), (r"", 12))
MIND = ("finance", "foodanddrink", "lifestyle", "news", "sports", "travel", "video")


def small(parameters: dict) -> dict:
    """A cell's parameters with little data, one epoch each and short texts; what is compared stays as it is.

    >>> small({"task": "glue/rte", "student_epochs": 20, "train_size": 0, "pool_sizes": [4000, 16000], "controls": True})
    {'task': 'glue/rte', 'student_epochs': 1, 'train_size': 48, 'pool_sizes': [24, 48], 'controls': True}
    """
    made = {}
    for name, value in parameters.items():
        number = isinstance(value, int) and not isinstance(value, bool)
        part = next((p for p in SIZES if name.endswith(f"{p}_size")), None)
        if part:
            value = SIZES[part]
        elif number and (name in LEAST or name.endswith("epochs")):
            value = min(value, LEAST.get(name, 1))
        elif name == "pool_sizes":
            value = [24 * (i + 1) for i in range(len(value))]
        elif name == "task_options":
            value = {k: min(v, 60) if isinstance(v, int) and not isinstance(v, bool) else v for k, v in value.items()}
        elif name == "weak_teachers":
            value = "mark"
        made[name] = value
    return made


def named(cells: Iterable[dict], among: tuple[str, ...]) -> list[str]:
    """The texts under some parameters of some cells, each once."""
    found = [value for cell in cells for name in among for value in ([cell[name]] if isinstance(cell.get(name), str)
                                                                     else cell.get(name) or [])]
    return list(dict.fromkeys(value for value in found if value))


def family(hub_id: str) -> tuple[str, int]:
    """What a checkpoint's name says it is: the family and how many layers; a BERT of 12 where it says nothing.

    >>> family("microsoft/deberta-v3-large"), family("google/bert_uncased_L-4_H-512_A-8"), family("org/something")
    (('deberta-v3', 24), ('bert', 4), ('bert', 12))
    """
    name = hub_id.rsplit("/", 1)[-1].lower().replace("mdeberta", "deberta")
    kind = next((f for f in sorted(TOKENIZERS, key=len, reverse=True) if name.startswith(f)), None)
    kind = kind or next((f for f in sorted(TOKENIZERS, key=len, reverse=True) if f in name), "bert")
    last = hub_id.rsplit("/", 1)[-1]
    return kind, next(fixed or int(found[1]) for pattern, fixed in DEEP if (found := re.search(pattern, last)))


def write_model(hub_id: str, mirror: Path) -> None:
    """A checkpoint of the same family, depth and kind of tokeniser, with random weights, where a mirror has it."""
    folder, (kind, layers) = mirror / hub_id, family(hub_id)
    if (folder / "config.json").is_file():
        return
    rng = np.random.default_rng(0)
    tokenizer = LEARN[TOKENIZERS[kind]]([sentence(rng, k % 3) for k in range(400)], 400)
    torch.manual_seed(0)
    match = SCRATCH.fullmatch(f"{kind}-scratch-{layers}x32h4f64")
    config = from_scratch(match, len(tokenizer), {"num_labels": 2}, special_ids(tokenizer)).config
    masked = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING and kind != "xlnet"
    made = (transformers.AutoModelForMaskedLM if masked else transformers.AutoModel).from_config(config)
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def sentence(rng: np.random.Generator, label: int = 0) -> str:
    """Eight made-up words, of which some give the class away."""
    words = [*rng.choice(WORDS, 6), *[WORDS[label % len(WORDS)]] * 2]
    return " ".join(rng.permutation(words)) + "."


def rows(rng: np.random.Generator, texts: Iterable[str], n: int, classes: int, hidden: bool = False) -> pd.DataFrame:
    """n rows of texts and labels as the hub has them: numbers of classes, scores from 0 to 5 (no classes), -1 where hidden."""
    kinds = [i % max(classes, 2) for i in range(n)]
    labels = [-1] * n if hidden else kinds if classes else [5 * i / n for i in range(n)]
    return pd.DataFrame({**{c: [sentence(rng, k) for k in kinds] for c in texts}, "label": labels, "idx": range(n)})


def write_task(name: str, folder: Path) -> None:
    """A data set's miniature: in the mirror `folder`/hub, or MIND and NBME beside it. What is built in needs none; KitError for
    a data set that has no miniature."""
    rng, hub = np.random.default_rng(len(name)), folder / "hub"

    def parquet(place: str, split: str, frame: pd.DataFrame) -> None:
        (hub / place).mkdir(parents=True, exist_ok=True)
        frame.to_parquet(hub / place / f"{split}-00000-of-00001.parquet")

    if name in SETS:
        entry = SETS[name]
        of = {part: part for part in SIZES} | entry.get("splits", {})
        hidden, more = entry.get("hidden", {}), entry.get("more", {})
        place = f"{entry['hub']}/{entry.get('config') or 'data'}"
        for split in dict.fromkeys(filter(None, [*of.values(), *more.values(), *hidden.values()])):
            n = 4 * SIZES["train"] if split == "train" else 2 * SIZES["test"]
            parquet(place, split, rows(rng, entry["texts"], max(n, 3 * len(entry["classes"])), len(entry["classes"]),
                                       split in hidden.values()))
    elif name == "wiki_qa":
        for split, n in (("train", 80), ("validation", 30), ("test", 30)):
            asked = [(f"Q{q}", f"{sentence(rng)} {q}", sentence(rng, i < 1), int(q % 4 > 0 and i < 1), "")
                     for q in range(n) for i in range(4)]
            columns = ["question_id", "question", "answer", "label", "document_title"]
            parquet("microsoft/wiki_qa/data", split, pd.DataFrame(asked, columns=columns))
    elif name.startswith("mind/"):
        for part, first, last in (("MINDlarge_train", 0, 400), ("MINDlarge_dev", 300, 600)):
            news = [(f"N{i}", MIND[i % 7], "sub", sentence(rng, i % 7), sentence(rng), "u", "[]", "[]")
                    for i in range(first, last)]
            (folder / "mind" / part).mkdir(parents=True, exist_ok=True)
            (folder / "mind" / part / "news.tsv").write_text("".join("\t".join(row) + "\n" for row in news), encoding="utf-8")
    elif name == "nbme":
        notes = [(n, 0, f"HPI: 17yo with {sentence(rng)} Note {n}.") for n in range(60)]
        marked = [(f"{n:05}_{f}", 0, n, f, "[]", ("['5 9']", "[]")[f]) for n in range(60) for f in (0, 1)]
        tables = {"patient_notes.csv": [("pn_num", "case_num", "pn_history"), *notes],
                  "features.csv": [("feature_num", "case_num", "feature_text"), (0, 0, "17-year"), (1, 0, "Fever-OR-chills")],
                  "train.csv": [("id", "case_num", "pn_num", "feature_num", "annotation", "location"), *marked]}
        (folder / "nbme").mkdir(parents=True, exist_ok=True)
        for file, lines in tables.items():
            with (folder / "nbme" / file).open("w", newline="", encoding="utf-8") as open_file:
                csv.writer(open_file).writerows(lines)
    elif name == "cifar10":
        import datasets

        features = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})
        place = hub / "uoft-cs" / "cifar10" / "plain_text"
        place.mkdir(parents=True, exist_ok=True)
        for split, n in (("train", 5100), ("test", 60)):  # 5,000 of train become the validation split
            pixels = [np.full((32, 32, 3), 25 * (i % 10) + rng.integers(0, 20, 3), dtype=np.uint8) for i in range(n)]
            table = {"img": pixels, "label": [i % 10 for i in range(n)]}
            datasets.Dataset.from_dict(table, features=features).to_parquet(place / f"{split}-00000-of-00001.parquet")
    elif not (name.startswith("pydocs/") or name == "digits" or Path(name).exists()):
        raise KitError(f"there is no miniature of the data set {name!r}.")


def write(cells: list[dict], folder: Path) -> dict[str, str]:
    """Miniatures of all that some cells' parameters name, below `folder`; the environment variables that lead there."""
    for name in named(cells, TASKS):
        write_task(name, folder)
    for name in named(cells, MODELS):
        if not RESNET.fullmatch(name) and not name.startswith("finished:") and (checkpoint := root(name)):
            write_model(checkpoint, folder / "hub")
    places = {"MTKD_HUB": "hub", "MTKD_MIND": "mind", "MTKD_NBME": "nbme", "MTKD_STORE": "store", "MTKD_CACHE": "cache",
              "HF_DATASETS_CACHE": "cache/datasets"}
    return {name: str((folder / place).absolute()) for name, place in places.items()}
