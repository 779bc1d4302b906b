"""What happens beside training: checkpoints, grids, progress, speed, loggers, and the pictures of `predict`."""

from cyclestyle.callbacks.alarms import Alarms
from cyclestyle.callbacks.ema import EMAGenerators
from cyclestyle.callbacks.evaluation import Evaluation
from cyclestyle.callbacks.finite import FiniteNumbers
from cyclestyle.callbacks.last_checkpoint import LastCheckpoint, WholeCheckpointIO
from cyclestyle.callbacks.loggers import CSVLogger, SaveConfig, WandbLogger
from cyclestyle.callbacks.progress import PaintingProgress, ProgressBar
from cyclestyle.callbacks.report import TestReport
from cyclestyle.callbacks.sample_grid import SampleGrid
from cyclestyle.callbacks.speed import Speed
from cyclestyle.callbacks.writer import PictureWriter

__all__ = [
    "Alarms",
    "CSVLogger",
    "EMAGenerators",
    "Evaluation",
    "FiniteNumbers",
    "LastCheckpoint",
    "PaintingProgress",
    "PictureWriter",
    "ProgressBar",
    "SampleGrid",
    "SaveConfig",
    "Speed",
    "TestReport",
    "WandbLogger",
    "WholeCheckpointIO",
]
