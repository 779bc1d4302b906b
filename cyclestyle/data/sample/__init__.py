"""The embedded sample domains: photo-like and painting-like images drawn from code and a seed alone."""

from cyclestyle.data.sample.writer import write_samples

__all__ = ["write_samples"]
