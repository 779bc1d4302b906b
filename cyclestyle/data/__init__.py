"""Images from folders: datasets, sampler, datamodules, and the procedural sample domains."""

from cyclestyle.data.datamodule import UnpairedImages
from cyclestyle.data.photos import Photos

__all__ = ["Photos", "UnpairedImages"]
