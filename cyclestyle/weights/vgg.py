"""Finding VGG weights: in a file, on the network, or drawn at random."""

import logging
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cyclestyle.errors import CheckpointError
from cyclestyle.networks.vgg import VGG, Pooling, VGGName, build_vgg, random_weights
from cyclestyle.weights.checkpoints import read_checkpoint

log = logging.getLogger(__name__)

RANDOM = "random"


def load_vgg(
    layers: Iterable[str], *, weights: str | None = None, name: VGGName = "vgg19", pooling: Pooling = "max"
) -> VGG:
    """Build a VGG that returns `layers`, frozen and in evaluation mode.

    Args:
        layers: names such as `relu4_2`.
        weights: a file in torchvision's layout or the normalised VGG-19, `random`, or nothing for torchvision's
            ImageNet weights, which are fetched once.
        name: `vgg16` or `vgg19`.
        pooling: `max` or `average`.

    Raises:
        CheckpointError: the file is missing, another network's, or ends before a layer; or nothing can be fetched.
        ValueError: a layer or a name is unknown.
    """
    if weights is None:
        return build_vgg(layers, _fetch(name), name=name, pooling=pooling)
    if weights == RANDOM:
        log.warning("%s has random weights: its features see colours and textures, but no things", name)
        return build_vgg(layers, random_weights(name), name=name, pooling=pooling)
    if not Path(weights).exists():
        raise CheckpointError(f"the weights {weights} do not exist; name a file of {name}, or random")
    tensors = read_checkpoint(Path(weights))
    try:
        return build_vgg(layers, tensors, name=name, pooling=pooling)
    except CheckpointError as error:
        raise CheckpointError(f"{weights} {error}") from error


def _fetch(name: VGGName) -> Mapping[str, Tensor]:
    from torchvision.models import VGG16_Weights, VGG19_Weights

    wanted = VGG16_Weights.IMAGENET1K_V1 if name == "vgg16" else VGG19_Weights.IMAGENET1K_V1
    try:
        weights: Mapping[str, Tensor] = wanted.get_state_dict(check_hash=True, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:  # no network; cut off, or something else
        file = Path(wanted.url).name
        raise CheckpointError(
            f"cannot fetch {name} ({error}); put {file} into {Path(torch.hub.get_dir()) / 'checkpoints'}, "
            "or name a file of VGG weights, or random, with --model.weights"
        ) from error
    return weights
