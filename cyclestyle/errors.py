"""The errors that a user can cause and mend; the command line shows each as one line without a traceback."""


class CycleStyleError(Exception):
    """A mistake in a path, a config, a picture or a checkpoint; the message names the thing and the remedy."""


class ImageError(CycleStyleError):
    """A file that cannot be read as a picture, or a picture that cannot be written."""


class DataError(CycleStyleError):
    """A folder of pictures that is missing, empty or not in the expected layout."""


class CheckpointError(CycleStyleError):
    """A file that is not a usable checkpoint."""
