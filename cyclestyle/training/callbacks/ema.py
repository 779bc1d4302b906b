"""An exponential moving average of the weights over training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from cyclestyle.tasks.base import as_task
from cyclestyle.weights.checkpoints import read_checkpoint


class EMAGenerators(pl.Callback):
    """Keeps an exponential moving average of the weights (Karras et al. 2018, appendix A.2; Yazıcı et al. 2019).

    Checkpoints store the average as `ema`. `predict` uses it, and a resumed run restores it. Training itself does not
    use it. The decay is smaller during the first steps: after t steps it is at most (1 + t) / (10 + t).

    Args:
        decay: weight of the previous average in each step; 0 turns it off. 0.999 averages over about 1,000 steps.

    Raises:
        ValueError: `decay` is not in [0, 1).
    """

    def __init__(self, decay: float = 0.0) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.weights: dict[str, Tensor] = {}
        self._steps = 0
        self._last_step = -1

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the average from the checkpoint."""
        self._load(trainer, pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the average from the checkpoint."""
        self._load(trainer, pl_module)

    def _load(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the average from the checkpoint, because Lightning restores callbacks only in `fit`."""
        if trainer.state.fn != TrainerFn.FITTING and trainer.ckpt_path is not None:
            average = read_checkpoint(Path(trainer.ckpt_path)).get("ema", {})
            self.weights = {name: value.to(pl_module.device) for name, value in average.items()}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Initialise the average with that of the checkpoint, or with the current weights."""
        self._last_step = trainer.global_step
        if self.decay:
            current = averaged_weights(pl_module)
            self.weights = {name: self.weights.get(name, value).to(value).clone() for name, value in current.items()}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after an optimiser step."""
        if not self.decay or trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        self._steps += 1
        decay = min(self.decay, (1 + self._steps) / (10 + self._steps))
        current = averaged_weights(pl_module)
        with torch.no_grad():
            torch._foreach_lerp_([self.weights[name] for name in current], list(current.values()), 1 - decay)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the average under the parameter names."""
        if self.weights:
            checkpoint["ema"] = dict(self.weights)
            checkpoint["ema_steps"] = self._steps

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the average, if the checkpoint has one."""
        if self.decay:
            self.weights = checkpoint.get("ema", {})
            self._steps = checkpoint.get("ema_steps", 0)

    @contextmanager
    def in_place(self, pl_module: pl.LightningModule) -> Iterator[None]:
        """Replace the weights by their average, and restore them on exit."""
        current = averaged_weights(pl_module)
        backup = {name: value.clone() for name, value in current.items()}
        _copy(current, self.weights)
        try:
            yield
        finally:
            _copy(current, backup)


def averaged_weights(pl_module: pl.LightningModule) -> dict[str, Tensor]:
    """Return the trainable parameters that the task averages, by name. They are detached but not copied."""
    prefixes = tuple(f"{name}." for name in as_task(pl_module).averaged_modules())
    parameters = ((name, p) for name, p in pl_module.named_parameters() if name.startswith(prefixes))
    return {name: p.detach() for name, p in parameters if p.requires_grad}


def _copy(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(values[name])
