"""The discriminators of CycleGAN and pix2pix, with the keys of the official checkpoints."""

from typing import Literal

from torch import Tensor, nn

from cyclestyle.errors import DataError
from cyclestyle.networks.normalisation import InstanceNorm2d

DiscriminatorName = Literal["basic", "n_layers", "pixel"]


def build_discriminator(
    name: DiscriminatorName, *, in_channels: int = 3, ndf: int = 64, n_layers: int = 3
) -> "PatchDiscriminator | PixelDiscriminator":
    """Build a discriminator: `basic` (70×70 PatchGAN), `n_layers` (its depth is free) or `pixel` (1×1).

    Raises:
        ValueError: the name is not one of these, or `n_layers` is below 1.
    """
    if n_layers < 1:
        raise ValueError(f"n_layers must be at least 1, got {n_layers}")
    match name:
        case "basic":
            return PatchDiscriminator(in_channels=in_channels, ndf=ndf, n_layers=3)
        case "n_layers":
            return PatchDiscriminator(in_channels=in_channels, ndf=ndf, n_layers=n_layers)
        case "pixel":
            return PixelDiscriminator(in_channels=in_channels, ndf=ndf)
    raise ValueError(f"discriminator must be basic, n_layers or pixel, got {name!r}")


class PatchDiscriminator(nn.Module):
    """PatchGAN: judges overlapping patches, 70×70 pixels with three layers (Isola et al. 2017, 3.2.2).

    Shape: `(N, in_channels, H, W)` → `(N, 1, h, w)`, one unbounded score a patch; H and W are at least
    `min_size`, 24 with three layers.

    Raises:
        DataError: the images are smaller.
    """

    def __init__(self, *, in_channels: int = 3, ndf: int = 64, n_layers: int = 3) -> None:
        super().__init__()
        self.min_size = 3 * 2**n_layers  # each but the last two convolutions halves, and those take one pixel each
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, ndf, 4, stride=2, padding=1),  # (N, ndf, H/2, W/2)
            nn.LeakyReLU(0.2, inplace=True),
        ]
        widths = [ndf * min(2**level, 8) for level in range(n_layers + 1)]
        for level in range(1, n_layers + 1):
            stride = 1 if level == n_layers else 2
            layers += [
                nn.Conv2d(widths[level - 1], widths[level], 4, stride=stride, padding=1),
                InstanceNorm2d(widths[level]),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        layers.append(nn.Conv2d(widths[-1], 1, 4, padding=1))  # (N, 1, H/8 - 2, W/8 - 2) with three layers
        self.model = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Score the patches of a batch of images."""
        height, width = images.shape[-2:]
        if min(height, width) < self.min_size:
            raise DataError(
                f"this discriminator takes images of at least {self.min_size}×{self.min_size} pixels, got "
                f"{width}×{height}; change data.crop_size, or choose the pixel discriminator or fewer layers"
            )
        return self.model(images)  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped


class PixelDiscriminator(nn.Module):
    """PixelGAN: judges each pixel by its colour alone (Isola et al. 2017, 3.2.2).

    Shape: `(N, in_channels, H, W)` → `(N, 1, H, W)`.
    """

    def __init__(self, *, in_channels: int = 3, ndf: int = 64) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, ndf, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf, 2 * ndf, 1),
            InstanceNorm2d(2 * ndf),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * ndf, 1, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Score the pixels of a batch of images."""
        return self.net(images)  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped
