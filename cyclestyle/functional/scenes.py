"""Where the scenes of a video begin."""

import torch
import torch.nn.functional as F
from torch import Tensor

THUMBNAIL = 16  # height and width of the images that are compared
_FLAT = 1e-4  # variance, of images in [-1, 1], below which an image is flat


def thumbnails(images: Tensor) -> Tensor:
    """Reduce images `(N, C, H, W)` to `(N, C, 16, 16)`, less the mean of each channel."""
    small = F.adaptive_avg_pool2d(images.float(), THUMBNAIL)
    return small - small.mean(dim=(2, 3), keepdim=True)


def scene_difference(one: Tensor, other: Tensor) -> Tensor:
    """Compare images by their thumbnails, `(N, C, 16, 16)` each: `(N,)` from 0 to 2.

    It is the mean squared difference, divided by the sum of both variances. Equal images have 0, unrelated ones about
    1. Brightness does not count, because the means are taken off, and contrast hardly: an image and its half have 0.2.
    Noise and small movements vanish in the thumbnails.
    """
    difference = (one - other).square().mean(dim=(1, 2, 3))
    variances = one.square().mean(dim=(1, 2, 3)) + other.square().mean(dim=(1, 2, 3))
    return torch.where(variances < _FLAT, torch.zeros_like(difference), difference / variances.clamp(min=_FLAT))
