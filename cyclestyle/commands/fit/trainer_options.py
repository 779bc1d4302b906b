"""What the options of Lightning's Trainer mean for a run: filled in, or refused in one line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.utilities import rank_zero_only

from cyclestyle.commands.line.parser import ALIASES, import_class
from cyclestyle.errors import CycleStyleError
from cyclestyle.speed.setup import cores

UNSUPPORTED = {
    "StochasticWeightAveraging": "it replaces the schedule; average weights with --ema.decay instead",
    "LearningRateFinder": "it has no meaning for two players; choose a rate with --model.lr",
    "BatchSizeFinder": "it would change the run; choose a size with --data.batch_size",
}
"""Callbacks of Lightning that cannot be used, and the reason and remedy."""

_NOTHING = ("max_epochs", "max_steps", "limit_train_batches")
"""Options of the Trainer with which nothing is trained when they are 0."""

_LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 0,
    "gradient_clip_val": 0,
    "num_sanity_val_steps": -1,  # all
}
"""Smallest values of options that Lightning does not check, or only after the work has begun."""


def check_processes(trainer: Mapping[str, Any], *, oversubscribe: bool) -> None:
    """Refuse more processes than cores, which would only wait for each other and may exhaust the memory.

    Args:
        trainer: options of the Trainer.
        oversubscribe: whether the user wants it all the same.

    Raises:
        CycleStyleError: `devices` is more than the number of cores, and the processes run on the CPU.
    """
    devices = str(trainer.get("devices"))
    on_cpu = trainer.get("accelerator") == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    count = cores()
    if on_cpu and devices.isdecimal() and int(devices) > count and not oversubscribe:
        raise CycleStyleError(
            f"trainer.devices is {devices}, but there are {count} cores, and on a CPU every device is a process; "
            f"use at most {count}, or add --oversubscribe true"
        )


@rank_zero_only
def name_devices(trainer: Mapping[str, Any]) -> None:
    """Say how to use more GPUs where there are some and one is used, which is the default.

    All of them by default would change the batch and the number of steps of a config from machine to machine.
    """
    count = torch.cuda.device_count() if device_kind(trainer) == "cuda" else 0
    if count > 1 and str(trainer.get("devices")) == "1":
        print(f"using 1 of {count} GPUs; --trainer.devices {count} uses all of them, each with its own batches")


def device_kind(trainer: Mapping[str, Any]) -> str:
    """Return the type of the device that Lightning will choose."""
    accelerator = trainer.get("accelerator", "auto")
    if accelerator in ("cpu", "mps"):
        return str(accelerator)
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def check_seed(seed: int | bool) -> None:
    """Refuse a seed that NumPy cannot have.

    Raises:
        CycleStyleError: it is negative or too large.
    """
    if not 0 <= int(seed) < 2**32:
        raise CycleStyleError(f"seed_everything must be from 0 to {2**32 - 1}, got {seed}")


def check_training(trainer: Mapping[str, Any]) -> None:
    """Refuse options with which nothing would be trained, or that a run cannot have.

    Raises:
        CycleStyleError: the options cannot be used; the message names the option.
    """
    for name in _NOTHING:
        if trainer.get(name) == 0:
            raise CycleStyleError(f"trainer.{name} is 0, so that nothing would be trained; raise it or leave it out")
    for name, least in _LEAST.items():
        if (value := trainer.get(name)) is not None and value < least:
            raise CycleStyleError(f"trainer.{name} must be at least {least}, got {value}")
    if trainer.get("val_check_interval") == 0:
        raise CycleStyleError("trainer.val_check_interval is 0; trainer.limit_val_batches 0 trains without validation")
    if trainer.get("barebones"):
        raise CycleStyleError(
            "trainer.barebones leaves out logs and checkpoints, which a run consists of; "
            "use trainer.fast_dev_run for a trial, or scripts/benchmark.py to measure speed"
        )
    if trainer.get("deterministic") is True and device_kind(trainer) == "cuda":
        raise CycleStyleError(
            "trainer.deterministic true ends every training on a GPU in its first step, because the gradients of "
            "paddings and interpolations are not deterministic there; use trainer.deterministic warn"
        )
    for callback in _callbacks(trainer):
        if reason := UNSUPPORTED.get(callback.rpartition(".")[2]):
            raise CycleStyleError(f"{callback.rpartition('.')[2]} cannot be used here: {reason}")


def unwanted_callbacks(trainer: Mapping[str, Any]) -> set[str]:
    """Return which of the callbacks of every run the options of the Trainer exclude, by their short names."""
    unwanted: set[str] = set()
    if any(issubclass(import_class(path), ProgressBar) for path in _callbacks(trainer)):
        unwanted |= {"progress"}  # Lightning allows one progress bar
    if trainer.get("enable_checkpointing") is False:
        unwanted |= {"best", "checkpoint"}
    if trainer.get("fast_dev_run"):
        unwanted |= {"best", "checkpoint", "grid", "alarms", "page"}  # a trial writes nothing
    return unwanted


def fill_in_loggers(trainer: Any, subcommand: str) -> None:
    """Let loggers that were given no folder write to the folder of the run.

    `validate` and `test` write files beside those of training, but use the same run of W&B.
    """
    if trainer.logger is True:
        trainer.logger = Namespace(class_path="cyclestyle.training.CSVLogger", init_args=Namespace(save_dir=None))  # type: ignore[no-untyped-call]
    loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    for logger in loggers:
        settings = logger.get("init_args") if hasattr(logger, "get") else None
        if settings is not None and "save_dir" in settings and settings.save_dir is None:
            separate = subcommand != "fit" and "WandbLogger" not in logger.class_path
            root = Path(trainer.default_root_dir)
            settings.save_dir = str(root / subcommand if separate else root)


def with_own_logger(word: str) -> str:
    """Replace the name of a logger of Lightning in a word of the command line by that of ours."""
    option, equals, name = word.rpartition("=")
    return f"{option}{equals}{ALIASES.get(name, name)}" if not equals or "logger" in option else word


def _callbacks(trainer: Mapping[str, Any]) -> list[str]:
    """The class paths of the callbacks that the user has added."""
    callbacks = trainer.get("callbacks") or []
    return [one["class_path"] for one in (callbacks if isinstance(callbacks, list) else [callbacks])]
