"""Draws the sheet at the top of the README: the photographs of the package, painted by models of the package.

python scripts/styles_sheet.py --output docs/styles.jpg --beside monet --styles starry_night wave the_scream
"""

import argparse
from pathlib import Path

import cyclestyle
from cyclestyle import Translator
from cyclestyle.images import read_image, write_image
from cyclestyle.report import labelled_sheet

PHOTOS = Path(cyclestyle.__file__).parent / "data" / "photos"


def main() -> None:
    """Paint each photograph in each style; one row for each photograph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--ckpt_path", default="styles")
    parser.add_argument("--styles", nargs="+", help="names; default all")
    parser.add_argument("--beside", nargs="+", default=[], help="models of one style, whose paintings come first")
    parser.add_argument("--photos", nargs="+", type=Path, default=sorted(PHOTOS.glob("*.jpg")))
    parser.add_argument("--columns", type=int, help="cells in a row; default one row for each photo")
    parser.add_argument("--side", type=int, default=240, help="pixels of a cell")
    options = parser.parse_args()
    translate = Translator.load(options.ckpt_path)
    beside = {name: Translator.load(name) for name in options.beside}
    styles = options.styles or translate.method.style_names
    cells = []
    for photo in options.photos:
        cells.append(("photo", read_image(photo)))
        cells.extend((name, paint(photo)) for name, paint in beside.items())
        for style in styles:
            translate.method.use_styles([style])
            cells.append((style.replace("_", " "), translate(photo)))
    for _, cell in cells:
        cell.thumbnail((options.side, options.side))
    write_image(labelled_sheet(cells, options.columns or len(styles) + len(beside) + 1), options.output, quality=80)


if __name__ == "__main__":
    main()
