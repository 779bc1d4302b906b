"""Callbacks and loggers: checkpoints, evaluation, image grids, progress, speed, and the output of `predict`."""

from cyclestyle.callbacks.alarms import Alarms
from cyclestyle.callbacks.best_checkpoint import BestCheckpoint
from cyclestyle.callbacks.discriminators import DiscriminatorAccuracy
from cyclestyle.callbacks.ema import EMAGenerators
from cyclestyle.callbacks.evaluation import Evaluation
from cyclestyle.callbacks.finite import FiniteNumbers
from cyclestyle.callbacks.last_checkpoint import AtomicCheckpointIO, LastCheckpoint
from cyclestyle.callbacks.loggers import CSVLogger, WandbLogger
from cyclestyle.callbacks.monitors import Monitors
from cyclestyle.callbacks.other_loggers import MLFlowLogger, TensorBoardLogger
from cyclestyle.callbacks.progress import ProgressBar
from cyclestyle.callbacks.report import TestReport
from cyclestyle.callbacks.run_page import RunPage
from cyclestyle.callbacks.sample_grid import SampleGrid
from cyclestyle.callbacks.save_config import SaveConfig
from cyclestyle.callbacks.speed import Speed

__all__ = [
    "Alarms",
    "AtomicCheckpointIO",
    "BestCheckpoint",
    "CSVLogger",
    "DiscriminatorAccuracy",
    "EMAGenerators",
    "Evaluation",
    "FiniteNumbers",
    "LastCheckpoint",
    "MLFlowLogger",
    "Monitors",
    "ProgressBar",
    "RunPage",
    "SampleGrid",
    "SaveConfig",
    "Speed",
    "TensorBoardLogger",
    "TestReport",
    "WandbLogger",
]
