"""Loading VGG weights: from a file, by download, or random."""

import logging
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cyclestyle.errors import CheckpointError
from cyclestyle.networks.vgg import VGG, Pooling, VGGName, all_layers, build_vgg, random_weights
from cyclestyle.weights.checkpoints import read_checkpoint
from cyclestyle.weights.upgrade import upgrade

log = logging.getLogger(__name__)

RANDOM = "random"


def load_vgg(
    layers: Iterable[str],
    *,
    weights: str | None = None,
    name: VGGName = "vgg19",
    pooling: Pooling = "max",
    features: str | None = None,
) -> VGG:
    """Build a frozen VGG in evaluation mode that returns the activations of `layers`.

    Args:
        layers: names of the layers, for example `relu4_2`.
        weights: a file in torchvision's layout or of the normalised VGG-19, or `random`; by default the ImageNet
            weights of torchvision, which are downloaded once.
        name: `vgg16` or `vgg19`.
        pooling: `max` or `average`.
        features: a checkpoint of the autoencoder, whose encoder is taken instead; see `load_encoder`.

    Raises:
        CheckpointError: the file does not exist, contains another network, or ends before one of `layers`; or the
            download failed.
        ValueError: a layer, `name` or `pooling` is unknown.
    """
    if features is not None:
        return load_encoder(layers, features, pooling=pooling)
    if weights is None:
        return build_vgg(layers, _download(name), name=name, pooling=pooling)
    if weights == RANDOM:
        log.warning("%s has random weights: its features respond to colours and textures, but not to objects", name)
        return build_vgg(layers, random_weights(name), name=name, pooling=pooling)
    if not Path(weights).exists():
        raise CheckpointError(f"the weights {weights} do not exist; give a file with {name} weights, or random")
    state_dict = read_checkpoint(Path(weights))
    try:
        return build_vgg(layers, state_dict, name=name, pooling=pooling)
    except CheckpointError as error:
        raise CheckpointError(f"{weights} {error}") from error


def load_encoder(layers: Iterable[str], path: str, *, pooling: Pooling = "max") -> VGG:
    """Build a frozen VGG in evaluation mode from the encoder of a checkpoint of `Autoencoder`.

    Its layers are those of VGG-19 up to `relu{level}_1`. Averaged weights are taken where there are any.

    Args:
        layers: names of the layers.
        path: a checkpoint, or the folder of a run.
        pooling: `max` or `average`.

    Raises:
        CheckpointError: the file is missing, damaged or of another task, or the encoder has not all `layers`.
        ValueError: `pooling` is unknown.
    """
    checkpoint = upgrade(read_checkpoint(Path(path)))
    weights = {**checkpoint.get("state_dict", {}), **checkpoint.get("ema", {})}
    encoder = {key.removeprefix("encoder."): weights[key] for key in weights if key.startswith("encoder.")}
    if checkpoint.get("cyclestyle_task") != "Autoencoder" or not encoder:
        raise CheckpointError(f"{path} has no encoder; --model.features takes a checkpoint of the autoencoder")
    kernels = [encoder[f"convolutions.{n}.weight"] for n in range((len(encoder) - 2) // 2)]
    found = all_layers("vgg19")[: len(kernels)]
    widths = {layer[4]: len(kernel) for layer, kernel in zip(found, kernels, strict=True)}
    layers = list(layers)
    if missing := [layer for layer in layers if layer not in found]:
        raise CheckpointError(
            f"the encoder of {path} ends at {found[-1]} and has no {missing[0]}; set --model.content_layers and "
            "--model.style_layers"
        )
    network = VGG(layers, pooling=pooling, padding="reflect", widths=list(widths.values()))
    network.load_state_dict({key: encoder[key] for key in network.state_dict()})
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _download(name: VGGName) -> Mapping[str, Tensor]:
    from torchvision.models import VGG16_Weights, VGG19_Weights

    source = VGG16_Weights.IMAGENET1K_V1 if name == "vgg16" else VGG19_Weights.IMAGENET1K_V1
    try:
        weights: Mapping[str, Tensor] = source.get_state_dict(check_hash=True, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:  # no network, or a truncated or wrong file
        file = Path(source.url).name
        raise CheckpointError(
            f"cannot download {name} ({error}); put {file} into {Path(torch.hub.get_dir()) / 'checkpoints'}, "
            "or name a file of VGG weights, or random, instead"
        ) from error
    return weights
