"""Translates images of any size."""

from pathlib import Path
from typing import get_args

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from cyclestyle import images
from cyclestyle.translate.generators import Averaging, Direction, Generator, load_generator


class Translator(nn.Module):
    """A trained generator that takes images of any size and gives them back in that size.

        translate = Translator.load("runs/monet2photo/checkpoints/last.ckpt", direction="BtoA")
        painting = translate(Image.open("photo.jpg"))

    Args:
        generator: the network, from `(N, in_channels, H, W)` to `(N, out_channels, H, W)` in [-1, 1].
        in_channels: channels of the images that it takes.
    """

    def __init__(self, generator: Generator, *, in_channels: int = 3) -> None:
        super().__init__()
        self.generator = generator.eval().requires_grad_(False)
        self.in_channels = in_channels

    @classmethod
    def load(cls, path: str | Path, *, direction: Direction = "AtoB", averaging: Averaging = "auto") -> "Translator":
        """Build a translator from a checkpoint, which knows its own architecture.

        `averaging` chooses between the weights of the last step (`raw`) and their average (`ema`); `auto` takes
        the average where there is one.

        Raises:
            CheckpointError: the file is missing, damaged, or of another kind.
            ValueError: `direction` is neither `AtoB` nor `BtoA`, or `averaging` none of its three.
        """
        if averaging not in get_args(Averaging):
            raise ValueError(f"averaging must be auto, ema or raw, got {averaging!r}")
        if direction not in get_args(Direction):
            raise ValueError(f"direction must be AtoB or BtoA, got {direction!r}")
        generator, in_channels = load_generator(Path(path), direction, averaging)
        return cls(generator, in_channels=in_channels)

    def forward(self, image: Image.Image) -> Image.Image:
        """Translate one PIL image of any mode; EXIF orientation is not looked at."""
        device = next(self.generator.parameters()).device
        batch = images.to_tensor(images.convert(image, self.in_channels)).unsqueeze(0).to(device)
        return images.to_image(self.translate(batch)[0])

    @torch.inference_mode()
    def translate(self, batch: Tensor) -> Tensor:
        """Translate `(N, in_channels, H, W)` in [-1, 1] to `(N, out_channels, H, W)`, whatever H and W are.

        The image is continued by reflection, at the right and bottom, to a size that the generator maps
        onto itself, and the continuation is cut off again.
        """
        height, width = batch.shape[-2:]
        whole = padded(batch, self.generator.multiple, self.generator.min_size)  # (N, C, ⌈H⌉, ⌈W⌉)
        return self.generator(whole)[..., :height, :width]  # type: ignore[no-any-return]  # untyped __call__


def padded(images: Tensor, multiple: int, least: int) -> Tensor:
    """Continue `(N, C, H, W)` by reflection, at the right and bottom, to multiples of `multiple`, at least `least`."""
    height, width = images.shape[-2:]
    bottom, right = (max(-(-size // multiple) * multiple, least) - size for size in (height, width))
    if not bottom and not right:
        return images
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(images, (0, right, 0, bottom), mode=mode)
