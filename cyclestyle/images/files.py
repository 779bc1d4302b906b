"""Image files: their headers, their images one by one, and files of translations."""

import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin
from PIL.TiffImagePlugin import AppendingTiffWriter
from torch import Tensor

from cyclestyle.errors import DISK_ERRORS, DiskError, ImageError
from cyclestyle.files import atomic_write
from cyclestyle.images import samples
from cyclestyle.images.formats import (
    DICOM,
    EXTENSIONS,
    FRAMES,
    HEIC,
    PNG,
    READ_FORMATS,
    WRITTEN,
    Format,
    available,
    format_of,
    format_with,
)
from cyclestyle.images.numbers import Numbers, ValueRange, check_finite, open_numbers, with_bands
from cyclestyle.images.pixels import MODES, convert, out_of_range, to_levels
from cyclestyle.images.source import (
    Pixels,
    Source,
    as_pil,
    describe,
    in_8_bits,
    in_srgb,
    put_together,
    take_apart,
    take_values,
)
from cyclestyle.images.tiff import tiff_samples
from cyclestyle.scratch import available_memory, format_bytes

_ORIENTATION = ExifTags.Base.Orientation
Image.MAX_IMAGE_PIXELS = None  # see `_open`
DECODING = 2  # bytes of a sample of 8 bits, while the image is decoded and converted
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_MAX_SEGMENT = 65533 - 29  # bytes of EXIF or XMP in a JPEG file
_ENCODER_ERRORS = (OSError, ValueError, OverflowError, struct.error)  # for sizes that a format cannot hold


@dataclass(frozen=True)
class Header:
    """What is known of an image file without decoding it.

    Attributes:
        format: Pillow's name of the format.
        size: width and height in pixels after EXIF rotation.
        frames: number of images of an animation, or of pages; 1 for every other file.
        dtype: type of its samples, such as `uint8`.
    """

    format: str
    size: tuple[int, int]
    frames: int = 1
    dtype: str = "uint8"

    @property
    def numbers(self) -> bool:
        """Whether its samples are numbers that need not be within the range of an image."""
        return self.dtype not in ("uint8", "uint16")


@dataclass(frozen=True)
class Frame:
    """A finished image: `(H, W, C)` in the colours of its profile, and what goes with it."""

    pixels: Pixels
    source: Source


def read_header(path: Path) -> Header:
    """Read the header of an image file.

    Raises:
        ImageError: the file does not exist or is not an image.
    """
    with _one_line(path):
        if (file := open_numbers(path)) is not None:
            return Header(file.format, file.size, file.frames, file.dtype)
    with _one_line(path), _open(path) as image:
        kind = FRAMES.get(image.format or "")
        frames = getattr(image, "n_frames", 1) if kind and getattr(image, "is_animated", False) else 1
        return Header(image.format or "", _upright_size(image), frames, _dtype(image, path))


def is_out_of_range(path: Path) -> bool:
    """Return whether an image has values outside of the range of its type, which become black or white.

    Raises:
        ImageError: the file is truncated, or is not an image.
    """
    with _one_line(path):
        if (file := open_numbers(path)) is not None:
            values = file.read(0)
            return not np.isfinite(values).all() or ValueRange.of_type(values.dtype).clipped(values) > 0
    with _one_line(path), _open(path) as image:
        image.load()
        return out_of_range(image)


def read_size(path: Path) -> tuple[int, int]:
    """Return `(width, height)` in pixels after EXIF rotation; only the header of the file is read.

    Raises:
        ImageError: the file does not exist or is not an image.
    """
    with _one_line(path):
        if (file := open_numbers(path)) is not None:
            return file.size
    with _one_line(path), _open(path) as image:
        return _upright_size(image)


def content_format(path: Path) -> str | None:
    """Return Pillow's name of the format of a file by its content; None for a file that is not an image."""
    try:
        with _one_line(path), _open(path) as image:
            return image.format
    except ImageError:
        return None


