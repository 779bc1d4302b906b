"""A sheet of one photo in all styles of a network."""

from collections.abc import Sequence
from pathlib import Path

import torch

from cyclestyle.commands.process import ensure_writable_file
from cyclestyle.errors import CycleStyleError
from cyclestyle.images import format_of, read_image, to_image, to_tensor, write_image
from cyclestyle.report import labelled_sheet
from cyclestyle.tasks import Task

SIDE = 320
"""Pixels of a cell."""
COLUMNS = 5


def check_style_sheet(task: Task, inputs: Sequence[str], path: Path) -> None:
    """Check, before the work starts, that a sheet can be made.

    Raises:
        CycleStyleError: the task has one style, there is not one photo, or the file cannot be written.
    """
    if not task.style_names:
        raise CycleStyleError("--sheet is for networks of many styles, such as --ckpt_path styles; leave it out")
    if len(inputs) != 1 or not Path(inputs[0]).is_file():
        raise CycleStyleError("--sheet shows one photo; name one with --input")
    ensure_writable_file(path)
    if format_of(path) is None:
        raise CycleStyleError(f"images are not written as {path.suffix or path.name}; name the sheet sheet.png")


@torch.inference_mode()
def write_style_sheet(task: Task, photo: Path, path: Path) -> None:
    """Paint a photo in each style of a task, and write all on one image with their names.

    Args:
        task: a method that has learnt several styles; it keeps the last of them.
        photo: the photo.
        path: the file of the sheet.

    Raises:
        ImageError: the photo cannot be read.
    """
    image = read_image(photo)
    cells = [("photo", image.copy())]
    pixels = to_tensor(image)[None].to(task.device)
    for name in task.style_names:
        task.use_styles([name])
        cells.append((name.replace("_", " "), to_image(task.translate_any_size(pixels)[0])))
    for _, cell in cells:
        cell.thumbnail((SIDE, SIDE))
    write_image(labelled_sheet(cells, COLUMNS), path)
    print(f"sheet: {path}")
