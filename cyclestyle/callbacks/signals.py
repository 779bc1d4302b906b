"""Signals that ask a run to stop: Ctrl-C, SIGTERM, and SLURM's warning before it takes a job off its machine."""

import os
import shutil
import signal
import subprocess
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl

AGREE_EVERY = 10  # steps between two questions to the other processes, because each waits for the device


class StopSignals:
    """Remembers that a signal asked to stop, until all processes can stop at the same step.

    A second signal is not caught: it stops at once. SLURM's SIGUSR1 (`#SBATCH --signal=USR1@60`) also puts the
    job back into the queue.

    Attributes:
        received: the signal that this process was sent; None if it was not.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._replaced: dict[signal.Signals, Any] = {}
        self._asked = 0

    def install(self) -> None:
        """Catch the signals; outside the main thread, where Python does not let them be caught, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            return
        signals = [signal.SIGINT, signal.SIGTERM]
        if "SLURM_JOB_ID" in os.environ:
            signals.append(signal.SIGUSR1)
        self._replaced = {number: signal.signal(number, self._remember) for number in signals}

    def restore(self) -> None:
        """Put back what the signals did before."""
        for number, handler in self._replaced.items():
            signal.signal(number, handler)
        self._replaced = {}

    def agreed(self, trainer: pl.Trainer) -> bool:
        """Whether all processes stop now; each must ask equally often, and one that was sent a signal is enough."""
        if trainer.world_size == 1:
            return self.received is not None
        self._asked += 1
        if self._asked % AGREE_EVERY:
            return False
        return trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)

    def requeue(self) -> None:
        """Put the SLURM job back into the queue, if SLURM's signal is why the run stops."""
        if self.received is not signal.SIGUSR1 or shutil.which("scontrol") is None:
            return
        job = os.environ["SLURM_JOB_ID"]
        if "SLURM_ARRAY_JOB_ID" in os.environ:
            job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        subprocess.run(["scontrol", "requeue", job], check=False)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
