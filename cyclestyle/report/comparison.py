"""A page and an image that compare the results of several methods on the same photos."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cyclestyle.images import read_image
from cyclestyle.report.page import Page

SIDE = 512  # maximum side of an image on the page, pixels
CELL = 256  # maximum side of a cell of the sheet, pixels
HEAD = 20  # height of the header of the sheet, pixels
GAP = 6  # pixels between labelled images


def comparison_page(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    photos: Mapping[str, Path],
    results: Mapping[str, Mapping[str, Path]],
    *,
    paintings: Sequence[Path],
    notes: Sequence[str],
) -> Page:
    """Build the page: the table, and each photo beside the result of every method.

    Args:
        header: headings of the table.
        rows: cells of the table, one row for each method.
        photos: paths of the photos by name.
        results: paths of the results by method, then by the name of the photo.
        paintings: paths of example images of the painting domain.
        notes: paragraphs below the table, such as how the figures were measured.
    """
    page = Page("Comparison")
    page.table(header, rows, sortable=True)
    for note in notes:
        page.text(note)
    page.heading("Paintings of the domain")
    page.images([(path.name, _thumbnail(path, CELL)) for path in paintings])
    page.heading("Photos and results")
    for name, photo in photos.items():
        after = [(method, _thumbnail(images[name], SIDE)) for method, images in results.items()]
        page.before_after((name, _thumbnail(photo, SIDE)), after)
    return page


def comparison_sheet(photos: Mapping[str, Path], results: Mapping[str, Mapping[str, Path]]) -> Image.Image:
    """Build an image with one row for each photo: the photo and the result of each method."""
    columns = {"photo": photos, **results}
    cells = {method: [_thumbnail(images[name], CELL) for name in photos] for method, images in columns.items()}
    side = max(max(cell.size) for column in cells.values() for cell in column)
    sheet = Image.new("RGB", (side * len(columns), HEAD + side * len(photos)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (method, images) in enumerate(cells.items()):
        draw.text((side * column + 4, 4), method, fill="black")
        for row, cell in enumerate(images):
            sheet.paste(cell, (side * column + (side - cell.width) // 2, HEAD + side * row + (side - cell.height) // 2))
    return sheet


def labelled_sheet(cells: Sequence[tuple[str, Image.Image]], columns: int) -> Image.Image:
    """Build an image of cells with a label below each, such as one photo in many styles.

    Args:
        cells: labels and images.
        columns: cells in a row.
    """
    side = max(image.width for _, image in cells)
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(image.height for _, image in row) + HEAD + GAP for row in rows]
    sheet = Image.new("RGB", (columns * (side + GAP) + GAP, sum(heights) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(HEAD - 6)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, (label, image) in enumerate(row):
            left = GAP + column * (side + GAP)
            sheet.paste(image, (left + (side - image.width) // 2, top))
            draw.text((left + side // 2, top + height - GAP - HEAD // 2), label, fill="black", font=font, anchor="mm")
        top += height
    return sheet


def _thumbnail(path: Path, side: int) -> Image.Image:
    image = read_image(path)
    image.thumbnail((side, side))
    return image
