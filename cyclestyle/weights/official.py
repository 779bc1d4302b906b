"""Files of the original implementations: a folder of state_dicts, whose shapes determine the networks."""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from cyclestyle.errors import CheckpointError
from cyclestyle.networks import (
    PatchMLP,
    ResNetGenerator,
    UNetGenerator,
    build_discriminator,
    build_generator,
)
from cyclestyle.networks.discriminators import Discriminator, DiscriminatorName
from cyclestyle.networks.generators import DEPTHS, GeneratorName
from cyclestyle.networks.resampling import ResampleName
from cyclestyle.networks.spectral import without_spectral_norm
from cyclestyle.weights.checkpoints import read_checkpoint, write_checkpoint

NETWORKS = {"G_AB": "G_A", "G_BA": "G_B", "D_B": "D_A", "D_A": "D_B"}
"""Name of each network of CycleGAN here, and in the file names of the original (where `D_A` discriminates domain B)."""

LOSSES = {
    **{"G_A": "G_AB", "G_B": "G_BA", "D_A": "D_B", "D_B": "D_A", "idt_A": "idt_B", "idt_B": "idt_A"},
    **{name: name for name in ("cycle_A", "cycle_B", "loss_G", "loss_D")},
}
"""The name of each loss in the original code, and the one that it has here."""

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

Weights = Mapping[str, Tensor]
Kind = Literal["generator", "discriminator", "patch MLP"]
KINDS: dict[str, Kind] = {"G": "generator", "D": "discriminator", "F": "patch MLP"}
"""What the first letter of a network's name says."""


def _is_true(text: str) -> bool:
    return text == "True"


class Method(NamedTuple):
    """A method with an original implementation: its networks, and its settings in `train_opt.txt`.

    Attributes:
        networks: name of each network here, and in the file names of the original.
        options: for each setting of the original, its name here and how its text is read.
    """

    networks: Mapping[str, str]
    options: Mapping[str, tuple[str, Callable[[str], Any]]]


_TRAINING: dict[str, tuple[str, Callable[[str], Any]]] = {  # including names of older versions
    "gan_mode": ("gan_mode", str),
    "lr": ("lr", float),
    "n_epochs": ("constant_epochs", int),
    "niter": ("constant_epochs", int),
    "n_epochs_decay": ("decay_epochs", int),
    "niter_decay": ("decay_epochs", int),
    "lr_policy": ("lr_policy", str),
    "lr_decay_iters": ("lr_step_epochs", int),
}
_CONTRAST: dict[str, tuple[str, Callable[[str], Any]]] = {
    "lambda_GAN": ("lambda_GAN", float),
    "lambda_NCE": ("lambda_NCE", float),
    "nce_T": ("nce_temperature", float),
    "num_patches": ("nce_patches", int),
    "nce_includes_all_negatives_from_minibatch": (
        "nce_negatives",
        lambda text: "batch" if _is_true(text) else "image",
    ),
}

METHODS = {
    "CycleGAN": Method(
        NETWORKS,
        {
            **_TRAINING,
            "lambda_A": ("lambda_A", float),
            "lambda_B": ("lambda_B", float),
            "lambda_identity": ("lambda_identity", float),
            "identity": ("lambda_identity", float),
            "pool_size": ("pool_size", int),
        },
    ),
    "CUT": Method(
        {"G_AB": "G", "D_B": "D", "F_AB": "F"},
        {
            **_TRAINING,
            **_CONTRAST,
            "nce_idt": ("nce_identity", _is_true),
            "flip_equivariance": ("flip_equivariance", _is_true),
        },
    ),
    "DCLGAN": Method(
        {**NETWORKS, "F_AB": "F1", "F_BA": "F2"},
        {**_TRAINING, **_CONTRAST, "lambda_IDT": ("lambda_identity", float)},
    ),
}
"""The methods whose files are read and written. A checkpoint is of the method that has its networks."""


@dataclass(frozen=True, kw_only=True)
class GeneratorShape:
    """Architecture of a generator, inferred from its weights."""

    name: GeneratorName
    depth: int
    in_channels: int
    out_channels: int
    ngf: int
    dropout: bool = False
    resample: ResampleName = "transpose"

    def build(self) -> ResNetGenerator | UNetGenerator:
        """Build the network with newly initialised weights."""
        return build_generator(
            self.name,
            depth=self.depth,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            ngf=self.ngf,
            dropout=self.dropout,
            resample=self.resample,
        )


