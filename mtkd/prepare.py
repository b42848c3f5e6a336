"""A task made ready for a family of models: its tokeniser, its tokenised splits, its augmented text.

Tokenising happens once per process and tokeniser; everything downstream (teachers, outputs, students) is keyed by what
is prepared here.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import transformers

from mtkd import hub, images
from mtkd.data import ImageData, TextData, encode
from mtkd.errors import KitError
from mtkd.models import root
from mtkd.store import Store
from mtkd.tasks import Split, Task


@dataclass(frozen=True)
class Augmentation:
    """TinyBERT's data augmentation (see mtkd/augment.py). factor 0 turns it off: "augmented" is then just "train".

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


@dataclass(frozen=True)
class Views:
    """Random crops and flips of images as a finite, seeded set of `count` views; 1 means the plain image only."""

    count: int = 1
    crop: int = 4
    flip: bool = True


@dataclass
class Prepared:
    """A task, a store and a tokeniser. `data(name)` gives a tokenised split, "augmented" and "augmented/1" included."""

    task: Task
    store: Store
    tokenizer: transformers.PreTrainedTokenizerBase | None = None
    max_length: int = 128
    views: Views = Views()
    augmentation: Augmentation = Augmentation()
    _cache: dict = field(default_factory=dict, repr=False)

    @property
    def vocab(self) -> int | None:
        return None if self.tokenizer is None else len(self.tokenizer)

    @property
    def channels(self) -> int:
        return self.task.splits["train"].inputs.shape[-1] if self.task.kind == "image" else 0

    @property
    def fingerprint(self) -> str:
        """Of the tokeniser; hidden states can be matched only between equal ones."""
        if self.tokenizer is None:
            return "pixels"
        if "fingerprint" not in self._cache:
            text = self.tokenizer.backend_tokenizer.to_str() + str(self.max_length)
            self._cache["fingerprint"] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._cache["fingerprint"]

    def spec(self, name: str) -> dict:
        """What the data of a split is, for the store's keys. Augmentation counts only where it is used."""
        found = {"task": self.task.fingerprint, "input": self.fingerprint, "split": name}
        if name.startswith("augmented") and self.augmentation.factor:
            found["augmentation"] = asdict(self.augmentation)
        elif self.task.kind == "image" and name not in ("validation", "test"):
            found["views"] = asdict(self.views)
        return found

    def name(self, split: str, run: int) -> str:
        """"augmented" of run 1 is "augmented/1"; without augmentation it is "train", so that artifacts are shared."""
        if split != "augmented":
            return split
        return f"augmented/{run}" if self.augmentation.factor else "train"

    def data(self, name: str) -> TextData | ImageData:
        if name not in self._cache:
            split = self._augmented(int(name.split("/")[1])) if name.startswith("augmented/") else self._split(name)
            if self.task.kind == "image":
                mean, std = images.STATISTICS.get(self.task.name, ((0.5,) * self.channels, (0.25,) * self.channels))
                plain = name in ("validation", "test")
                self._cache[name] = ImageData(split.ids, split.inputs, split.labels, 1 if plain else self.views.count,
                                              self.views.crop, self.views.flip, mean, std)
            else:
                self._cache[name] = encode(split, self.tokenizer, self.max_length, self.fingerprint)
        return self._cache[name]

    def _split(self, name: str) -> Split:
        if name not in self.task.splits:
            raise KitError(f"task {self.task.name} has no split '{name}'; there are {', '.join(self.task.splits)}.")
        return self.task.splits[name]

    def _augmented(self, run: int) -> Split:
        """The training split enlarged, made once per run and stored as plain JSON (text, not tokens)."""
        import json

        from mtkd import augment

        a = self.augmentation

        def make(folder: Path) -> dict:
            texts = [t for row in self.task.splits["train"].inputs for t in row]
            sources = augment.sources(a.source, a.vectors, texts, masking=a.masking)
            split = augment.augment(self.task.splits["train"], sources, factor=a.factor, run=run, seed=a.seed,
                                    probability=a.probability, candidates=a.candidates, both=a.both)
            rows = [split.ids, split.inputs, split.labels.tolist()]
            (folder / "split.json").write_text(json.dumps(rows), encoding="utf-8")
            return {"samples": len(split)}

        spec = {"task": self.task.fingerprint, "run": run, "vocabulary": self.fingerprint, **asdict(a)}
        stored = self.store.get("augmented", spec, make)
        ids, inputs, labels = json.loads((stored.folder / "split.json").read_text(encoding="utf-8"))
        return Split(ids, [tuple(t) for t in inputs], self.task.splits["train"].labels.dtype.type(labels))


def prepare(task: Task, model: str, *, store: Store | None = None, max_length: int = 128, vocab: int = 4000,
            views: Views = Views(), augmentation: Augmentation = Augmentation()) -> Prepared:
    """Make a task ready for `model` and everything that shares its tokeniser.

    A scratch model gets a WordPiece vocabulary of `vocab` entries learned from the task's training text (embedding
    tables of 30k rows dominate tiny models); a checkpoint brings its own. Raises KitError where text meets a ResNet or
    images meet an encoder, or the checkpoint cannot be found.
    """
    from mtkd.models import ALIASES, RESNET

    store = store or Store()
    if (task.kind == "image") != bool(RESNET.fullmatch(ALIASES.get(model, model))):
        holds = "images" if task.kind == "image" else "text"
        raise KitError(f"{model!r} cannot read the task {task.name}, which holds {holds}.")
    if task.kind == "image":
        return Prepared(task, store, views=views)
    source = root(model)
    if source is None:
        tokenizer = scratch_tokenizer(task, vocab, store)
    else:
        place = hub.find(source, "model")
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(place)
        except (OSError, ValueError) as error:
            raise hub.unreachable(error, source) from error
    return Prepared(task, store, tokenizer, max_length, augmentation=augmentation)


def scratch_tokenizer(task: Task, vocab: int, store: Store) -> transformers.PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokeniser learned from the training text (and the unlabelled text, if any)."""
    from tokenizers import BertWordPieceTokenizer

    texts = [t for name in ("train", "unlabelled") if name in task.splits for row in task.splits[name].inputs for t in row]

    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}

    def learn(size: int, first: list[str]) -> dict[str, int]:
        learned = BertWordPieceTokenizer(lowercase=True)
        learned.train_from_iterator(texts, vocab_size=size, min_frequency=2, show_progress=False,
                                    special_tokens=[*special.values(), *first])
        return learned.get_vocab()

    def make(folder: Path) -> dict:
        # The trainer numbers the inner letters (##a) in the order of a randomised hash table and breaks ties by number,
        # so two processes would learn two vocabularies: a pass without merges finds the letters, a second is told them.
        letters = sorted(t for t in learn(0, []) if t.startswith("##") and len(t) == 3)
        learned = BertWordPieceTokenizer(learn(vocab, letters), lowercase=True)
        transformers.BertTokenizerFast(tokenizer_object=learned._tokenizer, **special).save_pretrained(folder)
        return {"vocabulary": learned.get_vocab_size()}

    made = store.get("tokenizer", {"task": task.fingerprint, "vocab": vocab}, make)
    return transformers.AutoTokenizer.from_pretrained(made.folder)


