"""Translating images with a network that is trained already."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
from torch import Tensor

from cyclestyle.translate import Translator


@runtime_checkable
class PaintsInStyle(Protocol):
    """A task that `predict` hands style images to, because it has not learnt one."""

    def use_styles(self, styles: Sequence[Tensor], weights: Sequence[float] | None = None) -> None:
        """Paint in these styles, images `(3, H, W)` in [-1, 1], mixed by their weights."""


class Translation(pl.LightningModule):
    """Runs a `Translator` under the Trainer, which brings devices, precision and several processes."""

    def __init__(self, translator: Translator) -> None:
        super().__init__()
        self.translator = translator

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Translate `batch["images"]`, `(N, C, H, W)` in [-1, 1]; an empty batch is returned as it is."""
        images: Tensor = batch["images"]
        return self.translator.translate(images) if len(images) else images
