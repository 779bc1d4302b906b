"""The loop that translates files: read, translate, write."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from signal import Signals

import torch

from cyclestyle.errors import ImageError
from cyclestyle.images import Encoding, remove_empty_segments
from cyclestyle.signals import StopSignals
from cyclestyle.speed.setup import default_workers
from cyclestyle.translation.engine import Engine
from cyclestyle.translation.jobs import Job
from cyclestyle.translation.large import no_room
from cyclestyle.translation.progress import Progress
from cyclestyle.translation.reading import WARM_UP, Batch, Masks, Ranges, read_batches
from cyclestyle.translation.writer import Manifest, Writer


@dataclass(frozen=True, kw_only=True)
class Options:
    """How files are read and written.

    Attributes:
        batch_size: images of one size that are translated together, by methods that need not work on each for long.
        threads: how many decode images; None: 1, and with a GPU one for each other core, at most 4.
        masks: which part of each image is translated; None for all of it.
        dtype: type of the numbers that are written; None: that of each image, or one that holds the range.
        quality: of lossy formats, 1 to 100; None for that of each source.
        encoding: how videos are written.
        manifest: where to list the files that are written.
        progress: whether to show bars, on a terminal.
    """

    batch_size: int = 8
    threads: int | None = None
    masks: Masks | None = None
    dtype: str | None = None
    quality: int | None = None
    encoding: Encoding = field(default_factory=Encoding)
    manifest: Manifest | None = None
    progress: bool = True


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was done.

    Attributes:
        total: number of files that there were to translate.
        written: number of files that are written.
        seconds: duration of translation, without reading and writing.
        peak_memory: bytes on a GPU; 0 without one.
        failures: error messages by file. Videos of which frames could not be decoded are written all the same.
        left: number of files that are neither written nor failed, because the work was stopped.
        cut: files with values outside of the range, which were cut.
        disk_error: why the disk takes no more; empty if it does.
        signal: what stopped the work, if anything did.
    """

    total: int
    written: int = 0
    seconds: float = 0.0
    peak_memory: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    left: int = 0
    cut: frozenset[str] = frozenset()
    disk_error: str = ""
    signal: Signals | None = None

    @classmethod
    def joined(cls, reports: Sequence["Report"]) -> "Report":
        """Return what several processes have done together."""
        return cls(
            total=sum(one.total for one in reports),
            written=sum(one.written for one in reports),
            seconds=max(one.seconds for one in reports),
            peak_memory=max(one.peak_memory for one in reports),
            failures={path: text for one in reports for path, text in one.failures.items()},
            left=sum(one.left for one in reports),
            cut=frozenset().union(*(one.cut for one in reports)),
            disk_error=next(filter(None, (one.disk_error for one in reports)), ""),
            signal=next(filter(None, (one.signal for one in reports)), None),
        )


def translate_files(
    engine: Engine,
    jobs: Sequence[Job],
    options: Options | None = None,
    *,
    on_batch: Callable[[Batch], None] | None = None,
) -> Report:
    """Translate files: images, animations, pages and videos of any sizes and formats.

    A file that cannot be read, translated or written fails alone. After Ctrl-C or SIGTERM, and when the disk is full,
    what is translated is written, and the rest is left. A video that is stopped goes on behind its last segment when
    it is translated again.

    Args:
        engine: what translates.
        jobs: the files.
        options: how they are read and written.
        on_batch: called after each batch.
    """
    options = options or Options()
    on_gpu = engine.device.type == "cuda"
    batches = read_batches(
        jobs,
        channels=engine.in_channels,
        # Methods that take styles work long on each image, so that each is written as soon as it is done.
        batch_size=1 if engine.method.takes_styles else options.batch_size,
        threads=(default_workers() if on_gpu else 1) if options.threads is None else options.threads,
        masks=options.masks,
        ranges=Ranges(*engine.ranges, options.dtype),
        encoding=options.encoding,
        warm_up=WARM_UP if engine.steady else 0,
        pin_memory=on_gpu,
    )
    writer = Writer(quality=options.quality, encoding=options.encoding, manifest=options.manifest, on_gpu=on_gpu)
    with StopSignals() as stop, closing(batches), writer, Progress(len(jobs), engine, options.progress) as progress:
        for batch in batches:
            start = writer.now()
            translated = _translated(engine, batch)
            writer.add(translated, start)
            progress.add(translated)
            if on_batch is not None:
                on_batch(translated)
            if stop.received or writer.disk_error:
                break
        writer.finish()
    failures = writer.failures | writer.damaged
    for job in jobs:
        if job.is_video and str(job.source) in writer.failures:
            remove_empty_segments(job.target)
    return Report(
        total=len(jobs),
        written=writer.written,
        seconds=writer.seconds,
        peak_memory=torch.cuda.max_memory_allocated() if on_gpu else 0,
        failures=failures,
        left=len(jobs) - writer.written - len(writer.failures),
        cut=frozenset(writer.cut),
        disk_error=writer.disk_error,
        signal=stop.received,
    )


def _translated(engine: Engine, batch: Batch) -> Batch:
    """Return a batch with its images translated, on the CPU; one that does not fit into memory fails alone."""
    if not batch.pieces:
        return batch
    if engine.steady is not None:
        engine.steady.watch(batch.video)
    try:
        on_gpu = engine.device.type == "cuda"  # where copies from and to pinned memory need not be waited for
        images = batch.images.to(engine.device, non_blocking=on_gpu)
        return replace(batch, images=engine(images).to("cpu", non_blocking=on_gpu))
    except (MemoryError, RuntimeError, OSError, ImageError, ValueError) as error:
        reason = str(error) if isinstance(error, ValueError) else no_room(error)
        if reason is None:
            raise
    if len(batch.images) == 1:
        path = str(batch.pieces[0].job.source)
        return batch.without_images({path: f"cannot translate {path}: {reason}"})
    parts = [_translated(engine, one) for one in batch.split()]
    return Batch(
        images=torch.cat([part.images for part in parts]),
        pieces=[piece for part in parts for piece in part.pieces],
        sources=[source for part in parts for source in part.sources],
        failures={path: text for part in (batch, *parts) for path, text in part.failures.items()},
    )
