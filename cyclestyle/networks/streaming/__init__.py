"""Networks on images of any size in bounded memory, with the result of the whole image.

`stream` calls a function, such as the forward pass of a network, with a `StreamedTensor` in place of the image. It has
the shape of an image but no numbers: each operation on it only notes how rows of its result follow from rows of its
input (`strips.py`). Rows are computed where something is needed of the whole image: the statistics of a norm, or the
result. They are computed strip by strip, and kept in memory or in a scratch file if the next convolution reads them.
Each convolution is therefore computed once, as on the whole image, and at most a few activations are kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cyclestyle.networks.streaming.activations import Node, Room
from cyclestyle.networks.streaming.streamed import NotStreamableError, Stream, StreamedTensor

__all__ = ["NotStreamableError", "Plan", "Room", "collect_statistics", "plan", "stream"]

Statistics = Literal["exact", "reduced"]
Function = Callable[[Tensor], Tensor]
"""Operations on `(1, C, H, W)`, such as the forward pass of a network."""
ReadRows = Callable[[int, int], Tensor]
"""Returns rows `start` to `stop` of an image, `(1, C, stop - start, W)`."""
WriteRows = Callable[[int, Tensor], None]
"""Takes the rows `(1, C, h, W)` of the result that begin with row `start`."""
OnProgress = Callable[[float], None]
"""Called with the share that is done, in (0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What streaming takes, known before any row is computed.

    Attributes:
        kept_bytes: largest sum of the activations that are kept at a time.
        largest_row_bytes: memory of the activations that one row takes where it takes most.
        largest: numbers of the largest activation.
        work: floating-point operations, the unit of progress.
        norms: norms that need statistics of the whole image.
    """

    kept_bytes: int
    largest_row_bytes: int
    largest: int
    work: float
    norms: int


def plan(function: Function, shape: Sequence[int], room: Room) -> Plan:
    """Find out what streaming an image through `function` takes, without computing any row of it.

    Args:
        function: see `stream`.
        shape: `(1, C, H, W)` of the image.
        room: device and type of the parameters.

    Raises:
        NotStreamableError: an operation of `function` cannot be streamed.
    """
    planner = Stream(room, planned=True)
    _call(function, Node(torch.Size(shape), room.dtype, _no_rows), planner)
    return Plan(
        kept_bytes=planner.peak,
        largest_row_bytes=planner.largest_row,
        largest=planner.largest,
        work=planner.work,
        norms=len(planner.found),
    )


def stream(
    function: Function,
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
    running = Stream(room)
    image = Node(torch.Size(shape), room.dtype, read)
    if statistics is None:
        running.on_work = None if on_progress is None else lambda done: on_progress(min(done / work, 1.0))
        _call(function, image, running, write)
        return

    def write_counted(start: int, rows: Tensor) -> None:
        write(start, rows)
        if on_progress is not None:
            on_progress(min((start + rows.shape[2]) / shape[2], 1.0))

    running.given = list(statistics)
    _call(function, image, running, write_counted)


def collect_statistics(
    function: Function, shape: Sequence[int], read: ReadRows, room: Room
) -> list[tuple[Tensor, Tensor]]:
    """Return mean and variance of each channel, `(C,)`, that every norm of `function` uses on an image, in order."""
    running = Stream(room)
    _call(function, Node(torch.Size(shape), room.dtype, read), running)
    return running.found


def _call(function: Function, image: Node, running: Stream, write: WriteRows | None = None) -> None:
    """Call the function, and compute the rows of its result, which are not kept."""
    with torch.no_grad():
        result = function(StreamedTensor(image, running))
        if not isinstance(result, StreamedTensor):
            raise NotStreamableError("the result does not follow from the image row by row")
        node = result.node
        del result
        for start, stop in running.strips(node) if write or running.planned else ():
            assert write is not None
            running.sweep += 1
            write(start, node.rows(start, stop))
            running.advance(node, stop - start)


def _no_rows(start: int, stop: int) -> Tensor:
    raise AssertionError("an image that is only planned has no rows")
