"""What `predict` translates: files and folder trees, with images and videos of any sizes and formats."""

import glob
import os
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cyclestyle.data.folders import list_folder, name_some
from cyclestyle.data.workers import default_workers, worker_options
from cyclestyle.errors import DataError, ImageError
from cyclestyle.images import (
    EXTENSIONS,
    FRAMES,
    VIDEO_EXTENSIONS,
    VIDEO_FORMATS,
    WRITTEN,
    Encoding,
    Format,
    Header,
    ImageFile,
    Source,
    VideoCodec,
    VideoFile,
    VideoFormat,
    check_can_write,
    check_has_video,
    finished_frames,
    format_of,
    has_video,
    is_video,
    read_header,
    read_image,
    read_video,
    target_format,
    to_tensor,
    video_format_of,
    video_target,
)

MAX_BATCH_PIXELS = 8 * 512 * 512  # maximum number of pixels in a batch of more than one image
_OR_FOLDER = "; or make the folder, if it is one"
WINDOW = 1000  # images that may wait for others of their size, so that batches are full
READ_AHEAD = 64  # headers that are read before they are needed
WARM_UP = 32  # frames before the first unfinished one of a video that methods with a memory see again


@dataclass(frozen=True)
class Job:
    """An image or a video to translate.

    Attributes:
        source: path of the file.
        target: path of its translation.
        format: format of the translation.
        root: the input folder that contains the source, directly or in subfolders.
    """

    source: Path
    target: Path
    format: Format | VideoFormat
    root: Path

    @property
    def is_video(self) -> bool:
        """Whether the file is a video."""
        return isinstance(self.format, VideoFormat)


@dataclass(frozen=True)
class PredictionPlan:
    """What `predict` has to do.

    Attributes:
        jobs: the images and videos to translate, in the order of the listing.
        kept: number of images that are left out because their target exists.
        others: files in the input folders that are not translated.
        failures: error message of each folder that cannot be read.
    """

    jobs: list[Job]
    kept: int = 0
    others: list[Path] = field(default_factory=list)
    failures: dict[Path, str] = field(default_factory=dict)


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


class Origins:
    """Where the images of a batch come from, and what comes with them.

    It is neither a list nor a dataclass, so that Lightning, which converts batches and moves them to the device, leaves
    it as it is.

    Attributes:
        pieces: the images.
        sources: what their files have beside the pixels.
    """

    def __init__(self, pieces: list[Piece], sources: list[Source]) -> None:
        self.pieces = pieces
        self.sources = sources

    @property
    def video(self) -> Path | None:
        """The video that the images are consecutive frames of; None if they are not."""
        return self.pieces[0].job.source if self.pieces and self.pieces[0].job.is_video else None


def plan_prediction(
    inputs: Sequence[str | Path],
    output: Path,
    *,
    overwrite: bool = False,
    format: Format | None = None,
    codec: VideoCodec | None = None,
    shard: tuple[int, int] | None = None,
) -> PredictionPlan:
    """Plan the translation of images, videos and folder trees. Files with a known ending are not opened.

    Args:
        inputs: images and folders.
        output: folder of the results, which get the names and the subfolders of the sources; or, for one image, the
            file of its result.
        overwrite: translate images whose target exists as well.
        format: format of translated images; None for that of each source.
        codec: codec of translated videos; None for the default of each container.
        shard: `(k, n)` takes the k-th of n parts, counted from 1. A hash of its relative name decides in which part
            an image is, so that machines need not list the folder at the same time.

    Raises:
        CycleStyleError: an input is a video, and PyAV is missing.
        DataError: an input does not exist, there are no images, the output is or contains an input, or two images
            have the same target.
    """
    paths = [Path(_checked(one)) for one in inputs]
    if _is_file_name(output, paths):
        chosen = _format_of_file(paths[0], output, format)
        jobs, plan = [Job(paths[0], output, chosen, paths[0].parent)], PredictionPlan([])
        _check_targets(jobs)
    else:
        plan = PredictionPlan([])
        jobs = [job for path in paths for job in _jobs(path, output, format, codec, plan)]
        jobs = _unique(jobs) if len(paths) > 1 else jobs
        _check_targets(jobs)
        if not jobs and not plan.failures:
            more = f"; it has {name_some(plan.others)}" if plan.others else ""
            raise DataError(f"{', '.join(map(str, paths))} contains no images{more}")
    if shard is not None:
        jobs = [job for job in jobs if _part(job.source.relative_to(job.root), shard[1]) == shard[0]]
    pending = jobs if overwrite else _without_existing(jobs)
    return PredictionPlan(pending, len(jobs) - len(pending), plan.others, plan.failures)