def target_format(source: Path) -> tuple[Format, str]:
    """Return the format of the translation of a file, and its file name.

    Both are those of the source where its format is written, and otherwise PNG: `photo.psd` becomes `photo.png`. DICOM
    becomes TIFF. The format of a source is known by its ending. A file without a known ending is opened.
    """
    if source.suffix.lower() in DICOM:
        return WRITTEN["tiff"], f"{source.stem}.tif"
    if source.suffix.lower() in EXTENSIONS:
        own = format_of(source)
        return (own, source.name) if own is not None and own.name in WRITTEN else (PNG, f"{source.stem}.png")
    own = format_with(content_format(source) or "")
    return (own, source.name) if own is not None else (PNG, f"{source.name}.png")


def read_image(path: str | Path, channels: int = 3) -> Image.Image:
    """Read an image as 8 bits per channel and apply its EXIF rotation.

    Grey, palette, CMYK, 16-bit and floating-point files are converted by value. If the result has no alpha channel,
    transparent pixels are composited over white.

    Args:
        path: the image file.
        channels: 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA).

    Raises:
        ImageError: the file does not exist, is truncated, is not an image, or has more than 4 bands.
    """
    path = Path(path)
    with _one_line(path):
        if (file := open_numbers(path, channels)) is not None:
            values = file.read(0)
            check_finite(values)
            if file.bands not in MODES:
                raise ImageError(f"it has {file.bands} bands, which are no colours")
            return convert(as_pil(to_levels(ValueRange.of_type(values.dtype).to_unit(values), 8)), channels)
    with _one_line(path), _open(path) as image:
        return _eight_bits(image, channels)


def read_sample(path: Path, channels: int, range: ValueRange | None = None) -> Image.Image | Tensor:
    """Read an image for a network, as deep as it is.

    Args:
        path: the image file.
        channels: how many the network sees.
        range: the values that it sees as -1 and 1; None: the whole range of the type of the samples.

    Returns:
        An image of 8 bits as `read_image` returns it; others as `(channels, H, W)` in [-1, 1].

    Raises:
        ImageError: the file does not exist, is truncated, is not an image, has another number of bands, or has values
            that are not finite.
    """
    with _one_line(path):
        plain = range is None and open_numbers(path, channels) is None
    if plain:
        with _one_line(path), _open(path) as image:
            if channels in MODES and not _is_deep(image):
                return _eight_bits(image, channels)
    with closing(ImageFile(path, range, channels)) as file:
        return file.read(0, channels)[0]


def read_values(path: Path) -> Numbers:
    """Read the samples of a file, `(H, W, C)`, as they are.

    Raises:
        ImageError: the file does not exist, is truncated or is not an image, or has values that are not finite.
    """
    with closing(ImageFile(path)) as file:
        return file.read_values(0, 0)[0]


