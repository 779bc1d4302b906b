"""Measures how the time and memory of a CycleGAN step grow with image size, width, depth and batch.

    python scripts/cost.py

One setting at a time differs from the first row. Each row is a process of its own, so that its memory is its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

from cyclestyle.commands.line.process import keep_memory
from cyclestyle.tasks import CycleGAN

BASE = {"size": 128, "ngf": 32, "depth": 6, "batch": 1}
CHANGES = {"size": (64, 192, 256), "ngf": (16, 64), "depth": (3, 9), "batch": (2, 4)}


def main() -> None:
    """Print a row for the base and for each change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="steps after the first; the fastest counts")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the settings of one process
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_measure(options.steps, **json.loads(options.one))))
        return
    settings = [BASE, *({**BASE, name: value} for name, values in CHANGES.items() for value in values)]
    base = None
    print("| size | ngf | blocks | batch | s a step | × | memory, MB | × |\n|---|---|---|---|---|---|---|---|")
    for one in settings:
        command = [sys.executable, __file__, "--one", json.dumps(one), "--steps", str(options.steps)]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        base = base or found
        cells = [one["size"], one["ngf"], one["depth"], one["batch"], f"{found['seconds']:.2f}"]
        cells += [f"{found['seconds'] / base['seconds']:.2f}", round(found["bytes"] / 1e6)]
        cells.append(f"{found['bytes'] / base['bytes']:.2f}")
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def _measure(steps: int, *, size: int, ngf: int, depth: int, batch: int) -> dict[str, float]:
    """The seconds of a step, and the memory that the steps add to what the process had before."""
    keep_memory()
    task = CycleGAN(generator="resnet6", ngf=ngf, ndf=ngf, depth=depth)
    optimizer: torch.optim.Optimizer = task.configure_optimizers()["optimizer"]  # type: ignore[index,call-overload]
    images = {domain: torch.rand(batch, 3, size, size) * 2 - 1 for domain in "AB"}
    before, times = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(steps + 1):
        start = time.perf_counter()
        loss = torch.stack(list(task.training_losses(images).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": min(times[1:]), "bytes": (after - before) * 1024}


if __name__ == "__main__":
    main()
