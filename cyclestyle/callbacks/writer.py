"""Writing of the images of `predict`."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from cyclestyle.callbacks.signals import StopSignals
from cyclestyle.errors import ImageError, StoppedError
from cyclestyle.images import to_image, write_image

MAX_PENDING = 32  # maximum number of images in memory that wait for the disk


class ImageWriter(pl.Callback):
    """Writes each image to its target path in background threads.

    After Ctrl-C or SIGTERM the current batch is completed and written, and `StoppedError` is raised.

    Args:
        total: number of images that all processes translate together.
        threads: number of threads.

    Attributes:
        written: number of images written by this process; after the end of prediction, by all processes.
        seconds: duration of translation in this process, without reading and writing.
        failures: error messages by file.
    """

    def __init__(self, total: int, *, threads: int = 2) -> None:
        self.total = total
        self.written = 0
        self.failures: dict[str, str] = {}
        self.seconds = 0.0
        self._batch_start = 0.0
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._pending: list[tuple[str, Future[None]]] = []
        self._signals = StopSignals()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start the threads. Image encoders release the GIL."""
        self._pool = ThreadPoolExecutor(self._threads)
        self._signals.take_over(trainer)
        self._signals.install()

    def on_predict_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Store the start time of the batch."""
        self._batch_start = time.perf_counter()

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Submit the images of a batch, `(N, C, H, W)`, to the threads."""
        self.failures |= batch["failures"]
        images = outputs.cpu()  # synchronises the device
        self.seconds += time.perf_counter() - self._batch_start
        for image, target in zip(images, batch["targets"], strict=True):
            assert self._pool is not None
            self._pending.append((target, self._pool.submit(_write, image, Path(target))))
        self._collect(MAX_PENDING)
        assert trainer.predict_dataloaders is not None
        shared = len(trainer.predict_dataloaders.dataset) // trainer.world_size  # some processes have one batch more
        if batch_idx + 1 < shared and self._signals.agreed(trainer):
            self._collect(0)
            self._raise_stopped(trainer)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait for the remaining images, and combine the results of all processes."""
        self._collect(0)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            reports: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(reports, (self.written, self.failures))
            self.written = sum(written for written, _ in reports)
            self.failures = {path: text for _, failures in reports for path, text in failures.items()}

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stop the threads, and restore the signal handlers."""
        if self._pool is not None:
            self._pool.shutdown()
        self._signals.restore()

    def _raise_stopped(self, trainer: pl.Trainer) -> None:
        received = self._signals.received
        name = "another process" if received is None else received.name
        left = self.total - self.written - len(self.failures)
        text = f"{left} of {self.total} images are left" if trainer.world_size == 1 else "some images are left"
        raise StoppedError(
            f"stopped by {name}; {text}; the same command goes on with them" if trainer.is_global_zero else "",
            status=128 + (received or 0),
        )

    def _collect(self, max_pending: int) -> None:
        while len(self._pending) > max_pending:
            target, result = self._pending.pop(0)
            error = result.exception()
            if error is None:
                self.written += 1
            elif isinstance(error, ImageError | ValueError):
                self.failures[target] = str(error) if isinstance(error, ImageError) else f"{target}: {error}"
            else:
                raise error


def _write(image: Tensor, target: Path) -> None:
    write_image(to_image(image), target)
