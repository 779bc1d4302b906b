"""What Pillow does not do with the samples of an image: colours of 16 bits per channel, and TIFF with all EXIF tags.

Reading: of samples of 16 bits, Pillow keeps the higher byte. The same decoder, told that the bytes are in the other
order, keeps the lower one. Both together are the samples.
"""

import struct
import sys
import zlib
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffTags
from PIL.PngImagePlugin import putchunk
from PIL.TiffImagePlugin import ImageFileDirectory_v2

_NOT_NATIVE = "B" if sys.byteorder == "little" else "L"
_OTHER_ORDER = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", _NOT_NATIVE))
}
"""Raw modes of Pillow whose samples have 16 bits, and those of the other byte order; libtiff has the native one, N."""

_PNG_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}  # colour type for each number of channels
_INCHES = 0.0254  # metres in an inch


def is_deep(image: Image.Image) -> bool:
    """Return whether an opened image, whose pixels are not decoded yet, has colours of 16 bits."""
    return any(_rawmode(tile) in _OTHER_ORDER for tile in getattr(image, "tile", []))


def decode_lower_bytes(image: Image.Image) -> None:
    """Let an opened image decode the lower byte of each sample instead of the higher one."""
    image.tile = [  # type: ignore[attr-defined]  # of ImageFile, which every opened image is
        tile._replace(args=_with_rawmode(tile.args, _OTHER_ORDER[_rawmode(tile)]))
        for tile in image.tile  # type: ignore[attr-defined]
    ]


def write_png(
    file: IO[bytes], pixels: NDArray[np.uint16], *, exif: bytes, icc: bytes, dpi: tuple[float, float] | None, xmp: bytes
) -> None:
    """Write `(H, W, C)` with 1 to 4 channels as a PNG of 16 bits."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    rows = np.concatenate([rows[:1], rows[1:] - rows[:-1]])  # the filter "up": differences to the row above
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), rows], axis=1)
    file.write(b"\x89PNG\r\n\x1a\n")
    putchunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR[channels], 0, 0, 0))
    if icc:
        putchunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc))
    if dpi:
        putchunk(file, b"pHYs", struct.pack(">IIB", *(round(value / _INCHES) for value in dpi), 1))
    if xmp:
        putchunk(file, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    if exif:
        putchunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    putchunk(file, b"IDAT", zlib.compress(filtered.tobytes()))
    putchunk(file, b"IEND")


def write_tiff_page(
    file: Any,
    pixels: NDArray[Any],
    *,
    colours: bool = True,
    exif: bytes,
    icc: bytes,
    dpi: tuple[float, float] | None,
    xmp: bytes,
) -> None:
    """Write `(H, W, C)` of any type as a page of a TIFF, in one compressed strip.

    Args:
        file: an `AppendingTiffWriter` of Pillow.
        pixels: the page.
        colours: whether the channels are grey or RGB, and alpha; otherwise they are bands.
        exif: EXIF tags.
        icc: colour profile.
        dpi: resolution.
        xmp: XMP packet.
    """
    height, width, channels = pixels.shape
    kind, size = pixels.dtype.kind, pixels.dtype.itemsize
    stored = pixels.astype(f"<{kind}{size}")
    if kind in "iu":  # differences to the pixel on the left, which may wrap around
        stored = stored.view(f"<u{size}")
        stored = np.concatenate([stored[:, :1], stored[:, 1:] - stored[:, :-1]], axis=1)
    data = zlib.compress(stored.tobytes())
    tags = ImageFileDirectory_v2(prefix=b"II")
    read = Image.Exif()
    read.load(exif)
    for tag in read:
        tags[tag] = read.get_ifd(tag) if tag in TiffTags.TAGS_V2_GROUPS else read[tag]
    base = ExifTags.Base
    tags[base.ImageWidth], tags[base.ImageLength], tags[base.SamplesPerPixel] = width, height, channels
    tags[base.BitsPerSample], tags[base.SampleFormat] = (
        (8 * size,) * channels,
        ({"u": 1, "i": 2, "f": 3}[kind],) * channels,
    )
    tags[base.Compression], tags[base.Predictor], tags[base.PlanarConfiguration] = 8, 2 if kind in "iu" else 1, 1
    rgb = channels == 3 or (colours and channels == 4)
    tags[base.PhotometricInterpretation] = 2 if rgb else 1  # RGB, or grey with 0 for black
    if extra := channels - (3 if rgb else 1):  # alpha that colours are not multiplied with, or bands
        tags[base.ExtraSamples] = (2 if colours else 0,) * extra
    if icc:
        tags[base.InterColorProfile] = icc
    if xmp:
        tags[base.XMLPacket] = xmp
    if dpi:
        tags[base.XResolution], tags[base.YResolution], tags[base.ResolutionUnit] = dpi[0], dpi[1], 2
    tags[base.RowsPerStrip], tags[base.StripByteCounts] = height, len(data)
    tags[base.StripOffsets] = 0  # from the end of the directory
    tags.save(file)
    file.write(data)


def _rawmode(tile: Any) -> str:
    return str(tile.args if isinstance(tile.args, str) else tile.args[0] if tile.args else "")


def _with_rawmode(args: Any, rawmode: str) -> Any:
    return rawmode if isinstance(args, str) else (rawmode, *args[1:])
