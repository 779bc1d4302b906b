"""Finding images in folders."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cyclestyle.errors import DataError, ImageError
from cyclestyle.images import EXTENSIONS, read_image, read_size


def find_images(folder: Path) -> list[Path]:
    """Return every image below `folder`, sorted by its path; hidden files and folders are left out.

    Links to folders are followed once. The order does not depend on the file system.

    Raises:
        DataError: the folder is missing, cannot be read, or holds no image.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}; expected a folder of images")
    found: list[Path] = []
    seen: set[Path] = set()
    for where, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        real = Path(where).resolve()
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        if real in seen:
            continue
        seen.add(real)
        found += [Path(where, name) for name in files if _is_image_name(name)]
    if not found:
        endings = ", ".join(sorted(EXTENSIONS))
        raise DataError(f"{folder} holds no image; known endings are {endings}")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def find_images_in(folders: Sequence[Path]) -> list[Path]:
    """Return the images of several folders, one folder after the other; see `find_images`."""
    return [path for folder in folders for path in find_images(folder)]


def check_images(paths: Sequence[Path], *, whole: bool) -> dict[Path, str]:
    """Return what is wrong with each file that is no image.

    Args:
        paths: files to look at.
        whole: decode every pixel, which also finds truncated files, rather than read the header alone.
    """

    def problem(path: Path) -> str | None:
        try:
            if whole:
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


def _refuse(error: OSError) -> None:
    raise DataError(f"cannot read {error.filename}: {error.strerror}") from error
