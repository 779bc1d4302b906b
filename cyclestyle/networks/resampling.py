"""Antialiased down- and upsampling (Zhang 2019, *Making Convolutional Networks Shift-Invariant Again*)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ResampleName = Literal["transpose", "resize", "blur"]


class BlurDown(nn.Module):
    """Halves height and width: a blur by [1, 2, 1] ⊗ [1, 2, 1] / 16, reflected at the border, with a stride of 2.

    Shape: `(N, channels, H, W)` → `(N, channels, ⌈H/2⌉, ⌈W/2⌉)`. H and W are at least 2.

    Args:
        channels: the number of channels. The filter is stored once a channel, as `filt`, as in the files of CUT.
    """

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", _filter([1.0, 2.0, 1.0], channels, total=1.0))

    def forward(self, features: Tensor) -> Tensor:
        """Blur and subsample."""
        padded = F.pad(features, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, self.filt, stride=2, groups=features.shape[1])


class BlurUp(nn.Module):
    """Doubles height and width: a transposed convolution with [1, 3, 3, 1] ⊗ [1, 3, 3, 1] / 16, edges repeated.

    This is bilinear interpolation with half-pixel centres, which is what is computed, because it is several times
    faster. The filter is kept as `filt` because the files of CUT have it.

    Shape: `(N, channels, H, W)` → `(N, channels, 2H, 2W)`.

    Args:
        channels: the number of channels.
    """

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", _filter([1.0, 3.0, 3.0, 1.0], channels, total=4.0))

    def forward(self, features: Tensor) -> Tensor:
        """Interpolate."""
        return F.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)


def _filter(taps: list[float], channels: int, *, total: float) -> Tensor:
    """Return the separable filter of `taps` with the sum `total` for each channel: `(channels, 1, K, K)`."""
    line = torch.tensor(taps)
    square = torch.outer(line, line)
    return (square * (total / square.sum())).expand(channels, 1, -1, -1).clone()
