"""One LightningModule a method."""

from cyclestyle.tasks.cyclegan import CycleGAN
from cyclestyle.tasks.gram import GramStyle
from cyclestyle.tasks.translation import PaintsInStyle, Translation

__all__ = ["CycleGAN", "GramStyle", "PaintsInStyle", "Translation"]
