"""Translates batches of images with a method: of any size, in bounded memory, finished as the user asks for."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from cyclestyle.functional.finishing import Finishing
from cyclestyle.images import ValueRange, from_levels, nearest_levels
from cyclestyle.networks.method import DOMAINS, Direction, Method
from cyclestyle.networks.streaming import OnProgress, Room
from cyclestyle.speed.choice import Tuning
from cyclestyle.speed.convolutions import FastConvolutions
from cyclestyle.translation.large import LargeImages, Plans, check_fits, translate_within
from cyclestyle.translation.steady import Steady


class Engine:
    """A method, and how it is used.

    Args:
        method: what translates.
        direction: `AtoB` or `BtoA`; None: the first that the method knows.
        device: where to translate, such as `cuda`; None: where the method is.

    Attributes:
        direction: the direction, which may be changed.
        finishing: the size at which images are translated, and how the result is mixed with the photo.
        large_images: how much memory an image takes, and where what does not fit is kept.
        steady: averages results along the motion of a video; None for images that have nothing to do with each other.
        tuning: what makes it faster; see `tune`.
        on_progress: called with the share that is done of an image that is streamed.
    """

    def __init__(
        self, method: Method, *, direction: Direction | None = None, device: str | torch.device | None = None
    ) -> None:
        self.method = method.eval().requires_grad_(False)
        self.direction: Direction = direction or method.known_directions[0]
        self.finishing = Finishing()
        self.large_images = LargeImages()
        self.steady: Steady | None = None
        self.on_progress: OnProgress | None = None
        self.tuning = Tuning()
        self._convolutions: AbstractContextManager[Any] = nullcontext()
        self._plans: dict[Direction, Plans] = {one: {} for one in DOMAINS}
        if device is not None:
            method.to(device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next((parameter.device for parameter in self.method.parameters()), torch.device("cpu"))

    @property
    def in_channels(self) -> int:
        """Channels of the images that are translated, without masks."""
        return self.method.in_channels(self.direction)

    @property
    def ranges(self) -> tuple[ValueRange | None, ValueRange | None]:
        """The values that -1 and 1 stand for in the images and in the translations; None for colours."""
        source, target = DOMAINS[self.direction]
        return self.method.ranges.get(source), self.method.ranges.get(target)

    def tune(self, tuning: Tuning) -> None:
        """Run as `tuning` says, in which null leaves everything as it is."""
        self.tuning = tuning
        if tuning.channels_last:
            self.method.arrange(torch.channels_last)
        if tuning.winograd:
            self._convolutions = FastConvolutions(fixed_weights=True)
        if tuning.precision == "bfloat16":
            self.method.to(torch.bfloat16)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Translate images as `finishing` says, streamed where they are too large for `large_images.memory` as a whole.

        Args:
            images: `(N, C, H, W)` in [-1, 1], or in levels of 0 to 255 in uint8; the result is of the same type. With
                masks, channels after those of the image are regions; see `Method.translate`.

        Raises:
            ImageError: memory or scratch disk are too small.
            ValueError: the result contains NaN, or the images cannot be mixed with it.
        """
        if not self.finishing.changes:
            return self._translate_within(images)
        if images.dtype == torch.uint8:
            return nearest_levels(self.finishing(self._translate_within, from_levels(images), self.in_channels))
        return self.finishing(self._translate_within, images, self.in_channels)

    def check_fits(self, width: int, height: int) -> None:
        """Check, before the work starts, that an image of a size can be translated.

        Raises:
            ImageError: memory or scratch disk are too small.
        """
        if self.method.one_pass:
            shape = torch.Size((1, self.in_channels, *self.finishing.size(height, width)))
            check_fits(self._translate, shape, self.large_images, self._room(), self._plans[self.direction])

    def _translate_within(self, images: Tensor) -> Tensor:
        with self._convolutions:
            return translate_within(
                self._translate,
                images,
                self.large_images,
                self._room(),
                self._plans[self.direction],
                self.method.one_pass,
                self.on_progress,
                self.steady,
            )

    def _translate(self, images: Tensor) -> Tensor:
        if self.tuning.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return self.method.translate(images, self.direction)

    def _room(self) -> Room:
        dtypes = (parameter.dtype for parameter in self.method.parameters() if parameter.is_floating_point())
        return Room(device=self.device, dtype=next(dtypes, torch.float32))
