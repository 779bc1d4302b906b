"""`predict`: translate an image or a folder of images."""

import json
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import ActionConfigFile, ActionYesNo  # type: ignore[attr-defined]  # jsonargparse exports it without __all__
from torch import Tensor

import cyclestyle.tasks
from cyclestyle.callbacks import ImageWriter, OptimisationProgress
from cyclestyle.commands.common import (
    Parser,
    check_configs,
    ensure_writable,
    keep_memory,
    one_line,
    one_line_errors,
    quiet,
)
from cyclestyle.commands.shipped_configs import resolve_config_arguments
from cyclestyle.data.folders import find_images
from cyclestyle.data.prediction import PredictionImages, PredictionPlan, plan_prediction
from cyclestyle.errors import CheckpointError, CycleStyleError
from cyclestyle.files import atomic_write
from cyclestyle.images import read_image, to_tensor
from cyclestyle.tasks import Gatys, PaintsInStyle, Translation
from cyclestyle.translate import Translator
from cyclestyle.weights.checkpoints import read_checkpoint


@dataclass(kw_only=True)
class Prediction:
    """Translate images.

    Args:
        ckpt_path: checkpoint of a training run, or a generator file of the original implementation.
        input: an image, or a folder whose tree is translated.
        output: folder for the results, each under its input's relative name, in its input's size.
        style: paintings, or folders of them, for methods that take their style from images.
        style_weights: how the styles are mixed, a number each.
        mask: where each style belongs: a grey image of the photos' size, or a folder with one for each photo.
        direction: AtoB or BtoA.
        averaging: ema (averaged weights), raw (those of the last step), or auto (averaged where there are any).
        batch_size: images of one size that are translated together.
        overwrite: translate images again whose result is there already.
        workers: processes that load images.
        stats: a JSON file for the time and memory that it took.
    """

    input: str
    output: str
    ckpt_path: str | None = None
    style: list[str] = field(default_factory=list)
    style_weights: list[float] | None = None
    mask: list[str] = field(default_factory=list)
    direction: Literal["AtoB", "BtoA"] = "AtoB"
    averaging: Literal["auto", "ema", "raw"] = "auto"
    batch_size: int = 8
    overwrite: bool = False
    workers: int = 1
    stats: str | None = None


LISTS = ("style", "style_weights", "mask")  # several words after one option


def run(name: str, args: Sequence[str]) -> int:
    """Run `predict`; the status is 1 if any image failed."""
    quiet()
    keep_memory()
    args = resolve_config_arguments(args)
    check_configs(args)
    with one_line_errors():
        parser = _parser(args)
        config = parser.parse_args(list(args))
        settings = Prediction(**{key: config[key] for key in Prediction.__dataclass_fields__})
        if settings.batch_size < 1:
            raise CycleStyleError(f"batch_size must be at least 1, got {settings.batch_size}")
        styles = _read_styles(settings.style)  # before a network is fetched for them
        try:
            built = parser.instantiate_classes(config)
        except ValueError as error:
            raise CycleStyleError(one_line(str(error))) from error
        task = _task(settings, built.get("model"), styles)
        # What paints one by one gets one by one, so that each image is written as soon as it is done.
        batch_size = 1 if isinstance(task, PaintsInStyle) else settings.batch_size
        plan = plan_prediction(
            Path(settings.input), Path(settings.output), batch_size=batch_size, overwrite=settings.overwrite
        )
        ensure_writable(Path(settings.output))
        if settings.stats:
            if Path(settings.stats).is_dir():
                raise CycleStyleError(f"stats {settings.stats} is a folder; name a file")
            ensure_writable(Path(settings.stats).parent)
        return _predict(task, plan, settings, built.trainer)


def _predict(task: pl.LightningModule, plan: PredictionPlan, settings: Prediction, trainer_settings: Any) -> int:
    writer, progress = ImageWriter(), OptimisationProgress(trainer_settings.enable_progress_bar is not False)
    trainer = pl.Trainer(**trainer_settings, callbacks=[writer, progress], logger=False)
    if plan.batches:
        channels = task.translator.in_channels if isinstance(task, Translation) else 3
        masks = [Path(mask) for mask in settings.mask]
        images = PredictionImages(plan, channels=channels, workers=settings.workers, masks=masks)
        trainer.predict(task, images, return_predictions=False)
    if not trainer.is_global_zero:
        return 0
    if settings.stats:
        _write_stats(Path(settings.stats), writer)
    return _report(plan, writer, settings.output)


