"""Discriminators in the features of a frozen network (Sauer et al. 2021, *Projected GANs Converge Faster*)."""

from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclestyle.functional.adversarial import GanMode
from cyclestyle.functional.augmentation import AugmentationName
from cyclestyle.networks.spectral import add_spectral_norm

TAPS = (24, 40, 112, 320)
"""Channels of the feature maps of EfficientNet-Lite0 with strides of 4, 8, 16 and 32."""
MIXED = (64, 128, 256, 512)
"""Channels of each map after the mixing of channels."""
LEVELS = (64, 64, 128, 256)
"""Channels of each map after the mixing of scales, which the heads score."""
WIDTHS = (64, 128, 256, 512)
"""Channels behind the down blocks; the heads of deeper maps have only the last ones of them."""
MIN_SIZE = 128  # below, the convolution at the end of each head is larger than its input


class ProjectedDiscriminator(nn.Module):
    """Scores images in random projections of the features of a frozen EfficientNet-Lite0, on four scales.

    images → enlargement to `size` → frozen features, four taps → frozen mixing across channels (CCM) → frozen mixing
    across scales (CSM) → a trained head for each scale → all scores joined.

    The mixings are random 1×1 convolutions, drawn once; CSM goes from the deepest map to the shallowest, each mixed
    map being enlarged twice and added to the next one. They are buffers: checkpoints have them, and nothing trains
    them. A head is a row of 4, 3, 2 or 1 blocks of a strided convolution, GroupNorm and LeakyReLU, and a convolution to
    one channel, all with spectral norm. Instead of the BatchNorm of the paper, GroupNorm with half as many groups as
    channels, as in joliGEN: batches of unpaired training are small.

    Shape: `(N, in_channels, H, W)` in [-1, 1] → `(N, S)`, S unbounded scores; 64 for 224×224 pixels.

    Args:
        in_channels: channels of the images: 3, or 1, which is repeated.
        size: images whose shorter side is smaller are enlarged to it; at least 128.

    Attributes:
        features: the frozen network, once it is known. A tuple does not register it as a submodule, so that
            checkpoints and optimisers do not contain it, and several discriminators may share it.
        gan_mode: the loss that these discriminators have, whatever others have.
        augmentations: what they see is always changed by these, see `diff_augment`.
        cutout: side of the block of `cutout`, relative to the image.

    Raises:
        ValueError: `in_channels` or `size` is out of its range.
    """

    gan_mode: ClassVar[GanMode] = "hinge"
    augmentations: ClassVar[tuple[AugmentationName, ...]] = ("translation", "cutout")
    cutout: ClassVar[float] = 0.2

    def __init__(self, *, in_channels: int = 3, size: int = 224) -> None:
        super().__init__()
        if in_channels not in (1, 3):
            raise ValueError(f"projected discriminators need images of 1 or 3 channels, got {in_channels}")
        if size < MIN_SIZE:
            raise ValueError(f"projected_size must be at least {MIN_SIZE}, got {size}")
        self.size = size
        self.features: tuple[nn.Module, ...] = ()
        self.channel_mixing = nn.ModuleList(map(_Mixing, TAPS, MIXED))
        self.scale_mixing = nn.ModuleList(map(_Mixing, MIXED, LEVELS))
        self.heads = nn.ModuleList(_head(channels, WIDTHS[level:]) for level, channels in enumerate(LEVELS))

    def forward(self, images: Tensor) -> Tensor:
        """Compute the scores of all heads."""
        maps = self.project(images)
        return torch.cat([head(each).flatten(1) for head, each in zip(self.heads, maps, strict=True)], dim=1)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the frozen features and the heads, which are nearly all of the work."""
        for part in (*self.features, *self.heads):
            part.compile(*args, **kwargs)

    def project(self, images: Tensor) -> list[Tensor]:
        """Return the four mixed maps, `(N, 64, H/2, W/2)`, `(N, 64, H/4, W/4)`, `(N, 128, …)`, `(N, 256, …)`."""
        if (shorter := min(images.shape[-2:])) < self.size:
            shape = [round(side * self.size / shorter) for side in images.shape[-2:]]
            images = F.interpolate(images, shape, mode="bilinear")
        # The features keep their precision: weights that are rounded to that of an image, and back, are those of
        # another network, and the backward pass of the images before would meet them.
        images = images.to(torch.promote_types(images.dtype, torch.float32))
        taps = self.features[0].to(images)(images.expand(-1, 3, -1, -1))
        maps: list[Tensor] = []
        for level in (3, 2, 1, 0):
            mixed = self.channel_mixing[level](taps[level])
            if maps:
                mixed = mixed + maps[0]
            height, width = taps[level - 1].shape[-2:] if level else (2 * side for side in mixed.shape[-2:])
            # A 1×1 convolution and an enlargement may change places, and the convolution is cheaper first.
            mixed = self.scale_mixing[level](mixed)
            maps.insert(0, F.interpolate(mixed, (height, width), mode="bilinear", align_corners=True))
        return maps


class _Mixing(nn.Module):
    """A 1×1 convolution with the weights that PyTorch draws for it, as buffers, which nothing trains."""

    weight: Tensor
    bias: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        for name, value in nn.Conv2d(in_channels, out_channels, 1).named_parameters():
            self.register_buffer(name, value.detach())

    def forward(self, features: Tensor) -> Tensor:
        return F.conv2d(features, self.weight, self.bias)


def _head(in_channels: int, widths: tuple[int, ...]) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((in_channels, *widths)):
        layers += [
            nn.Conv2d(inputs, outputs, 4, stride=2, padding=1),
            nn.GroupNorm(outputs // 2, outputs),
            nn.LeakyReLU(0.2, inplace=True),
        ]
    head = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, bias=False))
    add_spectral_norm(head)
    return head
