"""The options `--speed`, `--tune` and `--device` of commands: what they choose, and what that means for the process."""

import os
from collections.abc import Mapping
from typing import Any

import torch

from cyclestyle.errors import CycleStyleError
from cyclestyle.speed.choice import Choice, SpeedName, Tuning, choose, hardware_for, set_tf32
from cyclestyle.speed.memory import keep_memory


def choose_tuning(speed: SpeedName, tune: Mapping[str, Any], kind: str, *, bfloat16: bool, training: bool) -> Choice:
    """Choose how a method runs, and set up the process for it.

    Args:
        speed: what `--speed` says.
        tune: what `--tune` says, the fields of `Tuning`.
        kind: the type of the device that computes.
        bfloat16: whether the results of the method in bfloat16 are as good as in float32.
        training: whether the method will be trained.

    Raises:
        ValueError: a setting is unknown or out of its range.
    """
    given = Tuning(**tune)
    if given.keep_memory is not False:
        keep_memory()
    choice = choose(speed, given, hardware_for(speed, kind), bfloat16=bfloat16, training=training)
    if choice.tuning.threads is not None:
        torch.set_num_threads(choice.tuning.threads)
    set_tf32(choice.tuning, kind)
    return choice


def choose_device(name: str | None = None, number: int = 0) -> torch.device:
    """Return the device with a name; by default a GPU if there is one.

    Args:
        name: such as `cpu`, `cuda`, `cuda:1` or `mps`; None and `auto`: the best that there is.
        number: of the process on this machine: with several GPUs, each process has its own.

    Raises:
        CycleStyleError: there is no such device.
    """
    kind = {"gpu": "cuda"}.get(name or "auto", name or "auto")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(kind)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # of PyTorch
        reason = " ".join(str(error).split())[:160]
        raise CycleStyleError(f"cannot use the device {name}: {reason}; use cpu, or leave --device out") from error
    if device.type == "cuda" and ":" not in kind and torch.cuda.device_count() > 1:
        device = torch.device("cuda", number % torch.cuda.device_count())
    return device


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on all systems
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_workers() -> int:
    """Return how many processes or threads keep up with a network that is busy: one for each other core, at most 4."""
    return min(4, (os.cpu_count() or 1) - 1)
