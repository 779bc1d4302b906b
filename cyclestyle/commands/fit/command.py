"""The commands `fit`, `validate` and `test`, based on LightningCLI."""

import os
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities import rank_zero_only

import cyclestyle.data.photos
import cyclestyle.tasks  # noqa: F401  # imported so that short class names resolve
from cyclestyle.commands.fit.painter import start_from_style
from cyclestyle.commands.fit.resuming import check_checkpoint, check_start, find_checkpoint, measure_as_trained, warn
from cyclestyle.commands.fit.short_help import short_help
from cyclestyle.commands.fit.trainer_options import (
    check_processes,
    check_seed,
    check_training,
    device_kind,
    fill_in_loggers,
    name_devices,
    unwanted_callbacks,
    with_own_logger,
)
from cyclestyle.commands.line.errors import one_line
from cyclestyle.commands.line.parser import Parser, check_configs, import_class
from cyclestyle.commands.line.process import ensure_writable
from cyclestyle.errors import CycleStyleError
from cyclestyle.files import locked
from cyclestyle.speed.choice import SpeedName, Tuning
from cyclestyle.speed.setup import choose_tuning
from cyclestyle.speed.training import TrainingSpeed
from cyclestyle.tasks.base import Task
from cyclestyle.tasks.load import start_from
from cyclestyle.tasks.schedule import scheduled_epochs
from cyclestyle.training import (
    Alarms,
    BestCheckpoint,
    DiscriminatorAccuracy,
    EMAGenerators,
    Evaluation,
    FiniteNumbers,
    LastCheckpoint,
    Monitors,
    ProgressBar,
    RunPage,
    SampleGrid,
    SaveConfig,
    Speed,
    TestReport,
)
from cyclestyle.training.loggers.csv_log import rename_columns
from cyclestyle.weights.checkpoints import read_checkpoint

SCHEDULE = "model.constant_epochs + model.decay_epochs"


def run(name: str, args: Sequence[str]) -> int:
    """Run `fit`, `validate` or `test`."""
    check_configs(args)
    if name != "fit":
        args = _with_config_of_run(args)

    class OneCommand(TrainingCLI):
        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            """Return this command alone: the options of each take a third of a second to collect."""
            return {name: LightningCLI.subcommands()[name]}

    OneCommand(
        Task,
        pl.LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        parser_class=TrainingParser,
        parser_kwargs={"prog": "cyclestyle"},
        save_config_callback=SaveConfig,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"callbacks": [Speed(), DiscriminatorAccuracy(), TestReport(), Monitors()]},
        args=[name, *map(with_own_logger, args)],
    )
    return 0


MEASURED = 48
"""Images on which the norms of a many-styles network are measured."""


class TrainingParser(Parser, LightningArgumentParser):
    """The parser of LightningCLI, with the errors and configs of the other commands."""


