"""Writing of the images and videos of `predict`."""

import json
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from cyclestyle.callbacks.signals import StopSignals
from cyclestyle.callbacks.video_frames import VideoFrames
from cyclestyle.data.prediction import Job, Origins, Piece
from cyclestyle.errors import DISK_ERRORS, CycleStyleError, DiskError, ImageError, StoppedError
from cyclestyle.files import append_line
from cyclestyle.images import Encoding, Frame, Source, VideoFormat, finish, write_frames

MAX_PENDING = 32  # maximum number of files in memory that wait for the disk
MAX_PENDING_PIXELS = 2**26  # and of their pixels, unless it is one file


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
class _Batch:
    """A translated batch, whose images a GPU may still compute and copy."""

    images: torch.Tensor  # on the CPU
    origins: Origins
    start: Any  # a time, or an event on the GPU
    end: Any

    def seconds(self) -> float:
        """Wait for the images, and return how long they took."""
        if isinstance(self.end, float):
            return float(self.end - self.start)
        self.end.synchronize()
        return float(self.start.elapsed_time(self.end)) / 1000


class ImageWriter(pl.Callback):
    """Writes each image to its target path in background threads, and an animation when its last image is translated.

    A GPU translates a batch while the images of the batch before are copied from it and handed to the threads.
    The frames of a video are encoded as they come; see `VideoFrames`. After Ctrl-C or SIGTERM the current batch is
    completed and written, and `StoppedError` is raised. A full disk stops all processes in the same way, with
    `DiskError`.

    Args:
        total: number of files that all processes translate together.
        quality: quality of lossy formats; None for that of each source.
        encoding: how videos are written.
        manifest: where to list the files that are written.
        unit: what the files are called in messages.
        threads: number of threads.

    Attributes:
        written: number of files written by this process; after the end of prediction, by all processes.
        seconds: duration of translation in this process, without reading and writing.
        failures: error messages by file.
        cut: files with values below black or above white, which were cut.
    """

    def __init__(
        self,
        total: int,
        *,
        quality: int | None = None,
        encoding: Encoding | None = None,
        manifest: Manifest | None = None,
        unit: str = "image",
        threads: int = 2,
    ) -> None:
        self.total = total
        self.quality = quality
        self.manifest = manifest
        self.unit = unit
        self.written = 0
        self.failures: dict[str, str] = {}
        self.cut: set[str] = set()
        self.seconds = 0.0
        self._on_gpu = False
        self._batch_start: Any = 0.0
        self._waiting: _Batch | None = None
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._files: dict[Path, _File] = {}  # by target
        self._videos = VideoFrames(encoding or Encoding())
        self._damaged: dict[str, str] = {}  # messages of videos that are written, but not of good frames alone
        self._pending: list[tuple[Job, int, Future[None]]] = []  # with the number of pixels
        self._disk_error = ""
        self._signals = StopSignals()
        self._group: Any = None  # of all processes

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start the threads, whose image encoders release the GIL, and connect the processes."""
        if trainer.world_size > 1:
            # By gloo also on GPUs: over NCCL each agreement would wait for the device, and a process that is done
            # would be ended for waiting half an hour for the others.
            self._group = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=30))
        self._on_gpu = trainer.strategy.root_device.type == "cuda"
        self._pool = ThreadPoolExecutor(self._threads)
        self._signals.take_over(trainer)
        self._signals.install()

    def on_predict_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Store the start time of the batch."""
        self._batch_start = self._now()

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Submit the images of a batch, `(N, C, H, W)`, to the threads; on a GPU those of the batch before."""
        self.failures |= batch["failures"]
        images = outputs.to("cpu", non_blocking=self._on_gpu)
        new = _Batch(images, batch["origins"], self._batch_start, self._now())
        self._submit_waiting()
        self._waiting = new
        if not self._on_gpu:
            self._submit_waiting()
        self._collect(MAX_PENDING, MAX_PENDING_PIXELS)
        if self._agreed(trainer, done=False)[0]:
            self._stop(trainer)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait for the remaining images and for the other processes, and combine the results of all."""
        self._submit_waiting()
        self._collect(0, 0)
        done = False
        while not done:
            stop, done = self._agreed(trainer, done=True)
            if stop:
                self._stop(trainer)
        reports = self._gather(trainer)
        self.written = sum(report["written"] for report in reports)
        self.cut = {path for report in reports for path in report["cut"]}
        for kind in ("failures", "damaged"):
            self.failures |= {path: text for report in reports for path, text in report[kind].items()}

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stop the threads, and restore the signal handlers."""
        self._videos.abandon()
        if self._pool is not None:
            self._pool.shutdown()
        self._signals.restore()

    def _now(self) -> Any:
        """The time; on a GPU an event, at which it has done what it was given so far."""
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _submit_waiting(self) -> None:
        """Hand the images of the batch that waits to the threads."""
        batch, self._waiting = self._waiting, None
        if batch is None:
            return
        seconds = batch.seconds()
        self.seconds += seconds
        for image, piece, source in zip(batch.images, batch.origins.pieces, batch.origins.sources, strict=True):
            self._submit(image, piece, source, seconds / len(batch.images))

    def _submit(self, image: torch.Tensor, piece: Piece, source: Source, seconds: float) -> None:
        """Hand an image to the threads, and with the last one of a file the writing of the file."""
        assert self._pool is not None
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

    def _encode(self, image: torch.Tensor, piece: Piece, source: Source, seconds: float) -> None:
        """Encode a frame. The encoder has threads of its own, and what waits for them is bounded."""
        job = piece.job
        if self._disk_error:
            return
        try:
            video = self._videos.add(image, piece, source, seconds)
            if video is None:
                return
            self.written += 1
            if video.problem:
                self._damaged[str(job.source)] = video.problem
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
            self._disk_error = self._disk_error or str(error)
        elif isinstance(error, ImageError | ValueError):
            text = str(error) if isinstance(error, ImageError) else f"cannot translate {job.source}: {error}"
            self.failures[str(job.source)] = text
        else:
            raise error

    def _agreed(self, trainer: pl.Trainer, *, done: bool) -> tuple[bool, bool]:
        """Return whether any process has to stop, and whether all are done.

        The processes have different numbers of batches. One that is done goes on calling this until all are.
        """
        stop = self._signals.received is not None or bool(self._disk_error)
        if trainer.world_size == 1:
            return stop, done
        votes = torch.tensor([stop, not done], dtype=torch.uint8)
        torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX, self._group)
        return bool(votes[0]), not votes[1]

    def _stop(self, trainer: pl.Trainer) -> None:
        """Write what is translated, and stop all processes, unless nothing is left to translate."""
        self._submit_waiting()
        self._collect(0, 0)
        if not self._disk_error:
            self._pause()
        reports = self._gather(trainer)
        left = self.total - sum(report["written"] + len(report["failures"]) for report in reports)
        disk_error = next(filter(None, (report["disk_error"] for report in reports)), "")
        if left == 0 and not disk_error:
            return
        text = f"{left} of {self.total} {self.unit}s are left; the same command goes on with them"
        received = next(filter(None, (report["signal"] for report in reports)), None)
        if not trainer.is_global_zero:
            raise StoppedError("", status=1 if received is None else 128 + received)
        if disk_error:
            raise DiskError(f"{disk_error}; {text} when there is space")
        assert received is not None
        raise StoppedError(f"stopped by {received.name}; {text}", status=128 + received)

    def _pause(self) -> None:
        """Complete the segment of a video, or find that there is no room for it."""
        try:
            self._videos.pause()
        except DiskError as error:
            self._disk_error = str(error)

    def _gather(self, trainer: pl.Trainer) -> list[dict[str, Any]]:
        """The results of all processes."""
        own = {
            "written": self.written,
            "failures": self.failures,
            "cut": self.cut,
            "damaged": self._damaged,
            "disk_error": self._disk_error,
            "signal": self._signals.received,
        }
        if trainer.world_size == 1:
            return [own]
        reports: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(reports, own, self._group)
        return reports
