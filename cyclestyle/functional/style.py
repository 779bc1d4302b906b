"""Losses of style transfer: functions of features `(N, C, H, W)` and images.

Implementations normalise these losses differently, which is why their loss weights differ by many orders of magnitude.
The docstring of each function states its normalisation.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from cyclestyle.functional.float64 import to_float64

GramNormalisation = Literal["none", "pixels", "elements"]
Reduction = Literal["half_sum", "mean"]


def gram_matrix(features: Tensor, normalise: GramNormalisation = "pixels") -> Tensor:
    """Compute Gram matrices: products of all pairs of channels, summed over the positions.

    The result is at least float32, also under autocast, because sums over all positions exceed the range and precision
    of half.

    Shape: `(N, C, H, W)` → `(N, C, C)`.

    Args:
        features: activations of a layer.
        normalise: divisor: `none` (1; Gatys et al. 2016, eq. 3), `pixels` (H·W; Gatys' code) or `elements` (C·H·W;
            Johnson et al. 2016, eq. 3).
    """
    channels, height, width = features.shape[1:]
    with torch.autocast(features.device.type, enabled=False):
        wide = features.to(torch.promote_types(features.dtype, torch.float32))
        products: Tensor = _GramProduct.apply(wide.flatten(2))  # (N, C, H·W) → (N, C, C)
    return products / {"none": 1, "pixels": height * width, "elements": channels * height * width}[normalise]


class _GramProduct(torch.autograd.Function):
    """X Xᵀ for X `(N, C, P)`. The gradient, (G + Gᵀ) X, takes one matrix product; autograd would compute two."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        return features @ features.mT

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        features: Tensor = ctx.saved_tensors[0]
        symmetric = grad_output + grad_output.mT
        # The gradient gets the memory format of the features, so that adding it to theirs needs no copy.
        return (features.mT @ symmetric).mT if features.mT.is_contiguous() else symmetric @ features


def content_loss(features: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Compute the content loss, a scalar, in at least float32.

    The squared differences of the features are reduced to half their sum (`half_sum`; Gatys et al. 2016, eq. 1) or to
    their mean (`mean`; Gatys' code).
    """
    squares = (features - target).to(torch.promote_types(features.dtype, torch.float32)).square()
    return 0.5 * squares.sum() if reduction == "half_sum" else squares.mean()


def style_loss(gram: Tensor, target: Tensor) -> Tensor:
    """Compute the style loss of a layer, a scalar: the mean squared difference of Gram matrices `(N, C, C)`.

    For Gram matrices normalised by `pixels` it is 4 · E_l of Gatys et al. 2016, eq. 4.
    """
    return (gram - target).square().mean()


def relative_style_loss(features: Tensor, target: Tensor) -> Tensor:
    """Compute the style loss of a layer between two sets of images, a scalar: 1 if `features` are 0.

    ‖G − T‖² / ‖T‖², where G and T are the means of the Gram matrices over the images of each set.

    Args:
        features: activations for images, `(N, C, H, W)`.
        target: activations for images that have the style, `(M, C, h, w)`; numbers and sizes may differ.
    """
    wanted = gram_matrix(target).mean(0)
    return (gram_matrix(features).mean(0) - wanted).square().sum() / wanted.square().sum()


def total_variation(images: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Compute the total variation of images `(N, C, H, W)`, a scalar.

    It is the mean, or the sum, of the squared differences of horizontal and vertical neighbours.
    """
    horizontal = images[..., :, 1:] - images[..., :, :-1]
    vertical = images[..., 1:, :] - images[..., :-1, :]
    total = horizontal.square().sum() + vertical.square().sum()
    return total / max(1, horizontal.numel() + vertical.numel()) if reduction == "mean" else total


def mean_and_std(features: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Compute the mean and standard deviation of each channel over the positions (Huang & Belongie 2017, eq. 5, 6).

    The results are at least float32. `eps` is added to the variance, so that the gradient of a constant channel is
    finite.

    Shape: `(N, C, H, W)` → `(N, C, 1, 1)` each.
    """
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, dim=(2, 3), keepdim=True, correction=0)
    return mean, (variance + eps).sqrt()


def mean_std_loss(features: Tensor, target: Tensor) -> Tensor:
    """Compute the style loss of AdaIN, a scalar (Huang & Belongie 2017, eq. 13).

    It is the sum of the mean squared differences of the means and of the standard deviations of the channels.
    """
    (mean, std), (mean_target, std_target) = mean_and_std(features), mean_and_std(target)
    return (mean - mean_target).square().mean() + (std - std_target).square().mean()


def adaptive_instance_norm(content: Tensor, style: Tensor) -> Tensor:
    """Give each channel of `content` the mean and standard deviation of `style` (Huang & Belongie 2017, eq. 8).

    Shape: `(N, C, H, W)` and `(N, C, H', W')` → `(N, C, H, W)`.
    """
    (mean, std), (mean_style, std_style) = mean_and_std(content), mean_and_std(style)
    return ((content - mean) / std * std_style + mean_style).to(content.dtype)


def mean_and_covariance(features: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean `(N, C, 1)` and covariance `(N, C, C)` of the channels over the positions."""
    flat = features.flatten(2)  # (N, C, H·W)
    mean = flat.mean(dim=2, keepdim=True)
    centred = flat - mean
    return mean, centred @ centred.mT / flat.shape[2]


def whiten_and_colour(content: Tensor, style: Tensor, min_variance: float = 1e-5) -> Tensor:
    """Give the channels of `content` the mean and covariance of `style` (WCT; Li et al. 2017, eq. 2 and 3).

    Computed in float64. Directions with a variance of at most `min_variance` are set to the mean: an image has no
    signal there, and whitening would amplify noise.

    Shape: `(N, C, H, W)` and `(N, C, H', W')` → `(N, C, H, W)`.
    """
    wide = to_float64(content)
    mean, covariance = mean_and_covariance(wide)
    mean_style, covariance_style = mean_and_covariance(to_float64(style))
    whitened = _power(covariance, -0.5, min_variance) @ (wide.flatten(2) - mean)
    coloured = _power(covariance_style, 0.5, min_variance) @ whitened + mean_style
    return coloured.to(content).reshape(content.shape)


def _power(matrix: Tensor, exponent: float, min_value: float) -> Tensor:
    """Compute a power of a symmetric positive semi-definite matrix; eigenvalues up to `min_value` give 0."""
    values, vectors = torch.linalg.eigh(matrix)
    powers = torch.where(values > min_value, values.clamp(min=min_value) ** exponent, 0.0)
    power: Tensor = (vectors * powers[..., None, :]) @ vectors.mT
    return power
