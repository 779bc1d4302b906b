"""One LightningModule a method."""

from cyclestyle.tasks.cyclegan import CycleGAN
from cyclestyle.tasks.translation import Translation

__all__ = ["CycleGAN", "Translation"]