@dataclass(frozen=True, kw_only=True)
class DiscriminatorShape:
    """Architecture of a discriminator, inferred from its weights."""

    name: DiscriminatorName
    in_channels: int
    ndf: int
    n_layers: int = 3
    blur: bool = False

    def build(self) -> Discriminator:
        """Build the network with newly initialised weights."""
        return build_discriminator(
            self.name,
            in_channels=self.in_channels,
            ndf=self.ndf,
            n_layers=self.n_layers,
            resample="blur" if self.blur else "transpose",
        )


@dataclass(frozen=True, kw_only=True)
class PatchMLPShape:
    """Architecture of the heads of a contrastive loss, inferred from their weights."""

    channels: tuple[int, ...]
    width: int
    name: Literal["patch MLP"] = "patch MLP"

    def build(self) -> PatchMLP:
        """Build the network with newly initialised weights."""
        return PatchMLP(self.channels, self.width)


Shape = GeneratorShape | DiscriminatorShape | PatchMLPShape


def unwrapped(weights: Weights) -> dict[str, Tensor]:
    """Remove the prefixes of wrappers from the names."""
    return {re.sub(r"^(module\.|_orig_mod\.)+", "", key): value for key, value in weights.items()}


def cleaned(weights: Weights) -> dict[str, Tensor]:
    """Remove the prefixes of wrappers from the names, and the running statistics that old versions of PyTorch saved."""
    return {key: value for key, value in unwrapped(weights).items() if key.rpartition(".")[2] not in _STATISTICS}


def batch_norms(weights: Weights) -> list[str]:
    """Return the names of the batch norms in (unwrapped) weights: norms with running statistics and a scale."""
    norms = [key.removesuffix(".running_mean") for key in weights if key.endswith(".running_mean")]
    return [norm for norm in norms if f"{norm}.weight" in weights]


def without_batch_norms(weights: Weights, network: nn.Module) -> dict[str, Tensor]:
    """Fold batch norms, as they are in evaluation, into the convolutions before them.

    z = γ (W x + b − μ) / σ + β is a convolution with the weights γ W / σ and the bias γ (b − μ) / σ + β.

    Args:
        weights: (unwrapped) weights, in which each norm follows its convolution in an `nn.Sequential`.
        network: the network of the convolutions, without the norms.

    Returns:
        The weights without running statistics. A norm that does not follow a convolution is left.
    """
    # Networks with batch norm have no other biases, in the original not even where no norm follows
    biases = {key: torch.zeros_like(value) for key, value in network.state_dict().items() if key.endswith(".bias")}
    result = {**biases, **weights}
    modules = dict(network.named_modules())
    for norm in batch_norms(weights):
        parent, _, number = norm.rpartition(".")
        name = f"{parent}.{int(number) - 1}" if number.isdecimal() else ""
        module, kernel = modules.get(name), weights.get(f"{name}.weight")
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d) or kernel is None:
            continue
        if kernel.shape != module.weight.shape:
            continue
        mean, variance, scale, shift = (
            result.pop(f"{norm}.{part}").double() for part in ("running_mean", "running_var", "weight", "bias")
        )
        factor = scale / (variance + nn.BatchNorm2d(1).eps).sqrt()
        bias = weights.get(f"{name}.bias", torch.zeros_like(mean))
        channels = (1, -1, 1, 1) if isinstance(module, nn.ConvTranspose2d) else (-1, 1, 1, 1)
        result[f"{name}.weight"] = (kernel * factor.view(channels)).to(kernel.dtype)
        result[f"{name}.bias"] = (factor * (bias - mean) + shift).to(kernel.dtype)
    return cleaned(result)


def generator_shape(weights: Weights) -> GeneratorShape | None:
    """Infer the architecture of a generator from its (cleaned) weights; None if they are not those of a generator."""
    weights = {key: value for key, value in weights.items() if value.ndim == 4}  # and not those of norms
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
            resample=_resample(weights, blocks),
        )
    if "model.model.0.weight" in weights and "model.model.3.weight" in weights:
        ngf, in_channels = weights["model.model.0.weight"].shape[:2]
        depth = len(weights) // 2  # each level has two convolutions
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
    trained = {key: value for key, value in weights.items() if not _is_filter(key)}
    convolutions = sum(value.ndim == 4 for value in trained.values())
    if "net.0.weight" in weights and convolutions == 3:
        ndf, in_channels = weights["net.0.weight"].shape[:2]
        return DiscriminatorShape(name="pixel", in_channels=in_channels, ndf=ndf)
    if "model.0.weight" in weights and convolutions >= 3 and len(trained) == 2 * convolutions:
        ndf, in_channels = weights["model.0.weight"].shape[:2]
        n_layers = convolutions - 2
        name: DiscriminatorName = "basic" if n_layers == 3 else "n_layers"
        blur = "model.3.weight" in weights
        return DiscriminatorShape(name=name, in_channels=in_channels, ndf=ndf, n_layers=n_layers, blur=blur)
    return None


