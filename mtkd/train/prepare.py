"""A task made ready for a family of models: its tokeniser, its tokenised splits, its augmented text.

Tokenising happens once per process and tokeniser; everything downstream (teachers, outputs, students) is keyed by what
is prepared here.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import transformers

from mtkd.data import hub, images
from mtkd.data.tasks import Split, Task
from mtkd.errors import KitError
from mtkd.models.grammar import ALIASES, RESNET, root, tokenizer_kind, vocabulary_size
from mtkd.store.artifacts import Store
from mtkd.store.files import content_hash, text_hash
from mtkd.tokens import align, augment
from mtkd.tokens.batches import ImageData, TextData, encode
from mtkd.tokens.vocabulary import read_tokenizer, scratch_tokenizer, special_ids

if TYPE_CHECKING:
    from mtkd.tokens.pool import Pool
    from mtkd.train.teachers import Model


@dataclass(frozen=True)
class Augmentation:
    """TinyBERT's data augmentation (see mtkd/tokens/augment.py). factor 0 turns it off: "augmented" is then just "train".

    source: a masked language model by hub id or folder ("" = nearest neighbours only); vectors: a GloVe-format file
    ("" = the input embeddings of `source`, or vectors learned from the training text where there is no source).
    """

    factor: int = 0
    source: str = ""
    vectors: str = ""
    probability: float = 0.4
    candidates: int = 15
    masking: str = "each"
    both: bool = True
    seed: int = 0

    def spec(self) -> dict:
        """For the store's keys: its settings, and what lies under the names of the model and of the vectors."""
        files = {"source": hub.content(self.source)} if self.source else {}
        files |= {"vectors": content_hash(Path(self.vectors))} if Path(self.vectors).is_file() else {}
        return asdict(self) | ({"content": files} if files else {})


@dataclass(frozen=True)
class Views:
    """Random crops and flips of images as a finite, seeded set of `count` views; 1 means the plain image only."""

    count: int = 1
    crop: int = 4
    flip: bool = True


