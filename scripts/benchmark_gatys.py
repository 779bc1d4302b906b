"""Compares the duration and memory of `Gatys` with those of forward and backward passes of the VGG alone.

    python scripts/benchmark_gatys.py --size 512 --evaluations 500

Weights and images are random, because neither speed nor memory depends on them.
"""

import argparse
import resource
import time
from collections.abc import Callable

import torch

from cyclestyle.commands.line.process import keep_memory
from cyclestyle.tasks import Gatys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--layers", type=int, default=5, help="style layers: 5 as in Gatys et al., 3 for up to relu3_1")
    parser.add_argument("--rounds", type=int, default=2, help="number of measurements of each method")
    options = parser.parse_args()
    keep_memory()
    count = options.evaluations // options.rounds
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layers = [f"relu{block}_1" for block in range(1, options.layers + 1)]
    task = Gatys(
        weights="random",
        content_layers=["relu4_2" if options.layers > 3 else "relu3_1"],
        style_layers=layers,
        sizes=[options.size],
        steps=[count],
    ).to(device)
    photo, style = torch.rand(2, 3, options.size, options.size, device=device) * 2 - 1
    task.use_styles([style])

    def bare() -> None:
        image = photo[None].clone().requires_grad_()
        for _ in range(count):
            image.grad = None
            task.features(image)[layers[-1]].sum().backward()

    def paint() -> None:
        task.paint(photo[None])

    task.features(photo[None])  # warm-up
    bare_seconds, bare_memory = timed(bare), peak(device)  # measured first, because the peak cannot be reset
    painting_seconds, memory = timed(paint), peak(device)
    for _ in range(options.rounds - 1):
        bare_seconds += timed(bare)
        painting_seconds += timed(paint)
    print(f"{options.size}² to {layers[-1]}, {count * options.rounds} evaluations, {torch.get_num_threads()} threads")
    print(f"bare forward and backward  {bare_seconds:8.1f} s  {bare_memory / 1e6:7.0f} MB")
    print(f"Gatys                      {painting_seconds:8.1f} s  {memory / 1e6:7.0f} MB")
    print(f"ratio                      {painting_seconds / bare_seconds:8.3f}    {memory / bare_memory:7.3f}")


def timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak(device: torch.device) -> float:
    """Return the peak memory in bytes: of the process on the CPU, of the tensors on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
