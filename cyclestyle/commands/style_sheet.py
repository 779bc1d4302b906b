"""A sheet of one photo in all styles of a network."""

from collections.abc import Sequence
from pathlib import Path

from cyclestyle.commands.line.process import ensure_writable_file
from cyclestyle.errors import CycleStyleError
from cyclestyle.images import format_of, read_image, to_image, to_tensor, write_image
from cyclestyle.report import labelled_sheet
from cyclestyle.translation.engine import Engine

SIDE = 320
"""Pixels of a cell."""
COLUMNS = 5


def check_style_sheet(engine: Engine, inputs: Sequence[str], path: Path) -> None:
    """Check, before the work starts, that a sheet can be made.

    Raises:
        CycleStyleError: the method has one style, there is not one photo, or the file cannot be written.
    """
    if not engine.method.style_names:
        raise CycleStyleError("--sheet is for networks of many styles, such as --ckpt_path styles; leave it out")
    if len(inputs) != 1 or not Path(inputs[0]).is_file():
        raise CycleStyleError("--sheet shows one photo; name one with --input")
    ensure_writable_file(path)
    if format_of(path) is None:
        raise CycleStyleError(f"images are not written as {path.suffix or path.name}; name the sheet sheet.png")


def write_style_sheet(engine: Engine, photo: Path, path: Path) -> None:
    """Paint a photo in each style of a method, and write all on one image with their names.

    Args:
        engine: a method that has learnt several styles; it keeps the last of them.
        photo: the photo.
        path: the file of the sheet.

    Raises:
        ImageError: the photo cannot be read.
    """
    image = read_image(photo)
    cells = [("photo", image.copy())]
    pixels = to_tensor(image)[None].to(engine.device)
    for name in engine.method.style_names:
        engine.method.use_styles([name])
        cells.append((name.replace("_", " "), to_image(engine(pixels)[0])))
    for _, cell in cells:
        cell.thumbnail((SIDE, SIDE))
    write_image(labelled_sheet(cells, COLUMNS), path)
    print(f"sheet: {path}")
