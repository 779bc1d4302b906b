"""How the networks of a task run in training."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from cyclestyle.speed.choice import Tuning
from cyclestyle.speed.convolutions import FastConvolutions


class TrainingSpeed:
    """What a `Tuning` means for a training. Null leaves everything as it is.

    Args:
        tuning: what makes the task faster.
        compiled_steps: steps that a training must have for its networks to be compiled.

    Attributes:
        memory_format: of weights and images.
        convolutions: a context in which the losses are computed.
        fused: whether Adam updates all parameters in one call.
    """

    def __init__(self, tuning: Tuning | None = None, *, compiled_steps: int = 0) -> None:
        tuning = tuning or Tuning()
        self.memory_format = torch.channels_last if tuning.channels_last else torch.contiguous_format
        self.convolutions: AbstractContextManager[Any] = FastConvolutions() if tuning.winograd else nullcontext()
        self.fused = bool(tuning.fused)
        self._compiled_steps = compiled_steps if tuning.compile else None

    def compiles(self, steps: float) -> bool:
        """Return whether networks are compiled for a training of so many steps."""
        return self._compiled_steps is not None and steps >= self._compiled_steps


def compile_network(network: nn.Module, device: torch.device) -> None:
    """Compile a network that will be trained on a device, in place: the keys of its state_dict stay the same.

    Without CUDA graphs (mode="reduce-overhead"): the next call of a network overwrites what its graph returned, such as
    the fakes of a grid, and the step of a discriminator inside the batch does so while the generator's loss still needs
    them. Without layouts chosen by the compiler: on processors with AMX, PyTorch 2.14.1 gives NaN in them for the
    gradient of a norm before a padded residual block in bfloat16.
    """
    network.compile(options={"layout_optimization": False} if device.type == "cpu" else None)
