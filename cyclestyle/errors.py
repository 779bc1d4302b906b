"""Errors that a user can cause and fix; the command line prints each as one line without a traceback."""

import errno

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
