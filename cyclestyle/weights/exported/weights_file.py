"""Files of safetensors: the weights that translating needs, and the description of their task."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cyclestyle.errors import CheckpointError, optional
from cyclestyle.weights.exported.description import KEY, Description


def write_weights(weights: Mapping[str, Tensor], description: Description, path: Path) -> None:
    """Write weights, as they are or rounded to half precision.

    Raises:
        CycleStyleError: safetensors is not installed.
    """
    safetensors = optional("safetensors.torch", "a file of safetensors", "export")
    dtype = torch.float16 if description.precision == "half" else None
    stored = {
        name: value.detach().cpu().to(dtype if value.is_floating_point() else None).contiguous().clone()
        for name, value in weights.items()
    }
    safetensors.save_file(stored, path, metadata={"format": "pt", KEY: description.text()})


def read_weights(path: Path) -> tuple[Description | None, dict[str, Tensor]]:
    """Return the description, None for a file of another program, and the weights, half precision as float32.

    Raises:
        CheckpointError: the file is missing or damaged.
        CycleStyleError: safetensors is not installed.
    """
    safetensors = optional("safetensors", "a file of safetensors", "export")
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata: Mapping[str, Any] = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not iterable
    except Exception as error:  # of many kinds
        raise CheckpointError(f"{path} is damaged, or no file of safetensors") from error
    description = Description.read(metadata[KEY], path) if KEY in metadata else None
    if description is not None and description.precision == "half":
        weights = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    return description, weights


def with_precision(description: Description, precision: str) -> Description:
    """Return the description of the same network in another precision."""
    return replace(description, precision=precision)
