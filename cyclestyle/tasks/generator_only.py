"""A trained generator on its own, such as a generator file of an original implementation."""

from typing import Literal

import torch
from torch import Tensor

from cyclestyle.errors import CycleStyleError
from cyclestyle.networks import build_generator
from cyclestyle.networks.calls import call_at_any_size
from cyclestyle.networks.generators import GeneratorName
from cyclestyle.networks.normalisation import remove_norms
from cyclestyle.networks.one_pass import OnePass
from cyclestyle.networks.resampling import ResampleName
from cyclestyle.tasks.base import Batch, Direction, Task


class GeneratorOnly(Task):
    """Translates in the one direction that its generator was trained for. It cannot be trained.

    Args:
        generator: `resnet9`, `resnet6`, `unet256` or `unet128`.
        depth: residual blocks of a ResNet or levels of a U-Net.
        in_channels: channels of the images that it takes.
        out_channels: channels of the images that it returns.
        ngf: filters of the first layer.
        dropout: whether its blocks have dropout, which changes the names of the weights.
        resample: `transpose`, `resize` or `blur`.
        residual: above 0, the generators learn the change of an image instead of the result, see `build_generator`.
        comb_filter: remove the checkerboard of upsampling from translations.
        norm: `instance`; or `none`, for weights into which batch norms have been folded.

    Raises:
        ValueError: `norm` is unknown, or an argument is out of its range.
    """

    in_bfloat16 = ("translating",)

    def __init__(
        self,
        *,
        generator: GeneratorName = "resnet9",
        depth: int | None = None,
        in_channels: int = 3,
        out_channels: int = 3,
        ngf: int = 64,
        dropout: bool = False,
        resample: ResampleName = "transpose",
        residual: float | bool = 0.0,
        comb_filter: bool = False,
        norm: Literal["instance", "none"] = "instance",
    ) -> None:
        super().__init__()
        if norm not in ("instance", "none"):
            raise ValueError(f"norm must be instance or none, got {norm!r}")
        self.save_hyperparameters()
        self.channels = in_channels
        self.generator = build_generator(
            generator,
            depth=depth,
            in_channels=in_channels,
            out_channels=out_channels,
            ngf=ngf,
            dropout=dropout,
            resample=resample,
            residual=residual,
            comb_filter=comb_filter,
        )
        if norm == "none":
            remove_norms(self.generator)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """A generator alone has no losses.

        Raises:
            CycleStyleError: always.
        """
        raise CycleStyleError("a generator file alone cannot be trained; train a CycleGAN on the four files of a run")

    @torch.no_grad()
    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Return images and their translations."""
        return {"image": batch["images"], "translation": self.translate(batch["images"], self.direction)}

    def translate(self, images: Tensor, direction: Direction) -> Tensor:
        """Translate images of any height and width; there is one direction."""
        return call_at_any_size(self.generator, images)

    def exported(self, direction: Direction) -> OnePass:
        """Return the generator."""
        return OnePass.of(self.generator, self.channels)

    def in_channels(self, direction: Direction) -> int:
        """Return the channels that the generator takes."""
        return self.channels
