"""Motion between frames of a video: optical flow, and images that are moved along it.

A flow `(N, 2, H, W)` says for each pixel of a frame how many pixels to the right and down its content lies in another.
"""

import importlib.util

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cyclestyle.errors import CycleStyleError
from cyclestyle.functional.colour import to_grey

MIN_SIDE = 16
"""Height and width in pixels below which no motion is estimated."""


def has_optical_flow() -> bool:
    """Return whether OpenCV is installed, which `optical_flow` needs."""
    return importlib.util.find_spec("cv2") is not None


def optical_flow(frames: Tensor, others: Tensor) -> Tensor:
    """Estimate for each pixel of `frames` where its content lies in `others` (Kroeger et al. 2016, DIS).

    Args:
        frames: `(N, 3, H, W)` in [-1, 1].
        others: of the same shape.

    Returns:
        `(N, 2, H, W)`; 0 everywhere in frames that are smaller than `MIN_SIDE`.

    Raises:
        CycleStyleError: OpenCV is missing.
    """
    try:
        import cv2
    except ImportError as error:
        raise CycleStyleError("motion needs OpenCV: pip install opencv-python-headless") from error
    if min(frames.shape[2:]) < MIN_SIDE:
        return frames.new_zeros(len(frames), 2, *frames.shape[2:])
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
    grey = [
        ((to_grey(images.float())[:, 0].clamp(-1, 1) + 1) * 127.5).byte().cpu().numpy() for images in (frames, others)
    ]
    found = [search.calc(one, other, None) for one, other in zip(*grey, strict=True)]
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(frames.device, torch.float32)


def warp(images: Tensor, flow: Tensor, mode: str = "bilinear") -> tuple[Tensor, Tensor]:
    """Fetch the colours of each pixel from where a flow points to.

    Args:
        images: `(N, C, H, W)`.
        flow: `(N, 2, H, W)`.
        mode: interpolation, `bilinear` or `bicubic`.

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
    warped = F.grid_sample(images, grid.to(images), mode=mode, padding_mode="border", align_corners=False)
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
