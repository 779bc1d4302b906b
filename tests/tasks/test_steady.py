"""Averages over the frames of a video, on scenes whose motion is known."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cyclestyle.functional.scenes import scene_difference, thumbnails
from cyclestyle.metrics import flicker
from cyclestyle.translation.steady import Steady


def pan(frames=12, size=64, step=2):
    """A pan over a smooth random image: frames, and where each pixel was in the frame before."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 3, 16, 32, generator=random)
    image = F.interpolate(coarse, (size, 2 * size + step * frames), mode="bicubic")[0].clamp(-1, 1)
    views = torch.stack([image[:, :, step * k : step * k + size] for k in range(frames)])
    flow = torch.zeros(frames - 1, 2, size, size)
    flow[:, 0] = step
    return views, flow


def test_a_pan_does_not_flicker_along_its_motion():
    views, flow = pan()
    assert flicker(views, flow).max() < 1e-3
    assert flicker(views, torch.zeros_like(flow)).min() > 1
    brighter = views.clone()
    brighter[5] += 10 / 127.5
    assert flicker(brighter, flow)[[4, 5]].tolist() == pytest.approx([10, 10], abs=0.01)


def test_the_mask_leaves_pixels_out():
    views, flow = pan()
    views[5, :, :10] += 1
    mask = torch.ones_like(flow[:, :1])
    mask[:, :, :10] = 0
    assert flicker(views, flow, mask).max() < 1e-3


def test_scenes():
    views, _ = pan()
    small = thumbnails(views)
    assert scene_difference(small[:-1], small[1:]).max() < 0.3
    assert scene_difference(small, thumbnails(0.8 * views - 0.2)).max() < 0.1
    other = thumbnails(torch.randn(12, 3, 4, 4).repeat_interleave(16, 2).repeat_interleave(16, 3))
    assert scene_difference(small, other).min() > 0.5
    assert scene_difference(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)).item() == 0


@torch.inference_mode()
def test_steady_flickers_less_at_the_same_content():
    """A stylisation that is different noise in each frame, of which 30 % has to go."""
    pytest.importorskip("cv2")
    views, flow = pan(16)
    random = torch.Generator().manual_seed(1)
    results = (views + 0.15 * torch.randn(views.shape, generator=random)).clamp(-1, 1)
    steady = Steady()
    steady.watch(Path("film"))
    mixed = []
    for batch, result in zip(torch.split(views, 4), torch.split(results, 4), strict=True):
        mixed.append(steady.mixed(batch, result))
    after = torch.cat(mixed)
    assert flicker(after, flow).mean() < 0.7 * flicker(results, flow).mean()
    assert (after - views).abs().mean() < (results - views).abs().mean()
