"""Handling of the signals that stop a run: SIGINT (Ctrl-C), SIGTERM, SIGHUP, and SIGUSR1 from SLURM."""

import os
import shutil
import signal
import subprocess
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl

AGREE_EVERY = 10  # calls between two reductions over all processes on a GPU, each of which synchronises the device


class StopSignals:
    """Stores a stop signal until all processes can stop at the same step.

    A second signal is not caught and stops the process immediately. SIGUSR1 from SLURM (`#SBATCH --signal=USR1@60`)
    also requeues the job. SIGHUP tells that the terminal was closed; shells and the system may both send it, so a
    second one is ignored, and `nohup` keeps the first one away.

    Attributes:
        received: the signal that this process received, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous_handlers: dict[signal.Signals, Any] = {}
        self._calls = 0

    def install(self) -> None:
        """Install the signal handlers. Outside the main thread this has no effect, because Python does not allow it."""
        if threading.current_thread() is not threading.main_thread():
            return
        signals = [signal.SIGINT, signal.SIGTERM]
        if "SLURM_JOB_ID" in os.environ:
            signals.append(signal.SIGUSR1)
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # Windows has none
            signals.append(signal.SIGHUP)
        self._previous_handlers = {number: signal.signal(number, self._store) for number in signals}

    @staticmethod
    def take_over(trainer: pl.Trainer) -> None:
        """Keep Lightning from installing handlers of its own, which is to be called in `setup`.

        Its handler of SIGTERM communicates with the other processes while they may be in another communication, and
        then they wait for each other for ever. Until `install` is called, a signal ends the process at once.
        """
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    def restore(self) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}

    def agreed(self, trainer: pl.Trainer) -> bool:
        """Return whether any process received a signal.

        With several processes on GPUs this is checked in every `AGREE_EVERY`th call, and is False in the others. All
        processes must call it the same number of times.
        """
        if trainer.world_size == 1:
            return self.received is not None
        self._calls += 1
        if trainer.strategy.root_device.type != "cpu" and self._calls % AGREE_EVERY:
            return False
        return trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)

    def requeue(self) -> None:
        """Requeue the SLURM job if SIGUSR1 stopped the run."""
        if self.received is not signal.SIGUSR1 or shutil.which("scontrol") is None:
            return
        job = os.environ["SLURM_JOB_ID"]
        if "SLURM_ARRAY_JOB_ID" in os.environ:
            job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        subprocess.run(["scontrol", "requeue", job], check=False)

    def _store(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        next_time: dict[str, Any] = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_IGN}
        signal.signal(number, next_time.get(self.received.name, signal.SIG_DFL))
