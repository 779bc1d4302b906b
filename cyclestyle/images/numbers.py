"""Images whose samples are numbers rather than levels of a screen: their files, their range, and their types."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cyclestyle.errors import ImageError
from cyclestyle.images.formats import DICOM, NUMPY
from cyclestyle.images.tiff import TiffSamples, tiff_samples
from cyclestyle.scratch import available_memory, format_bytes

Numbers = NDArray[Any]
"""`(H, W, C)`, of any type of numbers."""

DTYPES = ("uint8", "uint16", "int16", "int32", "float16", "float32", "float64")
"""The types of results."""
STEPS = 255
"""A type of integers holds a range that has at least as many steps as 8 bits have."""


@dataclass(frozen=True)
class ValueRange:
    """The values of a domain that networks see as -1 and 1.

    Raises:
        ValueError: they are not two finite numbers, the lower one first.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise ValueError(f"a range must be two numbers, the lower one first, got {self.low:g} and {self.high:g}")

    @classmethod
    def of_type(cls, dtype: Any) -> "ValueRange":
        """Return the whole range of a type of integers; 0 to 1 for floating point."""
        dtype = np.dtype(dtype)
        return cls(np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind in "iu" else cls(0, 1)

    def clipped(self, values: Numbers) -> int:
        """Return how many values are outside."""
        return int(((values < self.low) | (values > self.high)).sum())

    def to_unit(self, values: Numbers) -> Tensor:
        """Convert `(H, W, C)` to float32 `(C, H, W)` in [-1, 1]; values outside are clipped."""
        scaled = (values.astype(np.float64) - self.low) * (2 / (self.high - self.low)) - 1
        return torch.from_numpy(scaled.clip(-1, 1).astype(np.float32).transpose(2, 0, 1).copy())

    def to_values(self, tensor: Tensor, dtype: str) -> Numbers:
        """Convert `(C, H, W)` in [-1, 1], or in levels in uint8, to `(H, W, C)`; integers are rounded.

        Raises:
            ValueError: the tensor contains NaN.
        """
        unit = tensor.detach().cpu().double()
        unit = unit / 127.5 - 1 if tensor.dtype == torch.uint8 else unit
        if torch.isnan(unit).any():
            raise ValueError("the image contains NaN")
        values: Numbers = (self.low + (unit.clamp(-1, 1) + 1) * ((self.high - self.low) / 2)).permute(1, 2, 0).numpy()
        return np.ascontiguousarray((np.rint(values) if np.dtype(dtype).kind in "iu" else values).astype(dtype))

    def fits(self, dtype: str) -> bool:
        """Return whether a type holds the values: floating point, or integers with enough steps between the ends."""
        if np.dtype(dtype).kind == "f":
            return max(abs(self.low), abs(self.high)) <= float(np.finfo(dtype).max)
        limits = np.iinfo(dtype)
        return bool(limits.min <= self.low and self.high <= limits.max and self.high - self.low >= STEPS)

    def best_type(self, wanted: str) -> str:
        """Return a type for the values: the wanted one if it holds them, else the first of a few that does."""
        return next(one for one in (wanted, "uint16", "int16", "float32", "float64") if self.fits(one))

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class NumberFile:
    """A file that Pillow does not read as it is: its header, and how it is read.

    Attributes:
        format: name of the format.
        dtype: type of the samples.
        bands: how many there are for each pixel.
        size: width and height.
        frames: number of pages.
        read: reads a page, `(H, W, C)`.
        window: lowest and highest value that viewers show, if the file says so.
    """

    format: str
    dtype: str
    bands: int
    size: tuple[int, int]
    read: Callable[[int], Numbers]
    frames: int = 1
    window: tuple[float, float] | None = None


def open_numbers(path: Path, channels: int | None = None) -> NumberFile | None:
    """Open a file of numbers by its ending, and a TIFF that Pillow does not decode as it is; None for other files.

    Args:
        path: the file.
        channels: how many are wanted, if that is known.

    Raises:
        ImageError: the array has another shape than `(H, W)` or `(H, W, C)`, or the package that reads it is missing.
        Exception: those of the package, for damaged files.
    """
    suffix = path.suffix.lower()
    if suffix in NUMPY:
        return _of_array(_load(path), suffix[1:].upper())
    if suffix in DICOM:
        return _open_dicom(path)
    if suffix in (".tif", ".tiff") and (samples := tiff_samples(path)) is not None and not samples.by_pillow(channels):
        return _open_tiff(path, samples)
    return None


def check_finite(values: Numbers) -> None:
    """Check that no value is NaN or infinite.

    Raises:
        ImageError: some are.
    """
    if values.dtype.kind == "f" and (bad := int((~np.isfinite(values)).sum())):
        raise ImageError(f"it has values that are NaN or infinite ({bad}); replace them by numbers")


def with_bands(values: Numbers, bands: int) -> Numbers:
    """Return `(H, W, bands)`; a single band is repeated to be grey in RGB.

    Raises:
        ImageError: the image has another number of bands.
    """
    if values.shape[2] == 1 and bands == 3:
        return np.repeat(values, 3, axis=2)
    if values.shape[2] != bands:
        raise ImageError(
            f"it has {values.shape[2]} band{'s' * (values.shape[2] > 1)} of {values.dtype}, but {bands} "
            f"{'is' if bands == 1 else 'are'} expected (channels_A, channels_B)"
        )
    return values


def _of_array(values: Numbers, format: str, window: tuple[float, float] | None = None) -> NumberFile:
    if values.ndim not in (2, 3) or not values.size or values.dtype.kind not in "iuf":
        raise ImageError(f"it holds {values.dtype} of the shape {values.shape}; expected numbers (H, W) or (H, W, C)")
    image = np.atleast_3d(values)
    height, width, bands = image.shape
    return NumberFile(format, str(image.dtype), bands, (width, height), lambda page: image, window=window)


def _load(path: Path) -> Numbers:
    loaded = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix.lower() == ".npy" else None)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        if len(loaded.files) != 1:
            raise ImageError(f"it holds {len(loaded.files)} arrays ({', '.join(loaded.files)}); expected one")
        array: Numbers = loaded[loaded.files[0]]
        return array


