"""Images: digits, CIFAR-10 from a mirror made here, and views that belong to the sample."""

import hashlib
import os

import numpy as np
import pytest

from mtkd.data import images
from mtkd.data.tasks import load_task
from mtkd.errors import KitError


def sizes(task):
    return {name: len(split) for name, split in task.splits.items()}


def test_digits():
    task = load_task("digits")
    assert (task.kind, task.outputs, sizes(task)) == ("image", 10, {"train": 1078, "validation": 360, "test": 359})
    pixels = task.splits["train"].inputs
    assert (pixels.dtype, pixels.shape[1:], pixels.min(), pixels.max()) == (np.uint8, (8, 8, 1), 0, 255)
    mean, std = images.STATISTICS["digits"]
    np.testing.assert_allclose([pixels.mean() / 255, pixels.std() / 255], [mean[0], std[0]], atol=1e-4)


@pytest.fixture(scope="module")
def batch():
    pixels = np.random.default_rng(0).integers(1, 256, (32, 6, 5, 3), dtype=np.uint8)
    return pixels, [f"train/{i}" for i in range(32)]


def test_a_view_belongs_to_the_sample_and_not_to_its_place(batch):
    pixels, ids = batch
    whole = images.views(pixels, ids, 3, crop=2, flip=True)
    order = np.random.default_rng(1).permutation(32)
    again = images.views(pixels[order], [ids[i] for i in order], 3, crop=2, flip=True)
    assert (again == whole[order]).all()
    assert (images.views(pixels, ids, 4, crop=2, flip=True) != whole).any()
    first = int.from_bytes(hashlib.sha256(b"3:train/0").digest()[:8], "little") % 5
    assert images.view_draws(ids, 3, 2, True)[0][0] == first  # no generator, so the same on every machine


def test_view_against_padding_and_slicing_by_hand(batch):
    pixels, ids = batch
    dy, dx, flipped = images.view_draws(ids, 7, 2, True)
    made = images.views(pixels, ids, 7, crop=2, flip=True)
    for i in range(32):
        by_hand = np.pad(pixels[i], ((2, 2), (2, 2), (0, 0)))[dy[i]:dy[i] + 6, dx[i]:dx[i] + 5]
        assert (made[i] == (by_hand[:, ::-1] if flipped[i] else by_hand)).all()
    assert set(dy) == set(dx) == set(range(5))
    assert 0 < flipped.sum() < 32


def test_plain_view_and_switches(batch):
    pixels, ids = batch
    assert (images.views(pixels, ids, -1, crop=2, flip=True) == pixels).all()
    assert (images.views(pixels, ids, 0, crop=0, flip=False) == pixels).all()
    assert not images.view_draws(ids, 0, 2, False)[2].any()
    assert (images.apply_draws(pixels, *images.view_draws(ids, -1, 2, True), crop=2) == pixels).all()
    flips = images.views(pixels, ids, 0, crop=0, flip=True)
    assert all((a == b).all() or (a == b[:, ::-1]).all() for a, b in zip(flips, pixels))
    with pytest.raises(ValueError, match="32 images and 31 ids"):
        images.views(pixels, ids[1:], 0, 2, True)


def test_draws_are_uniform():
    dy, dx, flipped = images.view_draws([str(i) for i in range(9000)], 0, 4, True)
    for draws in (dy, dx):
        counts = np.bincount(draws, minlength=9)
        assert ((counts - 1000) ** 2 / 1000).sum() < 30  # chi-squared with 8 degrees of freedom: one in 5,000
    assert abs(flipped.mean() - 0.5) < 0.03
    assert abs(np.corrcoef(dy, dx)[0, 1]) < 0.05


def test_normalise(batch):
    pixels, _ = batch
    out = images.normalise(pixels, *images.STATISTICS["cifar10"])
    assert (out.shape, out.dtype) == ((32, 3, 6, 5), np.float32)
    assert out.flags.c_contiguous
    by_hand = (pixels[4, 2, 1, 2] / 255 - images.CIFAR10_MEAN[2]) / images.CIFAR10_STD[2]
    np.testing.assert_allclose(out[4, 2, 2, 1], by_hand, rtol=1e-4)


@pytest.fixture
def small_cifar(monkeypatch, tmp_path):
    """CIFAR-10's layout with 60 and 10 random images, in a mirror and with a cache of its own."""
    import datasets

    monkeypatch.setenv("MTKD_HUB", str(tmp_path / "mirror"))
    monkeypatch.setenv("MTKD_CACHE", str(tmp_path / "cache"))
    draw = np.random.default_rng(0)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})
    folder = tmp_path / "mirror" / "uoft-cs" / "cifar10" / "plain_text"
    folder.mkdir(parents=True)
    pixels = {}
    for split, n in (("train", 60), ("test", 10)):
        pixels[split] = draw.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        rows = {"img": list(pixels[split]), "label": [i % 10 for i in range(n)]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return tmp_path, pixels


def test_cifar10_from_a_mirror(small_cifar, monkeypatch):
    folder, pixels = small_cifar
    task = load_task("cifar10", validation=12)
    assert sizes(task) == {"train": 48, "validation": 12, "test": 10}
    assert (task.splits["test"].inputs == pixels["test"]).all()
    assert any("local mirror" in note for note in task.notes)
    monkeypatch.setattr(images, "decode", lambda encoded: pytest.fail("decoded again, not read from the cache"))
    assert load_task("cifar10", validation=12).fingerprint == task.fingerprint
    monkeypatch.undo()
    for cached in (folder / "cache").iterdir():
        cached.write_bytes(cached.read_bytes()[:500])
    monkeypatch.setenv("MTKD_HUB", str(folder / "mirror"))
    monkeypatch.setenv("MTKD_CACHE", str(folder / "cache"))
    assert load_task("cifar10", validation=12).fingerprint == task.fingerprint


def test_images_that_are_not():
    with pytest.raises(KitError, match="cannot be decoded"):
        images.decode([b"no image"])


def test_real_cifar10_statistics():
    if not os.path.isdir(os.path.join(os.environ.get("MTKD_HUB", "/nowhere"), "uoft-cs/cifar10")):
        pytest.skip("MTKD_HUB names no mirror that holds it")
    pixels = load_task("cifar10").splits["train"].inputs[:5000] / 255
    mean, std = images.STATISTICS["cifar10"]
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), mean, atol=0.01)
    np.testing.assert_allclose(pixels.std((0, 1, 2)), std, atol=0.01)
