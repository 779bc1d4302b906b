"""`predict`: translate images, videos and folders of them."""

import hashlib
import json
import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined]  # exported without __all__

from cyclestyle.commands.line.errors import one_line
from cyclestyle.commands.line.parser import Parser, add_parameters, check_configs, config_files, import_class
from cyclestyle.commands.line.process import ensure_writable, ensure_writable_file, number_of
from cyclestyle.commands.line.standard_streams import STREAM, as_files
from cyclestyle.commands.style_sheet import check_style_sheet, write_style_sheet
from cyclestyle.errors import CheckpointError, CycleStyleError, DiskError, StoppedError
from cyclestyle.files import remove_unfinished, write_json
from cyclestyle.functional.motion import has_optical_flow
from cyclestyle.images import (
    DTYPES,
    HEIC,
    Encoding,
    Format,
    ValueRange,
    VideoCodec,
    format_named,
    is_video,
    prepare_segments,
)
from cyclestyle.images.folders import name_some
from cyclestyle.networks.method import Direction, Method
from cyclestyle.networks.streaming import Statistics
from cyclestyle.scratch import peak_memory
from cyclestyle.speed.choice import SpeedName, Tuning
from cyclestyle.speed.setup import choose_device, choose_tuning, cores
from cyclestyle.translation.engine import Engine
from cyclestyle.translation.jobs import Job, Plan, make_plan
from cyclestyle.translation.large import LargeImages
from cyclestyle.translation.opening import PLAIN, open_method
from cyclestyle.translation.processes import Rank, translate_in_processes
from cyclestyle.translation.reading import Masks
from cyclestyle.translation.run import Options, Report, translate_files
from cyclestyle.translation.steady import Steady
from cyclestyle.translation.wishes import finish_as, read_styles, use_styles
from cyclestyle.translation.writer import Manifest
from cyclestyle.weights.checkpoints import run_checkpoint
from cyclestyle.weights.contents import Averaging, read_weights_file
from cyclestyle.weights.resolve import CONFIG, resolve_checkpoint, saved_direction
from cyclestyle.weights.shipped import default_model

LISTS = ("input", "style", "style_weights", "mask")
"""Options that take several words."""
RESULT = (
    "direction",
    "averaging",
    "statistics",
    "style",
    "style_weights",
    "mask",
    "mask_feather",
    "strength",
    "preserve_color",
    "work_size",
    "format",
    "dtype",
    "quality",
    "video_codec",
    "crf",
    "steady",
)
"""Options that a result depends on, beside the checkpoint, which the manifest lists."""
RENAMED = {"trainer.accelerator": "device", "trainer.devices": "devices", "trainer.enable_progress_bar": "progress"}
"""Options of earlier versions, and the names that they have now."""


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
        mask: what is translated: a grey image of the size of the photo, white inside, or a folder with one of the same
            name for each photo; the rest of the photo is kept. Several masks give each style its region.
        mask_feather: pixels inside the border of the mask over which the translation sets in.
        strength: share of the translation, 0 to 1; the rest is the photo, unless the method has a strength of its own.
        preserve_color: keep the colours of the photo.
        work_size: longest side, in pixels, at which images are translated; the results have the size and the fine edges
            of the photos. 0: the size of each photo; default that of the model of the package, otherwise 0.
        direction: AtoB or BtoA.
        averaging: ema (averaged weights), raw (those of the last step), or auto (averaged where there are any).
        format: format of translated images, such as png, jpeg, webp or tiff; null: that of each input.
        dtype: type of the values, such as float32, where the network translates numbers; null: that of each input, or
            one that holds the values.
        quality: quality of jpeg, webp, avif and heic, 1 to 100; null: that of each input where its file tells it.
        video_codec: h264, hevc, vp9, av1, ffv1 (lossless) or mpeg4; null: the default of each container.
        crf: constant rate factor of videos, the lower, the better; null: the default of the codec.
        steady: average the results of a video along its motion, so that it flickers less.
        shard: which part of the files to translate, such as 3/8, so that 8 machines share one folder.
        manifest: append a JSON line for each result to this file.
        batch_size: images of one size that are translated together.
        overwrite: translate images again whose result exists.
        memory: memory for activations, such as 4GB; default 2.5GB, or 1GB for a large image, or half of what is free.
        scratch: folder for what does not fit into memory; default the system's folder for temporary files.
        statistics: exact, those of the whole image, or reduced, those of a large image at 1,024 pixels.
        speed: exact, as in training without --speed; auto, whatever is faster here with results that are as good; or
            fast, which is the same in this command.
        workers: threads that read images ahead; default 1, and with a GPU one for each other core, at most 4.
        device: where to translate, such as cpu, cuda or cuda:1; default the GPU if there is one.
        devices: processes that share the files, each on a GPU of its own, or on the CPU.
        oversubscribe: allow more processes than the machine has cores.
        progress: show progress bars, on a terminal.
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
    mask_feather: int = 0
    strength: float | None = None
    preserve_color: bool = False
    work_size: int | None = None
    direction: Direction | None = None
    averaging: Averaging = "auto"
    format: str | None = None
    dtype: str | None = None
    quality: int | None = None
    video_codec: VideoCodec | None = None
    crf: int | None = None
    steady: bool = False
    shard: str | None = None
    manifest: str | None = None
    batch_size: int = 8
    overwrite: bool = False
    memory: str | None = None
    scratch: str | None = None
    statistics: Statistics = "exact"
    speed: SpeedName = "auto"
    workers: int | None = None
    device: str | None = None
    devices: int = 1
    oversubscribe: bool = False
    progress: bool = True
    stats: str | None = None
    sheet: str | None = None
    json: bool = False


