"""R(x): latent semantic analysis without labels, the [CLS] state of an encoder that is not fine-tuned, and the store."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mtkd.errors import KitError
from mtkd.models.names import build
from mtkd.store.artifacts import Store
from mtkd.train.prepare import prepare
from mtkd.train.representation import represent


def relabelled(task, *names):
    """The task with other labels on some splits."""
    return replace(task, splits={name: replace(split, labels=(split.labels + 1) % 3) if name in names else split
                                 for name, split in task.splits.items()})


def test_lsa_reads_words_and_no_labels(text_task):
    one = prepare(text_task, "scratch-1x32", vocab=200)
    other = prepare(relabelled(text_task, "train", "validation", "test"), "scratch-1x32", vocab=200)
    for split in ("train", "test"):
        found = represent(one, "lsa-8", split)
        assert found.shape == (len(text_task.splits[split]), 8)
        assert found.dtype == torch.float32
        assert torch.equal(found, represent(other, "lsa-8", split))


def test_lsa_brings_texts_about_the_same_together(text_task):
    prepared = prepare(text_task, "scratch-1x32", vocab=200)
    z, labels = represent(prepared, "lsa-16", "test"), text_task.splits["test"].labels
    z = torch.nn.functional.normalize(z - z.mean(0), dim=1)
    close, same = (z @ z.T).numpy(), labels[:, None] == labels
    np.fill_diagonal(close, np.nan)
    assert np.nanmean(close[same]) > np.nanmean(close[~same]) + 0.05


def test_lsa_fills_up_with_zeros_where_there_are_few_words(text_task):
    prepared = prepare(text_task, "scratch-1x32", vocab=200)
    z = represent(prepared, "lsa-64", "train")
    assert z.shape == (60, 64)
    assert (z[:, -1] == 0).all()
    assert (z[:, :10] != 0).any(0).all()


def test_pairs_are_read_as_one_text(pair_task):
    z = represent(prepare(pair_task, "scratch-1x32", vocab=200), "lsa-8", "train")
    assert z.shape == (60, 8)


def test_it_is_made_once_for_all_tokenisers_and_found_again(text_task):
    store = Store()
    one = represent(prepare(text_task, "scratch-1x32", vocab=200, store=store), "lsa-8", "train")
    assert torch.equal(one, represent(prepare(text_task, "scratch-1x32", vocab=100, store=store), "lsa-8", "train"))
    assert store.usage()["representation"]["artifacts"] == 1


@pytest.mark.parametrize("family", ["", "xlnet-"])
def test_an_encoder_gives_the_state_of_its_classification_token(text_task, tmp_path, family):
    """The first token, and XLNet's last; padding plays no part."""
    name = f"{family}scratch-2x32"
    own = prepare(text_task, name, vocab=300)
    network = build(name, 3, seed=0, vocab=own.vocab, tokens=own.special_ids)
    network.save(tmp_path / "encoder", own.tokenizer)
    student = prepare(text_task, "scratch-1x32", vocab=200)
    found = represent(student, str(tmp_path / "encoder"), "test")
    assert found.shape == (30, 32)
    data = own.data("test")
    for i in (0, 7, 19):
        batch = data.batch(np.array([i]))
        with torch.no_grad():
            hidden = network.eval()(batch.inputs, frozenset({"hidden"})).hidden[-1]
        token = batch.inputs["input_ids"][0, -1 if family else 0].item()
        assert token == own.tokenizer.cls_token_id
        assert_close(found[i], hidden[0, -1 if family else 0], atol=1e-5, rtol=1e-4)


def test_what_cannot_be_represented_is_refused(text_task, image_task):
    prepared = prepare(text_task, "scratch-1x32", vocab=200)
    with pytest.raises(KitError, match=r"must be a pre-trained model, and 'scratch-2x32' starts from random weights"):
        represent(prepared, "scratch-2x32", "train")
    with pytest.raises(KitError, match="this task holds images"):
        represent(prepare(image_task, "resnet-8w8"), "lsa-8", "train")
    with pytest.raises(KitError, match="no split 'dev'"):
        represent(prepared, "lsa-8", "dev")
    singles = replace(text_task.splits["train"], inputs=[(f"word{i}",) for i in range(60)])
    with pytest.raises(KitError, match="LSA has nothing to learn"):
        represent(prepare(replace(text_task, splits={**text_task.splits, "train": singles}), "scratch-1x32"), "lsa-8", "train")
