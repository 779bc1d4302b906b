"""The errors that a user can cause and mend; the command line shows each as one line without a traceback."""


class CycleStyleError(Exception):
    """A mistake in a path, a config, an image or a checkpoint; the message names the thing and the remedy.

    Attributes:
        status: the exit status of the command line.
    """

    status = 1


class ImageError(CycleStyleError):
    """A file that cannot be read as an image, or an image that cannot be written."""


class DataError(CycleStyleError):
    """A folder of images that is missing, empty or not in the expected layout."""


class CheckpointError(CycleStyleError):
    """A file that is not a usable checkpoint."""


class DivergedError(CycleStyleError):
    """Training produced numbers that are not finite."""


class StoppedError(CycleStyleError):
    """A signal stopped the run, which was saved; no mistake, but the run is not done."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status
