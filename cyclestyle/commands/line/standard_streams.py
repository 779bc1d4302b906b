"""An image from standard input, and one to standard output."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from cyclestyle.commands.line.output import write_result
from cyclestyle.errors import CycleStyleError, ImageError
from cyclestyle.images import Format, content_format, target_format

STREAM = "-"
"""What the standard streams are called on a command line."""


@contextmanager
def as_files(inputs: list[str], output: str | None, form: Format | None) -> Iterator[tuple[list[str], str | None]]:
    """Give files in place of standard input and output, which are copied from and to them.

    While the output is a stream, everything else that is printed goes to standard error.

    Args:
        inputs: the inputs of a command, of which `-` is standard input.
        output: its output; `-` is standard output.
        form: format of the result; None for that of the input.

    Raises:
        CycleStyleError: `-` is one of several inputs, or standard output gets more than one image.
        ImageError: standard input is no image.
    """
    if STREAM in inputs and len(inputs) > 1:
        raise CycleStyleError("--input - is one image from standard input; leave the other inputs out")
    if output == STREAM and inputs != [STREAM] and not (len(inputs) == 1 and Path(inputs[0]).is_file()):
        raise CycleStyleError("--output - is one image to standard output; name one image with --input")
    if STREAM not in (*inputs, output):
        yield inputs, output
        return
    with tempfile.TemporaryDirectory(prefix="cyclestyle-") as folder:
        if STREAM in inputs:
            inputs = [str(_received(Path(folder)))]
        if output != STREAM:
            yield inputs, output
            return
        chosen = form or target_format(Path(inputs[0]))[0]
        target = Path(folder) / f"result{chosen.endings[0]}"
        with redirect_stdout(sys.stderr):
            yield inputs, str(target)
        if target.is_file():
            write_result(target.read_bytes())


def _received(folder: Path) -> Path:
    """Write standard input into a file without an ending, so that its content tells its format."""
    path = folder / "standard input"
    path.write_bytes(sys.stdin.buffer.read())
    if content_format(path) is None:
        raise ImageError("standard input is no image in a known format")
    return path
