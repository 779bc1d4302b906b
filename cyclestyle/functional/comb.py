"""Removal of the checkerboard that upsampling leaves in images."""

import torch
import torch.nn.functional as F
from torch import Tensor

PERIOD = 4  # of the pattern of two layers that double height and width
REACH = 6  # cells of the pattern that are averaged, on each side


def comb_filter(images: Tensor) -> Tensor:
    """Remove from images what repeats itself every 4 pixels, which is where upsampling by 2 and by 4 leaves patterns.

    The pattern at a pixel is the weighted mean of the pixels that are 0, 4, 8, … to 24 pixels away across and down,
    less the mean of such means around it. Both are symmetric filters, so that areas of one colour and linear slopes
    stay as they are. Of the spectrum this removes narrow bands around 1/4 and 1/2 cycle per pixel (a comb filter):
    irregular textures lose little.

    Shape: `(N, C, H, W)` in [-1, 1] → the same. Images with a side of at most 26 pixels are returned as they are.
    """
    margin = PERIOD * REACH
    if min(images.shape[-2:]) <= margin + 2:
        return images
    cells = torch.cat([torch.arange(1.0, REACH + 2), torch.arange(1.0, REACH + 1).flip(0)])
    means = _blurred(images, cells, PERIOD)
    pattern = means - _blurred(means, torch.tensor([1.0, 2.0, 2.0, 2.0, 1.0]), 1)  # all 4 phases have equal weight
    return (images - pattern).clamp(-1, 1)


def _blurred(images: Tensor, taps: Tensor, spacing: int) -> Tensor:
    """Filter with taps that are `spacing` pixels apart, across and down; borders are reflected."""
    channels = images.shape[1]
    taps = (taps / taps.sum()).to(images.device, images.dtype).expand(channels, 1, 1, -1)
    reach = spacing * (taps.shape[-1] // 2)
    images = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    images = F.conv2d(images, taps, dilation=(1, spacing), groups=channels)
    return F.conv2d(images, taps.mT, dilation=(spacing, 1), groups=channels)
