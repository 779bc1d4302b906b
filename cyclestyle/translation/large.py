"""Images that are larger than memory: whole where they fit, else streamed."""

import errno
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclestyle.errors import ImageError
from cyclestyle.images import from_levels, nearest_levels
from cyclestyle.networks.streaming import (
    OnProgress,
    Plan,
    Room,
    Statistics,
    collect_statistics,
    plan,
    stream,
)
from cyclestyle.scratch import available_memory, format_bytes, free_room, parse_bytes
from cyclestyle.translation.steady import Steady

WHOLE_MEMORY = 2_500_000_000
"""Bytes that the activations of whole images may take, or half of the free memory if that is less."""
STREAMED_MEMORY = 1_000_000_000
"""Bytes for the activations of an image that is streamed, or half of the free memory. More makes it hardly faster."""
WHOLE = 4
"""Memory of translating a whole image, in units of what streaming it keeps; measured 3.5 on a ResNet."""
ROWS = 4
"""Memory of a strip of one row with what its convolutions read around it, in units of the row."""
SMALL = 512 * 512
"""Pixels of a batch that is translated as a whole without planning, unless `memory` is set."""
REDUCED_SIDE = 1024
"""Longest side of the image that the statistics `reduced` are taken from."""
INDEXABLE = 2**31 - 1
"""Numbers of the largest activation that GPUs compute: many of their kernels count with 32 bits."""

Translate = Callable[[Tensor], Tensor]
Plans = dict[tuple[torch.Size, Room], Plan]
"""Plans that were made for a function, by the shape of an image: making one takes a tenth of a second."""