class TrainingCLI(LightningCLI):
    """LightningCLI that writes all files of a run to `trainer.default_root_dir`, the folder of the run."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks of every run, each with a short name for its options."""
        parser.add_lightning_class_args(BestCheckpoint, "best")  # first, so that the last checkpoint stores its state
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        parser.add_lightning_class_args(EMAGenerators, "ema")
        parser.add_lightning_class_args(Evaluation, "evaluation")
        parser.add_lightning_class_args(FiniteNumbers, "finite")
        parser.add_lightning_class_args(Alarms, "alarms")
        parser.add_lightning_class_args(SampleGrid, "grid")
        parser.add_lightning_class_args(ProgressBar, "progress")
        parser.add_lightning_class_args(RunPage, "page")  # after the callbacks whose files it shows
        parser.add_argument(
            "--init_from",
            type=str | None,
            default=None,
            help="start a new run of `fit` with the weights of a checkpoint, of the folder of a run, or of a folder of "
            "the original implementation; the averaged weights where there are any",
        )
        parser.add_argument(
            "--init_style",
            type=str | None,
            default=None,
            help="begin with a style of the many-styles network that init_from names, or with a mixture such as "
            "wave:0.3,starry_night:0.7: a generator without norms, which are measured on the training images of A",
        )
        parser.add_argument(
            "--speed",
            type=SpeedName,
            default="exact",
            help="exact: the arithmetic of the other options; fast: whatever is faster on this hardware with results "
            "that are as good; auto: the same, but networks are compiled only in long trainings",
        )
        parser.add_class_arguments(Tuning, "tune", instantiate=False)
        parser.add_argument(
            "--oversubscribe", type=bool, default=False, help="allow more processes than the machine has cores"
        )
        parser.set_defaults(
            {
                "trainer.devices": 1,
                "trainer.enable_model_summary": False,
                "trainer.default_root_dir": "runs/cyclestyle",
                "trainer.logger": {"class_path": "cyclestyle.training.CSVLogger"},
                "trainer.plugins": [{"class_path": "cyclestyle.training.AtomicCheckpointIO"}],
                "best.filename": "best",
                "best.enable_version_counter": False,
            }
        )
        for key in ("checkpoint.dirpath", "best.dirpath"):
            parser.link_arguments("trainer.default_root_dir", key, compute_fn=_checkpoints)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments, and resolve and check the path of the checkpoint."""
        if {"-h", "--help"} & set(args):
            self._print_help(args)
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand]
        check_seed(config.seed_everything)
        self.save_config_kwargs["chosen"] = config.clone()
        self.resumed_at: tuple[int, int] | None = None  # epochs and steps of the checkpoint
        is_fit = self.config.subcommand == "fit"
        named = config.get("ckpt_path")
        self.resumes = named == "last" or _slurm_restarted()
        run = Path(config.trainer.default_root_dir)
        start = find_checkpoint("last" if self.resumes else named, run, required=not is_fit)
        path = None if start is None else start[0]
        config.ckpt_path = None if path is None else str(path)
        if config.init_style and not config.init_from:
            raise CycleStyleError(
                "--init_style is a style of the network that --init_from names; name it, such as --init_from styles"
            )
        if config.init_from and is_fit:
            check_start(path, run)
        config.weights_only = True
        if is_fit:
            _choose_decoder(config)  # before the settings are compared with those of a checkpoint
        if start is None:
            return
        if is_fit:
            self.resumed_at = check_checkpoint(*start, config)
        else:
            measure_as_trained(*start, config.data, args)

    def _print_help(self, args: Sequence[str]) -> NoReturn:
        """Print the options that matter, or all of them after `--help all`."""
        command = self._subcommand_parsers[args[0]]
        assert isinstance(command, Parser)
        if args[-1] == "all":
            command.print_help()
        else:
            print(short_help(args[0], command.option_names()))
        raise SystemExit(0)

    def _parse_ckpt_path(self) -> None:
        """Skip this in `fit`, where Lightning would silently replace the config by the checkpoint's settings."""
        if self.config.subcommand != "fit":
            super()._parse_ckpt_path()

    def before_instantiate_classes(self) -> None:
        """Set the defaults that depend on other settings, and check settings that must agree."""
        config = self.config[self.config.subcommand]
        check_processes(config.trainer, oversubscribe=config.oversubscribe)
        name_devices(config.trainer)
        if self.subcommand == "fit":
            check_training(config.trainer)
        fill_in_loggers(config.trainer, str(self.subcommand))
        if config.trainer.limit_val_batches == 0:
            config.best.save_top_k = 0  # without validation there is no value to monitor
        task: type[Task] = import_class(config.model.class_path)
        _choose_monitor(config, task)
        if config.trainer.enable_progress_bar is False:  # Lightning rejects False together with a progress bar callback
            config.trainer.enable_progress_bar, config.progress.refresh_rate = None, 0
        for name in ("channels_A", "channels_B"):
            model, data = (config[part].get("init_args", {}).get(name) for part in ("model", "data"))
            if model is not None and data is not None and model != data:
                raise CycleStyleError(f"model.{name} is {model} and data.{name} is {data}; set both to the same number")
        scheduled = scheduled_epochs(config.model.get("init_args", {}))
        if config.trainer.max_epochs is None and config.trainer.max_steps == -1:
            if scheduled == 0 and self.subcommand == "fit":
                raise CycleStyleError(f"{SCHEDULE} is 0, so that nothing would be trained; raise one of them")
            config.trainer.max_epochs = scheduled
        if self.subcommand == "fit":
            self._choose_tuning(task)

    def _choose_tuning(self, task: type[Task]) -> None:
        """Choose how the task runs; the precision is an option of the Trainer."""
        config = self.config["fit"]
        fast = "training" in task.in_bfloat16
        try:
            self.choice = choose_tuning(
                config.speed, vars(config.tune), device_kind(config.trainer), bfloat16=fast, training=True
            )
        except ValueError as error:
            raise CycleStyleError(one_line(str(error))) from error
        if self.choice.tuning.precision == "bfloat16" and str(config.trainer.precision) in ("32-true", "32", "None"):
            config.trainer.precision = "bf16-mixed"

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Build the trainer without those of our callbacks that its options exclude."""
        trainer = self.config[self.subcommand].trainer
        keys = self._parser(self.subcommand).callback_keys
        keys[:] = [key for key in keys if key not in unwanted_callbacks(trainer)]
        try:
            return super().instantiate_trainer(**kwargs)
        except TypeError as error:  # of devices
            raise CycleStyleError(one_line(str(error))) from error

    def instantiate_classes(self) -> None:
        """Build the task, the datamodule and the trainer. A ValueError is reported as a mistake in the config."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise CycleStyleError(one_line(str(error))) from error

    def _run_subcommand(self, subcommand: str) -> None:
        """Let no other process train in the folder of the run meanwhile."""
        config = self.config[subcommand]
        lock = nullcontext()
        if subcommand == "fit" and not config.trainer.fast_dev_run and self.trainer.is_global_zero:
            ensure_writable(Path(config.trainer.default_root_dir))
            lock = locked(Path(config.trainer.default_root_dir))  # type: ignore[assignment]
        with lock:
            super()._run_subcommand(subcommand)

    def before_fit(self) -> None:
        """Check the folder of the run before any file is written to it.

        Raises:
            CycleStyleError: a new run would start in the folder of another run, or `init_from` does not fit.
        """
        config = self.config["fit"]
        root = Path(config.trainer.default_root_dir)
        choice = self.choice
        self.model.speed = TrainingSpeed(choice.tuning, compiled_steps=choice.compiled_steps)
        if config.speed != "exact":
            rank_zero_only(print)(f"speed {config.speed}: {self.choice.reason}")
        if config.init_from and config.ckpt_path is None:
            self._start(config.init_from, config.init_style)
        self.model.frozen.matching(self.model)  # before any file is written
        if config.trainer.fast_dev_run:
            return
        rename_columns(root / "metrics.csv", self.model.renamed_logs)
        if config.ckpt_path is None and not self.resumes:
            _refuse_second_run(root)
        _check_length(self.model, config, self.resumed_at)
        # The warning does not apply: the sampler resumes within an epoch.
        warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch")

    def _start(self, init_from: str, init_style: str | None) -> None:
        """Begin with the weights of a checkpoint, or with a style of it."""
        if init_style is None:
            start_from(self.model, init_from)
            return
        self.datamodule.setup("fit")
        start_from_style(self.model, init_from, init_style, self.datamodule.domain_images("train_A", MEASURED))

    def after_fit(self) -> None:
        """Print the paths of the checkpoints."""
        if not self.trainer.is_global_zero or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self.trainer.global_step == 0:
            raise CycleStyleError("no step was trained; raise trainer.max_time, or the limits of the run")
        if self.resumed_at is not None and self.trainer.global_step == self.resumed_at[1]:
            config = self.config["fit"]
            end = _end(config, scheduled_epochs(config.model.get("init_args", {})))
            warn(f"nothing was left to train: {end}; raise it to go on")
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RunPage) and callback.every_n_seconds:
                print(f"page: {Path(self.trainer.default_root_dir, 'index.html')}")
            if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
                print(f"stopped early: {callback.stopping_reason_message}")
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, LastCheckpoint) and callback.last.exists():
                print(f"last: {callback.last} (epoch {self.trainer.current_epoch}, step {self.trainer.global_step})")
            scored = isinstance(callback, ModelCheckpoint) and callback.best_model_score is not None
            if scored and Path(callback.best_model_path).is_file():
                best = read_checkpoint(Path(callback.best_model_path))
                figure = f"{callback.monitor} {callback.best_model_score:.4g}"
                shown = Path(self.trainer.default_root_dir, "checkpoints", Path(callback.best_model_path).name)
                print(f"best: {shown} (epoch {best['epoch'] + 1}, {figure})")


