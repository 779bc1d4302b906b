"""The range of the values of a domain: found in its images, or given."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cyclestyle.errors import DataError
from cyclestyle.images import ValueRange, open_numbers, read_header, read_values
from cyclestyle.images.folders import MAX_HEADERS

RangeName = str | list[float]
"""`auto`, `type`, `window`, `percentile:LOW,HIGH`, or two numbers, as a list or with a comma between them."""

_SAMPLES = 16384
"""Values of each image that percentiles are taken of."""
_COLOURS = ("uint8", "uint16")


@dataclass
class _Found:
    """What the values of images are."""

    low: float = np.inf
    high: float = -np.inf
    values: int = 0
    clipped: int = 0
    samples: list[NDArray[Any]] = field(default_factory=list)

    def add(self, values: NDArray[Any], given: ValueRange | None) -> None:
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.values += values.size
        self.clipped += 0 if given is None else given.clipped(values)
        self.samples.append(values.ravel()[:: -(-values.size // _SAMPLES)].astype(np.float64))


def parse_range(name: str, wanted: RangeName) -> ValueRange | tuple[float, float] | str:
    """Return a range, two percentiles, or a word; see `RangeName`.

    Raises:
        ValueError: it is none of these.
    """
    if wanted in ("auto", "type", "window"):
        return str(wanted)
    kind, _, text = wanted.rpartition(":") if isinstance(wanted, str) else ("", "", "")
    try:
        ends = [float(one) for one in (text.split(",") if isinstance(wanted, str) else wanted)]
        low, high = ends
        if kind == "percentile" and 0 <= low < high <= 100:
            return low, high
        if kind == "":
            return ValueRange(low, high)
    except ValueError:
        pass
    raise ValueError(
        f"{name} must be two numbers such as --{name}=-1000,2000, percentile:0.5,99.5, type, window or auto, "
        f"got {wanted}"
    )


def parse_bands(name: str, wanted: str | list[int], channels: int) -> list[int]:
    """Return three bands, counted from 0, from bands that are counted from 1; a single one is shown as grey.

    Raises:
        ValueError: they are not one or three of the channels.
    """
    try:
        bands = [int(one) for one in (wanted.split(",") if isinstance(wanted, str) else wanted)]
    except ValueError:
        bands = []
    if len(bands) not in (1, 3) or not all(1 <= band <= channels for band in bands):
        raise ValueError(f"{name} must be one or three bands of 1 to {channels}, such as 3,2,1, got {wanted}")
    return [band - 1 for band in (bands * 3)[:3]]


def find_range(name: str, wanted: RangeName, paths: Sequence[Path]) -> tuple[ValueRange | None, str]:
    """Return the range of a domain, and a line that says what was found; None and no line for images of 8 bits.

    `auto` takes 0 to the highest number with as many bits as the integers need, 0 to 1 for floating point within it,
    and otherwise the lowest and the highest value. Images of 8 bits, and of 8 and 16 bits together, have no range:
    each is read with that of its type.

    Args:
        name: of the option, such as `data.range_A`.
        wanted: its value.
        paths: the training images of the domain. Of more than `MAX_HEADERS`, so many are read.

    Raises:
        DataError: the files have several types, and no range is given for them; all values are equal; or no file says
            what its window is.
        ImageError: a file cannot be read, or has values that are not finite.
    """
    parsed = parse_range(name, wanted)
    if parsed == "type":
        return None, ""
    paths = paths[:: -(-len(paths) // MAX_HEADERS) or 1]
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        types = Counter(pool.map(lambda path: read_header(path).dtype, paths))
    kinds = " and ".join(f"{kind} ({count})" for kind, count in types.most_common())
    if parsed == "auto" and set(types) <= set(_COLOURS) and "uint8" in types:
        line = f"{name}: files of {kinds}; each is read with the range of its type"
        return None, line if len(types) > 1 else ""
    if parsed == "auto" and len(types) > 1:
        raise DataError(f"{name} is auto, but the files have several types: {kinds}; give the range as two numbers")
    window = _window(name, paths) if parsed == "window" else None
    given = parsed if isinstance(parsed, ValueRange) else window
    found = _examine(paths, given)
    read = f"{name}: {kinds} of {found.low:g} to {found.high:g}"
    if given is not None:
        share = f"{100 * found.clipped / found.values:.2g} % ({found.clipped:,})"
        return given, f"{read}; taken as {given}, which clips {share} of the values"
    if isinstance(parsed, tuple):
        samples = np.concatenate(found.samples)
        low, high = np.percentile(samples, parsed)
        chosen = _range(name, float(low), float(high))
        share = f"{100 * chosen.clipped(samples) / samples.size:.2g} %"
        return chosen, f"{read}; taken as {chosen}, which clips {share} of the values"
    chosen = _automatic(name, found, next(iter(types)))
    return chosen, f"{read}; taken as {chosen}, which clips nothing"


def _automatic(name: str, found: _Found, dtype: str) -> ValueRange:
    if found.low >= 0 and np.dtype(dtype).kind in "iu":
        bits = next((bits for bits in (8, 10, 12, 14, 16, 24, 32) if found.high < 2**bits), 64)
        return ValueRange(0, 2**bits - 1)
    if found.low >= 0 and found.high <= 1:
        return ValueRange(0, 1)
    return _range(name, found.low, found.high)


def _range(name: str, low: float, high: float) -> ValueRange:
    if low == high:
        raise DataError(f"{name}: all values are {low:g}; give the range as two numbers")
    return ValueRange(low, high)


def _examine(paths: Sequence[Path], given: ValueRange | None) -> _Found:
    found = _Found()
    with ThreadPoolExecutor(2) as pool:
        for values in pool.map(read_values, paths):
            found.add(values, given)
    return found


def _window(name: str, paths: Sequence[Path]) -> ValueRange:
    files = [open_numbers(path) for path in paths]
    windows = [file.window for file in files if file is not None and file.window is not None]
    if not windows:
        raise DataError(f"{name} is window, but none of the files says what its window is; only DICOM files can")
    return ValueRange(min(low for low, _ in windows), max(high for _, high in windows))


def count_clipped(paths: Sequence[Path], given: ValueRange) -> tuple[int, list[Path]]:
    """Return how many values of images are outside of a range, and which files have such values."""
    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(lambda path: given.clipped(read_values(path)), paths))
    return sum(counts), [path for path, count in zip(paths, counts, strict=True) if count]