def _open_tiff(path: Path, samples: TiffSamples) -> NumberFile | None:
    try:
        import tifffile
    except ImportError:
        return None  # Pillow says what is wrong, or reads some of it

    def read(number: int) -> Numbers:
        with tifffile.TiffFile(path) as file:
            page = file.pages[number]
            values: Numbers = page.asarray()
            values = np.moveaxis(values, 0, -1) if page.axes == "SYX" else values
        if values.ndim not in (2, 3) or values.dtype.kind not in "iuf":
            raise ImageError(f"{samples} is not supported; expected bands of integers or floating point")
        return np.atleast_3d(values)

    with tifffile.TiffFile(path) as file:
        frames, needed = len(file.pages), file.pages[0].size * np.dtype(np.float64).itemsize
    if needed > (free := available_memory()):
        raise ImageError(f"{samples} takes {format_bytes(needed)} of memory, and {format_bytes(free)} are free")
    return NumberFile("TIFF", samples.dtype, samples.bands, samples.size, read, frames)


def _open_dicom(path: Path) -> NumberFile:
    """Open a slice of a DICOM series. Its values are those of the modality, such as Hounsfield units."""
    try:
        import pydicom
        from pydicom.pixels.processing import apply_modality_lut
    except ImportError as error:
        raise ImageError("DICOM needs pydicom: pip install pydicom") from error
    dataset = pydicom.dcmread(path)
    if int(dataset.get("NumberOfFrames", 1)) > 1:
        raise ImageError(f"it has {dataset.NumberOfFrames} frames; expected one slice a file")
    values: Numbers = apply_modality_lut(dataset.pixel_array, dataset)
    if values.dtype.kind == "f" and (values == np.rint(values)).all():
        small = abs(values).max() < 2**15
        values = values.astype(np.int16 if small else np.int32)
    centre, width = (_number(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    window = None if centre is None or width is None else (centre - width / 2, centre + width / 2)
    return _of_array(values, "DICOM", window)


def _number(value: Any) -> float | None:
    """The first of the numbers of an entry of DICOM; None if it is missing."""
    if value is None or value == "":
        return None
    return float(value[0] if isinstance(value, Sequence) and not isinstance(value, str) else value)
