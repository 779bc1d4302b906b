"""The learning rate and images per second."""

import time
from collections import deque
from typing import Any

import pytorch_lightning as pl


class Speed(pl.Callback):
    """Logs `train/lr`, and as `train/images_per_second` how many pairs all processes together train on.

    Measured over the latest steps without waiting for the device in between; validation is left out.

    Args:
        window: steps to average over.
    """

    def __init__(self, window: int = 50) -> None:
        self._laps: deque[tuple[int, float]] = deque(maxlen=window)  # images and seconds of each step
        self._start: float | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch."""
        now = time.perf_counter()
        if self._start is not None:
            self._laps.append((len(batch["A"]) * trainer.world_size, now - self._start))
            images, seconds = (sum(column) for column in zip(*self._laps, strict=True))
            pl_module.log("train/images_per_second", images / seconds, batch_size=1)
        self._start = now
        pl_module.log("train/lr", trainer.optimizers[0].param_groups[0]["lr"], batch_size=1)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock anew."""
        self._start = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock anew."""
        self._start = None