def _with_config_of_run(args: Sequence[str]) -> Sequence[str]:
    """Let the folder of a run bring its config, where neither a config nor a method is named."""
    named = dict(pairwise(word for arg in args for word in arg.split("=", 1)))
    if {"--config", "-c", "--model"} & named.keys():
        return args
    folders = [Path(named[option]) for option in ("--ckpt_path", "--trainer.default_root_dir") if option in named]
    folders = [folder if folder.is_dir() else folder.parent.parent for folder in folders]
    for folder in folders:
        if (folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir():
            return ["--config", str(folder / "config.yaml"), "--trainer.default_root_dir", str(folder), *args]
    return args


def _checkpoints(root: str) -> str:
    return str(Path(root) / "checkpoints")


def _slurm_restarted() -> bool:
    """Return whether SLURM has requeued this job, so that the same command must resume."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") != "0"


def _choose_decoder(config: Any) -> None:
    """Decode images the fast way, unless that is left to `exact` or has been decided."""
    data = config.data.get("init_args", {})
    if config.speed != "exact" and "decoder" in data and data["decoder"] is None:
        data["decoder"] = "torchvision"


def _choose_monitor(config: Any, task: type[Task]) -> None:
    """Let the weights that are used, the averaged ones if there are any, decide on the best checkpoint."""
    if config.best.monitor is not None:
        return
    prefix = "val_ema" if config.ema.decay else "val"
    line = [f"{prefix}/{task.monitor.removeprefix('val/')}"]
    if config.evaluation.extractor != "none" and task.directions:
        line.insert(0, f"{prefix}/kid")
    config.best.monitor, config.best.fallback = line[0], config.best.fallback or (line[1] if len(line) > 1 else None)


def _check_length(task: Task, config: Any, resumed_at: tuple[int, int] | None) -> None:
    """Say what of the length of a run and its schedule does not agree.

    Raises:
        CycleStyleError: the checkpoint that the run continues from is beyond its end.
    """
    scheduled = scheduled_epochs(config.model.get("init_args", {}))
    epochs = config.trainer.max_epochs or 0
    if resumed_at is not None and 0 < epochs < resumed_at[0]:
        end = _end(config, scheduled)
        raise CycleStyleError(f"{config.ckpt_path} is in epoch {resumed_at[0]}, but {end}; raise it")
    if scheduled is not None and epochs > scheduled and task.learning_rate_factor(scheduled) == 0:
        warn(
            f"the learning rate is 0 after {scheduled} epochs, but trainer.max_epochs is {epochs}; "
            "raise model.constant_epochs or model.decay_epochs"
        )


def _end(config: Any, scheduled: int | None) -> str:
    """What ends a run, and where that is before the end of its schedule."""
    epochs, steps = config.trainer.max_epochs, config.trainer.max_steps
    if steps != -1:
        return f"trainer.max_steps is {steps}"
    if epochs == scheduled:
        return f"{SCHEDULE} is {epochs}"
    shorter = f" (the schedule has {scheduled} epochs)" if scheduled is not None and epochs < scheduled else ""
    return f"trainer.max_epochs is {epochs}{shorter}"


@rank_zero_only
def _refuse_second_run(root: Path) -> None:
    if any(Path(_checkpoints(str(root))).glob("*.ckpt")):
        raise CycleStyleError(
            f"{root} holds a run already; resume it with --ckpt_path last, "
            "or choose another folder with --trainer.default_root_dir"
        )
