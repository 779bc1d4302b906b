"""A translation as one module, in the form that other programs run it in."""

import math
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, kw_only=True)
class OnePass:
    """A network that translates in one pass, and the images that it takes.

    Attributes:
        network: `(N, in_channels, H, W)` → `(N, C, H, W)`, both in [-1, 1]. With `takes_style` it has a second input,
            the style image, `(1, 3, h, w)` in [-1, 1].
        in_channels: channels of its input.
        multiple: what H and W, and h and w, must be multiples of.
        min_size: the smallest H and W, and h and w.
        takes_style: whether it has the second input.
        styles: names of the styles that it has learnt, if they are several; the second input is then their shares,
            `(1, number of styles)`.
    """

    network: nn.Module
    in_channels: int = 3
    multiple: int = 1
    min_size: int = 1
    takes_style: bool = False
    styles: tuple[str, ...] = ()

    @classmethod
    def of(cls, generator: Any, in_channels: int) -> "OnePass":
        """Describe a generator with the attributes `multiple` and `min_size`.

        Args:
            generator: such as a `ResNetGenerator`.
            in_channels: channels of its input.
        """
        smallest = max(generator.min_size, COMB_FILTERED if getattr(generator, "comb_filter", False) else 0)
        min_size = -(-smallest // generator.multiple) * generator.multiple
        return cls(network=generator, in_channels=in_channels, multiple=generator.multiple, min_size=min_size)

    @classmethod
    def around(cls, network: nn.Module, in_channels: int) -> "OnePass":
        """Describe a module that calls generators: it takes the sizes that all of these take.

        Args:
            network: the module; generators in it have the attributes `multiple` and `min_size`.
            in_channels: channels of its input.
        """
        parts = [cls.of(one, in_channels) for one in network.modules() if hasattr(one, "multiple")]
        multiple = math.lcm(*(one.multiple for one in parts))
        least = max((one.min_size for one in parts), default=1)
        min_size = -(-least // multiple) * multiple
        return cls(network=network, in_channels=in_channels, multiple=multiple, min_size=min_size)


COMB_FILTERED = 28
"""Smallest side that `comb_filter` filters, as a multiple of 4: a file for other programs has no second way."""
