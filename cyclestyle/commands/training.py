"""`fit`, `validate` and `test`: LightningCLI with the run's folder, checkpoints, grids and progress wired up."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities import rank_zero_only

import cyclestyle.data
import cyclestyle.tasks  # noqa: F401  # imported so that short class names resolve
from cyclestyle.callbacks import ProgressBar, SampleGrid, SaveConfig, Speed
from cyclestyle.commands.common import Parser, check_configs, ensure_writable, one_line, one_line_errors, quiet
from cyclestyle.errors import CycleStyleError
from cyclestyle.translate.checkpoints import read_checkpoint

KEYWORDS = ("last", "best", "hpc")  # what Lightning finds by itself in the run's folder


def run(name: str, args: Sequence[str]) -> int:
    """Run `fit`, `validate` or `test`."""
    quiet()
    check_configs(args)
    with one_line_errors():
        TrainingCLI(
            pl.LightningModule,
            pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=Parser,
            parser_kwargs={"prog": "cyclestyle"},
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"callbacks": [Speed()]},
            args=[name, *args],
        )
    return 0


class TrainingCLI(LightningCLI):
    """LightningCLI for training: `trainer.default_root_dir` is the run's folder, and everything lands in it."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """`predict` is a command of its own, because it needs neither a model nor a datamodule config."""
        return {name: skip for name, skip in LightningCLI.subcommands().items() if name != "predict"}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks that every run has, each configurable under a short name of its own."""
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(ModelCheckpoint, "best")
        parser.add_lightning_class_args(SampleGrid, "grid")
        parser.add_lightning_class_args(ProgressBar, "progress")
        parser.set_defaults(
            {
                "trainer.default_root_dir": "runs/cyclestyle",
                "trainer.logger": {"class_path": "cyclestyle.callbacks.CSVLogger"},
                "checkpoint.save_last": True,
                "checkpoint.save_top_k": 0,
                "checkpoint.save_on_train_epoch_end": True,
                "checkpoint.enable_version_counter": False,
                "best.filename": "best",
                "best.monitor": "val/cycle",
                "best.enable_version_counter": False,
            }
        )
        for key in ("checkpoint.dirpath", "best.dirpath"):
            parser.link_arguments("trainer.default_root_dir", key, compute_fn=_checkpoints)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and read the checkpoint once so that one of another kind is refused in a line."""
        super().parse_arguments(parser, args)
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path and path not in KEYWORDS and "state_dict" not in read_checkpoint(Path(path)):
            raise CycleStyleError(f"{path} is no checkpoint of a training run; only predict takes bare weights")

    def before_instantiate_classes(self) -> None:
        """Give loggers the run's folder, and the trainer the epochs that the task's schedule has."""
        config = self.config[self.config.subcommand]
        root = config.trainer.default_root_dir
        loggers = config.trainer.logger if isinstance(config.trainer.logger, list) else [config.trainer.logger]
        for logger in loggers:
            settings = logger.get("init_args") if hasattr(logger, "get") else None
            if settings is not None and "save_dir" in settings and settings.save_dir is None:
                # What `validate` and `test` log stands beside the training log, not in it.
                settings.save_dir = root if self.subcommand == "fit" else str(Path(root) / str(self.subcommand))
        if config.trainer.limit_val_batches == 0:
            config.best.save_top_k = 0  # there is nothing to tell which one is best
        if config.trainer.enable_progress_bar is False:  # Lightning refuses this beside a bar of one's own
            config.trainer.enable_progress_bar, config.progress.refresh_rate = None, 0
        for name in ("channels_A", "channels_B"):
            model, data = (config[part].get("init_args", {}).get(name) for part in ("model", "data"))
            if model is not None and data is not None and model != data:
                raise CycleStyleError(f"model.{name} is {model} and data.{name} is {data}; set both to the same number")
        schedule = config.model.get("init_args", {})
        if config.trainer.max_epochs is None and config.trainer.max_steps == -1 and "decay_epochs" in schedule:
            config.trainer.max_epochs = schedule["constant_epochs"] + schedule["decay_epochs"]

    def instantiate_classes(self) -> None:
        """Build the task, the data and the trainer; what they refuse is a mistake in the config."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise CycleStyleError(one_line(str(error))) from error

    def before_fit(self) -> None:
        """Refuse to start a second run in a folder that holds one, before anything in it is touched."""
        config = self.config["fit"]
        root = Path(config.trainer.default_root_dir)
        ensure_writable(root)
        if config.ckpt_path is None and not config.trainer.fast_dev_run and not os.environ.get("SLURM_JOB_ID"):
            _refuse_second_run(root)
        # Lightning cannot know that this project's sampler resumes inside an epoch by itself.
        warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch")


def _checkpoints(root: str) -> str:
    return str(Path(root) / "checkpoints")


@rank_zero_only
def _refuse_second_run(root: Path) -> None:
    if any(Path(_checkpoints(str(root))).glob("*.ckpt")):
        raise CycleStyleError(
            f"{root} holds a run already; resume it with --ckpt_path last, "
            "or choose another folder with --trainer.default_root_dir"
        )
