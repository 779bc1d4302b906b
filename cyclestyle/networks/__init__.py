"""Networks as plain `nn.Module`s, and weight initialisation."""

from cyclestyle.networks.discriminators import (
    PatchDiscriminator,
    PixelDiscriminator,
    build_discriminator,
    build_discriminators,
)
from cyclestyle.networks.generators import ResNetGenerator, UNetGenerator, build_generator
from cyclestyle.networks.initialisation import initialise
from cyclestyle.networks.patches import PatchMLP
from cyclestyle.networks.projected import ProjectedDiscriminator

__all__ = [
    "PatchDiscriminator",
    "PatchMLP",
    "PixelDiscriminator",
    "ProjectedDiscriminator",
    "ResNetGenerator",
    "UNetGenerator",
    "build_discriminator",
    "build_discriminators",
    "build_generator",
    "initialise",
]
