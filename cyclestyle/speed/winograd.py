"""Convolutions with fewer multiplications than by the definition, in float32 on the CPU.

`winograd_conv2d` computes 3×3 convolutions in tiles of 4×4 results: F(4×4, 3×3) of Lavin and Gray 2016, "Fast
algorithms for convolutional neural networks", section 4.1, with the points 0, 1, −1, 2, −2 and ∞. A tile takes 36
multiplications for each pair of channels instead of 144. Rounding errors are about six times those of the direct
computation.

`narrow_conv2d` is for large kernels with few output channels, such as the last layer of a generator. Processors compute
16 or more output channels at a time, and the direct computation wastes most of them.
"""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import grad

TILE = 4
"""Height and width of the results that are computed together."""
MAX_TILES = 4096
"""Tiles that are transformed together, so that their 36 numbers for each channel stay near the processor."""

_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
"""Bᵀ, G and Aᵀ of the paper: y = Aᵀ [(G w Gᵀ) ⊙ (Bᵀ x B)] A."""


def transform_weight(weight: Tensor) -> Tensor:
    """Return G w Gᵀ of 3×3 kernels, `(O, C, 3, 3)` → `(36, C, O)`."""
    kernels = weight.permute(2, 3, 1, 0).reshape(9, -1)
    return (_transform("kernel", weight.dtype) @ kernels).view(36, weight.shape[1], weight.shape[0])


def winograd_conv2d(images: Tensor, weight: Tensor, bias: Tensor | None, transformed: Tensor | None = None) -> Tensor:
    """Return the convolution of `(N, C, H, W)` with 3×3 kernels, without padding, `(N, O, H - 2, W - 2)`.

    The result has the memory format channels_last. Second derivatives are those of the direct convolution.

    Args:
        images: H and W of at least 3.
        weight: `(O, C, 3, 3)`.
        bias: `(O,)`, or None.
        transformed: `transform_weight(weight)`, if it is known already; then there is no gradient.
    """
    if transformed is not None:
        return _correlate(images, transformed, bias)
    result: Tensor = _Winograd.apply(images, weight, bias)
    return result


