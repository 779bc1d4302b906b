"""Shares of styles: how images and names are mixed by weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cyclestyle.errors import CycleStyleError


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
