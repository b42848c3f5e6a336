"""Orders, packed arrays and batches are what they were when tests/golden/tokens.json was written, bit by bit.

`python -m tests.tokens.test_golden_tokens` writes the file anew; do that only where they are meant to change.
"""

import hashlib
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtkd.data.tasks import Split
from mtkd.store.artifacts import Store
from mtkd.tokens.batches import iterate, plan
from mtkd.tokens.pool import attach
from mtkd.train.prepare import Augmentation, Views, prepare
from tests.conftest import make_image_task, make_pair_task, make_text_task, sentences

GOLDEN = Path(__file__).parents[1] / "golden" / "tokens.json"


def digest(*arrays) -> str:
    found = hashlib.sha256()
    for array in map(np.asarray, arrays):
        found.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def epoch(data, seed: int | None, size: int = 8, view: int = 0) -> list:
    """[hash of the order, hash of all that its batches hold, the first batch's rows]"""
    order = [np.asarray(b, np.int64) for b in plan(data, size, None if seed is None else np.random.default_rng(seed))]
    batches = list(iterate(data, size, None if seed is None else np.random.default_rng(seed), view))
    held = [a for b in batches for a in (b.rows, b.labels, *(b.inputs[k] for k in sorted(b.inputs)),
                                         *([] if b.mask is None else [b.mask]))]
    return [digest(*order), digest(*held), order[0].tolist()]


def with_unlabelled(task, n: int):
    first, second = sentences(n, 70)[0], sentences(n, 71)[0]
    inputs = list(zip(first, second)) if task.kind == "pair" else [(t,) for t in first]
    split = Split([f"u{i}" for i in range(n)], inputs, np.full(n, -1))
    return replace(task, splits=task.splits | {"unlabelled": split})


def summaries(folder: Path) -> dict:
    found, store = {}, Store(folder / "store")
    task, pairs = with_unlabelled(make_text_task(), 3500), with_unlabelled(make_pair_task(), 150)
    for family in ("scratch-1x32", "roberta-scratch-1x32", "xlnet-scratch-1x32", "deberta-v3-scratch-1x32", "bilstm-1x8e8"):
        for made in (task, pairs):
            prepared = prepare(made, family, vocab=150, max_length=14, store=store)
            data = prepared.data("train")
            found[f"{family} {made.kind}"] = [
                prepared.vocab, digest(data.tokens, data.types, data.offsets), *epoch(data, 1), *epoch(data, None),
                digest(prepared.places("train").starts, prepared.places("train").ends, prepared.places("train").role)]
    prepared = prepare(task, "scratch-1x32", vocab=150, store=store, augmentation=Augmentation(2))
    found["augmented"] = [*epoch(prepared.data("augmented/1"), 2), prepared.texts("augmented/1").inputs[:4]]
    attach(prepared, "pool")
    found["pool"] = [*epoch(prepared.data("pool"), 3, 32), *epoch(prepared.data("pool"), None, 32)]
    split = task.splits["unlabelled"]
    pd.DataFrame({"text": [t for t, in split.inputs], "id": split.ids}).to_parquet(folder / "rows.parquet")
    attach(prepared, "file", folder / "rows.parquet", 2500)
    found["pool of a file"] = epoch(prepared.data("file"), 3, 32)
    images = prepare(make_image_task(), "resnet-8w8", store=store, views=Views(3, crop=2))
    found["images"] = [*epoch(images.data("train"), 4, view=1), *epoch(images.data("test"), None)]
    return json.loads(json.dumps(found))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return summaries(tmp_path_factory.mktemp("golden"))


KNOWN = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}


@pytest.mark.parametrize("case", KNOWN)
def test_batches_are_what_they_were(made, case):
    assert made[case] == KNOWN[case]


if __name__ == "__main__":
    made = summaries(Path(tempfile.mkdtemp()))
    lines = ",\n".join(f"{json.dumps(case)}: {json.dumps(found)}" for case, found in made.items())
    GOLDEN.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    sys.stdout.write(f"{len(made)} cases\n")
