"""Logging of the learning rate and the training speed."""

import time
from collections import deque
from typing import Any

import pytorch_lightning as pl
import torch

from cyclestyle.tasks.base import batch_size


class Speed(pl.Callback):
    """Logs `train/lr` and `train/images_per_second`, the number of image pairs or photos per second of all processes.

    The speed is averaged over the last `window` steps, without synchronisation of the device, and excludes validation.
    Checkpoints store the total duration of all steps, including those before a resume.

    Args:
        window: number of steps to average over.
    """

    def __init__(self, window: int = 50) -> None:
        self._steps: deque[tuple[int, float]] = deque(maxlen=window)  # images and seconds of each step
        self._previous_end: float | None = None  # time when the previous step ended; None after a validation
        self._batch_start = 0.0
        self.seconds = 0.0

    @property
    def images_per_second(self) -> float | None:
        """The speed over the last steps; None before the second step."""
        if not self._steps:
            return None
        return sum(images for images, _ in self._steps) / sum(seconds for _, seconds in self._steps)

    def state_dict(self) -> dict[str, float]:
        """Return the total duration of the steps."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Restore the total duration."""
        self.seconds = state_dict.get("seconds", 0.0)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Store the start time of the batch."""
        self._batch_start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the duration and the speed."""
        now = time.perf_counter()
        self.seconds += now - (self._batch_start if self._previous_end is None else self._previous_end)
        figures = {"train/lr": trainer.optimizers[0].param_groups[0]["lr"]}
        if self._previous_end is not None:
            self._steps.append((batch_size(batch) * trainer.world_size, now - self._previous_end))
            speed = self.images_per_second
            assert speed is not None
            figures["train/images_per_second"] = speed
        self._previous_end = now
        for name, value in figures.items():  # as tensors: Lightning would make one on the device, and wait for it
            pl_module.log(name, torch.tensor(value), batch_size=1)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Exclude the pause before the next step."""
        self._previous_end = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Exclude the pause before the next step."""
        self._previous_end = None
