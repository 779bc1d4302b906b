"""Which checkpoint a command starts from, and whether its settings and those of the config agree."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_only

from cyclestyle.commands.line.parser import import_class
from cyclestyle.errors import CycleStyleError
from cyclestyle.tasks.base import Task, task_name
from cyclestyle.training.callbacks.last_checkpoint import newest_checkpoint
from cyclestyle.weights.checkpoints import read_checkpoint, run_checkpoint
from cyclestyle.weights.upgrade import upgrade

MEASURED = ("resize", "load_size", "crop_size", "channels_A", "channels_B", "range_A", "range_B", "show_A", "show_B")
"""Settings of the data that what is measured depends on."""

_NO_EFFECT = ("workers",)  # settings of the data that change nothing in the results


@rank_zero_only
def warn(message: str) -> None:
    """Print a warning once, however many processes there are."""
    print(f"cyclestyle: warning: {message}", file=sys.stderr)


@rank_zero_only
def _say(message: str) -> None:
    print(message, flush=True)


def find_checkpoint(named: str | Path | None, run: Path, *, required: bool) -> tuple[Path, dict[str, Any]] | None:
    """Return the checkpoint that a user means, and its content.

    Args:
        named: a file, the folder of a run, `last`, `best`, or None.
        run: the folder of the run.
        required: whether the command needs one; without a name, it is the best of the run, else its last.

    Raises:
        CycleStyleError: there is none, it is damaged, or it holds bare weights.
    """
    folder = run / "checkpoints"
    if named == "last":
        newest = newest_checkpoint(folder, warn)
        if newest is None and required:
            raise CycleStyleError(f"{folder} holds no checkpoint; train first, or name one with --ckpt_path")
        return None if newest is None else (newest[0], upgrade(newest[1]))
    if named is None and not required:
        return None
    path = run if named is None else folder / "best.ckpt" if named == "best" else Path(named).expanduser()
    path = run_checkpoint(path) if named is None or path.is_dir() else path
    checkpoint = upgrade(read_checkpoint(path))
    if "state_dict" not in checkpoint:
        raise CycleStyleError(f"{path} is not a checkpoint of a training run; only predict takes bare weights")
    return path, checkpoint


def check_start(path: Path | None, run: Path) -> None:
    """Check that `init_from` and a checkpoint are not named together. A run that resumes itself ignores `init_from`.

    Args:
        path: the checkpoint that `fit` continues from, if any.
        run: the folder of the run.

    Raises:
        CycleStyleError: the checkpoint is not one of this run.
    """
    if path is not None and path.resolve().parent != (run / "checkpoints").resolve():
        raise CycleStyleError(
            f"--init_from starts a new run, --ckpt_path {path} continues another one; leave one of them out"
        )


def check_checkpoint(path: Path, checkpoint: Mapping[str, Any], config: Any) -> tuple[int, int]:
    """Check that a checkpoint is of the task and of the networks in the config; name other changed settings.

    Args:
        path: the checkpoint that `fit` continues from.
        checkpoint: its content.
        config: the config, with `model` and `data`.

    Returns:
        The epochs and steps of the checkpoint.

    Raises:
        CycleStyleError: the checkpoint is of another task or of other networks.
    """
    _say(f"continuing {path} (epoch {checkpoint['epoch'] + 1}, step {checkpoint['global_step']})")
    task: type[Task] = import_class(config.model["class_path"])
    stored = checkpoint.get("cyclestyle_task", task_name(task))
    if stored != task_name(task):
        raise CycleStyleError(f"{path} is a checkpoint of {stored}, but the config says {task_name(task)}")
    changed = _changed(checkpoint.get("hyper_parameters", {}), config.model.get("init_args", {}))
    changed = {
        name: (old, new) for name, (old, new) in changed.items() if name not in task.filled_in or new is not None
    }
    for name, (old, new) in changed.items():
        if name in task.architecture:
            raise CycleStyleError(
                f"{path} was trained with model.{name} {old}, but the config says {new}; "
                "use the config.yaml of the run, or start again in another folder"
            )
        warn(f"continuing with model.{name} {new}; {path} was trained with {old}")
    for name, (old, new) in _changed(data_settings(checkpoint), config.data.get("init_args", {})).items():
        if name not in _NO_EFFECT:
            warn(f"continuing with data.{name} {new}; {path} was trained with {old}")
    return checkpoint["epoch"] + 1, checkpoint["global_step"]


def measure_as_trained(path: Path, checkpoint: Mapping[str, Any], data: Any, words: Sequence[str]) -> None:
    """Prepare images for `test` and `validate` as in training, unless the command line says otherwise.

    Args:
        path: the checkpoint.
        checkpoint: its content.
        data: the datamodule in the config, changed in place.
        words: the words of the command line.
    """
    _say(f"measuring {path} (epoch {checkpoint['epoch'] + 1}, step {checkpoint['global_step']})")
    stored, settings = data_settings(checkpoint), data.get("init_args", {})
    given = {word.lstrip("-").partition("=")[0].rpartition(".")[2] for word in words if word.startswith("--data.")}
    for name, (old, new) in _changed(stored, settings).items():
        if name in MEASURED and name in given:
            warn(f"measuring with data.{name} {new}; {path} was trained with {old}")
        elif name in MEASURED:
            settings[name] = old


def data_settings(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the data in a checkpoint; none in those of versions before 0.2."""
    stored: dict[str, Any] = checkpoint.get("datamodule_hyper_parameters", {})
    return stored


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, as old and new value; a tuple is equal to a list, as which YAML reads it."""

    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value

    return {name: (old[name], new[name]) for name in old if name in new and plain(old[name]) != plain(new[name])}
