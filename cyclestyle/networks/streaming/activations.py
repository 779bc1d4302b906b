"""Activations that are computed by rows, and where their rows and statistics are kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from cyclestyle.networks.streaming.strips import Rows

STRIP_BYTES = 2**26
"""Memory of the activations of a strip, where the budget allows it."""
PART = 2**16
"""Numbers whose sums a processor computes at a time: their float64 copy fits into its cache. A GPU takes a strip."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """Where activations are kept.

    Attributes:
        memory: bytes for activations, strips included. What does not fit is kept in a scratch file.
        folder: folder of the scratch file.
        device: that of the parameters, on which strips are computed, and in whose memory activations are kept.
        dtype: type of the image, that of the parameters.
    """

    memory: int = 0
    folder: Path = Path()
    device: torch.device = field(default_factory=partial(torch.device, "cpu"))
    dtype: torch.dtype = torch.float32

    @property
    def strip_bytes(self) -> int:
        """Memory of the activations of a strip; convolutions take some more, for which there is room beside it."""
        return min(STRIP_BYTES, self.memory // 8)


class Kept(Protocol):
    """Where the rows of an activation are kept."""

    def read(self, start: int, stop: int) -> Tensor:
        """Return rows `(1, C, stop - start, W)`."""


class Node:
    """An activation `(1, C, H, W)` of which rows are computed on request, or kept.

    Args:
        shape: `(1, C, H, W)`.
        dtype: type of the numbers.
        compute: returns the rows `start` to `stop`.
        parents: the activations that it reads.
        work: floating-point operations of a convolution; 0 for an operation that may be repeated.
    """

    def __init__(
        self, shape: torch.Size, dtype: torch.dtype, compute: Rows, parents: Sequence["Node"] = (), work: float = 0.0
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self.rows = compute
        self.parents = tuple(parents)
        self.work = work

    def keep(self, kept: Kept) -> None:
        """Read the rows from `kept` from now on."""
        self.rows, self.parents, self.work = kept.read, (), 0.0

    @property
    def bytes(self) -> int:
        """Memory of all rows."""
        return self.shape.numel() * self.dtype.itemsize

    @property
    def sources(self) -> int:
        """Number of kept activations that the rows are computed from."""
        return sum(parent.sources for parent in self.parents) if self.parents else 1

    @property
    def pending_work(self) -> float:
        """Floating-point operations that all rows take, less those of elementwise operations."""
        return self.work + sum(parent.pending_work for parent in self.parents)

    @property
    def pending_bytes(self) -> int:
        """Memory of all activations that are computed together with this one."""
        return self.bytes + sum(parent.pending_bytes for parent in self.parents)


class PlannedStore:
    """Stands for a store while streaming is only planned."""

    def read(self, start: int, stop: int) -> Tensor:
        """No rows are read while streaming is planned.

        Raises:
            AssertionError: always.
        """
        raise AssertionError("a planned activation has no rows")

    def write(self, start: int, rows: Tensor) -> None:
        """Nothing is kept."""


class Window:
    """The last rows of an activation, for sweeps down the image in which no row is computed twice.

    Args:
        compute: computes rows.
        sweep: returns the number of the present strip of the result.
    """

    def __init__(self, compute: Rows, sweep: Callable[[], int]) -> None:
        self.compute, self.sweep = compute, sweep
        self._held: Tensor | None = None
        self._first = self._end = 0  # the rows that are held
        self._now, self._asked, self._asked_before = -1, 0, 0  # the strip, and the first row asked for, now and before

    def read(self, start: int, stop: int) -> Tensor:
        """Return rows. Those before the first one that the strip before has asked for are forgotten."""
        if self._now != self.sweep():
            self._now, self._asked, self._asked_before = self.sweep(), start, self._asked
        self._asked = min(self._asked, start)
        if self._held is None or not self._first <= start <= self._end:
            self._held, self._first, self._end = self.compute(start, stop), start, stop
        elif stop > self._end:
            first = min(max(self._asked_before, self._first), start)
            old = self._held[:, :, first - self._first :]
            self._held, self._first = torch.cat([old, self.compute(self._end, stop)], 2), first
            self._end = stop
        return self._held[:, :, start - self._first : stop - self._first]


class Moments:
    """Mean and variance of each channel over all rows that are added, in float64 (Chan et al. 1979)."""

    def __init__(self, channels: int, device: torch.device) -> None:
        device = torch.device("cpu") if device.type == "mps" else device  # which has no float64
        self.count, self.part = 0, PART if device.type == "cpu" else STRIP_BYTES
        self.mean, self.squares = torch.zeros(2, channels, dtype=torch.float64, device=device)

    def add(self, rows: Tensor) -> None:
        """Add rows `(1, C, h, W)`."""
        pixels = rows.squeeze(0).permute(1, 2, 0).reshape(-1, rows.shape[1]).to(self.mean.device)
        for part in torch.split(pixels, max(1, self.part // rows.shape[1])):
            wide = part - self.mean  # in float64; near 0 from the second part on, so that its squares lose no digits
            ones = wide.new_ones(1, len(wide))
            offset = (ones @ wide)[0] / len(wide)
            squares = (ones @ wide.square_())[0] - len(wide) * offset.square()
            self._merge(len(wide), self.mean + offset, squares.clamp_(min=0))

    def _merge(self, count: int, mean: Tensor, squares: Tensor) -> None:
        total = self.count + count
        difference = mean - self.mean
        self.squares = self.squares + squares + difference.square() * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.count = total

    def result(self, correction: float = 0) -> tuple[Tensor, Tensor]:
        """Return mean and variance, `(C,)` each."""
        return self.mean, self.squares / max(self.count - correction, 0) if self.count else self.squares
