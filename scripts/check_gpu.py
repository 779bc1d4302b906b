"""Checks on a machine with a GPU what the tests cannot, because they run without one, and prints a table of what holds.

    python scripts/check_gpu.py
    python scripts/check_gpu.py --only translator waits

It takes about ten minutes, most of them for the first compilation and the benchmark. It has been written without a GPU:
a check that fails may be wrong itself. Files are written to a temporary folder. Without a GPU the checks run on small
images on the processor, in one to three minutes, and those that need a GPU are skipped. The status is 1 if one does not
hold.
"""

import argparse
import csv
import math
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cyclestyle.data import UnpairedImages
from cyclestyle.data.sample import write_samples
from cyclestyle.images import read_image, to_tensor
from cyclestyle.speed.choice import EXACT, Tuning, choose, known_hardware, set_tf32
from cyclestyle.speed.training import TrainingSpeed
from cyclestyle.tasks import CycleGAN
from cyclestyle.tasks.base import total
from cyclestyle.training import CSVLogger, FiniteNumbers, ProgressBar, Speed
from cyclestyle.translator import Translator

TINY = ["--model.ngf", "4", "--model.ndf", "4", "--tune.compile", "false"]
"""Settings with which a step takes no time on a processor either."""
SHIPPED = "styles"
"""The model of the package."""
WATCHED = range(18, 30)
"""Steps of the second epoch, which has those from 16 to 31, in which no wait is wanted: nothing is drawn in them."""


class SkippedError(Exception):
    """A check cannot be made on this machine."""


