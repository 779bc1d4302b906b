"""Stops a run whose numbers are no longer finite, before a checkpoint keeps them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor

from cyclestyle.errors import DivergedError


class _Step(NamedTuple):
    number: int
    epoch: int
    losses: dict[str, Tensor]
    paths: list[str]


class FiniteNumbers(pl.Callback):
    """Raises `DivergedError` at NaN or infinity, naming the loss, the step and the images.

    Losses are read back from the device every `every_n_steps`, so that training need not wait for each; those
    in between are remembered, and the first bad one is named. They are also read before every checkpoint,
    whose weights are looked at too.

    Args:
        every_n_steps: steps between two looks; 0 turns them off.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 0:
            raise ValueError(f"every_n_steps must be 0 or more, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self._steps: list[_Step] = []
        self._number = 0  # of the step under way, as loggers count

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the number of the step."""
        self._number = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the losses, and look at them when it is time."""
        if not self.every_n_steps:
            return
        paths = [path for key in batch if key.startswith("paths") for path in batch[key]]
        self._steps.append(_Step(self._number, trainer.current_epoch, outputs["losses"], paths))
        if (
            len(self._steps) >= self.every_n_steps or pl_module.device.type == "cpu"
        ):  # where there is nothing to wait for
            self._look()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Look before anything is written."""
        if not self.every_n_steps:
            return
        self._look()
        names = list(checkpoint["state_dict"])
        bad = _not_finite([checkpoint["state_dict"][name] for name in names])
        if any(bad):
            raise DivergedError(
                f"weights are not finite at step {trainer.global_step}, {names[bad.index(True)]} for one; "
                f"no checkpoint is written, the last one is intact. {REMEDY}"
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the last steps."""
        self._look()

    def _look(self) -> None:
        steps, self._steps = self._steps, []
        bad = iter(_not_finite([loss for step in steps for loss in step.losses.values()]))
        for step in steps:
            named = [f"train/{name}" for name, is_bad in zip(step.losses, bad, strict=False) if is_bad]
            if named:
                images = f", on {', '.join(step.paths)}" if step.paths else ""
                raise DivergedError(
                    f"{', '.join(named)} not finite at step {step.number} of epoch {step.epoch}{images}; "
                    f"the last checkpoint is from before. {REMEDY}"
                )


REMEDY = "Look at these images, lower model.lr, or train with trainer.precision 32-true; --ckpt_path last goes on"


def _not_finite(tensors: Sequence[Tensor]) -> list[bool]:
    """Which tensors hold NaN or infinity, in one transfer from the device."""
    if not tensors:
        return []
    return (~torch.stack([torch.isfinite(tensor).all() for tensor in tensors])).tolist()
