"""Images of any number of channels as people, and metrics for photos, see them."""

import pytorch_lightning as pl
from torch import Tensor

from cyclestyle.data.datamodule import domains_of
from cyclestyle.images import as_rgb


def shown(trainer: pl.Trainer, name: str, images: Tensor) -> Tensor:
    """Return images `(..., C, H, W)` as RGB, in the bands that the datamodule shows of their domain.

    Args:
        trainer: which has the datamodule.
        name: of the images, which ends with the letter of the domain, such as `fake_B`.
        images: of any number of channels.
    """
    data = domains_of(trainer)
    bands = None if data is None else data.shown.get(name[-1:])
    return as_rgb(images) if bands is None else images[..., bands, :, :]
