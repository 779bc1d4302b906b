"""Checks, before the training, that what callbacks go by is measured."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from cyclestyle.errors import CycleStyleError
from cyclestyle.tasks.base import as_task
from cyclestyle.training.callbacks.ema import EMAGenerators


class Monitors(pl.Callback):
    """Refuses a run whose best checkpoint or early stopping goes by a figure that no validation gives.

    The figures of the task are those of the sanity check. Those of callbacks are the names that their method
    `figures(task)` returns.
    """

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the figures.

        Raises:
            CycleStyleError: a figure is not among those of the validation; the message lists these.
        """
        task = as_task(pl_module)
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        figures = {name for name in trainer.callback_metrics if name.startswith("val/")}
        for callback in callbacks:
            if hasattr(callback, "figures"):
                figures |= {f"val/{name}" for name in callback.figures(task)}
        if any(isinstance(callback, EMAGenerators) and callback.decay for callback in callbacks):
            figures |= {name.replace("val/", "val_ema/") for name in figures}
        for callback in callbacks:
            monitored = getattr(callback, "monitor", None)
            if isinstance(monitored, str) and monitored.startswith("val") and monitored not in figures:
                raise CycleStyleError(
                    f"{_name(callback)} goes by {monitored}, which no validation gives; choose one of "
                    f"{', '.join(sorted(figures))}"
                )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check that there is a validation.

        Raises:
            CycleStyleError: early stopping goes by a figure of the validation, and there is none.
        """
        if trainer.enable_validation:
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.monitor.startswith("val"):
                raise CycleStyleError(
                    f"early stopping goes by {callback.monitor}, but the run has no validation; leave "
                    "trainer.limit_val_batches above 0"
                )


def _name(callback: pl.Callback) -> str:
    if isinstance(callback, ModelCheckpoint):
        return "best.ckpt"
    return "early stopping" if isinstance(callback, EarlyStopping) else type(callback).__name__
