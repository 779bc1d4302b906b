"""Signals that stop a run: Ctrl-C, SIGTERM, and the warning of SLURM before it ends a job."""

import os
import shutil
import signal
import subprocess
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl

AGREE_EVERY = 10  # steps between two exchanges with the other processes, because each waits for the device


class StopSignals:
    """Stores a stop signal until all processes can stop at the same step.

    A second signal is not caught: it stops the process at once. SIGUSR1 from SLURM (`#SBATCH --signal=USR1@60`) also
    puts the job back into the queue.

    Attributes:
        received: the signal that this process received; None if there was none.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._replaced: dict[signal.Signals, Any] = {}
        self._asked = 0

    def install(self) -> None:
        """Catch the signals; do nothing outside the main thread, where Python does not allow it."""
        if threading.current_thread() is not threading.main_thread():
            return
        signals = [signal.SIGINT, signal.SIGTERM]
        if "SLURM_JOB_ID" in os.environ:
            signals.append(signal.SIGUSR1)
        self._replaced = {number: signal.signal(number, self._remember) for number in signals}

    def restore(self) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._replaced.items():
            signal.signal(number, handler)
        self._replaced = {}

    def agreed(self, trainer: pl.Trainer) -> bool:
        """Return whether all processes stop now. One signal is enough; every process must call this equally often."""
        if trainer.world_size == 1:
            return self.received is not None
        self._asked += 1
        if self._asked % AGREE_EVERY:
            return False
        return trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)

    def requeue(self) -> None:
        """Put the SLURM job back into the queue if the signal of SLURM stopped the run."""
        if self.received is not signal.SIGUSR1 or shutil.which("scontrol") is None:
            return
        job = os.environ["SLURM_JOB_ID"]
        if "SLURM_ARRAY_JOB_ID" in os.environ:
            job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        subprocess.run(["scontrol", "requeue", job], check=False)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
