"""Video files of translations: written in segments, which a killed run keeps, and joined without loss at the end."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from heapq import merge
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cyclestyle.errors import DISK_ERRORS, DiskError, ImageError
from cyclestyle.files import atomic_write, remove_unfinished, unfinished_name, write_json
from cyclestyle.images.pixels import as_rgb, to_levels
from cyclestyle.images.video.reading import (
    Video,
    VideoCodec,
    VideoFormat,
    conversion_flags,
    main_stream,
    opened,
    turned,
)

if TYPE_CHECKING:
    import av

SEGMENT = 100
"""Frames of a segment, which begins with a key frame. A run that is killed loses at most so many."""

_RGB_MATRIX, _BT709 = 0, 1  # FFmpeg's numbers


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """How a codec is written.

    Attributes:
        encoders: FFmpeg's names; the first that is there is taken.
        crf: default of the constant rate factor; None for a codec that has none.
        max_crf: its highest value, the strongest compression.
        options: what else the encoder is told.
        even: whether width and height must be even where chroma is subsampled.
        least: smallest width and height. libx265 writes beyond its buffers where a frame is smaller.
        tag: tag of the stream in MP4 and MOV files, where the usual one is not played everywhere.
    """

    encoders: tuple[str, ...]
    crf: int | None = None
    max_crf: int = 63
    options: Mapping[str, str] = field(default_factory=dict)
    even: bool = True
    least: int = 1
    tag: str = ""


ENCODERS: Mapping[VideoCodec, Encoder] = {
    "h264": Encoder(encoders=("libx264",), crf=18, max_crf=51),
    "hevc": Encoder(
        encoders=("libx265",), crf=20, max_crf=51, options={"x265-params": "log-level=none"}, least=64, tag="hvc1"
    ),
    "vp9": Encoder(encoders=("libvpx-vp9",), crf=24, options={"b": "0", "row-mt": "1", "cpu-used": "4"}, even=False),
    "av1": Encoder(encoders=("libsvtav1", "libaom-av1"), crf=28),
    "ffv1": Encoder(encoders=("ffv1",), options={"level": "3"}, even=False),
    "mpeg4": Encoder(encoders=("mpeg4",), options={"qmin": "2", "qmax": "2"}),
}


@dataclass(frozen=True)
class Encoding:
    """How videos are written.

    Args:
        codec: the codec; None for the first one of the container that FFmpeg can write.
        crf: constant rate factor, the lower, the better; None for the default of the codec.

    Raises:
        ValueError: `crf` is out of its range, or the codec has none.
    """

    codec: VideoCodec | None = None
    crf: int | None = None

    def __post_init__(self) -> None:
        if self.crf is None:
            return
        if self.codec is not None and ENCODERS[self.codec].crf is None:
            raise ValueError(f"{self.codec} has no constant rate factor; leave --crf out")
        highest = 51 if self.codec is None else ENCODERS[self.codec].max_crf
        if not 0 <= self.crf <= highest:
            raise ValueError(f"crf must be from 0 to {highest}, got {self.crf}")

    def of(self, container: VideoFormat) -> tuple[VideoCodec, str]:
        """Return the codec for a container, and FFmpeg's name of its encoder.

        Raises:
            ImageError: this FFmpeg has no encoder for it, or the container does not take it.
        """
        if self.codec is not None and self.codec not in container.codecs:
            raise ImageError(f"{container.name} does not take {self.codec}; choose {' or '.join(container.codecs)}")
        for codec in container.codecs if self.codec is None else (self.codec,):
            for name in ENCODERS[codec].encoders:
                if _can_encode(name):
                    return codec, name
        raise ImageError(f"this FFmpeg cannot write {self.codec or container.name}; choose another --video_codec")


class VideoWriter:
    """Encodes the frames of a video, a segment at a time. Segments of an earlier run are kept.

    Args:
        video: the source.
        target: path of the result; the segments are in a hidden folder beside it.
        container: container of the result.
        encoding: how it is written.

    Attributes:
        next: number of the first frame that is missing.

    Raises:
        ImageError: the codec is not there, or does not take frames of this size.
    """

    def __init__(self, video: Video, target: Path, container: VideoFormat, encoding: Encoding) -> None:
        self.video, self.target, self.container, self.encoding = video, target, container, encoding
        self.codec, self._encoder = encoding.of(container)
        self.pixel_format = _pixel_format(video, self._encoder, ENCODERS[self.codec])
        self.folder = segments_folder(target)
        self.next = finished_frames(target)
        self._first = self.next
        self._repeated: list[int] = []
        self._temporary = self.folder / unfinished_name("segment.nut")
        self._output: av.container.OutputContainer | None = None
        self._stream: av.VideoStream | None = None

    def add(self, tensor: Tensor, number: int, *, repeated: bool = False) -> None:
        """Encode a frame, unless an earlier run has.

        Args:
            tensor: `(C, H, W)` in [-1, 1], or in levels in uint8, upright.
            number: number of the frame. They must come in order.
            repeated: whether it stands in place of one that cannot be decoded.

        Raises:
            DiskError: the disk is full, broken or read-only.
            ValueError: the tensor contains NaN.
        """
        if number < self.next:
            return
        frame = self._frame(tensor, number)
        with _one_line(self.target):
            if self._stream is None:
                self._begin()
            assert self._stream is not None
            self._mux(self._stream.encode(frame))
        if repeated:
            self._repeated.append(number)
        self.next = number + 1
        if self.next - self._first == SEGMENT:
            self.end_segment()

    def end_segment(self) -> None:
        """Complete the segment, however short it is.

        Raises:
            DiskError: the disk is full, broken or read-only.
        """
        if self._stream is None or self._output is None:
            return
        with _one_line(self.target):
            self._mux(self._stream.encode(None))
            self._output.close()
            final = self.folder / f"{self._first:09d}-{self.next:09d}.nut"
            if self._repeated:
                write_json(final.with_suffix(".json"), self._repeated)
            self._temporary.replace(final)
        self._output = self._stream = None
        self._first, self._repeated = self.next, []

    def abandon(self) -> None:
        """Drop the segment that is not complete."""
        if self._output is not None:
            with suppress(OSError):
                self._output.close()
        self._output = self._stream = None
        self._temporary.unlink(missing_ok=True)

    def finish(self) -> list[int]:
        """Join all segments and the other streams of the source to the result, and remove the segments.

        Returns:
            The numbers of the frames that were repeated.

        Raises:
            DiskError: the disk is full, broken or read-only.
            ImageError: the result cannot be written.
        """
        self.end_segment()
        segments = _segments(self.target)
        lists = (path.with_suffix(".json") for path in segments)
        repeated = [number for path in lists if path.exists() for number in json.loads(path.read_text())]
        with _one_line(self.target), atomic_write(self.target) as file:
            _join(self.video, segments, Path(file.name), self.container, ENCODERS[self.codec].tag)
        shutil.rmtree(self.folder, ignore_errors=True)
        return repeated

    def _begin(self) -> None:
        import av

        os.environ.setdefault("SVT_LOG", "1")  # the encoder of AV1 reports errors only
        self.folder.mkdir(parents=True, exist_ok=True)
        self._output = av.open(str(self._temporary), "w", format="nut")
        row = ENCODERS[self.codec]
        options = dict(row.options)
        crf = row.crf if self.encoding.crf is None else self.encoding.crf
        if crf is not None and row.crf is not None:
            options["crf"] = str(crf)
        stream: Any = self._output.add_stream(self._encoder, rate=self.video.rate, options=options)
        context: Any = stream.codec_context
        context.width, context.height = self.video.size
        context.pix_fmt = self.pixel_format
        context.time_base = 1 / self.video.rate  # frames are numbered; `_join` gives them their times
        for name, value in self._tags().items():
            setattr(context, name, value)
        if self.video.aspect:
            context.sample_aspect_ratio = self.video.aspect
        self._stream = stream

    def _tags(self) -> dict[str, int]:
        colours = self.video.colours
        is_yuv = not self.pixel_format.startswith(("gbr", "bgr", "rgb"))
        matrix = _BT709 if colours.matrix == _RGB_MATRIX and is_yuv else colours.matrix
        tags = {"color_primaries": colours.primaries, "color_trc": colours.transfer, "colorspace": matrix}
        return {"color_range": colours.conversion(0)["color_range"] if is_yuv else colours.range, **tags}

    def _frame(self, tensor: Tensor, number: int) -> "av.VideoFrame":
        import av

        bits = self.video.depth if tensor.is_floating_point() else 8
        pixels = turned(to_levels(as_rgb(tensor.detach().cpu()), bits), -self.video.rotation % 360)
        rgb = av.VideoFrame.from_ndarray(pixels, format="rgb24" if bits == 8 else "rgb48le")
        known = self.video.colours.conversion(self.video.size[1])
        frame = rgb.reformat(
            format=self.pixel_format,
            src_color_range=2,
            dst_colorspace=known["colorspace"],
            dst_color_range=known["color_range"],
            interpolation=conversion_flags(),
        )
        for name, value in self._tags().items():
            setattr(frame, name, value)
        frame.pts, frame.time_base = number, 1 / self.video.rate
        return frame

    def _mux(self, packets: Sequence["av.Packet[Any]"]) -> None:
        assert self._output is not None
        for packet in packets:
            self._output.mux(packet)


def segments_folder(target: Path) -> Path:
    """Return the hidden folder of the segments of a video."""
    return target.parent / f".{target.name}.segments"


def finished_frames(target: Path) -> int:
    """Return how many frames the segments of a video have, without a gap."""
    segments = _segments(target)
    return int(segments[-1].stem[-9:]) if segments else 0


def prepare_segments(source: Path, target: Path, settings: Mapping[str, Any]) -> None:
    """Keep the segments of an earlier run if it had the same source and settings, and remove any others.

    Raises:
        CycleStyleError: the folder cannot be written.
    """
    import av

    state = source.stat()
    versions = {name: list(version) for name, version in av.library_versions.items()}
    written = {"source": [str(source.absolute()), state.st_size, state.st_mtime_ns], "ffmpeg": versions, **settings}
    key = json.loads(json.dumps(written))
    folder = segments_folder(target)
    try:
        same = json.loads((folder / "settings.json").read_text()) == key
    except (OSError, ValueError):
        same = False
    if same:
        remove_unfinished(folder)
        return
    shutil.rmtree(folder, ignore_errors=True)
    write_json(folder / "settings.json", key)


def remove_empty_segments(target: Path) -> None:
    """Remove the folder of the segments of a video of which nothing was written."""
    if not finished_frames(target):
        shutil.rmtree(segments_folder(target), ignore_errors=True)


def _segments(target: Path) -> list[Path]:
    """The finished segments from the first frame on, as far as there is no gap."""
    found: list[Path] = []
    stop = 0
    for path in sorted(segments_folder(target).glob("[0-9]*-[0-9]*.nut")):
        if int(path.stem[:9]) == stop:
            found.append(path)
            stop = int(path.stem[-9:])
    return found


@contextmanager
def _one_line(target: Path) -> Iterator[None]:
    """Name the file that cannot be written. FFmpeg's errors are also those of the system."""
    import av

    try:
        yield
    except (av.FFmpegError, OSError) as error:
        kind = DiskError if error.errno in DISK_ERRORS else ImageError
        reason = os.strerror(error.errno) if kind is DiskError and error.errno else error.strerror or error
        raise kind(f"cannot write {target}: {reason}") from error


