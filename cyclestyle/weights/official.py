"""The files of the original implementation: four plain state_dicts in a folder, whose shapes tell the networks."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from cyclestyle.errors import CheckpointError
from cyclestyle.networks import (
    PatchDiscriminator,
    PixelDiscriminator,
    ResNetGenerator,
    UNetGenerator,
    build_discriminator,
    build_generator,
)
from cyclestyle.networks.discriminators import DiscriminatorName
from cyclestyle.networks.generators import DEPTHS, GeneratorName, UpsampleName
from cyclestyle.weights.checkpoints import read_checkpoint, write_checkpoint

NETWORKS = {"G_AB": "G_A", "G_BA": "G_B", "D_B": "D_A", "D_A": "D_B"}
"""This project's name of each network, and the one in the original's file names (`D_A` judges domain B there)."""

LOSSES = {
    **{"G_A": "G_AB", "G_B": "G_BA", "D_A": "D_B", "D_B": "D_A", "idt_A": "idt_B", "idt_B": "idt_A"},
    **{name: name for name in ("cycle_A", "cycle_B", "loss_G", "loss_D")},
}
"""The name of each loss in the original code, and the one that it has here."""

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class GeneratorShape:
    """What a generator's weights tell about it."""

    name: GeneratorName
    depth: int
    in_channels: int
    out_channels: int
    ngf: int
    dropout: bool = False
    upsample: UpsampleName = "transpose"

    def build(self) -> ResNetGenerator | UNetGenerator:
        """Build the network, with fresh weights."""
        return build_generator(
            self.name,
            depth=self.depth,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            ngf=self.ngf,
            dropout=self.dropout,
            upsample=self.upsample,
        )


@dataclass(frozen=True, kw_only=True)
class DiscriminatorShape:
    """What a discriminator's weights tell about it."""

    name: DiscriminatorName
    in_channels: int
    ndf: int
    n_layers: int = 3

    def build(self) -> PatchDiscriminator | PixelDiscriminator:
        """Build the network, with fresh weights."""
        return build_discriminator(self.name, in_channels=self.in_channels, ndf=self.ndf, n_layers=self.n_layers)


Shape = GeneratorShape | DiscriminatorShape


def cleaned(weights: Weights) -> dict[str, Tensor]:
    """Drop what wrappers put before the names, and the running statistics that old versions of PyTorch kept."""
    names = {key: re.sub(r"^(module\.|_orig_mod\.)+", "", key) for key in weights}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return {name: weights[key] for key, name in names.items() if name.rpartition(".")[2] not in statistics}


def generator_shape(weights: Weights) -> GeneratorShape | None:
    """Read a generator's architecture off its (cleaned) weights; None if they are not one's."""
    if "model.1.weight" in weights and any(".conv_block." in key for key in weights):
        ngf, in_channels = weights["model.1.weight"].shape[:2]
        blocks = len({key.split(".")[1] for key in weights if ".conv_block." in key})
        last = max(int(key.split(".")[1]) for key in weights)
        return GeneratorShape(
            name=_resnet_name(blocks),
            depth=blocks,
            in_channels=in_channels,
            out_channels=weights[f"model.{last}.weight"].shape[0],
            ngf=ngf,
            dropout=any(key.endswith(".conv_block.6.weight") for key in weights),
            upsample="transpose" if f"model.{10 + blocks}.weight" in weights else "resize",
        )
    if "model.model.0.weight" in weights and "model.model.3.weight" in weights:
        ngf, in_channels = weights["model.model.0.weight"].shape[:2]
        depth = sum(value.ndim == 4 for value in weights.values()) // 2  # each level has two convolutions
        return GeneratorShape(
            name="unet128" if depth == DEPTHS["unet128"] else "unet256",
            depth=depth,
            in_channels=in_channels,
            out_channels=weights["model.model.3.weight"].shape[1],
            ngf=ngf,  # its dropout has no weights, and is nothing to a trained network
        )
    return None


def discriminator_shape(weights: Weights) -> DiscriminatorShape | None:
    """Read a discriminator's architecture off its (cleaned) weights; None if they are not one's."""
    convolutions = sum(value.ndim == 4 for value in weights.values())
    if "net.0.weight" in weights and convolutions == 3:
        ndf, in_channels = weights["net.0.weight"].shape[:2]
        return DiscriminatorShape(name="pixel", in_channels=in_channels, ndf=ndf)
    if "model.0.weight" in weights and convolutions >= 3 and len(weights) == 2 * convolutions:
        ndf, in_channels = weights["model.0.weight"].shape[:2]
        n_layers = convolutions - 2
        name: DiscriminatorName = "basic" if n_layers == 3 else "n_layers"
        return DiscriminatorShape(name=name, in_channels=in_channels, ndf=ndf, n_layers=n_layers)
    return None


