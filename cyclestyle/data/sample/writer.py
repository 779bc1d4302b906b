"""Writes the sample domains in the folder layout of CycleGAN datasets."""

import os
from collections.abc import Callable, Iterable
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

# First element of the seed of each scene: the splits have no scene in common.
_TRAIN_PHOTOS, _TRAIN_PAINTINGS, _TEST_PHOTOS, _TEST_PAINTINGS = range(4)


@dataclass(frozen=True)
class _Image:
    """One image to render; the photo and the painting of a scene differ only in `domain` and `path`."""

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
    masks: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Render the sample domains into `folder`.

    `trainA` and `testA` contain photos, `trainB` and `testB` paintings, all of different scenes. `truthB` contains the
    painting of each photo in `testA` under the same name. Existing images are kept, so an interrupted run can be
    continued. The pixels depend only on the seed and the size. Returns the number of images that were rendered.

    Args:
        folder: where to write.
        train: number of images in each of `trainA` and `trainB`.
        test: number of images in each of `testA`, `testB` and `truthB`.
        size: width and height in pixels.
        seed: seed of the scenes and of the rendering.
        masks: write the masks of the trees of `trainA`, `trainB` and `testA` into `masks_trainA` and so on.
        workers: number of processes; the number of cores by default.
        progress: called with the number of finished images and their total.

    Raises:
        DataError: a number is out of range, or `folder` contains samples with other settings.
        ImageError: an image cannot be written.
    """
    for name, value, minimum in (("train", train, 1), ("test", test, 1), ("size", size, 32), ("seed", seed, 0)):
        if value < minimum:
            raise DataError(f"{name} must be at least {minimum}, got {value}")
    images = _plan(folder, train, test, size, seed, masks)
    _check_settings(folder, f"size {size}, seed {seed}", {image.path.parent for image in images})
    missing = [image for image in images if not image.path.exists()]
    processes = min(workers or os.cpu_count() or 1, len(missing))
    if processes <= 1:
        for done, image in enumerate(missing, start=1):
            _render(image)
            progress(done, len(missing))
        return len(missing)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(_render, missing, chunksize=8), start=1):
            progress(done, len(missing))
    return len(missing)


def _plan(folder: Path, train: int, test: int, size: int, seed: int, masks: bool) -> list[_Image]:
    splits = [
        ("trainA", "photo", _TRAIN_PHOTOS, train),
        ("trainB", "painting", _TRAIN_PAINTINGS, train),
        ("testA", "photo", _TEST_PHOTOS, test),
        ("testB", "painting", _TEST_PAINTINGS, test),
        ("truthB", "painting", _TEST_PHOTOS, test),
    ]
    if masks:
        splits += [(f"masks_{name}", "mask", split, count) for name, _, split, count in splits[:3]]
    return [
        _Image((split, seed, index), domain, size, folder / name / f"{index:04d}.png")
        for name, domain, split, count in splits
        for index in range(count)
    ]


def sample_image(number: int, size: int, *, painted: bool = False) -> Image.Image:
    """Return a photo, or a painting, of the sample domains that is in none of the splits of seed 0.

    Args:
        number: of the scene.
        size: width and height in pixels.
        painted: return the painting of the scene.
    """
    return _drawn((1, _TEST_PHOTOS, number), "painting" if painted else "photo", size)


def _render(image: _Image) -> None:
    write_image(_drawn(image.seed, image.domain, image.size), image.path)


def _drawn(seed: tuple[int, int, int], domain: str, size: int) -> Image.Image:
    scene = draw_scene(np.random.default_rng(seed), size)
    if domain == "mask":
        return Image.fromarray(np.where(scene.trees, 255, 0).astype(np.uint8))
    rng = np.random.default_rng((*seed, len(domain)))
    pixels = take_photo(scene, rng) if domain == "photo" else paint(scene, rng)
    return Image.fromarray(np.rint(255 * pixels).astype(np.uint8))


def _check_settings(folder: Path, settings: str, splits: Iterable[Path]) -> None:
    """Record the settings in the folder.

    Raises:
        DataError: the folder contains samples with other settings, or images of another origin, or cannot be written.
    """
    record = folder / "SAMPLES.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not record.exists():
            for split in sorted(splits):
                if split.exists() and (not split.is_dir() or any(split.iterdir())):
                    raise DataError(f"{split} holds files that are no samples; choose another folder")
            record.write_text(f"Drawn by cyclestyle sample-data: {settings}\n")
        elif settings not in record.read_text():
            raise DataError(f"{folder} contains samples with other settings than {settings}; choose another folder")
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror}") from error
