"""One page, and one sheet, that show several methods' results on the same photos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from cyclestyle.images import read_image
from cyclestyle.report.page import Page

SIDE = 512  # pixels that an image on the page has at most
CELL = 256  # pixels of a cell of the sheet at most
HEAD = 20  # pixels of its captions

HEADER = ("", "style ↓", "KID ↓", "content ↓", "s / image", "memory, MB", "training, min")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured of a method; nothing where it could not be."""

    name: str
    style: float
    content: float
    kid: float | None = None
    kid_std: float | None = None
    seconds: float | None = None
    memory: int | None = None
    training_seconds: float | None = None

    def cells(self) -> list[str]:
        """The row of the table, in the units of `HEADER`."""
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
    """Build the page: the table, and each photo under every method's result.

    Args:
        rows: of the table.
        photos: by name.
        results: each method's images, by the photos' names.
        paintings: some of the painting domain, to be shown.
        notes: what the figures rest on.
    """
    page = Page("Comparison")
    page.table(HEADER, [row.cells() for row in rows], sortable=True)
    for note in notes:
        page.text(note)
    page.heading("Paintings of the domain")
    page.images([(path.name, _opened(path, CELL)) for path in paintings])
    page.heading("Photos and results")
    for name, photo in photos.items():
        after = [(method, _opened(images[name], SIDE)) for method, images in results.items()]
        page.before_after((name, _opened(photo, SIDE)), after)
    return page


def comparison_sheet(photos: Mapping[str, Path], results: Mapping[str, Mapping[str, Path]]) -> Image.Image:
    """An image with a row a photo: the photo, and each method's result."""
    columns = {"photo": photos, **results}
    cells = {method: [_opened(images[name], CELL) for name in photos] for method, images in columns.items()}
    side = max(max(cell.size) for column in cells.values() for cell in column)
    sheet = Image.new("RGB", (side * len(columns), HEAD + side * len(photos)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (method, images) in enumerate(cells.items()):
        draw.text((side * column + 4, 4), method, fill="black")
        for row, cell in enumerate(images):
            sheet.paste(cell, (side * column + (side - cell.width) // 2, HEAD + side * row + (side - cell.height) // 2))
    return sheet


def _opened(path: Path, side: int) -> Image.Image:
    shown = read_image(path)
    shown.thumbnail((side, side))
    return shown
