"""What happens around training: callbacks, loggers, and the pages of a run."""

from cyclestyle.training.callbacks.alarms import Alarms
from cyclestyle.training.callbacks.best_checkpoint import BestCheckpoint
from cyclestyle.training.callbacks.discriminators import DiscriminatorAccuracy
from cyclestyle.training.callbacks.ema import EMAGenerators
from cyclestyle.training.callbacks.evaluation import Evaluation
from cyclestyle.training.callbacks.finite import FiniteNumbers
from cyclestyle.training.callbacks.last_checkpoint import AtomicCheckpointIO, LastCheckpoint
from cyclestyle.training.callbacks.monitors import Monitors
from cyclestyle.training.callbacks.progress import ProgressBar
from cyclestyle.training.callbacks.sample_grid import SampleGrid
from cyclestyle.training.callbacks.save_config import SaveConfig
from cyclestyle.training.callbacks.speed import Speed
from cyclestyle.training.loggers.csv_log import CSVLogger
from cyclestyle.training.loggers.trackers import MLFlowLogger, TensorBoardLogger, WandbLogger
from cyclestyle.training.pages.report import TestReport
from cyclestyle.training.pages.run_page import RunPage

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
