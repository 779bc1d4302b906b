"""The options `--speed` and `--tune.…` of commands: what they choose, and what that means for the process."""

from collections.abc import Mapping
from typing import Any

import torch

from cyclestyle.commands.process import keep_memory
from cyclestyle.tasks.speed import Choice, SpeedName, Tuning, choose, hardware_for, set_tf32


def choose_tuning(
    speed: SpeedName, tune: Mapping[str, Any], trainer: Mapping[str, Any], *, bfloat16: bool, training: bool
) -> Choice:
    """Choose how a task runs, and set up the process for it.

    Args:
        speed: what `--speed` says.
        tune: what `--tune.…` says, the fields of `Tuning`.
        trainer: options of the Trainer.
        bfloat16: whether the results of the method in bfloat16 are as good as in float32.
        training: whether the task will be trained.

    Raises:
        ValueError: a setting is unknown or out of its range.
    """
    given = Tuning(**tune)
    if given.keep_memory is not False:
        keep_memory()
    kind = device_kind(trainer)
    choice = choose(speed, given, hardware_for(speed, kind), bfloat16=bfloat16, training=training)
    if choice.tuning.threads is not None:
        torch.set_num_threads(choice.tuning.threads)
    set_tf32(choice.tuning, kind)
    return choice


def device_kind(trainer: Mapping[str, Any]) -> str:
    """Return the type of the device that Lightning will choose."""
    accelerator = trainer.get("accelerator", "auto")
    if accelerator in ("cpu", "mps"):
        return str(accelerator)
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
