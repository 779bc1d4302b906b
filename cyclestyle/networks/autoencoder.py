"""Decoders that invert an encoder of VGG's shape (Huang & Belongie 2017, section 6; Li et al. 2017, section 3.1)."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from cyclestyle.errors import CheckpointError
from cyclestyle.networks.vgg import CONVOLUTIONS, WIDTHS, VGGName


class Decoder(nn.Module):
    """The mirror of a VGG up to `relu{level}_1`: pooling becomes enlargement, and nothing is normalised.

    Shape: `(N, C, h, w)` → `(N, 3, h · 2^(level − 1), w · 2^(level − 1))`, about [-1, 1] but not cut off.

    Args:
        level: block of the encoder whose first activation is inverted, 1 to 5.
        name: `vgg19` or `vgg16`, whose convolutions are mirrored.
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
            nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect") for inputs, outputs in pairwise(channels)
        )
        # A block's features are enlarged after the convolution that leads down to its width.
        ends = [sum(CONVOLUTIONS[name][:block]) for block in range(1, level)]
        self.enlarged = frozenset(len(channels) - 2 - end for end in ends)

    def forward(self, features: Tensor) -> Tensor:
        """Turn features into images."""
        last = len(self.convolutions) - 1
        for number, convolution in enumerate(self.convolutions):
            features = convolution(features)
            if number < last:
                features = F.relu(features)
            if number in self.enlarged:
                features = F.interpolate(features, scale_factor=2.0, mode="nearest")
        return features * 2 - 1


def read_decoder(weights: Mapping[str, Tensor]) -> tuple[int, dict[str, Tensor]]:
    """Return the level of a decoder and its weights under the names of `Decoder`.

    Args:
        weights: `1.weight`, `1.bias`, `5.weight`, …: convolutions in the order in which they are applied, as the
            published decoders of WCT have them. Their number tells the level.

    Raises:
        CheckpointError: they are no decoder of VGG-19.
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
    raise CheckpointError("holds no decoder of VGG-19's relu1_1 to relu5_1")
