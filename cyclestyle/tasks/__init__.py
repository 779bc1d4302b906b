"""One LightningModule a method."""

from cyclestyle.tasks.autoencoder import Autoencoder
from cyclestyle.tasks.cyclegan import CycleGAN
from cyclestyle.tasks.gatys import Gatys
from cyclestyle.tasks.johnson import Johnson
from cyclestyle.tasks.translation import PaintsInStyle, Translation

__all__ = ["Autoencoder", "CycleGAN", "Gatys", "Johnson", "PaintsInStyle", "Translation"]
