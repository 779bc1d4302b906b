"""The generators of CycleGAN, CUT and pix2pix.

Every network is an `nn.Sequential` in the order of the original implementations. Its `state_dict` keys are therefore
those of the official checkpoints (`model.1.weight`, `model.10.conv_block.1.weight`, …).

Every generator names the activations of its encoder, which contrastive losses compare: `feature_channels` maps each
name to its number of channels, and `features(images, names)` returns them. `contrastive_features` are the names that
CUT compares by default.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cyclestyle.errors import DataError
from cyclestyle.functional.comb import comb_filter
from cyclestyle.networks.normalisation import InstanceNorm2d, NormName, remove_norms
from cyclestyle.networks.resampling import BlurDown, BlurUp, ResampleName

GeneratorName = Literal["resnet9", "resnet6", "unet256", "unet128"]

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
    resample: ResampleName = "transpose",
    norm: NormName = "instance",
    residual: float | bool = 0.0,
    comb_filter: bool = False,
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
        resample: see `ResNetGenerator`; a U-Net supports `transpose` only.
        norm: `instance`; or `none`, for weights into which norms have been folded: drawn anew, such a generator is
            hard to train.
        residual: 0: draw the result anew. Otherwise learn the change of the image: tanh(f(x) + atanh(r x)) in place
            of tanh(f(x)), with r = `residual` below 1, so that an untrained generator returns nearly r x. The global
            skip connection of DeblurGAN (Kupyn et al. 2018, section 4) with a tanh, so that results stay in (-1, 1).
            Black and white change the less the nearer r is to 1, because the tanh is flat there. True, in
            configs and checkpoints from before r was a setting, is 0.99.
        comb_filter: remove the checkerboard of upsampling from the results; not in training. See `comb_filter` in
            `cyclestyle.functional.comb`.
        checkpoint_activations: recompute activations in the backward pass to save memory.

    Raises:
        ValueError: `name`, `resample` or `norm` is unknown, `depth` is too small, the U-Net does not support
            `resample`, `residual` is out of its range, or it is asked for with different numbers of channels.
    """
    if name not in DEPTHS:
        raise ValueError(f"generator must be one of {', '.join(DEPTHS)}, got {name!r}")
    if norm not in get_args(NormName):
        raise ValueError(f"norm must be one of {', '.join(get_args(NormName))}, got {norm!r}")
    residual = 0.99 if residual is True else float(residual)
    if not 0 <= residual < 1:
        raise ValueError(f"residual must be at least 0 and below 1, got {residual}")
    if residual and in_channels != out_channels:
        raise ValueError(
            "a residual generator changes its image and needs the same channels in both domains, got "
            f"{in_channels} and {out_channels}; set residual to 0"
        )
    depth = DEPTHS[name] if depth is None else depth
    build: partial[ResNetGenerator] | partial[UNetGenerator]
    if name.startswith("resnet"):
        build = partial(ResNetGenerator, blocks=depth, resample=resample)
    elif resample == "transpose":
        build = partial(UNetGenerator, depth=depth)
    else:
        raise ValueError(f"a U-Net supports only resample transpose, got {resample!r}; choose a resnet generator")
    network = build(
        in_channels=in_channels,
        out_channels=out_channels,
        ngf=ngf,
        dropout=dropout,
        residual=residual,
        comb_filter=comb_filter,
        checkpoint_activations=checkpoint_activations,
    )
    if norm == "none":
        remove_norms(network)
    return network


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
        resample: how height and width change. `transpose`: strided and transposed convolutions, as in CycleGAN.
            `resize`: strided convolutions; bilinear interpolation, then a padded convolution (avoids checkerboard
            artifacts, Odena et al. 2016). `blur`: convolutions with a stride of 1 and antialiased resampling in both
            directions, as in CUT (Zhang 2019).
        residual: add the image before the last tanh, see `build_generator`.
        comb_filter: remove the checkerboard of upsampling from the results; not in training.
        checkpoint_activations: recompute activations in the backward pass to save memory.

    Features, with `blocks` 9 and `resample` `blur` the layers 0, 4, 8 and 12 to 20 of CUT:

    | name | what | shape | with `blur` |
    |---|---|---|---|
    | `pixels` | the image with 3 reflected pixels on each side | `(N, in_channels, H + 6, W + 6)` | the same |
    | `down1` | the second convolution, before its norm | `(N, 2 ngf, H/2, W/2)` | `(N, 2 ngf, H, W)` |
    | `down2` | the third convolution, before its norm | `(N, 4 ngf, H/4, W/4)` | `(N, 4 ngf, H/2, W/2)` |
    | `block0`, … | the residual blocks | `(N, 4 ngf, H/4, W/4)` | the same |

    Raises:
        ValueError: `blocks` is less than 1, or `resample` is unknown.
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
        resample: ResampleName = "transpose",
        residual: float = 0.0,
        comb_filter: bool = False,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        if blocks < 1:
            raise ValueError(f"a ResNet generator needs at least 1 block, got {blocks}")
        check_resample(resample)
        self.residual, self.comb_filter = residual, comb_filter
        self.checkpoint_activations = checkpoint_activations
        self.model = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(in_channels, ngf, 7),  # (N, ngf, H, W)
            InstanceNorm2d(ngf),
            nn.ReLU(inplace=True),
            *_downsampling(ngf, 2 * ngf, resample),  # (N, 2 ngf, H/2, W/2)
            *_downsampling(2 * ngf, 4 * ngf, resample),  # (N, 4 ngf, H/4, W/4)
            *(ResNetBlock(4 * ngf, dropout=dropout) for _ in range(blocks)),
            *_upsampling(4 * ngf, 2 * ngf, resample),  # (N, 2 ngf, H/2, W/2)
            InstanceNorm2d(2 * ngf),
            nn.ReLU(inplace=True),
            *_upsampling(2 * ngf, ngf, resample),  # (N, ngf, H, W)
            InstanceNorm2d(ngf),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(3),
            nn.Conv2d(ngf, out_channels, 7),  # (N, out_channels, H, W)
            nn.Identity() if residual else nn.Tanh(),
        )
        down2, first = (8, 12) if resample == "blur" else (7, 10)  # modules of `model`
        self.places = {"pixels": 0, "down1": 4, "down2": down2} | {f"block{n}": first + n for n in range(blocks)}
        self.feature_channels = dict.fromkeys(self.places, 4 * ngf) | {"pixels": in_channels, "down1": 2 * ngf}
        compared = ("pixels", "down1", "down2", "block0", "block4")
        self.contrastive_features = tuple(name for name in compared if name in self.places)

    def forward(self, images: Tensor) -> Tensor:
        """Translate images."""
        result = images
        if self.checkpoint_activations and torch.is_grad_enabled():
            for stage in self._stages():
                result = checkpoint(stage, result, use_reentrant=False)
        else:
            result = self.model(images)
        if self.residual:
            result = changed(images, result, self.residual)
        return comb_filter(result) if self.comb_filter and not self.training else result

    def features(self, images: Tensor, names: Sequence[str]) -> list[Tensor]:
        """Return activations of the encoder in the order of `names`, running no layer behind the last of them.

        Args:
            images: `(N, in_channels, H, W)` in [-1, 1].
            names: keys of `feature_channels`.
        """
        recompute = self.checkpoint_activations and torch.is_grad_enabled()
        places = [self.places[name] for name in names]
        found: dict[int, Tensor] = {}
        end = 0
        for stage in self._stages(places):
            images = checkpoint(stage, images, use_reentrant=False) if recompute else stage(images)
            end += len(stage)
            if end - 1 in places:
                found[end - 1] = images
            if end > max(places):
                break
        return [found[place] for place in places]

    def _stages(self, places: Sequence[int] = ()) -> list[nn.Sequential]:
        """Split the network into stages that do not change their input in place, which recomputation requires.

        Each of `places` is the last module of a stage. None of the features is changed in place by the next module.
        """
        starts = {0, *(place + 1 for place in places)}
        starts |= {n + 1 for n, module in enumerate(self.model) if isinstance(module, nn.ReLU | ResNetBlock)}
        return [self.model[start:end] for start, end in pairwise([*sorted(starts), len(self.model)])]


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
        residual: add the image before the last tanh, see `build_generator`.
        comb_filter: remove the checkerboard of upsampling from the results; not in training.
        checkpoint_activations: recompute activations in the backward pass to save memory.

    Features: `pixels`, the image itself; and `down1` to the last level but one, the strided convolutions before their
    norm, `(N, ngf · min(2 ** (level - 1), 8), H / 2 ** level, W / 2 ** level)`.

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
        residual: float = 0.0,
        comb_filter: bool = False,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        if depth < 5:
            raise ValueError(f"a U-Net needs at least 5 levels, got {depth}")
        self.residual, self.comb_filter = residual, comb_filter
        self.checkpoint_activations = checkpoint_activations
        self.multiple = self.min_size = 2**depth
        block = UNetBlock(8 * ngf, 8 * ngf, position="innermost")
        for _ in range(depth - 5):
            block = UNetBlock(8 * ngf, 8 * ngf, inner=block, dropout=dropout)
        for outer, inner in ((4, 8), (2, 4), (1, 2)):
            block = UNetBlock(outer * ngf, inner * ngf, inner=block)
        self.model = UNetBlock(out_channels, ngf, in_channels=in_channels, inner=block, position="outermost")
        if residual:
            self.model.model[-1] = nn.Identity()  # in place of the tanh
        levels = range(1, depth)  # the last one may be a single pixel, which has no negatives
        self.feature_channels = {"pixels": in_channels} | {f"down{n}": ngf * min(2 ** (n - 1), 8) for n in levels}
        self.contrastive_features = ("pixels", "down1", "down2", "down3", "down4")

    def forward(self, images: Tensor) -> Tensor:
        """Translate images."""
        self._check_size(images)
        if self.checkpoint_activations and torch.is_grad_enabled():
            result: Tensor = checkpoint(self.model, images, use_reentrant=False)
        else:
            result = self.model(images)
        if self.residual:
            result = changed(images, result, self.residual)
        return comb_filter(result) if self.comb_filter and not self.training else result

    def features(self, images: Tensor, names: Sequence[str]) -> list[Tensor]:
        """Return activations of the encoder in the order of `names`, running no level behind the last of them.

        Args:
            images: `(N, in_channels, H, W)` in [-1, 1].
            names: keys of `feature_channels`.
        """
        self._check_size(images)
        down, block, *_ = self.model.model
        found = {"pixels": images, "down1": down(images)}
        features = found["down1"]
        while not found.keys() >= set(names):
            assert isinstance(block, UNetBlock)
            activation, down, norm, block, *_ = block.model
            before = found[f"down{len(found)}"] = down(activation(features))
            features = norm(before)
        return [found[name] for name in names]

    def _check_size(self, images: Tensor) -> None:
        height, width = images.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise DataError(
                f"this U-Net requires widths and heights that are multiples of {self.multiple}, got {width}×{height}; "
                "change data.crop_size, or choose a resnet generator"
            )


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


