"""A student with several heads (tmkd, section 3.2.3): a golden head for the labels and one soft head per teacher.

    encoder -> what the classifier's last linear layer reads ->  golden head     the model's own last layer (Eq. 1)
                                                             ->  soft heads 1..N  a linear layer per teacher (Eq. 3)

All heads read the same vector (h_1 in the paper; BERT's pooled output, the state before RoBERTa's last projection, ...).
A head is a last linear layer and nothing else: whatever lies between the encoder and it is shared by all of them.

On disk such a student is an ordinary folder of its encoder with its golden head, which plain transformers loads, and
beside them heads.safetensors (the soft heads) and heads.json (how many, and who predicts), which mtkd.models.names.load adds.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from mtkd.errors import KitError
from mtkd.models.networks import Outputs
from mtkd.store.files import tensors_load, tensors_save

PREDICTORS = ("one_model", "heads", "soft_heads")


def vote(golden: Tensor, soft: Tensor, predictor: str = "heads") -> Tensor:
    """Eq. 6 of tmkd: the mean of the N + 1 heads' probabilities, as its logarithm. [B, C], [B, N, C] -> [B, C].

    "soft_heads" leaves the golden head out, as the paper does for alpha = 1.0; "one_model" is the golden head's logits as
    they are. A regression (C = 1) has no probabilities: its values are averaged.

    >>> vote(torch.tensor([[0.0, 0.0]]), torch.tensor([[[math.log(3.0), 0.0]]])).exp()   # (1/2 + 3/4) / 2
    tensor([[0.6250, 0.3750]])
    """
    if predictor == "one_model":
        return golden
    every = soft if predictor == "soft_heads" else torch.cat([golden.unsqueeze(-2), soft], dim=-2)      # [B, N + 1, C]
    if every.shape[-1] == 1:
        return every.mean(-2)
    return every.log_softmax(-1).logsumexp(-2) - math.log(every.shape[-2])


class HeadsNetwork(nn.Module):
    """A network and N soft heads on what its last linear layer reads.

    forward: logits are the golden head's [B, C], heads the soft ones' [B, N, C]; the term decides which is trained by
    what. predictor: who speaks when the student is asked (see `vote`, `predicting`); it is saved along.
    """

    kind = "text"

    def __init__(self, base: nn.Module, number: int, predictor: str = "one_model"):
        super().__init__()
        if number < 1:
            raise KitError("a student with several heads needs at least one soft head.")
        if base.kind != "text":
            raise KitError("soft heads are for encoders of text, and this network reads images.")
        self.base, self.predictor, self.where = base, predictor, golden_path(base)
        golden = self.golden
        self.soft = nn.ModuleList(new_head(base, golden.in_features, golden.out_features) for _ in range(number))

    @property
    def golden(self) -> nn.Linear:
        return self.base.get_submodule(self.where)

    @property
    def n_heads(self) -> int:
        """How many soft heads there are: one per teacher."""
        return len(self.soft)

    hf, shape = property(lambda self: self.base.hf), property(lambda self: self.base.shape)
    positions, name = property(lambda self: self.base.positions), property(lambda self: self.base.name)

    def forward(self, inputs: dict[str, Tensor], want: frozenset[str] = frozenset()) -> Outputs:
        read: list[Tensor] = []
        hook = self.golden.register_forward_pre_hook(lambda layer, given: read.append(given[0]))
        try:
            out = self.base(inputs, want)
        finally:
            hook.remove()
        if read[0].shape[:-1] != out.logits.shape[:-1]:
            raise KitError("the last layer of this model reads every token before it picks one: it cannot carry soft heads.")
        out.heads = torch.stack([head(read[0]) for head in self.soft], dim=-2)                           # [B, N, C]
        return out

    def freeze_embeddings(self) -> None:
        self.base.freeze_embeddings()

    def save(self, folder: Path, tokenizer=None) -> None:
        """The base network's own folder, with heads.safetensors and heads.json beside its files."""
        self.base.save(folder, tokenizer)
        tensors_save(Path(folder) / "heads.safetensors", self.soft.state_dict())
        about = {"heads": self.n_heads, "predictor": self.predictor}
        (Path(folder) / "heads.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


def load_heads(folder: Path, base: nn.Module) -> HeadsNetwork:
    """The soft heads that lie in a folder, put on the network that was loaded from it. KitError where they do not fit."""
    about = json.loads((folder / "heads.json").read_text(encoding="utf-8"))
    if not (folder / "heads.safetensors").is_file():
        raise KitError(f"the soft heads of {folder} are missing: there is no heads.safetensors.")
    network = HeadsNetwork(base, about["heads"], about["predictor"])
    try:
        network.soft.load_state_dict(tensors_load(folder / "heads.safetensors"))
    except RuntimeError as error:
        raise KitError(f"the soft heads in {folder} do not fit the model beside them.") from error
    return network


class Voter(nn.Module):
    """A network that answers with the vote of its heads instead of its golden head alone."""

    def __init__(self, network: HeadsNetwork):
        super().__init__()
        self.network, self.positions, self.name = network, network.positions, network.name

    def forward(self, inputs: dict[str, Tensor], want: frozenset[str] = frozenset()) -> Outputs:
        out = self.network(inputs, want)
        out.logits = vote(out.logits.float(), out.heads.float(), self.network.predictor)
        return out


def predicting(network: nn.Module) -> nn.Module:
    """The network as it answers when it is asked: with the vote of its heads where its predictor says so."""
    return Voter(network) if getattr(network, "predictor", "one_model") != "one_model" else network


def golden_path(network: nn.Module) -> str:
    """Where the last linear layer behind the encoder is, as a path of submodules ("hf.classifier", "hf.classifier.out_proj",
    "hf.logits_proj", "dense" behind the kit's own pooler). KitError where there is none."""
    encoder = getattr(network, "encoder", None)
    if encoder is not None and hasattr(network, "pooler"):  # the kit's own: behind its dense layer a map of widths may stand
        return "dense"
    if encoder is None and hasattr(network, "hf") and network.hf.base_model is not network.hf:
        encoder = network.hf.base_model
    inside = set(encoder.modules()) if encoder is not None else set()
    found = [path for path, module in network.named_modules() if isinstance(module, nn.Linear) and module not in inside]
    if not found:
        raise KitError("this model has no linear layer behind its encoder that could be its golden head.")
    return found[-1]


def new_head(network: nn.Module, width: int, outputs: int) -> nn.Linear:
    """A fresh linear layer with the spread of the network's own new layers; draws from torch's generator."""
    head = nn.Linear(width, outputs)
    config = getattr(getattr(network, "body", None), "config", None)
    nn.init.normal_(head.weight, std=getattr(config, "initializer_range", None) or 0.02)
    nn.init.zeros_(head.bias)
    return head


def renew(network: nn.Module, number: int, outputs: int, *, seed: int, labels: tuple[str, ...] = (),
          regression: bool = False) -> nn.Module:
    """The same encoder with a new golden head and `number` new soft heads of `outputs` logits, drawn from `seed`: what a
    stage with reset=("heads",) starts from, for instance when the task of stage 2 has other classes than that of stage 1."""
    base = getattr(network, "base", network)
    if base.kind != "text":
        raise KitError("only encoders of text can be given new heads, and this network reads images.")
    torch.manual_seed(seed)
    path = golden_path(base)
    parent, _, leaf = path.rpartition(".")
    setattr(base.get_submodule(parent), leaf, new_head(base, base.get_submodule(path).in_features, outputs))
    if hasattr(base, "labels"):
        base.labels = tuple(labels)
    if hasattr(base, "hf"):
        base.hf.num_labels = base.hf.config.num_labels = outputs
        base.hf.config.problem_type = "regression" if regression else "single_label_classification"
        if labels:
            base.hf.config.id2label, base.hf.config.label2id = dict(enumerate(labels)), {c: i for i, c in enumerate(labels)}
    return HeadsNetwork(base, number) if number else base


def reorder(network: nn.Module, order: list[int], labels: tuple[str, ...]) -> nn.Module:
    """The network with its outputs in another order, or fewer of them: output k is what output order[k] was, called
    labels[k]."""
    base = getattr(network, "base", network)
    for layer in (base.get_submodule(golden_path(base)), *getattr(network, "soft", ())):
        layer.weight = nn.Parameter(layer.weight.detach()[order].clone())
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.detach()[order].clone())
        layer.out_features = len(order)
    if hasattr(base, "labels"):
        base.labels = tuple(labels)
    if hasattr(base, "hf"):
        base.hf.num_labels = base.hf.config.num_labels = len(order)
        base.hf.config.id2label, base.hf.config.label2id = dict(enumerate(labels)), {c: i for i, c in enumerate(labels)}
    return network


