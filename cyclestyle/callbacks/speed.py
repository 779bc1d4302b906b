"""The learning rate and images per second."""

import time
from typing import Any

import pytorch_lightning as pl


class Speed(pl.Callback):
    """Logs `train/lr`, and as `train/images_per_second` how many pairs all processes together train on.

    Measured over the steps between two rows of the log, so that nothing waits for the device in between;
    time spent in validation is left out.
    """

    def __init__(self) -> None:
        self._images = 0
        self._seconds = 0.0
        self._start: float | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch; log when the trainer logs."""
        now = time.perf_counter()
        if self._start is not None:
            self._seconds += now - self._start
            self._images += len(batch["A"]) * trainer.world_size
        self._start = now
        if (trainer.global_step % trainer.log_every_n_steps) or not self._seconds:
            return
        values = {"train/lr": trainer.optimizers[0].param_groups[0]["lr"]}
        values["train/images_per_second"] = self._images / self._seconds
        self.log_dict(values, batch_size=1)
        self._images, self._seconds = 0, 0.0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock anew."""
        self._start = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock anew."""
        self._start = None
