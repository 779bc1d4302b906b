"""Reading a generator out of a checkpoint, whose settings say how to build it."""

import pickle
import zipfile
from pathlib import Path
from typing import Any, Literal

import torch

from cyclestyle.errors import CheckpointError
from cyclestyle.networks import ResNetGenerator, UNetGenerator, build_generator

# What torch.load raises for a file that is cut off, is text, or holds random bytes.
_DAMAGE = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, zipfile.BadZipFile)

Direction = Literal["AtoB", "BtoA"]
Generator = ResNetGenerator | UNetGenerator


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in it is executed.

    Raises:
        CheckpointError: the file is missing, damaged, or holds more than tensors and plain values.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; expected a checkpoint file such as {path / 'last.ckpt'}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path} does not exist") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is no checkpoint of plain tensors and values, and is not loaded: it could run code"
        ) from error
    except _DAMAGE as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint; use an earlier one") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def load_generator(path: Path, direction: Direction) -> tuple[Generator, int]:
    """Build the generator of one direction from a CycleGAN checkpoint; return it and its input channels.

    Raises:
        CheckpointError: the file is no checkpoint of a CycleGAN run.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.get("cyclestyle_task") != "CycleGAN":
        what = checkpoint.get("cyclestyle_task") or "another program"
        raise CheckpointError(f"{path} is a checkpoint of {what}; expected one written by fitting a CycleGAN")
    settings = checkpoint["hyper_parameters"]
    channels = settings["channels_A"], settings["channels_B"]
    in_channels, out_channels = channels if direction == "AtoB" else channels[::-1]
    generator = build_generator(
        settings["generator"],
        in_channels=in_channels,
        out_channels=out_channels,
        ngf=settings["ngf"],
        dropout=settings["dropout"],
    )
    prefix = "G_AB." if direction == "AtoB" else "G_BA."
    weights = {key.removeprefix(prefix): value for key, value in checkpoint["state_dict"].items()}
    try:
        generator.load_state_dict({key: weights[key] for key in generator.state_dict()})
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not hold the weights that its settings describe") from error
    return generator, in_channels
