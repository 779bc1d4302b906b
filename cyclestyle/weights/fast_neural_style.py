"""Reading networks of fast style transfer: those of `Johnson` runs, and of PyTorch's fast_neural_style example."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cyclestyle.errors import CheckpointError
from cyclestyle.networks.transform import BLOCKS, OUTPUT_SCALE, TransformNetwork
from cyclestyle.weights.official import cleaned

PREFIX = "transform."
"""Of the network's weights in the checkpoint of a run."""

# What the layers of `TransformNetwork` are called in the example.
_EXAMPLE = {
    **{"first.conv": "conv1.conv2d", "first.norm": "in1"},
    **{"down1.conv": "conv2.conv2d", "down1.norm": "in2"},
    **{"down2.conv": "conv3.conv2d", "down2.norm": "in3"},
    **{f"blocks.{n}.first.conv": f"res{n + 1}.conv1.conv2d" for n in range(BLOCKS)},
    **{f"blocks.{n}.first.norm": f"res{n + 1}.in1" for n in range(BLOCKS)},
    **{f"blocks.{n}.second.conv": f"res{n + 1}.conv2.conv2d" for n in range(BLOCKS)},
    **{f"blocks.{n}.second.norm": f"res{n + 1}.in2" for n in range(BLOCKS)},
    **{"up1.conv": "deconv1.conv2d", "up1.norm": "in4"},
    **{"up2.conv": "deconv2.conv2d", "up2.norm": "in5"},
    **{"last": "deconv3.conv2d"},
}


def read_transform(weights: Mapping[str, Tensor], path: Path) -> TransformNetwork:
    """Build the network of a run, whose shapes tell its width and how it enlarges.

    Args:
        weights: its `state_dict`.
        path: the file that they come from.

    Raises:
        CheckpointError: names or sizes are not such a network's.
    """
    return _filled(cleaned(weights), lambda key: key, path)


def is_example(content: Mapping[str, Any]) -> bool:
    """Whether this is a state_dict in the layout of PyTorch's fast_neural_style example."""
    return any(key.endswith("conv1.conv2d.weight") for key in content)


def read_example(weights: Mapping[str, Tensor], path: Path) -> TransformNetwork:
    """Build the network of a state_dict of PyTorch's fast_neural_style example, of any of its versions.

    The example's images are RGB in [0, 255]; the first and the last convolution are changed so that those of the
    network built here are in [-1, 1], and nothing else about it differs. Running statistics, which old files have
    and which instance norm does not use, are left out, as is what wrappers put before the names.

    Raises:
        CheckpointError: names or sizes are not such a network's.
    """
    network = _filled(cleaned(weights), _name_in_example, path)
    first, last = network.first.conv, network.last
    assert first.bias is not None
    assert last.bias is not None
    with torch.no_grad():
        # W (127.5 x + 127.5) + b; padding by reflection shifts the frame along, so this holds at the edges too.
        first.bias += OUTPUT_SCALE * first.weight.double().sum(dim=(1, 2, 3))
        first.weight *= OUTPUT_SCALE
        last.bias -= OUTPUT_SCALE  # levels y become y / 127.5 - 1
    return network


def _name_in_example(key: str) -> str:
    module, _, leaf = key.rpartition(".")
    return f"{_EXAMPLE[module]}.{leaf}"


def _filled(weights: Mapping[str, Tensor], name_of: Callable[[str], str], path: Path) -> TransformNetwork:
    """Build the network whose weight `key` is called `name_of(key)` in the file."""
    first, up = (weights.get(name_of(key)) for key in ("first.conv.weight", "up1.conv.weight"))
    width = first.shape[0] if first is not None and first.ndim == 4 and len(first) else 32
    transposed = up is not None and up.ndim == 4 and up.shape[:2] == (4 * width, 2 * width)
    network = TransformNetwork(width=width, upsample="transpose" if transposed else "resize")
    keys = {name_of(key): key for key in network.state_dict()}
    expected = {name: network.state_dict()[key].shape for name, key in keys.items()}
    given = {name: value.shape for name, value in weights.items()}
    if given != expected:
        odd = min(name for name in given.keys() | expected.keys() if given.get(name) != expected.get(name))
        raise CheckpointError(
            f"{path} looks like a network of fast style transfer, but its {odd} is missing, odd or of another size"
        )
    network.load_state_dict({keys[name]: value for name, value in weights.items()})
    return network
