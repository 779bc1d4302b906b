"""Memory that is free, and arrays of rows in memory or in a scratch file."""

import mmap
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from cyclestyle.errors import CycleStyleError

CPU = torch.device("cpu")
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_UNLIMITED = 2**60  # what version 1 of cgroups reports where there is no limit is above this


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


def available_memory() -> int:
    """Return the bytes that this process can still use: the free memory of the system or of its control group."""
    amounts = [_available_in_system(), *(limit for limit in map(_left_in_group, _groups()) if limit is not None)]
    return max(0, min(amounts))


def parse_bytes(text: str | int) -> int:
    """Return the number of bytes that a text such as `4GB`, `500M` or `2GiB` means.

    Raises:
        ValueError: it is not a positive amount.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", str(text).strip().upper())
    if match is None or match[2] not in _UNITS or float(match[1]) <= 0:
        raise ValueError(f"expected an amount of memory such as 4GB or 500MB, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2]])


def format_bytes(count: float) -> str:
    """Return an amount of memory as a person writes it, such as `1.5 GB`."""
    for size, unit, digits in ((1e9, "GB", 1), (1e6, "MB", 0), (1e3, "kB", 0)):
        if count >= size:
            return f"{count / size:.{digits}f} {unit}"
    return f"{count:.0f} bytes"


def free_room(folder: Path) -> int:
    """Return the bytes that are free on the disk of a folder.

    Raises:
        CycleStyleError: the folder does not exist or cannot be written.
    """
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise CycleStyleError(f"the scratch folder {folder} is missing or cannot be written; choose another --scratch")
    return shutil.disk_usage(folder).free


def _unnamed_file(folder: Path) -> "tempfile._TemporaryFileWrapper[bytes]":
    # On Linux the file never has a name (O_TMPFILE); elsewhere the name is removed at once where the system allows it.
    return tempfile.TemporaryFile(dir=folder, buffering=0)  # type: ignore[return-value]  # annotated for every system


def _mapped(height: int, width: int, channels: int, dtype: torch.dtype) -> Tensor:
    """Memory straight from the system, which gets all of it back at once; an allocator might keep or split it."""
    block = mmap.mmap(-1, height * width * channels * dtype.itemsize)
    return torch.frombuffer(block, dtype=dtype).view(height, width, channels)


def _transfer(call: object, file: int, block: Tensor, offset: int) -> None:
    """Read or write a whole block; the system transfers at most 2 GiB in one call."""
    left = memoryview(block.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]  # arrays are buffers
    while left:
        done = call(file, [left], offset)  # type: ignore[operator]
        if not done:
            raise OSError("the scratch file ended early")
        left, offset = left[done:], offset + done


def _available_in_system() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _groups() -> list[tuple[Path, str, str]]:
    """The folders of this process' control groups, up to the root, and the names of the files of limit and usage."""
    found = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, names = Path("/sys/fs/cgroup/memory"), ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        folder = root / group.lstrip("/")
        found += [(one, *names) for one in (folder, *folder.parents) if one.is_relative_to(root)]
    return found


def _left_in_group(group: tuple[Path, str, str]) -> int | None:
    """The memory that a control group has left, its page cache included; None where it has no limit."""
    folder, limit_name, usage_name = group
    try:
        limit, usage = (folder / limit_name).read_text().strip(), int((folder / usage_name).read_text())
        if limit == "max" or int(limit) > _UNLIMITED:
            return None
        cached = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
        reclaimable = sum(int(value) for name, value in cached if name in ("inactive_file", "active_file"))
        return int(limit) - usage + reclaimable
    except (OSError, ValueError):
        return None


def peak_memory() -> int:
    """Return the most memory, in bytes, that this process has taken so far; 0 where the system does not say."""
    try:
        import resource  # which other systems than Unix lack
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
