"""From a file to a task: the only way in which trained weights become a method that can be trained on."""

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_info

from cyclestyle.errors import CheckpointError
from cyclestyle.networks.method import Direction
from cyclestyle.tasks.base import Task, task_name
from cyclestyle.weights.contents import Averaging, put_weights, read_weights_file, stored_settings
from cyclestyle.weights.foreign import Contents
from cyclestyle.weights.resolve import resolve_checkpoint


def load(path: str | Path, *, averaging: Averaging = "auto", task: type[Task] | None = None, **changes: Any) -> Task:
    """Build the task of a checkpoint, with its weights.

    `open_method` in `cyclestyle.translation.opening`, whose arguments are the same, opens what only translates too, and
    needs no Lightning where a plain module does the same.

    Args:
        path: a checkpoint, a folder or a name.
        averaging: whose weights: `ema`, `raw` or `auto`.
        task: the class, for tasks that are not part of this package.
        changes: constructor arguments that replace those of the checkpoint.

    Raises:
        CheckpointError: the file cannot be loaded, or holds what cannot be trained.
        ValueError: `averaging` or a changed argument is out of its range.
    """
    path = resolve_checkpoint(path)
    contents, own = read_weights_file(path, averaging)
    return build(contents, path, task if own else None, changes)


def build(contents: Contents, path: Path, task: type[Any] | None, changes: Mapping[str, Any]) -> Task:
    """Build a task from what a file holds; see `load`.

    Args:
        contents: what it holds.
        path: the file, for messages.
        task: the class, for tasks that are not part of this package.
        changes: constructor arguments that replace those of the file.

    Raises:
        CheckpointError: the task is unknown, or the weights do not fit.
    """
    chosen = named_task(contents.task, path, task)
    try:
        built = chosen(**{**contents.settings, **changes})
    except TypeError as error:
        raise CheckpointError(f"{path} was written by another version of {chosen.__name__}: {error}") from error
    _put(contents, built, path)
    return built.eval()


def start_from(task: Task, path: str | Path) -> None:
    """Give a task the weights of a checkpoint, for a new run: the averaged ones where there are any.

    Nothing else is taken from the checkpoint: no optimiser, no settings, no random state. A generator alone becomes
    that of the direction A to B, or B to A if its file is called so, as in `latest_net_G_B.pth`; the others start anew.

    Args:
        task: the task of the new run.
        path: a checkpoint, the folder of a run, or a folder of the original CycleGAN implementation with
            `latest_net_G_A.pth` and the other three files, or one generator of another program.

    Raises:
        CheckpointError: the file is missing, damaged or of another task, or its networks are not those of the task.
    """
    path = resolve_checkpoint(path)
    start_with(task, *read_weights_file(path, "auto"), path)


def start_with(task: Task, contents: Contents, own: bool, path: Path) -> None:
    """Give a task the weights that a checkpoint holds; see `start_from`.

    Args:
        task: the task of the new run.
        contents: what the checkpoint holds.
        own: whether its settings are written in it, and not inferred from the weights.
        path: its file, for messages.

    Raises:
        CheckpointError: it is of another task, or its networks are not those of the task.
    """
    name = task_name(type(task))
    alone = contents.task == "GeneratorOnly" and "generator" in type(task).architecture
    if alone:
        contents = _for_generator(contents, task, path)
    if contents.task != name:
        style = "; name one of its styles with --init_style" if contents.settings.get("style_names") else ""
        raise CheckpointError(f"{path} holds a {contents.task}, but the config says {name}{style}")
    expected = {key: value.shape for key, value in task.state_dict().items()}
    shapes = {key: value.shape for key, value in contents.weights.items()}
    partial = contents.translating_only or alone
    fits = shapes == {key: shape for key, shape in expected.items() if key in shapes or not partial}
    ours = stored_settings({"hyper_parameters": dict(task.hparams)})
    # Files from before there were such settings do not name them.
    theirs = {"residual": 0.0, "norm": "instance", **contents.settings}
    for setting in type(task).architecture:
        if setting not in theirs or setting not in ours or theirs[setting] == ours[setting]:
            continue
        if setting == "depth" and fits:  # null, and the number in the generator's name
            continue
        if setting == "generator" and not own and theirs.get("depth") == ours.get("depth"):  # inferred from the depth
            continue
        # The names of foreign networks are only inferred from their weights, which do not show "residual" and "norm".
        if own or not fits or setting in ("residual", "norm"):
            raise CheckpointError(
                f"the networks of {path} have model.{setting} {theirs[setting]}, but the config says "
                f"{ours[setting]}; set both to the same"
            )
    if not alone:
        _put(contents, task, path)
        return
    _put(replace(contents, weights={**task.state_dict(), **contents.weights}), task, path)
    place = next(iter(shapes)).partition(".")[0]
    rank_zero_info(f"{place} starts with the generator of {path.name}, all other networks start anew")


def _for_generator(contents: Contents, task: Task, path: Path) -> Contents:
    """Turn a generator alone into weights of a task: of its generator of the same direction.

    Raises:
        CheckpointError: it is another network.
    """
    wanted: Direction = "BtoA" if path.stem.endswith("net_G_B") else "AtoB"
    network = task.exported(wanted if wanted in task.directions else "AtoB").network
    place = next(name for name, module in task.named_modules() if module is network)
    weights = {key.replace("generator.", f"{place}.", 1): value for key, value in contents.weights.items()}
    return Contents(task=task_name(type(task)), settings=contents.settings, weights=weights)


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
    named = getattr(importlib.import_module("cyclestyle.tasks"), name, None)
    if isinstance(named, type) and issubclass(named, Task):
        return named
    if name in ("GeneratorOnly", "Exported"):
        raise CheckpointError(f"{path} holds what only translates ({name}), and cannot be trained; name a checkpoint")
    raise CheckpointError(f"{path} is a checkpoint of {name}, which is not part of cyclestyle; add --model {name}")


def _put(contents: Contents, task: Task, path: Path) -> None:
    """Load the weights of a file into its task."""
    weights, architecture = contents.weights, type(task).architecture
    if contents.translating_only:  # the others, such as discriminators, stay as they are
        own = task.state_dict()
        weights = {**{key: own[key] for key in own.keys() - task.translating_weights().keys()}, **weights}
    remedy = f"; leave changes of {', '.join(architecture)} out" if architecture else ""
    put_weights(weights, task, path, type(task).__name__, remedy)