@dataclass(frozen=True)
class _Command:
    """What the words of a command line ask for.

    Attributes:
        settings: the options.
        tune: those of `--tune`.
        model: the class and the constructor arguments of `--model`, if it is named.
    """

    settings: Prediction
    tune: dict[str, Any]
    model: Any

    @classmethod
    def of(cls, words: Sequence[str]) -> "_Command":
        """Parse the words."""
        check_configs(words)
        words = _renamed(_with_run(words))
        config = _parser(words).parse_args(list(words))
        settings = Prediction(**{field.name: config[field.name] for field in fields(Prediction)})
        return cls(settings, vars(config.tune), config.get("model"))


def run(name: str, args: Sequence[str]) -> int:
    """Run `predict`; the status is 1 if any image failed."""
    return predict(args)[1]


def predict(args: Sequence[str]) -> tuple[dict[str, Any], int]:
    """Translate what the words of a command line ask for; return what `--json` prints, and the exit status."""
    command = _Command.of(args)
    settings = command.settings
    _check(settings)
    stdout = sys.stdout
    quiet = redirect_stdout(sys.stderr) if settings.json else nullcontext()
    with quiet, as_files(settings.input, settings.output, _format(settings)) as files:
        given = replace(settings, input=files[0], output=files[1])
        shown = "standard output" if settings.output == STREAM else settings.output
        done, status = _run(replace(command, settings=given), shown)
    if settings.json:
        print(json.dumps(done), file=stdout)
    return done, status


def _check(settings: Prediction) -> None:
    """Refuse options that are out of their range or do not go together."""
    for name, least in (("batch_size", 1), ("workers", 0), ("devices", 1), ("mask_feather", 0)):
        value = getattr(settings, name)
        if value is not None and value < least:
            raise CycleStyleError(f"{name} must be at least {least}, got {value}")
    if settings.output is None and settings.sheet is None:
        raise CycleStyleError("name the file or folder of the results with --output")
    if settings.mask_feather and not settings.mask:
        raise CycleStyleError("mask_feather is for masks; name one with --mask")
    if settings.dtype not in (None, *DTYPES):
        raise CycleStyleError(f"dtype must be one of {', '.join(DTYPES)}, got {settings.dtype}")
    for mask in settings.mask or []:
        if not Path(mask).exists():
            raise CycleStyleError(f"the mask {mask} does not exist; name a file, or a folder of masks, with --mask")
    if settings.json and settings.output == STREAM:
        raise CycleStyleError("--json and --output - both write to standard output; leave one of them out")
    kind = choose_device(settings.device).type
    if settings.devices > 1 and kind == "cpu" and settings.devices > cores() and not settings.oversubscribe:
        raise CycleStyleError(
            f"devices is {settings.devices}, but there are {cores()} cores, and on a CPU every device is a process; "
            f"use at most {cores()}, or add --oversubscribe"
        )


