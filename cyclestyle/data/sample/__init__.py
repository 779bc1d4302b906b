"""The procedural sample domains: photo-like and painting-like images, generated from a seed."""

from cyclestyle.data.sample.writer import write_samples

__all__ = ["write_samples"]
