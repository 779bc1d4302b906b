"""State that differs from process to process: random number generators, and what else a method draws from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor


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


class Ranks:
    """What a task has for each process, between the task and its checkpoints: random numbers and `RankState`s."""

    def __init__(self) -> None:
        self._restored: dict[str, Tensor] | None = None  # from a checkpoint, until training starts

    def reseed(self, task: LightningModule) -> None:
        """Give every part of every rank a seed of its own."""
        parts = _parts(task)
        for number, part in enumerate(parts.values()):
            part.reseed(task.global_rank * len(parts) + number)

    def start(self, task: LightningModule) -> None:
        """Continue with the random numbers of the checkpoint; without one, each rank gets its own."""
        if self._restored is not None:
            torch.set_rng_state(self._restored["cpu"])
            if task.device.type == "cuda" and "cuda" in self._restored:
                torch.cuda.set_rng_state(self._restored["cuda"], task.device)
        elif task.global_rank > 0:
            torch.manual_seed(torch.initial_seed() + task.global_rank)
        self._restored = None

    def save(self, task: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the states of every rank. Every rank must call this."""
        random = {"cpu": torch.get_rng_state()}
        if task.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(task.device)
        state = {"parts": {name: part.state_dict() for name, part in _parts(task).items()}, "random": random}
        states: list[Any] = [state]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            states = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(states, state)
        checkpoint["rank_states"] = [of_rank["parts"] for of_rank in states]
        checkpoint["random"] = [of_rank["random"] for of_rank in states]

    def load(self, task: LightningModule, checkpoint: Mapping[str, Any]) -> None:
        """Restore the states of this rank; one that the checkpoint does not have takes what all ranks share."""
        states, random = checkpoint.get("rank_states", []), checkpoint.get("random", [])
        stored_rank = task.global_rank < len(states)
        stored = states[task.global_rank if stored_rank else 0] if states else {}
        for name, part in _parts(task).items():
            if name in stored and (stored_rank or part.shared):
                part.load_state_dict(stored[name], task.device)
        if task.global_rank < len(random):
            self._restored = random[task.global_rank]


def _parts(task: LightningModule) -> dict[str, RankState]:
    return {name: part for name, part in vars(task).items() if isinstance(part, RankState)}
