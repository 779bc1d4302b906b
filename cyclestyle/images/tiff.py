"""What is in a TIFF file that Pillow does not decode."""

from pathlib import Path
from typing import Any

from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    PHOTOMETRIC_INTERPRETATION,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    ImageFileDirectory_v2,
)

_SAMPLES = {1: "uint", 2: "int", 3: "float", 5: "complex int", 6: "complex"}
_COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELAB", 32803: "raw"}


def unsupported_tiff(path: Path) -> str | None:
    """Return what the samples of a TIFF file are, such as `float32 RGB TIFF of 3 bands`; None if it does not say."""
    with path.open("rb") as file:
        head = file.read(8)
        if head[:4] not in (b"II*\0", b"MM\0*"):
            return None
        try:
            tags = ImageFileDirectory_v2(head)
            file.seek(tags.next)
            tags.load(file)
            bits, colours = _first(tags[BITSPERSAMPLE]), _COLOURS[_first(tags[PHOTOMETRIC_INTERPRETATION])]
            kind, bands = _SAMPLES[_first(tags.get(SAMPLEFORMAT, 1))], _first(tags.get(SAMPLESPERPIXEL, 1))
        except Exception:  # damaged files raise exceptions of any kind
            return None
    return f"{kind}{bits} {colours} TIFF of {bands} band{'s' * (bands > 1)}"


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)
