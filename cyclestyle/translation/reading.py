"""The images of files, read in batches a little ahead of being translated."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cyclestyle.errors import ImageError
from cyclestyle.images import (
    FRAMES,
    WRITTEN,
    Encoding,
    Header,
    ImageFile,
    Kept,
    Source,
    ValueRange,
    Values,
    VideoFile,
    VideoFormat,
    check_can_write,
    check_not_empty,
    feathered,
    find_mask,
    finished_frames,
    read_header,
    read_mask,
    read_video,
)
from cyclestyle.translation.jobs import Job

MAX_BATCH_PIXELS = 8 * 512 * 512  # maximum number of pixels in a batch of more than one image
WINDOW = 1000  # images that may wait for others of their size, so that batches are full
READ_AHEAD = 64  # headers that are read before they are needed
BATCHES_AHEAD = 2  # batches that are read before they are needed
WARM_UP = 32  # frames before the first unfinished one of a video that methods with a memory see again

Item = TypeVar("Item")


@dataclass(frozen=True)
class Piece:
    """One image of a file, which most files have only one of.

    Attributes:
        job: the file.
        number: number of the image in the file.
        count: number of images in the file.
        size: width and height in pixels.
        problem: why the file cannot be translated; empty where nothing is wrong with it.
    """

    job: Job
    number: int = 0
    count: int = 1
    size: tuple[int, int] = (1, 1)
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Which part of each image is translated.

    Attributes:
        paths: masks for all images, or folders with one for each; see `find_mask`. An image is kept outside of all.
        feather: pixels over which the border of a mask is soft; see `feathered`.
        regions: whether each of them is the region of a style, which the method takes as further channels.
    """

    paths: Sequence[Path]
    feather: int = 0
    regions: bool = False


