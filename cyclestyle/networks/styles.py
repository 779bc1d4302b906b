"""Shares of styles: how images and names are mixed by weights, and how a network of many styles is called with them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclestyle.errors import CycleStyleError
from cyclestyle.networks.calls import pad_to_multiple
from cyclestyle.networks.one_pass import OnePass
from cyclestyle.networks.transform import TransformNetwork


def normalised_weights(count: int, weights: Sequence[float] | None) -> list[float]:
    """Return one weight for each style, normalised to sum to 1. By default all are equal.

    Raises:
        CycleStyleError: the number of weights is not `count`, one is negative, or all are 0.
    """
    if weights is None:
        return [1 / max(1, count)] * count
    if len(weights) != count or min(weights, default=0) < 0 or not sum(weights) > 0:
        raise CycleStyleError(f"style_weights {list(weights)} for {count} styles; give each one a weight of 0 or more")
    return [weight / sum(weights) for weight in weights]


def shares_of(names: Sequence[Any], known: Sequence[str], weights: Sequence[float] | None = None) -> Tensor:
    """Return the share of each known style, `(1, len(known))`, with a sum of 1.

    Args:
        names: the chosen styles.
        known: all styles.
        weights: of the chosen styles; equal by default.

    Raises:
        CycleStyleError: a name is unknown, or the weights do not fit.
    """
    shares = torch.zeros(1, len(known))
    for name, weight in zip(names, normalised_weights(len(names), weights), strict=True):
        if name not in known:
            raise CycleStyleError(f"there is no style {name!r}; the styles are {', '.join(known)}")
        shares[0, list(known).index(name)] += weight
    return shares


@dataclass(frozen=True)
class Mixture:
    """The styles in which a network of many styles paints.

    Attributes:
        shares: of all styles, `(1, styles)`, with a sum of 1.
        chosen: which style each region has, one-hot, `(R, styles)`.
    """

    shares: Tensor
    chosen: Tensor

    @classmethod
    def of(cls, names: Sequence[Any], known: Sequence[str], weights: Sequence[float] | None = None) -> "Mixture":
        """Return a mixture of named styles; see `shares_of`."""
        return cls(shares_of(names, known, weights), torch.cat([shares_of([name], known) for name in names]))

    def paint(self, network: TransformNetwork, images: Tensor) -> Tensor:
        """Paint photos of any size.

        Args:
            network: a network of many styles.
            images: `(N, 3 + R, H, W)`. Channels beyond the third are the regions of the chosen styles, 1 inside and -1
                outside. Where regions overlap, the styles are mixed; where there is none, the first style is used.
        """
        height, width = images.shape[-2:]
        padded = pad_to_multiple(images, network.multiple, network.min_size)
        photos, regions = padded[:, : network.in_channels], padded[:, network.in_channels :]
        whole = images.shape[1] == network.in_channels
        shares = self.shares.to(images.device)[:, :, None, None] if whole else self._shares_in((regions + 1) / 2)
        painted: Tensor = network(photos, shares)
        return painted[..., :height, :width]

    def _shares_in(self, regions: Tensor) -> Tensor:
        """The share of each style, `(N, styles, H, W)`, for regions `(N, R, H, W)` in [0, 1]."""
        # Convolutions of one pixel, because images are streamed by rows, and channels cannot be summed there otherwise.
        chosen = self.chosen.to(device=regions.device, dtype=regions.dtype)
        total = F.conv2d(regions, torch.ones_like(chosen[:, :1])[None, :, :, None])
        outside = F.relu(1 - total)
        styles = torch.cat([chosen, chosen[:1]])
        return F.conv2d(torch.cat([regions, outside], dim=1) / (total + outside), styles.mT[:, :, None, None])


def with_shares(network: TransformNetwork, styles: tuple[str, ...]) -> OnePass:
    """Return a network of many styles for other programs: its second input is the shares, `(1, styles)`."""
    return replace(OnePass.of(network, network.in_channels), network=_WithShares(network), styles=styles)


class _WithShares(nn.Module):
    """A network of many styles whose second input has one share for each style."""

    def __init__(self, network: TransformNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, shares: Tensor) -> Tensor:
        """Shape: `(N, 3, H, W)` and `(1, styles)` → `(N, 3, H, W)`."""
        result: Tensor = self.network(images, shares[:, :, None, None])
        return result
