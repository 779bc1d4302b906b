"""How fast a task runs: what `--speed` chooses for the hardware at hand."""

import json
import os
import platform
import shutil
import sysconfig
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclestyle.errors import CycleStyleError
from cyclestyle.files import cache_folder, write_json
from cyclestyle.speed.winograd import transform_weight, winograd_conv2d

SpeedName = Literal["exact", "fast", "auto"]
Precision = Literal["float32", "bfloat16"]

WORTHWHILE = 1.15
"""How much faster a way to compute must be than the plain one to be chosen."""
COMPILED_STEPS = 2000
"""Steps of a training from which on `auto` compiles: it takes one to four minutes, and saves 20 ms or more of each."""

NO_COMPILER = "there is no C or C++ compiler, or Python.h is missing (install gcc, g++ and python3-dev)"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What makes a task faster, each setting by itself; null: what `--speed` chooses for the hardware.

    Args:
        precision: `float32`; or `bfloat16`, which is autocast in training, and the type of the weights in translating.
        channels_last: keep weights and images in the memory format that convolutions prefer on most hardware.
        winograd: compute 3×3 convolutions in float32 on the CPU by Winograd's algorithm.
        compile: compile the networks with `torch.compile`, in training.
        fused: let Adam update all parameters in one call, in training.
        tf32: compute products of float32 with mantissas of 10 bits on a GPU.
        keep_memory: keep the memory of activations in the process, in huge pages; for Linux only.
        threads: threads of a process on the CPU; null: PyTorch's number.

    Raises:
        ValueError: `precision` is unknown, or `threads` is less than 1.
    """

    precision: Precision | None = None
    channels_last: bool | None = None
    winograd: bool | None = None
    compile: bool | None = None
    fused: bool | None = None
    tf32: bool | None = None
    keep_memory: bool | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.precision is not None and self.precision not in get_args(Precision):
            raise ValueError(f"precision must be float32 or bfloat16, got {self.precision!r}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")


EXACT = Tuning(
    precision="float32",
    channels_last=False,
    winograd=False,
    compile=False,
    fused=False,
    tf32=False,
    keep_memory=True,
)
"""What changes no number."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a machine and its installation can do.

    Attributes:
        kind: `cpu`, `cuda`, or another type of device.
        bfloat16: how many times as fast as in float32 a convolution is in bfloat16.
        winograd: how many times as fast as the direct convolution Winograd's algorithm is, with fixed weights.
        winograd_training: the same for a convolution with its gradients.
        compiler: whether there is what `torch.compile` needs: a compiler, and the headers of Python.
    """

    kind: str
    bfloat16: float
    winograd: float
    winograd_training: float
    compiler: bool


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Settings for a task, all of them decided.

    Attributes:
        tuning: the settings.
        reason: what was chosen and why, in words.
        compiled_steps: steps of a training from which on its networks are compiled, if `tuning` says so.
    """

    tuning: Tuning
    reason: str
    compiled_steps: int = 0


def choose(
    speed: SpeedName,
    given: Tuning,
    hardware: Hardware,
    *,
    bfloat16: bool,
    training: bool,
) -> Choice:
    """Fill in unset settings.

    Args:
        speed: `exact` changes no number; `fast` takes whatever is faster here; `auto` does so too, but compiles only
            trainings of at least `COMPILED_STEPS`.
        given: what the user has decided.
        hardware: what there is.
        bfloat16: whether the results of the method in bfloat16 are as good as in float32.
        training: whether the task will be trained.

    Raises:
        ValueError: `speed` is unknown.
    """
    if speed not in get_args(SpeedName):
        raise ValueError(f"speed must be exact, fast or auto, got {speed!r}")
    compiled_steps = COMPILED_STEPS if speed == "auto" and given.compile is None else 0
    if speed == "exact":
        tuning, reasons = _filled(given, EXACT), ["nothing that changes a number"]
    else:
        tuning, reasons = _fastest(given, hardware, bfloat16=bfloat16, training=training)
        if training and given.compile is None:
            reasons.append(_about_compiling(tuning, hardware, compiled_steps))
    tuning, missing = _available(tuning, given, hardware)
    named = [field.name for field in fields(given) if getattr(given, field.name) is not None]
    if named:
        reasons.append(f"{', '.join(named)} as given")
    return Choice(
        tuning=tuning,
        reason="; ".join([*reasons, *missing]),
        compiled_steps=compiled_steps,
    )


