"""From a checkpoint to pictures."""

from cyclestyle.translate.generators import Direction
from cyclestyle.translate.translator import Translator

__all__ = ["Direction", "Translator"]
