"""Packing, batching by length, and the row numbers that keep teacher outputs aligned."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import text_split
from hypothesis import given, settings
from hypothesis import strategies as st

from mtkd.errors import KitError
from mtkd.tokens.batches import ImageData, TextData, padding_share, plan
from mtkd.train.prepare import Views, prepare


def lines(lengths, seed=0) -> TextData:
    """A tokenised split of samples with these lengths; sample i holds the tokens 1000 i, 1000 i + 1, ..."""
    tokens = np.concatenate([1000 * i + np.arange(n) for i, n in enumerate(lengths)]).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    labels = np.random.default_rng(seed).integers(0, 3, len(lengths))
    return TextData([f"s{i}" for i in range(len(lengths))], tokens, (tokens % 2).astype(np.int8), offsets, labels, -7, "x")


def pictures(n: int, views: int) -> ImageData:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 1)).astype(np.uint8)
    return ImageData([f"p{i}" for i in range(n)], pixels, np.arange(n) % 3, views, 2, True, (0.5,), (0.25,))


def test_a_batch_is_what_was_packed():
    data = lines([3, 1, 5, 2])
    batch = data.batch(np.array([2, 1, 3]))
    assert batch.inputs["input_ids"].tolist() == [[2000, 2001, 2002, 2003, 2004], [1000, -7, -7, -7, -7],
                                                  [3000, 3001, -7, -7, -7]]
    assert batch.inputs["attention_mask"].tolist() == [[1] * 5, [1, 0, 0, 0, 0], [1, 1, 0, 0, 0]]
    assert (batch.inputs["token_type_ids"][batch.mask] == batch.inputs["input_ids"][batch.mask] % 2).all()
    assert batch.rows.tolist() == [2, 1, 3]
    assert batch.labels.tolist() == data.labels[[2, 1, 3]].tolist()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=200), st.integers(1, 17), st.integers(0, 99) | st.none())
def test_an_epoch_covers_every_sample_once(lengths, batch_size, seed):
    data = lines(lengths)
    batches = plan(data, batch_size, None if seed is None else np.random.default_rng(seed))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)


def test_tokenised_splits_hold_the_tokenisers_ids(text_task, pair_task):
    for task in (text_task, pair_task):
        prepared = prepare(task, "scratch-1x32", vocab=200)
        data = prepared.data("validation")
        for i in (0, 7, 23):
            alone = prepared.tokenizer(*task.splits["validation"].inputs[i])
            assert data.tokens[data.offsets[i]:data.offsets[i + 1]].tolist() == alone["input_ids"]
            assert data.types[data.offsets[i]:data.offsets[i + 1]].tolist() == alone["token_type_ids"]
        assert data.types.max() == (task.kind == "pair")
        assert data.ids == task.splits["validation"].ids


def test_long_texts_are_cut_and_keep_their_last_special_token(pair_task):
    prepared = prepare(pair_task, "scratch-1x32", vocab=200, max_length=9)
    data = prepared.data("train")
    assert data.lengths.max() == 9
    assert (data.tokens[data.offsets[1:] - 1] == prepared.tokenizer.sep_token_id).all()


def test_bucketing_computes_less_padding_than_random_batches():
    lengths = np.random.default_rng(0).integers(3, 60, 2000)
    data = lines(lengths)
    bucketed = padding_share(data, 16, np.random.default_rng(0))
    random = np.random.default_rng(1).permutation(2000).reshape(-1, 16)
    computed = sum(16 * lengths[b].max() for b in random)
    assert bucketed < 0.5 * (1 - lengths.sum() / computed)
    assert padding_share(data, 16, None) <= bucketed


def test_views_have_rows_of_their_own():
    data = pictures(5, views=3)
    assert data.row_ids[:4] == ["p0/view0", "p0/view1", "p0/view2", "p1/view0"]
    batch = data.batch(np.array([4, 0]), view=2)
    assert [data.row_ids[r] for r in batch.rows] == ["p4/view2", "p0/view2"]
    assert data.batch(np.array([4, 0]), view=5).rows.tolist() == batch.rows.tolist()  # epoch 5 shows view 5 mod 3
    assert torch.equal(data.batch(np.array([0, 4]), 2).inputs["pixels"].flip(0), batch.inputs["pixels"])


def test_views_differ_and_one_view_is_the_plain_image():
    data, plain = pictures(5, views=3), pictures(5, views=1)
    index = np.arange(5)
    shown = [data.batch(index, v).inputs["pixels"] for v in range(3)]
    assert not torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[1], shown[2])
    assert plain.row_ids == plain.ids
    expected = (torch.from_numpy(plain.pixels).float().permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    torch.testing.assert_close(plain.batch(index, 4).inputs["pixels"], expected)


def test_only_training_images_are_shown_in_views(image_task):
    prepared = prepare(image_task, "resnet-8w8", views=Views(2, crop=1))
    assert (prepared.data("train").views, prepared.data("validation").views, prepared.data("test").views) == (2, 1, 1)
    assert prepared.spec("train") != prepare(image_task, "resnet-8w8").spec("train")
    assert prepared.spec("test") == prepare(image_task, "resnet-8w8").spec("test")


def test_an_empty_split_is_refused(text_task):
    empty = text_split("train", 60, 0).take([])
    prepared = prepare(replace(text_task, splits={**text_task.splits, "unlabelled": empty}), "scratch-1x32")
    with pytest.raises(KitError, match="empty"):
        prepared.data("unlabelled")
    with pytest.raises(KitError, match="empty"):
        plan(pictures(0, 1), 8, np.random.default_rng(0))


def test_a_split_that_is_not_there_is_named(text_task):
    with pytest.raises(KitError, match=r"no split 'unlabelled'.*train, validation, test"):
        prepare(text_task, "scratch-1x32").data("unlabelled")


def test_text_does_not_go_into_a_resnet_nor_images_into_an_encoder(text_task, image_task):
    with pytest.raises(KitError, match="holds text"):
        prepare(text_task, "resnet-20")
    with pytest.raises(KitError, match="holds images"):
        prepare(image_task, "scratch-1x32")
