"""Methods: one file each, on the contract of `Task`."""

from cyclestyle.networks.method import Direction
from cyclestyle.tasks.autoencoder import Autoencoder
from cyclestyle.tasks.base import Batch, Task
from cyclestyle.tasks.content_gan import ContentGAN
from cyclestyle.tasks.cut import CUT
from cyclestyle.tasks.cyclegan import CycleGAN
from cyclestyle.tasks.dclgan import DCLGAN
from cyclestyle.tasks.gatys import Gatys
from cyclestyle.tasks.johnson import Johnson
from cyclestyle.tasks.load import load

__all__ = [
    "CUT",
    "DCLGAN",
    "Autoencoder",
    "Batch",
    "ContentGAN",
    "CycleGAN",
    "Direction",
    "Gatys",
    "Johnson",
    "Task",
    "load",
]
