"""Handling of the signals that stop a run: SIGINT (Ctrl-C), SIGTERM, SIGHUP, and SIGUSR1 from SLURM."""

import os
import shutil
import signal
import subprocess
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class StopSignals:
    """Stores a stop signal until the work can stop. It is a context, in which the handlers are installed.

    A second signal is not caught and stops the process immediately. SIGUSR1 from SLURM (`#SBATCH --signal=USR1@60`)
    also requeues the job. SIGHUP tells that the terminal was closed; shells and the system may both send it, so a
    second one is ignored, and `nohup` keeps the first one away.

    Attributes:
        received: the signal that this process received, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous_handlers: dict[signal.Signals, Any] = {}

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

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}

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
