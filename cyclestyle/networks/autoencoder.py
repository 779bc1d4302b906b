"""Decoders that invert a VGG encoder (Huang & Belongie 2017, section 6; Li et al. 2017, section 3.1)."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclestyle.errors import CheckpointError
from cyclestyle.functional.style import adaptive_instance_norm
from cyclestyle.networks.vgg import CONVOLUTIONS, VGG, WIDTHS, VGGName


class Decoder(nn.Module):
    """The mirror image of a VGG up to `relu{level}_1`, with upsampling instead of pooling and without norm layers.

    Shape: `(N, C, h, w)` → `(N, 3, h · 2^(level − 1), w · 2^(level − 1))`, approximately in [-1, 1] but not clamped.

    Args:
        level: block of the encoder whose first activation is the input, 1 to 5.
        name: architecture of the encoder, `vgg19` or `vgg16`.
        widths: channels of each block of the encoder.

    Raises:
        ValueError: `level` is not 1 to 5.
    """

    def __init__(self, level: int, *, name: VGGName = "vgg19", widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        if not 1 <= level <= len(widths):
            raise ValueError(f"level must be 1 to {len(widths)}, got {level}")
        blocks = [[widths[block]] * count for block, count in enumerate(CONVOLUTIONS[name][: level - 1])]
        channels = [3, *(width for block in blocks for width in block), widths[level - 1]][::-1]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="reflect")
            for in_channels, out_channels in pairwise(channels)
        )
        # Features are upsampled after each convolution that leaves a block of the encoder.
        ends = [sum(CONVOLUTIONS[name][:block]) for block in range(1, level)]
        self.upsample_after = frozenset(len(channels) - 2 - end for end in ends)

    @torch.no_grad()
    def begin_grey(self, contrast: float = 0.05) -> None:
        """Let an untrained decoder begin near grey.

        The features of a trained VGG have heavy tails, from which random weights make images far outside [-1, 1].

        Args:
            contrast: factor of the weights of the last convolution.
        """
        last = self.convolutions[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        last.weight.mul_(contrast)
        last.bias.fill_(0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Decode features to images."""
        last = len(self.convolutions) - 1
        for index, convolution in enumerate(self.convolutions):
            features = convolution(features)
            if index < last:
                features = F.relu(features)
            if index in self.upsample_after:
                features = F.interpolate(features, scale_factor=2.0, mode="nearest")
        return features * 2 - 1


class AdaIN(nn.Module):
    """Style transfer by adaptive instance normalisation (Huang & Belongie 2017) as one module.

    Shape: `(N, 3, H, W)` and one style image `(1, 3, h, w)`, in [-1, 1] → `(N, 3, H, W)`. All sides are multiples of
    2^(level − 1).

    Args:
        encoder: the VGG.
        decoder: inverts `layer`.
        strength: interpolation between the statistics of the image (0) and of the style (1).
        layer: of the encoder.
    """

    def __init__(self, encoder: VGG, decoder: nn.Module, strength: float, layer: str) -> None:
        super().__init__()
        self.encoder, self.decoder, self.strength, self.layer = encoder, decoder, strength, layer

    def forward(self, images: Tensor, style: Tensor) -> Tensor:
        """Paint the images in the style."""
        content, painting = (self.encoder(given)[self.layer] for given in (images, style))
        result: Tensor = self.decoder(torch.lerp(content, adaptive_instance_norm(content, painting), self.strength))
        return result


def read_decoder(weights: Mapping[str, Tensor]) -> tuple[int, dict[str, Tensor]]:
    """Find the level of a published decoder and rename its weights to those of `Decoder`.

    Args:
        weights: `1.weight`, `1.bias`, `5.weight`, …, numbered in the order in which the convolutions are applied, as
            in the published decoders of WCT.

    Returns:
        The level, found by comparing the shapes, and the `state_dict` of `Decoder(level)`.

    Raises:
        CheckpointError: the shapes are not those of a decoder of VGG-19.
    """
    numbered = sorted((int(match[1]), key) for key in weights if (match := re.fullmatch(r"(\d+)\.weight", key)))
    names = [key.removesuffix("weight") for _, key in numbered]
    for level in range(1, len(WIDTHS) + 1):
        expected = Decoder(level).state_dict()
        found = {
            f"convolutions.{n}.{kind}": weights.get(f"{name}{kind}")
            for n, name in enumerate(names)
            for kind in ("weight", "bias")
        }
        if {key: value.shape for key, value in found.items() if value is not None} == {
            key: value.shape for key, value in expected.items()
        }:
            return level, {key: value.float() for key, value in found.items() if value is not None}
    raise CheckpointError("does not contain a decoder of relu1_1 to relu5_1 of VGG-19")
