"""R(x): one vector per input that knows nothing of the task, the first feature of RL-KD's state.

The paper (Yuan et al., "Reinforced Multi-Teacher Selection for Knowledge Distillation", State) takes the [CLS] state of the
last layer of a pre-trained BERT-Base that is *not* fine-tuned. Here `encoder` names any pre-trained model ("minilm", a hub
id, a folder), or the offline stand-in "lsa-64": tf-idf of the words and a truncated SVD to 64 numbers (latent semantic
analysis), learned from the training texts without their labels. Made once per split and kept in the store by sample id.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mtkd.errors import KitError
from mtkd.models import names as models
from mtkd.store.artifacts import tensors_load, tensors_save
from mtkd.tokens.batches import iterate
from mtkd.train import loop as train
from mtkd.train import outputs
from mtkd.train.prepare import Prepared

LSA = re.compile(r"lsa-([1-9]\d*)")


def represent(prepared: Prepared, encoder: str, split: str) -> Tensor:
    """R(x) of every sample of a split, in the order of its rows: [n, d] float32.

    encoder: "lsa-D" or a pre-trained model by name. No label of any split is read. Raises KitError for images, for a model
    that starts from random weights, and for a checkpoint that cannot be found.
    """
    if prepared.task.kind == "image":
        raise KitError("a representation of inputs is made of texts, and this task holds images.")
    lsa = LSA.fullmatch(encoder)
    if lsa is None and models.root(encoder) is None:
        raise KitError(f"the encoder of the policy's state must be a pre-trained model, and {encoder!r} starts from random "
                       "weights; offline, take \"lsa-64\".")
    spec = {"encoder": encoder, "data": prepared.spec(split), **({} if lsa else models.content(encoder))}
    if lsa:  # reads words, not tokens: students with other tokenisers share it
        del spec["data"]["input"]

    def make(folder: Path) -> dict:
        found = latent(prepared, int(lsa[1]), split) if lsa else states(prepared.of(encoder), encoder, split)
        tensors_save(folder / "features.safetensors", {"features": found, "ids": outputs.ids_tensor(prepared.data(split).ids)})
        return {"width": found.shape[1]}

    stored = tensors_load(prepared.store.get("representation", spec, make).folder / "features.safetensors")
    return outputs.align(prepared.data(split).ids, outputs.ids_from(stored["ids"]), stored["features"], f"{encoder} of {split}")


def latent(prepared: Prepared, width: int, split: str) -> Tensor:
    """tf-idf and truncated SVD, both learned from the training texts. [n, width]; zeros at the end where the texts have too
    few words for so many directions. The two texts of a pair are read as one."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    learned_from, asked = ([" ".join(row) for row in prepared.texts(name).inputs] for name in ("train", split))
    words = TfidfVectorizer(min_df=2, sublinear_tf=True, max_features=20_000, token_pattern=r"(?u)\b\w+\b")
    try:
        counts = words.fit_transform(learned_from)
    except ValueError as error:
        raise KitError(f"no word occurs in two training texts of {prepared.task.name}: LSA has nothing to learn.") from error
    directions = min(width, *(side - 1 for side in counts.shape))
    if directions < 1:
        raise KitError(f"the training texts of {prepared.task.name} are too few for LSA.")
    svd = TruncatedSVD(directions, random_state=0).fit(counts)
    found = svd.transform(words.transform(asked)).astype(np.float32)
    return torch.from_numpy(np.pad(found, ((0, 0), (0, width - directions))))


def states(own: Prepared, encoder: str, split: str) -> Tensor:
    """The classification token's state in the encoder's last layer, [n, d]: the first token, or XLNet's last."""
    device, data = train.device_at_hand(), own.data(split)
    network = models.build(encoder, 2, seed=0).to(device).eval()  # its new head is not used
    if network.kind != "text":
        raise KitError(f"{encoder!r} does not read texts.")
    found = None
    with torch.inference_mode():
        for batch in iterate(data, outputs.SCORING_BATCH, None, 0, device):
            state = network(batch.inputs, frozenset({"hidden"})).hidden[-1][:, -1 if data.left else 0].float().cpu()
            if found is None:
                found = torch.empty(len(data), state.shape[1])
            found[torch.from_numpy(batch.rows)] = state
    return found