def narrow_conv2d(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution of `(N, C, H, W)` with `(O, C, K, L)`, without padding, `(N, O, H - K + 1, W - L + 1)`.

    Each column of the kernels becomes an output channel of its own, and the results are added up, each shifted by the
    place of its column.
    """
    outputs, channels, height, width = weight.shape
    columns = weight.permute(3, 0, 1, 2).reshape(width * outputs, channels, height, 1)
    result: Tensor = _AddShifted.apply(F.conv2d(images, columns), width)
    return result if bias is None else result + bias[:, None, None]


class _Winograd(torch.autograd.Function):
    """The convolution with its derivatives, which are two more convolutions in tiles."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(images, weight)
        return _correlate(images, transform_weight(weight), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        images, weight = ctx.saved_tensors
        wants_images, wants_weight, wants_bias = ctx.needs_input_grad
        differentiable = torch.is_grad_enabled()  # second derivatives are wanted
        to_images = to_weight = None
        if wants_images and differentiable:
            to_images = grad.conv2d_input(images.shape, weight, gradient)  # type: ignore[no-untyped-call]
        elif wants_images:
            turned = weight.flip(2, 3).transpose(0, 1)
            to_images = _correlate(F.pad(gradient, (2, 2, 2, 2)), transform_weight(turned), None)
        if wants_weight and differentiable:
            to_weight = grad.conv2d_weight(images, weight.shape, gradient)  # type: ignore[no-untyped-call]
        elif wants_weight:
            to_weight = _weight_gradient(images, gradient)
        return to_images, to_weight, gradient.sum((0, 2, 3)) if wants_bias else None


class _AddShifted(torch.autograd.Function):
    """Adds up L maps `(N, L · O, H, W)`, the i-th from column i on: `(N, O, H, W - L + 1)`."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, count: int) -> Tensor:
        ctx.count, ctx.shape = count, maps.shape
        outputs, width = maps.shape[1] // count, maps.shape[3] - count + 1
        result = maps[:, :outputs, :, :width].contiguous()
        for shift in range(1, count):
            result += maps[:, shift * outputs : (shift + 1) * outputs, :, shift : shift + width]
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        maps = gradient.new_zeros(ctx.shape).contiguous(memory_format=torch.channels_last)
        outputs, width = gradient.shape[1], gradient.shape[3]
        for shift in range(ctx.count):
            maps[:, shift * outputs : (shift + 1) * outputs, :, shift : shift + width] = gradient
        return maps, None


def _correlate(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution with a transformed weight `(36, C, O)`."""
    count, channels, height, width = images.shape
    rows, columns = (-(-(length - 2) // TILE) for length in (height, width))
    images = _padded(images, TILE * rows + 2, TILE * columns + 2)
    result = images.new_empty(count, TILE * rows, TILE * columns, weight.shape[2])
    step = max(1, MAX_TILES // (count * columns))  # rows of tiles that are computed together
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        tiles = _tiles(images[:, :, TILE * start : TILE * stop + 2])
        products = torch.bmm((_transform("input", images.dtype) @ tiles).view(36, -1, channels), weight)
        found = _transform("output", images.dtype) @ products.view(36, -1)
        found = found.view(TILE, TILE, count, stop - start, columns, -1).permute(2, 3, 0, 4, 1, 5)
        shape = (count, stop - start, TILE, columns, TILE, weight.shape[2])
        result[:, TILE * start : TILE * stop].view(shape).copy_(found)
    if bias is not None:
        result += bias
    return result.permute(0, 3, 1, 2)[:, :, : height - 2, : width - 2]


def _weight_gradient(images: Tensor, gradient: Tensor) -> Tensor:
    """The gradient `(O, C, 3, 3)` of the kernels."""
    channels, outputs = images.shape[1], gradient.shape[1]
    rows, columns = (-(-length // TILE) for length in gradient.shape[2:])
    images = _padded(images, TILE * rows + 2, TILE * columns + 2)
    gradient = _padded(gradient, TILE * rows, TILE * columns)
    step = max(1, MAX_TILES // (len(images) * columns))
    total = images.new_zeros(36, channels, outputs)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        tiles = _tiles(images[:, :, TILE * start : TILE * stop + 2])
        given = gradient[:, :, TILE * start : TILE * stop].permute(0, 2, 3, 1)
        given = given.reshape(len(given), stop - start, TILE, columns, TILE, outputs).permute(2, 4, 0, 1, 3, 5)
        spread = (_transform("output", images.dtype).T @ given.reshape(TILE * TILE, -1)).view(36, -1, outputs)
        read = (_transform("input", images.dtype) @ tiles).view(36, -1, channels)
        total.baddbmm_(read.transpose(1, 2), spread)
    kernels = _transform("kernel", images.dtype).T @ total.view(36, -1)
    return kernels.view(3, 3, channels, outputs).permute(3, 2, 0, 1)


def _tiles(images: Tensor) -> Tensor:
    """Return the overlapping tiles of 6×6 pixels, `(36, N · tiles · C)`."""
    size = TILE + 2
    tiles = images.permute(0, 2, 3, 1).unfold(1, size, TILE).unfold(2, size, TILE)  # (N, rows, columns, C, 6, 6)
    return tiles.permute(4, 5, 0, 1, 2, 3).reshape(size * size, -1)


def _padded(images: Tensor, height: int, width: int) -> Tensor:
    """Pad with zeros, at the right and bottom."""
    bottom, right = height - images.shape[2], width - images.shape[3]
    return F.pad(images, (0, right, 0, bottom)) if bottom or right else images


@lru_cache
def _transform(name: str, dtype: torch.dtype) -> Tensor:
    """The transform of both axes of a tile as one matrix: the Kronecker product with itself."""
    matrix = torch.tensor({"input": _INPUT, "kernel": _KERNEL, "output": _OUTPUT}[name], dtype=torch.float64)
    return torch.kron(matrix, matrix).to(dtype)
