"""Which rows of its input an operation needs for some rows of its output, and how it computes them.

Each function below takes an operation of PyTorch apart: it returns the function that computes the rows `start` to
`stop` of the result, `(1, C, stop - start, W)`, from the rows of its input. The padding of an operation is added at the
border of the whole image only. The parameters are those of the operation in ATen.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

Rows = Callable[[int, int], Tensor]
"""Computes rows `start` to `stop`."""


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
        wanted = torch.arange(start - top, stop - top)
        outside = (wanted < 0) | (wanted >= height)
        if mode == "reflect":
            wanted = (height - 1 - (height - 1 - wanted.abs()).abs()) if height > 1 else wanted.clamp(0, 0)
        wanted = wanted.clamp(0, height - 1)
        low, high = int(wanted.min()), int(wanted.max()) + 1
        strip = x.rows(low, high)
        if outside.any():
            strip = strip.index_select(2, (wanted - low).to(strip.device))
            if mode == "constant":
                strip = strip.masked_fill(outside.to(strip.device)[:, None], value)
        if not left and not right:
            return strip
        return F.pad(strip, (left, right, 0, 0), mode, *([value] if mode == "constant" else []))

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
    height, width = x.shape[2:]
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
    return lambda low, high: torch.cat([x.rows(low, high) for x in inputs], dim) if len(inputs) > 1 else inputs[
        0
    ].rows(low, high)


def elementwise(operation: Callable[..., Tensor], operands: Sequence[Any], options: dict[str, Any]) -> Rows:
    """An operation on each element; operands that are tensors themselves have a height of 1, or are scalars."""

    def rows(start: int, stop: int) -> Tensor:
        strips = [one.rows(start, stop) if hasattr(one, "rows") else one for one in operands]
        return operation(*strips, **options)

    return rows


def normalised(x: Input, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Rows:
    """Instance normalisation with the given statistics of each channel, `(C,)` in float64."""
    scale = (variance + eps).rsqrt() if weight is None else (variance + eps).rsqrt() * weight.double()
    mean, scale = (value.float()[:, None, None] for value in (mean, scale))
    shift = None if bias is None else bias.float()[:, None, None]

    def rows(start: int, stop: int) -> Tensor:
        strip = x.rows(start, stop)
        result = (strip - mean).mul_(scale)
        return (result if shift is None else result.add_(shift)).to(strip.dtype)

    return rows


class Moments:
    """Mean and variance of each channel over all rows that are added, in float64 (Chan et al. 1979)."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.count = 0
        self.mean, self.squares = torch.zeros(2, channels, dtype=torch.float64, device=device)

    def add(self, rows: Tensor) -> None:
        """Add rows `(1, C, h, W)`."""
        for row in rows[0].permute(1, 2, 0):  # (W, C): a row in float64 fits into the cache of a processor
            wide = row.double()
            count, ones = len(wide), wide.new_ones(1, len(wide))
            mean = (ones @ wide)[0] / count
            squares = (ones @ (wide - mean).square_())[0]
            self._merge(count, mean, squares)

    def _merge(self, count: int, mean: Tensor, squares: Tensor) -> None:
        total = self.count + count
        difference = mean - self.mean
        self.squares = self.squares + squares + difference.square() * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.count = total

    def result(self, correction: float = 0) -> tuple[Tensor, Tensor]:
        """Return mean and variance, `(C,)` each."""
        return self.mean, self.squares / max(self.count - correction, 0) if self.count else self.squares


def strips(height: int, row_bytes: float, strip_bytes: float) -> list[tuple[int, int]]:
    """Return the first and last row of strips of about `strip_bytes`, of at least one row."""
    rows = max(1, math.floor(strip_bytes / row_bytes))
    return [(start, min(start + rows, height)) for start in range(0, height, rows)]
