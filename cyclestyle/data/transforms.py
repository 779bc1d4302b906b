"""Resizing, cropping and flipping of PIL images."""

import random
from dataclasses import dataclass
from typing import Literal, get_args

from PIL import Image, ImageOps
from PIL.Image import Resampling

Resize = Literal["resize_and_crop", "scale_width", "scale_width_and_crop", "crop", "none"]

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
        width, height = self._scaled_size(image.size, self.load_size)
        if self.resize in ("scale_width", "none"):
            left, top, size = 0, 0, (width, height)
        else:
            size = (self.crop_size, self.crop_size)
            left, top = rng.randint(0, width - size[0]), rng.randint(0, height - size[1])
        image = _resize(image, (width, height)).crop((left, top, left + size[0], top + size[1]))
        return ImageOps.mirror(image) if self.flip and rng.random() < 0.5 else image

    def for_evaluation(self, image: Image.Image) -> Image.Image:
        """Return the image without randomness: resized to the target size, or its centre crop."""
        width, height = self._scaled_size(image.size, self.crop_size)
        image = _resize(image, (width, height))
        if self.resize in ("scale_width", "none"):
            return image
        left, top = (width - self.crop_size) // 2, (height - self.crop_size) // 2
        return image.crop((left, top, left + self.crop_size, top + self.crop_size))

    def _scaled_size(self, size: tuple[int, int], load_size: int) -> tuple[int, int]:
        """Return width and height before the crop."""
        width, height = size
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


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Resampling.BICUBIC)
