"""A distance between local texture statistics that requires no network."""

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 3
WINDOW = 16  # height and width of a window, in pixels of the full image
_FLOOR = 0.02  # added to the contrast, so that lower contrasts hardly count; for images in [-1, 1]


def texture_statistics(images: Tensor) -> Tensor:
    """Return the local log contrast in four directions at three scales: `(N, 3, H, W)` in [-1, 1] → `(N, 12, h, w)`.

    The contrast is the root mean square of the luminance differences to a neighbouring pixel, over windows of 16 × 16
    pixels. The image is halved from scale to scale.
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
    """Return the mean absolute difference of `texture_statistics` for each image: `(N,)`; 0 for equal images."""
    return (texture_statistics(images) - texture_statistics(targets)).abs().mean(dim=(1, 2, 3))


def oriented_differences(grey: Tensor) -> Tensor:
    """Return differences to the right, lower, lower right and lower left pixel: `(N, 1, H, W)` → `(N, 4, H, W)`."""
    padded = F.pad(grey, (1, 1, 0, 1), mode="replicate")
    centre = padded[..., :-1, 1:-1]
    neighbours = (padded[..., :-1, 2:], padded[..., 1:, 1:-1], padded[..., 1:, 2:], padded[..., 1:, :-2])
    return torch.cat([neighbour - centre for neighbour in neighbours], dim=1)
