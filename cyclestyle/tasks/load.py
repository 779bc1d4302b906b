"""From a file to a task: the only way in which trained weights become a method."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from cyclestyle.errors import CheckpointError
from cyclestyle.tasks.base import Task, task_name
from cyclestyle.weights.checkpoints import read_checkpoint
from cyclestyle.weights.foreign import find
from cyclestyle.weights.upgrade import upgrade

Averaging = Literal["auto", "ema", "raw"]


def load(path: str | Path, *, averaging: Averaging = "auto", task: type[Task] | None = None, **changes: Any) -> Task:
    """Build the task of a checkpoint, with its weights.

    The checkpoint of a run knows its task and the constructor arguments. Files of other programs are recognised by
    the table in `cyclestyle.weights.foreign`.

    Args:
        path: a checkpoint, or a file of another program.
        averaging: `ema` takes the averaged weights of a run, `raw` those of its last step, and `auto` the averaged
            ones where there are any.
        task: the class, for tasks that are not part of this package.
        changes: constructor arguments that replace those of the checkpoint.

    Raises:
        CheckpointError: the file is missing, damaged, of an unknown kind or of another task, its weights do not fit
            the changed arguments, or it has no averaged weights.
        ValueError: `averaging` or a changed argument is out of its range.
    """
    if averaging not in get_args(Averaging):
        raise ValueError(f"averaging must be auto, ema or raw, got {averaging!r}")
    path = Path(path)
    checkpoint = upgrade(read_checkpoint(path))
    if averaging == "ema" and "ema" not in checkpoint:
        raise CheckpointError(f"{path} holds no averaged weights; train with --ema.decay 0.999, or take the raw ones")
    if "cyclestyle_task" not in checkpoint:
        if "state_dict" in checkpoint:
            raise CheckpointError(f"{path} is a checkpoint of another program; expected one of cyclestyle")
        found = find(checkpoint, path)
        return _build(named_task(found.task, path), {**found.settings, **changes}, found.weights, path)
    chosen = named_task(checkpoint["cyclestyle_task"], path, task)
    average = {} if averaging == "raw" else checkpoint.get("ema", {})
    settings = {**stored_settings(checkpoint), **changes}
    return _build(chosen, settings, {**checkpoint["state_dict"], **average}, path)


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


def _build(chosen: type[Task], settings: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path) -> Task:
    try:
        task = chosen(**settings)
    except TypeError as error:
        raise CheckpointError(f"{path} was written by another version of {chosen.__name__}: {error}") from error
    expected = {key: value.shape for key, value in task.state_dict().items()}
    given = {key: value.shape for key, value in weights.items()}
    if differing := sorted(key for key in given.keys() | expected.keys() if given.get(key) != expected.get(key)):
        remedy = f"; leave changes of {', '.join(chosen.architecture)} out" if chosen.architecture else ""
        raise CheckpointError(
            f"the weights of {path} do not fit {chosen.__name__}: {differing[0]} is missing, unexpected or of another "
            f"size{remedy}"
        )
    task.load_state_dict(weights)
    return task.eval()
