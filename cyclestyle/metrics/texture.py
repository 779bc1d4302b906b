"""A distance of local texture statistics that needs no network."""

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 3
WINDOW = 16  # pixels of the full image
_FLOOR = 0.02  # contrast below which texture does not count, for images in [-1, 1]


def texture_statistics(images: Tensor) -> Tensor:
    """Log contrast of oriented detail around each place, `(N, 3, H, W)` in [-1, 1] → `(N, 12, h, w)`.

    Differences of luminance to the four neighbouring directions, on three octaves; each is squared, averaged
    over windows of 16 × 16 pixels, rooted, and brought to a logarithmic scale.
    """
    grey = images.mean(dim=1, keepdim=True)
    maps = []
    for level in range(LEVELS):
        energy = oriented_differences(grey).square()
        window = WINDOW >> level
        contrast = F.avg_pool2d(energy, window, stride=window, ceil_mode=True, count_include_pad=False).sqrt()
        maps.append(torch.log(contrast + _FLOOR))
        grey = F.avg_pool2d(grey, 2, ceil_mode=True, count_include_pad=False)
    height, width = (min(m.shape[axis] for m in maps) for axis in (2, 3))
    return torch.cat([m[..., :height, :width] for m in maps], dim=1)


def texture_distance(images: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute difference of `texture_statistics`, one figure an image: `(N,)`; 0 for equal images."""
    return (texture_statistics(images) - texture_statistics(targets)).abs().mean(dim=(1, 2, 3))


def oriented_differences(grey: Tensor) -> Tensor:
    """Differences to the right, lower, lower right and lower left neighbour: `(N, 1, H, W)` → `(N, 4, H, W)`."""
    padded = F.pad(grey, (1, 1, 0, 1), mode="replicate")
    centre = padded[..., :-1, 1:-1]
    neighbours = (padded[..., :-1, 2:], padded[..., 1:, 1:-1], padded[..., 1:, 2:], padded[..., 1:, :-2])
    return torch.cat([neighbour - centre for neighbour in neighbours], dim=1)
