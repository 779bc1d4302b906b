"""Stops a run with non-finite losses or weights before a checkpoint is written."""

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
    """Raises `DivergedError` if a loss or a weight is NaN or infinite.

    The message contains the loss, the step and the images. The losses of `every_n_steps` steps are checked together,
    to avoid a synchronisation of the device in each step; the message is about the first step with a non-finite loss.
    Losses and weights are also checked before every checkpoint.

    Args:
        every_n_steps: steps between two checks; 0 turns the checks off.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 0:
            raise ValueError(f"every_n_steps must be 0 or more, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self._steps: list[_Step] = []
        self._number = 0  # number of the current step in the logs

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Store the number of the step."""
        self._number = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Store the losses, and check them if a check is due."""
        if not self.every_n_steps:
            return
        paths = [path for key in batch if key.startswith("paths") for path in batch[key]]
        self._steps.append(_Step(self._number, trainer.current_epoch, outputs["losses"], paths))
        due = len(self._steps) >= self.every_n_steps
        if due or pl_module.device.type == "cpu":  # a check on the CPU needs no synchronisation
            self._check()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check losses and weights before the checkpoint is written."""
        if not self.every_n_steps:
            return
        self._check()
        names = list(checkpoint["state_dict"])
        non_finite = _not_finite([checkpoint["state_dict"][name] for name in names])
        if any(non_finite):
            raise DivergedError(
                f"weights are not finite at step {trainer.global_step}, for example {names[non_finite.index(True)]}; "
                f"no checkpoint is written, and the last one is intact. {REMEDY}"
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the last steps."""
        self._check()

    def _check(self) -> None:
        steps, self._steps = self._steps, []
        non_finite = iter(_not_finite([loss for step in steps for loss in step.losses.values()]))
        for step in steps:
            names = [f"train/{name}" for name, is_bad in zip(step.losses, non_finite, strict=False) if is_bad]
            if names:
                images = f", on {', '.join(step.paths)}" if step.paths else ""
                raise DivergedError(
                    f"{', '.join(names)} not finite at step {step.number} of epoch {step.epoch}{images}; "
                    f"the last checkpoint was written before that step. {REMEDY}"
                )


REMEDY = "Check these images, lower model.lr, or set trainer.precision 32-true; resume with --ckpt_path last"


def _not_finite(tensors: Sequence[Tensor]) -> list[bool]:
    """Return for each tensor whether it contains NaN or infinity, with one copy from the device."""
    if not tensors:
        return []
    return (~torch.stack([torch.isfinite(tensor).all() for tensor in tensors])).tolist()
