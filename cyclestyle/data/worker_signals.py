"""Stop signals in the workers of loaders."""

import atexit
import multiprocessing
import os
import signal
from types import FrameType


class WorkerSignals:
    """Lets the workers of loaders ignore stop signals until their parent exits.

    A signal to a process group, such as Ctrl-C, reaches the workers too, but the parent decides when to stop. At exit
    multiprocessing sends SIGTERM to its workers and waits for them, so that they must obey then.
    """

    def __init__(self) -> None:
        self._exiting = multiprocessing.Event()
        atexit.register(self._exiting.set)  # before the exit function of multiprocessing, which was registered first

    def __call__(self, worker: int) -> None:
        """Install the handlers in a worker; the `worker_init_fn` of a loader."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_terminate)

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        if self._exiting.is_set():
            os._exit(128 + number)
