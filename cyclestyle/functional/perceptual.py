"""Perceptual distance: how differently a network sees two images."""

import torch
from torch import Tensor


def perceptual_distance(features: Tensor, target: Tensor) -> Tensor:
    """Compute one layer of the perceptual distance of Zhang et al. 2018 (LPIPS), eq. 1, with weights w = 1.

    Mean over images and positions of ‖f/‖f‖ − t/‖t‖‖², where f and t are the vectors of channels. It is in [0, 2] for
    activations of a ReLU: 0 where the channels have the same proportions, 2 where no channel is active in both.
    Computed in at least float32.

    Shape: `(N, C, H, W)` twice → scalar.

    Args:
        features: activations of a layer for the images.
        target: those for the images that they should be like.
    """
    return (_unit(features) - _unit(target)).square().sum(dim=1).mean()


def _unit(features: Tensor) -> Tensor:
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    # The epsilon is inside the root, whose gradient is infinite where no channel is active, as on flat images.
    return wide / (wide.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()
