"""Pictures from folders: data sets, sampler, datamodule, and the procedural sample domains."""

from cyclestyle.data.datamodule import UnpairedImages

__all__ = ["UnpairedImages"]
