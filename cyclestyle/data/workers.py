"""The worker processes of loaders: how many there can be, stop signals, and images that they hand over."""

import atexit
import multiprocessing
import os
import shutil
import signal
import sys
from functools import cache
from multiprocessing.reduction import ForkingPickler
from multiprocessing.synchronize import Semaphore
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor
from torch.utils.data._utils import signal_handling

from cyclestyle.scratch import format_bytes


def worker_options(workers: int) -> dict[str, Any]:
    """Return the arguments of a `DataLoader` with so many workers; with none where the system cannot have any."""
    # Without the handler of PyTorch a dead worker is noticed at the next batch, as an error of the loader. The handler
    # would raise it wherever the main thread is, such as in reading an image, which then counts as damaged.
    signal_handling._SIGCHLD_handler_set = True
    try:
        return {"num_workers": workers, "worker_init_fn": Worker() if workers else None}
    except (ImportError, OSError) as error:  # no semaphores: /dev/shm is missing, full or cannot be written
        reason = getattr(error, "strerror", None) or error
        print(
            f"cyclestyle: warning: processes that load images need /dev/shm ({reason}); loading without them",
            file=sys.stderr,
        )
        return {"num_workers": 0}


class Worker:
    """Prepares a worker of a loader for stop signals, and for shared memory that is full; a `worker_init_fn`.

    A signal to a process group, such as Ctrl-C, reaches the workers too, but the parent decides when to stop. So they
    ignore stop signals until their parent exits. At exit multiprocessing sends SIGTERM to its workers and waits for
    them, so that they must obey then.

    Tensors reach the parent in shared memory. Where it has no room, PyTorch would lose the batch, for which the parent
    would wait for ever. So a tensor goes through the pipe of the worker then, and one line says so.

    Raises:
        OSError: the system has no room for semaphores, without which there are no workers.
    """

    def __init__(self) -> None:
        self._exiting = multiprocessing.Event()
        atexit.register(self._exiting.set)  # before the exit function of multiprocessing, which was registered first
        self._notice = _notice()

    def __call__(self, worker: int) -> None:
        """Prepare a worker, in its own process."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_terminate)
        if hasattr(signal, "SIGHUP"):  # not on Windows
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        ForkingPickler.register(torch.Tensor, self._reduce)

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        if self._exiting.is_set():
            os._exit(128 + number)

    def _reduce(self, tensor: Tensor) -> tuple[Any, ...]:
        try:
            tensor.share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if self._notice.acquire(block=False):
                _say_no_room(tensor.nbytes, error)
            return torch.from_numpy, (tensor.numpy(),)
        return reduce_tensor(tensor)  # type: ignore[no-any-return,no-untyped-call]


@cache
def _notice() -> Semaphore:
    """Return a semaphore that one worker of all loaders can acquire, so that the notice is given once."""
    return multiprocessing.Semaphore(1)


def _say_no_room(size: int, error: RuntimeError) -> None:
    try:
        room = f"{format_bytes(shutil.disk_usage('/dev/shm').total)} in all"
    except OSError:
        room = str(error)
    print(
        f"cyclestyle: warning: /dev/shm ({room}) has no room for an image batch of {format_bytes(size)}; loader "
        "processes hand it over through a pipe, which is slower; containers get more room with --shm-size 2g",
        file=sys.stderr,
        flush=True,
    )
