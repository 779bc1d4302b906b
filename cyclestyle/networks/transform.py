"""The image transformation network of fast style transfer."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclestyle.networks.normalisation import ConditionalInstanceNorm2d, InstanceNorm2d

UpsampleName = Literal["transpose", "resize"]
OutputName = Literal["tanh", "levels", "sigmoid"]

BLOCKS = 5
OUTPUT_SCALE = 127.5  # 8-bit levels for a change of 1 of an image in [-1, 1]
TANH_SCALE = 150.0  # levels
LEVELS = (123.68, 116.779, 103.939)  # mean RGB levels of ImageNet, in the code of the paper


class TransformNetwork(nn.Module):
    """The network of Johnson et al. 2016 (section 3.1) with instance norm instead of batch norm (Ulyanov et al. 2016).

    In the notation of the CycleGAN paper: `c9s1-32, d64, d128, R128 × 5, u64, u32, c9s1-3`. All convolutions use
    reflection padding, which avoids artifacts at the image border. The norms are affine.

    The last convolution gives 8-bit levels, from which Adam's first steps differ widely. With x its result:

    | `output` | image in levels of 0 to 255 | of |
    |---|---|---|
    | `tanh` | mean of ImageNet + 150 tanh(x) | the authors' code; a step of Adam moves an image by tens of levels |
    | `levels` | 127.5 + x | PyTorch's example, whose x is 127.5 larger; a step moves an image by a few levels |
    | `sigmoid` | 255 / (1 + exp(−x)) | Dumoulin et al. 2017 |

    With `styles` above 0 it is the network of Dumoulin et al. 2017: every convolution, the last one too, is followed by
    a `ConditionalInstanceNorm2d`, and all other weights are shared by the styles.

    Shape: `(N, 3, H, W)` in [-1, 1] → `(N, 3, H, W)`, approximately in [-1, 1] but not clamped. H and W must be
    multiples of `multiple` (4) and at least `min_size` (8), so that the innermost level has the two pixels that
    reflection padding requires.

    Args:
        upsample: `resize` (nearest-neighbour interpolation, then a convolution; avoids checkerboard artifacts, Odena
            et al. 2016) or `transpose` (transposed convolutions, as in the paper).
        output: `tanh`, `levels` or `sigmoid`, see above.
        width: filters of the first convolution.
        styles: number of styles; 0 for a network of one style, which takes no second argument.

    Raises:
        ValueError: `upsample` or `output` is unknown, `width` is less than 1, or `styles` is negative.
    """

    multiple = 4
    min_size = 8
    in_channels = 3
    mean: Tensor

    def __init__(
        self, *, upsample: UpsampleName = "resize", output: OutputName = "levels", width: int = 32, styles: int = 0
    ) -> None:
        super().__init__()
        if upsample not in get_args(UpsampleName):
            raise ValueError(f"upsample must be resize or transpose, got {upsample!r}")
        if output not in get_args(OutputName):
            raise ValueError(f"output must be tanh, levels or sigmoid, got {output!r}")
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        if styles < 0:
            raise ValueError(f"styles must not be negative, got {styles}")
        self.upsample, self.output, self.styles = upsample, output, styles
        self.first = NormedConvolution(_convolution(3, width, 9), styles)
        self.down1 = NormedConvolution(_convolution(width, 2 * width, 3, stride=2), styles)
        self.down2 = NormedConvolution(_convolution(2 * width, 4 * width, 3, stride=2), styles)
        self.blocks = nn.Sequential(*(TransformBlock(4 * width, styles) for _ in range(BLOCKS)))
        self.up1 = NormedConvolution(self._up_convolution(4 * width, 2 * width), styles)
        self.up2 = NormedConvolution(self._up_convolution(2 * width, width), styles)
        last = _convolution(width, 3, 9)
        self.last = NormedConvolution(last, styles) if styles else last
        # A constant of the device: one made in each call would wait for a GPU. State dicts stay without it.
        self.register_buffer("mean", torch.tensor(LEVELS)[:, None, None], persistent=False)

    def forward(self, images: Tensor, styles: Tensor | None = None) -> Tensor:
        """Stylise images.

        Args:
            images: `(N, 3, H, W)` in [-1, 1].
            styles: the share of each style, `(N, styles, 1, 1)`, or `(N, styles, H, W)` for each pixel; the first axis
                may be 1. None for a network of one style.
        """
        half = _halved(styles)
        quarter = _halved(half)
        features = F.relu(self.first(images, styles), inplace=True)  # (N, width, H, W)
        features = F.relu(self.down1(features, half), inplace=True)  # (N, 2 width, H/2, W/2)
        features = F.relu(self.down2(features, quarter), inplace=True)  # (N, 4 width, H/4, W/4)
        for block in self.blocks:
            features = block(features, quarter)
        features = F.relu(self.up1(self._interpolate(features), half), inplace=True)  # (N, 2 width, H/2, W/2)
        features = F.relu(self.up2(self._interpolate(features), styles), inplace=True)  # (N, width, H, W)
        result: Tensor = self.last(features) if styles is None else self.last(features, styles)  # (N, 3, H, W)
        if self.output == "levels":
            return result / OUTPUT_SCALE
        if self.output == "sigmoid":
            return 2 * torch.sigmoid(result) - 1
        return (self.mean.to(result.dtype) + TANH_SCALE * torch.tanh(result)) / OUTPUT_SCALE - 1

    def _up_convolution(self, in_channels: int, out_channels: int) -> nn.Conv2d | nn.ConvTranspose2d:
        if self.upsample == "transpose":
            return nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)
        return _convolution(in_channels, out_channels, 3)

    def _interpolate(self, features: Tensor) -> Tensor:
        """Double height and width, unless the following convolution is transposed and does it."""
        return F.interpolate(features, scale_factor=2, mode="nearest") if self.upsample == "resize" else features


class NormedConvolution(nn.Module):
    """A convolution followed by an affine instance norm, which is conditional with `styles` above 0."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, styles: int = 0) -> None:
        super().__init__()
        self.conv = conv
        self.norm: nn.Module = (
            ConditionalInstanceNorm2d(conv.out_channels, styles)
            if styles
            else InstanceNorm2d(conv.out_channels, affine=True)
        )

    def forward(self, features: Tensor, styles: Tensor | None = None) -> Tensor:
        """Shape: that of the convolution; `styles` as in `ConditionalInstanceNorm2d`."""
        convolved = self.conv(features)
        result: Tensor = self.norm(convolved) if styles is None else self.norm(convolved, styles)
        return result


class TransformBlock(nn.Module):
    """Residual block: two 3×3 convolutions plus the input, without a ReLU after the sum (Gross & Wilber 2016)."""

    def __init__(self, channels: int, styles: int = 0) -> None:
        super().__init__()
        self.first = NormedConvolution(_convolution(channels, channels, 3), styles)
        self.second = NormedConvolution(_convolution(channels, channels, 3), styles)

    def forward(self, features: Tensor, styles: Tensor | None = None) -> Tensor:
        """Shape: `(N, channels, H, W)` → `(N, channels, H, W)`."""
        result: Tensor = features + self.second(F.relu(self.first(features, styles), inplace=True), styles)
        return result


def _halved(styles: Tensor | None) -> Tensor | None:
    """The shares at half the resolution; those of whole images stay as they are."""
    return styles if styles is None or styles.shape[-2:] == (1, 1) else F.avg_pool2d(styles, 2)


def _convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    padding = kernel_size // 2
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding, padding_mode="reflect")
