"""A tensor that stands for an image, and notes the operations that are applied to it."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from cyclestyle.networks.streaming import strips
from cyclestyle.networks.streaming.activations import Moments, Node, PlannedStore, Room, Window
from cyclestyle.networks.streaming.rows import RowStore
from cyclestyle.networks.streaming.strips import Rows

MAX_SOURCES = 2
"""Kept activations that an operation reads together. One more, and their combination is kept instead."""

aten = torch.ops.aten


class NotStreamableError(Exception):
    """An operation needs the whole image in a way that is not a norm."""


class StreamedTensor(Tensor):
    """What a network sees in place of an image or an activation `(1, C, H, W)`: shape and type, without numbers."""

    node: Node
    stream: "Stream"

    @staticmethod
    def __new__(cls, node: Node, stream: "Stream") -> "StreamedTensor":  # noqa: ANN001, RUF100
        """Wrap a node."""
        make = torch.Tensor._make_wrapper_subclass
        self: StreamedTensor = make(cls, node.shape, dtype=node.dtype, device=stream.device)
        self.node, self.stream = node, stream
        return self

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"StreamedTensor({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Let instance norms and interpolations reach `__torch_dispatch__` in one piece on every device.

        An instance norm is computed as a group norm. Deterministic algorithms would take an interpolation apart for
        its gradient, on every device but the CPU; here are no gradients.
        """
        if func is torch.nn.functional.instance_norm:
            return _as_group_norm(*args, **(kwargs or {}))
        if func is torch.nn.functional.interpolate and torch.are_deterministic_algorithms_enabled():
            only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
            torch.use_deterministic_algorithms(False)
            try:
                return cls.__torch_function__(func, types, args, kwargs)
            finally:
                torch.use_deterministic_algorithms(True, warn_only=only_warned)
        with torch._C.DisableTorchFunctionSubclass():  # the function of Tensor would turn statistics into its own class
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # annotated as a function that is no method
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note an operation."""
        stream = next(one.stream for one in tree_leaves((args, kwargs)) if isinstance(one, StreamedTensor))
        return stream.apply(func, args, kwargs or {})


class Stream:
    """The operations of one call, and where their results are kept."""

    def __init__(self, room: Room, *, planned: bool = False) -> None:
        self.device, self.folder, self.planned = room.device, room.folder, planned
        self.strip_bytes = room.strip_bytes
        self.memory = room.memory - 4 * room.strip_bytes  # of what is kept
        self.live = self.in_memory = self.peak = self.largest_row = self.largest = 0
        self.work = 0.0
        self.sweep = 0
        self.on_work: Callable[[float], None] | None = None
        self.given: list[tuple[Tensor, Tensor]] | None = None
        self.found: list[tuple[Tensor, Tensor]] = []

    def apply(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of an operation of ATen, streamed."""
        if func is aten.native_group_norm.default:
            return self._group_norm(*args)
        if func is aten.var_mean.correction:
            return self._var_mean(*args, **kwargs)
        if func is aten.detach.default or func is aten.alias.default:
            return StreamedTensor(args[0].node, self)
        if func is aten.split.Tensor and kwargs.get("dim", (*args, 0)[2]) == 0:
            return [StreamedTensor(args[0].node, self)]
        changed = args[0] if func._schema.is_mutable else None  # such as relu_
        if changed is not None:
            packet = getattr(aten, func.overloadpacket.__name__.removesuffix("_"))
            func = getattr(packet, func._overloadname)
        build = strips.builder(func)
        if build is None:
            result = func.decompose(*args, **kwargs)
            if result is NotImplemented:
                raise NotStreamableError(f"{func} needs the whole image")
            return result
        result = self._noted(func, build, args, kwargs)
        if changed is not None:
            changed.node = result.node
            return changed
        indices = torch.empty(0, dtype=torch.int64)  # of the maxima, which no network here asks for
        return (result, indices) if func is aten.max_pool2d_with_indices.default else result

    def _noted(
        self, func: Any, build: Callable[..., Rows], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> StreamedTensor:
        """Return the result of an operation that has rows."""
        meta = tree_map_only(Tensor, _without_numbers, (args, {k: v for k, v in kwargs.items() if k != "device"}))
        expected = func(*meta[0], **meta[1])
        expected = expected[0] if isinstance(expected, tuple) else expected
        self.largest = max(self.largest, expected.numel())
        nodes = [one.node for one in tree_leaves((args, kwargs)) if isinstance(one, StreamedTensor)]
        if expected.ndim != 4 or len(expected) != 1:
            raise NotStreamableError(f"{func} changes the axes of an image")
        if strips.reads_other_rows(func):
            for node in nodes:
                self._keep_if_costly(node)
        given_args, given_kwargs = tree_map_only(StreamedTensor, lambda one: one.node, (args, kwargs))
        try:
            rows = build(*given_args, **given_kwargs)
        except ValueError as error:
            raise NotStreamableError(f"{error} cannot be streamed") from error
        return StreamedTensor(Node(expected.shape, expected.dtype, rows, nodes, _work(func, args, expected)), self)

    def _keep_if_costly(self, node: Node) -> None:
        """Keep what an operation with a receptive field reads, unless it is quickly computed from what is kept."""
        if node.pending_work or node.sources > MAX_SOURCES:
            self._keep(node)

    def _keep(self, node: Node, moments: Moments | None = None) -> None:
        if self.given is not None:
            node.keep(Window(node.rows, lambda: self.sweep))
            return
        store = self._store(node)
        for start, stop in self.strips(node):
            rows = node.rows(start, stop)
            store.write(start, rows)
            if moments is not None:
                moments.add(rows)
            self.advance(node, stop - start)
        node.keep(store)

    def _store(self, node: Node) -> RowStore | PlannedStore:
        in_memory = self.in_memory + node.bytes <= self.memory
        store: RowStore | PlannedStore = PlannedStore()
        if not self.planned:
            store = RowStore(node.shape, node.dtype, None if in_memory else self.folder, self.device)
        self._count(node.bytes, in_memory)
        weakref.finalize(store, self._count, -node.bytes, in_memory)
        return store

    def _count(self, size: int, in_memory: bool) -> None:
        self.live += size
        self.in_memory += size if in_memory else 0
        self.peak = max(self.peak, self.live)

    def strips(self, node: Node) -> list[tuple[int, int]]:
        """Return the strips of an activation; none if it is only planned, and all of its work is counted at once."""
        height = node.shape[2]
        self.largest_row = max(self.largest_row, node.pending_bytes // height)
        if self.planned:
            self.advance(node, height)
            return []
        rows = max(1, int(self.strip_bytes * height / node.pending_bytes))
        return [(start, min(start + rows, height)) for start in range(0, height, rows)]

    def advance(self, node: Node, rows: int) -> None:
        """Count the work of rows of an activation."""
        # An elementwise operation takes about the time of 20 operations of a convolution, and is counted as such.
        self.work += (node.pending_work + 20 * node.pending_bytes / node.dtype.itemsize) * rows / node.shape[2]
        if self.on_work is not None:
            self.on_work(self.work)

    def _statistics(self, node: Node) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel, `(C,)`."""
        if self.given is not None:
            return self.given.pop(0)
        moments = Moments(node.shape[1], self.device)
        if node.pending_work or node.sources > 1:
            self._keep(node, moments)
        else:
            for start, stop in self.strips(node):
                moments.add(node.rows(start, stop))
                self.advance(node, stop - start)
        mean, variance = moments.result()
        self.found.append((mean, variance))
        return self.found[-1]

    def _group_norm(
        self,
        features: StreamedTensor,
        weight: Tensor | None,
        bias: Tensor | None,
        count: int,
        channels: int,
        pixels: int,
        groups: int,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        if groups != channels:
            raise NotStreamableError("a group norm with fewer groups than channels needs the whole image")
        node = features.node
        mean, variance = self._statistics(node)
        rows = strips.normalised(node, mean, variance, weight, bias, eps, self.device)
        result = StreamedTensor(Node(node.shape, node.dtype, rows, [node]), self)
        return result, mean[None], variance[None]

    def _var_mean(
        self, features: StreamedTensor, dim: Sequence[int], *, correction: float | None = None, keepdim: bool = False
    ) -> tuple[Tensor, Tensor]:
        if sorted(axis % 4 for axis in dim) != [2, 3] or not keepdim:
            raise NotStreamableError("statistics of other axes than height and width need the whole image")
        mean, variance = (
            value[None, :, None, None].to(self.device, features.dtype) for value in self._statistics(features.node)
        )
        pixels = features.shape[2] * features.shape[3]
        return variance * (pixels / max(pixels - (1 if correction is None else correction), 1)), mean


def _as_group_norm(
    features: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Take the arguments of `F.instance_norm`."""
    return torch.group_norm(features, features.shape[1], weight, bias, eps)


def _without_numbers(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _work(func: Any, args: tuple[Any, ...], result: Tensor) -> float:
    """Floating-point operations of a convolution; 0 for any other operation."""
    if func is not aten.convolution.default:
        return 0.0
    weight, transposed = args[1], args[6]
    positions = args[0].shape[2:].numel() if transposed else result.shape[2:].numel()
    return float(2 * weight.numel() * positions)
