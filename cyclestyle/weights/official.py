"""Files of the original implementation: a folder of four state_dicts, whose shapes determine the networks."""

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
"""Name of each network here, and in the file names of the original (where `D_A` discriminates domain B)."""

LOSSES = {
    **{"G_A": "G_AB", "G_B": "G_BA", "D_A": "D_B", "D_B": "D_A", "idt_A": "idt_B", "idt_B": "idt_A"},
    **{name: name for name in ("cycle_A", "cycle_B", "loss_G", "loss_D")},
}
"""The name of each loss in the original code, and the one that it has here."""

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class GeneratorShape:
    """Architecture of a generator, inferred from its weights."""

    name: GeneratorName
    depth: int
    in_channels: int
    out_channels: int
    ngf: int
    dropout: bool = False
    upsample: UpsampleName = "transpose"

    def build(self) -> ResNetGenerator | UNetGenerator:
        """Build the network with newly initialised weights."""
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
    """Architecture of a discriminator, inferred from its weights."""

    name: DiscriminatorName
    in_channels: int
    ndf: int
    n_layers: int = 3

    def build(self) -> PatchDiscriminator | PixelDiscriminator:
        """Build the network with newly initialised weights."""
        return build_discriminator(self.name, in_channels=self.in_channels, ndf=self.ndf, n_layers=self.n_layers)


Shape = GeneratorShape | DiscriminatorShape


def cleaned(weights: Weights) -> dict[str, Tensor]:
    """Remove the prefixes of wrappers from the names, and the running statistics that old versions of PyTorch saved."""
    names = {key: re.sub(r"^(module\.|_orig_mod\.)+", "", key) for key in weights}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return {name: weights[key] for key, name in names.items() if name.rpartition(".")[2] not in statistics}


def generator_shape(weights: Weights) -> GeneratorShape | None:
    """Infer the architecture of a generator from its (cleaned) weights; None if they are not those of a generator."""
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
            ngf=ngf,  # dropout has no weights and no effect in evaluation
        )
    return None


def discriminator_shape(weights: Weights) -> DiscriminatorShape | None:
    """Infer the architecture of a discriminator from its (cleaned) weights; None if they are not those of one."""
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

    Args:
        folder: folder of the four files, and optionally of the `train_opt.txt` of the original.
        epoch: prefix of the file names.

    Returns:
        The arguments of `CycleGAN` for these networks, including the training settings in `train_opt.txt`; and the
        weights of each network by its name here.

    Raises:
        CheckpointError: a file does not exist, is damaged or contains another network, or the four networks do not
            match.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is not a folder; expected the folder of {epoch}_net_G_A.pth and the other networks"
        )
    shapes: dict[str, Shape] = {}
    weights: dict[str, dict[str, Tensor]] = {}
    for ours, theirs in NETWORKS.items():
        path = folder / f"{epoch}_net_{theirs}.pth"
        content = read_checkpoint(path)
        kind = "generator" if theirs.startswith("G") else "discriminator"
        shape = read_shape(content, kind)
        if shape is None:
            raise CheckpointError(f"{path} is not a {kind} of the original implementation")
        check_weights(shape, cleaned(content), path)
        shapes[ours], weights[ours] = shape, cleaned(content)
    return {**_settings(shapes, folder), **_options(folder)}, weights


def read_shape(content: Mapping[str, Any], kind: str) -> Shape | None:
    """Infer the architecture of a network; None if `content` is not the `state_dict` of one.

    Args:
        content: a checkpoint.
        kind: `generator` or `discriminator`.
    """
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        return None
    try:
        return generator_shape(cleaned(content)) if kind == "generator" else discriminator_shape(cleaned(content))
    except (ValueError, KeyError, IndexError):  # similar names, but of another network
        return None


def check_weights(shape: Shape, weights: Weights, path: Path) -> None:
    """Check that the names and shapes of weights are exactly those of the inferred network.

    Args:
        shape: the inferred architecture.
        weights: the (cleaned) weights.
        path: the file of the weights, for error messages.

    Raises:
        CheckpointError: names or shapes differ.
    """
    try:
        expected = {key: value.shape for key, value in shape.build().state_dict().items()}
    except ValueError as error:
        raise CheckpointError(f"{path} contains an unsupported network: {error}") from error
    given = {key: value.shape for key, value in weights.items()}
    if given == expected:
        return
    if any(key.endswith(".weight") and len(size) == 1 for key, size in given.items()):
        raise CheckpointError(
            f"{path} was trained with batch norm or affine norms; only non-affine instance norm is supported"
        )
    mismatch = min(key for key in given.keys() | expected.keys() if given.get(key) != expected.get(key))
    raise CheckpointError(
        f"{path} looks like a {shape.name} network, but {mismatch} is missing, unexpected or of a different size"
    )


def write_official(state_dict: Weights, folder: Path, epoch: str = "latest") -> list[Path]:
    """Write the four networks of a `CycleGAN` in the format of the original implementation.

    Args:
        state_dict: of a `CycleGAN`.
        folder: where to write.
        epoch: prefix of the file names.

    Returns:
        The paths of the four files.

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


# Training settings in the `train_opt.txt` of the original, including names of older versions; name and type here.
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
    "lr_policy": ("lr_policy", str),
    "lr_decay_iters": ("lr_step_epochs", int),
}


def _options(folder: Path) -> dict[str, Any]:
    """Return the training settings in `train_opt.txt`; empty if the file does not exist."""
    path = folder / "train_opt.txt"
    if not path.is_file():
        return {}
    lines = re.findall(r"^\s*(\w+): (\S+)", path.read_text(errors="replace"), flags=re.MULTILINE)
    found = dict(lines)
    options = {ours: kind(found[name]) for name, (ours, kind) in _OPTIONS.items() if name in found}
    if "beta1" in found:
        options["betas"] = (float(found["beta1"]), 0.999)
    if options.get("lr_policy") == "lambda":
        options["lr_policy"] = "linear"
    if found.get("no_lsgan") == "True":
        options["gan_mode"] = "vanilla"
    return options


def _settings(shapes: dict[str, Shape], folder: Path) -> dict[str, Any]:
    """Return the arguments of `CycleGAN` for networks of these shapes."""
    G_AB, G_BA, D_A, D_B = (shapes[name] for name in ("G_AB", "G_BA", "D_A", "D_B"))
    assert isinstance(G_AB, GeneratorShape)
    assert isinstance(D_B, DiscriminatorShape)
    mirrored = replace(G_AB, in_channels=G_AB.out_channels, out_channels=G_AB.in_channels)
    if mirrored != G_BA or replace(D_B, in_channels=G_AB.in_channels) != D_A or D_B.in_channels != G_AB.out_channels:
        raise CheckpointError(f"the four networks in {folder} do not match: their widths, depths or channels differ")
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
