"""Networks of PyTorch's fast_neural_style example."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cyclestyle.errors import CheckpointError
from cyclestyle.networks.transform import BLOCKS, OUTPUT_SCALE, TransformNetwork
from cyclestyle.weights.official import cleaned

# Names of the layers of `TransformNetwork` in the example.
_EXAMPLE_NAMES = {
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


def is_example(content: Mapping[str, Any]) -> bool:
    """Return whether `content` is a state_dict of PyTorch's fast_neural_style example."""
    return any(key.endswith("conv1.conv2d.weight") for key in content)


def read_example(weights: Mapping[str, Tensor], path: Path) -> TransformNetwork:
    """Build a network from a state_dict of any version of PyTorch's fast_neural_style example.

    Images of the example are RGB in [0, 255]. The change of range to [-1, 1] is folded into the first and the last
    convolution; otherwise the network computes the same function. Running statistics of old files, which instance norm
    does not use, and prefixes that wrappers add to the names are removed.

    Args:
        weights: `state_dict` of the example.
        path: the file of the weights, for error messages.

    Raises:
        CheckpointError: names or shapes are not those of the example.
    """
    network = _build(cleaned(weights), _example_name, path)
    first, last = network.first.conv, network.last
    assert isinstance(last, nn.Conv2d)
    assert first.bias is not None
    assert last.bias is not None
    with torch.no_grad():
        # W (127.5 x + 127.5) + b. Reflection padding commutes with this map, so it also holds at the border.
        first.bias += OUTPUT_SCALE * first.weight.double().sum(dim=(1, 2, 3))
        first.weight *= OUTPUT_SCALE
        last.bias -= OUTPUT_SCALE  # the output y becomes y / 127.5 - 1
    return network


def _example_name(key: str) -> str:
    module, _, parameter = key.rpartition(".")
    return f"{_EXAMPLE_NAMES[module]}.{parameter}"


def _build(weights: Mapping[str, Tensor], name_of: Callable[[str], str], path: Path) -> TransformNetwork:
    """Build the network from a file in which its parameter `key` has the name `name_of(key)`."""
    first, up = (weights.get(name_of(key)) for key in ("first.conv.weight", "up1.conv.weight"))
    width = first.shape[0] if first is not None and first.ndim == 4 and len(first) else 32
    transposed = up is not None and up.ndim == 4 and up.shape[:2] == (4 * width, 2 * width)
    network = TransformNetwork(width=width, upsample="transpose" if transposed else "resize")
    keys = {name_of(key): key for key in network.state_dict()}
    expected = {name: network.state_dict()[key].shape for name, key in keys.items()}
    given = {name: value.shape for name, value in weights.items()}
    if given != expected:
        mismatch = min(name for name in given.keys() | expected.keys() if given.get(name) != expected.get(name))
        raise CheckpointError(
            f"{path} looks like a network of fast style transfer, "
            f"but {mismatch} is missing, unexpected or of a different size"
        )
    network.load_state_dict({keys[name]: value for name, value in weights.items()})
    return network
