"""Reading a generator out of a checkpoint, whose settings say how to build it."""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

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
    """Build a generator from a checkpoint; return it and its input channels.

    A checkpoint of a CycleGAN run holds both directions. A file of the original implementation, such as
    `latest_net_G_A.pth`, holds one generator, whatever `direction` says; its shapes tell the architecture.

    Raises:
        CheckpointError: the file is neither.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.get("cyclestyle_task") == "CycleGAN":
        generator, in_channels, weights = _from_run(checkpoint, direction)
    elif checkpoint and all(isinstance(value, Tensor) for value in checkpoint.values()):
        generator, in_channels, weights = _from_official(checkpoint, path)
    else:
        what = checkpoint.get("cyclestyle_task") or "another program"
        raise CheckpointError(
            f"{path} is a checkpoint of {what}; expected one written by fitting a CycleGAN, "
            "or a generator file of the original implementation such as latest_net_G_A.pth"
        )
    try:
        generator.load_state_dict({key: weights[key] for key in generator.state_dict()})
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not hold the weights that its settings or shapes describe") from error
    return generator, in_channels


def _from_run(checkpoint: dict[str, Any], direction: Direction) -> tuple[Generator, int, dict[str, Tensor]]:
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
    return generator, in_channels, {key.removeprefix(prefix): value for key, value in checkpoint["state_dict"].items()}


def _from_official(checkpoint: dict[str, Any], path: Path) -> tuple[Generator, int, dict[str, Tensor]]:
    """Read the architecture off the shapes; what wrappers put before the names is dropped."""
    weights = {re.sub(r"^(module\.|_orig_mod\.)+", "", key): value for key, value in checkpoint.items()}
    if "model.1.weight" in weights and any(".conv_block." in key for key in weights):
        ngf, in_channels = weights["model.1.weight"].shape[:2]
        last = max(int(key.split(".")[1]) for key in weights)
        generator: Generator = ResNetGenerator(
            in_channels=in_channels,
            out_channels=weights[f"model.{last}.weight"].shape[0],
            ngf=ngf,
            blocks=sum(key.endswith(".conv_block.1.weight") for key in weights),
            dropout=any(key.endswith(".conv_block.6.weight") for key in weights),
        )
    elif "model.model.0.weight" in weights and "model.model.3.weight" in weights:
        ngf, in_channels = weights["model.model.0.weight"].shape[:2]
        # The innermost level of the U-Net has two convolutions, and so has each level around it.
        convolutions = sum(value.ndim == 4 for value in weights.values())
        out_channels = weights["model.model.3.weight"].shape[1]
        generator = UNetGenerator(in_channels=in_channels, out_channels=out_channels, ngf=ngf, depth=convolutions // 2)
    else:
        raise CheckpointError(
            f"{path} holds weights, but not of a ResNet or U-Net generator of the original implementation "
            "(latest_net_G_A.pth, latest_net_G.pth)"
        )
    return generator, in_channels, weights
