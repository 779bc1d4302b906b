"""The learning rate and images per second."""

import time
from collections import deque
from typing import Any

import pytorch_lightning as pl

from cyclestyle.tasks.base import batch_size


class Speed(pl.Callback):
    """Logs `train/lr`, and as `train/images_per_second` how many pairs or photos all processes together train on.

    The rate is measured over the latest steps, without waiting for the device in between, and excludes validation.
    Checkpoints store the seconds of all steps of the run, those before a resume included.

    Args:
        window: steps to average over.
    """

    def __init__(self, window: int = 50) -> None:
        self._laps: deque[tuple[int, float]] = deque(maxlen=window)  # images and seconds of each step
        self._start: float | None = None  # when the previous step ended; None after a pause
        self._begun = 0.0
        self.seconds = 0.0

    def state_dict(self) -> dict[str, float]:
        """Return the duration of training so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Continue to count."""
        self.seconds = state_dict.get("seconds", 0.0)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock of the first step."""
        self._begun = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch."""
        now = time.perf_counter()
        self.seconds += now - (self._begun if self._start is None else self._start)
        if self._start is not None:
            self._laps.append((batch_size(batch) * trainer.world_size, now - self._start))
            images, seconds = (sum(column) for column in zip(*self._laps, strict=True))
            pl_module.log("train/images_per_second", images / seconds, batch_size=1)
        self._start = now
        pl_module.log("train/lr", trainer.optimizers[0].param_groups[0]["lr"], batch_size=1)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the clock."""
        self._start = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the clock."""
        self._start = None
