"""The Bi-LSTM student (tmkd, section 4.4): word vectors, a bidirectional LSTM, one linear layer.

    bilstm-2x256e300              2 layers of 256 units per direction on word vectors of size 300, all of them random
    bilstm-2x256e300 with FILE    the same, started from word vectors in GloVe's text format; words that FILE does not have are
                                  drawn from a normal distribution
    ...v2000                      the 2,000 most frequent words instead of the paper's 15,000 (bilstm-1x32e32v2000)
    ...-last                      a text is the last state of each direction instead of the largest value of every unit

It reads whole words (mtkd/tokens/vocabulary.py, kind "words"), a pair as one sequence with a [SEP] between, as the paper's BERT
student does. The paper says neither how two texts are joined nor what the classifier reads: the largest value of every unit
over the words is the default (Conneau et al. 2017 found it to represent sentences best).

The network is a transformers model, so that it is saved, loaded and given heads like any other; the Auto classes know its
type once this module is imported.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from mtkd.errors import KitError
from mtkd.models.grammar import BILSTM, WORDS
from mtkd.store.files import content_hash

SPREAD = 0.4    # of random word vectors; that of GloVe's 300-dimensional ones is about the same


class BiLstmConfig(transformers.PretrainedConfig):
    """embedding_size: of a word vector; units: per direction; pooling: "max" or "last"."""

    model_type = "mtkd_bilstm"

    def __init__(self, vocab_size: int = WORDS, embedding_size: int = 300, units: int = 256, num_hidden_layers: int = 2,
                 pooling: str = "max", pad_token_id: int = 0, initializer_range: float = 0.02, **more):
        super().__init__(pad_token_id=pad_token_id, **more)
        self.vocab_size, self.embedding_size, self.units = vocab_size, embedding_size, units
        self.num_hidden_layers, self.pooling, self.initializer_range = num_hidden_layers, pooling, initializer_range
        self.hidden_size = 2 * units  # what the classifier reads


class BiLstmModel(transformers.PreTrainedModel):
    """Word vectors and LSTM: states [B, L, 2 * units], zero at the padding."""

    config_class = BiLstmConfig
    base_model_prefix = "bilstm"

    def __init__(self, config: BiLstmConfig):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        self.lstm = nn.LSTM(config.embedding_size, config.units, config.num_hidden_layers, batch_first=True,
                            bidirectional=True)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_) -> BaseModelOutput:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        packed = nn.utils.rnn.pack_padded_sequence(self.embeddings(input_ids), mask.sum(1).cpu(), batch_first=True,
                                                   enforce_sorted=False)  # the backward direction starts at the last word
        states, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=input_ids.shape[1])
        return BaseModelOutput(last_hidden_state=states)


class BiLstmForSequenceClassification(transformers.PreTrainedModel):
    """The states of a text pooled into one vector [B, 2 * units], and one linear layer on it."""

    config_class = BiLstmConfig
    base_model_prefix = "bilstm"

    def __init__(self, config: BiLstmConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bilstm = BiLstmModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.__dict__["mtkd_scratch"] = True  # word vectors always go on learning: see mtkd.models.networks.freeze_embeddings
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_) -> SequenceClassifierOutput:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states = self.bilstm(input_ids, mask).last_hidden_state                                  # [B, L, 2 * units]
        if self.config.pooling == "last":  # the forward direction has read everything at the last word, the other at the first
            last = states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
            pooled = torch.cat([last[:, :self.config.units], states[:, 0, self.config.units:]], dim=1)
        else:
            pooled = states.masked_fill(mask.unsqueeze(-1) == 0, float("-inf")).amax(1)
        return SequenceClassifierOutput(logits=self.classifier(pooled))


transformers.AutoConfig.register("mtkd_bilstm", BiLstmConfig)
transformers.AutoModel.register(BiLstmConfig, BiLstmModel)
transformers.AutoModelForSequenceClassification.register(BiLstmConfig, BiLstmForSequenceClassification)


def from_name(match: re.Match, vocab: int | None, head: dict, tokens: dict[str, int] | None = None,
              words: dict[str, int] | None = None) -> BiLstmForSequenceClassification:
    """A Bi-LSTM for a name that BILSTM matches; its weights are drawn from torch's generator.

    vocab: rows of the word table; tokens: ids of the special tokens ("pad" is used); words: the tokeniser's vocabulary, by
    which the vectors of a file find their rows. Raises KitError where a file is named and cannot be used.
    """
    layers, units, size = (int(g) for g in match.groups()[:3])
    config = BiLstmConfig(vocab or int(match[4] or WORDS), size, units, layers, "last" if match[5] else "max",
                          (tokens or {}).get("pad", 0), **head)
    model = BiLstmForSequenceClassification(config)
    model.bilstm.lstm.reset_parameters()
    table = model.bilstm.embeddings.weight
    with torch.no_grad():
        table.normal_(std=SPREAD)
        if match[6]:
            if words is None:
                raise KitError(f"{match[0]!r} needs the words of a tokeniser, to know which row a vector belongs to.")
            rows, vectors = read_vectors(Path(match[6]), words, size)
            table[rows] = torch.from_numpy(vectors)
        table[model.config.pad_token_id] = 0
    return model


def read_vectors(path: Path, words: dict[str, int], size: int) -> tuple[list[int], np.ndarray]:
    """Rows and vectors [known words, size] of the words that a file in GloVe's text format has: a word and its numbers per
    line, separated by blanks (a first line with two numbers, word2vec's, is passed over). Only known words are kept, so that a
    file of millions needs no more memory than the vocabulary. Of a word that comes twice the first counts.

    Raises KitError where the file is missing, is no such file, or holds vectors of another size.
    """
    found: dict[int, np.ndarray] = {}
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                parts = line.rstrip().split(" ")
                if number == 1 and len(parts) == 2 and size != 1:
                    continue
                numbers = len(parts) - 1
                if numbers < size or (number <= 2 and numbers > size):  # further on, a word with blanks in it is no error
                    raise KitError(f"line {number} of the word vectors in {path} has {numbers} numbers, and the model's word "
                                   f"vectors have {size}.")
                row = words.get(" ".join(parts[:-size]))
                if row is not None and row not in found:
                    found[row] = np.array(parts[-size:], dtype=np.float32)
    except OSError as error:
        raise KitError(f"there are no word vectors to read at {path} ({error.strerror or type(error).__name__}).") from error
    except ValueError as error:
        raise KitError(f"{path} holds no word vectors in GloVe's text format: {str(error).splitlines()[0]}.") from error
    if odd := [row for row, vector in found.items() if not np.isfinite(vector).all()]:
        word = next(w for w, row in words.items() if row == odd[0])
        raise KitError(f"{path} holds a vector that is not made of finite numbers: that of {word!r}.")
    if not found:
        raise KitError(f"none of the vocabulary's {len(words)} words has a vector in {path}.")
    return list(found), np.stack(list(found.values()))


def content(name: str) -> dict[str, str]:
    """What a Bi-LSTM's name points to, for the store's keys: the checksum of its word vectors; {} for any other name."""
    match = BILSTM.fullmatch(name)
    if not match or not match[6]:
        return {}
    try:
        return {"word_vectors": content_hash(Path(match[6]))}
    except OSError as error:
        raise KitError(f"there are no word vectors to read at {match[6]} ({error.strerror}).") from error
