"""Native decoding and the cache give the crops that Pillow gives."""

import os
import random

import numpy as np
import pytest
import torch
from PIL import Image

from cyclestyle.data import UnpairedImages
from cyclestyle.data.reader import ImageCache, ImageReader, build_cache
from cyclestyle.data.transforms import Preparation
from cyclestyle.errors import ImageError
from cyclestyle.images import read_header, read_image, to_tensor

LEVEL = 2 / 255


def draw(path, *, mode="RGB", size=(90, 70), seed=0, **options):
    """Save a smooth image, as photos are."""
    channels = {"RGB": 3, "L": 1, "CMYK": 4}[mode]
    small = np.random.default_rng(seed).integers(0, 256, (7, 9, channels), dtype=np.uint8)
    image = Image.fromarray(small[..., 0] if channels == 1 else small, mode).resize(size, Image.Resampling.BICUBIC)
    image.save(path, **options)
    return path


def reader(decoder="pillow", cache=None, **settings):
    prepare = Preparation(**{"load_size": 48, "crop_size": 40, **settings})
    return ImageReader(prepare, decoder, cache)


@pytest.mark.parametrize("resize", ["resize_and_crop", "scale_width", "scale_width_and_crop", "crop", "none"])
def test_reading_is_pillow_and_the_preparation(tmp_path, resize):
    path, ours = draw(tmp_path / "a.png"), reader(resize=resize)
    for seed in range(5):
        expected = to_tensor(ours.prepare.for_training(read_image(path), random.Random(seed)))
        assert torch.equal(ours.for_training(path, 3, random.Random(seed)), expected)
    assert torch.equal(ours.for_evaluation(path, 3), to_tensor(ours.prepare.for_evaluation(read_image(path))))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_numbers_of_channels(tmp_path, channels):
    path, ours = draw(tmp_path / "a.png"), reader()
    expected = to_tensor(ours.prepare.for_evaluation(read_image(path, channels)))
    assert torch.equal(ours.for_evaluation(path, channels), expected)


EXIF = Image.Exif()
EXIF[0x0112] = 6  # the camera was turned


@pytest.mark.parametrize(
    ("mode", "options"),
    [("RGB", {}), ("L", {}), ("CMYK", {}), ("RGB", {"progressive": True}), ("RGB", {"exif": EXIF})],
    ids=["RGB", "grey", "CMYK", "progressive", "turned"],
)
@pytest.mark.parametrize("resize", ["resize_and_crop", "none"])
def test_torchvision_differs_by_at_most_two_levels(tmp_path, mode, options, resize):
    path = draw(tmp_path / "a.jpg", mode=mode, quality=95, **options)
    pillow, native = reader(resize=resize), reader("torchvision", resize=resize)
    for seed in range(3):
        expected = pillow.for_training(path, 3, random.Random(seed))
        found = native.for_training(path, 3, random.Random(seed))
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 2.5 * LEVEL
        assert (found - expected).abs().mean() < 0.1 * LEVEL


@pytest.mark.parametrize("decoder", ["pillow", "torchvision"])
def test_damaged_files_are_named(tmp_path, decoder):
    path = draw(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ImageError, match=r"a\.jpg"):
        reader(decoder).for_evaluation(path, 3)
    with pytest.raises(ImageError, match=r"b\.jpg"):
        reader(decoder).for_evaluation(tmp_path / "b.jpg", 3)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_cache_is_used_until_the_file_changes(tmp_path, where, monkeypatch):
    path = draw(tmp_path / "a.png")
    ours = reader(cache=ImageCache(where, 10**6, tmp_path / "cache"))
    first = ours.for_evaluation(path, 3)
    with monkeypatch.context() as patch:
        patch.setattr("cyclestyle.data.reader.read_sample", None)  # not called again
        assert torch.equal(ours.for_evaluation(path, 3), first)
    before = path.stat()
    draw(path, seed=1)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    changed = ours.for_evaluation(path, 3)
    assert torch.equal(changed, reader().for_evaluation(path, 3))
    assert not torch.equal(changed, first)


