"""How close a translation comes to a picture or a domain."""

from cyclestyle.metrics.texture import texture_distance

__all__ = ["texture_distance"]
