"""The losses of the Gram family: pure functions of features `(N, C, H, W)` and images.

Weights of different tools differ by many orders of magnitude only because these are normalised differently, so the
reduction stands beside each.
"""

from typing import Any, Literal

import torch
from torch import Tensor

GramNormalisation = Literal["none", "pixels", "elements"]
Reduction = Literal["half_sum", "mean"]


def gram_matrix(features: Tensor, normalise: GramNormalisation = "pixels") -> Tensor:
    """Products of all pairs of channels, summed over the places: `(N, C, H, W)` → `(N, C, C)`.

    Divided by nothing (`none`; Gatys et al. 2016, eq. 3), by H·W (`pixels`; Gatys' code), or by C·H·W (`elements`;
    Johnson et al. 2016, eq. 3). In at least single precision, also under autocast: sums over all places leave the
    range and the precision of half.
    """
    channels, height, width = features.shape[1:]
    with torch.autocast(features.device.type, enabled=False):
        wide = features.to(torch.promote_types(features.dtype, torch.float32))
        products: Tensor = _Products.apply(wide.flatten(2))  # of (N, C, H·W)
    return products / {"none": 1, "pixels": height * width, "elements": channels * height * width}[normalise]


class _Products(torch.autograd.Function):
    """X Xᵀ, whose gradient is one product, (S + Sᵀ) X, where autograd would make two."""

    @staticmethod
    def forward(ctx: Any, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return places @ places.mT

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        places: Tensor = ctx.saved_tensors[0]
        both = slope + slope.mT
        # The gradient lies in memory as the features do, so that it is added to theirs without being turned about.
        return (places.mT @ both).mT if places.mT.is_contiguous() else both @ places


def content_loss(features: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Squared difference of features, a scalar: half its sum (Gatys et al. 2016, eq. 1) or its mean (their code)."""
    squares = (features - target).to(torch.promote_types(features.dtype, torch.float32)).square()
    return 0.5 * squares.sum() if reduction == "half_sum" else squares.mean()


def style_loss(gram: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of Gram matrices `(N, C, C)`, a scalar.

    With Gram matrices over `pixels`, a quarter of it is E_l of Gatys et al. 2016, eq. 4.
    """
    return (gram - target).square().mean()


def total_variation(images: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels, across and down, of `(N, C, H, W)`; a scalar."""
    across = images[..., :, 1:] - images[..., :, :-1]
    down = images[..., 1:, :] - images[..., :-1, :]
    count = max(1, across.numel() + down.numel())
    return (across.square().sum() + down.square().sum()) / count


def mean_and_std(features: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over the places, `(N, C, 1, 1)` each.

    Huang & Belongie 2017, eq. 5 and 6, in at least single precision. `eps` is added to the variance, so that the
    gradient of a flat channel is finite.
    """
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, dim=(2, 3), keepdim=True, correction=0)
    return mean, (variance + eps).sqrt()


def mean_std_loss(features: Tensor, target: Tensor) -> Tensor:
    """Mean squared differences of the channels' means and deviations, summed (Huang & Belongie 2017, eq. 13)."""
    (mean, deviation), (mean_target, deviation_target) = mean_and_std(features), mean_and_std(target)
    return (mean - mean_target).square().mean() + (deviation - deviation_target).square().mean()


def adaptive_instance_norm(content: Tensor, style: Tensor) -> Tensor:
    """Give each channel of `content` the mean and deviation that it has in `style` (Huang & Belongie 2017, eq. 8)."""
    (mean, deviation), (mean_style, deviation_style) = mean_and_std(content), mean_and_std(style)
    return ((content - mean) / deviation * deviation_style + mean_style).to(content.dtype)


def mean_and_covariance(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `(N, C, 1)` and covariance `(N, C, C)` of the channels over the places."""
    places = features.flatten(2)  # (N, C, H·W)
    mean = places.mean(dim=2, keepdim=True)
    centred = places - mean
    return mean, centred @ centred.mT / places.shape[2]


def whiten_and_colour(content: Tensor, style: Tensor, least: float = 1e-5) -> Tensor:
    """Give the channels of `content` the mean and covariance of those of `style` (Li et al. 2017, eq. 2 and 3).

    Computed in double precision; directions whose variance is below `least` are dropped, as an image has none there.
    """
    mean, covariance = mean_and_covariance(content.double())
    mean_style, covariance_style = mean_and_covariance(style.double())
    whitened = _power(covariance, -0.5, least) @ (content.flatten(2).double() - mean)
    coloured = _power(covariance_style, 0.5, least) @ whitened + mean_style
    return coloured.to(content.dtype).reshape(content.shape)


def _power(matrix: Tensor, exponent: float, least: float) -> Tensor:
    """A power of a symmetric positive matrix on the directions above `least`, 0 on the others."""
    values, vectors = torch.linalg.eigh(matrix)
    powers = torch.where(values > least, values.clamp(min=least) ** exponent, 0.0)
    power: Tensor = (vectors * powers[..., None, :]) @ vectors.mT
    return power
