"""How close a translation comes to an image or a domain."""

from cyclestyle.metrics.distances import (
    SetDistance,
    content_distance,
    mean_gram,
    set_distance,
    structure_distance,
    style_distance,
)
from cyclestyle.metrics.features import Extractor, ExtractorName, build_extractor
from cyclestyle.metrics.texture import texture_distance

__all__ = [
    "Extractor",
    "ExtractorName",
    "SetDistance",
    "build_extractor",
    "content_distance",
    "mean_gram",
    "set_distance",
    "structure_distance",
    "style_distance",
    "texture_distance",
]
