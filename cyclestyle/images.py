"""Image input and output: file ↔ PIL image ↔ tensor `(C, H, W)` in [-1, 1]."""

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
"""PIL mode for each number of channels."""

# Images of any size are translated; a file is read only because its user names it. One that does not fit fails alone.
Image.MAX_IMAGE_PIXELS = None

# Exceptions that Pillow raises for a file that is damaged or not an image.
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)

_ORIENTATION = 0x0112  # EXIF tag
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap width and height

_SAVE_OPTIONS: dict[str, dict[str, object]] = {
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
    ".webp": {"quality": 95},
    ".tif": {"compression": "tiff_deflate"},
    ".tiff": {"compression": "tiff_deflate"},
}


def read_size(path: Path) -> tuple[int, int]:
    """Return `(width, height)` in pixels after EXIF rotation; only the header of the file is read.

    Raises:
        ImageError: the file does not exist or is not an image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(_ORIENTATION) in _TRANSPOSED else (width, height)
    except _DECODER_ERRORS as error:
        raise _read_error(path, error) from error


def read_image(path: Path, channels: int = 3) -> Image.Image:
    """Read an image as 8 bits per channel and apply its EXIF rotation.

    Grey, palette, CMYK, 16-bit and floating-point files are converted by value. If the result has no alpha channel,
    transparent pixels are composited over white.

    Args:
        path: the image file.
        channels: 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA).

    Raises:
        ImageError: the file does not exist, is truncated, or is not an image.
    """
    try:
        with Image.open(path) as image:
            return convert(ImageOps.exif_transpose(image), channels)
    except _DECODER_ERRORS as error:
        raise _read_error(path, error) from error


def convert(image: Image.Image, channels: int = 3) -> Image.Image:
    """Convert an image to 8 bits per channel and `channels` channels; see `read_image`."""
    mode = MODES[channels]
    if image.mode == mode and "transparency" not in image.info:
        return image.copy()
    image = _scale_to_8_bits(image)
    if image.has_transparency_data and mode in ("L", "RGB"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def to_tensor(image: Image.Image) -> Tensor:
    """Convert an 8-bit PIL image to a float32 tensor `(C, H, W)` in [-1, 1]."""
    return from_levels(to_levels(image).contiguous())


def to_levels(image: Image.Image) -> Tensor:
    """Convert an 8-bit PIL image to a uint8 tensor `(C, H, W)`, with the pixels in the order of the image."""
    pixels = torch.from_numpy(np.array(image))  # (H, W) or (H, W, C), uint8
    return (pixels if pixels.ndim == 3 else pixels.unsqueeze(-1)).permute(2, 0, 1)


def from_levels(levels: Tensor) -> Tensor:
    """Convert levels of 0 to 255 to float32 in [-1, 1]."""
    return levels.float().div_(127.5).sub_(1.0)


def nearest_levels(tensor: Tensor) -> Tensor:
    """Convert values in [-1, 1] to the nearest levels of 0 to 255, uint8; values outside [-1, 1] are clamped.

    Raises:
        ValueError: the tensor contains NaN.
    """
    tensor = tensor.detach().float().cpu()
    if torch.isnan(tensor).any():
        raise ValueError("the image contains NaN")
    return tensor.add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def to_image(tensor: Tensor) -> Image.Image:
    """Convert a tensor `(C, H, W)`, in [-1, 1] or levels in uint8, to an 8-bit PIL image; see `nearest_levels`.

    Raises:
        ValueError: the tensor contains NaN.
    """
    pixels = tensor.cpu() if tensor.dtype == torch.uint8 else nearest_levels(tensor)
    array = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def as_rgb(tensor: Tensor) -> Tensor:
    """Convert `(..., C, H, W)` with 1 to 4 channels to RGB `(..., 3, H, W)`; alpha is dropped."""
    channels = tensor.shape[-3]
    return tensor.narrow(-3, 0, 3) if channels >= 3 else tensor.narrow(-3, 0, 1).expand(*tensor.shape[:-3], 3, -1, -1)


def write_image(image: Image.Image, path: Path) -> None:
    """Write an image atomically, in the format given by the extension of `path`.

    Raises:
        ImageError: the folder cannot be written, or the disk is full.
    """
    suffix = path.suffix.lower()
    if image.mode in ("LA", "RGBA") and suffix in (".jpg", ".jpeg", ".bmp"):
        image = convert(image, 3 if image.mode == "RGBA" else 1)  # these formats have no alpha channel
    try:
        with atomic_write(path) as file:
            image.save(file, format=Image.registered_extensions()[suffix], **_SAVE_OPTIONS.get(suffix, {}))
    except OSError as error:
        raise ImageError(f"cannot write {path}: {error.strerror or error}") from error


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and floating-point grey images to 8 bits; other images are returned unchanged."""
    if image.mode.startswith("I"):  # I;16 and I;16B hold 0 to 65535; I holds the same range in 32 bits
        values = np.asarray(image).astype(np.float64) / 257.0
    elif image.mode == "F":  # convention of floating-point TIFF: 0 is black, 1 is white
        values = np.nan_to_num(np.asarray(image).astype(np.float64)) * 255.0
    else:
        return image
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _read_error(path: Path, error: BaseException) -> ImageError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if "cannot identify image file" in reason:
        reason = "its content is not an image in a known format"
    return ImageError(f"cannot read {path}: {reason or type(error).__name__}")