@dataclass
class Prepared:
    """A task, a store and a tokeniser. `data(name)` gives a tokenised split, "augmented", "augmented/1" and the pools that
    mtkd.tokens.pool.attach has added included."""

    task: Task
    store: Store
    tokenizer: transformers.PreTrainedTokenizerBase | None = None
    max_length: int = 128
    views: Views = Views()
    augmentation: Augmentation = Augmentation()
    vocab_size: int = 4000
    parent: Prepared | None = field(default=None, repr=False)  # whose augmented texts and pools these tokenised splits are of
    pools: dict[str, Pool] = field(default_factory=dict, repr=False)
    _cache: dict = field(default_factory=dict, repr=False)

    @property
    def vocab(self) -> int | None:
        return None if self.tokenizer is None else len(self.tokenizer)

    @property
    def special_ids(self) -> dict[str, int] | None:
        """Ids of the special tokens that the tokeniser has: pad, unk, cls, sep, mask, and bos and eos in some families."""
        return None if self.tokenizer is None else special_ids(self.tokenizer)

    @property
    def channels(self) -> int:
        return self.task.splits["train"].inputs.shape[-1] if self.task.kind == "image" else 0

    @cached_property
    def fingerprint(self) -> str:
        """Of the tokeniser; hidden states can be matched only between equal ones."""
        if self.tokenizer is None:
            return "pixels"
        backend = json.loads(self.tokenizer.backend_tokenizer.to_str())
        backend |= {"truncation": None, "padding": None}  # set by use, not by what the tokeniser is
        return text_hash(json.dumps(backend, sort_keys=True) + str(self.max_length))[:16]

    def spec(self, name: str) -> dict:
        """What the data of a split is, for the store's keys. Augmentation counts only where it is used."""
        found = {"task": self.task.fingerprint, "input": self.fingerprint, "split": name, "classes": list(self.task.classes)}
        if pool := self.pool(name):
            return found | {"split": "pool"} | pool.spec()
        if name.startswith("augmented") and self.augmentation.factor:
            found["augmentation"] = self.augmentation.spec() | ({"of": self.parent.fingerprint} if self.parent else {})
        elif self.task.kind == "image" and name not in ("validation", "test"):
            found["views"] = asdict(self.views)
        return found

    def name(self, split: str, run: int) -> str:
        """"augmented" of run 1 is "augmented/1"; without augmentation it is "train", so that artifacts are shared."""
        if split != "augmented":
            return split
        return f"augmented/{run}" if self.augmentation.factor else "train"

    def pool(self, name: str) -> Pool | None:
        """The pool of that name, which is shared by all tokenisers of a task; None where the name is a split's."""
        return self.pools.get(name) or (self.parent.pool(name) if self.parent is not None else None)

    def data(self, name: str) -> TextData | ImageData:
        pool = self.pool(name)
        key = ("pool", *pool.spec().values()) if pool else name
        if key not in self._cache:
            self._cache[key] = pool.data(self) if pool else self._data(name)
        return self._cache[key]

    def _data(self, name: str) -> TextData | ImageData:
        split, views = self.texts(name), self.views
        if self.task.kind != "image":
            return encode(split, self.tokenizer, self.max_length, self.fingerprint,
                          self.places(name) if split.spans is not None else None)
        mean, std = images.STATISTICS.get(self.task.name, ((0.5,) * self.channels, (0.25,) * self.channels))
        return ImageData(split.ids, split.inputs, split.labels, 1 if name in ("validation", "test") else views.count,
                         views.crop, views.flip, mean, std)

    def of(self, other: str | Model) -> Prepared:
        """The same task for a model with another tokeniser: by model name, or a finished teacher with its own.

        Samples and their order stay the same, so that outputs can be aligned; augmented texts are this one's. Self where
        nothing differs."""
        if self.task.kind == "image":
            return self
        key = ("of", other if isinstance(other, str) else other.info.get("input") or self.fingerprint)
        if key[1] == self.fingerprint:
            return self
        if key not in self._cache:
            tokenizer = tokenizer_of(self, other) if isinstance(other, str) else read_tokenizer(other.folder)
            found = self._reading(self.task, tokenizer)
            self._cache[key] = self._cache.setdefault(("of", found.fingerprint), found)
        found = self._cache[key]
        if found.fingerprint == self.fingerprint:
            return self
        found.parent = self.parent or self
        return found

    def with_task(self, task: Task) -> Prepared:
        """Another task read by the same tokeniser at the same length, so that a student of this one can go on with it."""
        if self.tokenizer is None:
            raise KitError(f"{self.task.name} holds images: there is no tokeniser to share with {task.name}.")
        if task.kind == "image":
            raise KitError(f"the task {task.name} holds images, which a tokeniser cannot read.")
        return self._reading(task, self.tokenizer)

    def _reading(self, task: Task, tokenizer) -> Prepared:
        return Prepared(task, self.store, tokenizer, self.max_length, augmentation=self.augmentation,
                        vocab_size=self.vocab_size)

    def places(self, name: str) -> align.Places:
        """Where the tokens of a split come from in its texts, for alignment and for span tasks."""
        if ("places", name) not in self._cache:
            self._cache["places", name] = align.places(self.texts(name), self.tokenizer, self.max_length)
        return self._cache["places", name]

    def texts(self, name: str) -> Split:
        """A split before tokenising. KitError for a pool, which is never in memory as a whole."""
        if self.pool(name):
            raise KitError(f"{name!r} is a pool, which is read shard by shard: its texts cannot be had at once.")
        if self.parent is not None:
            return self.parent.texts(name)
        if name.startswith("augmented/"):
            return self._augmented(int(name.split("/")[1]))
        if name not in self.task.splits:
            raise KitError(f"task {self.task.name} has no split '{name}'; there are {', '.join(self.task.splits)}.")
        return self.task.splits[name]

    def _augmented(self, run: int) -> Split:
        """The training split enlarged, made once per run and stored as plain JSON (text, not tokens)."""
        a = self.augmentation

        def make(folder: Path) -> dict:
            texts = [t for row in self.task.splits["train"].inputs for t in row]
            sources = augment.sources(a.source, a.vectors, texts, masking=a.masking)
            split = augment.augment(self.task.splits["train"], sources, factor=a.factor, run=run, seed=a.seed,
                                    probability=a.probability, candidates=a.candidates, both=a.both)
            rows = [split.ids, split.inputs, split.labels.tolist()]
            (folder / "split.json").write_text(json.dumps(rows), encoding="utf-8")
            return {"samples": len(split)}

        spec = {"task": self.task.fingerprint, "run": run, "vocabulary": self.fingerprint, **a.spec()}
        stored = self.store.get("augmented", spec, make)
        ids, inputs, labels = json.loads((stored.folder / "split.json").read_text(encoding="utf-8"))
        return Split(ids, [tuple(t) for t in inputs], self.task.splits["train"].labels.dtype.type(labels))


def prepare(task: Task, model: str, *, store: Store | None = None, max_length: int = 128, vocab: int = 4000,
            views: Views = Views(), augmentation: Augmentation = Augmentation()) -> Prepared:
    """Make a task ready for `model` and everything that shares its tokeniser.

    A scratch model gets a tokeniser of its family's kind, of `vocab` entries learned from the task's training text
    (embedding tables of 30k rows dominate tiny models), a Bi-LSTM one of as many words as its name says; a checkpoint brings
    its own. Raises KitError where text meets a ResNet or images meet an encoder, or the checkpoint cannot be found.
    """
    if task.kind == "image":
        augmentation = Augmentation()
    found = Prepared(task, store or Store(), None, max_length, views, augmentation, vocab)
    found.tokenizer = tokenizer_of(found, model)
    return found


def tokenizer_of(prepared: Prepared, model: str) -> transformers.PreTrainedTokenizerBase | None:
    """The tokeniser that a model of this name reads, None for images; one of a scratch model's kind is learned from the task's
    text. Raises KitError as `prepare`."""
    task = prepared.task
    if (task.kind == "image") != bool(RESNET.fullmatch(ALIASES.get(model, model))):
        holds = "images" if task.kind == "image" else "text"
        raise KitError(f"{model!r} cannot read the task {task.name}, which holds {holds}.")
    if task.kind == "image":
        return None
    if (source := root(model)) is None:
        size = vocabulary_size(model, prepared.vocab_size)
        found = scratch_tokenizer(task, size, prepared.store, tokenizer_kind(model))
    else:
        found = read_tokenizer(hub.find(source, "model"))
    found.model_max_length = prepared.max_length  # what a saved student cuts texts to, in plain transformers too
    return found
