"""A self-contained HTML page: tables, curves, images."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from cyclestyle.files import atomic_write
from cyclestyle.report.assets import SCRIPT, STYLE

Curve = Sequence[tuple[float, float]]

WIDTH, HEIGHT, MARGIN = 640, 220, 44  # of a diagram, in units of its own
COLOURS = ("#1f5fa8", "#c2491d", "#2f7d32", "#7a3e9d", "#8a6d00", "#00777a")


class Page:
    """Collects parts and writes them as one file.

    Args:
        title: what the page is about.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = [f"<h1>{escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], *, sortable: bool = False) -> None:
        """Add a table; the first column names its rows.

        Args:
            header: a name for each column.
            rows: as many cells each.
            sortable: the header's cells are buttons that sort the rows, upwards first. Cells that begin with a number,
                as "1,234 MB" and "1.3 ± 0.2" do, go by it, so a column keeps to one unit. They stand before words;
                "–", "nan" and "" stand last in both directions.
        """
        head = "".join(f'<th scope="col">{_sorter(cell) if sortable else escape(cell)}</th>' for cell in header)
        body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
        self._parts.append(
            f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )

    def curves(self, title: str, curves: dict[str, Curve]) -> None:
        """Draw curves over the same axis in one diagram; empty ones are left out."""
        curves = {name: points for name, points in curves.items() if points}
        if curves:
            self._parts.append(f"<figure>{_diagram(curves)}<figcaption>{escape(title)}</figcaption></figure>")

    def images(self, captioned: Sequence[tuple[str, Image.Image]]) -> None:
        """Add images side by side, each with its caption."""
        self._parts.append(f'<div class="row">{"".join(_figure(text, image) for text, image in captioned)}</div>')

    def flip_through(self, captioned: Sequence[tuple[str, Image.Image]]) -> None:
        """Add images that lie one upon the other, and a slider that leafs through them; the last is on top."""
        if not captioned:
            return
        last = len(captioned) - 1
        slider = f'<input type="range" min="0" max="{last}" value="{last}" aria-label="leaf through {len(captioned)}">'
        figures = "".join(_figure(text, image) for text, image in captioned)
        self._parts.append(f'<div class="flip">{slider}{figures}</div>')

    def before_after(self, before: tuple[str, Image.Image], after: Sequence[tuple[str, Image.Image]]) -> None:
        """Add a photo and what methods make of it; in each result an edge moves, left of which the photo shows.

        Args:
            before: the photo's caption, and the photo, which the page holds once.
            after: each method's name and its result, stretched to the photo's size; none adds nothing.
        """
        if not after:
            return
        caption, photo = before
        results = "".join(_over(caption, method, result) for method, result in after)
        self._parts.append(
            f'<figure class="compare"><figcaption>{escape(caption)}</figcaption>{_image(caption, photo)}'
            f'<div class="grid">{results}</div></figure>'
        )

    def write(self, path: Path) -> None:
        """Write the page, whole or not at all.

        Raises:
            OSError: the folder cannot be written.
        """
        with atomic_write(path) as file:
            file.write(self.html().encode())

    def html(self) -> str:
        """The whole page."""
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(self.title)}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
            f"<style>{STYLE}</style></head><body>{''.join(self._parts)}<script>{SCRIPT}</script></body></html>\n"
        )


def _sorter(text: str) -> str:
    label = "" if text.strip() else ' aria-label="rows"'  # a column of names often has no heading
    return f'<button type="button"{label}>{escape(text)}</button>'


def _cells(row: Sequence[str]) -> str:
    names = (f'<th scope="row">{escape(cell)}</th>' for cell in row[:1])
    glued = (escape(cell).replace(" ± ", "\u00a0±\u00a0") for cell in row[1:])  # no line ends within a figure
    return "".join(names) + "".join(f"<td>{cell}</td>" for cell in glued)


def _image(description: str, image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(description)}" {size}>'


def _figure(caption: str, image: Image.Image) -> str:
    return f"<figure>{_image(caption, image)}<figcaption>{escape(caption)}</figcaption></figure>"


def _over(photo: str, method: str, result: Image.Image) -> str:
    """A result, to which the script adds the photo, and the slider that moves the edge between them."""
    label = escape(f"edge between {photo} and {method}")
    return (
        f'<figure><div class="box">{_image(f"{photo}, {method}", result)}</div>'
        f'<input type="range" min="0" max="100" value="50" aria-label="{label}">'
        f"<figcaption>{escape(method)}</figcaption></figure>"
    )


def _diagram(curves: dict[str, Curve]) -> str:
    """Curves, their axes' ends, and a legend, as SVG."""
    points = [point for curve in curves.values() for point in curve]
    (left, right), (low, high) = ((min(axis), max(axis)) for axis in zip(*points, strict=True))
    across, up = (right - left) or 1.0, (high - low) or 1.0

    def place(point: tuple[float, float]) -> str:
        x = MARGIN + (point[0] - left) / across * (WIDTH - 2 * MARGIN)
        y = HEIGHT - MARGIN - (point[1] - low) / up * (HEIGHT - 2 * MARGIN)
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<rect x="{MARGIN}" y="{MARGIN}" width="{WIDTH - 2 * MARGIN}" height="{HEIGHT - 2 * MARGIN}" fill="none" '
        'stroke="currentColor" stroke-opacity=".3"/>',
        f'<text x="2" y="{MARGIN + 4}">{high:.3g}</text><text x="2" y="{HEIGHT - MARGIN}">{low:.3g}</text>',
        f'<text x="{MARGIN}" y="{HEIGHT - MARGIN + 16}">step {left:g}</text>',
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - MARGIN + 16}" text-anchor="end">{right:g}</text>',
    ]
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(place(point) for point in curve)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        x = MARGIN + number * (WIDTH - 2 * MARGIN) / len(curves)
        parts.append(f'<text x="{x:.0f}" y="{MARGIN - 10}" style="fill:{colour}">{escape(name)}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'
