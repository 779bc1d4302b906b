"""Pixels: PIL image ↔ tensor `(C, H, W)` in [-1, 1]."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cyclestyle.images.numbers import check_finite

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""PIL mode for each number of channels."""

LEVELS = {8: 255, 16: 65535}
"""The highest level of a sample for each number of bits."""


def convert(image: Image.Image, channels: int = 3) -> Image.Image:
    """Convert an image to 8 bits per channel and `channels` channels.

    Grey, palette, CMYK, 16-bit and floating-point images are converted by value. If the result has no alpha channel,
    transparent pixels are composited over white.
    """
    mode = MODES[channels]
    if image.mode == mode and "transparency" not in image.info:
        return image.copy()
    image = _scale_to_8_bits(image)
    if image.has_transparency_data and mode in ("L", "RGB"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def out_of_range(image: Image.Image) -> bool:
    """Return whether an image has values below black, above white, or that are no numbers; they are cut."""
    if image.mode not in ("I", "F"):
        return False
    values = np.asarray(image)
    return not bool(((values >= 0) & (values <= (1 if image.mode == "F" else LEVELS[16]))).all())  # also for NaN


def to_tensor(image: Image.Image) -> Tensor:
    """Convert an 8-bit PIL image to a float32 tensor `(C, H, W)` in [-1, 1]."""
    pixels = torch.from_numpy(np.array(image))  # (H, W) or (H, W, C), uint8
    if pixels.ndim == 2:
        pixels = pixels.unsqueeze(-1)
    return from_levels(pixels.permute(2, 0, 1).contiguous())


def from_levels(levels: Tensor) -> Tensor:
    """Convert levels of 0 to 255 to float32 in [-1, 1]."""
    return levels.float().div_(127.5).sub_(1.0)


def nearest_levels(tensor: Tensor) -> Tensor:
    """Convert values in [-1, 1] to the nearest levels of 0 to 255, in uint8; values outside [-1, 1] are clamped.

    Raises:
        ValueError: the tensor contains NaN.
    """
    if torch.isnan(tensor).any():
        raise ValueError("the image contains NaN")
    return tensor.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def to_image(tensor: Tensor) -> Image.Image:
    """Convert a tensor `(C, H, W)`, in [-1, 1] or in levels in uint8, to an 8-bit PIL image; see `nearest_levels`.

    Raises:
        ValueError: the tensor contains NaN.
    """
    pixels: NDArray[np.uint8] = to_levels(tensor.detach().cpu(), 8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def to_levels(tensor: Tensor, bits: int) -> NDArray[Any]:
    """Convert `(C, H, W)` in [-1, 1] to `(H, W, C)` in levels of 8 or 16 bits; levels in uint8 stay as they are.

    Raises:
        ValueError: the tensor contains NaN.
    """
    if bits == 8:
        levels = tensor if tensor.dtype == torch.uint8 else nearest_levels(tensor)
        return levels.permute(1, 2, 0).contiguous().numpy()
    if torch.isnan(tensor).any():
        raise ValueError("the image contains NaN")
    levels = tensor.float().add(1.0).mul(LEVELS[bits] / 2).round().clamp(0, LEVELS[bits]).permute(1, 2, 0)
    return levels.contiguous().numpy().astype(np.uint16)


def as_rgb(tensor: Tensor) -> Tensor:
    """Convert `(..., C, H, W)` with 1 to 4 channels to RGB `(..., 3, H, W)`; alpha is dropped."""
    channels = tensor.shape[-3]
    return tensor.narrow(-3, 0, 3) if channels >= 3 else tensor.narrow(-3, 0, 1).expand(*tensor.shape[:-3], 3, -1, -1)


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and floating-point grey images to 8 bits; other images are returned unchanged."""
    if image.mode.startswith("I"):  # I;16 and I;16B hold 0 to 65535; I holds the same range in 32 bits
        values = np.asarray(image).astype(np.float64) / 257.0
    elif image.mode == "F":  # convention of floating-point TIFF: 0 is black, 1 is white
        values = np.asarray(image).astype(np.float64) * 255.0
        check_finite(values)
    else:
        return image
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
