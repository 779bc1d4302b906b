"""`predict`: translate a picture or a folder of pictures."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
from jsonargparse import ActionConfigFile, ActionYesNo  # type: ignore[attr-defined]  # jsonargparse exports it without __all__

from cyclestyle.callbacks import PictureWriter
from cyclestyle.commands.common import Parser, check_configs, ensure_writable, one_line_errors, quiet
from cyclestyle.data.prediction import PredictionImages, PredictionPlan, plan_prediction
from cyclestyle.errors import CycleStyleError
from cyclestyle.tasks import Translation
from cyclestyle.translate import Translator


@dataclass(kw_only=True)
class Prediction:
    """Translate pictures.

    Args:
        ckpt_path: checkpoint of a training run, or a generator file of the original implementation.
        input: a picture, or a folder whose tree is translated.
        output: folder for the results, each under its input's relative name, in its input's size.
        direction: AtoB or BtoA.
        averaging: ema (averaged weights), raw (those of the last step), or auto (averaged where there are any).
        batch_size: pictures of one size that are translated together.
        overwrite: translate pictures again whose result is there already.
        workers: processes that load pictures.
    """

    ckpt_path: str
    input: str
    output: str
    direction: Literal["AtoB", "BtoA"] = "AtoB"
    averaging: Literal["auto", "ema", "raw"] = "auto"
    batch_size: int = 8
    overwrite: bool = False
    workers: int = 1


def run(name: str, args: Sequence[str]) -> int:
    """Run `predict`; the status is 1 if any picture failed."""
    quiet()
    check_configs(args)
    with one_line_errors():
        parser = _parser()
        config = parser.parse_args(list(args))
        settings = Prediction(**{key: config[key] for key in Prediction.__dataclass_fields__})
        if settings.batch_size < 1:
            raise CycleStyleError(f"batch_size must be at least 1, got {settings.batch_size}")
        translator = Translator.load(settings.ckpt_path, direction=settings.direction, averaging=settings.averaging)
        plan = plan_prediction(
            Path(settings.input),
            Path(settings.output),
            batch_size=settings.batch_size,
            overwrite=settings.overwrite,
        )
        ensure_writable(Path(settings.output))
        writer = PictureWriter()
        trainer = pl.Trainer(**parser.instantiate_classes(config).trainer, callbacks=[writer], logger=False)
        if plan.batches:
            images = PredictionImages(plan, channels=translator.in_channels, workers=settings.workers)
            trainer.predict(Translation(translator), images, return_predictions=False)
        return _report(plan, writer, settings.output) if trainer.is_global_zero else 0


def _parser() -> Parser:
    parser = Parser(prog="cyclestyle predict", description="Translate a picture or a folder of pictures.")
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="a YAML file with any of these options")
    parser.add_class_arguments(Prediction, skip={"overwrite"})
    parser.add_argument(
        "--overwrite", action=ActionYesNo, default=False, help="translate pictures again whose result is there already"
    )
    ours = {"callbacks", "logger", "enable_checkpointing", "default_root_dir"}
    parser.add_class_arguments(pl.Trainer, "trainer", instantiate=False, skip=ours)
    parser.set_defaults({"trainer.enable_model_summary": False})
    return parser


def _report(plan: PredictionPlan, writer: PictureWriter, output: str) -> int:
    failures = {**{str(path): text for path, text in plan.failures.items()}, **writer.failures}
    kept = f", {plan.kept} kept that were there already (--overwrite translates them again)" if plan.kept else ""
    print(f"{writer.written} pictures written to {output}{kept}")
    if not failures:
        return 0
    print(f"cyclestyle: error: {len(failures)} pictures failed:", file=sys.stderr)
    for text in failures.values():
        print(f"  {text}", file=sys.stderr)
    return 1
