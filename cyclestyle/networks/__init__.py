"""Networks as plain `nn.Module`s, and weight initialisation."""

from cyclestyle.networks.discriminators import PatchDiscriminator, PixelDiscriminator, build_discriminator
from cyclestyle.networks.generators import ResNetGenerator, UNetGenerator, build_generator
from cyclestyle.networks.initialisation import initialise
from cyclestyle.networks.patches import PatchMLP

__all__ = [
    "PatchDiscriminator",
    "PatchMLP",
    "PixelDiscriminator",
    "ResNetGenerator",
    "UNetGenerator",
    "build_discriminator",
    "build_generator",
    "initialise",
]