@dataclass(frozen=True)
class Machine:
    """Where the checks run: a device, and a folder."""

    device: torch.device
    folder: Path

    @property
    def data(self) -> Path:
        """The sample domains, which are drawn when a check asks for them."""
        if not (self.folder / "data").exists():
            write_samples(self.folder / "data", train=16, test=4, size=288 if self.gpu else 96, workers=1)
        return self.folder / "data"

    @property
    def gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def need_gpus(self, count: int = 1) -> None:
        """Skip a check that needs so many GPUs."""
        if not self.gpu or torch.cuda.device_count() < count:
            raise SkippedError("needs a GPU" if count == 1 else f"needs {count} GPUs")

    def fit(self, run: str, steps: int, *words: str) -> str:
        """Train in a process of its own, and return the last losses.

        Raises:
            AssertionError: it fails, or a loss is not finite.
        """
        root = self.folder / run
        given = [*words, *([] if self.gpu else TINY), "--trainer.accelerator", "gpu" if self.gpu else "cpu"]
        given += ["--data.root", str(self.data), "--trainer.default_root_dir", str(root)]
        given += ["--trainer.log_every_n_steps", "1", "--page.every_n_seconds", "0"]
        cyclestyle("fit", *given, "--trainer.max_steps", str(steps))
        with (root / "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["train/loss_G"]]
        assert len(rows) == steps, f"{len(rows)} steps are logged, not {steps}"
        last = {name: float(value) for name, value in rows[-1].items() if name.startswith("train/loss") and value}
        assert all(map(math.isfinite, last.values())), f"losses are not finite: {last}"
        return ", ".join(f"{name.removeprefix('train/')} {value:.3g}" for name, value in last.items())


def cyclestyle(*words: str) -> str:
    """Run a command, and return its output.

    Raises:
        AssertionError: its status is not 0; with its last line.
    """
    done = subprocess.run([sys.executable, "-m", "cyclestyle", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"cyclestyle {words[0]}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
    return done.stdout


# The checks: each returns what it has found, or raises an error


def translator(machine: Machine) -> str:
    """`Translator.load(…, device="cuda")` gives the images of the processor, on the device of its images."""
    machine.need_gpus()
    photos = torch.stack([to_tensor(read_image(path)) for path in sorted((machine.data / "testA").iterdir())])
    expected = Translator.load(SHIPPED, work_size=0, speed="exact").translate(photos)
    found = []
    for speed, bound in (("exact", 1.0), ("auto", 16.0)):
        there = Translator.load(SHIPPED, work_size=0, device=machine.device, speed=speed)  # type: ignore[arg-type]
        assert there.engine.device.type == machine.device.type, f"the weights are on {there.engine.device}"
        for images in (photos, photos.to(machine.device)):
            result = there.translate(images)
            assert result.device == images.device, f"images on {images.device} came back on {result.device}"
            found.append(f"{speed} {_levels(result, expected, bound):.2f}")
    return f"largest difference to the processor in levels: {', '.join(found[::2])}"


def exact(machine: Machine) -> str:
    """With `--speed exact` a convolution is float32, with `fast` TF32."""
    machine.need_gpus()
    random = torch.Generator().manual_seed(0)
    images, weight = torch.randn(1, 256, 64, 64, generator=random), torch.randn(256, 256, 3, 3, generator=random)
    expected = F.conv2d(images.double(), weight.double())
    errors = {}
    for tf32 in (True, False):
        set_tf32(replace(EXACT, tf32=tf32), "cuda")
        result = F.conv2d(images.to(machine.device), weight.to(machine.device)).cpu().double()
        errors[tf32] = float((result - expected).norm() / expected.norm())
    assert errors[False] < 1e-5, f"relative error {errors[False]:.1e}"
    return f"relative error {errors[False]:.1e}; with TF32 {errors[True]:.1e}"


def waits(machine: Machine) -> str:
    """A training step waits for the GPU at most once, where nothing is logged or drawn."""
    machine.need_gpus()
    quiet = {"enable_model_summary": False, "enable_checkpointing": False, "limit_val_batches": 0, "devices": 1}
    places: Counter[str] = Counter()
    with _sync_warnings(places) as watch:
        callbacks = [ProgressBar(), Speed(), FiniteNumbers(), watch]
        trainer = pl.Trainer(
            max_steps=32,
            accelerator="gpu",
            log_every_n_steps=50,
            logger=CSVLogger(str(machine.folder / "waits")),
            callbacks=callbacks,
            **quiet,
        )
        data = UnpairedImages(str(machine.data), resize="crop", crop_size=64, workers=1)
        trainer.fit(CycleGAN(generator="resnet6", ngf=8, ndf=8), data)
    found = f"{places.total() / len(WATCHED):.1f} a step"
    where = ", ".join(f"{place} {count}" for place, count in places.most_common(4))
    assert places.total() <= len(WATCHED), f"{found}: {where}"
    return f"{found} {where}".strip()


def fit(machine: Machine) -> str:
    """The quickstart trains by `--speed fast` with grids and a validation, and resumes."""
    steps = 30 if machine.gpu else 3
    words = ["--config", "quickstart", "--speed", "fast", "--grid.every_n_steps", str(steps // 3)]
    words += ["--trainer.val_check_interval", str(steps // 3), "--trainer.check_val_every_n_epoch", "null"]
    machine.fit("quickstart", steps, *words)
    found = machine.fit("quickstart", 2 * steps, *words, "--ckpt_path", "last")
    grids = len(list((machine.folder / "quickstart" / "grids").iterdir()))
    assert grids >= 3, f"{grids} grids are written"
    return f"{2 * steps} steps, {grids} grids, {found}"


def cut(machine: Machine) -> str:
    """CUT, which steps its discriminator inside the batch, trains by `--speed fast`."""
    return machine.fit("cut", 3, "--config", "cut", "--speed", "fast")


def mixed(machine: Machine) -> str:
    """16-mixed trains with fused Adam and clipping, and resumes without fused Adam."""
    words = ["--config", "quickstart", "--speed", "exact", "--trainer.precision", "16-mixed"]
    words += ["--trainer.gradient_clip_val", "1.0"]
    machine.fit("mixed", 3, *words, "--tune.fused", "true")
    return machine.fit("mixed", 6, *words, "--tune.fused", "false", "--ckpt_path", "last")


def processes(machine: Machine) -> str:
    """Two GPUs train CUT together."""
    machine.need_gpus(2)
    words = ["--config", "cut", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    return machine.fit("processes", 3, *words)


def predict(machine: Machine) -> str:
    """`predict` gives the images of the processor, and runs on the GPU."""
    found = {}
    for place in ("cuda", "cpu") if machine.gpu else ("cpu",):
        words = ["--ckpt_path", SHIPPED, "--input", str(machine.data / "testA"), "--speed", "exact"]
        words += ["--output", str(machine.folder / place), "--device", place, "--no_progress"]
        cyclestyle("predict", *words)
        paths = sorted((machine.folder / place).iterdir())
        found[place] = torch.stack([to_tensor(read_image(path)) for path in paths])
    if not machine.gpu:
        return f"{len(found['cpu'])} images"
    return f"{len(found['cpu'])} images, largest difference {_levels(found['cuda'], found['cpu'], 1.01):.0f} level"


def large(machine: Machine) -> str:
    """A photo of 12 megapixels is the same whole, streamed on the GPU, and streamed through a scratch file."""
    part = 1 if machine.gpu else 10
    photo = _photo(4000 // part, 3000 // part)
    ways: dict[str, dict[str, object]] = {
        "whole": {},
        "streamed": {"memory": 2_000_000_000 // part**2},
        "by a file": {"memory": 400_000_000 // part**2},
        "reduced": {"memory": 2_000_000_000 // part**2, "statistics": "reduced"},
    }
    found, results = [], {}
    for name, settings in ways.items():
        settings["scratch"] = machine.folder
        translate = Translator.load(SHIPPED, work_size=0, device=machine.device, speed="exact", **settings)
        shares: list[float] = []
        translate.engine.on_progress = shares.append
        start = time.perf_counter()
        results[name] = translate.translate(photo)
        found.append(f"{name} {time.perf_counter() - start:.2f} s")
        assert bool(shares) == (name != "whole"), f"{name}: the image was {'' if shares else 'not '}streamed"
        if name != "whole":
            found[-1] += f" ({_levels(results[name], results['whole'], 255 if name == 'reduced' else 2):.1f})"
    return f"{', '.join(found)}; in brackets the largest difference in levels"


def huge(machine: Machine) -> str:
    """A photo of 35 megapixels passes a network of 64 filters, whose activations exceed 2³¹ numbers."""
    part = 1 if machine.gpu else 25
    width, height = 7000 // part, 5000 // part
    torch.manual_seed(0)
    task = CycleGAN(generator="resnet9", ngf=64 if machine.gpu else 8, ndf=4, discriminator="pixel")
    translate = Translator(task, device=machine.device)
    translate.choose_speed("auto")
    if machine.gpu:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    result = translate.translate(_photo(width, height))
    assert result.shape == (1, 3, height, width)
    memory = f", peak {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if machine.gpu else ""
    return f"{width}×{height} in {time.perf_counter() - start:.1f} s{memory}"


def formats(machine: Machine) -> str:
    """Not a check: what a step at 256² takes with each memory format, and with `torch.backends.cudnn.benchmark`."""
    machine.need_gpus()
    tuning = choose("fast", Tuning(), known_hardware("cuda"), bfloat16=True, training=True).tuning
    found = []
    for name, channels_last, benchmark in (
        ("contiguous", False, False),
        ("channels_last", True, False),
        ("contiguous, benchmark", False, True),
        ("channels_last, benchmark", True, True),
    ):
        torch.backends.cudnn.benchmark = benchmark
        found.append(f"{name} {1000 * _step(machine, replace(tuning, channels_last=channels_last)):.0f} ms")
    torch.backends.cudnn.benchmark = False
    return "; ".join(found)


def benchmark(machine: Machine) -> str:
    """Not a check: the table of `scripts/benchmark.py` for a step, a translation and `predict`."""
    machine.need_gpus()
    words = ["--rows", "step_256", "generator_256", "predict", "--rounds", "3"]
    script = Path(__file__).parent / "benchmark.py"
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True)
    assert done.returncode == 0, (done.stderr.strip().splitlines() or ["no message"])[-1]
    print(done.stdout, flush=True)
    return "printed above"


CHECKS: dict[str, Callable[[Machine], str]] = {
    check.__name__: check
    for check in (
        *(translator, exact, waits, predict, large, huge),
        *(fit, cut, mixed, processes, formats, benchmark),
    )
}


def main(args: list[str] | None = None) -> int:
    """Make the checks, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(CHECKS), choices=CHECKS, metavar="CHECK")
    options = parser.parse_args(args)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "no GPU"
    print(f"{name}, torch {torch.__version__}\n\n| check | holds | what was found | s |\n|---|---|---|---|", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(device, Path(folder))
        for check in options.only:
            start = time.perf_counter()
            try:
                holds, text = "yes", CHECKS[check](machine)
            except SkippedError as error:
                holds, text = "skipped", str(error)
            except Exception as error:  # of any kind: the other checks are made all the same
                failed += 1
                holds, text = "NO", f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
            print(f"| {check} | {holds} | {text} | {time.perf_counter() - start:.0f} |", flush=True)
    print("\n" + "\n".join(f"{check}: {CHECKS[check].__doc__}" for check in options.only))
    return 1 if failed else 0


def _levels(images: Tensor, expected: Tensor, bound: float) -> float:
    """The largest difference of images in [-1, 1] or in levels, in levels of 0 to 255.

    Raises:
        AssertionError: it is above the bound.
    """
    scale = 1.0 if images.dtype == torch.uint8 else 127.5
    difference = float((images.float().cpu() - expected.float().cpu()).abs().max()) * scale
    assert difference <= bound, f"images differ by up to {difference:.1f} levels"
    return difference


def _photo(width: int, height: int) -> Tensor:
    """A smooth image in levels, `(1, 3, height, width)`."""
    image = Image.effect_mandelbrot((width // 4, height // 4), (-2, -1.5, 1, 1.5), 100).resize((width, height))
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, 1, height, width).repeat(1, 3, 1, 1)


def _step(machine: Machine, tuning: Tuning) -> float:
    """The mean seconds of an eager step of CycleGAN at 256²."""
    torch.manual_seed(0)
    task = CycleGAN(generator="resnet9").to(machine.device)
    task.speed = TrainingSpeed(tuning)
    task.arrange(task.speed.memory_format)
    optimizer = torch.optim.Adam(task.parameters(), 2e-4, fused=True)
    batch = {domain: torch.rand(1, 3, 256, 256, device=machine.device) * 2 - 1 for domain in "AB"}
    start = 0.0
    for number in range(15):
        if number == 5:
            torch.cuda.synchronize()
            start = time.perf_counter()
        with torch.autocast(machine.device.type, torch.bfloat16, enabled=tuning.precision == "bfloat16"):
            loss = total(task.training_losses(batch))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / 10


class _Watch(pl.Callback):
    """Lets PyTorch warn of everything that waits for the GPU, in the steps `WATCHED`."""

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        torch.cuda.set_sync_debug_mode("warn" if trainer.global_step in WATCHED else "default")


@contextmanager
def _sync_warnings(places: Counter[str]) -> Iterator[_Watch]:
    """Count where PyTorch warns of waits."""

    def show(message: object, category: object, filename: str, lineno: int, *_: object) -> None:
        if "synchronizing CUDA operation" in str(message):
            places[f"{Path(filename).name}:{lineno}"] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show  # type: ignore[assignment]
        try:
            yield _Watch()
        finally:
            torch.cuda.set_sync_debug_mode("default")


if __name__ == "__main__":
    sys.exit(main())