class ImageFile:
    """An opened image file, whose images are read one by one. Reading an animation in its order is linear.

    Args:
        path: the file.
        range: the values that a network sees as -1 and 1; None: the whole range of the type of the samples.
        channels: how many will be read, if that is known.

    Raises:
        ImageError: the file does not exist or is not an image.
    """

    def __init__(self, path: Path, range: ValueRange | None = None, channels: int | None = None) -> None:
        self.path, self.range = path, range
        with _one_line(path):
            self._numbers = open_numbers(path, channels)
            self._image = Image.Image() if self._numbers is not None else _open(path)
        self._lossless = self._image.format == "WEBP" and _is_lossless_webp(path)

    def read(self, frame: int, channels: int, *, levels: bool = False, own: bool = False) -> tuple[Tensor, Source]:
        """Read an image of the file; see `take_apart`.

        Args:
            frame: number of the image.
            channels: channels of the result.
            levels: return the pixels of an image of 8 bits in levels of 0 to 255.
            own: keep the colours of the file in `Source.own`.

        Raises:
            ImageError: the file is truncated or damaged, has another number of bands, or has values that are not
                finite.
        """
        with _one_line(self.path):
            if frame and self._numbers is None:
                self._image.seek(frame)
            if self._numbers is not None or self.range is not None or channels not in MODES:
                return self._read_numbers(frame, channels, own=own)
            animated = FRAMES.get(self._image.format or "") == "time" and getattr(self._image, "is_animated", False)
            if not animated and samples.is_deep(self._image):
                with self._lower_bytes(frame) as lower:
                    return take_apart(self._image, channels, lower, own=own)
            tensor, source = take_apart(self._image, channels, levels=levels, own=own)
            source.lossless = self._lossless
            return tensor, source

    def _lower_bytes(self, frame: int) -> Image.Image:
        lower = _open(self.path)
        if frame:
            lower.seek(frame)
        samples.decode_lower_bytes(lower)
        return lower

    def read_values(self, frame: int, channels: int) -> tuple[Numbers, Source]:
        """Read the samples of an image, `(H, W, C)`, as they are; see `take_values`.

        Raises:
            ImageError: the file is truncated or damaged, or has values that are not finite.
        """
        with _one_line(self.path):
            if self._numbers is not None:
                values, source = self._numbers.read(frame), Source(format=self._numbers.format)
            else:
                dtype, deep = _dtype(self._image, self.path), samples.is_deep(self._image)
                lower = self._lower_bytes(frame) if deep else None
                values, source = take_values(self._image, channels, lower, dtype)
            check_finite(values)
            return values, source

    def _read_numbers(self, frame: int, channels: int, *, own: bool) -> tuple[Tensor, Source]:
        values, source = self.read_values(frame, channels)
        values = with_bands(values, channels)
        range = self.range or ValueRange.of_type(values.dtype)
        source.dtype, source.own, source.cut = str(values.dtype), values if own else None, range.clipped(values) > 0
        return range.to_unit(values), source

    def close(self) -> None:
        """Close the file."""
        self._image.close()


def finish(tensor: Tensor, source: Source, target: Format) -> Frame:
    """Make an image that a format can hold from the tensor of a network and what came with its source.

    Where the format has none, alpha is composited over white, 16 bits are rounded to 8, and colours are those of sRGB.

    Args:
        tensor: `(C, H, W)` in [-1, 1].
        source: what came with the source.
        target: the format.

    Raises:
        ValueError: the tensor contains NaN, or the format cannot hold its values.
    """
    if source.values is not None:
        dtype, bands = source.values.dtype, tensor.shape[0]
        if not target.holds(dtype, bands):
            able = " or ".join(name for name, one in WRITTEN.items() if one.holds(dtype, bands))
            what = f"{bands} band{'s' * (bands > 1)} of {dtype}"
            raise ValueError(f"{target.name} cannot hold {what}; choose --format {able}")
        pixels = source.values.range.to_values(tensor, dtype)
        pixels = pixels if source.kept is None else source.kept.around(pixels)
        return Frame(pixels, replace(source, icc=b"", alpha=None, kept=None))
    in_colour = source.kept is not None and source.kept.pixels.shape[2] == 3
    described = describe(source, 3 if in_colour else tensor.shape[0])
    source = in_srgb(source) if not described.icc or "icc" not in target.keeps else described
    animated = source.duration is not None and target.frames == "time"
    if source.depth == 16 and ("16 bit" not in target.keeps or animated):
        source = in_8_bits(source)
    pixels = put_together(tensor, source)
    if pixels.shape[2] in (2, 4) and "alpha" not in target.keeps:
        pixels = _over_white(pixels)
    return Frame(pixels, replace(source, alpha=None, kept=None))


def write_frames(frames: Sequence[Frame], path: Path, target: Format, *, quality: int | None = None) -> None:
    """Write an image, an animation or pages atomically.

    Args:
        frames: the images, as `finish` makes them for this format.
        path: the file.
        target: the format, whatever the ending of `path`.
        quality: 1 to 100 for a lossy format; None for that of the source, or else the one of the table.

    Raises:
        DiskError: the disk is full, broken or read-only.
        ImageError: the folder cannot be written, or the format cannot hold an image of this size.
    """
    try:
        content = _encode(frames, target, quality)
    except _ENCODER_ERRORS as error:
        raise ImageError(f"cannot write {path}: {target.name} cannot hold the image ({error})") from error
    try:
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        kind = DiskError if error.errno in DISK_ERRORS else ImageError
        raise kind(f"cannot write {path}: {error.strerror or error}") from error


