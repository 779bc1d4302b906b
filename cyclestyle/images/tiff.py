"""What the tags of a TIFF file say about its samples, which decides on who decodes them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    EXTRASAMPLES,
    IMAGELENGTH,
    IMAGEWIDTH,
    PHOTOMETRIC_INTERPRETATION,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    ImageFileDirectory_v2,
)

_KINDS = {1: "uint", 2: "int", 3: "float", 5: "complex int", 6: "complex"}
_COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELAB", 32803: "raw"}
_GREY_BY_PILLOW = ("uint1", "uint8", "uint16", "int16", "int32", "float32")
"""Types of a single band that Pillow decodes as they are."""


@dataclass(frozen=True)
class TiffSamples:
    """The samples of the first page of a TIFF file.

    Attributes:
        dtype: their type, such as `uint16`.
        bands: how many there are for each pixel.
        size: width and height.
        colours: what they stand for, such as `RGB`.
        extra: what the bands after these are: 0 unknown, 1 or 2 alpha; None where there are none.
    """

    dtype: str
    bands: int
    size: tuple[int, int]
    colours: str
    extra: int | None

    def by_pillow(self, channels: int | None) -> bool:
        """Return whether Pillow decodes them as they are; `channels` is how many are wanted, if that is known.

        Of RGB with a fourth band of no stated meaning, it decodes RGB.
        """
        if self.bands == 1:
            return self.dtype in _GREY_BY_PILLOW
        if self.dtype not in ("uint8", "uint16") or self.bands > 4:
            return False
        return (
            self.colours not in ("grey", "RGB")
            or bool(self.extra)
            or (self.colours == "RGB" and (self.bands == 3 or channels != 4))
        )

    def __str__(self) -> str:
        return f"{self.dtype} {self.colours} TIFF of {self.bands} band{'s' * (self.bands > 1)}"


def tiff_samples(path: Path) -> TiffSamples | None:
    """Read the tags of a TIFF file; None if it is none, is damaged, or does not say what its samples are."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            if head[:4] in (b"II+\0", b"MM\0+"):  # BigTIFF
                head += file.read(8)
            elif head[:4] not in (b"II*\0", b"MM\0*"):
                return None
            tags = ImageFileDirectory_v2(head)
            file.seek(tags.next)
            tags.load(file)
        bits, colours = _first(tags[BITSPERSAMPLE]), _COLOURS[_first(tags[PHOTOMETRIC_INTERPRETATION])]
        kind, bands = _KINDS[_first(tags.get(SAMPLEFORMAT, 1))], _first(tags.get(SAMPLESPERPIXEL, 1))
        size = _first(tags[IMAGEWIDTH]), _first(tags[IMAGELENGTH])
        extra = tags.get(EXTRASAMPLES)
        return TiffSamples(f"{kind}{bits}", bands, size, colours, None if extra is None else _first(extra))
    except Exception:  # damaged files raise exceptions of any kind
        return None


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)
