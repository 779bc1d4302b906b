"""Grids of fixed images that show the progress of training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from cyclestyle.files import remove_unfinished
from cyclestyle.images import to_image, write_image
from cyclestyle.tasks.base import as_task
from cyclestyle.training.loggers.trackers import WandbLogger
from cyclestyle.training.shown import shown

GAP = 2  # pixels between images


class SampleGrid(pl.Callback):
    """Writes a grid of the outputs of `Task.sample` for fixed test images every N steps.

    Each column is one image, each row one output of `sample`. The grid is written to `<run>/grids/step_00001000.png`
    and to every logger that supports images. Without a test split, images of the first training batches are used.

    Args:
        every_n_steps: steps between two grids; one more is written at the end of training. 0 disables grids.
        images: number of columns.

    Attributes:
        rows: names of the rows of the latest grid, from top to bottom; stored in checkpoints.
    """

    def __init__(self, every_n_steps: int = 500, images: int = 4) -> None:
        if every_n_steps < 0 or images < 1:
            raise ValueError(f"every_n_steps must be 0 or more and images 1 or more, got {every_n_steps}, {images}")
        self.every_n_steps = every_n_steps
        self.images = images
        self.rows: list[str] = []
        self._samples: list[dict[str, Tensor]] = []
        self._last_step = -1

    def state_dict(self) -> dict[str, list[str]]:
        """Return the names of the rows."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, list[str]]) -> None:
        """Restore the names of the rows."""
        self.rows = state_dict.get("rows", [])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Select the images."""
        if trainer.is_global_zero:
            remove_unfinished(Path(trainer.default_root_dir) / "grids")
        if trainer.is_global_zero and self.every_n_steps and trainer.val_dataloaders is not None:
            loader = trainer.val_dataloaders
            count = min(self.images, len(loader.dataset))
            self._samples = [_first(loader.collate_fn([loader.dataset[index]])) for index in range(count)]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a grid if one is due."""
        if not self.every_n_steps or not trainer.is_global_zero:
            return
        if trainer.val_dataloaders is None and len(self._samples) < self.images:
            self._samples.append(_first(batch))
        if trainer.global_step > 0 and trainer.global_step % self.every_n_steps == 0:
            self._draw(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the last grid before the last checkpoint, because a run resumed from it has no further step."""
        if self.every_n_steps and trainer.is_global_zero and trainer.current_epoch + 1 == trainer.max_epochs:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the last grid of a run that stopped before its last epoch."""
        if self.every_n_steps and trainer.is_global_zero:
            self._draw(trainer, pl_module)

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step = trainer.global_step
        # With gradient accumulation, several batches have the same step.
        if step == self._last_step or not self._samples:
            return
        self._last_step = step
        samples = self._outputs(pl_module)
        self.rows = list(samples[0])
        grid = to_image(torch.nan_to_num(_grid(samples)))  # FiniteNumbers stops a run that diverges
        name = f"step_{step:08d}.png"
        write_image(grid, Path(trainer.default_root_dir) / "grids" / name)
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):  # W&B, MLflow and Neptune
                logger.log_image(key="samples", images=[grid], step=step, caption=[f"step {step}"])
            if isinstance(logger, WandbLogger):
                rows = [{name: to_image(torch.nan_to_num(cell)) for name, cell in row.items()} for row in samples]
                logger.log_samples(step, rows)

    def _outputs(self, pl_module: pl.LightningModule) -> list[dict[str, Tensor]]:
        """Return the outputs of the task for each image, by name, as `(3, H, W)` in [-1, 1]."""
        was_training = pl_module.training
        pl_module.eval()
        try:
            return [self._sample(pl_module, sample) for sample in self._samples]
        finally:
            pl_module.train(was_training)

    def _sample(self, pl_module: pl.LightningModule, sample: dict[str, Tensor]) -> dict[str, Tensor]:
        moved = {
            name: tensor.to(device=pl_module.device, dtype=next(pl_module.parameters()).dtype)
            for name, tensor in sample.items()
        }
        outputs = as_task(pl_module).sample(moved)
        return {name: shown(pl_module.trainer, name, images[0].float().cpu()) for name, images in outputs.items()}


def _first(batch: dict[str, Any]) -> dict[str, Tensor]:
    """Return the first image of each tensor of a batch, on the CPU."""
    return {name: value[:1].cpu() for name, value in batch.items() if isinstance(value, Tensor)}


def _grid(samples: Sequence[dict[str, Tensor]]) -> Tensor:
    """Return one image `(3, height, width)` in [-1, 1] with a column for each sample."""
    columns = [_column(sample) for sample in samples]
    height = max(column.shape[1] for column in columns)
    padded = [torch.nn.functional.pad(c, (0, GAP, 0, height - c.shape[1]), value=1.0) for c in columns]
    return torch.cat(padded, dim=2)


def _column(samples: dict[str, Tensor]) -> Tensor:
    cells = list(samples.values())
    width = max(cell.shape[2] for cell in cells)
    return torch.cat([torch.nn.functional.pad(c, (0, width - c.shape[2], 0, GAP), value=1.0) for c in cells], dim=1)
