"""Masks: grey images that say which part of an image is meant, white inside."""

import glob
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cyclestyle.errors import ImageError
from cyclestyle.images.files import read_image
from cyclestyle.images.formats import EXTENSIONS
from cyclestyle.images.pixels import to_tensor


def find_mask(mask: Path, image: Path, root: Path) -> Path:
    """Return the file of the mask of an image.

    Args:
        mask: a mask for all images, or a folder of masks with the names of the images and any extension. They are
            looked up first in the subfolder that corresponds to that of the image below `root`, then in the folder.
        image: path of the image.
        root: folder of all images.

    Raises:
        ImageError: the folder has no mask for the image.
    """
    if not mask.is_dir():
        return mask
    for folder in (mask / image.parent.relative_to(root), mask):
        for path in sorted(folder.glob(f"{glob.escape(image.stem)}.*")):
            if path.stem == image.stem and path.suffix.lower() in EXTENSIONS:
                return path
    raise ImageError(f"{mask} contains no mask {image.stem}.png for {image}")


def read_mask(mask: Path, image: Path, size: Sequence[int]) -> Tensor:
    """Read the mask of an image of a height and width.

    Returns:
        The mask, `(H, W)` in [0, 1], 1 where it is white.

    Raises:
        ImageError: the mask is not an image, has an alpha channel or several images, or another size than the image.
    """
    _check_plain(mask)
    read = to_tensor(read_image(mask, 1))[0]
    if read.shape != tuple(size):
        (height, width), (mask_height, mask_width) = size, read.shape
        raise ImageError(
            f"the mask {mask} is {mask_width}×{mask_height}, but {image} is {width}×{height}; make them equal"
        )
    return (read + 1) / 2


def _check_plain(mask: Path) -> None:
    """Refuse masks of which only a part would be read: what shows through alpha, and images after the first."""
    try:
        with Image.open(mask) as opened:
            if (images := getattr(opened, "n_frames", 1)) > 1:
                raise ImageError(f"the mask {mask} has {images} images; save one of them")
            if opened.has_transparency_data:
                raise ImageError(f"the mask {mask} has an alpha channel; save it as a grey image, white inside")
    except OSError:
        return  # of another format, or missing, which reading it says


def feathered(mask: Tensor, pixels: int) -> Tensor:
    """Return a mask `(H, W)` in [0, 1] with a soft border, which lies inside: what was 0 stays 0.

    At the distance d from the border (the larger of those across and down) the mask is d / (`pixels` + 1), at most 1.
    It ends at the border of the image without getting softer there.
    """
    eroded, total = mask[None], mask[None].clone()
    for _ in range(pixels):
        eroded = -F.max_pool2d(-eroded, 3, stride=1, padding=1)
        total += eroded
    return (total / (pixels + 1))[0]


def check_not_empty(mask: Tensor, names: Sequence[Path], image: Path) -> None:
    """Check that a mask `(H, W)` in [0, 1] has a part that is more white than black.

    Raises:
        ImageError: it has none.
    """
    highest = round(255 * float(torch.as_tensor(mask).max()))
    if highest < 128:
        raise ImageError(
            f"nothing of {image} is inside the mask {', '.join(map(str, names))}, whose brightest level is {highest} "
            "of 255; make white what is to change"
        )