def _run(command: _Command, shown: str | None) -> tuple[dict[str, Any], int]:
    """Translate files, and return what was done and the status; `shown` is the name of the output in messages."""
    settings = command.settings
    if settings.ckpt_path is None and command.model is None:
        settings.ckpt_path = default_model(styles=bool(settings.style or settings.sheet))
        print(f"with the model {settings.ckpt_path} of the package (--ckpt_path takes others; cyclestyle models)")
    chosen, shard, rank = _format(settings), _shard(settings.shard), Rank.of_environment()
    several = settings.devices > 1 and rank.count == 1
    engine, reason = _engine(command, choose_device("cpu" if several else settings.device, rank.local))
    _say(engine, settings)
    if settings.sheet is not None:
        check_style_sheet(engine, settings.input, Path(settings.sheet))
    if settings.output is None:
        write_style_sheet(engine, Path(settings.input[0]), Path(str(settings.sheet)))
        return {"sheet": settings.sheet}, 0
    plan = make_plan(
        settings.input,
        Path(settings.output),
        overwrite=settings.overwrite,
        format=chosen,
        codec=settings.video_codec,
        shards=[one for one in (shard, (rank.number + 1, rank.count)) if one is not None],
    )
    identity = _identity(settings, engine)
    _prepare_output(plan, settings, identity)
    if rank.count > 1:
        print(f"process {rank.number + 1} of {rank.count}: {number_of(len(plan.jobs), _unit(plan))}")
    elif plan.jobs:
        print(f"speed {settings.speed}: {reason}")
    if several:
        report = translate_in_processes(_work, command, plan.jobs, settings.devices)
    else:
        report = translate_files(engine, plan.jobs, _options(settings, identity))
    _stop(report, _unit(plan))
    on_gpu = engine.device.type == "cuda"
    cost = {"seconds": report.seconds, "peak_memory_bytes": report.peak_memory if on_gpu else peak_memory()}
    if settings.stats:
        device = torch.cuda.get_device_name() if on_gpu else "cpu"
        write_json(Path(settings.stats), {"images": report.written, **cost, "device": device})
    done, status = _report(plan, report, settings, shown, engine.ranges[0])
    if settings.sheet is not None:
        write_style_sheet(engine, Path(settings.input[0]), Path(settings.sheet))
    return {**done, **cost, "sheet": settings.sheet}, status


def _work(command: _Command, jobs: Sequence[Job]) -> Report:
    """Translate the share of one of several processes of this machine."""
    engine, _ = _engine(command, choose_device(command.settings.device, Rank.of_environment().local))
    settings = replace(command.settings, progress=False)
    return translate_files(engine, jobs, _options(settings, _identity(settings, engine)))


def _engine(command: _Command, device: torch.device) -> tuple[Engine, str]:
    """Return what translates on a device, and how fast it runs and why."""
    settings = command.settings
    if settings.ckpt_path is not None:
        settings.ckpt_path = str(resolve_checkpoint(settings.ckpt_path))
    for style in settings.style or [] if settings.ckpt_path is None else []:
        read_styles(style)  # before a network is downloaded for it
    try:
        large_images = LargeImages(memory=settings.memory, scratch=settings.scratch, statistics=settings.statistics)
        Encoding(settings.video_codec, settings.crf)
        engine = Engine(_method(command))
        finish_as(
            engine,
            None if settings.ckpt_path is None else Path(settings.ckpt_path),
            strength=settings.strength,
            preserve_color=settings.preserve_color,
            work_size=settings.work_size,
        )
        fast = "translating" in engine.method.in_bfloat16 and not engine.method.ranges  # it has 8 bits of precision
        choice = choose_tuning(settings.speed, command.tune, device.type, bfloat16=fast, training=False)
    except ValueError as error:
        raise CycleStyleError(one_line(str(error))) from error
    engine.large_images, engine.steady = large_images, Steady() if settings.steady else None
    _use(engine, settings)
    engine.method.to(device)
    engine.tune(choice.tuning)
    return engine, choice.reason


def _options(settings: Prediction, identity: dict[str, Any]) -> Options:
    return Options(
        batch_size=settings.batch_size,
        threads=settings.workers,
        masks=_masks(settings),
        dtype=settings.dtype,
        quality=settings.quality,
        encoding=Encoding(settings.video_codec, settings.crf),
        manifest=None if settings.manifest is None else Manifest(Path(settings.manifest), identity),
        progress=settings.progress,
    )


def _masks(settings: Prediction) -> Masks | None:
    paths = [Path(mask) for mask in settings.mask or []]
    return Masks(paths=paths, feather=settings.mask_feather, regions=len(paths) > 1) if paths else None


