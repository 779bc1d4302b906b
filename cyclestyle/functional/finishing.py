"""What is done with a translation afterwards: a size to work at, a strength, the colours of the photo."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclestyle.functional.colour import put_luminance, to_grey

RADIUS = 4
"""Pixels, at the size that is worked at, around each pixel over which a painting is compared with its photo."""
NOISE = 0.02
"""Standard deviation of values in [-1, 1] below which a photo counts as plain there."""


@dataclass(frozen=True, kw_only=True)
class Finishing:
    """Translates at a size of its own, and mixes the result with the photo.

    Args:
        work_size: longest side, in pixels, at which images are translated; smaller ones keep their size. The result
            has the size of the photo, and its fine edges; see `with_fine_edges`. None: the size of the photo.
        strength: share of the translation in the result, in [0, 1]; the rest is the photo.
        preserve_color: whether the result has the luminance of the translation and the chrominance of the photo.

    Raises:
        ValueError: a value is out of its range.
    """

    work_size: int | None = None
    strength: float = 1.0
    preserve_color: bool = False

    def __post_init__(self) -> None:
        if self.work_size is not None and self.work_size < 16:
            raise ValueError(f"work_size must be at least 16, got {self.work_size}")
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength must be from 0 to 1, got {self.strength}")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width at which an image is translated."""
        scale = 1.0 if self.work_size is None else min(1.0, self.work_size / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def __call__(self, translate: Callable[[Tensor], Tensor], images: Tensor, channels: int) -> Tensor:
        """Translate images `(N, C, H, W)` in [-1, 1]; the result has their height and width.

        Args:
            translate: a translation of images.
            images: photos, and after their channels what else `translate` takes of each pixel, such as masks.
            channels: of the photos.

        Raises:
            ValueError: `preserve_color` with images of other than three channels, or a mixture with a translation of
                another number of channels.
        """
        height, width = images.shape[-2:]
        size, photos = self.size(height, width), images[:, :channels]
        small = images if size == (height, width) else _resized(images, size)
        result = translate(small)
        if small is not images:
            result = with_fine_edges(result, small[:, :channels], photos)
        if self.preserve_color:
            if photos.shape[1] != 3 or result.shape[1] != 3:
                raise ValueError("preserve_color is for colour images; leave it out")
            result = put_luminance(result, photos)
        if self.strength < 1:
            if photos.shape[1] != result.shape[1]:
                raise ValueError("strength mixes images of the same channels; leave it out")
            result = torch.lerp(photos.to(result), result, self.strength)
        return result

    @property
    def changes(self) -> bool:
        """Whether it does anything beside translating."""
        return self != Finishing()


def with_fine_edges(painted: Tensor, small: Tensor, photos: Tensor) -> Tensor:
    """Enlarge paintings of reduced photos to the size of the photos, with the edges that reducing has lost.

    result = U(painted) + U(a) (Y − U(Y_small)), where U enlarges and Y is luminance. a is the slope of the painting
    over the photo in a window around each pixel, cov(Y_small, Y_painted) / (var(Y_small) + NOISE²), clamped to [0, 1]:
    where the painting follows an edge of the photo it gets the fine edge, and where it does not, in plain areas and
    across strokes, it gets none of the photo's grain. The slope is that of the guided filter (He, Sun & Tang 2013, eq.
    5), which is only used for the detail here, so that strokes stay.

    Args:
        painted: `(N, C', h, w)` in [-1, 1], of `small`.
        small: the reduced photos, `(N, C, h, w)` in [-1, 1].
        photos: `(N, C, H, W)` in [-1, 1].

    Returns:
        `(N, C', H, W)`, clamped to [-1, 1].
    """
    grey, guide = _luminance(painted), _luminance(small)
    mean, guide_mean = _blurred(grey), _blurred(guide)
    covariance = _blurred(grey * guide) - mean * guide_mean
    variance = _blurred(guide * guide) - guide_mean * guide_mean
    slope = (covariance / (variance + NOISE**2)).clamp(0, 1)
    size = (photos.shape[-2], photos.shape[-1])
    detail = _luminance(photos) - _resized(guide, size)
    return (_resized(painted, size) + _resized(slope, size) * detail).clamp(-1, 1)


def _luminance(images: Tensor) -> Tensor:
    """Luminance `(N, 1, H, W)`; that of images with other than three channels is their mean."""
    return to_grey(images)[:, :1] if images.shape[1] == 3 else images.mean(1, keepdim=True)


def _blurred(values: Tensor) -> Tensor:
    """The mean over a window around each pixel, which ends at the border."""
    return F.avg_pool2d(values, 2 * RADIUS + 1, stride=1, padding=RADIUS, count_include_pad=False)


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(images, size, mode="bilinear", antialias=True)
