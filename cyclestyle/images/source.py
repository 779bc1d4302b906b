"""An image of a file as networks see it, and what goes from the file into its translation unchanged."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from PIL.JpegImagePlugin import get_sampling
from torch import Tensor

from cyclestyle.images import profiles
from cyclestyle.images.numbers import ValueRange, check_finite
from cyclestyle.images.pixels import LEVELS, MODES, as_rgb, convert, nearest_levels, out_of_range, to_levels

Pixels = NDArray[Any]
"""`(H, W, C)` in levels of 8 bits (uint8) or 16 bits (uint16)."""

LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in grey (ITU-R 601), which are Pillow's too."""

_ORIENTATION = ExifTags.Base.Orientation
_FOLDERS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)  # tags that hold tags of their own
_SIZES = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)

_LAYOUT_TAGS = frozenset({*range(254, 267), 273, *range(277, 285), 290, 291, 292, 293, 296, 297, 301, 317, 318, 319,
                          *range(320, 334), 336, *range(338, 342), 347, *range(529, 533), 700, 34675})  # fmt: skip
"""Tags of a TIFF file that describe how its pixels are stored, which a translation stores in its own way."""


@dataclass(frozen=True)
class Kept:
    """What is kept of an image outside of a mask.

    Attributes:
        pixels: the colours of the image, `(H, W, 1 or 3)`, as its file has them; or numbers, `(H, W, C)`.
        inside: the share of the translation, `(H, W)` in [0, 1]. Where it is 0, the image is kept to the bit.
    """

    pixels: Pixels
    inside: NDArray[np.float32]

    def around(self, translated: Pixels) -> Pixels:
        """Return colours `(H, W, C)` with the image where the mask is black, and mixed with it where it is grey."""
        inside, own = self.inside[..., None], self.pixels.astype(np.float64)
        mixed = own + inside * (translated - own)
        rounded = np.rint(mixed) if translated.dtype.kind in "iu" else mixed
        result: Pixels = np.where(inside == 0, self.pixels.astype(translated.dtype), rounded.astype(translated.dtype))
        return result


@dataclass(frozen=True)
class Values:
    """How numbers are written: the range that -1 and 1 stand for, and the type of the samples."""

    range: ValueRange
    dtype: str


@dataclass(kw_only=True)
class Source:
    """What comes with an image, and goes into its translation.

    Attributes:
        format: Pillow's name of the format; empty for an image that comes from no file.
        depth: bits of each sample, 8 or 16.
        alpha: the alpha channel, `(H, W)`, in as many bits; None for an opaque image.
        exif: EXIF tags, turned upright: the pixels are turned already.
        icc: colour profile.
        xmp: XMP packet.
        dpi: resolution in dots per inch, across and down.
        jpeg: how a JPEG file was compressed: quantisation tables, subsampling and scans, as Pillow takes them.
        lossless: whether a WebP file is lossless.
        duration: how long an image of an animation is shown, in milliseconds.
        plays: how often the animation is played; 0 for ever.
        apart: whether this is the still image of an animated PNG, shown where animations are not.
        cut: whether values outside of the range were cut.
        repeated: whether this stands in place of a frame of a video that cannot be decoded.
        own: the colours of the file, `(H, W, 1 or 3)`, if they are wanted.
        kept: what is kept of the image outside of a mask; None without a mask.
        dtype: type of the samples in the file, where they are read as numbers; else empty.
        values: how the translation is written as numbers; None for colours.
    """

    format: str = ""
    depth: int = 8
    alpha: Pixels | None = None
    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    jpeg: dict[str, Any] = field(default_factory=dict)
    lossless: bool = False
    duration: float | None = None
    plays: int | None = None
    apart: bool = False
    cut: bool = False
    repeated: bool = False
    own: Pixels | None = None
    kept: Kept | None = None
    dtype: str = ""
    values: Values | None = None


