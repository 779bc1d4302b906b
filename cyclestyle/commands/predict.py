"""`predict`: translate images, videos and folders of them."""

import hashlib
import inspect
import json
import re
import resource
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined]  # exported without __all__

import cyclestyle.tasks
from cyclestyle.callbacks import ImageProgress, ImageWriter, Manifest, PredictionProgress
from cyclestyle.commands.errors import one_line
from cyclestyle.commands.parser import Parser, add_parameters, check_configs, config_files, import_class
from cyclestyle.commands.process import ensure_writable, ensure_writable_file, number_of
from cyclestyle.commands.standard_streams import STREAM, as_files
from cyclestyle.commands.style_sheet import check_style_sheet, write_style_sheet
from cyclestyle.commands.trainer_options import check_processes, name_devices
from cyclestyle.commands.tuning import choose_tuning
from cyclestyle.data.folders import name_some
from cyclestyle.data.prediction import PredictionImages, PredictionPlan, plan_prediction
from cyclestyle.errors import CheckpointError, CycleStyleError
from cyclestyle.files import remove_unfinished, write_json
from cyclestyle.functional.motion import has_optical_flow
from cyclestyle.images import (
    HEIC,
    Encoding,
    Format,
    VideoCodec,
    format_named,
    is_video,
    prepare_segments,
    remove_empty_segments,
)
from cyclestyle.networks.streaming import Statistics
from cyclestyle.tasks import Averaging, Direction, Task, load
from cyclestyle.tasks.hub import saved_direction
from cyclestyle.tasks.large import LargeImages
from cyclestyle.tasks.load import read
from cyclestyle.tasks.speed import SpeedName, Tuning
from cyclestyle.tasks.steady import Steady
from cyclestyle.tasks.translator import finish_as, read_styles, use_styles
from cyclestyle.weights.checkpoints import run_checkpoint
from cyclestyle.weights.located import CONFIG, located
from cyclestyle.weights.shipped import SHIPPED

TRAINER = ("accelerator", "devices", "num_nodes", "strategy", "precision", "enable_progress_bar")
"""Options of Lightning's Trainer that concern translating."""
LISTS = ("input", "style", "style_weights", "mask")
"""Options that take several words."""
RESULT = (
    "direction",
    "averaging",
    "statistics",
    "style",
    "style_weights",
    "mask",
    "strength",
    "preserve_color",
    "work_size",
    "format",
    "quality",
    "video_codec",
    "crf",
    "steady",
    "steady_decay",
)
"""Options that a result depends on, beside the checkpoint, which the manifest lists."""


