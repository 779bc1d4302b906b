"""A network in the file of another program, run by that program."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclestyle.errors import CycleStyleError, ImageError
from cyclestyle.networks.calls import pad_to_multiple
from cyclestyle.scratch import available_memory, format_bytes
from cyclestyle.tasks.base import Batch, Direction, Task
from cyclestyle.tasks.styles import shares_of
from cyclestyle.weights.exported import open_exported


class Exported(Task):
    """Translates with a file that `cyclestyle export` has written: ONNX, OpenVINO or `.pt2`. It cannot be trained.

    The image is translated as a whole: other runtimes cannot be streamed.

    Args:
        file: its path.

    Raises:
        CheckpointError: the file is missing, damaged, or was not written by cyclestyle.
        CycleStyleError: the program that runs it is not installed.
    """

    one_pass = False

    def __init__(self, *, file: str) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.file, self.runtime = Path(file), open_exported(Path(file))
        self.description = self.runtime.description
        self.takes_styles, self.style_names = self.description.takes_style, self.description.styles
        self.direction = "BtoA" if self.description.directions[0] == "BtoA" else "AtoB"
        self.directions = (self.direction,)  # so that it may be named, as with the checkpoint
        self.style: Tensor | None = None
        self.shares = torch.eye(len(self.style_names))[:1] if self.style_names else None  # of the styles

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """An exported network has no losses.

        Raises:
            CycleStyleError: always.
        """
        raise CycleStyleError(f"{self.file} is an exported network, which cannot be trained; name the run it is from")

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Return images and their translations."""
        return {"image": batch["images"], "translation": self.translate(batch["images"], self.direction)}

    def translate(self, images: Tensor, direction: Direction) -> Tensor:
        """Translate images of any height and width; there is one direction."""
        height, width = images.shape[-2:]
        self.check_fits(width, height)
        if self.style_names:
            style = None if self.shares is None else self.shares.to(images.device)
        else:
            style = None if self.style is None else self._padded(self.style.to(images)[None])
        return self._run(self._padded(images), style)[..., :height, :width]

    def use_styles(self, styles: Sequence[Any], weights: Sequence[float] | None = None) -> None:
        """Take the style from an image, or from names of styles that the network has learnt.

        Raises:
            CycleStyleError: the network takes no style, not exactly one image is given, or a name is unknown.
        """
        if self.style_names:
            self.shares = shares_of(styles, self.style_names, weights)
            return
        if not self.takes_styles:
            super().use_styles(styles, weights)
        if len(styles) != 1:
            raise CycleStyleError(f"{self.file} takes one style image, got {len(styles)}; name one with --style")
        self.style = styles[0]

    def in_channels(self, direction: Direction) -> int:
        """Return the channels that the network takes."""
        return self.description.in_channels

    def check_fits(self, width: int, height: int) -> None:
        """Check that an image is of the size that the file takes, and fits into memory.

        Raises:
            ImageError: it does not.
        """
        shape, least, multiple = self.description.shape, self.description.min_size, self.description.multiple
        padded = [max(-(-side // multiple) * multiple, least) for side in (height, width)]
        if shape and padded != list(shape[1:]):
            raise ImageError(
                f"an image of {width}×{height} is not of the size that {self.file.name} was exported for, "
                f"{shape[2]}×{shape[1]}; crop or resize it, or export without --shape"
            )
        needed, free = width * height * self.description.bytes_per_pixel, available_memory()
        if needed > free:
            raise ImageError(
                f"an image of {width}×{height} needs about {format_bytes(needed)} with {self.file.name}, but "
                f"{format_bytes(free)} are free; translate it with the checkpoint, which streams it"
            )

    def _run(self, images: Tensor, style: Tensor | None) -> Tensor:
        """Run the network, in parts of its number of images, filled up with zeros, where that is fixed."""
        shape = self.description.shape
        if shape is None:
            return self.runtime(images, style)
        filled = F.pad(images, (0, 0, 0, 0, 0, 0, 0, -len(images) % shape[0]))
        return torch.cat([self.runtime(part, style) for part in torch.split(filled, shape[0])])[: len(images)]

    def _padded(self, images: Tensor) -> Tensor:
        return pad_to_multiple(images, self.description.multiple, self.description.min_size)