class PredictionImages(pl.LightningDataModule):
    """Batches `{"images": (N, C, H, W), "origins": Origins, "failures": {...}}` of a plan.

    Images are in [-1, 1]; one of 8 bits with more than `MAX_BATCH_PIXELS` pixels is in levels of 0 to 255, in uint8,
    unless there are masks. The headers of the images are read a little ahead of translating. Images of one size share a
    batch; an animation, a video or the pages of a document have batches of their own, in their order. Images that
    cannot be decoded are left out of `images`, and `failures` has their error messages. Every process takes each n-th
    file of the plan, so that each is translated by exactly one.

    Args:
        plan: the images.
        channels: number of channels of the images.
        batch_size: maximum number of images in a batch.
        workers: number of loader processes; by default 1, and on a GPU as many as in training.
        masks: the regions of R styles. Each is a grey image of the size of the photos, white inside the region, or a
            folder with one such image for each photo, with the same name and any extension. Batches then have `masks`,
            `(N, R, H, W)` in [0, 1].
        encoding: how videos are written.
        steady: begin a video that is half done `WARM_UP` frames earlier.
    """

    def __init__(
        self,
        plan: PredictionPlan,
        *,
        channels: int = 3,
        batch_size: int = 8,
        workers: int | None = 0,
        masks: Sequence[Path] = (),
        encoding: Encoding | None = None,
        steady: bool = False,
    ) -> None:
        super().__init__()
        self.encoding = encoding or Encoding()
        self.steady = steady
        self.plan = plan
        self.channels = channels
        self.batch_size = batch_size
        self.workers = workers
        self.masks = masks

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return a loader of the batches of this process. Their number is not known in advance."""
        rank, processes = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        default = default_workers() if on_gpu else 1
        return DataLoader(
            _Images(self.channels, self.masks),
            sampler=Batches(
                self.plan.jobs[rank::processes], self.batch_size, self.encoding, WARM_UP if self.steady else 0
            ),
            batch_size=None,
            collate_fn=_identity,
            pin_memory=on_gpu,
            **worker_options(default if self.workers is None else self.workers),
        )


class Batches(Iterable[list[Piece]]):
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


class _Images(Dataset[dict[str, Any]]):
    """Reads batches. The file of the last image stays open, for the next image of an animation."""

    def __init__(self, channels: int, masks: Sequence[Path]) -> None:
        self.channels = channels
        self.masks = masks
        self._file: ImageFile | VideoFile | None = None

    def __getitem__(self, pieces: list[Piece]) -> dict[str, Any]:
        images, masks, sources, read, failures = [], [], [], [], {}
        for piece in pieces:
            try:
                image, source = self._read(piece)
                size = (image.shape[1], image.shape[2])
                masks.append([read_mask(mask, piece.job.source, size, piece.job.root) for mask in self.masks])
                images.append(image)
                sources.append(source)
                read.append(piece)
            except ImageError as error:
                failures[str(piece.job.source)] = str(error)
        batch = {
            "images": torch.stack(images) if images else torch.empty(0, self.channels, 4, 4),
            "origins": Origins(read, sources),
            "failures": failures,
        }
        if self.masks and images:
            batch["masks"] = torch.stack([torch.stack(regions) for regions in masks])
        return batch

    def _read(self, piece: Piece) -> tuple[Tensor, Source]:
        if piece.problem:
            raise ImageError(piece.problem)
        if self._file is None or self._file.path != piece.job.source:
            self._close()
            self._file = (VideoFile if piece.job.is_video else ImageFile)(piece.job.source)
        # A large image, which has a batch for itself, takes a quarter of the memory as levels of 0 to 255.
        large = piece.size[0] * piece.size[1] > MAX_BATCH_PIXELS and not self.masks
        image, source = self._file.read(piece.number, self.channels, levels=large)
        if piece.number + 1 == piece.count:
            self._close()
        pages = FRAMES.get(source.format) == "pages"
        if image.shape[1:] != piece.size[::-1] and not pages:
            raise ImageError(f"cannot read {piece.job.source}: its size is not the one that its header gives")
        return image, source

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


def read_mask(mask: Path, photo: Path, size: Sequence[int], root: Path) -> Tensor:
    """Read the mask of a photo.

    Args:
        mask: an image, or a folder of masks. In a folder, the mask is looked up first in the subfolder that
            corresponds to that of the photo below `root`, then in the folder itself.
        photo: path of the photo.
        size: height and width of the photo.
        root: folder of all photos.

    Returns:
        The mask, `(H, W)` in [0, 1], 1 where the image is white.

    Raises:
        ImageError: there is no mask, it is not an image, or its size is not that of the photo.
    """
    if mask.is_dir():
        folders = (mask / photo.parent.relative_to(root), mask)
        files = (path for folder in folders for path in sorted(folder.glob(f"{glob.escape(photo.stem)}.*")))
        found = [path for path in files if path.suffix.lower() in EXTENSIONS]
        if not found:
            raise ImageError(f"{mask} contains no mask {photo.stem}.png for {photo}")
        mask = found[0]
    image = to_tensor(read_image(mask, 1))[0]
    if image.shape != tuple(size):
        (height, width), (mask_height, mask_width) = size, image.shape
        raise ImageError(
            f"the mask {mask} is {mask_width}×{mask_height}, but {photo} is {width}×{height}; make them equal"
        )
    return (image + 1) / 2


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


def _identity(item: Any) -> Any:
    return item


def _checked(word: str | Path) -> str | Path:
    if not str(word):
        raise DataError("an input is empty; name an image or a folder of images")
    if not os.path.lexists(word):
        raise DataError(f"input {word} does not exist; expected an image or a folder of images")
    return word


def _is_file_name(output: Path, inputs: Sequence[Path]) -> bool:
    """Whether the output is the file of one image."""
    named = output.suffix.lower() in EXTENSIONS | VIDEO_EXTENSIONS
    one = len(inputs) == 1 and inputs[0].is_file()
    if output.is_dir() or not (named or output.exists() or (one and output.suffix)):
        return False
    if one and output.suffix:
        return True
    if output.exists():
        raise DataError(f"{output} is a file; the output must be a folder")
    raise DataError(f"{output} is the name of one image, but the input is not one image; name a folder")


def _format_of_file(source: Path, output: Path, chosen: Format | None) -> Format | VideoFormat:
    if is_video(source) != is_video(output):
        kinds = ("a video", "an image") if is_video(source) else ("an image", "a video")
        raise DataError(f"{source} is {kinds[0]}, but {output} is the name of {kinds[1]}; choose another name")
    if is_video(source):
        check_has_video(source)
        container = video_format_of(output)
        if container is None:
            known = ", ".join(ending for one in VIDEO_FORMATS for ending in one.endings)
            raise DataError(f"videos are not written as {output.suffix}; choose one of {known}{_OR_FOLDER}")
        return container
    by_name = format_of(output)
    if by_name is None or by_name.name not in WRITTEN:
        known = ", ".join(WRITTEN)
        raise DataError(f"images are not written as {output.suffix}; choose one of {known}{_OR_FOLDER}")
    if chosen not in (None, by_name):
        raise DataError(f"--format {chosen.name} contradicts the name {output}; leave one of them out")
    return by_name


def _jobs(path: Path, output: Path, format: Format | None, codec: VideoCodec | None, plan: PredictionPlan) -> list[Job]:
    """The images and videos of one input. What is left out is added to the plan."""
    if not path.is_dir():
        if is_video(path):
            check_has_video(path)
        return [_job(path, path.parent, output, format, codec)]
    real, real_output = os.path.realpath(path), os.path.realpath(output)
    if real == real_output:
        raise DataError(f"input and output are both {path}; choose another folder for the output")
    if _is_below(real, real_output):
        raise DataError(f"the output {output} contains the input {path}; choose another folder for the output")
    listing = list_folder(path)
    plan.others.extend(listing.others)
    files = listing.images
    if has_video():
        files = sorted(files + listing.videos, key=Path.as_posix)
    else:
        plan.others.extend(listing.videos)
    plan.failures.update(listing.unreadable)
    parents = {parent: os.path.realpath(parent) for parent in {file.parent for file in files}}
    folders = {
        parent: output / parent.relative_to(path)
        for parent, real in parents.items()
        if not _is_below(real, real_output)
    }
    return [
        _job(file, path, folder, format, codec) for file in files if (folder := folders.get(file.parent)) is not None
    ]


def _job(source: Path, root: Path, folder: Path, format: Format | None, codec: VideoCodec | None) -> Job:
    """The translation of an image or a video into a folder."""
    if is_video(source):
        container, name = video_target(source, codec)
        return Job(source, folder / name, container, root)
    chosen, name = target_format(source)
    if format is not None and format is not chosen:
        name = (source.stem if source.suffix.lower() in EXTENSIONS else source.name) + format.endings[0]
        chosen = format
    return Job(source, folder / name, chosen, root)


def _unique(jobs: Iterable[Job]) -> list[Job]:
    """Without images that were named twice, by themselves and by a folder for instance, to the same target."""
    return list({(os.path.abspath(job.source), job.target): job for job in jobs}.values())


def _check_targets(jobs: Sequence[Job]) -> None:
    """Refuse to write over an input, or two images to one path."""
    parents = {path.parent for job in jobs for path in (job.source, job.target)}
    real = {parent: os.path.realpath(parent) for parent in parents}
    sources = {(real[job.source.parent], job.source.name) for job in jobs}
    targets: dict[tuple[str, str], Job] = {}
    for job in jobs:
        target = real[job.target.parent], job.target.name
        if target in sources:
            raise DataError(f"{job.target} is an input and would be overwritten; choose another folder for the output")
        other = targets.setdefault(target, job)
        if other is not job:
            raise DataError(
                f"{other.source} and {job.source} would both be written to {job.target}; "
                "rename one of them, or translate them into two folders"
            )


def _part(name: Path, parts: int) -> int:
    return zlib.crc32(os.fsencode(name.as_posix())) % parts + 1


def _without_existing(jobs: Sequence[Job]) -> list[Job]:
    """The images whose target does not exist. Each folder is listed once, which is faster than a look at each file."""
    parents = {job.target.parent for job in jobs}
    names = {parent: set(os.listdir(parent)) if parent.is_dir() else set() for parent in parents}
    return [job for job in jobs if job.target.name not in names[job.target.parent]]


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
