"""Colour profiles (ICC): from the colours of a file to sRGB, which networks see, and back."""

import io
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor
from torch.nn import functional

_NODES = np.arange(0, 256, 5)  # levels of the lookup table for 16 bits, 52 in each of three directions

_SPACES = {"RGB": "RGB", "CMYK": "CMYK", "L": "GRAY"}
"""The colour space of a profile that describes an image of each mode."""

Transform = ImageCms.ImageCmsTransform


def to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """Convert an 8-bit image, `RGB`, `CMYK` or `L`, from the colours of a profile to sRGB, as `RGB`.

    An image whose profile is sRGB, is damaged or belongs to another mode is returned unchanged.
    """
    transform = _transform(icc, image.mode, True)
    return image if transform is None else _apply(transform, image)


def from_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """Convert an 8-bit sRGB image of mode `RGB` to the colours of a profile; see `to_srgb`."""
    transform = _transform(icc, "RGB", False)
    return image if transform is None else _apply(transform, image)


def convert_deep(tensor: Tensor, icc: bytes, *, to_srgb: bool) -> Tensor:
    """Convert `(3, H, W)` in [-1, 1] between a profile and sRGB, without rounding to 8 bits.

    Pillow's colour management has 8 bits. The colours are therefore interpolated between the nodes of a table of 52³
    colours that it has converted, which keeps gradients smooth.
    """
    table = _table(icc, to_srgb)
    if table is None:
        return tensor
    grid = tensor.permute(1, 2, 0)[None, None].clamp(-1, 1)  # (1, 1, H, W, 3)
    return functional.grid_sample(table, grid, align_corners=True)[0, :, 0]  # (3, H, W)


def is_rgb(icc: bytes) -> bool:
    """Return whether a profile is for RGB images."""
    return _space(icc) == "RGB"


def _apply(transform: Transform, image: Image.Image) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # it is None only where the image is changed in place
    return converted


@lru_cache(maxsize=16)
def _transform(icc: bytes, mode: str, to_srgb: bool) -> Transform | None:
    """The conversion; None where there is nothing to convert."""
    if _space(icc) != _SPACES.get(mode):
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if "sRGB" in ImageCms.getProfileDescription(profile):
            return None
        srgb = ImageCms.createProfile("sRGB")
        first, second = (profile, srgb) if to_srgb else (srgb, profile)
        return ImageCms.buildTransform(
            first, second, mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


@lru_cache(maxsize=4)
def _table(icc: bytes, to_srgb: bool) -> Tensor | None:
    """The converted colours of a grid, `(1, 3, B, G, R)` in [-1, 1]; None where there is nothing to convert."""
    transform = _transform(icc, "RGB", to_srgb)
    if transform is None:
        return None
    blue, green, red = np.meshgrid(_NODES, _NODES, _NODES, indexing="ij")
    grid = np.stack([red, green, blue], axis=-1).astype(np.uint8)  # (B, G, R, 3)
    converted = np.asarray(_apply(transform, Image.fromarray(grid.reshape(len(_NODES), -1, 3)))).reshape(grid.shape)
    return torch.from_numpy(converted.astype(np.float32) / 127.5 - 1).permute(3, 0, 1, 2)[None].contiguous()


@lru_cache(maxsize=16)
def _space(icc: bytes) -> str | None:
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile.xcolor_space.strip()
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
