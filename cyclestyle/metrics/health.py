"""Measures of common failures of translations, computed from thumbnails."""

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 16  # height and width of a thumbnail in pixels


def thumbnails(images: Tensor) -> Tensor:
    """Reduce images `(N, 3, H, W)` to `(N, 3, 16, 16)` by averaging."""
    return F.adaptive_avg_pool2d(images, SIDE)


def diversity(thumbs: Tensor) -> float:
    """Return the mean absolute difference between two images of a set `(N, 3, 16, 16)`; 0 if all are equal."""
    flat = thumbs.flatten(1)
    count = len(flat)
    return torch.cdist(flat, flat, p=1).sum().item() / (flat.shape[1] * max(1, count * (count - 1)))


def luminance_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return the correlation of luminance between images `(N, 3, h, w)` and their translations: `(N,)` in [-1, 1].

    -1 means that light and dark are inverted. Images of constant luminance have 0.
    """
    centred = [batch.mean(dim=1).flatten(1) for batch in (first, second)]
    a, b = (grey - grey.mean(dim=1, keepdim=True) for grey in centred)
    correlation: Tensor = (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-6)
    return correlation


def duplicate_share(thumbs: Tensor, tolerance: float = 0.02) -> float:
    """Return the fraction of images `(N, 3, h, w)` within `tolerance` of an earlier image in every pixel."""
    flat = thumbs.flatten(1)
    is_duplicate = torch.cdist(flat, flat, p=float("inf")) < tolerance
    return is_duplicate.tril(diagonal=-1).any(dim=1).float().mean().item()