def take_apart(
    image: Image.Image, channels: int, lower: Image.Image | None = None, *, levels: bool = False, own: bool = False
) -> tuple[Tensor, Source]:
    """Separate an image into what a network sees, and what goes with it.

    The image is turned upright by its EXIF orientation and converted to sRGB by its colour profile. The colours below
    alpha stay as they are, but fully transparent pixels, whose colours mean nothing, become white.

    Args:
        image: an image of any mode.
        channels: channels of the result: 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA).
        lower: the same image with the lower byte of each sample, where the samples have 16 bits.
        levels: return the pixels of an image of 8 bits in levels of 0 to 255, which take a quarter of the memory.
        own: keep the colours of the file in `Source.own`.

    Returns:
        The pixels, `(channels, H, W)`, float32 in [-1, 1] or levels in uint8, and the rest.
    """
    exif = _upright_exif(image)  # a TIFF file is closed once it is decoded
    image.load()  # some formats know the duration only then
    source = _source(image, exif)
    image = ImageOps.exif_transpose(image)
    deep = _sixteen_bits(image, None if lower is None else ImageOps.exif_transpose(lower))
    pixels: Pixels = _eight_bits(image, source.icc) if deep is None else deep
    source.depth = 8 * pixels.dtype.itemsize
    source.cut = out_of_range(image)
    if own:
        has_profile = deep is None and profiles.is_rgb(source.icc)
        colours = _eight_bits(image, b"") if has_profile else pixels
        source.own = colours[..., : 3 if colours.shape[2] >= 3 else 1]
    if levels and deep is None and pixels.shape[2] == channels and channels in (1, 3):
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1), source
    tensor, alpha = split_alpha(to_unit(pixels))
    source.alpha = None if alpha is None else pixels[..., -1]
    if deep is not None and len(tensor) == 3 and source.icc:
        tensor = profiles.convert_deep(tensor, source.icc, to_srgb=True)
    tensor = with_channels(tensor, alpha, channels)
    return nearest_levels(tensor) if levels and deep is None else tensor, source


def take_values(image: Image.Image, channels: int, lower: Image.Image | None, dtype: str) -> tuple[Pixels, Source]:
    """Separate an image into its samples, `(H, W, C)`, as they are, and what goes with it. It is turned upright.

    Args:
        image: an image of any mode. One of 8 bits has `channels` channels then, if it can have them.
        channels: how many are wanted.
        lower: the same image with the lower byte of each sample, where the samples have 16 bits.
        dtype: the type of the samples in the file.
    """
    exif = _upright_exif(image)
    image.load()
    source = _source(image, exif)
    image = ImageOps.exif_transpose(image)
    if lower is not None:
        values = _sixteen_bits(image, ImageOps.exif_transpose(lower))
        assert values is not None
        return values, source
    if image.mode[0] in "IF":
        return np.asarray(image).astype(dtype)[..., None], source
    return np.atleast_3d(np.asarray(convert(image, channels) if channels in MODES else image)), source


def put_together(tensor: Tensor, source: Source) -> Pixels:
    """Make the pixels of a translation from the tensor of a network and what came with its source.

    Outside of a mask they are those of the source. A grey translation of a colour image is in colour then.

    Args:
        tensor: `(C, H, W)` with 1 to 4 channels, in [-1, 1], or in levels in uint8 if the source has 8 bits. With 2 or
            4 channels its alpha replaces the source's.
        source: what came with the image. Its profile must be one of RGB if there are 3 or 4 channels, and none
            otherwise; see `describe`.

    Returns:
        `(H, W, C)` in the colours of the profile, with alpha where there is one.

    Raises:
        ValueError: the tensor contains NaN.
    """
    tensor = tensor.detach().cpu()
    colours = tensor.shape[0] - (tensor.shape[0] in (2, 4))
    own_alpha = to_levels(tensor[colours:], source.depth)
    tensor = tensor[:colours]
    if source.icc and source.depth == 16:
        tensor = profiles.convert_deep(tensor, source.icc, to_srgb=False)
    if source.kept is not None and source.kept.pixels.shape[2] == 3:
        tensor = as_rgb(tensor)
    pixels: Pixels = to_levels(tensor, source.depth)
    if source.icc and source.depth == 8:
        pixels = np.asarray(profiles.from_srgb(Image.fromarray(pixels), source.icc))
    if source.kept is not None:
        pixels = source.kept.around(pixels)
    if source.alpha is None and not own_alpha.shape[2]:
        return pixels
    alpha = source.alpha[..., None] if source.alpha is not None else own_alpha
    return np.concatenate([pixels, own_alpha if own_alpha.shape[2] else alpha], axis=2)


