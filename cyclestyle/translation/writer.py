"""Writing of translated images and videos."""

import json
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from cyclestyle.errors import DISK_ERRORS, CycleStyleError, DiskError, ImageError
from cyclestyle.files import append_line
from cyclestyle.images import Encoding, Frame, Source, VideoFormat, finish, put_together, to_unit, write_frames
from cyclestyle.translation.jobs import Job
from cyclestyle.translation.reading import Batch, Piece
from cyclestyle.translation.video_frames import VideoFrames

MAX_PENDING = 32  # maximum number of files in memory that wait for the disk
MAX_PENDING_PIXELS = 2**26  # and of their pixels, unless it is one file
THREADS = 2


@dataclass(frozen=True)
class Manifest:
    """A file of JSON lines, one for each image that is written.

    Args:
        path: the file; lines that it has are kept.
        settings: what all lines have in common, such as the checkpoint.
    """

    path: Path
    settings: Mapping[str, Any] = field(default_factory=dict)

    def add(self, job: Job, size: tuple[int, int], frames: int, seconds: float) -> None:
        """Append the line of an image.

        Raises:
            DiskError: the disk is full, broken or read-only.
            CycleStyleError: the file cannot be written.
        """
        line = {"input": str(job.source), "output": str(job.target), "size": size, "frames": frames}
        try:
            append_line(self.path, json.dumps({**line, "seconds": round(seconds, 4), **self.settings}))
        except OSError as error:
            kind = DiskError if error.errno in DISK_ERRORS else CycleStyleError
            raise kind(f"cannot write {self.path}: {error.strerror or error}") from error


@dataclass
class _File:
    """A translated file that is not complete yet: its images, and the seconds that they took."""

    frames: list[Future[Frame]] = field(default_factory=list)
    seconds: float = 0.0
    pixels: int = 0


@dataclass
class _Translated:
    """A translated batch, whose images a GPU may still compute and copy."""

    batch: Batch
    start: Any  # a time, or an event on the GPU
    end: Any

    def seconds(self) -> float:
        """Wait for the images, and return how long they took."""
        if isinstance(self.end, float):
            return float(self.end - self.start)
        self.end.synchronize()
        return float(self.start.elapsed_time(self.end)) / 1000


