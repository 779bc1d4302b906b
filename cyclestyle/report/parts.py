"""The parts of a page; `templates/parts.html` has a macro for each class."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup
from PIL import Image


@dataclass(frozen=True)
class EmbeddedImage:
    """An image with its caption, encoded as JPEG in a `data:` URI."""

    caption: str
    data_uri: str
    width: int
    height: int

    @classmethod
    def encode(cls, caption: str, image: Image.Image) -> "EmbeddedImage":
        """Encode an image of any mode as an RGB JPEG."""
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=88)
        data = base64.b64encode(buffer.getvalue()).decode()
        return cls(caption, f"data:image/jpeg;base64,{data}", image.width, image.height)


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
class Table:
    """A table whose first column contains the names of the rows."""

    macro: ClassVar[str] = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    sortable: bool


@dataclass(frozen=True)
class Diagram:
    """Curves as inline SVG."""

    macro: ClassVar[str] = "diagram"
    title: str
    svg: Markup


@dataclass(frozen=True)
class ImageRow:
    """Images side by side."""

    macro: ClassVar[str] = "image_row"
    images: Sequence[EmbeddedImage]


@dataclass(frozen=True)
class FlipThrough:
    """A stack of images with a slider that selects the visible one."""

    macro: ClassVar[str] = "flip_through"
    images: Sequence[EmbeddedImage]


@dataclass(frozen=True)
class BeforeAfter:
    """A photo and its results, each with a movable edge between the two."""

    macro: ClassVar[str] = "before_after"
    before: EmbeddedImage
    after: Sequence[EmbeddedImage]


Part = Heading | Paragraph | Table | Diagram | ImageRow | FlipThrough | BeforeAfter
