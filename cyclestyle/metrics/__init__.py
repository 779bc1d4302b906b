"""Metrics of translations: distances to an image and to a set of images."""

from cyclestyle.metrics.checkerboard import checkerboard, checkerboard_spectrum
from cyclestyle.metrics.distances import (
    SetDistance,
    content_distance,
    kid_interval,
    mean_gram,
    set_distance,
    structure_distance,
    style_distance,
)
from cyclestyle.metrics.features import Extractor, ExtractorName, build_extractor
from cyclestyle.metrics.flicker import flicker
from cyclestyle.metrics.probe import Probe, held_out_shares
from cyclestyle.metrics.table import (
    METRICS,
    ImageName,
    Metric,
    columns,
    embed,
    finite,
    mean,
    measure_domains,
    measure_images,
    measure_sets,
    summarise,
)
from cyclestyle.metrics.texture import texture_distance

__all__ = [
    "METRICS",
    "Extractor",
    "ExtractorName",
    "ImageName",
    "Metric",
    "Probe",
    "SetDistance",
    "build_extractor",
    "checkerboard",
    "checkerboard_spectrum",
    "columns",
    "content_distance",
    "embed",
    "finite",
    "flicker",
    "held_out_shares",
    "kid_interval",
    "mean",
    "mean_gram",
    "measure_domains",
    "measure_images",
    "measure_sets",
    "set_distance",
    "structure_distance",
    "style_distance",
    "summarise",
    "texture_distance",
]
