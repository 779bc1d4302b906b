import random

import numpy as np
import pytest
from PIL import Image

from cyclestyle.data.transforms import Preparation

IMAGES = [(300, 200), (200, 300), (256, 256), (31, 77), (3, 3), (1, 20)]


@pytest.mark.parametrize("size", IMAGES)
@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        ("resize_and_crop", lambda w, h: (64, 64)),
        ("scale_width_and_crop", lambda w, h: (64, 64)),
        ("crop", lambda w, h: (64, 64)),
        ("scale_width", lambda w, h: (64, max(4, 4 * round(h * 64 / w / 4)))),
        ("none", lambda w, h: (max(4, 4 * round(w / 4)), max(4, 4 * round(h / 4)))),
    ],
)
def test_sizes(size, resize, expected):
    prepare = Preparation(resize=resize, load_size=72, crop_size=64)
    image = Image.new("RGB", size)
    for view in (prepare.for_training(image, random.Random(0)), prepare.for_evaluation(image)):
        assert view.size == expected(*size)


def test_only_the_crop_of_an_image_is_computed_that_would_become_huge(monkeypatch):
    """A strip of 3000×1 pixels becomes 196 million pixels when its height is enlarged to 256."""
    image = Image.radial_gradient("L").resize((17, 11))
    prepare = Preparation(resize="crop", crop_size=64)
    whole = prepare.for_training(image, random.Random(0)), prepare.for_evaluation(image)
    monkeypatch.setattr(Image.Image, "crop", None)
    monkeypatch.setattr("cyclestyle.data.transforms.LARGEST", 64 * 64)
    parts = prepare.for_training(image, random.Random(0)), prepare.for_evaluation(image)
    for one, other in zip(whole, parts, strict=True):
        assert np.abs(np.asarray(one, dtype=int) - np.asarray(other)).max() <= 1


def test_crops_and_flips_depend_only_on_the_seed():
    image = Image.radial_gradient("L").resize((90, 70))
    prepare = Preparation(load_size=72, crop_size=64)

    def view(seed):
        return prepare.for_training(image, random.Random(seed)).tobytes()

    assert view(1) == view(1)
    assert len({view(seed) for seed in range(20)}) > 15


def test_about_half_of_the_images_are_flipped_unless_flip_is_off():
    image = Image.linear_gradient("L").rotate(90).resize((64, 64))  # dark on one side

    def mirrored(flip):
        prepare = Preparation(resize="crop", crop_size=64, flip=flip)
        views = [prepare.for_training(image, random.Random(seed)) for seed in range(100)]
        return sum(view.getpixel((0, 0)) != image.getpixel((0, 0)) for view in views)

    assert mirrored(False) == 0
    assert 30 < mirrored(True) < 70


def test_evaluation_is_deterministic_and_uses_the_whole_image():
    image = Image.linear_gradient("L").resize((300, 200))
    view = Preparation(load_size=72, crop_size=64).for_evaluation(image)
    assert view.tobytes() == image.resize((64, 64), Image.Resampling.BICUBIC).tobytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resize": "stretch"}, "resize must be one of"),
        ({"crop_size": 30}, "crop_size must be a positive multiple of 4, got 30"),
        ({"load_size": 200}, "load_size 200 is smaller than crop_size 256"),
    ],
)
def test_invalid_settings_raise_an_error(settings, message):
    with pytest.raises(ValueError, match=message):
        Preparation(**settings)
