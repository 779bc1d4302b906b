"""How strongly the colours of a point change from one frame of a video to the next."""

import torch
import torch.nn.functional as F
from torch import Tensor


def flicker(frames: Tensor, flow: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean absolute change of colour along the motion, in levels of 0 to 255, for each pair of frames.

    It is the warping error of video stylisation (Ruder et al. 2016, section 5.1; Lai et al. 2018, section 4.2), with
    absolute instead of squared differences. The motion is that of the input, also for its translation.

    Args:
        frames: consecutive frames, `(T, C, H, W)` in [-1, 1].
        flow: for each pixel of a frame but the first, how many pixels to the right and down its content lies in the
            frame before, `(T - 1, 2, H, W)`.
        mask: 1 where this is known and 0 elsewhere, such as at what has just been uncovered, `(T - 1, 1, H, W)`. Pixels
            whose content comes from outside of the frame are left out in any case.

    Returns:
        `(T - 1,)`; NaN where no pixel is left.
    """
    before, inside = warp(frames[:-1], flow)
    known = inside if mask is None else inside * mask
    change = (frames[1:] - before).abs().mean(dim=1, keepdim=True)
    return 127.5 * (change * known).sum(dim=(1, 2, 3)) / known.sum(dim=(1, 2, 3))


def warp(images: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Fetch the colours of each pixel from where a flow points to, by bilinear interpolation.

    Args:
        images: `(N, C, H, W)`.
        flow: pixels to the right and down, `(N, 2, H, W)`.

    Returns:
        The images, and 1 where the flow points into the image, else 0, `(N, 1, H, W)`.
    """
    height, width = images.shape[2:]
    rows, columns = torch.meshgrid(
        torch.arange(height, device=flow.device), torch.arange(width, device=flow.device), indexing="ij"
    )
    x, y = columns + flow[:, 0], rows + flow[:, 1]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=3)  # (N, H, W, 2)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    warped = F.grid_sample(images, grid.to(images), padding_mode="border", align_corners=False)
    return warped, inside[:, None].to(images)


def not_occluded(flow: Tensor, back: Tensor) -> Tensor:
    """Return 1 where two flows, from a frame to another and back, agree, and 0 where something is covered.

    |w + ŵ|² < 0.01 (|w|² + |ŵ|²) + 0.5 (Sundaram et al. 2010, eq. 5), where ŵ is the flow back from where w points to.

    Shape: `(N, 2, H, W)` and `(N, 2, H, W)` → `(N, 1, H, W)`.
    """
    returned, inside = warp(back, flow)
    difference = (flow + returned).square().sum(dim=1, keepdim=True)
    lengths = flow.square().sum(dim=1, keepdim=True) + returned.square().sum(dim=1, keepdim=True)
    return inside * (difference < 0.01 * lengths + 0.5).to(flow)