@dataclass(kw_only=True)
class Prediction:
    """Translate images, videos and folders of them.

    Args:
        input: images, videos and folders, which are searched recursively; - reads an image from standard input.
        output: folder for the results, each under the relative name and in the size of its input; or, for one file,
            the file of its result; - writes it to standard output.
        ckpt_path: checkpoint or folder of a training run, an exported file, a generator file of another program, the
            name of a model that cyclestyle models lists, or a repository of the Hugging Face Hub such as user/name;
            default the model styles of the package.
        style: style images, or folders of them, for methods that take their style from images; for networks of many
            styles, names such as wave, or mixtures such as wave:0.3,starry_night:0.7.
        style_weights: how the styles are mixed, one number each.
        mask: where each style applies: a grey image of the size of the photo, white inside, or a folder of these.
        strength: share of the translation, 0 to 1; the rest is the photo, unless the method has a strength of its own.
        preserve_color: keep the colours of the photo.
        work_size: longest side, in pixels, at which images are translated; the results have the size and the fine edges
            of the photos. 0: the size of each photo; default that of the model of the package, otherwise 0.
        direction: AtoB or BtoA.
        averaging: ema (averaged weights), raw (those of the last step), or auto (averaged where there are any).
        format: format of translated images, such as png, jpeg, webp or tiff; null: that of each input.
        quality: quality of jpeg, webp, avif and heic, 1 to 100; null: that of each input where its file tells it.
        video_codec: h264, hevc, vp9, av1, ffv1 (lossless) or mpeg4; null: the default of each container.
        crf: constant rate factor of videos, the lower, the better; null: the default of the codec.
        steady: average the results of a video along its motion, so that it flickers less.
        steady_decay: decay of averages of the statistics of norms over frames, with --steady, such as 0.9; 0: none.
        shard: which part of the files to translate, such as 3/8, so that 8 machines share one folder.
        manifest: append a JSON line for each result to this file.
        batch_size: images of one size that are translated together.
        overwrite: translate images again whose result exists.
        memory: memory for activations, such as 4GB; default 2.5GB, or 1GB for a large image, or half of what is free.
        scratch: folder for what does not fit into memory; default the system's folder for temporary files.
        statistics: exact, those of the whole image, or reduced, those of a large image at 1,024 pixels.
        speed: exact, as in training without --speed; auto, whatever is faster here with results that are as good; or
            fast, which is the same in this command.
        workers: processes that load images; default 1, and with a GPU one for each other core, at most 4.
        oversubscribe: allow more processes than the machine has cores.
        stats: write time and memory to this JSON file.
        sheet: write the photo in all styles of the network, each with its name, to this one image.
        json: print what was done as one JSON object, and everything else to standard error.
    """

    input: list[str]
    output: str | None = None
    ckpt_path: str | None = None
    style: list[str] | None = None
    style_weights: list[float] | None = None
    mask: list[str] | None = None
    strength: float | None = None
    preserve_color: bool = False
    work_size: int | None = None
    direction: Direction | None = None
    averaging: Averaging = "auto"
    format: str | None = None
    quality: int | None = None
    video_codec: VideoCodec | None = None
    crf: int | None = None
    steady: bool = False
    steady_decay: float = 0.0
    shard: str | None = None
    manifest: str | None = None
    batch_size: int = 8
    overwrite: bool = False
    memory: str | None = None
    scratch: str | None = None
    statistics: Statistics = "exact"
    speed: SpeedName = "auto"
    workers: int | None = None
    oversubscribe: bool = False
    stats: str | None = None
    sheet: str | None = None
    json: bool = False


def run(name: str, args: Sequence[str]) -> int:
    """Run `predict`; the status is 1 if any image failed."""
    check_configs(args)
    args = _with_run(args)
    parser = _parser(args)
    config = parser.parse_args(list(args))
    check_processes(config.trainer, oversubscribe=config.oversubscribe)
    name_devices(config.trainer)
    settings = Prediction(**{field.name: config[field.name] for field in fields(Prediction)})
    if settings.batch_size < 1:
        raise CycleStyleError(f"batch_size must be at least 1, got {settings.batch_size}")
    if settings.workers is not None and settings.workers < 0:
        raise CycleStyleError(f"workers must be at least 0, got {settings.workers}")
    if settings.steady_decay and not settings.steady:
        raise CycleStyleError("--steady_decay is for --steady; add --steady, or leave it out")
    if settings.output is None and settings.sheet is None:
        raise CycleStyleError("name the file or folder of the results with --output")
    if settings.json and settings.output == STREAM:
        raise CycleStyleError("--json and --output - both write to standard output; leave one of them out")
    stdout = sys.stdout
    quiet = redirect_stdout(sys.stderr) if settings.json else nullcontext()
    with quiet, as_files(settings.input, settings.output, _format(settings)) as files:
        shown = "standard output" if settings.output == STREAM else settings.output
        done, status = _run(replace(settings, input=files[0], output=files[1]), parser, config, shown)
    if settings.json:
        print(json.dumps(done), file=stdout)
    return status


