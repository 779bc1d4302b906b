"""From a method to a file for other programs: written, opened again, compared, and kept only if it does the same."""

import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
import yaml
from torch import Tensor

from cyclestyle import __version__
from cyclestyle.errors import CheckpointError, CycleStyleError, optional
from cyclestyle.files import write_file
from cyclestyle.networks.method import Direction, Method
from cyclestyle.networks.one_pass import OnePass
from cyclestyle.networks.streaming import plan
from cyclestyle.translation.large import WHOLE
from cyclestyle.translation.opening import open_method
from cyclestyle.translation.plain import Exported
from cyclestyle.weights.exported import RUNTIMES, Description, Precision
from cyclestyle.weights.exported.description import weights_hash
from cyclestyle.weights.exported.weights_file import write_weights

ExportFormatName = Literal["safetensors", "onnx", "openvino", "pt2"]
ENDINGS = {"safetensors": ".safetensors", **{name: form.ending for name, form in RUNTIMES.items()}}
"""The formats, and the endings of their files."""
LARGEST_DIFFERENCE = 1e-4
"""Difference of a value in [-1, 1] from which a file in float32 is wrong; the weights of safetensors have none."""
MEAN_DIFFERENCE: dict[str, float] = {"half": 0.02, "int8": 0.15}
"""Mean difference from which a file in another precision is wrong."""


@dataclass(frozen=True)
class Difference:
    """How far a file is from PyTorch on some images, as differences of values in [-1, 1]."""

    shape: tuple[int, ...]
    largest: float
    mean: float


@dataclass(frozen=True, kw_only=True)
class Exporting:
    """What is exported, and how.

    Attributes:
        format: of the file.
        direction: what to translate; safetensors holds all directions.
        precision: `float32`; `half`, weights of 16 bits; `int8`, weights and activations of 8 bits.
        shape: number, height and width of the only images that the file takes; None for any.
        licence: of the weights, which is written into the file.
        training: the config of the run.
        checks: images of several sizes, or of `shape`, `(N, C, H, W)` in [-1, 1], on which the file is compared with
            PyTorch.
        style: a style image `(3, h, w)` for methods that take one.
        calibration: images from which `int8` finds the ranges of activations.
    """

    format: ExportFormatName
    direction: Direction = "AtoB"
    precision: Precision = "float32"
    shape: tuple[int, int, int] | None = None
    licence: str = "not stated"
    training: Mapping[str, Any]
    checks: Sequence[Tensor]
    style: Tensor | None = None
    calibration: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Outcome:
    """The result: files, how far the first of them is from PyTorch, and the seconds of PyTorch and of the file."""

    files: list[Path]
    differences: list[Difference]
    seconds: tuple[float, float]


@torch.no_grad()
def export_method(method: Method, path: Path, wanted: Exporting) -> Outcome:
    """Write a file for other programs.

    The file is written to a temporary folder, opened again, and compared with the method. It gets its
    name only if it does the same.

    Args:
        method: with its weights, on the CPU.
        path: the file.
        wanted: what to export.

    Raises:
        CheckpointError: the method or the network cannot be exported, or the file does not do the same.
        CycleStyleError: a package is missing, the format has no such precision, or the file cannot be written.
    """
    method.eval().requires_grad_(False)
    if wanted.precision == "int8" and (wanted.format not in RUNTIMES or not RUNTIMES[wanted.format].quantised):
        raise CycleStyleError(f"int8 is for onnx and openvino; leave --precision int8 out for {wanted.format}")
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / path.name
        _write(method, draft, wanted)
        loaded = _opened(draft, method, wanted)
        for one in (method, loaded):
            if one.takes_styles and wanted.style is not None:
                one.use_styles([wanted.style])
        differences = list(_differences(method, loaded, wanted))
        _check(differences, wanted)
        seconds = _seconds(method, loaded, wanted)
        files = [path.with_name(file.name) for file in sorted(Path(folder).iterdir())]  # .bin before .xml
        for file in files:
            write_file(file, (Path(folder) / file.name).read_bytes())
    return Outcome(sorted(files, key=lambda file: file != path), differences, seconds)


def _opened(draft: Path, method: Method, wanted: Exporting) -> Method:
    """Open a file that was just written. Weights are loaded into the class, which need not be part of this package."""
    if wanted.format in RUNTIMES:
        return Exported(file=str(draft), runtime=RUNTIMES[wanted.format].open(draft))
    return open_method(draft, method=type(method) if "." in method.name else None)


def describe(method: Method, wanted: Exporting, network: OnePass) -> Description:
    """Return the description of a network of a method."""
    everything = wanted.format == "safetensors"
    return Description(
        method=method.name,
        directions=method.known_directions if everything else (wanted.direction,),
        in_channels=network.in_channels,
        multiple=network.multiple,
        min_size=network.min_size,
        takes_style=network.takes_style,
        styles=network.styles,
        shape=wanted.shape,
        precision=wanted.precision,
        bytes_per_pixel=_bytes_per_pixel(network),
        weights_sha256=weights_hash(method.translating_weights() if everything else network.network.state_dict()),
        settings=without_folders(method.settings),
        training=without_folders(dict(wanted.training)),
        licence=wanted.licence,
        version=__version__,
    )