def _task(settings: Prediction, model: pl.LightningModule | None, styles: list[Tensor]) -> pl.LightningModule:
    """The method that is named, with its weights and its styles."""
    if model is None:
        if settings.ckpt_path is None:
            raise CycleStyleError(
                "nothing to translate with: name a checkpoint with --ckpt_path, or a method with --model"
            )
        translator = Translator.load(settings.ckpt_path, direction=settings.direction, averaging=settings.averaging)
        if settings.style or settings.mask:
            raise CycleStyleError(f"{settings.ckpt_path} has learnt its style; leave --style and --mask out")
        return Translation(translator)
    if settings.mask and not isinstance(model, Gatys):
        raise CycleStyleError(f"{_a(model)} takes no masks; leave --mask out")
    if not isinstance(model, PaintsInStyle):
        raise CycleStyleError(f"{_a(model)} has to be trained first; name its checkpoint with --ckpt_path")
    if settings.ckpt_path is not None:
        _load(model, Path(settings.ckpt_path), settings.averaging)
    if settings.mask and len(settings.mask) != len(styles):
        raise CycleStyleError(f"{len(settings.mask)} masks for {len(styles)} styles; give one mask for each style")
    if settings.mask and settings.style_weights:
        raise CycleStyleError("--style_weights mixes styles, --mask gives each its region; leave one of them out")
    model.use_styles(styles, settings.style_weights)
    return model


def _read_styles(words: Sequence[str]) -> list[Tensor]:
    """Read paintings, and all of each folder, `(3, H, W)` in [-1, 1]."""
    paths = [path for word in map(Path, words) for path in (find_images(word) if word.is_dir() else [word])]
    return [to_tensor(read_image(path)) for path in paths]


def _a(model: pl.LightningModule) -> str:
    name = type(model).__name__
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _load(model: pl.LightningModule, path: Path, averaging: str) -> None:
    checkpoint = read_checkpoint(path)
    if averaging == "ema" and "ema" not in checkpoint:
        raise CheckpointError(f"{path} holds no averaged weights; train with --ema.decay 0.999, or take the raw ones")
    found = checkpoint.get("cyclestyle_task", "another program")
    if found != type(model).__name__:
        raise CheckpointError(f"{path} is a checkpoint of {found}; expected one of {type(model).__name__}")
    try:
        average = {} if averaging == "raw" else checkpoint.get("ema", {})
        model.load_state_dict({**checkpoint["state_dict"], **average})
    except RuntimeError as error:
        raise CheckpointError(f"{path} was trained with other model settings than these; leave those out") from error


def _parser(args: Sequence[str]) -> Parser:
    parser = Parser(prog="cyclestyle predict", description="Translate an image or a folder of images.")
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="a YAML file with any of these options")
    parser.add_class_arguments(Prediction, skip={"overwrite", *LISTS})
    parser.add_argument("--style", nargs="+", type=str, default=[], help="paintings, or folders of them")
    parser.add_argument("--style_weights", nargs="+", type=float, help="how the styles are mixed, a number each")
    parser.add_argument("--mask", nargs="+", type=str, default=[], help="where each style belongs, white inside")
    parser.add_argument(
        "--overwrite", action=ActionYesNo, default=False, help="translate images again whose result is there already"
    )
    parser.add_subclass_arguments(pl.LightningModule, "model", required=False, fail_untyped=False)
    ours = {"callbacks", "logger", "enable_checkpointing", "default_root_dir"}
    parser.add_class_arguments(pl.Trainer, "trainer", instantiate=False, skip=ours)
    parser.set_defaults({"trainer.enable_model_summary": False, **_stored_settings(args)})
    return parser


def _stored_settings(args: Sequence[str]) -> dict[str, Any]:
    """Of a checkpoint whose method takes a style, the settings it was trained with, as defaults of `--model`."""
    words = [word for arg in args for word in arg.split("=", 1)]
    named = [after for word, after in pairwise(words) if word == "--ckpt_path"] or [
        found
        for word, after in pairwise(words)
        if word in ("--config", "-c") and Path(after).is_file()
        if (found := (yaml.safe_load(Path(after).read_text()) or {}).get("ckpt_path"))
    ]
    if not named or not Path(named[-1]).is_file():
        return {}
    checkpoint = read_checkpoint(Path(named[-1]))
    name = checkpoint.get("cyclestyle_task")
    if not issubclass(getattr(cyclestyle.tasks, str(name), object), PaintsInStyle):
        return {}
    settings = {key: value for key, value in checkpoint["hyper_parameters"].items() if not key.startswith("_")}
    return {"model": {"class_path": f"cyclestyle.tasks.{name}", "init_args": settings}}


def _write_stats(path: Path, writer: ImageWriter) -> None:
    """Write the time and memory that translating took."""
    on_gpu = torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0
    memory = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    stats = {
        "images": writer.written,
        "seconds": writer.seconds,
        "peak_memory_bytes": memory,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
    }
    with atomic_write(path) as file:
        file.write((json.dumps(stats, indent=2) + "\n").encode())


def _report(plan: PredictionPlan, writer: ImageWriter, output: str) -> int:
    failures = {**{str(path): text for path, text in plan.failures.items()}, **writer.failures}
    kept = f", {plan.kept} kept that were there already (--overwrite translates them again)" if plan.kept else ""
    print(f"{writer.written} images written to {output}{kept}")
    if not failures:
        return 0
    print(f"cyclestyle: error: {len(failures)} images failed:", file=sys.stderr)
    for text in failures.values():
        print(f"  {text}", file=sys.stderr)
    return 1
