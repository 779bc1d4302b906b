"""A page and an image that compare the results of several methods on the same photos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from cyclestyle.images import read_image
from cyclestyle.report.page import Page

SIDE = 512  # maximum side of an image on the page, pixels
CELL = 256  # maximum side of a cell of the sheet, pixels
HEAD = 20  # height of the header of the sheet, pixels

HEADER = ("", "style ↓", "KID ↓", "content ↓", "s / image", "memory, MB", "training, min")


@dataclass(frozen=True, kw_only=True)
class Row:
    """Measurements of one method; None where there is no measurement."""

    name: str
    style: float
    content: float
    kid: float | None = None
    kid_std: float | None = None
    seconds: float | None = None
    memory: int | None = None
    training_seconds: float | None = None

    def cells(self) -> list[str]:
        """Return the cells of the table row, in the units of `HEADER`."""
        kid = "–" if self.kid is None else f"{self.kid:.4g} ± {self.kid_std:.2g}"
        return [
            self.name,
            f"{self.style:.4g}",
            kid,
            f"{self.content:.3f}",
            "–" if self.seconds is None else f"{self.seconds:.3g}",
            "–" if self.memory is None else f"{self.memory / 1e6:.0f}",
            "–" if self.training_seconds is None else f"{self.training_seconds / 60:.1f}",
        ]


def comparison_page(
    rows: Sequence[Row],
    photos: Mapping[str, Path],
    results: Mapping[str, Mapping[str, Path]],
    *,
    paintings: Sequence[Path],
    notes: Sequence[str],
) -> Page:
    """Build the page: the table, and each photo beside the result of every method.

    Args:
        rows: measurements, one row for each method.
        photos: paths of the photos by name.
        results: paths of the results by method, then by the name of the photo.
        paintings: paths of example images of the painting domain.
        notes: paragraphs below the table, such as how the figures were measured.
    """
    page = Page("Comparison")
    page.table(HEADER, [row.cells() for row in rows], sortable=True)
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


def _thumbnail(path: Path, side: int) -> Image.Image:
    image = read_image(path)
    image.thumbnail((side, side))
    return image