def read_official(folder: Path, epoch: str = "latest") -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Read the four networks `<epoch>_net_{G_A,G_B,D_A,D_B}.pth` of a folder.

    Returns:
        The arguments of `CycleGAN` that build such networks, with those that the original's `train_opt.txt` tells
        where it lies beside them; and the weights of each network, under this project's names.

    Raises:
        CheckpointError: a file is missing, damaged, or not such a network, or the four do not fit each other.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; expected one that holds {epoch}_net_G_A.pth and its kin")
    shapes: dict[str, Shape] = {}
    weights: dict[str, dict[str, Tensor]] = {}
    for ours, theirs in NETWORKS.items():
        path = folder / f"{epoch}_net_{theirs}.pth"
        content = read_checkpoint(path)
        kind = "generator" if theirs.startswith("G") else "discriminator"
        shape = read_shape(content, kind)
        if shape is None:
            raise CheckpointError(f"{path} is no {kind} of the original implementation")
        check_weights(shape, cleaned(content), path)
        shapes[ours], weights[ours] = shape, cleaned(content)
    return {**_settings(shapes, folder), **_options(folder)}, weights


def read_shape(content: Mapping[str, Any], kind: str) -> Shape | None:
    """The shape of a `generator` or `discriminator`; None if the content is not one's weights."""
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        return None
    try:
        return generator_shape(cleaned(content)) if kind == "generator" else discriminator_shape(cleaned(content))
    except (ValueError, KeyError, IndexError):  # names that only look like the original's
        return None


def check_weights(shape: Shape, weights: Weights, path: Path) -> None:
    """Refuse weights that are not exactly those of the network that they seem to be.

    Raises:
        CheckpointError: names or sizes differ.
    """
    try:
        expected = {key: value.shape for key, value in shape.build().state_dict().items()}
    except ValueError as error:
        raise CheckpointError(f"{path} does not hold a network that is known here: {error}") from error
    given = {key: value.shape for key, value in weights.items()}
    if given == expected:
        return
    if any(key.endswith(".weight") and len(size) == 1 for key, size in given.items()):
        raise CheckpointError(
            f"{path} was trained with batch norm or affine norms; only instance norm without them, CycleGAN's, is known"
        )
    odd = sorted(key for key in given.keys() | expected.keys() if given.get(key) != expected.get(key))[0]
    raise CheckpointError(f"{path} looks like a {shape.name} network, but its {odd} is missing, odd or of another size")


def write_official(state_dict: Weights, folder: Path, epoch: str = "latest") -> list[Path]:
    """Write the four networks of a CycleGAN's `state_dict` as the original implementation reads them.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    paths = []
    for ours, theirs in NETWORKS.items():
        prefix = f"{ours}."
        network = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        paths.append(folder / f"{epoch}_net_{theirs}.pth")
        write_checkpoint(OrderedDict(cleaned(network)), paths[-1])
    return paths


# Settings of training in the original's `train_opt.txt`, with the names of older versions, and what they are here.
_OPTIONS: dict[str, tuple[str, type]] = {
    "gan_mode": ("gan_mode", str),
    "lambda_A": ("lambda_A", float),
    "lambda_B": ("lambda_B", float),
    "lambda_identity": ("lambda_identity", float),
    "identity": ("lambda_identity", float),
    "pool_size": ("pool_size", int),
    "lr": ("lr", float),
    "n_epochs": ("constant_epochs", int),
    "niter": ("constant_epochs", int),
    "n_epochs_decay": ("decay_epochs", int),
    "niter_decay": ("decay_epochs", int),
}


def _options(folder: Path) -> dict[str, Any]:
    """Return the settings of training that the original wrote beside its networks; none if it did not."""
    path = folder / "train_opt.txt"
    if not path.is_file():
        return {}
    lines = re.findall(r"^\s*(\w+): (\S+)", path.read_text(errors="replace"), flags=re.MULTILINE)
    found = dict(lines)
    options = {ours: kind(found[name]) for name, (ours, kind) in _OPTIONS.items() if name in found}
    if "beta1" in found:
        options["betas"] = (float(found["beta1"]), 0.999)
    if found.get("no_lsgan") == "True":
        options["gan_mode"] = "vanilla"
    return options


def _settings(shapes: dict[str, Shape], folder: Path) -> dict[str, Any]:
    """The arguments of `CycleGAN` that build networks of these shapes."""
    G_AB, G_BA, D_A, D_B = (shapes[name] for name in ("G_AB", "G_BA", "D_A", "D_B"))
    assert isinstance(G_AB, GeneratorShape)
    assert isinstance(D_B, DiscriminatorShape)
    mirrored = replace(G_AB, in_channels=G_AB.out_channels, out_channels=G_AB.in_channels)
    if mirrored != G_BA or replace(D_B, in_channels=G_AB.in_channels) != D_A or D_B.in_channels != G_AB.out_channels:
        raise CheckpointError(
            f"the four networks in {folder} do not fit each other: their widths, depths or channels differ"
        )
    return {
        "generator": G_AB.name,
        "depth": None if G_AB.depth == DEPTHS[G_AB.name] else G_AB.depth,
        "upsample": G_AB.upsample,
        "dropout": G_AB.dropout,
        "ngf": G_AB.ngf,
        "channels_A": G_AB.in_channels,
        "channels_B": G_AB.out_channels,
        "discriminator": D_B.name,
        "n_layers": D_B.n_layers,
        "ndf": D_B.ndf,
        "lambda_identity": 0.5 if G_AB.in_channels == G_AB.out_channels else 0.0,
    }


def _resnet_name(blocks: int) -> GeneratorName:
    return "resnet6" if blocks == DEPTHS["resnet6"] else "resnet9"
