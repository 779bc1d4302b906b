"""The generators of CycleGAN and pix2pix.

Every network is an `nn.Sequential` in the order of the original implementation. Its `state_dict` keys are therefore
those of the official checkpoints (`model.1.weight`, `model.10.conv_block.1.weight`, …).
"""

from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cyclestyle.errors import DataError
from cyclestyle.networks.normalisation import InstanceNorm2d

GeneratorName = Literal["resnet9", "resnet6", "unet256", "unet128"]
UpsampleName = Literal["transpose", "resize"]

DEPTHS: dict[GeneratorName, int] = {"resnet9": 9, "resnet6": 6, "unet256": 8, "unet128": 7}
"""Number of residual blocks of a ResNet, number of levels of a U-Net."""


def build_generator(
    name: GeneratorName,
    *,
    in_channels: int = 3,
    out_channels: int = 3,
    ngf: int = 64,
    dropout: bool = False,
    depth: int | None = None,
    upsample: UpsampleName = "transpose",
    checkpoint_activations: bool = False,
) -> "ResNetGenerator | UNetGenerator":
    """Build a generator by name.

    Args:
        name: `resnet9`, `resnet6`, `unet256` or `unet128`.
        in_channels: channels of the input images.
        out_channels: channels of the output images.
        ngf: filters of the first convolution.
        dropout: add dropout with probability 0.5.
        depth: residual blocks or levels, instead of the number in `DEPTHS`.
        upsample: see `ResNetGenerator`; a U-Net supports `transpose` only.
        checkpoint_activations: recompute activations in the backward pass to save memory.

    Raises:
        ValueError: `name` or `upsample` is unknown, `depth` is too small, or the U-Net does not support `upsample`.
    """
    if name not in DEPTHS:
        raise ValueError(f"generator must be one of {', '.join(DEPTHS)}, got {name!r}")
    depth = DEPTHS[name] if depth is None else depth
    build: partial[ResNetGenerator] | partial[UNetGenerator]
    if name.startswith("resnet"):
        build = partial(ResNetGenerator, blocks=depth, upsample=upsample)
    elif upsample == "transpose":
        build = partial(UNetGenerator, depth=depth)
    else:
        raise ValueError(f"a U-Net supports only upsample transpose, got {upsample!r}; choose a resnet generator")
    return build(
        in_channels=in_channels,
        out_channels=out_channels,
        ngf=ngf,
        dropout=dropout,
        checkpoint_activations=checkpoint_activations,
    )