def write_image(image: Image.Image, path: Path, *, quality: int | None = None) -> None:
    """Write an image atomically, in the format given by the ending of `path`.

    The EXIF tags, the colour profile, the resolution and the XMP packet in `image.info` are written with it.

    Args:
        image: an image of 8 bits per channel.
        path: the file.
        quality: 1 to 100 for a lossy format; None for the one of the table.

    Raises:
        CycleStyleError: images are not written with this ending.
        DiskError: the disk is full, broken or read-only.
        ImageError: the folder cannot be written.
    """
    target = available(format_of(path), path.suffix or str(path))
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    pixels = np.atleast_3d(np.asarray(image))
    if pixels.shape[2] in (2, 4) and "alpha" not in target.keeps:
        pixels = _over_white(pixels)
    info = image.info
    parts = {"exif": info.get("exif", b""), "icc": info.get("icc_profile") or b"", "xmp": info.get("xmp", b"")}
    write_frames([Frame(pixels, Source(**parts, dpi=info.get("dpi")))], path, target, quality=quality)


def _encode(frames: Sequence[Frame], target: Format, quality: int | None) -> bytes:
    """The file in memory, so that whatever goes wrong on the disk is an error of the disk alone."""
    file = io.BytesIO()
    first, *rest = frames
    if target.pillow == "TIFF":
        with AppendingTiffWriter(file, new=True) as pages:
            for frame in (first, *map(_without_details, rest)):
                colours = frame.source.values is None
                samples.write_tiff_page(pages, frame.pixels, colours=colours, **_parts(frame.source))
                pages.newFrame()
    elif target.pillow in ("NPY", "NPZ"):
        array = first.pixels[..., 0] if first.pixels.shape[2] == 1 else first.pixels
        np.save(file, array) if target.pillow == "NPY" else np.savez_compressed(file, array)
    elif first.pixels.dtype == np.uint16:
        samples.write_png(file, first.pixels, **_parts(first.source))
    else:
        options = _options(first.source, target, quality)
        if rest:
            more = [_as_written(frame, target) for frame in rest]
            options |= {"save_all": True, "append_images": more, **_timing(frames, target)}
        _as_written(first, target).save(file, target.pillow, **options)
    return file.getvalue()


def _parts(source: Source) -> dict[str, Any]:
    return {"exif": source.exif, "icc": source.icc, "dpi": source.dpi, "xmp": source.xmp}


def _as_written(frame: Frame, target: Format) -> Image.Image:
    image = as_pil(frame.pixels)
    return image if image.mode in target.modes else image.convert("RGBA" if image.mode == "LA" else "RGB")


def _options(source: Source, target: Format, quality: int | None) -> dict[str, Any]:
    """What Pillow is told about an image."""
    options = dict(target.options)
    if target.quality is not None:
        options["quality"] = quality or target.quality
    if target.pillow == "JPEG" and source.jpeg:
        kept = dict(source.jpeg)
        if quality is not None:
            del kept["qtables"]
        else:
            del options["quality"]
        options |= kept
    if target.pillow == "WEBP" and source.lossless and quality is None:
        options["lossless"] = True
    if target.pillow == "JPEG":
        source = replace(source, exif=_segment(source.exif), xmp=_segment(source.xmp))
    for part, option in (("exif", "exif"), ("icc", "icc_profile"), ("dpi", "dpi")):
        if part in target.keeps and getattr(source, part):
            options[option] = getattr(source, part)
    if "xmp" in target.keeps and source.xmp:
        options |= _xmp(source, target)
    return options


def _segment(content: bytes) -> bytes:
    """What fits into a segment of a JPEG file, which may come from a format without this limit."""
    return content if len(content) <= _MAX_SEGMENT else b""


def _xmp(source: Source, target: Format) -> dict[str, Any]:
    if target.pillow == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", source.xmp.decode(errors="replace"))
        return {"pnginfo": text}
    return {"xmp": source.xmp}


