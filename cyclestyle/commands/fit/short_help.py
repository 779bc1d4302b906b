"""The options of training that matter, on one screen."""

import inspect
from collections.abc import Iterable
from typing import Any

import cyclestyle.tasks
from cyclestyle.commands.line.parser import parameter_descriptions
from cyclestyle.data import Photos, UnpairedImages
from cyclestyle.tasks import CycleGAN, Task
from cyclestyle.training import EMAGenerators, Evaluation, LastCheckpoint, SampleGrid

_CLASSES: dict[str, type] = {
    "model": CycleGAN,
    "data": UnpairedImages,
    "checkpoint": LastCheckpoint,
    "ema": EMAGenerators,
    "evaluation": Evaluation,
    "grid": SampleGrid,
}
"""Groups of options, and the class whose arguments they are."""

_TEXT = {
    "config": "a name that `cyclestyle configs` lists, or a file; repeat it to stack configs",
    "ckpt_path": "last resumes the run; or a checkpoint, or the folder of a run",
    "init_from": "start a new run from the weights of another one, or of the original's files",
    "init_style": "with a many-styles network in init_from: the style that a generator without norms begins with",
    "trainer.default_root_dir": "folder of the run (default: runs/cyclestyle)",
    "trainer.max_epochs": "epochs (default: those of the schedule)",
    "trainer.devices": "number of GPUs, or of processes on a CPU",
    "trainer.precision": "32-true, bf16-mixed or 16-mixed",
}
"""Descriptions of options that are not arguments of a class above."""

_SHOWN = {
    "fit": (
        "config, ckpt_path, init_from, data.root, data.load_size, data.crop_size, data.batch_size, data.workers, "
        "model.generator, model.ngf, model.lambda_A, model.lambda_identity, model.lr, model.constant_epochs, "
        "model.decay_epochs, trainer.default_root_dir, trainer.devices, trainer.precision, ema.decay, "
        "evaluation.extractor, grid.every_n_steps"
    ),
    "test": "config, ckpt_path, data.root, data.crop_size, evaluation.extractor, evaluation.weights, "
    "trainer.default_root_dir",
}
_SHOWN["validate"] = _SHOWN["test"]

_EXAMPLES = {
    "fit": (
        "Train from a config. Examples:",
        "  cyclestyle fit --config cyclegan --data.root datasets/monet2photo --trainer.default_root_dir runs/monet",
        "  cyclestyle fit --config runs/monet/config.yaml --ckpt_path last      # resume",
    ),
    "test": (
        "Measure a run on its test images, and write RUN/test/report.html. Example:",
        "  cyclestyle test --config runs/monet/config.yaml",
    ),
    "validate": (
        "Measure a run on its test images, as during training. Example:",
        "  cyclestyle validate --config runs/monet/config.yaml",
    ),
}


def short_help(name: str, known: Iterable[str]) -> str:
    """Return the help of `fit`, `test` or `validate`, without the options that few runs need.

    Args:
        name: the command.
        known: all options of the command, such as `model.lr`.
    """
    lines = [f"usage: cyclestyle {name} --config NAME [--OPTION VALUE ...]", "", *_EXAMPLES[name], ""]
    available = set(known)
    for option in _SHOWN[name].split(", "):
        if option in available or option.partition(".")[0] in ("model", "data"):
            lines.append(f"  --{option:26} {_describe(option)}")
    lines += ["", f"`cyclestyle {name} --help all` lists every option, `--model.help CycleGAN` those of a method."]
    return "\n".join(lines)


def subclass_options() -> list[str]:
    """Return the options of all methods and datamodules."""
    methods = [one for one in vars(cyclestyle.tasks).values() if _is_task(one)]
    groups = [("model", methods), ("data", [UnpairedImages, Photos])]
    return sorted({f"{group}.{name}" for group, classes in groups for one in classes for name in _arguments(one)})


def _is_task(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Task)


def _arguments(one: type) -> dict[str, tuple[type, inspect.Parameter]]:
    """The constructor arguments of a class and of its bases, each with the class that has it."""
    found: dict[str, tuple[type, inspect.Parameter]] = {}
    for owner in one.__mro__:
        if "__init__" in vars(owner) and owner.__module__.startswith("cyclestyle."):
            for name, parameter in inspect.signature(owner).parameters.items():
                if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                    found.setdefault(name, (owner, parameter))
    return found


def _describe(option: str) -> str:
    if option in _TEXT:
        return _TEXT[option]
    group, _, name = option.partition(".")
    owner, parameter = _arguments(_CLASSES[group])[name]
    text = parameter_descriptions(owner).get(name, "").partition(";")[0].partition(". ")[0].rstrip(".")
    default = parameter.default
    shown = "" if default in (inspect.Parameter.empty, None) else f" (default: {default})"
    return f"{text}{shown}"