class ResNetGenerator(nn.Module):
    """Johnson's residual network with instance norm (Zhu et al. 2017, appendix 7.2).

    In the paper's notation: `c7s1-64, d128, d256, R256 × blocks, u128, u64, c7s1-3`.

    Shape: `(N, in_channels, H, W)` in [-1, 1] → `(N, out_channels, H, W)` in (-1, 1). H and W must be multiples of
    `multiple` (4) and at least `min_size` (8), which the reflection padding requires.

    Args:
        in_channels: channels of the input images.
        out_channels: channels of the output images.
        ngf: filters of the first convolution.
        blocks: number of residual blocks.
        dropout: add dropout with probability 0.5 to the residual blocks.
        upsample: `transpose` (transposed convolutions, as in the original) or `resize` (bilinear interpolation, then
            a padded convolution; avoids checkerboard artifacts, Odena et al. 2016).
        checkpoint_activations: recompute activations in the backward pass to save memory.

    Raises:
        ValueError: `blocks` is less than 1, or `upsample` is unknown.
    """

    multiple = 4
    min_size = 8

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        ngf: int = 64,
        blocks: int = 9,
        dropout: bool = False,
        upsample: UpsampleName = "transpose",
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        if blocks < 1:
            raise ValueError(f"a ResNet generator needs at least 1 block, got {blocks}")
        self.checkpoint_activations = checkpoint_activations
        self.model = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(in_channels, ngf, 7),  # (N, ngf, H, W)
            InstanceNorm2d(ngf),
            nn.ReLU(inplace=True),
            nn.Conv2d(ngf, 2 * ngf, 3, stride=2, padding=1),  # (N, 2 ngf, H/2, W/2)
            InstanceNorm2d(2 * ngf),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * ngf, 4 * ngf, 3, stride=2, padding=1),  # (N, 4 ngf, H/4, W/4)
            InstanceNorm2d(4 * ngf),
            nn.ReLU(inplace=True),
            *(ResNetBlock(4 * ngf, dropout=dropout) for _ in range(blocks)),
            *_upsampling(4 * ngf, 2 * ngf, upsample),  # (N, 2 ngf, H/2, W/2)
            InstanceNorm2d(2 * ngf),
            nn.ReLU(inplace=True),
            *_upsampling(2 * ngf, ngf, upsample),  # (N, ngf, H, W)
            InstanceNorm2d(ngf),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(3),
            nn.Conv2d(ngf, out_channels, 7),  # (N, out_channels, H, W)
            nn.Tanh(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Translate images."""
        if self.checkpoint_activations and torch.is_grad_enabled():
            for stage in self._stages():
                images = checkpoint(stage, images, use_reentrant=False)
            return images
        return self.model(images)  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped

    def _stages(self) -> list[nn.Sequential]:
        """Split the network into stages that do not change their input in place, which recomputation requires."""
        starts = [n for n in range(len(self.model)) if n == 0 or isinstance(self.model[n - 1], nn.ReLU | ResNetBlock)]
        return [self.model[start:end] for start, end in pairwise([*starts, len(self.model)])]


class ResNetBlock(nn.Module):
    """Residual block: two 3×3 convolutions with reflection padding and instance norm, plus the input."""

    def __init__(self, channels: int, *, dropout: bool) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            InstanceNorm2d(channels),
            nn.ReLU(inplace=True),
            *([nn.Dropout(0.5)] if dropout else []),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            InstanceNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Shape: `(N, channels, H, W)` → `(N, channels, H, W)`."""
        result: Tensor = features + self.conv_block(features)
        return result


class UNetGenerator(nn.Module):
    """The U-Net of pix2pix (Isola et al. 2017, appendix 6.1.1) with instance norm.

    Shape: `(N, in_channels, H, W)` in [-1, 1] → `(N, out_channels, H, W)` in (-1, 1). H and W must be multiples of
    `multiple` = 2 ** depth (256 for `unet256`).

    Args:
        in_channels: channels of the input images.
        out_channels: channels of the output images.
        ngf: filters of the first convolution.
        depth: number of levels.
        dropout: add dropout with probability 0.5 to the levels with 8 · ngf channels, except the innermost.
        checkpoint_activations: recompute activations in the backward pass to save memory.

    Raises:
        ValueError: `depth` is less than 5.
        DataError: height or width is not a multiple of `multiple`.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        ngf: int = 64,
        depth: int = 8,
        dropout: bool = False,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        if depth < 5:
            raise ValueError(f"a U-Net needs at least 5 levels, got {depth}")
        self.checkpoint_activations = checkpoint_activations
        self.multiple = self.min_size = 2**depth
        block = UNetBlock(8 * ngf, 8 * ngf, position="innermost")
        for _ in range(depth - 5):
            block = UNetBlock(8 * ngf, 8 * ngf, inner=block, dropout=dropout)
        for outer, inner in ((4, 8), (2, 4), (1, 2)):
            block = UNetBlock(outer * ngf, inner * ngf, inner=block)
        self.model = UNetBlock(out_channels, ngf, in_channels=in_channels, inner=block, position="outermost")

    def forward(self, images: Tensor) -> Tensor:
        """Translate images."""
        height, width = images.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise DataError(
                f"this U-Net requires widths and heights that are multiples of {self.multiple}, got {width}×{height}; "
                "change data.crop_size, or choose a resnet generator"
            )
        if self.checkpoint_activations and torch.is_grad_enabled():
            return checkpoint(self.model, images, use_reentrant=False)  # type: ignore[no-any-return]
        return self.model(images)  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped


class UNetBlock(nn.Module):
    """One level of the U-Net: downsample, apply the inner level, upsample, and concatenate with the input."""

    def __init__(
        self,
        outer: int,
        inner_channels: int,
        *,
        in_channels: int | None = None,
        inner: "UNetBlock | None" = None,
        position: Literal["outermost", "middle", "innermost"] = "middle",
        dropout: bool = False,
    ) -> None:
        super().__init__()
        self.outermost = position == "outermost"
        down = nn.Conv2d(in_channels or outer, inner_channels, 4, stride=2, padding=1)
        up_channels = inner_channels if inner is None else 2 * inner_channels  # the inner level concatenates its input
        up = nn.ConvTranspose2d(up_channels, outer, 4, stride=2, padding=1)
        layers: list[nn.Module]
        if position == "outermost":
            layers = [down, *_optional(inner), nn.ReLU(inplace=True), up, nn.Tanh()]
        elif position == "innermost":  # no norm after `down`: its output may be a single pixel
            layers = [nn.LeakyReLU(0.2), down, nn.ReLU(inplace=True), up, InstanceNorm2d(outer)]
        else:
            layers = [nn.LeakyReLU(0.2), down, InstanceNorm2d(inner_channels), *_optional(inner)]
            layers += [nn.ReLU(inplace=True), up, InstanceNorm2d(outer)]
            layers += [nn.Dropout(0.5)] if dropout else []
        self.model = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Shape: `(N, outer, H, W)` → `(N, 2 outer, H, W)`; the outermost block returns `(N, outer, H, W)`."""
        if self.outermost:
            return self.model(features)  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped
        # The LeakyReLU of the original is in-place, so its skip connection carries the activated input.
        activated = self.model[0](features)
        return torch.cat([activated, self.model[1:](activated)], dim=1)


def _upsampling(in_channels: int, out_channels: int, upsample: UpsampleName) -> list[nn.Module]:
    """Build the layers that double height and width."""
    match upsample:
        case "transpose":
            return [nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)]
        case "resize":
            return [
                nn.Upsample(scale_factor=2, mode="bilinear"),
                nn.ReflectionPad2d(1),
                nn.Conv2d(in_channels, out_channels, 3),
            ]
    raise ValueError(f"upsample must be transpose or resize, got {upsample!r}")


def _optional(module: nn.Module | None) -> list[nn.Module]:
    return [] if module is None else [module]
