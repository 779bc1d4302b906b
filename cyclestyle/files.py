"""Atomic writes, and locks of folders."""

import errno
import json
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from cyclestyle.errors import CycleStyleError, DataError

UNFINISHED = ".unfinished-"
"""Prefix of the names of temporary files. A process that is killed leaves its temporary file behind."""

MAX_LINE = 2**20
"""Length in bytes of the longest line that `append_line` recognises as incomplete."""

_ABANDONED_AFTER = 24 * 3600  # seconds after which a temporary file of another machine counts as left behind


@contextmanager
def atomic_write(path: Path, *, sync: bool = False) -> Iterator[IO[Any]]:
    """Open a binary file for an atomic write: it gets the name `path` when the block ends without an error.

    The data is written to a hidden temporary file in the same folder, which is then renamed. A reader never sees an
    incomplete file, and a crash never leaves one at `path`. The folder is created if it does not exist.

    Args:
        path: the final path; an existing file is replaced.
        sync: wait until the data is on the disk, so that it also survives a power failure.

    Raises:
        OSError: the folder cannot be written, or the disk is full; an existing file at `path` is unchanged.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = unfinished_name("")
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=prefix, suffix=path.suffix, delete=False) as file:
            temporary = Path(file.name)
            yield file
            if sync:
                file.flush()
                _sync(file)
        with suppress(OSError):  # file systems without modes, such as drives of Windows, may refuse
            os.chmod(temporary, 0o666 & ~_umask())  # temporary files are created with mode 0600
        temporary.replace(path)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _sync(file: IO[Any]) -> None:
    try:
        os.fsync(file.fileno())
    except OSError as error:  # some network folders do not have it
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise


def write_file(path: Path, content: str | bytes) -> None:
    """Write a whole file atomically.

    Raises:
        CycleStyleError: the folder cannot be written, or the disk is full; `path` is as it was.
    """
    try:
        with atomic_write(path) as file:
            file.write(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise CycleStyleError(f"cannot write {path}: {error.strerror or error}") from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; see `write_file`."""
    write_file(path, json.dumps(content, indent=2) + "\n")


def append_line(path: Path, line: str) -> None:
    """Append a whole line to a file, or nothing; several processes may do so at the same time.

    An incomplete line at the end of the file, which a power failure may leave, is replaced.

    Raises:
        OSError: the file cannot be written, or the disk is full; it is as it was.
    """
    with path.open("a+b", buffering=0) as file, _locked_file(file):
        end = file.seek(0, os.SEEK_END)
        last = max(0, end - MAX_LINE)
        file.seek(last)
        tail = file.read(end - last)
        end -= len(tail) - (tail.rfind(b"\n") + 1)
        file.truncate(end)
        content = line.encode() + b"\n"
        try:
            written = file.write(content)
        except OSError:
            file.truncate(end)
            raise
        if written != len(content):  # the disk is full
            file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _locked_file(file: IO[Any]) -> Iterator[None]:
    """Hold the lock of an open file for a moment; nothing is locked where there are no locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
    except (ImportError, OSError):
        pass
    yield  # closing the file releases the lock


def cache_folder() -> Path:
    """Return the folder for what is kept between commands and can be made again; it may not exist yet.

    It is what `CYCLESTYLE_CACHE` names, else `cyclestyle` in `XDG_CACHE_HOME`, or in `~/.cache`.
    """
    if chosen := os.environ.get("CYCLESTYLE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cyclestyle"


def unfinished_name(name: str) -> str:
    """Return the name of a temporary file, which tells the machine and the process that it belongs to."""
    return f"{UNFINISHED}{_machine()}-{os.getpid()}-{name}"


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files in `folder` that killed processes left behind; those of live processes stay."""
    for path in folder.glob(f"{UNFINISHED}*"):
        if _abandoned(path):
            path.unlink(missing_ok=True)


def _abandoned(path: Path) -> bool:
    owner = re.match(rf"{re.escape(UNFINISHED)}(.+?)-(\d+)-", path.name)
    if owner is None:
        return True  # of an earlier version, which did not name the process
    if owner[1] != _machine():
        with suppress(FileNotFoundError):
            return time.time() - path.stat().st_mtime > _ABANDONED_AFTER
        return False
    return int(owner[2]) != os.getpid() and not _is_running(int(owner[2]))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _machine() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, so that no other process works in it at the same time.

    The system releases the lock when the process ends, also if it is killed. Where the file system knows no locks,
    nothing is locked.

    Raises:
        CycleStyleError: another process holds the lock.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    path = folder / ".lock"
    while True:
        with path.open("a+") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                file.seek(0)
                owner = file.read().strip() or "its name is unknown"
                raise CycleStyleError(
                    f"another process is working in {folder} ({owner}); wait for it, stop it, or choose another folder"
                ) from error
            except OSError:  # this file system has no locks
                yield
                return
            if not _is_same_file(file, path):
                continue  # its owner has just released and removed it
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_same_file(file: IO[Any], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def checked_input(word: str | Path) -> str | Path:
    """Return the name of an image or a folder of images, which must exist.

    Raises:
        DataError: it does not.
    """
    if not str(word):
        raise DataError("an input is empty; name an image or a folder of images")
    if not os.path.lexists(word):
        raise DataError(f"input {word} does not exist; expected an image or a folder of images")
    return word
