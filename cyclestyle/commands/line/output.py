"""Standard output and error that go on where nobody reads them."""

import errno
import io
import os
import select
import sys
from typing import Any, TextIO

from cyclestyle.errors import CycleStyleError

_NO_READER = (errno.EPIPE, errno.EIO)  # of a pipe, and of a terminal that was closed


def keep_output_going() -> None:
    """Let the process work on when its output cannot be written, or when it was started without standard streams.

    Without its reader (`| head -1`, a killed `tee`, a closed terminal) the rest of the output is dropped. A standard
    stream that is closed, as in some daemons, becomes the null device, so that no other file gets its number, which
    libraries write to.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    sys.stdout = tolerant(sys.stdout, 1)
    sys.stderr = tolerant(sys.stderr, 2)


def lost_output() -> str:
    """Return why output was lost although it has a reader, such as a full disk; empty if it was not."""
    error = _error()
    return "" if error in (0, *_NO_READER) else os.strerror(error)


def write_result(content: bytes) -> None:
    """Write a result, such as an image, to standard output; other than lines about the work, it may not get lost.

    Raises:
        CycleStyleError: it cannot be written.
    """
    sys.stdout.buffer.write(content)
    if error := _error():
        raise CycleStyleError(f"the result could not be written to standard output: {os.strerror(error)}")


def _error() -> int:
    """The number of the error by which standard output was lost; 0 if it was not."""
    sys.stdout.flush()
    file = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return file.error if isinstance(file, _Output) else 0


def tolerant(stream: TextIO | None, number: int) -> TextIO:
    """Return a stream to the same file that drops what cannot be written, and replaces what cannot be encoded.

    Args:
        stream: a stream whose encoding and buffering are taken over; None if there is none.
        number: the descriptor of the file; it becomes the null device when a write fails.
    """
    if stream is not None:
        stream.flush()
    file = _Output(number)
    return io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=stream.encoding if stream is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=file.isatty() or number == 2,
    )


class _Output(io.FileIO):
    """A file that becomes the null device when it can no longer be written.

    Attributes:
        error: the number of the error by which it was lost; 0 if it was not.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self.error = 0

    def write(self, content: Any, /) -> int:
        try:
            while (written := super().write(content)) is None:  # the reader is slower, and nobody waits for it yet
                select.select([], [self.fileno()], [])
            return written
        except OSError as error:
            self.error = error.errno or errno.EIO
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return len(content)
