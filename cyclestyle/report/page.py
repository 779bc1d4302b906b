"""A self-contained HTML page: tables, curves, images."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from itertools import cycle
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from cyclestyle.files import atomic_write
from cyclestyle.report.diagram import COLOURS, Curve, draw_curves
from cyclestyle.report.parts import (
    BeforeAfter,
    Details,
    Diagram,
    Facts,
    FlipThrough,
    Heading,
    ImageRow,
    ImageSource,
    Items,
    PageImage,
    Paragraph,
    Part,
    Strips,
    Table,
)

__all__ = ["Curve", "ImageSource", "Page"]

CaptionedImage = tuple[str, Image.Image | ImageSource]
"""An image, which is embedded as JPEG, or where to find it."""


class Page:
    """Collects parts and renders them into one HTML file that needs no network.

    Args:
        title: title of the page, also its first heading.
        reload_seconds: seconds after which a browser loads the page again; None: it does not.
    """

    def __init__(self, title: str, *, reload_seconds: int | None = None) -> None:
        self.title = title
        self.reload_seconds = reload_seconds
        self._parts: list[Part] = []

    def heading(self, text: str) -> None:
        """Start a section."""
        self._parts.append(Heading(text))

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(Paragraph(text))

    def facts(self, facts: Mapping[str, str | datetime]) -> None:
        """Add names with one value each; times must have a time zone."""
        self._parts.append(Facts({name: _in_utc(value) for name, value in facts.items()}))

    def details(self, summary: str, text: str) -> None:
        """Add a text, such as a file, that a click on its summary unfolds."""
        self._parts.append(Details(summary, text))

    def items(self, texts: Sequence[str]) -> None:
        """Add a list; an empty one is not added."""
        if texts:
            self._parts.append(Items(texts))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], *, sortable: bool = False) -> None:
        """Add a table; the first column contains the names of the rows.

        Args:
            header: name of each column.
            rows: cells of each row, as many as the header has, at least one.
            sortable: make each header cell a button that sorts the rows, first in ascending order. Cells that start
                with a number, such as "1,234 MB" and "1.3 ± 0.2", are compared by that number, so all cells of a
                column need the same unit. Numbers come before text; "–", "n/a" and "" come last in both orders.
        """
        # No-break spaces keep "1.3 ± 0.2" on one line.
        cells = [[*row[:1], *(cell.replace(" ± ", "\u00a0±\u00a0") for cell in row[1:])] for row in rows]
        self._parts.append(Table(header, cells, sortable))

    def curves(
        self, title: str, curves: Mapping[str, Curve], *, x_label: str = "step", y_label: str | None = None
    ) -> None:
        """Add a diagram of curves; empty curves are left out, and a diagram without curves is not added.

        Args:
            title: caption of the diagram.
            curves: points `(x, y)` of each curve, by its name in the legend.
            x_label: label of the horizontal axis.
            y_label: label of the vertical axis, with its unit; the title by default.
        """
        curves = {name: points for name, points in curves.items() if points}
        if not curves:
            return
        id_prefix = f"diagram{sum(isinstance(part, Diagram) for part in self._parts)}-"
        svg = draw_curves(curves, x_label=x_label, y_label=y_label or title, id_prefix=id_prefix)
        self._parts.append(Diagram(title, svg, list(zip(curves, cycle(COLOURS), strict=False))))

    def images(self, captioned: Sequence[CaptionedImage]) -> None:
        """Add images side by side, each with its caption."""
        self._parts.append(ImageRow(_encode(captioned)))

    def strips(self, legend: Sequence[str], captioned: Sequence[CaptionedImage]) -> None:
        """Add strips, each of which consists of images of equal width side by side.

        Args:
            legend: names of the images of a strip, from left to right; they stand above each strip.
            captioned: caption of each strip, and the strip.
        """
        if captioned:
            self._parts.append(Strips(legend, _encode(captioned)))

    def flip_through(self, captioned: Sequence[CaptionedImage]) -> None:
        """Add a stack of images with a slider that selects one; the last is visible at first."""
        if captioned:
            self._parts.append(FlipThrough(_encode(captioned)))

    def before_after(self, before: CaptionedImage, after: Sequence[CaptionedImage]) -> None:
        """Add a photo and its results; in each result a movable edge separates the photo (left) from the result.

        Args:
            before: caption of the photo and the photo, which is stored once in the file.
            after: name of each method and its result, stretched to the size of the photo; if empty, nothing is added.
        """
        if after:
            self._parts.append(BeforeAfter(_encode([before])[0], _encode(after)))

    def write(self, path: Path) -> None:
        """Write the page in one atomic step.

        Raises:
            OSError: the folder cannot be written.
        """
        with atomic_write(path) as file:
            file.write(self.html().encode())

    def html(self) -> str:
        """Return the whole page."""
        template = _environment().get_template("page.html")
        return template.render(
            title=self.title,
            reload_seconds=self.reload_seconds,
            parts=self._parts,
            css=_static("page.css"),
            script=_static("page.js"),
        )


def _encode(captioned: Sequence[CaptionedImage]) -> list[PageImage]:
    return [
        PageImage(caption, image if isinstance(image, ImageSource) else ImageSource.embed(image))
        for caption, image in captioned
    ]


def _in_utc(value: str | datetime) -> str | datetime:
    return value.astimezone(UTC) if isinstance(value, datetime) else value


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("cyclestyle.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@cache
def _static(name: str) -> Markup:
    """Read a file of `static/`, which is trusted and not escaped."""
    return Markup((resources.files("cyclestyle.report") / "static" / name).read_text(encoding="utf-8"))