@dataclass(frozen=True)
class Ranges:
    """What -1 and 1 stand for, for networks that translate numbers.

    Attributes:
        source: the range of the images; None for colours.
        target: that of the translations.
        dtype: type of the results; None: that of each image, or one that holds the range.
    """

    source: ValueRange | None = None
    target: ValueRange | None = None
    dtype: str | None = None

    def written(self, source: Source) -> Values | None:
        """Return how the translation of an image is written as numbers; None for one in colours."""
        own = source.dtype or f"uint{source.depth}"
        if self.target is not None:
            return Values(self.target, self.dtype or self.target.best_type(own))
        if not source.dtype:
            return None
        coloured = self.source is not None and own not in ("uint8", "uint16")
        dtype = self.dtype or ("uint8" if coloured else own)
        return Values(ValueRange.of_type(dtype), dtype)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images of one size, and where they come from.

    Attributes:
        images: `(N, C, H, W)` in [-1, 1], or in levels of 0 to 255 in uint8; the regions of styles are channels after
            those of the images, 1 inside and -1 outside.
        pieces: which image of which file each one is.
        sources: what their files have beside the pixels.
        failures: error messages of files, by their paths, whose images are left out.
    """

    images: Tensor
    pieces: list[Piece]
    sources: list[Source]
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def video(self) -> Path | None:
        """The video that the images are consecutive frames of; None if they are not."""
        return self.pieces[0].job.source if self.pieces and self.pieces[0].job.is_video else None

    def split(self) -> list["Batch"]:
        """Return the batch as batches of one image."""
        return [
            replace(self, images=image, pieces=[piece], sources=[source], failures={})
            for image, piece, source in zip(torch.split(self.images, 1), self.pieces, self.sources, strict=True)
        ]

    def without_images(self, failures: dict[str, str]) -> "Batch":
        """Return the batch with failures in place of its images."""
        return replace(self, images=self.images[:0], pieces=[], sources=[], failures={**self.failures, **failures})


def read_batches(
    jobs: Sequence[Job],
    *,
    channels: int = 3,
    batch_size: int = 8,
    threads: int = 1,
    masks: Masks | None = None,
    ranges: Ranges | None = None,
    encoding: Encoding | None = None,
    warm_up: int = 0,
    pin_memory: bool = False,
) -> Generator[Batch, None, None]:
    """Yield the images of files in batches.

    Images are in [-1, 1]; one of 8 bits with more than `MAX_BATCH_PIXELS` pixels is in levels of 0 to 255, in uint8,
    unless there are regions. Images of one size share a batch; an animation, a video or the pages of a document have
    batches of their own, in their order. Images that cannot be decoded are left out, and `failures` names them.

    Args:
        jobs: the files.
        channels: number of channels of the images.
        batch_size: maximum number of images in a batch.
        threads: how many decode images, ahead of what is translated; 0: each batch is read when it is needed.
        masks: which part of each image is translated; None for all of it.
        ranges: what -1 and 1 stand for; None for colours.
        encoding: how videos are written.
        warm_up: frames before the first unfinished one of a video that are read again.
        pin_memory: put batches into memory from which a GPU copies while it computes.
    """
    groups = Groups(jobs, batch_size, encoding, warm_up)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        reader = _Reader(channels, masks, ranges or Ranges(), pool if threads > 1 else None)
        batches = map(reader.read, groups)
        for batch in batches if threads == 0 else ahead(batches, BATCHES_AHEAD):
            yield replace(batch, images=batch.images.pin_memory()) if pin_memory else batch


def ahead(items: Iterator[Item], count: int) -> Iterator[Item]:
    """Yield items that a thread takes from an iterator before they are needed, at most `count` of them."""
    end: Any = object()
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, items, end) for _ in range(count))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(thread.submit(next, items, end))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)


class Groups(Iterable[list[Piece]]):
    """Lists of images of equal size, at most `batch_size` long, while the headers are read.

    An image waits for others of its size until `WINDOW` images wait. Then those that have waited longest are given,
    however few they are.

    Args:
        jobs: the images.
        batch_size: maximum number of images in a batch.
        encoding: how videos are written.
        warm_up: frames before the first unfinished one of a video that are read again.
    """

    def __init__(
        self, jobs: Sequence[Job], batch_size: int, encoding: Encoding | None = None, warm_up: int = 0
    ) -> None:
        self.jobs = jobs
        self.batch_size = batch_size
        self.encoding = encoding or Encoding()
        self.warm_up = warm_up

    def __iter__(self) -> Iterator[list[Piece]]:
        waiting: dict[tuple[int, int], list[Piece]] = {}
        count = 0  # of the images that wait
        for job, header in _read_headers(self.jobs, self.encoding):
            if isinstance(header, str):
                yield [Piece(job, problem=header)]
                continue
            limit = self._limit(header)
            if header.frames > 1 or job.is_video:
                for start in range(self._first(job, header), header.frames, limit):
                    numbers = range(start, min(start + limit, header.frames))
                    yield [Piece(job, number, header.frames, header.size) for number in numbers]
                continue
            group = waiting.setdefault(header.size, [])
            group.append(Piece(job, size=header.size))
            count += 1
            if len(group) == limit or count >= WINDOW:
                ready = waiting.pop(header.size if len(group) == limit else next(iter(waiting)))
                count -= len(ready)
                yield ready
        yield from waiting.values()

    def _first(self, job: Job, header: Header) -> int:
        """The first image of a file that is read; the last frame of a video is read again if all are there."""
        if not job.is_video:
            return 0
        return max(0, min(finished_frames(job.target), header.frames - 1) - self.warm_up)

    def _limit(self, header: Header) -> int:
        if header.frames > 1 and FRAMES.get(header.format) == "pages":
            return 1  # their sizes may differ
        width, height = header.size
        return max(1, min(self.batch_size, MAX_BATCH_PIXELS // (width * height)))


class _Reader:
    """Reads batches. The file of the last image stays open, for the next image of an animation."""

    def __init__(self, channels: int, masks: Masks | None, ranges: Ranges, pool: ThreadPoolExecutor | None) -> None:
        self.channels, self.masks, self.ranges, self.pool = channels, masks, ranges, pool
        self._file: ImageFile | VideoFile | None = None
        self._last_masks: tuple[Any, Tensor, NDArray[np.float32]] | None = None  # often those of the next image too

    def read(self, pieces: list[Piece]) -> Batch:
        """Read a batch; images that cannot be read are left out of it."""
        alone = self.pool is not None and all(piece.count == 1 and not piece.job.is_video for piece in pieces)
        results = list(self.pool.map(self._try, pieces) if self.pool and alone else map(self._try, pieces))
        found = [(piece, result) for piece, result in zip(pieces, results, strict=True) if not isinstance(result, str)]
        return Batch(
            images=torch.stack([image for _, (image, _) in found]) if found else torch.empty(0, self.channels, 4, 4),
            pieces=[piece for piece, _ in found],
            sources=[source for _, (_, source) in found],
            failures={
                str(piece.job.source): result
                for piece, result in zip(pieces, results, strict=True)
                if isinstance(result, str)
            },
        )

    def _try(self, piece: Piece) -> tuple[Tensor, Source] | str:
        try:
            return self._read(piece)
        except ImageError as error:
            return str(error)

    def _read(self, piece: Piece) -> tuple[Tensor, Source]:
        if piece.problem:
            raise ImageError(piece.problem)
        # A large image, which has a batch for itself, takes a quarter of the memory as levels of 0 to 255.
        regions = self.masks is not None and self.masks.regions
        levels = piece.size[0] * piece.size[1] > MAX_BATCH_PIXELS and not regions
        file = self._opened(piece)
        try:
            image, source = file.read(piece.number, self.channels, levels=levels, own=self.masks is not None)
        finally:
            if piece.number + 1 == piece.count:
                file.close()
                self._file = None if file is self._file else self._file
        if image.shape[1:] != piece.size[::-1] and FRAMES.get(source.format) != "pages":
            raise ImageError(f"cannot read {piece.job.source}: its size is not the one that its header gives")
        source.values = self.ranges.written(source)
        if source.own is not None:
            masks, inside = self._read_masks(piece.job, image.shape[1:])
            source.kept, source.own = Kept(source.own, inside), None
            image = torch.cat([image, 2 * masks - 1]) if regions else image
        return image, source

    def _read_masks(self, job: Job, size: torch.Size) -> tuple[Tensor, NDArray[np.float32]]:
        """The masks of an image, `(R, H, W)`, and the share of its translation, `(H, W)`; both in [0, 1]."""
        assert self.masks is not None
        paths = [find_mask(mask, job.source, job.root) for mask in self.masks.paths]
        last = self._last_masks
        if last is not None and last[0] == (paths, size):
            return last[1], last[2]
        masks = torch.stack([read_mask(path, job.source, size) for path in paths])
        inside = masks.amax(0)
        check_not_empty(inside, paths, job.source)
        self._last_masks = (paths, size), masks, feathered(inside, self.masks.feather).numpy()
        return self._last_masks[1:]

    def _opened(self, piece: Piece) -> ImageFile | VideoFile:
        """The file of an image; that of several images stays open until the last of them is read."""
        if piece.count == 1 and not piece.job.is_video:
            return ImageFile(piece.job.source, self.ranges.source, self.channels)
        if self._file is None or self._file.path != piece.job.source:
            if self._file is not None:
                self._file.close()
            if not piece.job.is_video:
                self._file = ImageFile(piece.job.source, self.ranges.source, self.channels)
            elif self.ranges != Ranges():
                raise ImageError(f"{piece.job.source} is a video, but the network translates numbers, not colours")
            else:
                self._file = VideoFile(piece.job.source)
        return self._file


def _read_headers(jobs: Sequence[Job], encoding: Encoding) -> Iterator[tuple[Job, Header | str]]:
    """The header of each image in its order, or an error message; a few are read ahead."""
    ahead: deque[tuple[Job, Future[Header | str]]] = deque()
    with ThreadPoolExecutor(4) as pool:
        try:
            for job in jobs:
                ahead.append((job, pool.submit(_header, job, encoding)))
                if len(ahead) > READ_AHEAD:
                    first, header = ahead.popleft()
                    yield first, header.result()
            for first, header in ahead:
                yield first, header.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _header(job: Job, encoding: Encoding) -> Header | str:
    try:
        if isinstance(job.format, VideoFormat):
            video = read_video(job.source)
            check_can_write(video, job.format, encoding)
            return Header("video", video.upright_size, len(video.timestamps))
        header = read_header(job.source)
    except ImageError as error:
        return str(error)
    kind = FRAMES.get(header.format)
    if header.frames > 1 and job.format.frames != kind:
        images = "pages" if kind == "pages" else "images"
        able = [one.name for one in WRITTEN.values() if one.frames == kind]
        return (
            f"{job.source} has {header.frames} {images}, which {job.format.name} cannot hold; "
            f"choose --format {' or '.join(able)}"
        )
    return header
