"""From the name of a checkpoint to the method that translates with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclestyle.errors import CheckpointError
from cyclestyle.networks.method import Direction, Method
from cyclestyle.translation.plain import Exported, GeneratorOnly, Generators, ManyStyles
from cyclestyle.weights.contents import Averaging, put_weights, read_weights_file
from cyclestyle.weights.foreign import Contents
from cyclestyle.weights.resolve import resolve_checkpoint

PLAIN: dict[str, type[Method]] = {"Exported": Exported, "GeneratorOnly": GeneratorOnly}
"""Methods that are no tasks, by their names in `Contents`."""
TWO_WAYS: dict[Direction, str] = {"AtoB": "G_AB", "BtoA": "G_BA"}
GENERATORS: dict[str, Mapping[Direction, str]] = {
    "CycleGAN": TWO_WAYS,
    "DCLGAN": TWO_WAYS,
    "CUT": {"AtoB": "G_AB"},
    "ContentGAN": {"AtoB": "G_AB"},
}
"""Tasks that translate with generators alone, and the submodule for each direction."""


def open_method(
    path: str | Path, *, averaging: Averaging = "auto", method: type[Method] | None = None, **changes: Any
) -> Method:
    """Return the method of a checkpoint, with its weights.

    What generators or a network of many styles do is done by plain modules, which are at hand in a fraction of the
    time that importing Lightning takes. Everything else is a task; see `cyclestyle.tasks.load`.

    Args:
        path: a checkpoint, the folder of a run or of the original CycleGAN, a file of `cyclestyle export`, a file of
            another program, or a name such as `official:style_monet`; see `cyclestyle.weights.resolve`.
        averaging: `ema` takes the averaged weights of a run, `raw` those of its last step, and `auto` the averaged
            ones where there are any.
        method: the class, for methods that are not part of this package.
        changes: constructor arguments that replace those of the checkpoint.

    Raises:
        CheckpointError: the file is missing, damaged, of an unknown kind or of another task, its weights do not fit
            the changed arguments, or it has no averaged weights.
        ValueError: `averaging` or a changed argument is out of its range.
    """
    path = resolve_checkpoint(path)
    contents, own = read_weights_file(path, averaging)
    built = _plain(contents, changes, path) if method is None or contents.task in PLAIN else None
    if built is None:
        from cyclestyle.tasks.load import build  # imports Lightning, which takes seconds

        built = build(contents, path, method if own else None, changes)
    return built.eval().requires_grad_(False)


def _plain(contents: Contents, changes: Mapping[str, Any], path: Path) -> Method | None:
    """The plain module that does what a checkpoint does; None if there is none."""
    if contents.task in PLAIN:
        try:
            built = PLAIN[contents.task](**{**contents.settings, **changes})
        except TypeError as error:
            raise CheckpointError(f"{path} holds a {contents.task}: {error}") from error
    elif changes:  # which the task checks
        return None
    elif contents.task in GENERATORS and "generator" in contents.settings:
        built = Generators(contents.task, contents.settings, GENERATORS[contents.task])
    elif contents.task == "Johnson" and contents.settings.get("style_names") and contents.settings.get("output"):
        built = ManyStyles(contents.settings)
    else:
        return None
    names = tuple(f"{name}." for name, _ in built.named_children())
    weights = {key: value for key, value in contents.weights.items() if key.startswith(names)}
    put_weights(weights, built, path, contents.task)
    return built
