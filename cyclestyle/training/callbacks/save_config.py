"""Writes the complete config of a run to its folder."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from jsonargparse import Namespace
from pytorch_lightning.cli import SaveConfigCallback

from cyclestyle.files import write_file
from cyclestyle.training.loggers.csv_log import CSVLogger


class SaveConfig(SaveConfigCallback):
    """Writes the complete config to `<run>/config.yaml`, and logs it as hyperparameters.

    Args:
        chosen: the config as the user chose it, which is what is written. What is derived from it, such as the number
            of epochs from the schedule, is derived again from a file in which a setting was changed.
        options: those of Lightning: the parser, and the config with what is derived, which is what is logged.
    """

    def __init__(self, *options: Any, chosen: Namespace, **more: Any) -> None:
        super().__init__(*options, **more)
        self.chosen = chosen

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the config without the paths of this run, so that it can be used for another run.

        `test` and `validate` do not write a config.
        """
        if stage != "fit" or self.already_saved or not trainer.is_global_zero:
            return
        self.config = self.config.clone()
        for config in (self.config, self.chosen):
            config.ckpt_path = None
        self.chosen.seed_everything = self.config.seed_everything  # `true` draws one
        loggers = self.chosen.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            settings = logger.get("init_args") if hasattr(logger, "get") else None
            if settings is not None and settings.get("save_dir") == self.chosen.trainer.default_root_dir:
                settings.save_dir = None
        text = self.parser.dump(self.chosen, skip_none=False)
        write_file(Path(trainer.default_root_dir) / self.config_filename, text)
        self.save_config(trainer, pl_module, stage)
        self.already_saved = True

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Log the config as hyperparameters."""
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):  # config.yaml is in the same folder
                logger.log_hyperparams({"config": self.config.as_dict()})
