"""How networks are called: without gradients of their own, on two batches at once, on images of any size."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Let gradients flow through `networks` to their input, but not into their parameters."""
    trained = [parameter for network in networks for parameter in network.parameters() if parameter.requires_grad]
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def call_on_both(network: nn.Module, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Call `network` once on two batches if their shapes allow it; with instance norm the result is the same."""
    if first.shape[1:] != second.shape[1:]:
        return network(first), network(second)
    results = network(torch.cat([first, second]))
    return results[: len(first)], results[len(first) :]


def call_at_any_size(network: Any, images: Tensor) -> Tensor:
    """Call a generator on `(N, C, H, W)` of any height and width; the result has the same height and width.

    The images are padded by reflection, at the right and bottom, to a size that the generator accepts, and the
    padding is cropped from the result.

    Args:
        network: a generator with the attributes `multiple` and `min_size`.
        images: in [-1, 1].
    """
    height, width = images.shape[-2:]
    result: Tensor = network(pad_to_multiple(images, network.multiple, network.min_size))
    return result[..., :height, :width]


def pad_to_multiple(images: Tensor, multiple: int, minimum: int) -> Tensor:
    """Pad `(N, C, H, W)` by reflection, at the right and bottom, to multiples of `multiple`, at least `minimum`."""
    height, width = images.shape[-2:]
    bottom, right = (max(-(-size // multiple) * multiple, minimum) - size for size in (height, width))
    if not bottom and not right:
        return images
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(images, (0, right, 0, bottom), mode=mode)
