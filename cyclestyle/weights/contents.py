"""Reading files and folders of weights, of this package and of other programs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn

from cyclestyle.errors import CheckpointError
from cyclestyle.weights.checkpoints import read_checkpoint
from cyclestyle.weights.exported import is_exported
from cyclestyle.weights.exported.weights_file import read_weights
from cyclestyle.weights.foreign import Contents, find, find_in_folder
from cyclestyle.weights.upgrade import current_settings, upgrade

Averaging = Literal["auto", "ema", "raw"]


def read_weights_file(path: Path, averaging: Averaging) -> tuple[Contents, bool]:
    """Return what a file or folder holds, and whether it is of this package.

    Args:
        path: the file or folder.
        averaging: `ema` takes the averaged weights of a run, `raw` those of its last step, and `auto` the averaged
            ones where there are any.

    Raises:
        CheckpointError: the file is missing, damaged or of an unknown kind, or it has no averaged weights.
        ValueError: `averaging` is unknown.
    """
    if averaging not in get_args(Averaging):
        raise ValueError(f"averaging must be auto, ema or raw, got {averaging!r}")
    if path.is_dir() and (folder := find_in_folder(path)) is not None:
        return folder, False
    if is_exported(path):
        return Contents(task="Exported", settings={"file": str(path)}, weights={}), True
    if path.suffix.lower() == ".safetensors" or (path / "model.safetensors").is_file():
        return _read_safetensors(path / "model.safetensors" if path.is_dir() else path)
    checkpoint = upgrade(read_checkpoint(path))
    if averaging == "ema" and "ema" not in checkpoint:
        raise CheckpointError(f"{path} holds no averaged weights; train with --ema.decay 0.999, or take the raw ones")
    if "cyclestyle_task" not in checkpoint:
        return find(checkpoint, path), False
    average = {} if averaging == "raw" else checkpoint.get("ema", {})
    weights = {**checkpoint["state_dict"], **average}
    return Contents(task=checkpoint["cyclestyle_task"], settings=stored_settings(checkpoint), weights=weights), True


def stored_settings(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor arguments in a checkpoint, without what Lightning keeps beside them."""
    return {key: value for key, value in checkpoint.get("hyper_parameters", {}).items() if not key.startswith("_")}


def put_weights(weights: Mapping[str, Tensor], module: nn.Module, path: Path, name: str, remedy: str = "") -> None:
    """Load weights into a module whose names and shapes must be the same.

    Args:
        weights: of the module.
        module: the module.
        path: where they are from, for messages.
        name: of the module, for messages.
        remedy: what the user can do if they do not fit.

    Raises:
        CheckpointError: they do not fit.
    """
    expected = {key: value.shape for key, value in module.state_dict().items()}
    given = {key: value.shape for key, value in weights.items()}
    if differing := sorted(key for key in given.keys() | expected.keys() if given.get(key) != expected.get(key)):
        raise CheckpointError(
            f"the weights of {path} do not fit {name}: {differing[0]} is missing, unexpected or of another size{remedy}"
        )
    module.load_state_dict(weights)


def _read_safetensors(path: Path) -> tuple[Contents, bool]:
    """What a file of `export --format safetensors`, or of another program, holds."""
    description, weights = read_weights(path)
    if description is None:
        return find(weights, path), False
    settings = current_settings(description.method, description.settings)
    return Contents(task=description.method, settings=settings, weights=weights, translating_only=True), True
