"""Methods: one file each, on the contract of `Task`."""

from cyclestyle.tasks.autoencoder import Autoencoder
from cyclestyle.tasks.base import Batch, Direction, Task
from cyclestyle.tasks.cut import CUT
from cyclestyle.tasks.cyclegan import CycleGAN
from cyclestyle.tasks.dclgan import DCLGAN
from cyclestyle.tasks.exported import Exported
from cyclestyle.tasks.gatys import Gatys
from cyclestyle.tasks.generator_only import GeneratorOnly
from cyclestyle.tasks.johnson import Johnson
from cyclestyle.tasks.load import Averaging, load
from cyclestyle.tasks.translator import Translator

__all__ = [
    "CUT",
    "DCLGAN",
    "Autoencoder",
    "Averaging",
    "Batch",
    "CycleGAN",
    "Direction",
    "Exported",
    "Gatys",
    "GeneratorOnly",
    "Johnson",
    "Task",
    "Translator",
    "load",
]
