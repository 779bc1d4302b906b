"""Networks on images of any size in bounded memory, with the result of the whole image.

`stream` calls a function, such as the forward pass of a network, with a `StreamedTensor` in place of the image. It has
the shape of an image but no numbers: each operation on it only notes how rows of its result follow from rows of its
input (`strips.py`). Rows are computed where something is needed of the whole image: the statistics of a norm, or the
result. They are computed strip by strip, and kept in memory or in a scratch file if the next convolution reads them.
Each convolution is therefore computed once, as on the whole image, and at most a few activations are kept.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from cyclestyle.networks import strips
from cyclestyle.networks.moments import Moments
from cyclestyle.networks.strips import Rows
from cyclestyle.scratch import RowStore

Statistics = Literal["exact", "reduced"]
ReadRows = Callable[[int, int], Tensor]
"""Returns rows `start` to `stop` of an image, `(1, C, stop - start, W)`."""
WriteRows = Callable[[int, Tensor], None]
"""Takes the rows `(1, C, h, W)` of the result that begin with row `start`."""
OnProgress = Callable[[float], None]
"""Called with the share that is done, in (0, 1]."""

MAX_SOURCES = 2
"""Kept activations that an operation reads together. One more, and their combination is kept instead."""
STRIP_BYTES = 2**26
"""Memory of the activations of a strip, where the budget allows it."""

aten = torch.ops.aten


class NotStreamableError(Exception):
    """An operation needs the whole image in a way that is not a norm."""


class Node:
    """An activation `(1, C, H, W)` of which rows are computed on request, or kept.

    Args:
        shape: `(1, C, H, W)`.
        dtype: type of the numbers.
        compute: returns the rows `start` to `stop`.
        parents: the activations that it reads.
        work: floating-point operations of a convolution; 0 for an operation that may be repeated.
    """

    def __init__(
        self, shape: torch.Size, dtype: torch.dtype, compute: Rows, parents: Sequence["Node"] = (), work: float = 0.0
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self.rows = compute
        self.parents = tuple(parents)
        self.work = work
        self.kept: object = None

    def keep(self, kept: Any) -> None:
        """Read the rows from `kept` from now on."""
        self.kept, self.rows, self.parents, self.work = kept, kept.read, (), 0.0

    @property
    def bytes(self) -> int:
        """Memory of all rows."""
        return self.shape.numel() * self.dtype.itemsize

    @property
    def sources(self) -> int:
        """Number of kept activations that the rows are computed from."""
        return sum(parent.sources for parent in self.parents) if self.parents else 1

    @property
    def pending_work(self) -> float:
        """Floating-point operations that all rows take, less those of elementwise operations."""
        return self.work + sum(parent.pending_work for parent in self.parents)

    @property
    def pending_bytes(self) -> int:
        """Memory of all activations that are computed together with this one."""
        return self.bytes + sum(parent.pending_bytes for parent in self.parents)


class StreamedTensor(Tensor):
    """What a network sees in place of an image or an activation `(1, C, H, W)`: shape and type, without numbers."""

    node: Node
    stream: "_Stream"

    @staticmethod
    def __new__(cls, node: Node, stream: "_Stream") -> "StreamedTensor":  # noqa: ANN001, RUF100
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
        """Compute an instance norm as a group norm, which reaches `__torch_dispatch__` in one piece on every device."""
        if func is torch.nn.functional.instance_norm:
            features, options = (
                args[0],
                {**dict(zip(("mean", "var", "weight", "bias"), args[1:], strict=False)), **(kwargs or {})},
            )
            return torch.group_norm(
                features, features.shape[1], options.get("weight"), options.get("bias"), options.get("eps", 1e-5)
            )
        return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # annotated as a function that is no method
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note an operation."""
        stream = next(one.stream for one in tree_leaves((args, kwargs)) if isinstance(one, StreamedTensor))
        return stream.apply(func, args, kwargs or {})


@dataclass(frozen=True)
class Plan:
    """What streaming takes, known before any row is computed.

    Attributes:
        kept_bytes: largest sum of the activations that are kept at a time.
        largest_row_bytes: memory of the activations that one row takes where it takes most.
        work: floating-point operations, the unit of progress.
    """

    kept_bytes: int
    largest_row_bytes: int
    work: float


