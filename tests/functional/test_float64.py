"""Devices without float64 (MPS): what needs it is computed on the CPU, and the result comes back."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cyclestyle.functional.colour import ColourTransfer
from cyclestyle.functional.style import whiten_and_colour
from cyclestyle.metrics.table import METRICS
from cyclestyle.networks.streaming.activations import Moments
from cyclestyle.networks.streaming.strips import normalised


class NoFloat64(TorchDispatchMode):
    """Refuses what MPS refuses."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, torch.Tensor) and one.device.type == "mps" and one.dtype == torch.float64:
                raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return result


class Node:
    def __init__(self, image):
        self.rows = lambda start, stop: image.narrow(2, start, stop - start)


def norm(image):
    moments = Moments(3, image.device)
    moments.add(image)
    weight = torch.ones(3, device=image.device)
    return normalised(Node(image), *moments.result(), weight, weight, 1e-5, image.device)(0, 4)


@pytest.mark.parametrize(
    ("function", "device"),
    [
        (norm, "mps"),
        (lambda image: whiten_and_colour(image, image), "mps"),
        (lambda image: ColourTransfer.fit([image.squeeze(0)], [image.squeeze(0)])(image.squeeze(0)), "mps"),
        (lambda image: METRICS["psnr"].function(None, image, image), "cpu"),
    ],
    ids=["streamed norm", "wct", "colours", "psnr"],
)
def test_float64_is_computed_on_the_cpu(function, device):
    with FakeTensorMode(), NoFloat64():
        assert function(torch.rand(1, 3, 4, 5, device="mps")).device.type == device