def _prepare_output(plan: Plan, settings: Prediction, identity: dict[str, Any]) -> None:
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


def _stop(report: Report, unit: str) -> None:
    """Raise the error of work that was stopped before its end.

    Raises:
        DiskError: the disk is full, broken or read-only.
        StoppedError: by a signal.
    """
    if not report.left and not report.disk_error:
        return
    text = f"{report.left} of {report.total} {unit}s are left; the same command goes on with them"
    if report.disk_error:
        raise DiskError(f"{report.disk_error}; {text} when there is space")
    if report.signal is not None:
        raise StoppedError(f"stopped by {report.signal.name}; {text}", status=128 + report.signal)


def namespace(**values: Any) -> Any:
    """Return a namespace of jsonargparse, whose constructor has no types."""
    return Namespace(**values)  # type: ignore[no-untyped-call]


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


def _identity(settings: Prediction, engine: Engine) -> dict[str, Any]:
    """What a result depends on, beside its input."""
    checkpoint = None if settings.ckpt_path is None else _sha256(Path(settings.ckpt_path))
    result = {name: value for name, value in asdict(settings).items() if name in RESULT}
    arithmetic = {name: getattr(engine.tuning, name) for name in ("precision", "winograd")}
    return {"checkpoint_sha256": checkpoint, "settings": result | arithmetic, "model": engine.method.settings}


def _unit(plan: Plan) -> str:
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


def _method(command: _Command) -> Method:
    """The method of the checkpoint, or one that needs none."""
    path, model = command.settings.ckpt_path, command.model
    if model is None:
        return open_method(str(path), averaging=command.settings.averaging)
    chosen, settings = import_class(model.class_path), vars(model.get("init_args", namespace()))
    if path is not None:
        return open_method(path, averaging=command.settings.averaging, method=chosen, **settings)
    method: Method = chosen(**settings)
    if not method.takes_styles:
        raise CycleStyleError(f"{_a(method)} has to be trained first; name its checkpoint with --ckpt_path")
    return method


def _use(engine: Engine, settings: Prediction) -> None:
    """Give the engine its direction and its styles."""
    method = engine.method
    if settings.steady and not has_optical_flow():
        raise CycleStyleError("--steady needs OpenCV: pip install opencv-python-headless")
    regions = len(settings.mask or [])
    if regions > 1 and not method.takes_masks:
        raise CycleStyleError(f"{_a(method)} has no styles in regions, and takes one mask, got {regions}")
    if regions > 1 and settings.style_weights:
        raise CycleStyleError("--style_weights mixes styles, several masks give each its region; leave one out")
    if settings.style_weights and not (method.takes_styles or method.style_names):
        raise CycleStyleError(f"{_a(method)} mixes no styles; leave --style_weights out")
    count = use_styles(method, settings.style or [], settings.style_weights)
    if regions > 1 and regions != count:
        raise CycleStyleError(f"{regions} masks for {count} styles; give one mask for each style")
    _choose_direction(engine, settings)
    source, target = engine.ranges
    if settings.mask and source != target:
        raise CycleStyleError(
            f"--mask keeps the input, whose values are {source or 'colours'}, but those of the translation are "
            f"{target or 'colours'}; leave it out"
        )
    if settings.dtype is not None:
        if source is None and target is None:
            raise CycleStyleError("--dtype is for networks that translate numbers; this one translates colours")
        if target is not None and not target.fits(settings.dtype):
            able = ", ".join(one for one in DTYPES if target.fits(one))
            raise CycleStyleError(f"{settings.dtype} cannot hold the values {target}; choose one of {able}")


def _choose_direction(engine: Engine, settings: Prediction) -> None:
    method = engine.method
    if settings.direction is not None:
        known = () if method.takes_styles else method.directions
        if settings.direction not in known:
            ways = f"translates {' and '.join(known)}" if known else "has one direction"
            raise CycleStyleError(f"{_a(method)} {ways}; leave --direction {settings.direction} out")
        engine.direction = settings.direction
    elif settings.ckpt_path is not None and (Path(settings.ckpt_path) / CONFIG).is_file():
        engine.direction = saved_direction(Path(settings.ckpt_path))


