"""From a checkpoint to pictures."""

from cyclestyle.translate.checkpoints import Direction
from cyclestyle.translate.translator import Translator

__all__ = ["Direction", "Translator"]
