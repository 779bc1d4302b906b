"""Errors that a user can cause and fix; the command line prints each as one line without a traceback."""

import errno
from importlib import import_module
from typing import Any

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Numbers of the errors of a disk, not of a program."""


class CycleStyleError(Exception):
    """An error in a path, a config, an image or a checkpoint; the message names the cause and the fix.

    Attributes:
        status: the exit status of the command line.
    """

    status = 1


class ImageError(CycleStyleError):
    """A file that cannot be read as an image, or an image that cannot be written."""


class DiskError(CycleStyleError):
    """A disk that is full, broken or read-only: the next file would fail too."""


class DataError(CycleStyleError):
    """A folder of images that is missing, empty or not in the expected layout."""


class CheckpointError(CycleStyleError):
    """A file that cannot be used as a checkpoint, or a checkpoint that cannot be written."""


class DivergedError(CycleStyleError):
    """Training produced values that are not finite."""


class StoppedError(CycleStyleError):
    """A signal stopped the run. A checkpoint was saved, but the run is not complete."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


def optional(module: str, purpose: str, extra: str) -> Any:
    """Import a module of a package that is not always installed.

    Args:
        module: its name.
        purpose: what needs it, such as `an ONNX file`.
        extra: the extra of this package that installs it.

    Raises:
        CycleStyleError: the package is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise
        raise CycleStyleError(
            f'{purpose} needs {package}: pip install {package}, or pip install ".[{extra}]" in the clone of cyclestyle'
        ) from error
