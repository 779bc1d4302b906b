"""Translates images of any size from Python."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from PIL import Image
from torch import Tensor, nn

from cyclestyle import images
from cyclestyle.networks.streaming import Statistics
from cyclestyle.tasks.base import Direction, Task
from cyclestyle.tasks.large import LargeImages
from cyclestyle.tasks.load import Averaging, load

Style = str | Path | Image.Image
"""A style image, or the path of one."""


class Translator(nn.Module):
    """A trained method that takes images of any size and returns them in the same size.

        translate = Translator.load("runs/monet2photo/checkpoints/last.ckpt", direction="BtoA")
        painting = translate(Image.open("photo.jpg"))

    Args:
        task: the method.
        direction: `AtoB` or `BtoA`; methods with one direction ignore it.

    Raises:
        ValueError: `direction` is neither `AtoB` nor `BtoA`.
    """

    def __init__(self, task: Task, *, direction: Direction = "AtoB") -> None:
        super().__init__()
        if direction not in get_args(Direction):
            raise ValueError(f"direction must be AtoB or BtoA, got {direction!r}")
        self.task = task.eval().requires_grad_(False)
        self.task.direction = direction

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        direction: Direction = "AtoB",
        averaging: Averaging = "auto",
        style: Style | Sequence[Style] = (),
        style_weights: Sequence[float] | None = None,
        memory: int | str | None = None,
        scratch: str | Path | None = None,
        statistics: Statistics = "exact",
        **changes: Any,
    ) -> "Translator":
        """Build a translator from a checkpoint or a file of another program; see `cyclestyle.tasks.load`.

        Args:
            path: the file.
            direction: `AtoB` or `BtoA`.
            averaging: `ema`, `raw`, or `auto` for the averaged weights where there are any.
            style: style images, for methods that take their style from images.
            style_weights: how the styles are mixed, one number each.
            memory: bytes for the activations of an image, or a text such as `4GB`; see `LargeImages`.
            scratch: folder for what does not fit into memory; None: the system's folder for temporary files.
            statistics: `exact` or `reduced`; see `LargeImages`.
            changes: constructor arguments of the task that replace those of the checkpoint.

        Raises:
            CheckpointError: the file is missing, damaged, or of another kind.
            CycleStyleError: the method needs styles, or takes none.
            ImageError: a style is not an image.
            ValueError: a value is out of its range.
        """
        large_images = LargeImages(memory=memory, scratch=scratch, statistics=statistics)
        task = load(path, averaging=averaging, **changes)
        task.large_images = large_images
        styles = [style] if isinstance(style, str | Path | Image.Image) else list(style)
        if styles or task.takes_styles:
            task.use_styles([_read_style(one) for one in styles], style_weights)
        return cls(task, direction=direction)

    @property
    def in_channels(self) -> int:
        """Channels of the images that `translate` takes."""
        return self.task.in_channels(self.task.direction)

    def forward(self, image: Image.Image) -> Image.Image:
        """Translate one PIL image of any mode; EXIF orientation is ignored."""
        levels = images.to_levels(images.convert(image, self.in_channels))[None]
        return images.to_image(self.translate(levels)[0])

    @torch.inference_mode()
    def translate(self, batch: Tensor) -> Tensor:
        """Translate `(N, in_channels, H, W)` to `(N, out_channels, H, W)`, for any H and W.

        Both are in [-1, 1], or both in levels of 0 to 255 in uint8.

        Raises:
            ImageError: memory or scratch disk are too small.
        """
        return self.task.translate_any_size(batch)


def _read_style(style: Style) -> Tensor:
    image = images.convert(style) if isinstance(style, Image.Image) else images.read_image(Path(style))
    return images.to_tensor(image)
