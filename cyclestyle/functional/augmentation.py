"""Differentiable augmentation of what a discriminator sees (Zhao et al. 2020, *DiffAugment*, section 3)."""

from collections.abc import Collection, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

AugmentationName = Literal["color", "translation", "cutout"]
TRANSLATION, CUTOUT = 0.125, 0.5  # largest shift, and side of the block, relative to the image


def check_augmentations(names: Sequence[str]) -> None:
    """Check the names of a policy.

    Raises:
        ValueError: a name is unknown, or given twice.
    """
    known = get_args(AugmentationName)
    if not set(names) <= set(known) or len(set(names)) < len(names):
        raise ValueError(f"diff_augment must name some of {', '.join(known)}, none twice, got {list(names)}")


def diff_augment(images: Tensor, policy: Collection[AugmentationName], *, cutout: float = CUTOUT) -> Tensor:
    """Change each image of a batch at random, with gradients to the images.

    Every discriminator score D(x) becomes D(T(x)), for real and generated images, in the step of the discriminator and
    in that of the generator, with new draws each time. The ranges are those of the authors' code, in this order:

    | name | what is drawn for each image |
    |---|---|
    | `color` | x + U(−½, ½); then the distance from the mean over the channels times U(0, 2); then the distance from the mean over the image times U(½, 1½) |
    | `translation` | whole shifts along both axes, uniform in ±⌊H/8 + ½⌋ and ±⌊W/8 + ½⌋; zeros move in |
    | `cutout` | a block of ⌊H/2 + ½⌋ × ⌊W/2 + ½⌋ pixels around a uniform centre, clipped at the border, is set to 0 |

    Nothing is clamped. The draws are those of the global random numbers of the images' device.

    Shape: `(N, C, H, W)` in [-1, 1] → the same shape.

    Args:
        images: what the discriminator would see.
        policy: the names of the changes.
        cutout: side of the block relative to the image, in place of the ½ of the table.
    """  # noqa: E501  # a row of a table
    if "color" in policy:
        images = _color(images)
    if "translation" in policy:
        images = _translation(images)
    if "cutout" in policy:
        images = _cutout(images, cutout)
    return images


def _color(images: Tensor) -> Tensor:
    brightness, saturation, contrast = (_uniform(images) for _ in range(3))
    images = images + (brightness - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = torch.lerp(grey, images, saturation * 2)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, contrast + 0.5)


def _translation(images: Tensor) -> Tensor:
    for axis in (2, 3):
        size = images.shape[axis]
        largest = int(size * TRANSLATION + 0.5)
        source = torch.arange(size, device=images.device) - _integers(images, -largest, largest)  # (N, size)
        inside = _along((source >= 0) & (source < size), axis)
        index = _along(source.clamp(0, size - 1), axis).expand_as(images)
        images = images.take_along_dim(index, dim=axis) * inside
    return images


def _cutout(images: Tensor, share: float) -> Tensor:
    inside = torch.ones((), dtype=torch.bool, device=images.device)
    for axis in (2, 3):
        size = images.shape[axis]
        side = int(size * share + 0.5)
        first = _integers(images, 0, size - side % 2) - side // 2  # (N, 1)
        places = torch.arange(size, device=images.device)
        inside = inside & _along((places >= first) & (places < first + side), axis)
    return images * ~inside


def _uniform(images: Tensor) -> Tensor:
    """One number of U(0, 1) for each image: `(N, 1, 1, 1)`."""
    return torch.rand(len(images), 1, 1, 1, device=images.device).to(images.dtype)


def _integers(images: Tensor, low: int, high: int) -> Tensor:
    """One whole number from `low` to `high`, both included, for each image: `(N, 1)`."""
    return torch.randint(low, high + 1, (len(images), 1), device=images.device)


def _along(values: Tensor, axis: int) -> Tensor:
    """Put `(N, size)` along an axis of images: `(N, 1, size, 1)` or `(N, 1, 1, size)`."""
    return values[:, None, :, None] if axis == 2 else values[:, None, None, :]
