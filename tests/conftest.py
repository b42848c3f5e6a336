"""What all tests share: a store of their own, one thread, no bars, no network; and three hand-made tasks."""

import os

os.environ["MTKD_PROGRESS"] = "0"
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest
import torch

from mtkd.data.tasks import Split, Task

torch.set_num_threads(1)

CLASSES = ("sea", "farm", "city")
WORDS = {
    "sea": ["boat", "wave", "fish", "sail", "harbour", "tide"],
    "farm": ["cow", "barn", "wheat", "plough", "field", "goat"],
    "city": ["tram", "street", "tower", "market", "bridge", "crowd"],
}
COMMON = ["the", "a", "near", "old", "big", "with", "and", "in"]


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    """Every test starts with an empty store; those that share one ask for it themselves."""
    monkeypatch.setenv("MTKD_STORE", str(tmp_path / "store"))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def sentences(n: int, seed: int) -> tuple[list[str], np.ndarray]:
    """n sentences of 3 to 12 words; the class of each shows in two or three of its words."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(CLASSES)
    texts = []
    for label in labels:
        own = list(rng.choice(WORDS[CLASSES[label]], size=rng.integers(2, 4)))
        other = list(rng.choice(COMMON, size=rng.integers(1, 10)))
        words = own + other
        rng.shuffle(words)
        texts.append(" ".join(words))
    return texts, labels.astype(np.int64)


def text_split(name: str, n: int, seed: int) -> Split:
    texts, labels = sentences(n, seed)
    return Split([f"{name}-{i}" for i in range(n)], [(t,) for t in texts], labels)


SIZES = {"train": 60, "validation": 24, "test": 30}


def make_text_task() -> Task:
    splits = {name: text_split(name, n, 10 + i) for i, (name, n) in enumerate(SIZES.items())}
    return Task("tiny/text", "text", CLASSES, splits, "accuracy", ("accuracy", "macro_f1"))


def make_pair_task() -> Task:
    """Do the two sentences have the same class?"""
    splits = {}
    for k, (name, n) in enumerate(SIZES.items()):
        first, a = sentences(n, 20 + k)
        second, b = sentences(2 * n, 30 + k)
        second, b = second[::2], b[::2]
        splits[name] = Split([f"{name}-{i}" for i in range(n)], list(zip(first, second)), (a == b).astype(np.int64))
    return Task("tiny/pair", "pair", ("no", "yes"), splits, "accuracy", ("accuracy", "f1", "mcc"))


def make_regression_task() -> Task:
    """How many words of a sentence are about the sea: a float."""
    splits = {}
    for k, (name, n) in enumerate(SIZES.items()):
        texts, _ = sentences(n, 40 + k)
        labels = [sum(w in WORDS["sea"] for w in t.split()) for t in texts]
        splits[name] = Split([f"{name}-{i}" for i in range(n)], [(t,) for t in texts], np.array(labels, np.float32))
    return Task("tiny/regression", "text", (), splits, "pearson", ("pearson", "spearman"))


def make_image_task() -> Task:
    """Random 8 x 8 images whose class brightens one of three bands."""
    splits = {}
    for k, (name, n) in enumerate(SIZES.items()):
        rng = np.random.default_rng(50 + k)
        pixels, labels = rng.integers(0, 128, (n, 8, 8, 1)), np.arange(n) % 3
        for image, label in zip(pixels, labels):
            image[3 * label:3 * label + 2] += 120
        splits[name] = Split([f"{name}-{i}" for i in range(n)], pixels.astype(np.uint8), labels.astype(np.int64))
    return Task("tiny/image", "image", ("top", "middle", "bottom"), splits, "accuracy", ("accuracy", "macro_f1"))


@pytest.fixture(scope="session")
def text_task() -> Task:
    return make_text_task()


@pytest.fixture(scope="session")
def pair_task() -> Task:
    return make_pair_task()


@pytest.fixture(scope="session")
def regression_task() -> Task:
    return make_regression_task()


@pytest.fixture(scope="session")
def image_task() -> Task:
    return make_image_task()


@pytest.fixture
def nothing_is_trained(monkeypatch):
    """Call it, and from then on a model that has to be made fails the test. The store is watched and not the loop: replacing
    the loop would change every key, and all would be made anew."""
    from mtkd.store.artifacts import Store

    make = Store._make

    def watched(self, kind, *rest):
        if kind in ("model", "cofinetuned"):
            pytest.fail(f"a {kind} was left to make, or made again")
        return make(self, kind, *rest)

    return lambda: monkeypatch.setattr(Store, "_make", watched)
