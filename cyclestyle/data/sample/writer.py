"""Writes the sample domains in the field's folder layout."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from cyclestyle.data.sample.painting import paint
from cyclestyle.data.sample.photo import take_photo
from cyclestyle.data.sample.scene import draw_scene
from cyclestyle.errors import DataError
from cyclestyle.images import write_image

# The first word of each scene's seed: no scene of one split can appear in another.
_TRAIN_PHOTOS, _TRAIN_PAINTINGS, _TEST_PHOTOS, _TEST_PAINTINGS = range(4)


@dataclass(frozen=True)
class _Image:
    """One image to draw; the photo and the true painting of a scene share all but `domain` and `path`."""

    seed: tuple[int, int, int]
    domain: str
    size: int
    path: Path


def write_samples(
    folder: Path,
    *,
    train: int = 240,
    test: int = 24,
    size: int = 128,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Draw the sample domains into `folder` and return how many images were drawn now.

    `trainA`, `testA` hold photos, `trainB`, `testB` paintings; no scene is in two of them. `truthB` holds
    the true painting of each photo in `testA`, under the same name. Images that are there are kept, so an
    interrupted run goes on where it stopped; the same seed gives the same pixels whatever `workers` is.

    Args:
        folder: where to write.
        train: images in each of `trainA` and `trainB`.
        test: images in each of `testA`, `testB` and `truthB`.
        size: width and height in pixels.
        seed: seed of every scene and stroke.
        workers: processes that draw; all cores by default.
        progress: called with the images done and their total.

    Raises:
        DataError: a number is out of its range, or `folder` holds samples drawn with other settings.
        ImageError: an image cannot be written.
    """
    for name, value, least in (("train", train, 1), ("test", test, 1), ("size", size, 32), ("seed", seed, 0)):
        if value < least:
            raise DataError(f"{name} must be at least {least}, got {value}")
    _claim(folder, f"size {size}, seed {seed}")
    missing = [image for image in _plan(folder, train, test, size, seed) if not image.path.exists()]
    processes = min(workers or os.cpu_count() or 1, len(missing))
    if processes <= 1:
        for done, image in enumerate(missing, start=1):
            _draw(image)
            progress(done, len(missing))
        return len(missing)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(_draw, missing, chunksize=8), start=1):
            progress(done, len(missing))
    return len(missing)


def _plan(folder: Path, train: int, test: int, size: int, seed: int) -> list[_Image]:
    splits = (
        ("trainA", "photo", _TRAIN_PHOTOS, train),
        ("trainB", "painting", _TRAIN_PAINTINGS, train),
        ("testA", "photo", _TEST_PHOTOS, test),
        ("testB", "painting", _TEST_PAINTINGS, test),
        ("truthB", "painting", _TEST_PHOTOS, test),
    )
    return [
        _Image((split, seed, index), domain, size, folder / name / f"{index:04d}.png")
        for name, domain, split, count in splits
        for index in range(count)
    ]


def _draw(image: _Image) -> None:
    scene = draw_scene(np.random.default_rng(image.seed), image.size)
    hand = np.random.default_rng((*image.seed, len(image.domain)))
    pixels = take_photo(scene, hand) if image.domain == "photo" else paint(scene, hand)
    write_image(Image.fromarray(np.rint(255 * pixels).astype(np.uint8)), image.path)


def _claim(folder: Path, settings: str) -> None:
    """Note the settings in the folder, and refuse to mix images of two settings."""
    note = folder / "SAMPLES.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not note.exists():
            note.write_text(f"Drawn by cyclestyle sample-data: {settings}\n")
        elif settings not in note.read_text():
            raise DataError(f"{folder} holds samples with other settings than {settings}; name another folder")
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror}") from error
