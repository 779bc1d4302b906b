"""The procedural sample domains: photo-like and painting-like images, generated from a seed."""

from cyclestyle.data.sample.writer import sample_image, write_samples

__all__ = ["sample_image", "write_samples"]
