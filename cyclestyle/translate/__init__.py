"""From a checkpoint to pictures."""

from cyclestyle.translate.translator import Direction, Translator

__all__ = ["Direction", "Translator"]