def split_alpha(tensor: Tensor) -> tuple[Tensor, Tensor | None]:
    """Split `(C, H, W)` with 1 to 4 channels into colours, `(1 or 3, H, W)`, and alpha, `(1, H, W)` or None."""
    return (tensor[:-1], tensor[-1:]) if len(tensor) in (2, 4) else (tensor, None)


def with_channels(tensor: Tensor, alpha: Tensor | None, channels: int) -> Tensor:
    """Convert colours to the channels of a network.

    Fully transparent pixels, whose colours mean nothing, become white.

    Args:
        tensor: `(1 or 3, H, W)` in [-1, 1].
        alpha: `(1, H, W)` in [-1, 1], or None for an opaque image.
        channels: 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA).
    """
    if alpha is not None:
        tensor = torch.where(alpha <= -1, torch.ones_like(tensor), tensor)
    if channels <= 2 and len(tensor) == 3:
        tensor = torch.einsum("c,chw->hw", tensor.new_tensor(LUMA), tensor)[None]
    elif channels >= 3:
        tensor = as_rgb(tensor).contiguous()
    if channels in (1, 3):
        return tensor
    return torch.cat([tensor, torch.ones_like(tensor[:1]) if alpha is None else alpha])


def describe(source: Source, channels: int) -> Source:
    """Return what goes with a translation of `channels` channels: a profile of other colours does not."""
    return source if channels >= 3 and profiles.is_rgb(source.icc) else replace(source, icc=b"")


def in_srgb(source: Source) -> Source:
    """Return what goes with a translation in sRGB, without a profile."""
    kept = source.kept
    if kept is None or not profiles.is_rgb(source.icc) or kept.pixels.shape[2] == 1:
        return replace(source, icc=b"")
    if source.depth == 8:
        pixels = np.asarray(profiles.to_srgb(Image.fromarray(kept.pixels), source.icc))
    else:
        pixels = to_levels(profiles.convert_deep(to_unit(kept.pixels), source.icc, to_srgb=True), 16)
    return replace(source, icc=b"", kept=replace(kept, pixels=pixels))


def in_8_bits(source: Source) -> Source:
    """Return what goes with a translation of 8 bits of an image of 16 bits."""
    alpha = None if source.alpha is None else np.rint(source.alpha / 257).astype(np.uint8)
    kept = source.kept
    if kept is not None:
        kept = replace(kept, pixels=np.rint(kept.pixels / 257).astype(np.uint8))
    return replace(source, depth=8, alpha=alpha, kept=kept)


def to_pil(tensor: Tensor, source: Source) -> Image.Image:
    """Return a translation as an 8-bit PIL image, whose `info` has what came with its source."""
    source = describe(source, tensor.shape[0])
    source = in_8_bits(source) if source.depth == 16 else source
    image = as_pil(put_together(tensor, source))
    parts = {"exif": source.exif, "icc_profile": source.icc, "xmp": source.xmp, "dpi": source.dpi}
    image.info |= {name: value for name, value in parts.items() if value}
    return image