def check_heads(network: nn.Module, number: int, outputs: int, labels: tuple[str, ...], name: str) -> None:
    """KitError where a finished model cannot go on as it is: other classes, or another number of soft heads.

    name: what the model is called in the sentence; labels: the classes of the task, in order (() where it has none).
    """
    base = getattr(network, "base", network)
    there, own = base.get_submodule(golden_path(base)).out_features, classes_of(base)
    hint = "give its first stage reset=('heads',), or start from a model of the same classes"
    if there != outputs:
        raise KitError(f"the model {name} has {there} outputs and this task has {outputs}: {hint}.")
    if own and labels and own != tuple(labels):
        raise KitError(f"the model {name} has the classes {', '.join(own)} and this task has {', '.join(labels)}: {hint}.")
    if (has := getattr(network, "n_heads", 0)) != number:
        raise KitError(f"the model {name} has {has} soft heads and the student is to have {number}: give its first stage "
                       "reset=('heads',).")


def classes_of(network: nn.Module) -> tuple[str, ...]:
    """The names of a network's classes in order; () where it has none, or transformers' own LABEL_0, LABEL_1, ..."""
    names = tuple(getattr(network, "labels", ()))
    if hasattr(network, "hf"):
        names = tuple(str(name) for _, name in sorted((network.hf.config.id2label or {}).items()))
    return () if names == tuple(f"LABEL_{i}" for i in range(len(names))) else names
