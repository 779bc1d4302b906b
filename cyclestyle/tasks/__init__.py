"""One LightningModule a method."""

from cyclestyle.tasks.autoencoder import AutoencoderStyle
from cyclestyle.tasks.cyclegan import CycleGAN
from cyclestyle.tasks.fast_style import FastStyle
from cyclestyle.tasks.gram import GramStyle
from cyclestyle.tasks.translation import PaintsInStyle, Translation

__all__ = ["AutoencoderStyle", "CycleGAN", "FastStyle", "GramStyle", "PaintsInStyle", "Translation"]