def run_config(checkpoint: Path) -> dict[str, Any]:
    """Return the config of the run that a checkpoint, or the folder of a run, belongs to; empty if there is none."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent.parent
    path = folder / "config.yaml"
    if not path.is_file() or not (folder / "checkpoints").is_dir():
        return {}
    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError, OSError):
        return {}
    return config if isinstance(config, dict) else {}


def without_folders(value: Any) -> Any:
    """Return settings with the names of files and folders alone: where they are concerns nobody else."""
    if isinstance(value, Mapping):
        return {str(key): without_folders(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(one) for one in value]
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~", "../", "./")) else value


def _write(method: Method, path: Path, wanted: Exporting) -> None:
    if wanted.format == "safetensors":
        write_weights(method.translating_weights(), describe(method, wanted, any_network(method, wanted)), path)
        return
    network = method.exported(wanted.direction)
    if wanted.shape is not None:
        _check_shape(wanted.shape, network)
    description = describe(method, wanted, network)
    if wanted.precision != "int8":
        RUNTIMES[wanted.format].write(network, description, path)
        return
    from cyclestyle.weights.exported import onnx_file, openvino_file

    with tempfile.TemporaryDirectory() as folder:
        whole, quantised = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx_file.write_onnx(network, replace(description, precision="float32"), whole)
        second = [wanted.style[None]] if wanted.style is not None else []
        if network.styles:
            second = [torch.full((1, len(network.styles)), 1 / len(network.styles))]
        inputs = [(one, *second) for one in wanted.calibration]
        target = path if wanted.format == "onnx" else quantised
        onnx_file.quantise(whole, target, description, inputs)
        if wanted.format == "openvino":
            openvino_file.convert(quantised, description, path)


def _check_shape(shape: tuple[int, int, int], network: OnePass) -> None:
    _, *sides = shape
    if network.takes_style:
        raise CycleStyleError("--shape is for networks whose only input are the images; leave it out")
    if any(side % network.multiple or side < network.min_size for side in sides):
        raise CycleStyleError(
            f"--shape {' '.join(map(str, shape))}: this network takes heights and widths that are multiples of "
            f"{network.multiple}, from {network.min_size} on"
        )


def any_network(method: Method, wanted: Exporting) -> OnePass:
    """What the description of weights says of the network; nothing, if it is none that other programs can run."""
    try:
        return method.exported(wanted.direction)
    except CycleStyleError:
        return OnePass(
            network=method, in_channels=method.in_channels(wanted.direction), takes_style=method.takes_styles
        )


def _differences(method: Method, loaded: Method, wanted: Exporting) -> Iterable[Difference]:
    for direction in method.known_directions if wanted.format == "safetensors" else (wanted.direction,):
        for images in wanted.checks:
            if images.shape[1] != method.in_channels(direction):
                images = images[:, :1].expand(-1, method.in_channels(direction), -1, -1)
            difference = (loaded.translate(images, direction) - method.translate(images, direction)).abs()
            yield Difference(tuple(images.shape), float(difference.max()), float(difference.mean()))


def _check(differences: Sequence[Difference], wanted: Exporting) -> None:
    for one in differences:
        limit, found, which = LARGEST_DIFFERENCE, one.largest, "largest"
        if wanted.precision != "float32":
            limit, found, which = MEAN_DIFFERENCE[wanted.precision], one.mean, "mean"
        elif wanted.format == "safetensors":
            limit = 0.0
        if not found <= limit:  # also for NaN
            raise CheckpointError(
                f"the {wanted.format} file does not do what PyTorch does: the {which} difference is {found:.2g} at "
                f"{one.shape[3]}×{one.shape[2]}, at most {limit:.2g} is allowed; nothing is kept"
            )


def _seconds(method: Method, loaded: Method, wanted: Exporting) -> tuple[float, float]:
    """Seconds of the method and of the file for the largest images of the checks, in turn, the median of three."""
    images = max(wanted.checks, key=lambda one: one.shape[2] * one.shape[3])
    if images.shape[1] != method.in_channels(wanted.direction):
        images = images[:, :1].expand(-1, method.in_channels(wanted.direction), -1, -1)
    times: dict[bool, list[float]] = {True: [], False: []}
    for ours in (True, False) * 3:
        start = time.perf_counter()
        (method if ours else loaded).translate(images, wanted.direction)
        times[ours].append(time.perf_counter() - start)
    return median(times[True]), median(times[False])


def _bytes_per_pixel(network: OnePass) -> float:
    """The memory of a pass, estimated as that of PyTorch."""
    from cyclestyle.networks.streaming import Room

    side = -(-max(512, network.min_size) // network.multiple) * network.multiple
    try:
        kept = plan(network.network, (1, network.in_channels, side, side), Room()).kept_bytes
    except Exception:  # the network cannot be streamed, so that nothing is known
        return 0.0
    return WHOLE * kept / side**2


def check_packages(name: str) -> None:
    """Check, before the work starts, that the packages of a format are installed.

    Raises:
        CycleStyleError: one is not.
    """
    needed = {
        "safetensors": ("safetensors",),
        "onnx": ("onnx", "onnxscript", "onnxruntime"),
        "openvino": ("onnx", "onnxscript", "openvino"),
        "pt2": (),
    }
    for module in needed[name]:
        optional(module, f"export to {name}", "export")
