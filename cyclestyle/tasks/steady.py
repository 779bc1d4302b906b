"""Translation of videos that does not flicker: the statistics of norms are averaged over the frames of a scene."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from cyclestyle.errors import CycleStyleError
from cyclestyle.functional.scenes import scene_difference, thumbnails
from cyclestyle.images import from_levels
from cyclestyle.networks.steady import AveragedStatistics

DECAY = 0.9
"""Of the averages: they follow a change within about 10 frames."""
CUT = 0.5
"""Difference of two frames, in [0, 2], from which the second one begins a scene."""


class Steady:
    """What is remembered of the frames before.

    Args:
        decay: decay of the averages of the statistics; see `AveragedStatistics`.
        cut: difference of two frames from which a scene begins; see `scene_difference`.
    """

    def __init__(self, decay: float = DECAY, cut: float = CUT) -> None:
        self.cut = cut
        self.statistics = AveragedStatistics(decay)
        self._video: Path | None = None
        self._last: Tensor | None = None  # thumbnail of the last frame

    def watch(self, video: Path | None) -> None:
        """Say where the next frames come from; None for images that are no frames."""
        if video is None or video != self._video:
            self._last = None
        self._video = video

    @contextmanager
    def frames(self, images: Tensor, *, streamed: bool) -> Iterator[None]:
        """Average the statistics while frames, `(N, C, H, W)`, are translated in one pass.

        Raises:
            CycleStyleError: the networks have no norms.
        """
        small = thumbnails(from_levels(images) if not images.is_floating_point() else images)
        starts = self._starts(small)
        with self.statistics.numbered(starts) if streamed else self.statistics.frames(starts):
            yield
        self._last = small[-1:] if self._video is not None else None
        if not self.statistics.norms:
            raise CycleStyleError(
                "the networks have no instance norms whose statistics could be averaged; leave --steady out"
            )

    def _starts(self, small: Tensor) -> list[bool]:
        """For each frame, whether a scene begins with it."""
        if self._video is None:
            return [True] * len(small)
        starts = []
        last = self._last
        for frame in torch.split(small, 1):
            starts.append(last is None or bool(scene_difference(last.to(frame), frame) > self.cut))
            last = frame
        return starts
