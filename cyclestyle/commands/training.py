"""The commands `fit`, `validate` and `test`, based on LightningCLI."""

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities import rank_zero_only

import cyclestyle.data
import cyclestyle.tasks  # noqa: F401  # imported so that short class names resolve
from cyclestyle.callbacks import (
    Alarms,
    EMAGenerators,
    Evaluation,
    FiniteNumbers,
    LastCheckpoint,
    ProgressBar,
    SampleGrid,
    SaveConfig,
    Speed,
    TestReport,
)
from cyclestyle.callbacks.last_checkpoint import newest_checkpoint
from cyclestyle.callbacks.loggers import rename_columns
from cyclestyle.commands.errors import one_line
from cyclestyle.commands.parser import Parser, check_configs, import_class
from cyclestyle.commands.process import ensure_writable
from cyclestyle.errors import CycleStyleError
from cyclestyle.tasks.base import Task, task_name
from cyclestyle.tasks.load import start_from
from cyclestyle.weights.checkpoints import read_checkpoint, run_checkpoint
from cyclestyle.weights.upgrade import upgrade


def run(name: str, args: Sequence[str]) -> int:
    """Run `fit`, `validate` or `test`."""
    check_configs(args)
    TrainingCLI(
        Task,
        pl.LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        parser_class=Parser,
        parser_kwargs={"prog": "cyclestyle"},
        save_config_callback=SaveConfig,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"callbacks": [Speed(), TestReport()]},
        args=[name, *args],
    )
    return 0


class TrainingCLI(LightningCLI):
    """LightningCLI that writes all files of a run to `trainer.default_root_dir`, the folder of the run."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the subcommands without `predict`, a separate command that needs no model or datamodule config."""
        return {name: skip for name, skip in LightningCLI.subcommands().items() if name != "predict"}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks of every run, each with a short name for its options."""
        parser.add_lightning_class_args(ModelCheckpoint, "best")  # first, so that the last checkpoint stores its state
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        parser.add_lightning_class_args(EMAGenerators, "ema")
        parser.add_lightning_class_args(Evaluation, "evaluation")
        parser.add_lightning_class_args(FiniteNumbers, "finite")
        parser.add_lightning_class_args(Alarms, "alarms")
        parser.add_lightning_class_args(SampleGrid, "grid")
        parser.add_lightning_class_args(ProgressBar, "progress")
        parser.add_argument(
            "--init_from",
            type=str | None,
            default=None,
            help="start a new run of `fit` with the weights of a checkpoint, of the folder of a run, or of a folder of "
            "the original implementation; the averaged weights where there are any",
        )
        parser.set_defaults(
            {
                "trainer.default_root_dir": "runs/cyclestyle",
                "trainer.logger": {"class_path": "cyclestyle.callbacks.CSVLogger"},
                "trainer.plugins": [{"class_path": "cyclestyle.callbacks.AtomicCheckpointIO"}],
                "best.filename": "best",
                "best.monitor": "val/kid",
                "best.enable_version_counter": False,
            }
        )
        for key in ("checkpoint.dirpath", "best.dirpath"):
            parser.link_arguments("trainer.default_root_dir", key, compute_fn=_checkpoints)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments, and resolve and check the path of the checkpoint."""
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand]
        self.resumes = config.get("ckpt_path") == "last" or _slurm_restarted()
        folder = Path(config.trainer.default_root_dir) / "checkpoints"
        if self.resumes:
            config.ckpt_path = newest_checkpoint(folder, _warn)
            if config.ckpt_path is None and self.config.subcommand != "fit":
                raise CycleStyleError(f"{folder} holds no checkpoint; train first, or name one with --ckpt_path")
        elif config.get("ckpt_path") == "best":
            config.ckpt_path = folder / "best.ckpt"
        elif config.get("ckpt_path") is None and self.config.subcommand != "fit":
            config.ckpt_path = run_checkpoint(folder.parent)
        elif config.get("ckpt_path") and Path(config.ckpt_path).is_dir():
            config.ckpt_path = run_checkpoint(Path(config.ckpt_path))
        if config.init_from and self.config.subcommand == "fit":
            _check_start(config.ckpt_path, folder)
        config.weights_only = True
        if config.get("ckpt_path"):
            config.ckpt_path = str(config.ckpt_path)
            is_fit = self.config.subcommand == "fit"  # `validate` and `test` use the settings of the checkpoint
            _check_checkpoint(Path(config.ckpt_path), config.model if is_fit else {})

    def _parse_ckpt_path(self) -> None:
        """Skip this in `fit`, where Lightning would silently replace the config by the checkpoint's settings."""
        if self.config.subcommand != "fit":
            super()._parse_ckpt_path()

    def before_instantiate_classes(self) -> None:
        """Set the defaults that depend on other settings, and check settings that must agree."""
        config = self.config[self.config.subcommand]
        root = config.trainer.default_root_dir
        loggers = config.trainer.logger if isinstance(config.trainer.logger, list) else [config.trainer.logger]
        for logger in loggers:
            settings = logger.get("init_args") if hasattr(logger, "get") else None
            if settings is not None and "save_dir" in settings and settings.save_dir is None:
                # `validate` and `test` write a separate CSV file, but use the same W&B run.
                separate = self.subcommand != "fit" and "WandbLogger" not in logger.class_path
                settings.save_dir = str(Path(root) / str(self.subcommand)) if separate else root
        if config.trainer.limit_val_batches == 0:
            config.best.save_top_k = 0  # without validation there is no value to monitor
        task: type[Task] = import_class(config.model.class_path)
        if config.best.monitor == "val/kid" and (config.evaluation.extractor == "none" or not task.directions):
            config.best.monitor = task.monitor
        if config.trainer.enable_progress_bar is False:  # Lightning rejects False together with a progress bar callback
            config.trainer.enable_progress_bar, config.progress.refresh_rate = None, 0
        for name in ("channels_A", "channels_B"):
            model, data = (config[part].get("init_args", {}).get(name) for part in ("model", "data"))
            if model is not None and data is not None and model != data:
                raise CycleStyleError(f"model.{name} is {model} and data.{name} is {data}; set both to the same number")
        scheduled = task.scheduled_epochs(config.model.get("init_args", {}))
        if config.trainer.max_epochs is None and config.trainer.max_steps == -1:
            config.trainer.max_epochs = scheduled

    def instantiate_classes(self) -> None:
        """Build the task, the datamodule and the trainer. A ValueError is reported as a mistake in the config."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise CycleStyleError(one_line(str(error))) from error

    def before_fit(self) -> None:
        """Check the folder of the run before any file is written to it.

        Raises:
            CycleStyleError: a new run would start in the folder of another run, or `init_from` does not fit.
        """
        config = self.config["fit"]
        root = Path(config.trainer.default_root_dir)
        ensure_writable(root)
        rename_columns(root / "metrics.csv", self.model.renamed_logs)
        if config.ckpt_path is None and not self.resumes and not config.trainer.fast_dev_run:
            _refuse_second_run(root)
        if config.init_from and config.ckpt_path is None:
            start_from(self.model, config.init_from)
        _warn_of_idle_epochs(self.model, config)
        # The warning does not apply: the sampler resumes within an epoch.
        warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch")

    def after_fit(self) -> None:
        """Print the paths of the checkpoints."""
        if not self.trainer.is_global_zero or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, LastCheckpoint) and callback.last.exists():
                print(f"last: {callback.last} (epoch {self.trainer.current_epoch}, step {self.trainer.global_step})")
            if isinstance(callback, ModelCheckpoint) and Path(callback.best_model_path).is_file():
                best = read_checkpoint(Path(callback.best_model_path))
                figure = f"{callback.monitor} {callback.best_model_score:.4g}"
                print(f"best: {callback.best_model_path} (epoch {best['epoch'] + 1}, {figure})")


def _checkpoints(root: str) -> str:
    return str(Path(root) / "checkpoints")


def _slurm_restarted() -> bool:
    """Return whether SLURM has requeued this job, so that the same command must resume."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") != "0"


