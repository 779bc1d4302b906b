"""The one door for pixels: file ↔ PIL image ↔ tensor `(C, H, W)` in [-1, 1]."""

import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from cyclestyle.errors import ImageError
from cyclestyle.files import atomic_write

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"})

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""The PIL mode that stands for each number of channels."""

# What Pillow's decoders raise for a file that is damaged, too large, or no image at all.
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)

_ORIENTATION = 0x0112  # EXIF tag
_TRANSPOSED = (5, 6, 7, 8)  # the orientations that swap width and height

_SAVE_OPTIONS: dict[str, dict[str, object]] = {
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
    ".webp": {"quality": 95},
    ".tif": {"compression": "tiff_deflate"},
    ".tiff": {"compression": "tiff_deflate"},
}


def read_size(path: Path) -> tuple[int, int]:
    """Return `(width, height)` in pixels, upright, from an image's header alone.

    Raises:
        ImageError: the file is missing or is no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(_ORIENTATION) in _TRANSPOSED else (width, height)
    except _DECODER_ERRORS as error:
        raise _unreadable(path, error) from error


def read_image(path: Path, channels: int = 3) -> Image.Image:
    """Read an image upright, as 8 bits in `channels` channels (1 grey, 2 grey and alpha, 3 RGB, 4 RGBA).

    Grey, palette, CMYK, 16-bit and floating-point files are converted by value; where alpha is not asked
    for, transparent pixels are laid over white.

    Raises:
        ImageError: the file is missing, truncated, or no image.
    """
    try:
        with Image.open(path) as image:
            return convert(ImageOps.exif_transpose(image), channels)
    except _DECODER_ERRORS as error:
        raise _unreadable(path, error) from error


def convert(image: Image.Image, channels: int = 3) -> Image.Image:
    """Return `image` as 8 bits in `channels` channels; see `read_image`."""
    mode = MODES[channels]
    if image.mode == mode and "transparency" not in image.info:
        return image.copy()
    image = _eight_bits(image)
    if image.has_transparency_data and mode in ("L", "RGB"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def to_tensor(image: Image.Image) -> Tensor:
    """Turn an 8-bit PIL image into a float32 tensor `(C, H, W)` in [-1, 1]."""
    pixels = torch.from_numpy(np.array(image))  # (H, W) or (H, W, C), uint8
    if pixels.ndim == 2:
        pixels = pixels.unsqueeze(-1)
    return pixels.permute(2, 0, 1).contiguous().float().div_(127.5).sub_(1.0)


def to_image(tensor: Tensor) -> Image.Image:
    """Turn a tensor `(C, H, W)` in [-1, 1] into an 8-bit PIL image; values are rounded, not cut off.

    Raises:
        ValueError: the tensor holds NaN, which has no colour.
    """
    tensor = tensor.detach().float().cpu()
    if torch.isnan(tensor).any():
        raise ValueError("the image holds NaN")
    pixels = tensor.add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    array = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def as_rgb(tensor: Tensor) -> Tensor:
    """Show `(..., C, H, W)` in three channels: 1 or 2 as grey, 4 as RGB without alpha."""
    channels = tensor.shape[-3]
    return tensor.narrow(-3, 0, 3) if channels >= 3 else tensor.narrow(-3, 0, 1).expand(*tensor.shape[:-3], 3, -1, -1)


def write_image(image: Image.Image, path: Path) -> None:
    """Write an image in the format of its name's ending, whole or not at all.

    Raises:
        ImageError: the folder cannot be written, or the disk is full.
    """
    suffix = path.suffix.lower()
    if image.mode in ("LA", "RGBA") and suffix in (".jpg", ".jpeg", ".bmp"):
        image = convert(image, 3 if image.mode == "RGBA" else 1)  # these formats have no alpha
    try:
        with atomic_write(path) as file:
            image.save(file, format=Image.registered_extensions()[suffix], **_SAVE_OPTIONS.get(suffix, {}))
    except OSError as error:
        raise ImageError(f"cannot write {path}: {error.strerror or error}") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and floating-point grey images to 8 bits; others are returned as they are."""
    if image.mode.startswith("I"):  # I;16, I;16B: 0 to 65535; I holds the same in 32 bits
        values = np.asarray(image).astype(np.float64) / 257.0
    elif image.mode == "F":  # the convention of floating-point TIFF: 0 is black, 1 is white
        values = np.nan_to_num(np.asarray(image).astype(np.float64)) * 255.0
    else:
        return image
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _unreadable(path: Path, error: BaseException) -> ImageError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if "cannot identify image file" in reason:
        reason = "its content is no image in a known format"
    return ImageError(f"cannot read {path}: {reason or type(error).__name__}")