def test_a_cache_keeps_the_sizes_apart(tmp_path):
    path, cache = draw(tmp_path / "a.png"), ImageCache("memory", 10**6)
    for settings in ({}, {"load_size": 64}, {"resize": "crop"}):
        for _ in range(2):
            found = reader(cache=cache, **settings).for_training(path, 3, random.Random(3))
            assert torch.equal(found, reader(**settings).for_training(path, 3, random.Random(3)))


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_cache_is_bounded(tmp_path, where):
    size = 48 * 48 * 3
    cache = ImageCache(where, 3 * size + 400, tmp_path / "cache")
    ours = reader(cache=cache)
    paths = [draw(tmp_path / f"{n}.png", seed=n) for n in range(6)]
    for path in paths:
        ours.for_training(path, 3, random.Random(0))
    if where == "disk":
        files = list((tmp_path / "cache").glob("*.npy"))
        assert 1 <= len(files) <= 3
        again = ImageCache(where, 3 * size, tmp_path / "cache")
        again.make_room()
        assert len(list((tmp_path / "cache").glob("*.npy"))) < len(files)
    for path in paths:
        assert torch.equal(
            ours.for_training(path, 3, random.Random(1)), reader().for_training(path, 3, random.Random(1))
        )


def test_a_damaged_or_unwritable_cache_does_no_harm(tmp_path):
    path, folder = draw(tmp_path / "a.png"), tmp_path / "cache"
    expected = reader().for_evaluation(path, 3)
    ours = reader(cache=ImageCache("disk", 10**6, folder))
    ours.for_evaluation(path, 3)
    (file,) = folder.glob("*.npy")
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(reader(cache=ImageCache("disk", 10**6, folder)).for_evaluation(path, 3), expected)
    (tmp_path / "file").write_text("")
    blocked = reader(cache=ImageCache("disk", 10**6, tmp_path / "file"))
    assert torch.equal(blocked.for_evaluation(path, 3), expected)


def test_batches_are_the_same_with_a_cache_and_two_workers(samples):
    settings = {"load_size": 36, "crop_size": 32, "seed": 1}
    plain = list(UnpairedImages(str(samples), workers=0, **settings).train_dataloader())
    cached = UnpairedImages(str(samples), workers=2, cache="disk", **settings)
    for _ in range(2):
        for ours, theirs in zip(cached.train_dataloader(), plain, strict=True):
            assert torch.equal(ours["A"], theirs["A"])
            assert torch.equal(ours["B"], theirs["B"])


def test_wrong_settings(samples):
    with pytest.raises(ValueError, match="cache must be none, memory or disk, got 'tape'"):
        build_cache("tape", "1GB", 0)
    with pytest.raises(ValueError, match="decoder must be pillow or torchvision, got 'opencv'"):
        UnpairedImages(str(samples), decoder="opencv")
    with pytest.raises(ValueError, match=r"cache_size: .*many"):
        UnpairedImages(str(samples), cache_size="many")


def test_many_files_are_not_all_opened(tmp_path, monkeypatch):
    for domain in "AB":
        folder = tmp_path / f"train{domain}"
        folder.mkdir()
        first = draw(folder / "0000.png", size=(8, 8))
        for number in range(1, 40):
            os.link(first, folder / f"{number:04}.png")
    monkeypatch.setattr("cyclestyle.images.folders.MAX_HEADERS", 10)
    opened = []
    monkeypatch.setattr("cyclestyle.images.folders.read_header", lambda path: opened.append(path) or read_header(path))
    assert len(UnpairedImages(str(tmp_path)).paths("train_A")) == 40
    assert 1 <= len(opened) <= 10


@pytest.mark.parametrize("decoder", ["pillow", "torchvision"])
def test_an_image_that_would_become_huge_is_not_kept(tmp_path, decoder):
    """A strip of 3000×1 pixels becomes 196 million pixels when its height is enlarged to 256."""
    path, cache = draw(tmp_path / "strip.jpg", size=(3000, 1)), build_cache("memory", "4GB", 1)
    ours = reader(decoder, cache, resize="crop", crop_size=256)
    assert ours.for_training(path, 3, random.Random(0)).shape == ours.for_evaluation(path, 3).shape == (3, 256, 256)
    assert cache._bytes == 0
