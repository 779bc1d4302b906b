"""`export`: write trained networks for other programs."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
import yaml
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]  # exported without __all__
from torch import Tensor

from cyclestyle.commands.line.parser import Parser, add_parameters, check_configs, config_files, import_class
from cyclestyle.commands.line.process import ensure_writable
from cyclestyle.commands.predict import namespace, stored_model
from cyclestyle.data.sample import sample_image
from cyclestyle.errors import CheckpointError, CycleStyleError
from cyclestyle.images import MODES, ValueRange, read_sample, to_tensor, with_channels
from cyclestyle.images.folders import find_images
from cyclestyle.networks.method import Direction, Method
from cyclestyle.sharing.exporting import (
    ENDINGS,
    Exporting,
    Outcome,
    check_packages,
    export_method,
    run_config,
)
from cyclestyle.tasks import Task
from cyclestyle.translation.opening import PLAIN, open_method
from cyclestyle.weights.checkpoints import read_checkpoint
from cyclestyle.weights.contents import Averaging
from cyclestyle.weights.exported import Precision
from cyclestyle.weights.official import METHODS, method_of, write_official
from cyclestyle.weights.resolve import resolve_checkpoint

SIZES = ((1, 256, 256), (2, 96, 160), (1, 75, 101))
"""Number, height and width of the images on which a file is compared with PyTorch; the last ones are padded."""
CALIBRATION = 8
"""Images from which int8 finds the ranges of activations."""


def export(
    *,
    ckpt_path: str,
    output: str | None = None,
    format: Literal["official", "safetensors", "onnx", "openvino", "pt2"] = "official",
    direction: Direction | None = None,
    precision: Precision = "float32",
    shape: list[int] | None = None,
    calibration: str | None = None,
    licence: str = "not stated",
    averaging: Averaging = "auto",
    epoch: str = "latest",
    overwrite: bool = False,
) -> int:
    """Write a trained generator, or all networks of a run, for other programs.

    onnx (ONNX Runtime), openvino and pt2 (torch.export) hold one direction, for images of any size; safetensors holds
    the weights of all. Each file is compared with PyTorch at three sizes before it is kept, and `predict --ckpt_path`
    takes it. `official` is the format of the original implementations of CycleGAN, CUT and DCLGAN, a folder with all
    networks.

    Args:
        ckpt_path: checkpoint or folder of a training run, or a generator file of another program.
        output: file, or folder for official; by default a file beside the checkpoint.
        format: format of the files.
        direction: AtoB or BtoA, for methods with two; default AtoB.
        precision: float32; half, weights of 16 bits; or int8, weights and activations of 8 bits.
        shape: number, height and width of the only images that the file takes, such as 1 512 512, for programs that
            need fixed sizes; default any.
        calibration: folder of photos from which int8 finds the ranges of activations; default sample photos.
        licence: licence of the weights, which is written into the file.
        averaging: ema (averaged weights), raw (those of the last step), or auto (averaged where there are any).
        epoch: what the names begin with, for official.
        overwrite: replace existing files.
    """
    if format == "official":
        return _official(ckpt_path, output, epoch, averaging, overwrite)
    raise AssertionError("run() hands the other formats on")


def run(name: str, args: Sequence[str]) -> int:
    """Run `export`."""
    check_configs(args)
    description = (inspect.getdoc(export) or "").split("\n\nArgs:")[0]
    parser = Parser(prog=f"cyclestyle {name}", description=description)
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="a YAML file with any of these options")
    add_parameters(parser, export)
    parser.add_subclass_arguments((Task, *PLAIN.values()), "model", required=False, fail_untyped=False)
    known = {option.partition(".")[0] for option in parser.option_names()}
    for path in config_files(args):
        if others := yaml.safe_load(path.read_text()).keys() - known:
            raise CycleStyleError(
                f"{path} is no config of export, which has no {' and no '.join(sorted(others))}; leave it out, and "
                "name what to export with --ckpt_path"
            )
    parser.set_defaults(stored_model(args))
    config = parser.parse_args(list(args))
    _refuse_ignored(config)
    config.ckpt_path = str(resolve_checkpoint(config.ckpt_path))
    if config.format != "official":
        return _export(config)
    return export(**{key: config.get(key) for key in inspect.signature(export).parameters})


def _export(config: Any) -> int:
    """Write one file, and say how far it is from PyTorch."""
    check_packages(config.format)
    shape = _shape(config)
    path = _target(config)
    if path.exists() and not config.overwrite:
        raise CheckpointError(f"{path} exists already; add --overwrite, or choose another --output")
    method = _method(config)
    chosen = _direction(method, config)
    channels = method.in_channels(chosen)
    exporting = Exporting(
        format=config.format,
        direction=chosen,
        precision=config.precision,
        licence=config.licence,
        training=run_config(Path(config.ckpt_path)),
        shape=shape,
        checks=[_photos(*size, channels) for size in ([shape] if shape else SIZES)],
        style=_photos(1, 128, 128, 3, painted=True)[0] if method.takes_styles else None,
        calibration=_calibration(config.calibration, channels, shape or (1, 256, 256), method.ranges.get(chosen[0]))
        if config.precision == "int8"
        else (),
    )
    ensure_writable(path.parent)
    _report(export_method(method, path, exporting))
    return 0


def _refuse_ignored(config: Any) -> None:
    """Refuse options that would change nothing.

    Raises:
        CycleStyleError: one is given.
    """
    defaults = inspect.signature(export).parameters
    ignored = {
        "official": ("direction", "precision", "shape", "calibration", "licence"),
        "safetensors": ("epoch", "shape"),
    }.get(config.format, ("epoch",))
    for name in ignored:
        if config[name] != defaults[name].default:
            raise CycleStyleError(f"--{name} has no meaning for the format {config.format}; leave it out")
    if config.calibration is not None and config.precision != "int8":
        raise CycleStyleError("--calibration is for --precision int8; add that, or leave it out")


def _official(ckpt_path: str, output: str | None, epoch: str, averaging: Averaging, overwrite: bool) -> int:
    checkpoint = read_checkpoint(Path(ckpt_path))
    state = checkpoint.get("state_dict", {})
    average = {} if averaging == "raw" else checkpoint.get("ema", {})
    if averaging == "ema" and not average:
        raise CheckpointError(f"{ckpt_path} holds no averaged weights; leave --averaging ema out")
    if method_of(state) is None:
        raise CheckpointError(
            f"{ckpt_path} is not a checkpoint of a run of {', '.join(METHODS)}; there is nothing to export"
        )
    settings = checkpoint.get("hyper_parameters", {})
    if settings.get("residual"):
        raise CheckpointError(
            f"{ckpt_path} has residual generators, which the original implementations lack; choose another --format"
        )
    if settings.get("discriminator", "basic") not in ("basic", "n_layers", "pixel"):
        raise CheckpointError(
            f"{ckpt_path} has projected or several discriminators, which the original implementations lack; choose "
            "another --format"
        )
    if output is None:
        raise CycleStyleError("name the folder to write into with --output")
    folder = Path(output)
    present = [path for path in folder.glob(f"{epoch}_net_*.pth") if not overwrite]
    if present:
        raise CheckpointError(f"{present[0]} exists already; add --overwrite, or choose another --output or --epoch")
    for path in write_official({**state, **average}, folder, epoch):
        print(path)
    return 0


def _target(config: Any) -> Path:
    """The file to write: `--output`, or one beside the checkpoint that names its direction."""
    ending, checkpoint = ENDINGS[config.format], Path(config.ckpt_path)
    if config.output is None:
        name = checkpoint.name if checkpoint.is_dir() else checkpoint.stem
        folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
        middle = "" if config.format == "safetensors" or config.direction is None else f"_{config.direction}"
        return folder / f"{name}{middle}{ending}"
    path = Path(config.output)
    if path.suffix.lower() != ending:
        raise CycleStyleError(f"--output {path} has to end with {ending} for {config.format}")
    return path


def _method(config: Any) -> Method:
    model = config.get("model")
    if model is None:
        return open_method(config.ckpt_path, averaging=config.averaging)
    changes = vars(model.get("init_args", namespace()))
    try:
        chosen = import_class(model.class_path)
        return open_method(config.ckpt_path, averaging=config.averaging, method=chosen, **changes)
    except ValueError as error:
        raise CycleStyleError(str(error)) from error


def _direction(method: Method, config: Any) -> Direction:
    known = method.known_directions
    if config.format == "safetensors" and config.direction is not None:
        raise CycleStyleError("a file of safetensors holds all directions; leave --direction out")
    if config.direction is not None and config.direction not in known:
        raise CycleStyleError(
            f"{method.name} translates {' and '.join(known)}; leave --direction {config.direction} out"
        )
    chosen: Direction = config.direction or known[0]
    return chosen


def _shape(config: Any) -> tuple[int, int, int] | None:
    match config.shape:
        case None:
            return None
        case [batch, height, width] if min(config.shape) > 0:
            return batch, height, width
    raise CycleStyleError(
        f"--shape takes the number, height and width of images, such as 1 512 512, got {config.shape}"
    )


def _photos(count: int, height: int, width: int, channels: int, *, painted: bool = False) -> Tensor:
    """Photos, or paintings, of the sample domains: `(count, channels, height, width)` in [-1, 1]."""
    side = max(height, width)
    images = [to_tensor(sample_image(number, side, painted=painted))[:, :height, :width] for number in range(count)]
    if channels not in MODES:
        return torch.stack([image[[band % 3 for band in range(channels)]] for image in images])
    return torch.stack([with_channels(image, None, channels) for image in images])


def _calibration(
    folder: str | None, channels: int, shape: tuple[int, int, int], values: ValueRange | None
) -> list[Tensor]:
    """Images of a height and width, each as often as the batch is large."""
    batch, height, width = shape
    if folder is None:
        photos = torch.split(_photos(CALIBRATION, height, width, channels), 1)
        return [photo.expand(batch, -1, -1, -1) for photo in photos]
    found = find_images(Path(folder))[:CALIBRATION]
    if not found:
        raise CycleStyleError(f"{folder} has no images to calibrate with")
    read = []
    for path in found:
        image = read_sample(path, channels, values)
        if isinstance(image, Tensor):
            read.append(F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0])
        else:
            read.append(to_tensor(image.resize((width, height))))
    return [photo.expand(batch, -1, -1, -1) for photo in read]


def _report(result: Outcome) -> None:
    print("difference from PyTorch, of values in [-1, 1]:")
    for one in result.differences:
        count, _, height, width = one.shape
        print(f"  {count} × {width}×{height}: largest {one.largest:.2g}, mean {one.mean:.2g}")
    ours, theirs = result.seconds
    count, _, height, width = max((one.shape for one in result.differences), key=lambda shape: shape[2] * shape[3])
    images = "one image" if count == 1 else f"{count} images"
    print(f"seconds for {images} of {width}×{height}: PyTorch {ours:.3f}, this file {theirs:.3f}")
    for file in result.files:
        print(f"{file} ({file.stat().st_size / 1e6:.1f} MB)")