class Writer:
    """Writes each image to its target path in background threads, and an animation when its last image is translated.

    A GPU translates a batch while the images of the batch before are copied from it and handed to the threads.
    The frames of a video are encoded as they come; see `VideoFrames`. It is a context, at whose end the threads stop.

    Args:
        quality: quality of lossy formats; None for that of each source.
        encoding: how videos are written.
        manifest: where to list the files that are written.
        on_gpu: whether the images come from a GPU.

    Attributes:
        written: number of files written.
        seconds: duration of translation, without reading and writing.
        failures: error messages by file.
        damaged: messages of videos that are written, but not of good frames alone.
        cut: files with values below black or above white, which were cut.
        disk_error: why the disk takes no more; empty if it does.
    """

    def __init__(
        self,
        *,
        quality: int | None = None,
        encoding: Encoding | None = None,
        manifest: Manifest | None = None,
        on_gpu: bool = False,
    ) -> None:
        self.quality, self.manifest, self.on_gpu = quality, manifest, on_gpu
        self.written = 0
        self.seconds = 0.0
        self.failures: dict[str, str] = {}
        self.damaged: dict[str, str] = {}
        self.cut: set[str] = set()
        self.disk_error = ""
        self._waiting: _Translated | None = None
        self._pool = ThreadPoolExecutor(THREADS)  # image encoders release the GIL
        self._files: dict[Path, _File] = {}  # by target
        self._videos = VideoFrames(encoding or Encoding())
        self._pending: list[tuple[Job, int, Future[None]]] = []  # with the number of pixels

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the threads, and drop what is not complete."""
        self._videos.abandon()
        self._pool.shutdown()

    def now(self) -> Any:
        """Return the time; on a GPU an event, at which it has done what it was given so far."""
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def add(self, batch: Batch, start: Any) -> None:
        """Hand a translated batch to the threads; on a GPU the batch before.

        Args:
            batch: its images are translations.
            start: what `now` has returned before it was translated.
        """
        self.failures |= batch.failures
        new = _Translated(batch, start, self.now())
        self._submit_waiting()
        self._waiting = new
        if not self.on_gpu:
            self._submit_waiting()
        self._collect(MAX_PENDING, MAX_PENDING_PIXELS)

    def finish(self) -> None:
        """Write everything that is translated, and complete the segment of a video that goes on in the next run."""
        self._submit_waiting()
        self._collect(0, 0)
        if not self.disk_error:
            try:
                self._videos.pause()
            except DiskError as error:
                self.disk_error = str(error)

    def _submit_waiting(self) -> None:
        """Hand the images of the batch that waits to the threads."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        seconds, batch = waiting.seconds(), waiting.batch
        self.seconds += seconds
        for image, piece, source in zip(batch.images, batch.pieces, batch.sources, strict=True):
            self._submit(image, piece, source, seconds / len(batch.images))

    def _submit(self, image: Tensor, piece: Piece, source: Source, seconds: float) -> None:
        """Hand an image to the threads, and with the last one of a file the writing of the file."""
        job = piece.job
        if source.cut:
            self.cut.add(str(job.source))
        if str(job.source) in self.failures:  # another image of the file
            self._files.pop(job.target, None)
            return
        if isinstance(job.format, VideoFormat):
            self._encode(image, piece, source, seconds)
            return
        file = self._files.setdefault(job.target, _File())
        file.frames.append(self._pool.submit(finish, image, source, job.format))
        file.seconds += seconds
        file.pixels += image.shape[1] * image.shape[2]
        if piece.number + 1 == piece.count:
            del self._files[job.target]
            self._pending.append((job, file.pixels, self._pool.submit(self._write, job, file)))

    def _encode(self, image: Tensor, piece: Piece, source: Source, seconds: float) -> None:
        """Encode a frame. The encoder has threads of its own, and what waits for them is bounded."""
        job = piece.job
        if self.disk_error:
            return
        try:
            if source.kept is not None:
                image = to_unit(put_together(image, source))
            video = self._videos.add(image, piece, source, seconds)
            if video is None:
                return
            self.written += 1
            if video.problem:
                self.damaged[str(job.source)] = video.problem
            if self.manifest is not None:
                self.manifest.add(job, video.size, video.frames, video.seconds)
        except (DiskError, ImageError, ValueError) as error:
            self._videos.abandon()
            self._note(job, error)

    def _write(self, job: Job, file: _File) -> None:
        assert not isinstance(job.format, VideoFormat)
        frames = [future.result() for future in file.frames]  # submitted before, so that a thread has them already
        write_frames(frames, job.target, job.format, quality=self.quality)
        if self.manifest is not None:
            height, width = frames[0].pixels.shape[:2]
            self.manifest.add(job, (width, height), len(frames), file.seconds)

    def _collect(self, max_pending: int, max_pixels: int) -> None:
        """Wait until no more files than this are pending."""
        while len(self._pending) > max_pending or (
            len(self._pending) > 1 and sum(pixels for _, pixels, _ in self._pending) > max_pixels
        ):
            job, _, result = self._pending.pop(0)
            error = result.exception()
            if error is None:
                self.written += 1
            else:
                self._note(job, error)

    def _note(self, job: Job, error: BaseException) -> None:
        """Store why a file is not written.

        Raises:
            BaseException: the error, if it has another reason than the image or the disk.
        """
        if isinstance(error, DiskError):
            self.disk_error = self.disk_error or str(error)
        elif isinstance(error, ImageError | ValueError):
            text = str(error) if isinstance(error, ImageError) else f"cannot translate {job.source}: {error}"
            self.failures[str(job.source)] = text
        else:
            raise error
