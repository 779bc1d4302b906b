"""Figures that tell whether translations are of any use, from small versions of images."""

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 16  # pixels of a thumbnail


def thumbnails(images: Tensor) -> Tensor:
    """`(N, 3, H, W)` → `(N, 3, 16, 16)`, each pixel the mean of what it covers."""
    return F.adaptive_avg_pool2d(images, SIDE)


def diversity(thumbs: Tensor) -> float:
    """Mean absolute difference between two images of a set `(N, 3, 16, 16)`; 0 if all are the same."""
    flat = thumbs.flatten(1)
    count = len(flat)
    return torch.cdist(flat, flat, p=1).sum().item() / (flat.shape[1] * max(1, count * (count - 1)))


def luminance_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Correlation of light and dark between images `(N, 3, h, w)` and their counterparts: `(N,)` in [-1, 1].

    -1 means that light and dark are exchanged. Images of one tone have 0.
    """
    centred = [batch.mean(dim=1).flatten(1) for batch in (first, second)]
    a, b = (grey - grey.mean(dim=1, keepdim=True) for grey in centred)
    correlation: Tensor = (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-6)
    return correlation


def duplicate_share(thumbs: Tensor, tolerance: float = 0.02) -> float:
    """Share of images `(N, 3, h, w)` that differ from an earlier one by less than `tolerance` everywhere."""
    flat = thumbs.flatten(1)
    alike = torch.cdist(flat, flat, p=float("inf")) < tolerance
    return alike.tril(diagonal=-1).any(dim=1).float().mean().item()
