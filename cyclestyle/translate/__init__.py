"""From a checkpoint to images."""

from cyclestyle.translate.generators import Averaging, Direction
from cyclestyle.translate.translator import Translator

__all__ = ["Averaging", "Direction", "Translator"]
