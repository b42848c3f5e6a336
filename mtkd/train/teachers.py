"""Finished models as teachers: what they say on a split, once; and teachers that were made elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch

from mtkd.data.splits import content_hash as content_key
from mtkd.errors import KitError
from mtkd.measure.meter import Meter
from mtkd.models import heads
from mtkd.models import names as models
from mtkd.models.finished import model_files, order_of
from mtkd.rules.matching import hears
from mtkd.store.artifacts import tensors_load, tensors_save
from mtkd.store.files import canonical, content_hash, text_hash
from mtkd.tokens import align
from mtkd.tokens.vocabulary import read_tokenizer
from mtkd.train import floors, outputs, poolscores
from mtkd.train import loop as train
from mtkd.train.prepare import Prepared
from mtkd.train.recipes import Recipe, Stage
from mtkd.train.representation import represent
from mtkd.train.tables import read_table

STATES_BUDGET = 1 << 30  # bytes of packed inner states per teacher and split; above it the teacher runs along


@dataclass
class Model:
    """A finished model in the store (or a folder of your own): its folder, name, key and what was measured.

    info: seconds, samples_per_second, peak_memory_mib, energy_kwh, co2_kg, parameters, history, metrics per split.
    """

    folder: Path
    name: str
    key: str
    info: dict = field(repr=False, default_factory=dict)
    reused: bool = True
    before: Model | None = field(repr=False, default=None)  # the stage that this one started from

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        return self.info.get("metrics", {})

    @property
    def seconds(self) -> float:
        return self.info.get("seconds", 0.0)

    @property
    def shape(self) -> dict[str, int]:
        return self.info.get("shape", {})

    def network(self):
        """The network, with its outputs in the order of the task's classes."""
        network = models.load(self.folder)
        return heads.reorder(network, self.info["order"], self.info["classes"]) if "order" in self.info else network

    def answering(self):
        """The network as it answers when it is asked: by the vote of its heads where its recipe's predictor says so."""
        return heads.predicting(self.network())

    def logits(self, split: str) -> torch.Tensor:
        """Stored logits [n, C] on "validation" or "test"."""
        return tensors_load(self.folder / f"logits-{split}.safetensors")["logits"]


def gather(prepared: Prepared, teachers: Sequence[Model], recipe: Recipe, stage: Stage, split: str,
           needs: dict[int, outputs.Needs], device: torch.device):
    """The outputs that a stage reads, from the store where they are there or fit, else from running teachers."""
    data, members = prepared.data(split), recipe.members(stage, len(teachers))
    if not members:
        return None
    heard = {t for term in stage.terms if term.selection and (hears(term) or "logits" in term.selection.needs)
             for t in term.selection.members(len(teachers))}
    if prepared.pool(split):
        return gather_streamed(prepared, teachers, recipe, stage, split, needs, heard, device)
    tables = {t: logits_of(prepared, teachers[t], split) for t in sorted(heard)}
    per_token = prepared.task.kind == "span"
    rows = int(data.offsets[-1]) if per_token else len(data.row_ids)
    blank = torch.zeros(rows, prepared.task.outputs)  # inner stages never look at logits
    logits = torch.stack([tables.get(t, blank) for t in range(len(teachers))], dim=1)              # [rows, T, C]
    logits = control(logits, getattr(recipe.teachers, "control", None))
    seen = None
    if per_token:
        everything = torch.ones(rows, dtype=torch.bool)
        seen = torch.stack([align.seen(m) if (m := alignment(prepared, t, split)) is not None else everything
                            for t in teachers], dim=1)                                             # [tokens, T]
    features = features_of(prepared, stage, split)
    small = all(outputs.packed_bytes(data, n, teachers[t].shape) <= STATES_BUDGET for t, n in needs.items())
    if small:
        states = {t: states_of(prepared, teachers[t], split, n) for t, n in needs.items()}
        return outputs.StoredOutputs(data, logits, states, seen, features)
    networks = [teachers[t].network() if t in needs else None for t in range(len(teachers))]
    for t in needs:
        outputs.check_lengths(networks[t], prepared.of(teachers[t]).data(split))
    others = {t: outputs.Other(prepared.of(teachers[t]).data(split), matrix) for t in needs
              if (matrix := alignment(prepared, teachers[t], split)) is not None}
    return outputs.LiveOutputs(networks, needs, device, outputs.StoredOutputs(data, logits, None, seen, features),
                               data, others)


def features_of(prepared: Prepared, stage: Stage, split: str) -> torch.Tensor | None:
    """R(x) [n, d] of a split for the selections of a stage that look at it, by the encoder they name; None where none does."""
    encoders = {t.selection.encoder for t in stage.terms if t.selection is not None and "features" in t.selection.needs}
    if len(encoders) > 1:
        raise KitError(f"stage '{stage.name}' has selections with the encoders {sorted(encoders)}; a stage has one.")
    return represent(prepared, encoders.pop(), split) if encoders else None