def _can_encode(name: str) -> bool:
    import av

    return name in av.codecs_available and _is_encoder(name)


def _is_encoder(name: str) -> bool:
    import av

    try:
        return av.Codec(name, "w").is_encoder
    except ValueError:
        return False


def _pixel_format(video: Video, encoder: str, row: Encoder) -> str:
    """The layout of the samples: that of the source where the encoder takes it, and otherwise the next one.

    Raises:
        ImageError: the encoder takes no frames of this size.
    """
    import av

    width, height = video.size
    if min(video.size) < row.least:
        raise ImageError(
            f"cannot translate {video.path}: {encoder} takes no frames of less than {row.least} pixels, got "
            f"{width}×{height}; choose another --video_codec"
        )
    known = {str(one.name) for one in av.Codec(encoder, "w").video_formats or ()}
    own: str = video.pixel_format.replace("yuvj", "yuv").replace("yuva", "yuv")
    deep = ("yuv420p10le", "yuv444p10le") if video.depth > 8 else ()
    colours = not own.startswith(("gray", "mono", "ya", "pal"))  # a translation has colours
    candidates: list[str] = [*((own,) if colours else ()), *deep, "yuv420p", "yuv444p"]
    for name in candidates:
        shape = av.VideoFormat(name, 2, 2)
        steps = 2 // shape.chroma_width(), 2 // shape.chroma_height()
        fits = not row.even or all(length % step == 0 for length, step in zip(video.size, steps, strict=True))
        if name in known and fits:
            return name
    raise ImageError(
        f"cannot translate {video.path}: {encoder} takes no frames of the odd size {width}×{height}; "
        "choose --video_codec h264, hevc, vp9 or ffv1"
    )


