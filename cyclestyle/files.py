"""Atomic writes."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cyclestyle.errors import CycleStyleError

UNFINISHED = ".unfinished-"
"""Prefix of the names of temporary files. A process that is killed leaves its temporary file behind."""


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
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=UNFINISHED, suffix=path.suffix, delete=False) as file:
            temporary = Path(file.name)
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # temporary files are created with mode 0600
        temporary.replace(path)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


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


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files in `folder` that killed processes left behind."""
    for path in folder.glob(f"{UNFINISHED}*"):
        path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