@dataclass(frozen=True, kw_only=True)
class LargeImages:
    """How images are translated that do not fit into memory as a whole.

    Args:
        memory: bytes for activations, or a text such as `4GB`; None: 2.5 GB for whole images and 1 GB for one that is
            streamed, or half of the free memory if that is less.
        scratch: folder of the scratch file; None: the system's folder for temporary files.
        statistics: `exact`, those of the whole image, with the result of the whole image; or `reduced`, those of the
            image at 1,024 pixels, which needs no scratch file.

    Raises:
        CycleStyleError: `scratch` does not exist or cannot be written.
        ValueError: `memory` is not an amount, or `statistics` is unknown.
    """

    memory: int | str | None = None
    scratch: str | Path | None = None
    statistics: Statistics = "exact"

    def __post_init__(self) -> None:
        if self.memory is not None:
            parse_bytes(self.memory)
        if self.scratch is not None:
            free_room(self.folder)
        if self.statistics not in get_args(Statistics):
            raise ValueError(f"statistics must be exact or reduced, got {self.statistics!r}")

    @property
    def folder(self) -> Path:
        """Folder of the scratch file."""
        return Path(tempfile.gettempdir() if self.scratch is None else self.scratch)

    def bytes(self, device: torch.device, default: int = STREAMED_MEMORY) -> int:
        """Return the bytes for activations: `memory`, or at most `default` of what is free on the device."""
        if self.memory is not None:
            return parse_bytes(self.memory)
        if device.type == "cuda":
            unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # PyTorch keeps this
            return (torch.cuda.mem_get_info(device)[0] + unused) // 2
        return min(default, available_memory() // 2)


def translate_within(
    function: Translate,
    images: Tensor,
    settings: LargeImages,
    room: Room,
    plans: Plans,
    one_pass: bool = True,
    on_progress: OnProgress | None = None,
    steady: Steady | None = None,
) -> Tensor:
    """Translate images of any size in bounded memory.

    Args:
        function: translates `(N, C, H, W)` in [-1, 1] of any height and width.
        images: `(N, C, H, W)` in [-1, 1], or in levels of 0 to 255 in uint8.
        settings: how much memory there is.
        room: device and type of the parameters.
        plans: those that were made for `function`; new ones are added.
        one_pass: whether `function` may be streamed.
        on_progress: called with the share of an image that is done, while it is streamed.
        steady: averages the results over the images, which are consecutive frames.

    Returns:
        The translations, `(N, C', H, W)`, of the type and on the device of `images`.

    Raises:
        ImageError: the image does not fit; see `check_fits`.
        ValueError: the result contains NaN.
    """
    fits = settings.memory is None and images.shape[0] * images.shape[2] * images.shape[3] <= SMALL
    found = check_fits(function, images.shape, settings, room, plans) if one_pass and not fits else None
    if found is None:
        translated = _whole(function, images, room)
        return translated if steady is None else steady.mixed(images, translated)
    if len(images) > 1:
        each = (
            translate_within(function, one, settings, room, plans, one_pass, on_progress, steady)
            for one in torch.split(images, 1)
        )
        return torch.cat(list(each))
    result: list[Tensor] = []

    def write(start: int, rows: Tensor) -> None:
        if not result:
            channels, (height, width) = rows.shape[1], images.shape[2:]
            empty = torch.empty(height, width, channels, dtype=images.dtype, device=images.device)
            result.append(empty.permute(2, 0, 1)[None])
        result[0][:, :, start : start + rows.shape[2]] = nearest_levels(rows) if images.dtype == torch.uint8 else rows

    room = _room(settings, room)
    # Without norms, all rows pass through in one sweep
    statistics: list[tuple[Tensor, Tensor]] | None = None if found.norms else []
    if found.norms and settings.statistics == "reduced":
        side = max(images.shape[2:])
        size = [max(1, round(length * min(1.0, REDUCED_SIDE / side))) for length in images.shape[2:]]
        # On the CPU: GPUs have no interpolation of uint8 with antialiasing, and another one would change the result
        small = F.interpolate(images.cpu(), size, mode="bilinear", antialias=True)
        statistics = collect_statistics(function, small.shape, _reader(small, room), room)
    stream(
        function,
        images.shape,
        _reader(images, room),
        write,
        room,
        work=found.work,
        on_progress=on_progress,
        statistics=statistics,
    )
    return result[0] if steady is None else steady.mixed(images, result[0])


def check_fits(function: Translate, shape: torch.Size, settings: LargeImages, room: Room, plans: Plans) -> Plan | None:
    """Check, before the work starts, that images can be translated, and say how.

    Returns:
        None if the images are translated as a whole, or cannot be streamed; else what streaming each of them takes.

    Raises:
        ImageError: memory or scratch disk are too small.
    """
    key = torch.Size((1, *shape[1:])), room
    try:
        found = plans[key] = plans.get(key) or plan(function, *key)
    except Exception:  # such as NotStreamableError; if the error has another reason, the whole image raises it again
        return None
    indexable = room.device.type == "cpu" or shape[0] * found.largest <= INDEXABLE
    if indexable and WHOLE * found.kept_bytes * shape[0] <= settings.bytes(room.device, WHOLE_MEMORY):
        return None
    memory = settings.bytes(room.device)
    size = f"an image of {shape[3]}×{shape[2]}"
    if ROWS * found.largest_row_bytes > memory:
        needed = format_bytes(ROWS * found.largest_row_bytes)
        raise ImageError(f"one row of {size} takes {needed}, but the memory is {format_bytes(memory)}; add memory")
    in_memory = _room(settings, room)
    if (
        found.norms
        and settings.statistics == "exact"
        and found.kept_bytes > in_memory.memory - 4 * in_memory.strip_bytes
    ):
        free = free_room(settings.folder)
        if found.kept_bytes > free:
            raise ImageError(
                f"{size} needs {format_bytes(found.kept_bytes)} in the scratch folder {settings.folder}, which has "
                f"{format_bytes(free)} left; name another with --scratch"
            )
    return found


def no_room(error: BaseException) -> str | None:
    """Return why an error means that memory or disk are too small; None if it means something else."""
    text = str(error)
    if isinstance(error, ImageError):
        return text
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "the scratch disk is full; name another folder with --scratch"
    out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text
    if out_of_memory or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return "it does not fit into memory; set a lower --memory, or make the image smaller"
    return None


def _whole(function: Translate, images: Tensor, room: Room) -> Tensor:
    there = images.to(room.device)
    if images.dtype != torch.uint8:
        return function(there.to(room.dtype)).to(images)
    return nearest_levels(function(from_levels(there).to(room.dtype))).to(images.device)


def _reader(images: Tensor, room: Room) -> Callable[[int, int], Tensor]:
    def read(start: int, stop: int) -> Tensor:
        rows = images[:, :, start:stop].to(room.device)
        return (from_levels(rows) if rows.dtype == torch.uint8 else rows).to(room.dtype)

    return read


def _room(settings: LargeImages, room: Room) -> Room:
    return replace(room, memory=settings.bytes(room.device), folder=settings.folder)
