"""One LightningModule a method."""

from cyclestyle.tasks.cyclegan import CycleGAN

__all__ = ["CycleGAN"]
