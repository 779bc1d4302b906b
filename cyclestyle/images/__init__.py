"""Image input and output: file ↔ PIL image ↔ tensor `(C, H, W)` in [-1, 1]."""

from cyclestyle.images.files import (
    Frame,
    Header,
    ImageFile,
    content_format,
    finish,
    read_header,
    read_image,
    read_size,
    target_format,
    write_frames,
    write_image,
)
from cyclestyle.images.formats import (
    EXTENSIONS,
    FORMATS,
    FRAMES,
    PNG,
    WRITTEN,
    Format,
    format_named,
    format_of,
)
from cyclestyle.images.pixels import MODES, as_rgb, convert, to_image, to_tensor
from cyclestyle.images.source import Source, split_alpha, take_apart, to_pil, with_channels

__all__ = [
    "EXTENSIONS",
    "FORMATS",
    "FRAMES",
    "MODES",
    "PNG",
    "WRITTEN",
    "Format",
    "Frame",
    "Header",
    "ImageFile",
    "Source",
    "as_rgb",
    "content_format",
    "convert",
    "finish",
    "format_named",
    "format_of",
    "read_header",
    "read_image",
    "read_size",
    "split_alpha",
    "take_apart",
    "target_format",
    "to_image",
    "to_pil",
    "to_tensor",
    "with_channels",
    "write_frames",
    "write_image",
]
