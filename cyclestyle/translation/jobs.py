"""What is translated: files and folder trees, with images and videos of any formats, and where the results go."""

import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cyclestyle.errors import DataError
from cyclestyle.files import checked_input
from cyclestyle.images import (
    EXTENSIONS,
    VIDEO_EXTENSIONS,
    VIDEO_FORMATS,
    WRITTEN,
    Format,
    VideoCodec,
    VideoFormat,
    check_has_video,
    format_of,
    has_video,
    is_video,
    target_format,
    video_format_of,
    video_target,
)
from cyclestyle.images.folders import list_folder, name_some

_OR_FOLDER = "; or make the folder, if it is one"


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
class Plan:
    """What there is to translate.

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


def make_plan(
    inputs: Sequence[str | Path],
    output: Path,
    *,
    overwrite: bool = False,
    format: Format | None = None,
    codec: VideoCodec | None = None,
    shards: Sequence[tuple[int, int]] = (),
) -> Plan:
    """Plan the translation of images, videos and folder trees. Files with a known ending are not opened.

    Args:
        inputs: images and folders.
        output: folder of the results, which get the names and the subfolders of the sources; or, for one image, the
            file of its result.
        overwrite: translate images whose target exists as well.
        format: format of translated images; None for that of each source.
        codec: codec of translated videos; None for the default of each container.
        shards: each `(k, n)` takes the k-th of n parts, counted from 1, of what those before it take. A hash of its
            relative name decides in which part an image is, so that machines and processes need not list the folder
            at the same time.

    Raises:
        CycleStyleError: an input is a video, and PyAV is missing.
        DataError: an input does not exist, there are no images, the output is or contains an input, or two images
            have the same target.
    """
    paths = [Path(checked_input(one)) for one in inputs]
    if _is_file_name(output, paths):
        chosen = _format_of_file(paths[0], output, format)
        jobs, plan = [Job(paths[0], output, chosen, paths[0].parent)], Plan([])
        _check_targets(jobs)
    else:
        plan = Plan([])
        jobs = [job for path in paths for job in _jobs(path, output, format, codec, plan)]
        jobs = _unique(jobs) if len(paths) > 1 else jobs
        _check_targets(jobs)
        if not jobs and not plan.failures:
            more = f"; it has {name_some(plan.others)}" if plan.others else ""
            raise DataError(f"{', '.join(map(str, paths))} contains no images{more}")
    for number, count in shards:
        jobs = [job for job in jobs if _part(job, count) == number]
    pending = jobs if overwrite else _without_existing(jobs)
    return Plan(pending, len(jobs) - len(pending), plan.others, plan.failures)


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


def _jobs(path: Path, output: Path, format: Format | None, codec: VideoCodec | None, plan: Plan) -> list[Job]:
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


def _part(job: Job, parts: int) -> int:
    return zlib.crc32(os.fsencode(job.source.relative_to(job.root).as_posix())) % parts + 1


def _without_existing(jobs: Sequence[Job]) -> list[Job]:
    """The images whose target does not exist. Each folder is listed once, which is faster than a look at each file."""
    parents = {job.target.parent for job in jobs}
    names = {parent: set(os.listdir(parent)) if parent.is_dir() else set() for parent in parents}
    return [job for job in jobs if job.target.name not in names[job.target.parent]]


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
