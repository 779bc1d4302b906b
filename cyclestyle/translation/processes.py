"""Several processes that translate, each its share of the files. They need not talk to each other."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from signal import Signals
from typing import Any, TypeVar

from torch import multiprocessing
from torch.multiprocessing.spawn import start_processes

from cyclestyle.errors import CycleStyleError
from cyclestyle.signals import StopSignals
from cyclestyle.translation.jobs import Job
from cyclestyle.translation.run import Report

VARIABLES = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))
"""Where torchrun and SLURM tell a process its number, how many there are, and its number on the machine."""

Wanted = TypeVar("Wanted")


@dataclass(frozen=True)
class Rank:
    """The number of a process, how many there are, and its number on the machine."""

    number: int = 0
    count: int = 1
    local: int = 0

    @classmethod
    def of_environment(cls) -> "Rank":
        """Return what torchrun or SLURM say; one process if they say nothing."""
        for names in VARIABLES:
            values = [os.environ.get(name, "") for name in names]
            if all(value.isdecimal() for value in values):
                return cls(*map(int, values))
        return cls()


def translate_in_processes(
    work: Callable[[Wanted, Sequence[Job]], Report], wanted: Wanted, jobs: Sequence[Job], count: int
) -> Report:
    """Translate files in several processes of this machine, and return what they have done together.

    Args:
        work: translates a share of the files; a function of a module.
        wanted: what `work` needs to know; it is sent to the processes.
        jobs: the files; each process takes every n-th.
        count: number of processes.

    Raises:
        CycleStyleError: that of a process.
    """
    context = multiprocessing.get_context("spawn")
    reports: Any = context.SimpleQueue()
    running = start_processes(  # type: ignore[no-untyped-call]
        _run, (count, work, wanted, list(jobs), reports), nprocs=count, join=False, start_method="spawn"
    )
    done: list[Report | CycleStyleError] = []
    with StopSignals() as stop:
        told: Signals | None = None
        while not running.join(timeout=0.2):
            if stop.received is not None and told is None:
                told = stop.received
                for process in running.processes:
                    if process.is_alive():
                        os.kill(process.pid, told)
            while not reports.empty():
                done.append(reports.get())
    while not reports.empty():
        done.append(reports.get())
    for one in done:
        if isinstance(one, CycleStyleError):
            raise one
    return Report.joined([one for one in done if isinstance(one, Report)])


def _run(number: int, count: int, work: Any, wanted: Any, jobs: list[Job], reports: Any) -> None:
    if hasattr(os, "setsid"):
        os.setsid()  # so that Ctrl-C reaches the first process alone, which passes it on
    for name, value in zip(VARIABLES[0], (number, count, number), strict=True):
        os.environ[name] = str(value)
    try:
        reports.put(work(wanted, jobs[number::count]))
    except CycleStyleError as error:
        reports.put(error)