def _say(engine: Engine, settings: Prediction) -> None:
    """Say what the user may not expect."""
    names = engine.method.style_names
    if names:
        print(f"style: {', '.join(settings.style or names[:1])} (of {', '.join(names)})")
    if engine.finishing.work_size is not None and settings.work_size is None:
        print(f"painting at {engine.finishing.work_size} pixels; --work_size 0 paints photos at their own size")

    count = torch.cuda.device_count() if engine.device.type == "cuda" else 0
    if count > 1 and settings.devices == Rank.of_environment().count == 1 and settings.device is None:
        print(f"using 1 of {count} GPUs; --devices {count} shares the files among all of them")


def _a(method: Method) -> str:
    return f"{'an' if method.name[0] in 'AEIOU' else 'a'} {method.name}"


def _parser(words: Sequence[str]) -> Parser:
    parser = Parser(prog="cyclestyle predict", description="Translate images, videos and folders of them.")
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="a YAML file with any of these options")
    add_parameters(parser, Prediction)
    parser.add_class_arguments(Tuning, "tune", instantiate=False)
    configs = [yaml.safe_load(path.read_text()) or {} for path in config_files(words)]
    asked = any(word.startswith(("--model", "--help", "-h", "--print_config")) for word in words)
    if asked or any("model" in config for config in configs):
        from cyclestyle.tasks import Task  # imports Lightning, which takes seconds

        parser.add_subclass_arguments((Task, *PLAIN.values()), "model", required=False, fail_untyped=False)
        parser.set_defaults(stored_model(words))
    return parser


def _renamed(words: Sequence[str]) -> list[str]:
    """Replace options of earlier versions, and say so."""
    result: list[str] = []
    for word in words:
        option, equals, value = word.partition("=")
        new = RENAMED.get(option.removeprefix("--")) if option.startswith("--") else None
        if new is not None:
            print(f"cyclestyle: {option} is --{new} now", file=sys.stderr)
            result += [f"--{new}", *([value] if equals else [])]
        else:
            result.append(word)
    while "--progress" in result and result[result.index("--progress") + 1 :][:1] in (["true"], ["false"]):
        position = result.index("--progress")
        result[position : position + 2] = [] if result[position + 1] == "true" else ["--no_progress"]
    return result


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
    path = resolve_checkpoint(named[-1]) if named else Path()
    if not named or not path.exists():
        return {}
    try:
        contents, _ = read_weights_file(path, "auto")
    except CheckpointError:  # said when it is loaded
        return {}
    if contents.task in PLAIN:
        return {
            "model": {"class_path": f"cyclestyle.translation.plain.{contents.task}", "init_args": contents.settings}
        }
    import cyclestyle.tasks

    if not hasattr(cyclestyle.tasks, contents.task):
        return {}  # --model has to name it
    return {"model": {"class_path": f"cyclestyle.tasks.{contents.task}", "init_args": contents.settings}}


def _report(
    plan: Plan, report: Report, settings: Prediction, shown: str | None, range: ValueRange | None
) -> tuple[dict[str, Any], int]:
    """Print what was done, and return it with the status."""
    failures = {**{str(path): text for path, text in plan.failures.items()}, **report.failures}
    kept = f", {plan.kept} kept that were there already (--overwrite translates them again)" if plan.kept else ""
    print(f"{number_of(report.written, _unit(plan))} written to {shown}{kept}")
    if plan.others:
        heic = any(path.suffix.lower() in HEIC for path in plan.others)
        hint = "; `pip install pillow-heif` adds HEIC" if heic else ""
        if any(map(is_video, plan.others)):
            hint += "; `pip install av` adds videos"
        print(f"{number_of(len(plan.others), 'file')} left out that are no images: {name_some(plan.others)}{hint}")
    if report.cut:
        print(
            f"cyclestyle: warning: values outside of {range or '0 to 1 (0 to 65535 for integers)'} "
            f"{'became black or white' if range is None else 'were clipped'} in "
            f"{number_of(len(report.cut), 'file')}: {name_some([Path(path) for path in report.cut])}",
            file=sys.stderr,
        )
    results = [{"input": str(job.source), "output": str(job.target)} for job in plan.jobs]
    done = {
        "checkpoint": settings.ckpt_path,
        "results": [one for one in results if one["input"] not in failures],
        "kept": plan.kept,
        "failures": failures,
    }
    if not failures:
        return done, 0
    print(f"cyclestyle: error: {number_of(len(failures), _unit(plan))} failed:", file=sys.stderr)
    for text in failures.values():
        print(f"  {text}", file=sys.stderr)
    return done, 1
