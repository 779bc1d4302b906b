"""Translation of videos that flickers less: averages over the frames of a scene."""

from pathlib import Path

import torch
from torch import Tensor

from cyclestyle.functional.motion import not_occluded, optical_flow, warp
from cyclestyle.functional.scenes import scene_difference, thumbnails
from cyclestyle.images import as_rgb, from_levels, nearest_levels

SHARE = 0.8
"""Largest share of the last result, moved along the motion, in the next one."""
CHANGE = 0.2
"""Change of the input, of a range of 2, at which this share has fallen to 1/e of it."""
CUT = 0.5
"""Difference of two frames, in [0, 2], from which the second one begins a scene."""


class Steady:
    """Averages over the frames of a scene, and what is remembered of the frames before.

    Results are averaged along the motion of the input: where the input has just moved, a result is mixed with the one
    before, moved in the same way. What is uncovered or changes is left as it is.

    Args:
        share: largest share of the result before in a result, in [0, 1).
        cut: difference of two frames from which a scene begins; see `scene_difference`.
    """

    def __init__(self, share: float = SHARE, cut: float = CUT) -> None:
        self.share, self.cut = share, cut
        self._video: Path | None = None
        self._last: tuple[Tensor, Tensor] | None = None  # the last frame and its result, (1, C, H, W)

    def watch(self, video: Path | None) -> None:
        """Say where the next frames come from; None for images that are no frames."""
        if video is None or video != self._video:
            self._last = None
        self._video = video

    def mixed(self, images: Tensor, results: Tensor) -> Tensor:
        """Return the results, `(N, C, H, W)`, of frames, mixed with those before them.

        Raises:
            CycleStyleError: OpenCV is missing.
        """
        if self._video is None:
            return results
        mixed = []
        for frame, result in zip(torch.split(images, 1), torch.split(results, 1), strict=True):
            frame, new = _as_float(frame), _as_float(result)
            if self._last is not None and self.share and not self._begins_scene(frame, self._last[0]):
                new = self._mix(frame, new.to(frame.device), *self._last)
            self._last = frame, new
            mixed.append((nearest_levels(new) if result.dtype == torch.uint8 else new).to(result))
        return torch.cat(mixed)

    def _mix(self, frame: Tensor, result: Tensor, last_frame: Tensor, last_result: Tensor) -> Tensor:
        flow = optical_flow(as_rgb(frame), as_rgb(last_frame))
        back = optical_flow(as_rgb(last_frame), as_rgb(frame))
        moved, _ = warp(last_frame, flow)
        change = (frame - moved).abs().mean(dim=1, keepdim=True)
        share = self.share * not_occluded(flow, back) * torch.exp(-((change / CHANGE) ** 2))
        return torch.lerp(result, warp(last_result, flow, "bicubic")[0].clamp(-1, 1), share)

    def _begins_scene(self, frame: Tensor, last: Tensor) -> bool:
        before, now = thumbnails(last), thumbnails(frame)
        return bool(scene_difference(before.to(now), now) > self.cut)


def _as_float(images: Tensor) -> Tensor:
    return images.float() if images.is_floating_point() else from_levels(images)