@rank_zero_only
def _warn(message: str) -> None:
    print(f"cyclestyle: warning: {message}", file=sys.stderr)


def _check_start(ckpt_path: str | Path | None, folder: Path) -> None:
    """Refuse `init_from` together with a checkpoint of another run. A run that resumes itself ignores `init_from`.

    Raises:
        CycleStyleError: the checkpoint is not in the folder of the checkpoints of this run.
    """
    if ckpt_path is not None and Path(ckpt_path).resolve().parent != folder.resolve():
        raise CycleStyleError(
            f"--init_from starts a new run, --ckpt_path {ckpt_path} continues another one; leave one of them out"
        )


def _warn_of_idle_epochs(task: Task, config: Mapping[str, Any]) -> None:
    scheduled = task.scheduled_epochs(config["model"].get("init_args", {}))
    epochs = config["trainer"].max_epochs or 0
    if scheduled is not None and epochs > scheduled and task.learning_rate_factor(scheduled) == 0:
        _warn(
            f"the learning rate is 0 after {scheduled} epochs, but trainer.max_epochs is {epochs}; "
            "raise model.constant_epochs or model.decay_epochs"
        )


def _check_checkpoint(path: Path, model: Mapping[str, Any]) -> None:
    """Check that a checkpoint is of the task and of the networks in the config; warn about other changed settings.

    Raises:
        CycleStyleError: the checkpoint is of another task or of other networks.
    """
    checkpoint = upgrade(read_checkpoint(path))
    if "state_dict" not in checkpoint:
        raise CycleStyleError(f"{path} is not a checkpoint of a training run; only predict takes bare weights")
    if not model:
        return
    task: type[Task] = import_class(model["class_path"])
    stored = checkpoint.get("cyclestyle_task", task_name(task))
    if stored != task_name(task):
        raise CycleStyleError(f"{path} is a checkpoint of {stored}, but the config says {task_name(task)}")
    old, new = checkpoint.get("hyper_parameters", {}), model.get("init_args", {})
    changed = [name for name in old if name in new and _without_tuple(old[name]) != _without_tuple(new[name])]
    for name in changed:
        if name not in task.architecture:
            _warn(f"continuing with model.{name} {new[name]}; {path} was trained with {old[name]}")
        else:
            raise CycleStyleError(
                f"{path} was trained with model.{name} {old[name]}, but the config says {new[name]}; "
                "use the config.yaml of the run, or start again in another folder"
            )


def _without_tuple(value: Any) -> Any:
    """Convert a tuple to a list, as YAML does, so that both compare as equal."""
    return list(value) if isinstance(value, tuple) else value


@rank_zero_only
def _refuse_second_run(root: Path) -> None:
    if any(Path(_checkpoints(str(root))).glob("*.ckpt")):
        raise CycleStyleError(
            f"{root} holds a run already; resume it with --ckpt_path last, "
            "or choose another folder with --trainer.default_root_dir"
        )