def gather_streamed(prepared: Prepared, teachers: Sequence[Model], recipe: Recipe, stage: Stage, split: str,
                    needs: dict[int, outputs.Needs], heard: set[int], device: torch.device):
    """`gather` for a pool: logits are read shard by shard, inner states come from teachers that run along."""
    data, kind = prepared.data(split), getattr(recipe.teachers, "control", None)
    if any(t.selection is not None and "features" in t.selection.needs for t in stage.terms):
        raise KitError(f"stage '{stage.name}' learns whom to follow from features of every sample, which a pool does not keep: "
                       "follow the teachers with fixed weights there.")
    for t in needs:
        if prepared.of(teachers[t]) is not prepared:
            raise KitError(f"the teacher {teachers[t].name} has another tokeniser than the student: on a pool only its logits "
                           "can be matched.")
    files = [poolscores.score(prepared, m, split).files if t in heard else None for t, m in enumerate(teachers)]
    logits = poolscores.StreamedOutputs(data, files, prepared.task.outputs, lambda said: control(said, kind))
    if not needs:
        return logits
    networks = [teachers[t].network() if t in needs else None for t in range(len(teachers))]
    for t in needs:
        outputs.check_lengths(networks[t], data)
    return outputs.LiveOutputs(networks, needs, device, logits, data)


def alignment(prepared: Prepared, teacher: Model, split: str):
    """A [student tokens, teacher tokens] of a split (mtkd/tokens/align.py); None where both read the same tokens."""
    own = prepared.of(teacher)
    if own is prepared:
        return None
    key = ("alignment", own.fingerprint, split)
    if key not in prepared._cache:
        prepared._cache[key] = align.averaging_matrix(prepared.places(split), own.places(split))
    return prepared._cache[key]


def control(logits: torch.Tensor, kind: str | None) -> torch.Tensor:
    """Negative controls on teacher logits [rows, T, C]: those of other samples, or no knowledge at all."""
    if kind is None:
        return logits
    if kind == "shuffled":
        return logits[torch.randperm(len(logits), generator=torch.Generator().manual_seed(0))]
    if kind == "uniform":
        return torch.zeros_like(logits)
    raise KitError(f"no such control: {kind!r}; there are shuffled and uniform.")


def logits_of(prepared: Prepared, teacher: Model, split: str) -> torch.Tensor:
    """A teacher's logits [rows, C] on a split: scored once, stored by sample id, read aligned to this split's rows. In a
    span task [tokens, C] on the tokens of `prepared`, each the mean of the teacher's overlapping tokens."""
    if prepared.pool(split):
        raise KitError(f"{split!r} is a pool, which is read shard by shard: its logits cannot be had at once.")
    path = score(prepared, teacher, split).folder / "logits.safetensors"
    if prepared.task.kind != "span":
        data = prepared.data(split)
        logits = _read_logits(path, tuple(data.row_ids))
        if "seconds" not in teacher.info and (why := floors.unfit(prepared.task, data, logits)):  # not trained here
            warnings.warn(f"the teacher {teacher.name} {why} (on {split})", stacklevel=2)
        return logits
    logits, matrix = tensors_load(path)["logits"], alignment(prepared, teacher, split)
    return logits if matrix is None else align.apply(matrix, logits)


@lru_cache(maxsize=32)
def _read_logits(path: Path, row_ids: tuple[str, ...]) -> torch.Tensor:
    return outputs.read_logits(path, list(row_ids))


def score(prepared: Prepared, teacher: Model, split: str):
    """The artifact of one teacher's logits on one split (of a pool, its shards' artifacts), on its own tokens; its info holds
    the seconds it took."""
    if prepared.pool(split):
        return poolscores.score(prepared, teacher, split)
    own = prepared.of(teacher)

    def make(folder: Path) -> dict:
        data, device = own.data(split), train.device_at_hand()
        if teacher.info.get("table"):
            if prepared.task.kind == "span":
                raise KitError("a table of logits has one row per sample, and a span task needs one per token.")
            path = Path(teacher.info["table"])
            with warnings.catch_warnings(record=True) as said:  # kept, to be said again when the logits come from the store
                warnings.simplefilter("always")
                by_text, ids, values = read_table(path, prepared.task.classes)
            rows = [content_key(*row) for row in prepared.texts(split).inputs] if by_text else data.row_ids
            logits = outputs.align(rows, ids, torch.from_numpy(values), f"the table {path.name}")
            record = {"seconds": 0.0, "said": [str(one.message) for one in said]}
        else:
            network = teacher.answering().to(device)
            with Meter(device) as meter:
                logits = outputs.score_all_views(network, data, device)
                meter.count(len(logits))
            record = meter.record()
        if logits.shape[-1] != prepared.task.outputs:
            raise KitError(f"the teacher {teacher.name} has {logits.shape[-1]} outputs and the task "
                           f"{prepared.task.name} has {prepared.task.outputs}.")
        tensors_save(folder / "logits.safetensors", {"logits": logits, "ids": outputs.ids_tensor(data.row_ids)})
        return record

    made = prepared.store.get("logits", {"teacher": teacher.key, "data": own.spec(split)}, make)
    for words in made.info.get("said", ()):
        warnings.warn(words, stacklevel=2)
    return made


