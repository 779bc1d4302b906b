"""Finding images in folders."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from cyclestyle.errors import DataError, ImageError
from cyclestyle.images import (
    EXTENSIONS,
    content_format,
    is_out_of_range,
    is_video,
    read_header,
    read_values,
)


@dataclass
class Listing:
    """What is in a folder and its subfolders.

    Attributes:
        images: the images, sorted by their path relative to the folder, so that the order does not depend on the file
            system.
        videos: the videos, sorted in the same way.
        others: the files that are neither, and hidden files and folders.
        unreadable: the error message of each subfolder that cannot be read.
    """

    images: list[Path] = field(default_factory=list)
    videos: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)


def list_folder(folder: Path) -> Listing:
    """List the images and videos in `folder` and its subfolders; hidden files and folders are left out.

    Symbolic links to folders are followed, and each folder is read once. Files are recognised by their ending, which
    opens none. Only files without an ending are opened, to see whether they are images.

    Raises:
        DataError: the folder does not exist.
    """
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {problem}; expected a folder of images")
    listing = Listing()

    def note(error: OSError) -> None:
        listing.unreadable[Path(str(error.filename))] = f"cannot read {error.filename}: {error.strerror}"

    seen: set[str] = set()
    for parent, subfolders, files in os.walk(folder, followlinks=True, onerror=note):
        real = os.path.realpath(parent)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        here = Path(parent)  # parsed once, which takes longer than reading the folder
        listing.others += [here / name for name in subfolders if name.startswith(".")]
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            _add(listing, here / name)
    listing.images.sort(key=Path.as_posix)
    listing.videos.sort(key=Path.as_posix)
    return listing


def find_images(folder: Path) -> list[Path]:
    """Find all images in `folder` and its subfolders; see `list_folder`.

    Raises:
        DataError: the folder does not exist, it or a subfolder cannot be read, or it contains no images.
    """
    listing = list_folder(folder)
    if listing.unreadable:
        raise DataError(next(iter(listing.unreadable.values())))
    if not listing.images:
        raise DataError(f"{folder} contains no images{_named(listing.others + listing.videos)}")
    return listing.images


def find_images_in(folders: Sequence[Path]) -> list[Path]:
    """Find the images of several folders, in the order of the folders; see `find_images`."""
    return [path for folder in folders for path in find_images(folder)]


def hold_out(images: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Split the images of a folder that comes without held-out ones.

    The hash of its name decides on each image, so that images that are added later hardly change the split.

    Args:
        images: their files.

    Returns:
        The images to train with, and a tenth to evaluate with: at least 2, at most 100, in the given order.

    Raises:
        DataError: there are fewer than 4 images.
    """
    if len(images) < 4:
        raise DataError(
            f"{images[0].parent} has {len(images)} images, too few to hold some out for evaluation; add images, name a "
            "test folder, or train without validation: --trainer.limit_val_batches 0"
        )
    count = min(max(2, len(images) // 10), 100)
    held = set(
        sorted(images, key=lambda path: hashlib.sha256(path.name.encode(errors="surrogateescape")).digest())[:count]
    )
    return [path for path in images if path not in held], [path for path in images if path in held]


MAX_HEADERS = 2000
"""Files whose headers are read before a training starts; others are found to be no images when they are used."""


@dataclass
class Checked:
    """What is known of files before they are used.

    Attributes:
        opened: number of files that were opened.
        bad: the error message of each file that cannot be read.
        several: files with several images or pages, of which training uses the first.
        cut: files with values outside of the range of their type.
    """

    opened: int = 0
    bad: dict[Path, str] = field(default_factory=dict)
    several: list[Path] = field(default_factory=list)
    cut: list[Path] = field(default_factory=list)

    def losses(self) -> list[str]:
        """Return a line about each kind of files that training does not use as they are."""
        kinds = {
            "several images or pages, of which the first is used": self.several,
            "values outside of 0 to 1 (0 to 65535 for integers), which become black or white": self.cut,
        }
        return [
            f"{kind}, in {len(files)} of {self.opened} files: {name_some(files)}"
            for kind, files in kinds.items()
            if files
        ]


def check_images(paths: Sequence[Path], *, decode: bool, by_type: bool = True) -> Checked:
    """Find files that are not images, or of which something is lost, by their headers.

    Args:
        paths: files to check.
        decode: decode all pixels of all files, which also finds truncated ones; otherwise the headers of at most
            `MAX_HEADERS` are read, and with `by_type` files of numbers are decoded.
        by_type: whether each file is read with the range of its type, outside of which values are cut.
    """
    if not decode:
        paths = paths[:: -(-len(paths) // MAX_HEADERS) or 1]  # spread over all folders
    checked = Checked(opened=len(paths))

    def check(path: Path) -> None:
        try:
            header = read_header(path)
            cut = by_type and header.numbers and is_out_of_range(path)
            if decode:
                read_values(path)
        except ImageError as error:
            checked.bad[path] = str(error)
            return
        for files, concerned in ((checked.several, header.frames > 1), (checked.cut, cut)):
            if concerned:
                files.append(path)

    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:  # decoders release the GIL
        list(pool.map(check, paths))
    checked.bad = {path: checked.bad[path] for path in paths if path in checked.bad}  # in the order of the files
    return checked


def name_some(paths: Sequence[Path], *, limit: int = 5) -> str:
    """Return the names of the first files, and how many more there are: `a.txt, b.mp4 and 7 more`."""
    names = sorted(os.fsencode(path.name).decode(errors="replace") for path in paths)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _named(others: Sequence[Path]) -> str:
    return f"; it has {name_some(others)}" if others else ""


def _add(listing: Listing, path: Path) -> None:
    suffix = path.suffix.lower()
    if path.name.startswith("."):
        listing.others.append(path)
    elif suffix in EXTENSIONS or (not suffix and path.is_file() and content_format(path) is not None):
        listing.images.append(path)
    elif is_video(path):
        listing.videos.append(path)
    else:
        listing.others.append(path)
