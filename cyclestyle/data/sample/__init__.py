"""The procedural sample domains: photo-like and painting-like images, generated from a seed."""

from cyclestyle.data.sample.photo import take_photo
from cyclestyle.data.sample.scene import draw_scene
from cyclestyle.data.sample.writer import sample_image, write_samples

__all__ = ["draw_scene", "sample_image", "take_photo", "write_samples"]
