"""How well the discriminators know real images that they are trained on, and others."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from cyclestyle.data.datamodule import domains_of
from cyclestyle.tasks.base import Task, as_task


class DiscriminatorAccuracy(pl.Callback):
    """Logs at every validation what share of real images the discriminators take for real.

    `val/D_B_real` is that of held-out images of domain B, and `val/D_B_real_train` that of training images; both are
    shares of the scores, in [0, 1]. They are close while a discriminator learns what a domain looks like. Where it
    overfits its training images, the first one falls (Karras et al. 2020, *Training GANs with Limited Data*,
    section 2). Nothing is augmented here. Tasks whose scores do not say what is real are not measured.

    Args:
        max_images: training images of each domain that are judged.

    Raises:
        ValueError: `max_images` is below 1.
    """

    def __init__(self, max_images: int = 50) -> None:
        if max_images < 1:
            raise ValueError(f"max_images must be at least 1, got {max_images}")
        self.max_images = max_images
        self._shares: dict[str, list[Tensor]] = {}

    def figures(self, task: Task) -> list[str]:
        """Return the names of what is logged."""
        return [f"{name}_real{suffix}" for name in task.discriminators for suffix in ("", "_train")]

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the figures."""
        self._shares = {}

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Judge held-out images."""
        if trainer.sanity_checking:
            return
        for name, domain in as_task(pl_module).discriminators.items():
            self._judge(trainer, pl_module, name, batch[domain])

    def _judge(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str, images: Tensor) -> None:
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            shares = as_task(pl_module).judged_real(name, images)
        if shares is not None:
            self._shares.setdefault(name, []).append(shares)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judge training images, and log the means."""
        data = domains_of(trainer)
        if not self._shares or data is None:
            return
        held_out, self._shares = self._shares, {}
        for name in held_out:
            domain = as_task(pl_module).discriminators[name]
            for images in data.domain_images(f"train_{domain}", self.max_images):
                images = trainer.precision_plugin.convert_input(images.to(pl_module.device))
                self._judge(trainer, pl_module, name, images)
        for suffix, shares in (("", held_out), ("_train", self._shares)):
            for name, batches in shares.items():
                mean = torch.cat(batches).mean()
                pl_module.log(f"val/{name}_real{suffix}", mean, batch_size=1, sync_dist=True)
