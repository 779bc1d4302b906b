"""State that differs from process to process: random number generators, and what else a method draws from."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch


class RankState(ABC):
    """State of a task beside its weights that every rank has for itself, such as an image pool.

    `Task` finds attributes of this class by itself: it gives each rank its own seed, stores the state of every rank
    in checkpoints, and restores it.

    Attributes:
        shared: whether the state is the same for every rank in what matters: a rank that a checkpoint does not have
            then takes that of the first one.
    """

    shared: ClassVar[bool] = False

    @abstractmethod
    def reseed(self, seed: int) -> None:
        """Reset the state, and draw from this seed on."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and plain values, so that `torch.load(weights_only=True)` reads it."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any], device: torch.device | str = "cpu") -> None:
        """Continue exactly where `state_dict` was called."""


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the state of PyTorch's random number generators on the CPU and on `device`."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Continue where `random_state` was called."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def gather_ranks(state: Any) -> list[Any]:
    """Return the state of every rank, in the order of the ranks. Every rank must call this."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [state]
    states: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, state)
    return states
