"""The one table of image formats: which files are images, what a format can hold, and how it is written."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from cyclestyle.errors import CycleStyleError

with suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()

Image.init()  # loads every plugin of Pillow, which fills its tables of formats and endings

Frames = Literal["time", "pages"]
"""What several images of one file are: an animation, or pages."""
Part = Literal["alpha", "16 bit", "exif", "icc", "dpi", "xmp", "numbers"]
"""What a file may have beside its 8-bit colours; `numbers`: samples of any type, and any number of bands."""

FRAMES: Mapping[str, Frames] = {
    **dict.fromkeys(("GIF", "WEBP", "PNG", "AVIF", "FLI"), "time"),
    **dict.fromkeys(("TIFF", "DCX"), "pages"),
}
"""Formats, by Pillow's names, whose files may hold several images. Of other files the main image alone is read."""

HEIC = (".heic", ".heif", ".hif")
"""The endings of files that need the package pillow-heif."""

NUMPY = (".npy", ".npz")
"""The endings of arrays."""

DICOM = (".dcm", ".dicom")
"""The endings of files that need the package pydicom."""

_NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"})
"""What Pillow recognises, but has no decoder for, or decodes by running another program."""

READ_FORMATS = tuple(sorted(Image.OPEN.keys() - _NOT_DECODED))
"""The formats that are read, by Pillow's names."""

EXTENSIONS = frozenset(
    (*(suffix for suffix, name in Image.registered_extensions().items() if name in READ_FORMATS), *NUMPY, *DICOM)
)
"""The endings of the files that are images, in lower case."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format that translations are written in.

    Attributes:
        name: the word of `--format`.
        pillow: Pillow's name; for arrays our own.
        endings: the endings of its files; the first is that of converted files.
        keeps: what its files can have beside 8-bit colours.
        quality: the quality where the source gives none; None for lossless formats, which have none.
        options: what else Pillow is told when it writes.
        modes: the modes that Pillow writes; grey images become RGB where it does not.
    """

    name: str
    pillow: str
    endings: tuple[str, ...]
    keeps: frozenset[Part] = frozenset()
    quality: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    modes: tuple[str, ...] = ("L", "LA", "RGB", "RGBA")

    @property
    def frames(self) -> Frames | None:
        """What several images of one file are; None where a file holds one."""
        return FRAMES.get(self.pillow)

    def holds(self, dtype: str, bands: int) -> bool:
        """Return whether a file can have so many bands of a type of samples."""
        if "numbers" in self.keeps:
            return True
        return bands <= 4 and (dtype == "uint8" or (dtype == "uint16" and "16 bit" in self.keeps))


def _keeps(*parts: Part) -> frozenset[Part]:
    return frozenset(parts)


PNG = Format(
    name="png", pillow="PNG", endings=(".png", ".apng"), keeps=_keeps("alpha", "16 bit", "exif", "icc", "dpi", "xmp")
)

FORMATS = (
    PNG,
    Format(
        name="jpeg",
        pillow="JPEG",
        endings=(".jpg", ".jpeg", ".jpe", ".jfif"),
        keeps=_keeps("exif", "icc", "dpi", "xmp"),
        quality=95,
        options={"subsampling": 0},
    ),
    Format(
        name="webp",
        pillow="WEBP",
        endings=(".webp",),
        keeps=_keeps("alpha", "exif", "icc", "xmp"),
        quality=95,
    ),
    Format(
        name="tiff",
        pillow="TIFF",
        endings=(".tif", ".tiff"),
        keeps=_keeps("alpha", "16 bit", "exif", "icc", "dpi", "xmp", "numbers"),
    ),
    Format(
        name="avif",
        pillow="AVIF",
        endings=(".avif", ".avifs"),
        keeps=_keeps("alpha", "exif", "icc", "xmp"),
        quality=90,
    ),
    Format(
        name="heic",
        pillow="HEIF",
        endings=HEIC,
        keeps=_keeps("alpha", "exif", "icc", "xmp"),
        quality=90,
    ),
    Format(name="gif", pillow="GIF", endings=(".gif",), keeps=_keeps("alpha")),
    Format(
        name="jpeg2000",
        pillow="JPEG2000",
        endings=(".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"),
        keeps=_keeps("alpha"),
    ),
    Format(name="bmp", pillow="BMP", endings=(".bmp",), keeps=_keeps("dpi")),
    Format(
        name="tga",
        pillow="TGA",
        endings=(".tga", ".icb", ".vda", ".vst"),
        keeps=_keeps("alpha"),
        options={"compression": "tga_rle"},
    ),
    Format(name="ppm", pillow="PPM", endings=(".ppm", ".pnm")),
    Format(name="pcx", pillow="PCX", endings=(".pcx",)),
    Format(
        name="sgi", pillow="SGI", endings=(".sgi", ".rgb", ".rgba"), keeps=_keeps("alpha"), modes=("L", "RGB", "RGBA")
    ),
    Format(name="qoi", pillow="QOI", endings=(".qoi",), keeps=_keeps("alpha"), modes=("RGB", "RGBA")),
    Format(name="npy", pillow="NPY", endings=(".npy",), keeps=_keeps("alpha", "16 bit", "numbers")),
    Format(name="npz", pillow="NPZ", endings=(".npz",), keeps=_keeps("alpha", "16 bit", "numbers")),
)
"""Every format that translations are written in. Images of other formats become PNG."""

WRITTEN = {one.name: one for one in FORMATS if one.pillow in {*Image.SAVE, "NPY", "NPZ"}}
"""The formats of the table that this installation can write, by name."""

_BY_ENDING = {ending: one for one in FORMATS for ending in one.endings}


def format_of(path: Path) -> Format | None:
    """Return the format that the ending of a path stands for; None where images with it are not written."""
    return _BY_ENDING.get(path.suffix.lower())


def format_named(name: str) -> Format:
    """Return the format of a word such as `png`; `jpg` and other endings without their dot are known too.

    Raises:
        CycleStyleError: there is none, or this installation of Pillow cannot write it.
    """
    found = _BY_ENDING.get(f".{name.lower()}")
    return available(WRITTEN.get(name.lower()) or found, name)


def available(chosen: Format | None, name: str) -> Format:
    """Return the format, unless it is None or this installation of Pillow cannot write it.

    Raises:
        CycleStyleError: it cannot be written; the message names what can.
    """
    if chosen is not None and chosen.name in WRITTEN:
        return chosen
    hint = "; `pip install pillow-heif` adds it" if chosen is not None and chosen.pillow == "HEIF" else ""
    raise CycleStyleError(f"images cannot be written as {name}{hint}; choose one of {', '.join(WRITTEN)}")


def format_with(pillow: str) -> Format | None:
    """Return the format of one of Pillow's names; None where images of it are not written."""
    return next((one for one in WRITTEN.values() if one.pillow == pillow), None)