def hardware_for(speed: SpeedName, kind: str) -> Hardware:
    """Return what the machine can do, as far as `choose` needs to know: nothing is measured for `exact`.

    Args:
        speed: what will be chosen.
        kind: the type of the device that computes.
    """
    if speed != "exact":
        return known_hardware(kind)
    return Hardware(kind=kind, bfloat16=0.0, winograd=0.0, winograd_training=0.0, compiler=_has_compiler(kind))


def set_tf32(tuning: Tuning, kind: str) -> None:
    """Compute products of float32 on a GPU as `tuning.tf32` says; PyTorch by itself shortens those of convolutions.

    Args:
        tuning: settings, all of them decided.
        kind: the type of the device that computes. The settings of PyTorch that this changes are those of the process.
    """
    if kind == "cuda":
        torch.set_float32_matmul_precision("high" if tuning.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = bool(tuning.tf32)


def known_hardware(kind: str) -> Hardware:
    """Return what the machine can do, measured once for each processor, version of PyTorch and number of threads.

    The figures of processors are kept in `hardware.json` in the cache folder, so that all runs on a machine choose the
    same.

    Args:
        kind: the type of the device that computes.
    """
    if kind != "cpu":
        return measure_hardware(kind)  # which takes no time
    path, name = cache_folder() / "hardware.json", hardware_name(kind)
    known: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        known = json.loads(path.read_text())
    with suppress(KeyError, TypeError):
        return Hardware(**known[name])
    found = measure_hardware(kind)
    with suppress(OSError, CycleStyleError):  # it is measured again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**known, name: asdict(found)})
    return found


def hardware_name(kind: str) -> str:
    """Return what the figures of `hardware.json` are kept under: they depend on these."""
    return f"{kind}, {_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


@torch.inference_mode(False)
@torch.enable_grad()
def measure_hardware(kind: str) -> Hardware:
    """Measure what a machine can do; it takes about a second. It may be called without gradients too.

    Args:
        kind: the type of the device that computes.
    """
    compiler = _has_compiler(kind)
    if kind == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return Hardware(
            kind=kind, bfloat16=2.0 if fast else 0.0, winograd=0.0, winograd_training=0.0, compiler=compiler
        )
    if kind != "cpu":
        return Hardware(kind=kind, bfloat16=0.0, winograd=0.0, winograd_training=0.0, compiler=False)
    random = torch.Generator().manual_seed(0)  # the global one has been seeded for the run
    images = torch.randn(1, 256, 66, 66, generator=random).contiguous(memory_format=torch.channels_last)
    images, weight = images.requires_grad_(), torch.randn(256, 256, 3, 3, generator=random).requires_grad_()
    transformed, half = transform_weight(weight.detach()), (images.detach().bfloat16(), weight.detach().bfloat16())

    def gradients(function: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(images, weight, None).sum(), (images, weight))

    ways: dict[str, Callable[[], object]] = {
        "direct": torch.no_grad()(lambda: F.conv2d(images, weight)),
        "tiled": torch.no_grad()(lambda: winograd_conv2d(images, weight, None, transformed)),
        "direct, gradients": gradients(F.conv2d),
        "tiled, gradients": gradients(winograd_conv2d),
    }
    if torch.backends.cpu.get_cpu_capability().startswith("AVX512"):  # without, bfloat16 takes ten times as long
        ways["bfloat16"] = lambda: F.conv2d(*half)
    seconds = _shortest(ways)
    return Hardware(
        kind=kind,
        bfloat16=seconds["direct"] / seconds.get("bfloat16", float("inf")),
        winograd=seconds["direct"] / seconds["tiled"],
        winograd_training=seconds["direct, gradients"] / seconds["tiled, gradients"],
        compiler=compiler,
    )


def _fastest(given: Tuning, hardware: Hardware, *, bfloat16: bool, training: bool) -> tuple[Tuning, list[str]]:
    """What is faster on the hardware, and why."""
    cuda = hardware.kind == "cuda"
    precision: Precision = "bfloat16" if hardware.bfloat16 >= WORTHWHILE and bfloat16 else "float32"
    precision = given.precision or precision
    factor = hardware.winograd_training if training else hardware.winograd
    tiled = factor >= WORTHWHILE and precision == "float32"
    compiled = training and precision == "bfloat16" and hardware.compiler and given.compile is not False
    best = Tuning(
        precision=precision,
        # On CPUs, gradients of eager networks are slower in it: in bfloat16 a step takes twice the time
        channels_last=cuda or (not training and (precision == "bfloat16" or tiled)),
        winograd=tiled,
        compile=compiled,
        fused=training and hardware.kind in ("cpu", "cuda"),
        tf32=cuda,
        keep_memory=True,
    )
    reasons = [_about_precision(precision, hardware, bfloat16=bfloat16)]
    if tiled:
        reasons.append(f"Winograd's convolutions, {factor:.1f} times as fast here")
    return _filled(given, best), reasons


def _about_precision(precision: Precision, hardware: Hardware, *, bfloat16: bool) -> str:
    if precision == "bfloat16":
        factor = "" if hardware.kind == "cuda" else f", {hardware.bfloat16:.1f} times as fast here"
        return f"bfloat16{factor}"
    if hardware.bfloat16 >= WORTHWHILE and not bfloat16:
        return "float32, because the method is not as good in bfloat16"
    return "float32, because bfloat16 is not faster here"


def _about_compiling(tuning: Tuning, hardware: Hardware, compiled_steps: int) -> str:
    if tuning.compile:
        return f"compiled networks{f' from {compiled_steps} steps on' if compiled_steps else ''}"
    if not hardware.compiler:
        return f"not compiled, because {NO_COMPILER}"
    return "not compiled, which gains little in float32"


def _available(tuning: Tuning, given: Tuning, hardware: Hardware) -> tuple[Tuning, list[str]]:
    """Leave out what was asked for and does not exist here."""
    missing: list[str] = []
    if given.compile and not hardware.compiler:
        tuning = replace(tuning, compile=False)
        missing.append(f"compile left out, because {NO_COMPILER}")
    if given.winograd and (hardware.kind != "cpu" or tuning.precision != "float32"):
        tuning = replace(tuning, winograd=False)
        missing.append("winograd left out, which is for float32 on the CPU")
    if given.tf32 and hardware.kind != "cuda":
        tuning = replace(tuning, tf32=False)
        missing.append("tf32 left out, because there is no CUDA device")
    return tuning, missing


def _filled(given: Tuning, rest: Tuning) -> Tuning:
    """What is given, and for the others `rest`."""
    names = [field.name for field in fields(Tuning)]
    return Tuning(**{name: getattr(rest if getattr(given, name) is None else given, name) for name in names})


def _has_compiler(kind: str) -> bool:
    """Whether `torch.compile` can build its code: in C++ on processors; by Triton on GPUs, which calls a C compiler."""
    named = ("c++", "g++", "clang++", "cl") if kind == "cpu" else (os.environ.get("CC", "gcc"), "gcc", "clang")
    return any(map(shutil.which, named)) and Path(sysconfig.get_path("include"), "Python.h").is_file()


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} {torch.backends.cpu.get_cpu_capability()}"
    return platform.processor()


def _shortest(ways: Mapping[str, Callable[[], object]], rounds: int = 4) -> dict[str, float]:
    """The shortest time of each call, taken by turns, so that other programs disturb all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, call in ways.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: min(found) for name, found in times.items()}