@dataclass(frozen=True, kw_only=True)
class Room:
    """Where activations are kept.

    Attributes:
        memory: bytes for activations, strips included. What does not fit is kept in a scratch file.
        folder: folder of the scratch file.
        device: that of the parameters, on which strips are computed.
        dtype: type of the image, that of the parameters.
    """

    memory: int = 0
    folder: Path = Path()
    device: torch.device = field(default_factory=partial(torch.device, "cpu"))
    dtype: torch.dtype = torch.float32

    @property
    def strip_bytes(self) -> int:
        """Memory of the activations of a strip; convolutions take some more, for which there is room beside it."""
        return min(STRIP_BYTES, self.memory // 8)


def plan(function: Callable[[Tensor], Tensor], shape: Sequence[int], room: Room) -> Plan:
    """Find out what streaming an image through `function` takes, without computing any row of it.

    Args:
        function: see `stream`.
        shape: `(1, C, H, W)` of the image.
        room: device and type of the parameters.

    Raises:
        NotStreamableError: an operation of `function` cannot be streamed.
    """
    planner = _Stream(room, planned=True)
    _call(function, Node(torch.Size(shape), room.dtype, _nothing), planner)
    return Plan(planner.peak, planner.largest_row, planner.work)


def stream(
    function: Callable[[Tensor], Tensor],
    shape: Sequence[int],
    read: ReadRows,
    write: WriteRows,
    room: Room,
    *,
    work: float = 1.0,
    on_progress: OnProgress | None = None,
    statistics: Sequence[tuple[Tensor, Tensor]] | None = None,
) -> None:
    """Call `function` on an image that is read and written by rows.

    Without `statistics` the result is that of the whole image, up to the rounding of float32. With them every norm
    uses those that are given, in the order of the calls. All rows then pass through the whole network in one sweep,
    and each convolution holds the few rows that the next one still needs.

    Args:
        function: operations on `(1, C, H, W)` with a bounded receptive field, and instance norms.
        shape: `(1, C, H, W)` of the image.
        read: returns rows of the image.
        write: takes rows of the result.
        room: where activations are kept, in the memory of the processor or on its disk.
        work: that of the plan.
        on_progress: called after each strip.
        statistics: mean and variance of each channel for each norm, from `collect_statistics`.

    Raises:
        NotStreamableError: an operation of `function` cannot be streamed.
        OSError: the disk is full.
    """
    running = _Stream(room)
    running.on_work = None if on_progress is None else lambda done: on_progress(min(done / work, 1.0))
    running.given = None if statistics is None else list(statistics)
    _call(function, Node(torch.Size(shape), room.dtype, read), running, write)


def collect_statistics(
    function: Callable[[Tensor], Tensor], shape: Sequence[int], read: ReadRows, room: Room
) -> list[tuple[Tensor, Tensor]]:
    """Return mean and variance of each channel, `(C,)`, that every norm of `function` finds on an image, in order."""
    running = _Stream(room)
    _call(function, Node(torch.Size(shape), room.dtype, read), running, _nothing)
    return running.found


class _Stream:
    """The operations of one call, and where their results are kept."""

    def __init__(self, room: Room, *, planned: bool = False) -> None:
        self.device, self.folder, self.planned = room.device, room.folder, planned
        self.strip_bytes = room.strip_bytes
        self.memory = room.memory - 4 * room.strip_bytes  # of what is kept
        self.live = self.in_memory = self.peak = self.largest_row = 0
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
        if changed is None:
            return result
        changed.node = result.node
        return changed

    def _noted(self, func: Any, build: Callable[..., Rows], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        meta = tree_map_only(Tensor, _without_numbers, (args, {k: v for k, v in kwargs.items() if k != "device"}))
        expected = func(*meta[0], **meta[1])
        expected = expected[0] if isinstance(expected, tuple) else expected
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
            node.keep(_Window(node, self))
            return
        store = self._store(node)
        for start, stop in self._strips(node):
            rows = node.rows(start, stop)
            store.write(start, rows)
            if moments is not None:
                moments.add(rows)
            self._advance(node, stop - start)
        node.keep(store)

    def _store(self, node: Node) -> Any:
        in_memory = self.in_memory + node.bytes <= self.memory
        folder = None if in_memory else self.folder
        store = _Planned() if self.planned else _OnDevice(node.shape, node.dtype, folder, self.device)
        self._count(node.bytes, in_memory)
        weakref.finalize(store, self._count, -node.bytes, in_memory)
        return store

    def _count(self, size: int, in_memory: bool) -> None:
        self.live += size
        self.in_memory += size if in_memory else 0
        self.peak = max(self.peak, self.live)

    def _strips(self, node: Node) -> list[tuple[int, int]]:
        """The strips of an activation; none if it is only planned, and all of its work is counted at once."""
        height = node.shape[2]
        self.largest_row = max(self.largest_row, node.pending_bytes // height)
        if self.planned:
            self._advance(node, height)
            return []
        rows = max(1, int(self.strip_bytes * height / node.pending_bytes))
        return [(start, min(start + rows, height)) for start in range(0, height, rows)]

    def _advance(self, node: Node, rows: int) -> None:
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
            for start, stop in self._strips(node):
                moments.add(node.rows(start, stop))
                self._advance(node, stop - start)
        self.found.append(moments.result())
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
        rows = strips.normalised(node, mean, variance, weight, bias, eps)
        result = StreamedTensor(Node(node.shape, node.dtype, rows, [node]), self)
        return result, mean[None], variance[None]

    def _var_mean(
        self, features: StreamedTensor, dim: Sequence[int], *, correction: float | None = None, keepdim: bool = False
    ) -> tuple[Tensor, Tensor]:
        if sorted(axis % 4 for axis in dim) != [2, 3] or not keepdim:
            raise NotStreamableError("statistics of other axes than height and width need the whole image")
        mean, variance = (value[None, :, None, None].to(features.dtype) for value in self._statistics(features.node))
        pixels = features.shape[2] * features.shape[3]
        return variance * (pixels / max(pixels - (1 if correction is None else correction), 1)), mean


class _OnDevice(RowStore):
    """A store whose rows are read to the device of the parameters."""

    def __init__(self, shape: torch.Size, dtype: torch.dtype, folder: Path | None, device: torch.device) -> None:
        super().__init__(shape, dtype, folder)
        self.device = device

    def read(self, start: int, stop: int) -> Tensor:
        return super().read(start, stop).to(self.device)


class _Planned:
    """Stands for a store that is only planned."""

    read = staticmethod(lambda start, stop: _nothing(start, stop))


class _Window:
    """The last rows of an activation, for a sweep over all rows in which no row is computed twice."""

    def __init__(self, node: Node, stream: _Stream) -> None:
        self.compute, self.stream = node.rows, stream
        self.first, self.held = 0, torch.empty(0)
        self.sweep, self.lowest, self.wanted = -1, 0, 0

    def read(self, start: int, stop: int) -> Tensor:
        """Return rows; those that the last strip has not asked for are forgotten."""
        if self.sweep != self.stream.sweep:
            self.sweep, self.wanted, self.lowest = self.stream.sweep, self.lowest, start
        self.lowest = min(self.lowest, start)
        end = self.first + (self.held.shape[2] if self.held.ndim == 4 else 0)
        if end == self.first or start < self.first or start > end:
            self.first, self.held = start, self.compute(start, stop)
        elif stop > end:
            keep_from = min(max(self.wanted, self.first), start, end)
            self.held = torch.cat([self.held[:, :, keep_from - self.first :], self.compute(end, stop)], 2)
            self.first = keep_from
        return self.held[:, :, start - self.first : stop - self.first]


def _call(
    function: Callable[[Tensor], Tensor], image: Node, running: _Stream, write: Callable[..., Any] | None = None
) -> None:
    """Call the function, and compute the rows of its result, which are not kept."""
    with torch.no_grad():
        result = function(StreamedTensor(image, running))
        if not isinstance(result, StreamedTensor):
            raise NotStreamableError("the result does not depend on the image row by row")
        node = result.node
        del result
        for start, stop in running._strips(node):
            if write is not None:
                running.sweep += 1
                write(start, node.rows(start, stop))
                running._advance(node, stop - start)


def _nothing(*_: Any) -> Any:
    """Stands for the rows of an image that is only planned, and for a result that nobody wants."""


def _without_numbers(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _work(func: Any, args: tuple[Any, ...], result: Tensor) -> float:
    """Floating-point operations of a convolution; 0 for any other operation."""
    if func is not aten.convolution.default:
        return 0.0
    weight, transposed = args[1], args[6]
    positions = args[0].shape[2:].numel() if transposed else result.shape[2:].numel()
    return float(2 * weight.numel() * positions)