def states_of(prepared: Prepared, teacher: Model, split: str, needs: outputs.Needs) -> outputs.Packed:
    """A teacher's packed hidden states and attention scores on a split: stored on its own tokens, given on the student's."""
    own, matrix = prepared.of(teacher), alignment(prepared, teacher, split)
    if matrix is not None and needs.attention:
        raise KitError(f"the teacher {teacher.name} has another tokeniser than the student: its attention scores cannot be "
                       "matched pair by pair, only its hidden states and logits can.")

    def make(folder: Path) -> dict:
        device = train.device_at_hand()
        with Meter(device, energy=False) as meter:
            kept = outputs.pack_states(teacher.network().to(device), own.data(split), needs, device)
        tensors_save(folder / "states.safetensors", kept)
        return {"seconds": meter.seconds}

    spec = {"teacher": teacher.key, "data": own.spec(split), "hidden": needs.hidden, "attention": needs.attention}
    kept = tensors_load(prepared.store.get("states", spec, make).folder / "states.safetensors")
    hidden = kept.get("hidden")
    if matrix is None:
        return outputs.Packed(needs, prepared.fingerprint, hidden, kept.get("attention"))
    return outputs.Packed(needs, prepared.fingerprint, align.apply(matrix, hidden), None, align.seen(matrix))


# --- teachers of your own -----------------------------------------------------------------------------------------------


def teacher_from_folder(prepared: Prepared, folder: str | Path, label_map: dict[str, str] | None = None) -> Model:
    """A classifier fine-tuned elsewhere, saved with plain transformers (model and tokeniser in one folder).

    Its outputs are brought to the order of the task's classes by their names in its config; label_map says which output (its
    name or number) stands for which class where names do not, and leaves out outputs that it does not name. What had to be
    guessed is said in a warning. Its key is made of all that can change what it says (see `model_files`).

    Raises KitError, with the way out, for a folder without the whole model (an encoder alone, say) or its tokeniser, and for
    outputs that cannot be told apart.
    """
    files = model_files(folder := Path(folder))
    network, where = models.load(folder), f"the teacher in {folder}"
    base, classes = getattr(network, "base", network), prepared.task.classes
    outputs = base.get_submodule(heads.golden_path(base)).out_features
    order, said = order_of(where, heads.classes_of(base), outputs, classes, label_map)
    if said:
        warnings.warn(said, stacklevel=2)
    if getattr(getattr(base, "hf", None), "config", None) and base.hf.config.problem_type == "multi_label_classification":
        warnings.warn(f"{where} was trained to give several labels at once: its outputs are taken as logits of one label.",
                      stacklevel=2)
    own = None
    if network.kind == "text":
        tokenizer, rows = read_tokenizer(folder), base.body.get_input_embeddings().num_embeddings
        if max(tokenizer.get_vocab().values()) >= rows:
            raise KitError(f"{where} has {rows:,} embeddings and a tokeniser of {len(tokenizer):,} tokens: the tokeniser is "
                           "another model's.")
        own = Prepared(prepared.task, prepared.store, tokenizer, prepared.max_length).fingerprint
    moved = {} if order == list(range(outputs)) else {"order": order, "classes": list(classes)}
    parts = [(name, content_hash(path)) for name, path in files.items()] + [("input", own)] + list(moved.items())
    return Model(folder, folder.name, text_hash(canonical(parts)), {
        "shape": network.shape, "input": own, "parameters": models.count_parameters(network), **moved})


def teacher_from_table(path: str | Path) -> Model:
    """A teacher that is a file: logits, probabilities or bare answers by sample, see mtkd/train/tables.py."""
    path = Path(path)
    if not path.is_file():
        raise KitError(f"there is no table of logits at {path}.")
    return Model(path.parent, path.name, content_hash(path), {"table": str(path), "shape": {}})


def pretrained(prepared: Prepared, name: str) -> Model:
    """A pre-trained encoder as a teacher of inner layers (general distillation); its head is random and unused.

    KitError for a scratch model, which has nothing to teach before it is fine-tuned.
    """
    if models.root(name) is None:
        raise KitError(f"general distillation needs a pre-trained teacher, and {name!r} starts from random weights.")

    def make(folder: Path) -> dict:
        network = models.build(name, prepared.task.outputs, seed=0)
        network.save(folder, prepared.tokenizer)
        return {"shape": network.shape, "parameters": models.count_parameters(network), "seconds": 0.0,
                "input": prepared.fingerprint}

    made = prepared.store.get("pretrained", {"model": name, "outputs": prepared.task.outputs, **models.content(name)}, make)
    return Model(made.folder, name, made.folder.name, made.info)
