"""Discriminators by name; the `state_dict` keys of CycleGAN's and pix2pix's are those of the official checkpoints."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from cyclestyle.errors import DataError
from cyclestyle.networks.normalisation import InstanceNorm2d
from cyclestyle.networks.projected import ProjectedDiscriminator
from cyclestyle.networks.resampling import BlurDown, ResampleName

DiscriminatorName = Literal["basic", "n_layers", "pixel", "projected"]


def build_discriminators(names: DiscriminatorName | Sequence[DiscriminatorName], **settings: Any) -> nn.Module:
    """Build what judges a domain: a discriminator, or a `ModuleList` of those that judge it together.

    Args:
        names: one name, or several, none twice.
        settings: those of `build_discriminator`.

    Raises:
        ValueError: a name is unknown or given twice, there is none, or a setting is out of its range.
    """
    if isinstance(names, str):
        return build_discriminator(names, **settings)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"discriminator must be a name, or a list of names, none twice, got {list(names)}")
    return nn.ModuleList(build_discriminator(name, **settings) for name in names)


def members(discriminator: nn.Module) -> list[nn.Module]:
    """Return the discriminators that judge a domain together, from what `build_discriminators` returned."""
    return list(discriminator) if isinstance(discriminator, nn.ModuleList) else [discriminator]


def build_discriminator(
    name: DiscriminatorName,
    *,
    in_channels: int = 3,
    ndf: int = 64,
    n_layers: int = 3,
    resample: ResampleName = "transpose",
    projected_size: int = 224,
) -> "Discriminator":
    """Build a discriminator by name.

    Args:
        name: `basic` (70×70 PatchGAN), `n_layers` (PatchGAN of any depth), `pixel` (1×1 PixelGAN) or `projected`.
        in_channels: channels of the images.
        ndf: filters of the first convolution; unused by `projected`.
        n_layers: depth for `n_layers`; unused by the others.
        resample: see `PatchDiscriminator`; unused by `pixel` and `projected`.
        projected_size: for `projected`: see `ProjectedDiscriminator`.

    Raises:
        ValueError: `name` is unknown, or another value is out of its range.
    """
    if n_layers < 1:
        raise ValueError(f"n_layers must be at least 1, got {n_layers}")
    match name:
        case "basic":
            return PatchDiscriminator(in_channels=in_channels, ndf=ndf, n_layers=3, resample=resample)
        case "n_layers":
            return PatchDiscriminator(in_channels=in_channels, ndf=ndf, n_layers=n_layers, resample=resample)
        case "pixel":
            return PixelDiscriminator(in_channels=in_channels, ndf=ndf)
        case "projected":
            return ProjectedDiscriminator(in_channels=in_channels, size=projected_size)
    raise ValueError(f"discriminator must be basic, n_layers, pixel or projected, got {name!r}")


class PatchDiscriminator(nn.Module):
    """PatchGAN: scores overlapping patches of 70×70 pixels with three layers (Isola et al. 2017, section 3.2.2).

    Shape: `(N, in_channels, H, W)` → `(N, 1, h, w)`, one unbounded score per patch. H and W must be at least
    `min_size`, which is 24 with three layers.

    Args:
        in_channels: channels of the images.
        ndf: filters of the first convolution.
        n_layers: number of convolutions that halve height and width.
        resample: with `blur`, these convolutions have a stride of 1 and an antialiased downsampling behind them, as
            in CUT. The other names, which differ in upsampling alone, mean strided convolutions.

    Raises:
        DataError: the images are smaller than `min_size`.
    """

    def __init__(
        self, *, in_channels: int = 3, ndf: int = 64, n_layers: int = 3, resample: ResampleName = "transpose"
    ) -> None:
        super().__init__()
        self.min_size = 3 * 2**n_layers  # the last two convolutions remove one pixel each, the others halve the size
        blur = resample == "blur"
        stride = 1 if blur else 2
        widths = [ndf * min(2**level, 8) for level in range(n_layers + 1)]
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, ndf, 4, stride=stride, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            *([BlurDown(ndf)] if blur else []),  # (N, ndf, H/2, W/2)
        ]
        for level in range(1, n_layers + 1):
            halves = level < n_layers
            layers += [
                nn.Conv2d(widths[level - 1], widths[level], 4, stride=stride if halves else 1, padding=1),
                InstanceNorm2d(widths[level]),
                nn.LeakyReLU(0.2, inplace=True),
                *([BlurDown(widths[level])] if blur and halves else []),
            ]
        layers.append(nn.Conv2d(widths[-1], 1, 4, padding=1))  # (N, 1, H/8 - 2, W/8 - 2) with three layers
        self.model = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the scores of all patches."""
        height, width = images.shape[-2:]
        if min(height, width) < self.min_size:
            raise DataError(
                f"this discriminator requires images of at least {self.min_size}×{self.min_size} pixels, got "
                f"{width}×{height}; change data.crop_size, or choose the pixel discriminator or fewer layers"
            )
        return self.model(images)  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped


class PixelDiscriminator(nn.Module):
    """PixelGAN: scores each pixel from its colour alone (Isola et al. 2017, section 3.2.2).

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
        """Compute the scores of all pixels."""
        return self.net(images)  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped


Discriminator = PatchDiscriminator | PixelDiscriminator | ProjectedDiscriminator
