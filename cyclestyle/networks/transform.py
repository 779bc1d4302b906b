"""The image transformation network of fast style transfer."""

from typing import get_args

import torch.nn.functional as F
from torch import Tensor, nn

from cyclestyle.networks.generators import UpsampleName
from cyclestyle.networks.normalisation import InstanceNorm2d

BLOCKS = 5
LEVELS = 127.5
"""What the last convolution counts in: levels of 8 bits, 127.5 to a unit, from grey.

As in the paper's code, whose images are in [0, 255]. It sums up 2,592 products of numbers of about 1, so that one of
Adam's first steps moves it by a few; in units of [-1, 1] images would be flat white or black after it.
"""


class TransformNetwork(nn.Module):
    """Johnson's network (Johnson et al. 2016, section 3.1) with instance norm for its batch norm (Ulyanov et al. 2016).

    In the paper's notation: `c9s1-32, d64, d128, R128 × 5, u64, u32, c9s1-3`. Every convolution is padded by
    reflection, so that images get no frame; the norms have weights of their own; the last convolution is linear.

    Shape: `(N, 3, H, W)` in [-1, 1] → the same, about in [-1, 1]; H and W are multiples of `multiple` (4), and at
    least `min_size` (8), which leaves the reflection on the innermost level two pixels.

    Args:
        upsample: `resize` (nearest neighbours, then a convolution: no checkerboards, Odena et al. 2016), or
            `transpose` (transposed convolutions, as in the paper).
        width: filters of the first convolution.

    Raises:
        ValueError: `upsample` is neither of these, or `width` is below 1.
    """

    multiple = 4
    min_size = 8
    in_channels = 3

    def __init__(self, *, upsample: UpsampleName = "resize", width: int = 32) -> None:
        super().__init__()
        if upsample not in get_args(UpsampleName):
            raise ValueError(f"upsample must be resize or transpose, got {upsample!r}")
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.upsample = upsample
        self.first = NormedConvolution(_convolution(3, width, 9))
        self.down1 = NormedConvolution(_convolution(width, 2 * width, 3, stride=2))
        self.down2 = NormedConvolution(_convolution(2 * width, 4 * width, 3, stride=2))
        self.blocks = nn.Sequential(*(TransformBlock(4 * width) for _ in range(BLOCKS)))
        self.up1 = NormedConvolution(self._doubling(4 * width, 2 * width))
        self.up2 = NormedConvolution(self._doubling(2 * width, width))
        self.last = _convolution(width, 3, 9)

    def forward(self, images: Tensor) -> Tensor:
        """Paint a batch of images."""
        features = F.relu(self.first(images), inplace=True)  # (N, width, H, W)
        features = F.relu(self.down1(features), inplace=True)  # (N, 2 width, H/2, W/2)
        features = F.relu(self.down2(features), inplace=True)  # (N, 4 width, H/4, W/4)
        features = self.blocks(features)
        features = F.relu(self.up1(self._enlarged(features)), inplace=True)  # (N, 2 width, H/2, W/2)
        features = F.relu(self.up2(self._enlarged(features)), inplace=True)  # (N, width, H, W)
        painted: Tensor = self.last(features) / LEVELS  # (N, 3, H, W)
        return painted

    def _doubling(self, inputs: int, outputs: int) -> nn.Conv2d | nn.ConvTranspose2d:
        if self.upsample == "transpose":
            return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
        return _convolution(inputs, outputs, 3)

    def _enlarged(self, features: Tensor) -> Tensor:
        """Double height and width, unless a transposed convolution will."""
        return F.interpolate(features, scale_factor=2, mode="nearest") if self.upsample == "resize" else features


class NormedConvolution(nn.Module):
    """A convolution and its instance norm."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        self.conv = conv
        self.norm = InstanceNorm2d(conv.out_channels, affine=True)

    def forward(self, features: Tensor) -> Tensor:
        """`(N, C, H, W)` → what the convolution makes of it, normalised."""
        result: Tensor = self.norm(self.conv(features))
        return result


class TransformBlock(nn.Module):
    """Two 3×3 convolutions whose result is added to the input, without a rectifier after (Gross & Wilber 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = NormedConvolution(_convolution(channels, channels, 3))
        self.second = NormedConvolution(_convolution(channels, channels, 3))

    def forward(self, features: Tensor) -> Tensor:
        """`(N, channels, H, W)` → the same shape."""
        result: Tensor = features + self.second(F.relu(self.first(features), inplace=True))
        return result


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, padding_mode="reflect")
