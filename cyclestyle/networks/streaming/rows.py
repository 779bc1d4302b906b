"""Arrays of rows, in memory or in a scratch file."""

import mmap
import os
import tempfile
from pathlib import Path

import torch
from torch import Tensor

CPU = torch.device("cpu")


class RowStore:
    """An array `(1, C, H, W)` that is written and read by rows. It is freed with the object.

    Rows lie behind each other, and within a row the channels of a pixel, so that a strip of rows is one block that
    has the memory format channels_last.

    Args:
        shape: `(1, C, H, W)`.
        dtype: type of the numbers.
        folder: None to hold the array in the memory of `device`. Else it is a file in this folder, without a name: the
            system frees its room when the process ends, in whichever way.
        device: where rows are read to.
    """

    def __init__(
        self, shape: torch.Size, dtype: torch.dtype, folder: Path | None = None, device: torch.device = CPU
    ) -> None:
        _, channels, height, width = shape
        self.shape, self.dtype, self.device = shape, dtype, device
        self._row = width, channels
        self._row_bytes = width * channels * dtype.itemsize
        self._memory: Tensor | None = None
        if folder is None and device.type == "cpu":
            self._memory = _mapped(height, width, channels, dtype)
        elif folder is None:
            self._memory = torch.empty(height, width, channels, dtype=dtype, device=device)
        self._file = None if folder is None else _unnamed_file(folder)

    def write(self, start: int, rows: Tensor) -> None:
        """Store rows `(1, C, h, W)`.

        Raises:
            OSError: the disk is full.
        """
        block = rows[0].permute(1, 2, 0)  # (h, W, C)
        if self._memory is not None:
            self._memory[start : start + len(block)] = block
        else:
            assert self._file is not None
            _transfer(os.pwritev, self._file.fileno(), block.cpu().contiguous(), start * self._row_bytes)

    def read(self, start: int, stop: int) -> Tensor:
        """Return rows `(1, C, stop - start, W)`. They must not be changed in place."""
        if self._memory is not None:
            block = self._memory[start:stop]
        else:
            assert self._file is not None
            block = torch.empty(stop - start, *self._row, dtype=self.dtype)
            _transfer(os.preadv, self._file.fileno(), block, start * self._row_bytes)
            block = block.to(self.device)
        return block.permute(2, 0, 1)[None]


def _mapped(height: int, width: int, channels: int, dtype: torch.dtype) -> Tensor:
    """Memory straight from the system, which gets all of it back at once; an allocator might keep or split it."""
    block = mmap.mmap(-1, height * width * channels * dtype.itemsize)
    return torch.frombuffer(block, dtype=dtype).view(height, width, channels)


def _unnamed_file(folder: Path) -> "tempfile._TemporaryFileWrapper[bytes]":
    # On Linux the file never has a name (O_TMPFILE); elsewhere the name is removed at once where the system allows it.
    return tempfile.TemporaryFile(dir=folder, buffering=0)  # type: ignore[return-value]  # annotated for every system


def _transfer(call: object, file: int, block: Tensor, offset: int) -> None:
    """Read or write a whole block; the system transfers at most 2 GiB in one call."""
    left = memoryview(block.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]  # arrays are buffers
    while left:
        done = call(file, [left], offset)  # type: ignore[operator]
        if not done:
            raise OSError("the scratch file ended early")
        left, offset = left[done:], offset + done
