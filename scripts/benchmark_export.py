"""Time one generator in PyTorch, ONNX Runtime and OpenVINO, in turn, and say how far each is from PyTorch."""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import torch

from cyclestyle.data.sample import sample_image
from cyclestyle.images import to_tensor
from cyclestyle.networks.method import Direction, Method
from cyclestyle.sharing.exporting import Exporting, describe
from cyclestyle.speed.choice import Tuning, choose, known_hardware
from cyclestyle.speed.memory import keep_memory
from cyclestyle.translation.engine import Engine
from cyclestyle.translation.opening import open_method
from cyclestyle.translation.plain import GeneratorOnly
from cyclestyle.weights.exported import RUNTIMES

Translate = Callable[[torch.Tensor, Direction], torch.Tensor]


def main() -> None:
    options = parse()
    keep_memory()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    task = open_method(options.ckpt_path) if options.ckpt_path else GeneratorOnly(generator="resnet9", ngf=64).eval()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        ways = {"PyTorch": task.translate, "PyTorch, --speed fast": fast(task)}
        for name in options.formats:
            ways[name] = exported(task, name, Path(folder)).translate
        print("| size | runtime | seconds, median | speed-up | largest difference | mean difference |")
        print("|---|---|---|---|---|---|")
        for size in options.sizes:
            measure(ways, to_tensor(sample_image(0, size))[None], options.repeats)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt_path", help="checkpoint (default: a ResNet-9 of 64 filters with random weights)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="heights and widths of the images")
    parser.add_argument("--formats", nargs="+", default=["onnx", "openvino"], choices=list(RUNTIMES), help="formats")
    parser.add_argument("--repeats", type=int, default=5, help="times that each is run, in turn")
    parser.add_argument("--threads", type=int, default=2, help="threads of each runtime")
    return parser.parse_args()


def exported(task: Method, name: str, folder: Path) -> Method:
    """Export in float32, and open the file as `predict` does."""
    network = task.exported("AtoB")
    wanted = Exporting(format=name, training={}, checks=())
    path = folder / f"network{RUNTIMES[name].ending}"
    with torch.inference_mode(mode=False):
        RUNTIMES[name].write(network, describe(task, wanted, network), path)
    return open_method(path)


def fast(task: Method) -> Translate:
    """As `predict --speed fast` translates on this hardware."""
    engine = Engine(copy.deepcopy(task))
    choice = choose("fast", Tuning(), known_hardware("cpu"), bfloat16=True, training=False)
    engine.tune(choice.tuning)

    def translate(images: torch.Tensor, direction: Direction) -> torch.Tensor:
        engine.direction = direction
        return engine(images)

    return translate


def measure(ways: Mapping[str, Translate], images: torch.Tensor, repeats: int) -> None:
    times = {name: [] for name in ways}
    results = {name: way(images, "AtoB") for name, way in ways.items()}  # the first call is slower
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way(images, "AtoB")
            times[name].append(time.perf_counter() - start)
    first = next(iter(ways))
    for name in ways:
        seconds, difference = median(times[name]), (results[name] - results[first]).abs()
        speed = median(times[first]) / seconds
        print(
            f"| {images.shape[-1]}² | {name} | {seconds:.3f} | {speed:.2f} "
            f"| {float(difference.max()):.1e} | {float(difference.mean()):.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