def _run(settings: Prediction, parser: Parser, config: Namespace, shown: str | None) -> tuple[dict[str, Any], int]:
    """Translate files, and return what was done and the status; `shown` is the name of the output in messages."""
    if settings.ckpt_path is None and config.get("model") is None:
        settings.ckpt_path = next(iter(SHIPPED))
        print(f"with the model {settings.ckpt_path} of the package (--ckpt_path takes others; cyclestyle models)")
    if settings.ckpt_path is not None:
        settings.ckpt_path = str(located(settings.ckpt_path))
    chosen, shard = _format(settings), _shard(settings.shard)
    for style in settings.style or [] if settings.ckpt_path is None else []:
        read_styles(style)  # before a network is downloaded for it
    trainer_settings = parser.instantiate_classes(namespace(trainer=config.trainer)).trainer
    try:
        encoding = Encoding(settings.video_codec, settings.crf)
        large_images = LargeImages(memory=settings.memory, scratch=settings.scratch, statistics=settings.statistics)
        steady = Steady(settings.steady_decay) if settings.steady else None
        task = _task(settings, parser, config)
        finish_as(
            task,
            None if settings.ckpt_path is None else Path(settings.ckpt_path),
            strength=settings.strength,
            preserve_color=settings.preserve_color,
            work_size=settings.work_size,
        )
        fast = "translating" in task.in_bfloat16
        choice = choose_tuning(settings.speed, vars(config.tune), config.trainer, bfloat16=fast, training=False)
    except ValueError as error:
        raise CycleStyleError(one_line(str(error))) from error
    task.large_images, task.steady = large_images, steady
    _prepare(task, settings)
    task.tune(choice.tuning, training=False)
    if settings.sheet is not None:
        check_style_sheet(task, settings.input, Path(settings.sheet))
    if settings.output is None:
        write_style_sheet(task, Path(settings.input[0]), Path(str(settings.sheet)))
        return {"sheet": settings.sheet}, 0
    plan = plan_prediction(
        settings.input,
        Path(settings.output),
        overwrite=settings.overwrite,
        format=chosen,
        codec=settings.video_codec,
        shard=shard,
    )
    identity = _identity(settings, task, choice.tuning)
    _prepare_output(plan, settings, identity)
    if plan.jobs:
        print(f"speed {settings.speed}: {choice.reason}")
    done, status = _predict(task, plan, settings, encoding, identity, trainer_settings, shown)
    if settings.sheet is not None:
        write_style_sheet(task, Path(settings.input[0]), Path(settings.sheet))
    return {**done, "sheet": settings.sheet}, status


def _prepare_output(plan: PredictionPlan, settings: Prediction, identity: dict[str, Any]) -> None:
    """Check that everything can be written, and clear what killed runs left."""
    output = Path(str(settings.output))
    to_file = output.is_file() or [job.target for job in plan.jobs] == [output]
    ensure_writable(output.parent if to_file else output)
    for folder in {job.target.parent for job in plan.jobs}:
        remove_unfinished(folder)
    for file in filter(None, (settings.stats, settings.manifest)):
        ensure_writable_file(file)
    for job in plan.jobs:
        if job.is_video and job.source.is_file():
            prepare_segments(job.source, job.target, identity)


def namespace(**values: Any) -> Any:
    """Return a namespace of jsonargparse, whose constructor has no types."""
    return Namespace(**values)  # type: ignore[no-untyped-call]


def _predict(
    task: Task,
    plan: PredictionPlan,
    settings: Prediction,
    encoding: Encoding,
    identity: dict[str, Any],
    trainer_settings: Any,
    shown: str | None,
) -> tuple[dict[str, Any], int]:
    total, show = len(plan.jobs), trainer_settings.pop("enable_progress_bar", None) is not False
    manifest = None if settings.manifest is None else Manifest(Path(settings.manifest), identity)
    writer = ImageWriter(total, quality=settings.quality, encoding=encoding, manifest=manifest, unit=_unit(plan))
    try:
        trainer = pl.Trainer(
            **trainer_settings,
            callbacks=[writer, PredictionProgress(total, show), ImageProgress(show)],
            enable_progress_bar=False,  # it would count batches, whose number is not known
            enable_model_summary=False,
            logger=False,
            use_distributed_sampler=False,  # each process has its own images already
        )
    except (TypeError, ValueError) as error:  # of devices and accelerators
        raise CycleStyleError(one_line(str(error))) from error
    if plan.jobs:
        # Methods that take styles translate one image at a time, so that each is written as soon as it is done.
        batch_size = 1 if task.takes_styles else settings.batch_size
        masks = [Path(mask) for mask in settings.mask or []]
        channels = task.in_channels(task.direction)
        workers = settings.workers
        images = PredictionImages(
            plan,
            channels=channels,
            batch_size=batch_size,
            workers=workers,
            masks=masks,
            encoding=encoding,
            steady=settings.steady,
        )
        trainer.predict(task, images, return_predictions=False)
        for job in plan.jobs:
            if job.is_video and str(job.source) in writer.failures:
                remove_empty_segments(job.target)
    if not trainer.is_global_zero:
        return {}, 0
    if settings.stats:
        _write_stats(Path(settings.stats), writer)
    return _report(plan, writer, settings, shown)


