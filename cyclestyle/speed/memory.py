"""The memory of a process: kept instead of requested again, in huge pages."""

import ctypes
import os
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h, in bytes
_MADV_HUGEPAGE = 14  # of Linux's mman.h
_CHUNK, _MAX_HEAP = 2**29, 2**34
"""Bytes of the heap that are reserved at a time, and at most."""


def keep_memory() -> None:
    """Let the process keep the memory of large activations, in huge pages, instead of requesting it for every layer.

    By default glibc returns it to the system at once, and a fifth of the time goes into requesting it again. Where
    Linux has pages of 4 kB unless asked, another tenth of a training step goes into finding them. On systems other than
    Linux with glibc nothing is done.
    """
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    if not libc.mallopt(_M_MMAP_THRESHOLD, 2**30):
        libc.mallopt(_M_MMAP_THRESHOLD, 2**25)  # the most that glibc allows before 2.35
    elif not _reserved_counts_as_used():
        _ask_for_huge_pages(libc)


def _reserved_counts_as_used() -> bool:
    """Whether the system limits memory that is reserved, and not only what is used."""
    import resource  # which other systems than Unix lack

    mode = Path("/proc/sys/vm/overcommit_memory")
    limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    return limited or (mode.exists() and mode.read_text().strip() == "2")


def _ask_for_huge_pages(libc: ctypes.CDLL) -> None:
    """Make the heap as large as it may become, because only what exists can be advised; memory is not used by that."""
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    libc.malloc.argtypes, libc.malloc.restype = [size], pointer
    libc.free.argtypes, libc.madvise.argtypes = [pointer], [pointer, size, ctypes.c_int]
    libc.sbrk.argtypes, libc.sbrk.restype = [ctypes.c_ssize_t], pointer
    page = os.sysconf("SC_PAGE_SIZE")
    start = -(-libc.sbrk(0) // page) * page
    reserved = [libc.malloc(_CHUNK) for _ in range(min(page * os.sysconf("SC_PHYS_PAGES") // 2, _MAX_HEAP) // _CHUNK)]
    libc.malloc(_CHUNK)  # at the end of the heap, and never freed, so that the heap does not shrink again
    libc.madvise(start, libc.sbrk(0) - start, _MADV_HUGEPAGE)
    for chunk in reserved:
        libc.free(chunk)
