"""Images as uint8 arrays, and augmented views of them that can be stored by number.

A view is a random crop (after padding with zeros) and a random horizontal flip, drawn not from a generator but from
SHA-256 of (sample id, view number). View 3 of a sample is therefore the same pixels in every epoch, process and
machine, and a teacher's output for it can be stored. View -1 is the plain image.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mtkd.data import hub
from mtkd.data.splits import Split, Task, content_hash, hash_order, unique_ids
from mtkd.data.tasks import task
from mtkd.errors import KitError

# Mean and standard deviation per channel over the training pixels, on the scale 0..1.
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
DIGITS_MEAN, DIGITS_STD = (0.3057,), (0.3761,)
STATISTICS = {"cifar10": (CIFAR10_MEAN, CIFAR10_STD), "digits": (DIGITS_MEAN, DIGITS_STD)}


@task("digits")
def digits() -> Task:
    """Scikit-learn's 1,797 handwritten digits, 8 x 8 x 1, split by the hash of the pixels: 60 / 20 / 20 per cent."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    pixels = np.round(raw.images * (255 / 16)).astype(np.uint8)[..., None]
    keys = [content_hash(image.tobytes()) for image in pixels]
    split = Split(unique_ids(keys), pixels, raw.target.astype(np.int64))
    order = hash_order(keys, salt="digits")
    a, b = round(0.6 * len(order)), round(0.8 * len(order))
    parts = {"train": order[:a], "validation": order[a:b], "test": order[b:]}
    return Task("digits", "image", tuple(str(n) for n in range(10)), {n: split.take(p) for n, p in parts.items()},
                "accuracy", ("accuracy", "macro_f1"))


@task("cifar10")
def cifar10(validation: int = 5000) -> Task:
    """CIFAR-10, 32 x 32 x 3. `validation` of its 50,000 training images, chosen by hash, are the validation split."""
    hub_id = "uoft-cs/cifar10"
    rows = hub.load_hub_dataset(hub_id, "plain_text")
    splits = {}
    for name in ("train", "test"):
        column = next((c for c in ("img", "image") if c in rows[name].column_names), None)
        if column is None or "label" not in rows[name].column_names:
            raise KitError(f"{hub_id} has no img and label columns; it has {', '.join(rows[name].column_names)}")
        encoded = [image["bytes"] for image in rows[name][column]]
        ids = unique_ids([content_hash(image) for image in encoded])
        splits[name] = Split(ids, _decode_once(encoded, f"cifar10-{name}-{content_hash(*ids)}.npy"),
                             np.asarray(rows[name]["label"], dtype=np.int64))
    order = hash_order(splits["train"].ids, salt="cifar10")
    everything = splits["train"]
    splits = {"train": everything.take(np.sort(order[validation:])),
              "validation": everything.take(np.sort(order[:validation])), "test": splits["test"]}
    notes = [f"CIFAR-10 has no validation split: {validation:,} training images, chosen by hash, are used for it"]
    if os.path.isdir(hub.find(hub_id, "dataset")):
        notes.append("a local mirror supplied this data set: if its images were recompressed (JPEG), scores are a "
                     "little off published ones")
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    return Task("cifar10", "image", classes, splits, "accuracy", ("accuracy", "macro_f1"), tuple(notes))


def decode(encoded: Sequence[bytes]) -> np.ndarray:
    """Encoded RGB images of one size -> uint8 [n, H, W, 3]."""
    from PIL import Image, UnidentifiedImageError

    def one(data: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))

    try:
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:  # decoding releases the GIL
            return np.stack(list(pool.map(one, encoded, chunksize=256)))
    except (UnidentifiedImageError, TypeError, ValueError) as error:
        raise KitError(f"an image of the data set cannot be decoded: {error}") from error


def _decode_once(encoded: Sequence[bytes], name: str) -> np.ndarray:
    """`decode`, kept in the cache folder: 60,000 images take some ten seconds, reading them back a tenth of one."""
    path = hub.cache_folder() / name
    try:
        pixels = np.load(path, allow_pickle=False)
        if pixels.dtype == np.uint8 and pixels.shape[0] == len(encoded):
            return pixels
    except (OSError, ValueError):
        pass  # not there yet, or damaged: make it again
    pixels = decode(encoded)
    buffer = io.BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    hub.write_whole(path, buffer.getbuffer())
    return pixels


def view_draws(ids: Sequence[str], view: int, crop: int, flip: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What view number `view` of each sample is: offsets dy, dx (int64 [b], 0 .. 2 * crop) and flipped (bool [b]).

    An offset of `crop` leaves the image where it is; view -1 is the plain image for every sample.
    """
    if view < 0:
        middle = np.full(len(ids), crop, dtype=np.int64)
        return middle, middle.copy(), np.zeros(len(ids), dtype=bool)
    digest = b"".join(hashlib.sha256(f"{view}:{i}".encode()).digest()[:24] for i in ids)
    draws = np.frombuffer(digest, dtype="<u8").reshape(len(ids), 3)
    width = np.uint64(2 * crop + 1)
    flipped = (draws[:, 2] % np.uint64(2)).astype(bool) & flip
    return (draws[:, 0] % width).astype(np.int64), (draws[:, 1] % width).astype(np.int64), flipped


def apply_draws(images: np.ndarray, dy: np.ndarray, dx: np.ndarray, flipped: np.ndarray, crop: int) -> np.ndarray:
    """Pad uint8 [b, H, W, C] with `crop` zeros on every side, cut H x W out at (dy, dx), mirror left to right."""
    b, height, width, channels = images.shape
    padded = np.zeros((b, height + 2 * crop, width + 2 * crop, channels), dtype=np.uint8)
    padded[:, crop:crop + height, crop:crop + width] = images
    cut = np.empty_like(images)
    for i, (y, x, mirrored) in enumerate(zip(dy.tolist(), dx.tolist(), flipped.tolist())):
        # copying slices is several times faster than one fancy index over all pixels
        window = padded[i, y:y + height, x:x + width]
        cut[i] = window[:, ::-1] if mirrored else window
    return cut


def views(images: np.ndarray, ids: Sequence[str], view: int, crop: int, flip: bool) -> np.ndarray:
    """View number `view` of each image: uint8 [b, H, W, C] in and out; -1 gives the images themselves.

    crop    pixels of zero padding, so that the cut-out moves by up to `crop` each way (0 = no cropping)
    flip    mirror half of the views left to right
    """
    if len(images) != len(ids):
        raise ValueError(f"{len(images)} images and {len(ids)} ids")
    if view < 0 or (crop == 0 and not flip):
        return images
    return apply_draws(images, *view_draws(ids, view, crop, flip), crop)


def normalise(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """uint8 [b, H, W, C] -> float32 [b, C, H, W], each channel as (pixel / 255 - mean) / std."""
    scale = 1 / (255 * np.asarray(std, dtype=np.float32))
    shift = -np.asarray(mean, dtype=np.float32) / np.asarray(std, dtype=np.float32)
    pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32)
    pixels *= scale[:, None, None]
    pixels += shift[:, None, None]
    return pixels