def changed(images: Tensor, change: Tensor, contrast: float) -> Tensor:
    """Add a change to images x in [-1, 1] before the tanh that bounds the result: tanh(change + atanh(contrast x))."""
    return torch.tanh(change + torch.atanh(contrast * images))


def check_resample(resample: str) -> None:
    """Check the name of a way to resample.

    Raises:
        ValueError: `resample` is unknown.
    """
    if resample not in get_args(ResampleName):
        raise ValueError(f"resample must be one of {', '.join(get_args(ResampleName))}, got {resample!r}")


def _downsampling(in_channels: int, out_channels: int, resample: ResampleName) -> list[nn.Module]:
    """Build a convolution with norm and ReLU that halves height and width."""
    stride = 1 if resample == "blur" else 2
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1),
        InstanceNorm2d(out_channels),
        nn.ReLU(inplace=True),
        *([BlurDown(out_channels)] if resample == "blur" else []),
    ]


def _upsampling(in_channels: int, out_channels: int, resample: ResampleName) -> list[nn.Module]:
    """Build the layers that double height and width."""
    match resample:
        case "transpose":
            return [nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)]
        case "resize":
            return [
                nn.Upsample(scale_factor=2, mode="bilinear"),
                nn.ReflectionPad2d(1),
                nn.Conv2d(in_channels, out_channels, 3),
            ]
        case "blur":
            return [BlurUp(in_channels), nn.Conv2d(in_channels, out_channels, 3, padding=1)]


def _optional(module: nn.Module | None) -> list[nn.Module]:
    return [] if module is None else [module]
