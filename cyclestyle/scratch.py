"""Memory and room for scratch files: how much is free, and how amounts are read and written."""

import ctypes
import gc
import os
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from cyclestyle.errors import CycleStyleError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_UNLIMITED = 2**60  # what version 1 of cgroups reports where there is no limit is above this


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
    status = Path("/proc/self/status")
    if status.exists():
        peaks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if peaks:
            return int(peaks[0]) * 1024
    try:
        import resource  # which other systems than Unix lack
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak_memory() -> None:
    """Reset `peak_memory` to the memory in use. This works on Linux only."""
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # freed memory that the process keeps is not in use
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