def _join(video: Video, segments: Sequence[Path], path: Path, container: VideoFormat, tag: str) -> None:
    """Copy the packets of the segments and of the other streams of the source into one file."""
    import av

    options = {"movflags": "+faststart+use_metadata_tags"} if container.muxer in ("mp4", "mov") else {}
    if container.muxer in ("mp4", "mov") and video.time_base.numerator == 1:
        options["video_track_timescale"] = str(video.time_base.denominator)
    with (
        opened(video.path) as source,
        av.open(str(segments[0])) as first,
        av.open(str(path), "w", format=container.muxer, options=options) as output,
    ):
        stream = output.add_stream_from_template(first.streams.video[0], opaque=True)
        stream.time_base = video.time_base
        if tag and container.muxer in ("mp4", "mov"):
            stream.codec_context.codec_tag = tag
        if video.display_matrix:
            stream.set_display_matrix(video.display_matrix)
        main = main_stream(source)
        stream.metadata.update(_described(main.metadata))
        stream.disposition = main.disposition
        copies = _copies(source, output)
        output.metadata.update(_described(source.metadata))
        output.set_chapters(source.chapters())
        packets = merge(_timed(video, segments, stream), _copied(source, copies), key=_seconds)
        for packet in packets:
            output.mux(packet)


def _described(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata without what describes the streams of the source rather than its content."""
    own = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration")
    return {
        name: value
        for name, value in metadata.items()
        if name.lower() not in own and not name.startswith(("_STATISTICS", "BPS", "NUMBER_OF_", "DURATION"))
    }


def _copies(
    source: "av.container.InputContainer", output: "av.container.OutputContainer"
) -> "dict[int, av.stream.Stream]":
    """New streams for the audio and the subtitles of the source that the container takes, by their index."""
    copies: dict[int, Any] = {}
    for stream in (*source.streams.audio, *source.streams.subtitles):
        if stream.codec_context is None or stream.codec_context.codec.canonical_name not in output.supported_codecs:
            continue
        copy = output.add_stream_from_template(stream, opaque=True)
        copy.time_base = stream.time_base
        copy.metadata.update(_described(stream.metadata))
        copy.disposition = stream.disposition
        copies[stream.index] = copy
    return copies


def _copied(
    source: "av.container.InputContainer", copies: Mapping[int, "av.stream.Stream"]
) -> Iterator["av.Packet[Any]"]:
    if not copies:
        return
    for packet in source.demux([source.streams[index] for index in copies]):
        if packet.size and packet.dts is not None:
            packet.stream = copies[packet.stream_index]
            yield packet


def _timed(video: Video, segments: Sequence[Path], stream: "av.VideoStream") -> Iterator["av.Packet[Any]"]:
    """The packets of the segments, with the times of the source.

    A decoder needs packets in an order that differs from that of the frames. The time of decoding of the n-th packet is
    that of showing the frame n - d, where d is the largest number of packets that one of them comes too early.
    """
    times = video.timestamps
    delay = max(position - number for position, (number, _) in enumerate(_numbered(segments)))
    step = max(1, round(1 / (video.rate * video.time_base)))
    for position, (number, packet) in enumerate(_numbered(segments)):
        early = position - delay
        packet.stream = stream
        packet.time_base = video.time_base
        packet.pts = times[number]
        packet.dts = times[early] if early >= 0 else times[0] + early * step
        packet.duration = times[number + 1] - times[number] if number + 1 < len(times) else video.last_duration
        yield packet


def _numbered(segments: Sequence[Path]) -> Iterator[tuple[int, "av.Packet[Any]"]]:
    """The packets of the segments with the numbers of their frames. A segment is in memory at a time."""
    import av

    for segment in segments:
        with av.open(str(segment)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
        order = sorted(range(len(packets)), key=lambda position: packets[position].pts or 0)
        numbers = dict(zip(order, range(int(segment.stem[:9]), int(segment.stem[-9:])), strict=True))
        yield from ((numbers[position], packet) for position, packet in enumerate(packets))


def _seconds(packet: "av.Packet[Any]") -> float:
    return float((packet.dts or 0) * packet.time_base)


def check_can_write(video: Video, container: VideoFormat, encoding: Encoding) -> None:
    """Check, before the work starts, that the translation of a video can be written.

    Raises:
        ImageError: see `VideoWriter`.
        CycleStyleError: PyAV is missing.
    """
    codec, encoder = encoding.of(container)
    _pixel_format(video, encoder, ENCODERS[codec])
