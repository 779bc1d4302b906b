"""What lies beside the images of two domains: their masks, and the list of those that show the same."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from cyclestyle.errors import DataError, ImageError
from cyclestyle.images import find_mask, read_size
from cyclestyle.images.folders import name_some


def find_masks(name: str, folder: Path, images: Mapping[Path, Path]) -> list[Path]:
    """Return the mask of each image.

    Args:
        name: of the option, such as `data.masks_A`.
        folder: where the masks are; see `find_mask`.
        images: the folder that each image was found in, by the image.

    Raises:
        DataError: the folder does not exist, or images have no mask, or one of another size.
        ImageError: an image or a mask cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{name} {folder} is not a folder; name one with a mask for each image, of the same name")
    masks, missing = [], []
    for image, root in images.items():
        try:
            masks.append(find_mask(folder, image, root))
        except ImageError:
            missing.append(image)
    if missing:
        raise DataError(f"{name} {folder} has no mask for {len(missing)} of {len(images)} images: {name_some(missing)}")
    for image, mask in zip(images, masks, strict=True):
        (width, height), (mask_width, mask_height) = read_size(image), read_size(mask)
        if (width, height) != (mask_width, mask_height):
            raise DataError(
                f"the mask {mask} is {mask_width}×{mask_height}, but {image} is {width}×{height}; make them equal"
            )
    return masks


def find_pairs(wanted: str, images_A: Mapping[Path, Path], images_B: Mapping[Path, Path]) -> list[tuple[Path, Path]]:
    """Return the images of A and B that show the same: of a file all, also of other splits.

    Args:
        wanted: `names`, for images of equal names, without their endings, in equal subfolders; or a CSV file with an
            image of A and one of B in each line, relative to the file, or absolute.
        images_A: the images of A in a split, with the folder that each was found in.
        images_B: those of B.

    Raises:
        DataError: the file cannot be read, a line has not two entries or names a file that does not exist, or there
            are no pairs.
    """
    if wanted == "names":
        named = {_relative(path, root): path for path, root in images_B.items()}
        return [(path, named[name]) for path, root in images_A.items() if (name := _relative(path, root)) in named]
    try:
        reader = csv.reader(Path(wanted).read_text(encoding="utf-8-sig").splitlines())
        rows = [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise DataError(f"cannot read data.pairs {wanted}: {error.strerror}; name a CSV file, or names") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"data.pairs {wanted} is no CSV file in UTF-8; save it as one") from error
    known = {path.resolve(): path for path in (*images_A, *images_B)}
    pairs = []
    for number, row in rows:
        if len(row) != 2:
            raise DataError(f"{wanted}, line {number}: expected an image of A and one of B, got {','.join(row)}")
        files = [(Path(wanted).parent / cell.strip()).resolve() for cell in row]
        for file in files:
            if not file.is_file():
                raise DataError(f"{wanted}, line {number}: {file} does not exist")
        pairs.append((known.get(files[0], files[0]), known.get(files[1], files[1])))
    if not pairs:
        raise DataError(f"{wanted} has no lines; expected an image of A and one of B in each")
    return pairs


def pairs_of(
    pairs: Sequence[tuple[Path, Path]], paths_A: Sequence[Path], paths_B: Sequence[Path]
) -> list[tuple[int, int]]:
    """Return the numbers of both images, of the pairs whose images are both in a split."""
    A, B = ({path: number for number, path in enumerate(paths)} for paths in (paths_A, paths_B))
    return [(A[first], B[second]) for first, second in pairs if first in A and second in B]


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).with_suffix("").as_posix()
