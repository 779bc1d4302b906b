"""Which rows of its input an operation needs for some rows of its output, and how it computes them.

Each function below takes an operation of PyTorch apart: it returns the function that computes the rows `start` to
`stop` of the result, `(1, C, stop - start, W)`, from the rows of its input. The padding of an operation is added at the
border of the whole image only. The parameters are those of the operation in ATen.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclestyle.functional.float64 import to_float64

Rows = Callable[[int, int], Tensor]
"""Computes rows `start` to `stop`."""


aten = torch.ops.aten


class Input(Protocol):
    """What an operation reads: an activation `(1, C, H, W)`."""

    shape: torch.Size

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows `start` to `stop`."""


def convolution(
    x: Input,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Rows:
    """A convolution, or a transposed one."""
    height, reach = x.shape[2], dilation[0] * (weight.shape[2] - 1)
    step, pad = stride[0], padding[0]

    def rows(start: int, stop: int) -> Tensor:
        low, high = start * step - pad, (stop - 1) * step - pad + reach + 1
        strip = x.rows(max(low, 0), max(min(high, height), 0))
        strip = F.pad(strip, (0, 0, max(-low, 0), max(high - height, 0))) if low < 0 or high > height else strip
        return F.conv2d(strip, weight, bias, stride, (0, padding[1]), dilation, groups)

    def transposed_rows(start: int, stop: int) -> Tensor:
        # Row i of the input contributes to the rows i · step − pad to i · step − pad + reach of the output.
        low = max(-((reach - start - pad) // step), 0)
        high = min((stop - 1 + pad) // step + 1, height)
        strip = x.rows(low, high)
        wide = (output_padding[0], output_padding[1])
        result = F.conv_transpose2d(strip, weight, bias, stride, (0, padding[1]), wide, groups, dilation)
        first = start - (low * step - pad)
        return result[:, :, first : first + stop - start]

    return transposed_rows if transposed else rows


def pad(x: Input, padding: Sequence[int], mode: str, value: float = 0.0) -> Rows:
    """Padding by `reflect`, `replicate` or `constant`: left, right, and optionally top and bottom."""
    height = x.shape[2]
    left, right, top, _ = [*padding, 0, 0][:4]

    def rows(start: int, stop: int) -> Tensor:
        first, end = start - top, stop - top  # in rows of the input, which begin with 0
        above, below = max(-first, 0), max(end - height, 0)
        # Reflection at a border reads as many rows behind it as it adds, and the border itself.
        low = min(max(first, 0), max(height - 1 - below, 0))
        high = max(min(end, height), min(above + 1, height))
        strip = x.rows(low, high)
        if left or right or above or below:
            options = {"value": value} if mode == "constant" else {}
            strip = F.pad(strip, (left, right, above, below), mode, **options)
        return strip[:, :, first - (low - above) :][:, :, : stop - start]

    return rows


def pooling(
    operation: Callable[..., Any],
    x: Input,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    *others: Any,
) -> Rows:
    """Maximum or average pooling without padding.

    Raises:
        ValueError: there is padding, which no network here has.
    """
    if any(padding):
        raise ValueError("pooling with padding")
    step = (stride or kernel)[0]

    def rows(start: int, stop: int) -> Tensor:
        strip = x.rows(start * step, (stop - 1) * step + kernel[0])
        result = operation(strip, kernel, stride, padding, *others)
        pooled: Tensor = result[0] if isinstance(result, tuple) else result
        return pooled

    return rows


def upsampling(x: Input, output_size: Sequence[int], mode: str) -> Rows:
    """Interpolation to a multiple of height and width, `nearest` or `bilinear` with half-pixel centres.

    Raises:
        ValueError: the height is not multiplied by a whole number.
    """
    height = x.shape[2]
    factor, rest = divmod(output_size[0], height)
    if rest or factor < 1:
        raise ValueError("interpolation by a factor that is not a whole number")
    margin = 0 if mode == "nearest" else 1

    def rows(start: int, stop: int) -> Tensor:
        low, high = max(start // factor - margin, 0), min((stop - 1) // factor + 1 + margin, height)
        size = ((high - low) * factor, output_size[1])
        options = {} if mode == "nearest" else {"align_corners": False}
        result = F.interpolate(x.rows(low, high), size, mode=mode, **options)
        return result[:, :, start - low * factor : stop - low * factor]

    return rows


def cut(x: Input, dim: int = 0, start: int | None = None, stop: int | None = None, step: int = 1) -> Rows:
    """A slice of height, width or channels.

    Raises:
        ValueError: rows are left out between others.
    """
    first, _, _ = slice(start, stop, step).indices(x.shape[dim])
    if dim % 4 != 2:
        return lambda low, high: torch.ops.aten.slice.Tensor(x.rows(low, high), dim, start, stop, step)
    if step != 1:
        raise ValueError("slicing with a step")
    return lambda low, high: x.rows(low + first, high + first)


def joined(inputs: Sequence[Input], dim: int = 0) -> Rows:
    """Concatenation along the channels or the width.

    Raises:
        ValueError: it is along the height.
    """
    if dim % 4 == 2 and len(inputs) > 1:
        raise ValueError("concatenation along the height")
    return lambda low, high: (
        torch.cat([x.rows(low, high) for x in inputs], dim) if len(inputs) > 1 else inputs[0].rows(low, high)
    )


def elementwise(operation: Callable[..., Tensor], operands: Sequence[Any], options: dict[str, Any]) -> Rows:
    """An operation on each element; operands that are tensors themselves have a height of 1, or are scalars."""

    def rows(start: int, stop: int) -> Tensor:
        strips = [one.rows(start, stop) if hasattr(one, "rows") else one for one in operands]
        return operation(*strips, **options)

    return rows


def normalised(
    x: Input,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    device: torch.device,
) -> Rows:
    """Instance normalisation on `device` with the given statistics of each channel, `(C,)` in float64."""
    scale = (variance + eps).rsqrt() * (1.0 if weight is None else to_float64(weight))
    shift = (0.0 if bias is None else to_float64(bias)) - mean * scale
    scale, shift = (value.float()[:, None, None].to(device) for value in (scale, shift))

    def rows(start: int, stop: int) -> Tensor:
        strip = x.rows(start, stop)
        return torch.addcmul(shift, strip.float(), scale).to(strip.dtype)

    return rows


def _elementwise(func: Any, *args: Any, **kwargs: Any) -> Rows:
    if any(isinstance(one, Tensor) and one.ndim > 1 and one.shape[-2] != 1 for one in args):
        raise ValueError("an operation with a tensor that has a height of its own")
    return elementwise(func, args, kwargs)


def _copy(x: Input, *, dtype: torch.dtype | None = None, **_: Any) -> Rows:
    return elementwise(lambda rows: rows.to(dtype or rows.dtype), [x], {})


def _padding(mode: str) -> Callable[..., Rows]:
    def build(x: Input, padding: Sequence[int], value: float = 0.0) -> Rows:
        return pad(x, padding, mode, value)

    return build


def _upsampling(mode: str) -> Callable[..., Rows]:
    def build(x: Input, output_size: Sequence[int] | None, *others: Any) -> Rows:
        if mode == "bilinear" and others[0]:
            raise ValueError("interpolation with align_corners")
        factors = next((one for one in others if isinstance(one, list | tuple)), ())
        size = output_size or [int(length * factor) for length, factor in zip(x.shape[2:], factors, strict=True)]
        return upsampling(x, size, mode)

    return build


_BUILDERS: dict[Any, Callable[..., Rows]] = {
    aten.convolution: convolution,
    aten.reflection_pad2d: _padding("reflect"),
    aten.replication_pad2d: _padding("replicate"),
    aten.constant_pad_nd: _padding("constant"),
    aten.upsample_nearest2d: _upsampling("nearest"),
    aten.upsample_bilinear2d: _upsampling("bilinear"),
    aten.max_pool2d_with_indices: partial(pooling, aten.max_pool2d_with_indices),
    aten.avg_pool2d: partial(pooling, aten.avg_pool2d),
    aten.slice: cut,
    aten.cat: joined,
    aten._to_copy: _copy,
}
"""How the rows of each operation of ATen are computed; elementwise operations need no entry."""


def builder(func: Any) -> Callable[..., Rows] | None:
    """Return what takes an operation of ATen apart; None for one that needs the whole image, or is made of others."""
    found = _BUILDERS.get(func.overloadpacket)
    return partial(_elementwise, func) if found is None and torch.Tag.pointwise in func.tags else found


def reads_other_rows(func: Any) -> bool:
    """Whether an operation of ATen computes a row from other rows than the same one of its input."""
    return func.overloadpacket in _BUILDERS and func.overloadpacket not in (aten.cat, aten._to_copy, aten.slice)
