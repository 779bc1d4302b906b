"""Resizing, cropping and flipping of PIL images."""

import random
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.Image import Resampling
from torch import Tensor

Box = tuple[int, int, int, int]
"""Left, top, right and bottom of a crop, pixels."""
Resize = Literal["resize_and_crop", "scale_width", "scale_width_and_crop", "crop", "none"]

LARGEST = 2**24  # pixels of an enlarged image; of a larger one, such as that of a strip, only the crop is computed
MULTIPLE = 4  # a ResNet generator requires sizes that are multiples of this


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Resizes, crops and flips images, with the settings and defaults of the original implementation.

    | resize | size before the crop | crop |
    |---|---|---|
    | `resize_and_crop` | `load_size` × `load_size`, aspect ratio ignored | `crop_size` × `crop_size` |
    | `scale_width` | width `crop_size`, aspect ratio kept | none |
    | `scale_width_and_crop` | width `load_size`, aspect ratio kept | `crop_size` × `crop_size` |
    | `crop` | unchanged | `crop_size` × `crop_size` |
    | `none` | unchanged | none |

    An image that is smaller than the crop is enlarged first. Without a crop, width and height are rounded to
    multiples of 4. Resizing is bicubic with antialiasing.

    Raises:
        ValueError: `resize` is unknown, `crop_size` is not a positive multiple of 4, or `load_size` is smaller than
            `crop_size`.
    """

    resize: Resize = "resize_and_crop"
    load_size: int = 286
    crop_size: int = 256
    flip: bool = True

    def __post_init__(self) -> None:
        if self.resize not in get_args(Resize):
            raise ValueError(f"resize must be one of {', '.join(get_args(Resize))}, got {self.resize!r}")
        if self.crop_size < MULTIPLE or self.crop_size % MULTIPLE:
            raise ValueError(f"crop_size must be a positive multiple of {MULTIPLE}, got {self.crop_size}")
        if self.resize in ("resize_and_crop", "scale_width_and_crop") and self.load_size < self.crop_size:
            raise ValueError(f"load_size {self.load_size} is smaller than crop_size {self.crop_size}")

    def for_training(self, image: Image.Image, rng: random.Random) -> Image.Image:
        """Return the image with a random crop and a random flip drawn from `rng`."""
        size = self.scaled_size(image.size, training=True)
        box, mirrored = self.training_crop(size, rng)
        image = resized_crop(image, size, box)
        return ImageOps.mirror(image) if mirrored else image

    def for_evaluation(self, image: Image.Image) -> Image.Image:
        """Return the image without randomness: resized to the target size, or its centre crop."""
        size = self.scaled_size(image.size, training=False)
        return resized_crop(image, size, self.evaluation_crop(size))

    def training_crop(self, size: tuple[int, int], rng: random.Random) -> tuple[Box, bool]:
        """Draw the crop from a resized image, and whether it is flipped.

        Args:
            size: width and height of the resized image.
            rng: where the numbers are drawn from.
        """
        (width, height), side = size, self.crop_size
        if self.resize in ("scale_width", "none"):
            box = (0, 0, width, height)
        else:
            left, top = rng.randint(0, width - side), rng.randint(0, height - side)
            box = (left, top, left + side, top + side)
        return box, self.flip and rng.random() < 0.5

    def evaluation_crop(self, size: tuple[int, int]) -> Box:
        """Return the crop from the centre of a resized image, or all of it; `size` is its width and height."""
        (width, height), side = size, self.crop_size
        if self.resize in ("scale_width", "none"):
            return 0, 0, width, height
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side

    def scaled_size(self, size: tuple[int, int], *, training: bool) -> tuple[int, int]:
        """Return width and height before the crop, for an image of a width and height."""
        width, height = size
        load_size = self.load_size if training else self.crop_size
        match self.resize:
            case "resize_and_crop":
                return load_size, load_size
            case "scale_width":
                return self.crop_size, _round_to_multiple(height * self.crop_size / width)
            case "scale_width_and_crop":
                return load_size, max(round(height * load_size / width), self.crop_size)
            case "crop":
                scale = max(1.0, self.crop_size / min(width, height))
                return max(round(width * scale), self.crop_size), max(round(height * scale), self.crop_size)
            case "none":
                return _round_to_multiple(width), _round_to_multiple(height)


def _round_to_multiple(pixels: float) -> int:
    return max(MULTIPLE, MULTIPLE * round(pixels / MULTIPLE))


def enlarged_too_far(source: tuple[int, int], size: tuple[int, int]) -> bool:
    """Return whether an image would become so large that only its crop is computed; both are widths and heights."""
    return size[0] > source[0] and size[0] * size[1] > LARGEST


def resized_crop(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    """Resize an image to a width and height, and crop it."""
    if not enlarged_too_far(image.size, size):
        return resize(image, size).crop(box)
    left, top, right, bottom = box
    across, down = image.width / size[0], image.height / size[1]
    part = (left * across, top * down, right * across, bottom * down)
    return image.resize((right - left, bottom - top), Resampling.BICUBIC, box=part)


def resized_bands(bands: Tensor, size: tuple[int, int], box: Box) -> Tensor:
    """Resize an image `(C, H, W)` in [-1, 1] to a width and height, and crop it, as `resized_crop` does with levels."""
    cropped = [np.array(resized_crop(Image.fromarray(band), size, box)) for band in bands.numpy()]
    return torch.from_numpy(np.stack(cropped)).clamp_(-1, 1)


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize an image to a width and height, bicubic with antialiasing."""
    return image if image.size == size else image.resize(size, Resampling.BICUBIC)