def _timing(frames: Sequence[Frame], target: Format) -> dict[str, Any]:
    """How an animation is played, in the words of Pillow's writer of the format."""
    sources = [frame.source for frame in frames]
    durations = [source.duration or 0 for source in sources]
    plays = sources[0].plays
    if target.pillow == "GIF":
        options: dict[str, Any] = {"duration": durations, "disposal": 2 if frames[0].pixels.shape[2] == 4 else 1}
        return options if plays in (None, 1) else {**options, "loop": max(0, (plays or 0) - 1)}
    options = {"duration": durations if target.pillow == "PNG" else [round(one) for one in durations]}
    if target.pillow == "PNG" and sources[0].apart:
        options |= {"default_image": True, "duration": durations[1:]}
    return options if target.pillow == "AVIF" else {**options, "loop": 0 if plays is None else plays}


def _without_details(frame: Frame) -> Frame:
    """Without the EXIF tags that are in folders of their own, which Pillow misplaces in pages after the first."""
    exif = Image.Exif()
    exif.load(frame.source.exif)
    for folder in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        exif.pop(folder, None)
        exif._ifds.pop(folder, None)
    return Frame(frame.pixels, replace(frame.source, exif=exif.tobytes() if len(exif) else b""))


def _over_white(pixels: Pixels) -> Pixels:
    highest = np.iinfo(pixels.dtype).max
    alpha = pixels[..., -1:].astype(np.float64) / highest
    return np.rint(pixels[..., :-1] * alpha + highest * (1 - alpha)).astype(pixels.dtype)


def _eight_bits(image: Image.Image, channels: int) -> Image.Image:
    image.load()  # before its tags are read, which moves the position in a TIFF file
    turned = image.getexif().get(_ORIENTATION, 1) != 1
    return convert(ImageOps.exif_transpose(image) if turned else image, channels)  # each of them makes a copy


def _is_deep(image: Image.Image) -> bool:
    return image.mode[0] in "IF" or samples.is_deep(image)


def _dtype(image: Image.Image, path: Path) -> str:
    """The type of the samples of an opened image."""
    if not _is_deep(image):
        return "uint8"
    if image.format == "TIFF" and (stored := tiff_samples(path)) is not None:
        return stored.dtype
    return "float32" if image.mode == "F" else "uint16"  # a PNM of 16 bits has the mode I


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """The size after EXIF rotation, which Pillow has applied to that of a TIFF already."""
    width, height = image.size
    turned = image.format != "TIFF" and image.getexif().get(_ORIENTATION) in _TRANSPOSED
    return (height, width) if turned else (width, height)


def _open(path: Path) -> Image.Image:
    """Open a file. The limit of Pillow, on the number of pixels, is replaced by one on what decoding them takes."""
    image = Image.open(path, formats=READ_FORMATS)
    needed = DECODING * image.width * image.height * len(image.getbands())
    if needed > (free := available_memory()):
        image.close()
        raise ImageError(
            f"{image.width}×{image.height} pixels take {format_bytes(needed)} of memory to decode, and "
            f"{format_bytes(free)} are free"
        )
    return image


def _is_lossless_webp(path: Path) -> bool:
    """Whether the first image in a WebP file is stored without loss."""
    with path.open("rb") as file:
        file.seek(12)  # RIFF, its length, WEBP
        while len(head := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", head)
            if name in (b"VP8 ", b"VP8L"):
                return bool(name == b"VP8L")
            file.seek(16 if name == b"ANMF" else length + length % 2, io.SEEK_CUR)  # a frame has chunks of its own
    return False


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Name the file that cannot be read. Pillow raises exceptions of any kind for damaged files."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ImageError) and str(error).startswith("cannot read "):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if "cannot identify image file" in reason and (kind := tiff_samples(path)):
            convert = "convert it to bands of integers or floating point"
            hint = convert if find_spec("tifffile") or "complex" in kind.dtype else "`pip install tifffile` adds it"
            reason = f"{kind} is not supported; {hint}"
        elif "cannot identify image file" in reason:
            heic = path.suffix.lower() in HEIC and path.suffix.lower() not in EXTENSIONS
            hint = "; `pip install pillow-heif` adds HEIC" if heic else ""
            reason = f"its content is not an image in a known format{hint}"
        reason = " ".join(reason.split()) or type(error).__name__
        raise ImageError(f"cannot read {path}: {reason}") from error
