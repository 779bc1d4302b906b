"""From a file to a task: the only way in which trained weights become a method."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from cyclestyle.errors import CheckpointError
from cyclestyle.tasks.base import Task, task_name
from cyclestyle.weights.checkpoints import read_checkpoint
from cyclestyle.weights.exported import is_exported
from cyclestyle.weights.exported.weights_file import read_weights
from cyclestyle.weights.foreign import Found, find, find_in_folder
from cyclestyle.weights.located import located
from cyclestyle.weights.upgrade import upgrade

Averaging = Literal["auto", "ema", "raw"]


def load(path: str | Path, *, averaging: Averaging = "auto", task: type[Task] | None = None, **changes: Any) -> Task:
    """Build the task of a checkpoint, with its weights.

    The checkpoint of a run knows its task and the constructor arguments. Files of other programs are recognised by
    the table in `cyclestyle.weights.foreign`.

    Args:
        path: a checkpoint, the folder of a run or of the original CycleGAN, a file of `cyclestyle export`, a file of
            another program, or a name such as `official:style_monet`; see `cyclestyle.weights.located`.
        averaging: `ema` takes the averaged weights of a run, `raw` those of its last step, and `auto` the averaged
            ones where there are any.
        task: the class, for tasks that are not part of this package.
        changes: constructor arguments that replace those of the checkpoint.

    Raises:
        CheckpointError: the file is missing, damaged, of an unknown kind or of another task, its weights do not fit
            the changed arguments, or it has no averaged weights.
        ValueError: `averaging` or a changed argument is out of its range.
    """
    path = located(path)
    found, own = read(path, averaging)
    chosen = named_task(found.task, path, task if own else None)
    built = _build(chosen, {**found.settings, **changes}, path)
    _put(found, built, path)
    return built.eval()


def start_from(task: Task, path: str | Path) -> None:
    """Give a task the weights of a checkpoint, for a new run: the averaged ones where there are any.

    Nothing else is taken from the checkpoint: no optimiser, no settings, no random state.

    Args:
        task: the task of the new run.
        path: a checkpoint, the folder of a run, or a folder of the original CycleGAN implementation with
            `latest_net_G_A.pth` and the other three files.

    Raises:
        CheckpointError: the file is missing, damaged or of another task, or its networks are not those of the task.
    """
    path = located(path)
    found, own = read(path, "auto")
    name = task_name(type(task))
    if found.task != name:
        hint = "; name the folder of its four files" if found.task == "GeneratorOnly" else ""
        raise CheckpointError(f"{path} holds a {found.task}, but the config says {name}{hint}")
    expected = {key: value.shape for key, value in task.state_dict().items()}
    shapes = {key: value.shape for key, value in found.weights.items()}
    fits = shapes == {key: shape for key, shape in expected.items() if key in shapes or not found.translating_only}
    ours = stored_settings({"hyper_parameters": dict(task.hparams)})
    theirs = {"residual": 0.0, **found.settings}  # which files from before there was such a setting do not name
    for setting in type(task).architecture:
        if setting not in theirs or setting not in ours or theirs[setting] == ours[setting]:
            continue
        if setting == "depth" and fits:  # null, and the number in the generator's name
            continue
        # The names of foreign networks are only inferred from their weights, which do not show "residual".
        if own or not fits or setting == "residual":
            raise CheckpointError(
                f"the networks of {path} have model.{setting} {theirs[setting]}, but the config says "
                f"{ours[setting]}; set both to the same"
            )
    _put(found, task, path)


def named_task(name: str, path: Path, given: type[Task] | None = None) -> type[Task]:
    """Return the class that a checkpoint names.

    Modules outside this package are not imported, because that would let a checkpoint run code: `given` must be
    their class.

    Raises:
        CheckpointError: the task is unknown, or `given` is another one.
    """
    if given is not None:
        if task_name(given) != name:
            raise CheckpointError(f"{path} is a checkpoint of {name}; expected one of {task_name(given)}")
        return given
    found = getattr(importlib.import_module("cyclestyle.tasks"), name, None)
    if isinstance(found, type) and issubclass(found, Task):
        return found
    raise CheckpointError(f"{path} is a checkpoint of {name}, which is not part of cyclestyle; add --model {name}")


def stored_settings(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor arguments in a checkpoint, without what Lightning keeps beside them."""
    return {key: value for key, value in checkpoint.get("hyper_parameters", {}).items() if not key.startswith("_")}


def translating(task: Task) -> dict[str, Tensor]:
    """Return the weights of a task that translating needs: those of its averaged modules."""
    names = tuple(f"{name}." for name in task.averaged_modules())
    return {key: value for key, value in task.state_dict().items() if key.startswith(names)}


def read(path: Path, averaging: Averaging) -> tuple[Found, bool]:
    """Return what a file or folder holds, and whether it is of this package."""
    if averaging not in get_args(Averaging):
        raise ValueError(f"averaging must be auto, ema or raw, got {averaging!r}")
    if path.is_dir() and (folder := find_in_folder(path)) is not None:
        return folder, False
    if is_exported(path):
        return Found(task="Exported", settings={"file": str(path)}, weights={}), True
    if path.suffix.lower() == ".safetensors" or (path / "model.safetensors").is_file():
        return _read_safetensors(path / "model.safetensors" if path.is_dir() else path)
    checkpoint = upgrade(read_checkpoint(path))
    if averaging == "ema" and "ema" not in checkpoint:
        raise CheckpointError(f"{path} holds no averaged weights; train with --ema.decay 0.999, or take the raw ones")
    if "cyclestyle_task" not in checkpoint:
        return find(checkpoint, path), False
    average = {} if averaging == "raw" else checkpoint.get("ema", {})
    weights = {**checkpoint["state_dict"], **average}
    return Found(task=checkpoint["cyclestyle_task"], settings=stored_settings(checkpoint), weights=weights), True


def _read_safetensors(path: Path) -> tuple[Found, bool]:
    """What a file of `export --format safetensors`, or of another program, holds."""
    description, weights = read_weights(path)
    if description is None:
        return find(weights, path), False
    found = Found(task=description.method, settings=description.settings, weights=weights, translating_only=True)
    return found, True


def _build(chosen: type[Task], settings: Mapping[str, Any], path: Path) -> Task:
    try:
        return chosen(**settings)
    except TypeError as error:
        raise CheckpointError(f"{path} was written by another version of {chosen.__name__}: {error}") from error


def _put(found: Found, task: Task, path: Path) -> None:
    """Load weights into a task whose names and shapes must be the same."""
    name, architecture, weights = type(task).__name__, type(task).architecture, found.weights
    if found.translating_only:  # the others, such as discriminators, stay as they are
        own = task.state_dict()
        weights = {**{key: own[key] for key in own.keys() - translating(task).keys()}, **weights}
    expected = {key: value.shape for key, value in task.state_dict().items()}
    given = {key: value.shape for key, value in weights.items()}
    if differing := sorted(key for key in given.keys() | expected.keys() if given.get(key) != expected.get(key)):
        remedy = f"; leave changes of {', '.join(architecture)} out" if architecture else ""
        raise CheckpointError(
            f"the weights of {path} do not fit {name}: {differing[0]} is missing, unexpected or of another size{remedy}"
        )
    task.load_state_dict(weights)