def _format(settings: Prediction) -> Format | None:
    """The format of the results; None for that of each input."""
    chosen = None if settings.format is None else format_named(settings.format)
    if settings.quality is not None and not 1 <= settings.quality <= 100:
        raise CycleStyleError(f"quality must be from 1 to 100, got {settings.quality}")
    if settings.quality is not None and chosen is not None and chosen.quality is None:
        raise CycleStyleError(f"{chosen.name} is lossless and has no quality; leave --quality out")
    return chosen


def _shard(text: str | None) -> tuple[int, int] | None:
    """The number of the part and of parts of a word such as `3/8`."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise CycleStyleError(f"shard must be a part and the number of parts, 1/8 to 8/8 for instance, got {text}")
    return int(found[1]), int(found[2])


def _identity(settings: Prediction, task: Task, tuning: Tuning) -> dict[str, Any]:
    """What a result depends on, beside its input."""
    checkpoint = None if settings.ckpt_path is None else _sha256(Path(settings.ckpt_path))
    result = {name: value for name, value in asdict(settings).items() if name in RESULT}
    arithmetic = {name: getattr(tuning, name) for name in ("precision", "winograd")}
    return {"checkpoint_sha256": checkpoint, "settings": result | arithmetic, "model": dict(task.hparams)}


def _unit(plan: PredictionPlan) -> str:
    """What the inputs are called."""
    return "file" if any(job.is_video for job in plan.jobs) else "image"


def _sha256(path: Path) -> str:
    """The hash of a checkpoint; that of a folder of files of the original implementation is over all of them."""
    if (path / "checkpoints").is_dir():
        path = run_checkpoint(path)
    hashes = []
    for file in sorted(path.glob("*.pth")) if path.is_dir() else [path]:
        with file.open("rb") as content:
            hashes.append(hashlib.file_digest(content, "sha256"))
    return (
        hashes[0].hexdigest()
        if path.is_file()
        else hashlib.sha256(b"".join(one.digest() for one in hashes)).hexdigest()
    )


def _task(settings: Prediction, parser: Parser, config: Namespace) -> Task:
    """The task of the checkpoint, or one that needs none."""
    model = config.get("model")
    if settings.ckpt_path is not None:
        if model is None:
            return load(settings.ckpt_path, averaging=settings.averaging)
        chosen: type[Task] = import_class(model.class_path)
        changes = vars(model.get("init_args", namespace()))
        return load(settings.ckpt_path, averaging=settings.averaging, task=chosen, **changes)
    task: Task = parser.instantiate_classes(namespace(model=model)).model
    if not task.takes_styles:
        raise CycleStyleError(f"{_a(task)} has to be trained first; name its checkpoint with --ckpt_path")
    return task


def _prepare(task: Task, settings: Prediction) -> None:
    """Give the task its direction and its styles."""
    if settings.steady and not has_optical_flow():
        raise CycleStyleError("--steady needs OpenCV: pip install opencv-python-headless")
    if settings.mask and not task.takes_masks:
        raise CycleStyleError(f"{_a(task)} takes no masks; leave --mask out")
    if settings.mask and settings.style_weights:
        raise CycleStyleError("--style_weights mixes styles, --mask gives each its region; leave one of them out")
    if settings.style_weights and not (task.takes_styles or task.style_names):
        raise CycleStyleError(f"{_a(task)} mixes no styles; leave --style_weights out")
    count = use_styles(task, settings.style or [], settings.style_weights)
    if settings.mask and len(settings.mask) != count:
        raise CycleStyleError(f"{len(settings.mask)} masks for {count} styles; give one mask for each style")
    if task.style_names:
        print(f"style: {', '.join(settings.style or task.style_names[:1])} (of {', '.join(task.style_names)})")
    if task.finishing.work_size is not None and settings.work_size is None:
        print(f"painting at {task.finishing.work_size} pixels; --work_size 0 paints photos at their own size")
    if settings.direction is not None:
        known = () if task.takes_styles else task.directions
        if settings.direction not in known:
            ways = f"translates {' and '.join(known)}" if known else "has one direction"
            raise CycleStyleError(f"{_a(task)} {ways}; leave --direction {settings.direction} out")
        task.direction = settings.direction
    elif settings.ckpt_path is not None and (Path(settings.ckpt_path) / CONFIG).is_file():
        task.direction = saved_direction(Path(settings.ckpt_path))


def _a(task: Task) -> str:
    name = type(task).__name__
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _parser(args: Sequence[str]) -> Parser:
    parser = Parser(prog="cyclestyle predict", description="Translate images, videos and folders of them.")
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="a YAML file with any of these options")
    add_parameters(parser, Prediction)
    parser.add_class_arguments(Tuning, "tune", instantiate=False)
    parser.add_subclass_arguments(Task, "model", required=False, fail_untyped=False)
    others = set(inspect.signature(pl.Trainer).parameters) - set(TRAINER)
    parser.add_class_arguments(pl.Trainer, "trainer", instantiate=False, skip=others)
    parser.set_defaults({"trainer.devices": 1, **stored_model(args)})
    return parser


def _with_run(args: Sequence[str]) -> list[str]:
    """Replace the saved config of a run, which is about training, by the checkpoint of the run."""
    words = [word for arg in args for word in (arg.split("=", 1) if arg.startswith("--config=") else [arg])]
    for path in config_files(words):
        config = yaml.safe_load(path.read_text())
        if isinstance(config, dict) and "data" in config and "trainer" in config:
            position = words.index(str(path))
            named = any(word.partition("=")[0] == "--ckpt_path" for word in words)
            run = path.parent if (path.parent / "checkpoints").is_dir() else config["trainer"]["default_root_dir"]
            words[position - 1 : position + 1] = [] if named else ["--ckpt_path", str(run)]
    return words


def stored_model(args: Sequence[str]) -> dict[str, Any]:
    """The task of the checkpoint and its settings, as defaults of `--model`, so that options can change them."""
    words = [word for arg in args for word in arg.split("=", 1)]
    configs = [yaml.safe_load(path.read_text()) or {} for path in config_files(args)]
    named = [config["ckpt_path"] for config in configs if config.get("ckpt_path")]
    named += [after for word, after in pairwise(words) if word == "--ckpt_path"]
    path = located(named[-1]) if named else Path()
    if not named or not path.exists():
        return {}
    try:
        found, _ = read(path, "auto")
    except CheckpointError:  # said when it is loaded
        return {}
    if not hasattr(cyclestyle.tasks, found.task):
        return {}  # --model has to name it
    return {"model": {"class_path": f"cyclestyle.tasks.{found.task}", "init_args": found.settings}}


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
    write_json(path, stats)


def _report(
    plan: PredictionPlan, writer: ImageWriter, settings: Prediction, shown: str | None
) -> tuple[dict[str, Any], int]:
    """Print what was done, and return it with the status."""
    failures = {**{str(path): text for path, text in plan.failures.items()}, **writer.failures}
    kept = f", {plan.kept} kept that were there already (--overwrite translates them again)" if plan.kept else ""
    print(f"{number_of(writer.written, writer.unit)} written to {shown}{kept}")
    if plan.others:
        heic = any(path.suffix.lower() in HEIC for path in plan.others)
        hint = "; `pip install pillow-heif` adds HEIC" if heic else ""
        if any(map(is_video, plan.others)):
            hint += "; `pip install av` adds videos"
        print(f"{number_of(len(plan.others), 'file')} left out that are no images: {name_some(plan.others)}{hint}")
    if writer.cut:
        print(
            "cyclestyle: warning: values outside of 0 to 1 (0 to 65535 for integers) became black or white in "
            f"{number_of(len(writer.cut), 'file')}: {name_some([Path(path) for path in writer.cut])}",
            file=sys.stderr,
        )
    results = [{"input": str(job.source), "output": str(job.target)} for job in plan.jobs]
    done = {
        "checkpoint": settings.ckpt_path,
        "results": [one for one in results if one["input"] not in failures],
        "kept": plan.kept,
        "failures": failures,
        "seconds": writer.seconds,
    }
    if not failures:
        return done, 0
    print(f"cyclestyle: error: {number_of(len(failures), writer.unit)} failed:", file=sys.stderr)
    for text in failures.values():
        print(f"  {text}", file=sys.stderr)
    return done, 1
