"""Finding images in folders."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cyclestyle.errors import DataError, ImageError
from cyclestyle.images import EXTENSIONS, read_image, read_size


def find_images(folder: Path) -> list[Path]:
    """Find all images in `folder` and its subfolders; hidden files and folders are left out.

    Symbolic links to folders are followed, and each folder is read once. Images are recognised by their extension.

    Returns:
        The paths, sorted by their path relative to `folder`, so that the order does not depend on the file system.

    Raises:
        DataError: the folder does not exist, cannot be read, or contains no images.
    """
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {problem}; expected a folder of images")
    found: list[Path] = []
    seen: set[Path] = set()
    for parent, subfolders, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = Path(parent).resolve()
        subfolders[:] = [] if real in seen else [name for name in subfolders if not name.startswith(".")]
        if real in seen:
            continue
        seen.add(real)
        found += [Path(parent, name) for name in files if _is_image_name(name)]
    if not found:
        extensions = ", ".join(sorted(EXTENSIONS))
        raise DataError(f"{folder} contains no images; known extensions are {extensions}")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def find_images_in(folders: Sequence[Path]) -> list[Path]:
    """Find the images of several folders, in the order of the folders; see `find_images`."""
    return [path for folder in folders for path in find_images(folder)]


def check_images(paths: Sequence[Path], *, decode: bool) -> dict[Path, str]:
    """Find files that are not images.

    Args:
        paths: files to check.
        decode: decode all pixels, which also finds truncated files; otherwise only the header is read.

    Returns:
        The error message of each file that cannot be read.
    """

    def problem(path: Path) -> str | None:
        try:
            if decode:
                read_image(path)
            else:
                read_size(path)
        except ImageError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:  # decoders release the GIL
        return {path: text for path, text in zip(paths, pool.map(problem, paths), strict=True) if text}


def _is_image_name(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS


def _raise(error: OSError) -> None:
    raise DataError(f"cannot read {error.filename}: {error.strerror}") from error