def as_pil(pixels: Pixels) -> Image.Image:
    """Return `(H, W, C)` of 8 bits as a PIL image."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _source(image: Image.Image, exif: bytes) -> Source:
    info = image.info
    xmp = info.get("xmp", b"")
    return Source(
        format=image.format or "",
        exif=exif,
        icc=info.get("icc_profile") or b"",
        xmp=xmp.encode() if isinstance(xmp, str) else xmp,
        dpi=_dpi(info.get("dpi")),
        jpeg=_compression(image),
        lossless=bool(info.get("lossless", False)),
        duration=info.get("duration"),
        plays=_plays(image),
        apart=bool(getattr(image, "default_image", False)) and image.tell() == 0,
    )


def _upright_exif(image: Image.Image) -> bytes:
    """The EXIF tags of an image as they hold once it is turned. A thumbnail, which shows the source, is left out."""
    try:
        return _rewritten_exif(image.getexif())
    except Exception:  # damaged tags raise exceptions of any kind; they are no reason to refuse the image
        return b""


def _rewritten_exif(exif: Image.Exif) -> bytes:
    upright = Image.Exif()
    for tag, value in exif.items():
        if tag not in _LAYOUT_TAGS:
            upright[tag] = exif.get_ifd(tag) if tag in _FOLDERS else value
    details = upright.get(ExifTags.IFD.Exif, {})
    if ExifTags.IFD.Interop in details:
        details[ExifTags.IFD.Interop] = exif.get_ifd(ExifTags.IFD.Interop)
    if upright.get(_ORIENTATION, 1) in (5, 6, 7, 8) and all(tag in details for tag in _SIZES):
        width, height = _SIZES
        details[width], details[height] = details[height], details[width]
    if _ORIENTATION in upright:
        upright[_ORIENTATION] = 1
    return upright.tobytes() if len(upright) else b""


def _dpi(value: Any) -> tuple[float, float] | None:
    across, down = (float(one) for one in value) if isinstance(value, tuple) and len(value) == 2 else (0.0, 0.0)
    return (across, down) if across > 0 and down > 0 else None


def _compression(image: Image.Image) -> dict[str, Any]:
    tables = getattr(image, "quantization", None)
    if image.format not in ("JPEG", "MPO") or not tables:
        return {}
    subsampling = get_sampling(image)
    return {
        "qtables": [tables[key] for key in sorted(tables)],
        "subsampling": max(0, subsampling),  # a grey image has none
        "progressive": bool(image.info.get("progressive")),
    }


def _plays(image: Image.Image) -> int | None:
    """How often an animation is played. A GIF file says how often it is repeated, and may say nothing."""
    if not getattr(image, "is_animated", False):
        return None
    loop = image.info.get("loop")
    if image.format != "GIF":
        return loop
    return 1 if loop is None else 0 if loop == 0 else loop + 1


def _sixteen_bits(image: Image.Image, lower: Image.Image | None) -> Pixels | None:
    """The pixels `(H, W, C)` of an image with more than 8 bits; None for other images."""
    if lower is not None:
        deep: Pixels = np.asarray(image).astype(np.uint16) * np.uint16(256) + np.asarray(lower)
        return deep
    if image.mode.startswith("I"):  # I;16 and I;16B hold 0 to 65535; I holds the same range in 32 bits
        grey: Pixels = np.clip(np.asarray(image), 0, LEVELS[16])
        return grey.astype(np.uint16)[..., None]
    if image.mode == "F":  # convention of floating-point TIFF: 0 is black, 1 is white
        values = np.asarray(image).astype(np.float64)
        check_finite(values)
        grey = np.clip(np.rint(values * LEVELS[16]), 0, LEVELS[16])
        return grey.astype(np.uint16)[..., None]
    return None


def _eight_bits(image: Image.Image, icc: bytes) -> Pixels:
    """The pixels `(H, W, C)` in sRGB: grey or RGB, with alpha where the image has any."""
    transparent = image.has_transparency_data
    if image.mode in ("1", "L", "LA", "La"):
        image = image.convert("LA" if transparent else "L")
    elif image.mode != "CMYK":
        image = image.convert("RGBA" if transparent else "RGB")
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    colours = image if alpha is None else image.convert(image.mode[:-1])
    if icc:
        converted = profiles.to_srgb(colours, icc)
        colours = converted.convert("L") if colours.mode == "L" else converted
    if colours.mode == "CMYK":
        colours = colours.convert("RGB")
    if alpha is not None:
        colours.putalpha(alpha)
    pixels = np.asarray(colours)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def to_unit(pixels: Pixels) -> Tensor:
    """Convert `(H, W, C)` in levels of 8 or 16 bits to float32 `(C, H, W)` in [-1, 1]."""
    scaled = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32))
    return scaled.div_(LEVELS[8 * pixels.dtype.itemsize] / 2).sub_(1.0)
