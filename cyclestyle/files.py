"""Writing files whole or not at all."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cyclestyle.errors import CycleStyleError

UNFINISHED = ".unfinished-"
"""What the temporary names begin with. A process that is killed leaves its own behind."""


@contextmanager
def atomic_write(path: Path, *, sync: bool = False) -> Iterator[IO[Any]]:
    """Open a binary file that takes the name `path` when the block ends without an error.

    It is written under a temporary, hidden name in the same folder and then renamed, so that no reader and
    no crash ever meets half of it. The folder is made where it is missing.

    Args:
        path: the final name; what lies there is replaced.
        sync: wait until the disk has it, so that it also survives a power cut.

    Raises:
        OSError: the folder cannot be written, or the disk is full; `path` is as it was.
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
        os.chmod(temporary, 0o666 & ~_umask())  # temporary files are private; results are not
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
    """Remove what processes left in `folder` that were killed while they wrote."""
    for path in folder.glob(f"{UNFINISHED}*"):
        path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
