"""What a command does to its own process: warnings, memory, and folders that it will write into."""

import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cyclestyle.errors import CycleStyleError
from cyclestyle.files import cache_folder, remove_unfinished

_HINTS = (
    *("Tip", "available: False", "Seed set to", "Restor", "stopped: `max_", "Loaded model weights"),
    *("Initializing distributed", "distributed_backend"),
)
"""Parts of log messages of Lightning that are advertisement, or say nothing."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h, in bytes
_MADV_HUGEPAGE = 14  # of Linux's mman.h
_CHUNK, _MAX_HEAP = 2**29, 2**34
"""Bytes of the heap that are reserved at a time, and at most."""


def quiet() -> None:
    """Hide hints and warnings of Lightning that tell a user of these commands nothing."""
    for name in ("lightning.pytorch", "pytorch_lightning", "lightning_fabric"):
        for handler in logging.getLogger(name).handlers + logging.getLogger(f"{name}.utilities.rank_zero").handlers:
            handler.addFilter(lambda record: not any(hint in record.getMessage() for hint in _HINTS))
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses a GPU, on machines without one
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what is wrong with a file is in the error that follows
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.formatwarning = _one_line_warning
    # The dispatcher removes the name of the command, so LightningCLI gets its words as an argument.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    # `data.workers` documents how many loader workers pay off; its default leaves one core to training.
    warnings.filterwarnings("ignore", message="The '.*_dataloader' does not have many workers")
    # `best` goes by a figure of validation, which a short run does not reach.
    warnings.filterwarnings("ignore", message=r".ModelCheckpoint\(monitor=.*could not find the monitored key")
    # `Evaluation` has combined the figures of all processes already.
    warnings.filterwarnings("ignore", message="It is recommended to use .self.log")
    # `--ckpt_path last` both starts and resumes a run.
    warnings.filterwarnings("ignore", message=r"\.fit\(ckpt_path=.last.\) is set, but there is no last checkpoint")
    # A folder that holds a run is refused unless the run is resumed, and then its files are expected.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    # Lightning 2.6 with PyTorch 2.15 calls a function that is being renamed.
    warnings.filterwarnings("ignore", message=r".isinstance\(treespec, LeafSpec\). is deprecated")
    # `test` needs none of the callbacks that training had.
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`")
    # A short epoch is no mistake: rows are written every `log_every_n_steps` across epochs.
    warnings.filterwarnings("ignore", message="The number of training batches")


def _one_line_warning(message: Warning | str, *_: object, **__: object) -> str:
    return f"cyclestyle: warning: {' '.join(str(message).split())}\n"


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


def keep_compiled_code() -> None:
    """Let PyTorch keep compiled networks in the cache folder, between runs; its own default is a temporary folder.

    It must be called before torch is imported, because torch asks for the folder then. Where the folder cannot be
    made, and where the user has set the variable, nothing is changed.
    """
    folder = cache_folder() / "compiled"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def ensure_writable(folder: Path) -> None:
    """Create the folder, check that it can be written, before any work is done, and clear what killed runs left there.

    Raises:
        CycleStyleError: it cannot.
    """
    probe = folder / ".writable"
    if folder.exists() and not folder.is_dir():
        raise CycleStyleError(f"{folder} is a file; name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)
        remove_unfinished(folder)
    except OSError as error:
        raise CycleStyleError(f"cannot write into {folder}: {error.strerror}; choose another folder") from error


def ensure_writable_file(path: str | Path) -> Path:
    """Check that a file can be written, before any work is done, and return its path.

    Raises:
        CycleStyleError: its folder cannot be written, or the path is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise CycleStyleError(f"{path} is a folder; name a file")
    ensure_writable(path.parent)
    return path


def refuse_input_as_output(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse to write a file over an input, or a folder that is one.

    Raises:
        CycleStyleError: an output is an input, or a file that exists in an input folder.
    """
    for output in outputs:
        for given in inputs:
            same = output.resolve() == given.resolve()
            if same or (output.is_file() and output.resolve().is_relative_to(given.resolve())):
                raise CycleStyleError(f"the output {output} is an input; choose another path for it")


def number_of(count: int, noun: str) -> str:
    """Return a count with its noun: `1 image`, `2 images`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