def patch_mlp_shape(weights: Weights) -> PatchMLPShape | None:
    """Infer the architecture of the heads of a contrastive loss from their (cleaned) weights; None if they are not."""
    if "mlp_0.0.weight" not in weights:
        return None
    channels = [weights[f"mlp_{number}.0.weight"].shape[1] for number in range(len(weights) // 4)]
    return PatchMLPShape(channels=tuple(channels), width=weights["mlp_0.0.weight"].shape[0])


def read_official(
    folder: Path, epoch: str = "latest", method: str = "CycleGAN"
) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Read the networks of a run, such as `<epoch>_net_{G_A,G_B,D_A,D_B}.pth`.

    Args:
        folder: folder of the files, and optionally of the `train_opt.txt` of the original.
        epoch: prefix of the file names.
        method: key of `METHODS`.

    Returns:
        The arguments of the method for these networks, including the training settings in `train_opt.txt`; and the
        weights of each network by its name here.

    Raises:
        CheckpointError: a file does not exist, is damaged or contains another network, or the networks do not match.
    """
    networks, options = METHODS[method]
    if not folder.is_dir():
        first = f"{epoch}_net_{networks['G_AB']}.pth"
        raise CheckpointError(f"{folder} is not a folder; expected the folder of {first} and the other networks")
    shapes: dict[str, Shape] = {}
    weights: dict[str, dict[str, Tensor]] = {}
    for ours, theirs in networks.items():
        path = folder / f"{epoch}_net_{theirs}.pth"
        content = read_checkpoint(path)
        kind = KINDS[ours[0]]
        shape = read_shape(content, kind)
        if shape is None:
            raise CheckpointError(f"{path} is not a {kind} of the original implementation")
        shapes[ours], weights[ours] = shape, check_weights(shape, cleaned(content), path)
    return {**_settings(shapes, folder), **_options(folder, options)}, weights


def read_shape(content: Mapping[str, Any], kind: Kind) -> Shape | None:
    """Infer the architecture of a network; None if `content` is not the `state_dict` of one.

    Args:
        content: a checkpoint.
        kind: `generator`, `discriminator` or `patch MLP`.
    """
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        return None
    try:
        return _READERS[kind](cleaned(content))
    except (ValueError, KeyError, IndexError):  # similar names, but of another network
        return None


def build(shape: Shape, path: Path) -> nn.Module:
    """Build an inferred network with newly initialised weights.

    Raises:
        CheckpointError: there is no such network.
    """
    try:
        return shape.build()
    except ValueError as error:
        raise CheckpointError(f"{path} contains an unsupported network: {error}") from error


def check_weights(shape: Shape, weights: Weights, path: Path) -> dict[str, Tensor]:
    """Check that the names and shapes of weights are exactly those of the inferred network.

    Args:
        shape: the inferred architecture.
        weights: the (cleaned) weights. The constant filters of antialiased networks may be missing.
        path: the file of the weights, for error messages.

    Returns:
        The weights, with all filters.

    Raises:
        CheckpointError: names or shapes differ, or a filter is another one.
    """
    built = build(shape, path).state_dict()
    expected = {key: value.shape for key, value in built.items()}
    weights = {**{key: value for key, value in built.items() if _is_filter(key)}, **weights}
    given = {key: value.shape for key, value in weights.items()}
    if given == expected:
        for key in filter(_is_filter, built):
            if not torch.allclose(weights[key].to(built[key]), built[key]):
                raise CheckpointError(f"{path} was trained with another antialiasing filter, {key}")
        return {key: weights[key] for key in built}
    if any(key.endswith(".weight") and len(size) == 1 for key, size in given.items()):
        raise CheckpointError(
            f"{path} has norms with weights: batch norm is supported in a generator that is loaded by itself, "
            "affine instance norm is not"
        )
    mismatch = min(key for key in given.keys() | expected.keys() if given.get(key) != expected.get(key))
    raise CheckpointError(
        f"{path} looks like a {shape.name} network, but {mismatch} is missing, unexpected or of a different size"
    )


def method_of(state_dict: Weights) -> Method | None:
    """Return the method whose networks a `state_dict` holds; None if it has no original implementation."""
    names = {key.partition(".")[0] for key in state_dict}
    return next((method for method in METHODS.values() if method.networks.keys() == names), None)


def write_official(state_dict: Weights, folder: Path, epoch: str = "latest") -> list[Path]:
    """Write the networks of a task in the format of its original implementation.

    Discriminators with spectral norm are written with their normalised weights.

    Args:
        state_dict: of a task in `METHODS`.
        folder: where to write.
        epoch: prefix of the file names.

    Returns:
        The paths of the files.

    Raises:
        CheckpointError: the networks are those of no method in `METHODS`, or the folder cannot be written.
    """
    method = method_of(state_dict)
    if method is None:
        raise CheckpointError(f"no networks of {', '.join(METHODS)}; there is nothing to export")
    state_dict, paths = without_spectral_norm(state_dict), []
    for ours, theirs in method.networks.items():
        prefix = f"{ours}."
        network = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        paths.append(folder / f"{epoch}_net_{theirs}.pth")
        write_checkpoint(OrderedDict(cleaned(network)), paths[-1])
    return paths


def _options(folder: Path, known: Mapping[str, tuple[str, Callable[[str], Any]]]) -> dict[str, Any]:
    """Return the training settings in `train_opt.txt`; empty if the file does not exist."""
    path = folder / "train_opt.txt"
    if not path.is_file():
        return {}
    lines = re.findall(r"^\s*(\w+): (\S+)", path.read_text(errors="replace"), flags=re.MULTILINE)
    found = dict(lines)
    options = {ours: read(found[name]) for name, (ours, read) in known.items() if name in found}
    if "beta1" in found:
        options["betas"] = (float(found["beta1"]), float(found.get("beta2", 0.999)))
    if options.get("lr_policy") == "lambda":
        options["lr_policy"] = "linear"
    if found.get("no_lsgan") == "True":
        options["gan_mode"] = "vanilla"
    return options


def _settings(shapes: Mapping[str, Shape], folder: Path) -> dict[str, Any]:
    """Return the constructor arguments for networks of these shapes."""
    G_AB, D_B, F_AB = shapes["G_AB"], shapes["D_B"], shapes.get("F_AB")
    assert isinstance(G_AB, GeneratorShape)
    assert isinstance(D_B, DiscriminatorShape)
    fitting: dict[str, Shape] = {
        "G_BA": replace(G_AB, in_channels=G_AB.out_channels, out_channels=G_AB.in_channels),
        "D_B": replace(D_B, in_channels=G_AB.out_channels, blur=D_B.name != "pixel" and G_AB.resample == "blur"),
        "D_A": replace(D_B, in_channels=G_AB.in_channels),
    }
    if any(shapes[name] != shape for name, shape in fitting.items() if name in shapes):
        raise CheckpointError(
            f"the networks in {folder} do not match: their widths, depths, channels or antialiasing differ"
        )
    settings: dict[str, Any] = {
        "generator": G_AB.name,
        "depth": None if G_AB.depth == DEPTHS[G_AB.name] else G_AB.depth,
        "resample": G_AB.resample,
        "residual": 0.0,
        "dropout": G_AB.dropout,
        "ngf": G_AB.ngf,
        "channels_A": G_AB.in_channels,
        "channels_B": G_AB.out_channels,
        "discriminator": D_B.name,
        "n_layers": D_B.n_layers,
        "ndf": D_B.ndf,
        "spectral_norm": False,
    }
    if isinstance(F_AB, PatchMLPShape):
        settings["nce_width"] = F_AB.width
    if "G_BA" in shapes and G_AB.in_channels != G_AB.out_channels:
        settings["lambda_identity"] = 0.0
    return settings


def _resample(weights: Weights, blocks: int) -> ResampleName:
    """Return how a ResNet with these weights resamples."""
    if "model.8.weight" in weights:  # the third convolution, behind a blur
        return "blur"
    return "transpose" if f"model.{10 + blocks}.weight" in weights else "resize"


def _is_filter(key: str) -> bool:
    return key.rpartition(".")[2] == "filt"


def _resnet_name(blocks: int) -> GeneratorName:
    return "resnet6" if blocks == DEPTHS["resnet6"] else "resnet9"


_READERS: dict[Kind, Callable[[Weights], Shape | None]] = {
    "generator": generator_shape,
    "discriminator": discriminator_shape,
    "patch MLP": patch_mlp_shape,
}
