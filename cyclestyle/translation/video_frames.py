"""Encoding of the frames that `predict` translates."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cyclestyle.images import Encoding, Source, Video, VideoFormat, VideoWriter, read_video
from cyclestyle.translation.reading import Piece


@dataclass(frozen=True)
class WrittenVideo:
    """A video that is complete.

    Attributes:
        size: width and height as a player shows it.
        frames: number of frames.
        seconds: duration of translation in this process.
        problem: which frames could not be decoded; empty if all could.
    """

    size: tuple[int, int]
    frames: int
    seconds: float
    problem: str


class VideoFrames:
    """Encodes the frames of videos as they are translated. At most one video is open at a time.

    Args:
        encoding: how videos are written.
    """

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self._writer: VideoWriter | None = None
        self._seconds = 0.0

    def add(self, image: Tensor, piece: Piece, source: Source, seconds: float) -> WrittenVideo | None:
        """Encode a frame, and complete the video with its last one.

        Args:
            image: `(C, H, W)` in [-1, 1], or in levels in uint8.
            piece: which frame of which video it is.
            source: what came with it.
            seconds: duration of its translation.

        Returns:
            The video if it is complete; else None.

        Raises:
            DiskError: the disk is full, broken or read-only.
            ImageError: the video cannot be written.
            ValueError: the image contains NaN.
        """
        job = piece.job
        if self._writer is None or self._writer.target != job.target:
            self.abandon()
            assert isinstance(job.format, VideoFormat)
            self._writer = VideoWriter(read_video(job.source), job.target, job.format, self.encoding)
            self._seconds = 0.0
        self._seconds += seconds
        self._writer.add(image, piece.number, repeated=source.repeated)
        if piece.number + 1 < piece.count:
            return None
        repeated = self._writer.finish()
        video, self._writer = self._writer.video, None
        return WrittenVideo(video.upright_size, piece.count, self._seconds, _problem(video, repeated, job.source))

    def pause(self) -> None:
        """Complete the segment of the open video, so that the next run goes on behind it.

        Raises:
            DiskError: the disk is full, broken or read-only.
        """
        if self._writer is not None:
            self._writer.end_segment()

    def abandon(self) -> None:
        """Drop the segment of the open video that is not complete."""
        if self._writer is not None:
            self._writer.abandon()
        self._writer = None


def _problem(video: Video, repeated: Sequence[int], path: Path) -> str:
    if not repeated:
        return ""
    frames = f"{len(repeated)} frame{'s' if len(repeated) > 1 else ''}"
    which = f"number {repeated[0] + 1}, at {video.seconds(repeated[0]):.2f} s"
    first = which if len(repeated) == 1 else f"the first is {which}"
    return f"{path} has {frames} that cannot be decoded ({first}); the last good frame is repeated there"
