"""Which convolutions are computed by faster algorithms, for every network that calls PyTorch's."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from cyclestyle.speed.winograd import narrow_conv2d, transform_weight, winograd_conv2d

MIN_CHANNELS = 128
"""Channels from which on `winograd_conv2d` is faster than the direct convolution."""
NARROW, LARGE = 4, 5
"""Most output channels, and smallest width of kernels, with which `narrow_conv2d` is faster."""


class FastConvolutions(TorchFunctionMode):
    """Within this context, `F.conv2d` uses the algorithms of `functional.winograd` where they are faster.

    These are 3×3 convolutions, and those with large kernels and few output channels, with a stride of 1, in float32 on
    the CPU. All others are computed as before.

    Args:
        fixed_weights: the weights hardly change, so that each is transformed once, without gradients.
    """

    def __init__(self, *, fixed_weights: bool = False) -> None:
        super().__init__()
        self._fixed_weights = fixed_weights
        self._known = WeakTensorKeyDictionary()  # the version and the transform of each weight

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute a convolution, or call any other function."""
        kwargs = kwargs or {}
        if func is F.conv2d:
            return self._conv2d(*args, **kwargs)
        return func(*args, **kwargs)

    def _conv2d(
        self,
        images: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        steps = stride, dilation, groups
        simple = all(step in (1, (1, 1), [1, 1]) for step in steps) and not isinstance(padding, str)
        if not (simple and _plain(images) and _plain(weight)):
            return F.conv2d(images, weight, bias, stride, padding, dilation, groups)
        outputs, channels, *kernel = weight.shape
        if kernel == [3, 3] and min(outputs, channels) >= MIN_CHANNELS:
            result = winograd_conv2d(_padded(images, padding), weight, bias, self._transformed(weight))
            kept = images.is_contiguous(memory_format=torch.channels_last)
            return result if kept else result.contiguous()  # else the layers that follow change their format, too
        if outputs <= NARROW and kernel[1] >= LARGE and channels >= 32:
            return narrow_conv2d(_padded(images, padding), weight, bias)
        return F.conv2d(images, weight, bias, stride, padding, dilation, groups)

    def _transformed(self, weight: Tensor) -> Tensor | None:
        if not self._fixed_weights or torch.is_grad_enabled() or weight.is_inference():
            return None
        if weight not in self._known or self._known[weight][0] != weight._version:  # a changed one is transformed again
            self._known[weight] = weight._version, transform_weight(weight)
        transformed: Tensor = self._known[weight][1]
        return transformed


def _plain(tensor: Tensor) -> bool:
    """Whether the numbers are computed here, in float32."""
    if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.device.type != "cpu":
        return False
    exact = tensor.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return exact and not torch.compiler.is_compiling()  # the compiler would take minutes for the tiles


def _padded(images: Tensor, padding: Any) -> Tensor:
    height, width = (padding, padding) if isinstance(padding, int) else padding
    return F.pad(images, (width, width, height, height)) if height or width else images
