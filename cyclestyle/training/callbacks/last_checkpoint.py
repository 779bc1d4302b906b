"""Checkpoints to resume from, also written when a signal stops the run."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from cyclestyle.errors import CheckpointError, StoppedError
from cyclestyle.files import remove_unfinished, unfinished_name
from cyclestyle.training.callbacks.signals import TrainingSignals
from cyclestyle.weights.checkpoints import read_checkpoint, write_checkpoint
from cyclestyle.weights.upgrade import upgrade

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt`, and keeps the checkpoint before it as `previous.ckpt` in case the newer one is damaged.

    A checkpoint is written between two steps, after the first one has been logged, or at the end of an epoch. It is
    never written while gradients accumulate or a validation is due, so a resumed run neither repeats nor skips a step.

    After Ctrl-C, SIGTERM or the signal of SLURM, the current step or validation batch is completed, a checkpoint is
    written, and `StoppedError` is raised. A resumed run repeats an interrupted validation from its start. An error in
    loading images, or in a validation, leaves a checkpoint of the last step, too.

    Args:
        dirpath: folder of the checkpoints; the command line sets `<run>/checkpoints`.
        every_n_train_steps: optimiser steps between two checkpoints within an epoch; 0 for none.
        every_n_epochs: epochs between two checkpoints; 0 for none. The last one is always written.
        keep_every_n_epochs: epochs between two checkpoints that are kept, as `epoch_0005.ckpt` for the state after
            five epochs; 0 for none.
    """

    def __init__(
        self,
        dirpath: str | None = None,
        *,
        every_n_train_steps: int = 0,
        every_n_epochs: int = 1,
        keep_every_n_epochs: int = 0,
    ) -> None:
        if min(every_n_train_steps, every_n_epochs, keep_every_n_epochs) < 0:
            raise ValueError(
                "every_n_train_steps, every_n_epochs and keep_every_n_epochs must be 0 or more, "
                f"got {every_n_train_steps}, {every_n_epochs} and {keep_every_n_epochs}"
            )
        self.dirpath = dirpath
        self.every_n_train_steps = every_n_train_steps
        self.every_n_epochs = every_n_epochs
        self.keep_every_n_epochs = keep_every_n_epochs
        self._signals = TrainingSignals()
        self._length = 0.0  # number of batches of an epoch
        self._due = False  # a checkpoint is due
        self._stop = False  # the run stops after the next checkpoint
        self._step = -1  # number of optimiser steps at the end of the last batch
        self._stepped = False  # the last batch ended with an optimiser step
        self._between_steps = False  # and was followed by neither a validation nor the end of the epoch

    @property
    def last(self) -> Path:
        """Path of the newest checkpoint."""
        return Path(self.dirpath or ".") / LAST

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Set the default of `dirpath`, and take over the handling of signals."""
        self._signals.take_over(trainer)
        if self.dirpath is None:
            self.dirpath = str(Path(trainer.default_root_dir) / "checkpoints")

    def state_dict(self) -> dict[str, float]:
        """Return the number of batches of an epoch."""
        return {"length": self._length}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Restore the number of batches that an epoch had."""
        self._length = state_dict["length"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the signal handlers, and remove temporary files of a run that was killed."""
        if trainer.is_global_zero:
            remove_unfinished(self.last.parent)
        self._step = trainer.global_step
        self._signals.install()
        _complete_epoch_again(trainer, self._length)
        self._length = trainer.num_training_batches

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Write a checkpoint between two steps if one is due."""
        # The step axis of logs: Lightning counts one step too many if trainer.max_steps is set on resuming.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        if (self._due or self._stop) and self._between_steps:
            with _before_this_batch(trainer):
                self._save(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Decide whether a checkpoint is due."""
        self._stop = self._stop or self._signals.agreed(trainer)
        self._stepped = trainer.global_step != self._step
        self._step = trainer.global_step
        self._between_steps = self._stepped and not trainer.is_last_batch
        if self._stepped and self.every_n_train_steps and self._step % self.every_n_train_steps == 0:
            self._due = True
        if not trainer.is_last_batch and (self._step == trainer.max_steps or trainer.should_stop):
            self._save(trainer)  # no other step follows

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop within a validation, because the whole validation may take long."""
        if trainer.sanity_checking:
            return
        self._stop = self._stop or self._signals.agreed(trainer)
        if self._stop and self._stepped:  # otherwise accumulated gradients would be lost
            with _before_this_validation(trainer):
                self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write no checkpoint before the next step: Lightning would count a step twice after this validation."""
        self._between_steps = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write a checkpoint at the end of a complete epoch if one is due."""
        if not trainer.is_last_batch:
            return
        epochs = trainer.current_epoch + 1
        regular = self.every_n_epochs and epochs % self.every_n_epochs == 0
        final = epochs == trainer.max_epochs or self._step == trainer.max_steps or trainer.should_stop
        kept = self.keep_every_n_epochs and epochs % self.keep_every_n_epochs == 0
        if kept:  # before `last.ckpt`, so that a run that is killed in between repeats the epoch and writes it again
            trainer.save_checkpoint(self.last.with_name(f"epoch_{epochs:04}.ckpt"), weights_only=False)
        if regular or final or kept or self._due or self._stop:
            self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Restore the signal handlers. Where the next images cannot be loaded, the steps so far are kept."""
        progress = trainer.fit_loop.epoch_loop.batch_progress.current
        loading = self._between_steps and trainer.training and progress.ready == progress.completed
        validating = self._stepped and trainer.validating  # which changes nothing, so that it may be repeated
        if (loading or validating) and trainer.world_size == 1:  # other processes may wait elsewhere
            self._stop = False
            place = _before_this_validation(trainer) if validating else nullcontext()
            with suppress(CheckpointError), place:  # a full disk may be what stopped the run
                self._save(trainer)
        self._signals.restore()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the signal handlers."""
        self._signals.restore()

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            _link_previous(self.last)
        trainer.save_checkpoint(self.last, weights_only=False)  # every process must call this
        self._due = False
        if self._stop:
            self._raise_stopped(trainer)

    def _raise_stopped(self, trainer: pl.Trainer) -> None:
        received = self._signals.received
        name = "another process" if received is None else received.name
        if trainer.is_global_zero:
            self._signals.requeue()
        raise StoppedError(
            f"stopped by {name} at step {trainer.global_step}; resume with the same command and --ckpt_path last"
            if trainer.is_global_zero
            else "",  # one process prints the message
            status=128 + (received or 0),
        )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically, and reads them with `weights_only=True`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointError: the disk is full, or the folder cannot be written.
        """
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            CheckpointError: the file is damaged, or contains objects other than tensors and plain values.
        """
        return upgrade(read_checkpoint(Path(path)))


def _link_previous(last: Path) -> None:
    """Create `previous.ckpt` as a hard link to `last.ckpt`, before a newer checkpoint replaces the latter."""
    if not last.exists():
        return
    linked = last.with_name(unfinished_name(PREVIOUS))
    try:
        linked.unlink(missing_ok=True)
        os.link(last, linked)
        linked.replace(last.with_name(PREVIOUS))
    except OSError:  # a file system without hard links
        last.replace(last.with_name(PREVIOUS))


def newest_checkpoint(folder: Path, report: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """Return `last.ckpt`, or `previous.ckpt` if the former is missing or damaged; a damaged file is reported.

    Returns:
        The path and the content, or None if neither file exists.

    Raises:
        CheckpointError: all existing files are damaged.
    """
    existing = [folder / name for name in (LAST, PREVIOUS) if (folder / name).exists()]
    for number, path in enumerate(existing, start=1):
        try:
            return path, read_checkpoint(path)
        except CheckpointError as error:
            if number == len(existing):
                raise
            report(f"{error}; resuming from {existing[number]}")
    return None


def _complete_epoch_again(trainer: pl.Trainer, length: float) -> None:
    """Let a complete epoch stay so, if an epoch has more batches now than `length`: Lightning would continue it."""
    progress = trainer.fit_loop.epoch_loop.batch_progress.current
    if length and progress.ready == length:
        progress.load_state_dict(dict.fromkeys(asdict(progress), int(trainer.num_training_batches)))


@contextmanager
def _before_this_batch(trainer: pl.Trainer) -> Iterator[None]:
    """Set the batch counters of Lightning to their values before the next batch was fetched."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    for counter in (progress.total, progress.current):
        counter.ready -= 1
    try:
        yield
    finally:
        for counter in (progress.total, progress.current):
            counter.ready += 1


@contextmanager
def _before_this_validation(trainer: pl.Trainer) -> Iterator[None]:
    """Set the batch counters of Lightning to the first validation batch, so that a resumed run repeats all batches."""
    progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    counters = (progress.total, progress.current)
    before = [asdict(counter) for counter in counters]
    for counter in counters:
        counter.load_state_dict({"ready": 1, "started": 1, "processed": 0, "completed": 0})
    try:
        yield
    finally:
        for counter, state in zip(counters, before, strict=True):
            counter.load_state_dict(state)
