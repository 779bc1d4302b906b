"""The procedural sample domains: photo-like and painting-like images, generated from a seed."""

from cyclestyle.data.sample.photo import take_photo
from cyclestyle.data.sample.scene import draw_scene
from cyclestyle.data.sample.writer import write_samples

__all__ = ["draw_scene", "take_photo", "write_samples"]
