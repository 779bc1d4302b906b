"""The parts of a page; `templates/parts.html` has a macro for each class."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from markupsafe import Markup
from PIL import Image


@dataclass(frozen=True)
class ImageSource:
    """Where the browser finds an image: a `data:` URI, or a path relative to the page."""

    uri: str
    width: int
    height: int

    @classmethod
    def embed(cls, image: Image.Image) -> "ImageSource":
        """Encode an image of any mode as an RGB JPEG in a `data:` URI."""
        return cls._encoded(image, "JPEG", quality=88)

    @classmethod
    def embed_small(cls, image: Image.Image) -> "ImageSource":
        """Encode an image as WebP, smaller than a JPEG, for pages with hundreds of images."""
        return cls._encoded(image, "WebP", quality=70, method=2)

    @classmethod
    def _encoded(cls, image: Image.Image, format: str, **options: int) -> "ImageSource":
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, format, **options)
        data = base64.b64encode(buffer.getvalue()).decode()
        return cls(f"data:image/{format.lower()};base64,{data}", image.width, image.height)


@dataclass(frozen=True)
class PageImage:
    """An image with its caption."""

    caption: str
    source: ImageSource


@dataclass(frozen=True)
class Heading:
    """The heading of a section."""

    macro: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    macro: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Facts:
    """Names with one value each. A time is shown in UTC, and by the script also as the time since then."""

    macro: ClassVar[str] = "facts"
    facts: Mapping[str, str | datetime]


@dataclass(frozen=True)
class Details:
    """A text, such as a file, that a click on its summary unfolds."""

    macro: ClassVar[str] = "details"
    summary: str
    text: str


@dataclass(frozen=True)
class Items:
    """A list."""

    macro: ClassVar[str] = "items"
    texts: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table whose first column contains the names of the rows."""

    macro: ClassVar[str] = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    sortable: bool


@dataclass(frozen=True)
class Diagram:
    """Curves as inline SVG, and for each of them its name and colour, which wrap on a narrow screen."""

    macro: ClassVar[str] = "diagram"
    title: str
    svg: Markup
    legend: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class ImageRow:
    """Images side by side."""

    macro: ClassVar[str] = "image_row"
    images: Sequence[PageImage]


@dataclass(frozen=True)
class Strips:
    """Strips of images of equal width, with the name of each image above it."""

    macro: ClassVar[str] = "strips"
    legend: Sequence[str]
    strips: Sequence[PageImage]


@dataclass(frozen=True)
class FlipThrough:
    """A stack of images with a slider that selects the visible one."""

    macro: ClassVar[str] = "flip_through"
    images: Sequence[PageImage]


@dataclass(frozen=True)
class BeforeAfter:
    """A photo and its results, each with a movable edge between the two."""

    macro: ClassVar[str] = "before_after"
    before: PageImage
    after: Sequence[PageImage]


Part = Heading | Paragraph | Facts | Details | Items | Table | Diagram | ImageRow | Strips | FlipThrough | BeforeAfter
