"""Video files: their headers, and their frames one by one. PyAV is imported when a video is read."""

import importlib.util
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cyclestyle.errors import CycleStyleError, ImageError
from cyclestyle.images.pixels import LEVELS, to_levels
from cyclestyle.images.source import Source, with_channels

if TYPE_CHECKING:
    import av

VideoCodec = Literal["h264", "hevc", "vp9", "av1", "ffv1", "mpeg4"]
"""The codecs that translations are written in."""

SEEK_MARGIN = 32
"""Frames before the wanted one that a search aims at: indices tell decoding times, which are earlier."""

_FULL, _LIMITED = 2, 1  # FFmpeg's numbers of the ranges of samples, 0 to 255 and 16 to 235
_BT709, _BT601, _UNKNOWN = 1, 5, 2  # and of the matrices that separate luma and chroma
_HD = 720  # rows from which players take BT.709 where a file names no matrix


@dataclass(frozen=True, kw_only=True)
class VideoFormat:
    """A container that translations are written in.

    Attributes:
        name: its name, which is the first ending.
        endings: the endings of its files.
        muxer: FFmpeg's name.
        codecs: the video codecs that it takes; the first that can be written is the default.
    """

    name: str
    endings: tuple[str, ...]
    muxer: str
    codecs: tuple[VideoCodec, ...]


MKV = VideoFormat(
    name="mkv", endings=(".mkv",), muxer="matroska", codecs=("h264", "mpeg4", "hevc", "vp9", "av1", "ffv1")
)

VIDEO_FORMATS = (
    VideoFormat(name="mp4", endings=(".mp4", ".m4v"), muxer="mp4", codecs=("h264", "mpeg4", "hevc", "vp9", "av1")),
    VideoFormat(name="mov", endings=(".mov",), muxer="mov", codecs=("h264", "mpeg4", "hevc")),
    MKV,
    VideoFormat(name="webm", endings=(".webm",), muxer="webm", codecs=("vp9", "av1")),
)
"""Every container that translations are written in. Videos in others become MKV."""

_BY_ENDING = {ending: one for one in VIDEO_FORMATS for ending in one.endings}

VIDEO_EXTENSIONS = frozenset(_BY_ENDING) | {
    *(".avi", ".mpg", ".mpeg", ".m2v", ".mts", ".m2ts", ".vob", ".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2"),
    *(".ogv", ".ogm", ".mxf", ".y4m", ".nut"),
}
"""The endings of the files that are videos, in lower case. `.ts` is not one: it is TypeScript's too."""


@dataclass(frozen=True)
class Colours:
    """How the samples of a video stand for colours, in FFmpeg's numbers, which are those of ITU-T H.273."""

    range: int
    matrix: int
    primaries: int
    transfer: int

    def conversion(self, height: int) -> dict[str, int]:
        """Return range and matrix of the samples; where the file names none, what players take for them."""
        matrix = self.matrix
        if matrix not in (_BT709, _BT601, 4, 6, 7, 9):  # those that FFmpeg converts
            matrix = _BT709 if height >= _HD else _BT601
        return {"colorspace": matrix, "color_range": _FULL if self.range == _FULL else _LIMITED}


@dataclass(frozen=True)
class Video:
    """What is known of a video before its frames are decoded.

    Attributes:
        path: the file.
        size: width and height of the frames, as they are stored.
        rotation: degrees, counter-clockwise, by which a player turns the frames: 0, 90, 180 or 270.
        display_matrix: the matrix that says so, nine numbers; empty where there is none.
        pixel_format: FFmpeg's name of the layout of the samples.
        depth: 8, or 16 where samples have more than 8 bits.
        colours: what the samples mean.
        aspect: width of a pixel divided by its height; None if unknown.
        rate: mean number of frames in a second.
        time_base: the unit of timestamps in seconds.
        timestamps: when each frame is shown.
        last_duration: how long the last one is shown.
        counted: whether frames are told apart by their order, because the file gives them no timestamps.
    """

    path: Path
    size: tuple[int, int]
    rotation: int
    display_matrix: tuple[int, ...]
    pixel_format: str
    depth: int
    colours: Colours
    aspect: Fraction | None
    rate: Fraction
    time_base: Fraction
    timestamps: Sequence[int]
    last_duration: int
    counted: bool

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the frames as a player shows them."""
        return (self.size[1], self.size[0]) if self.rotation % 180 else self.size

    def seconds(self, number: int) -> float:
        """Return when a frame is shown, counted from the first one."""
        return float((self.timestamps[number] - self.timestamps[0]) * self.time_base)


def video_format_of(path: Path) -> VideoFormat | None:
    """Return the container that the ending of a path stands for; None where videos with it are not written."""
    return _BY_ENDING.get(path.suffix.lower())


def is_video(path: Path) -> bool:
    """Return whether the ending of a path is one of a video."""
    return path.suffix.lower() in VIDEO_EXTENSIONS


def video_target(source: Path, codec: VideoCodec | None = None) -> tuple[VideoFormat, str]:
    """Return the container of the translation of a video, and its file name.

    Both are those of the source where this container is written and takes the codec, and otherwise MKV.
    """
    own = video_format_of(source)
    if own is not None and codec in (None, *own.codecs):
        return own, source.name
    return MKV, f"{source.stem}.mkv"


def has_video() -> bool:
    """Return whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def check_has_video(path: Path) -> None:
    """Check that videos can be read.

    Raises:
        CycleStyleError: PyAV is missing.
    """
    if not has_video():
        raise CycleStyleError(f"{path} is a video, which needs PyAV: pip install av")


def read_video(path: Path) -> Video:
    """Read the header of a video, and the timestamps of its frames, and decode its first frame.

    All packets are read, but only those up to the first frame are decoded.

    Raises:
        ImageError: the file does not exist, or is not a video.
        CycleStyleError: PyAV is missing.
    """
    check_has_video(path)
    with opened(path) as container:
        stream = main_stream(container)
        times: list[int | None] = []
        last: tuple[int, int] = 0, 0  # time and duration of the frame that is shown last
        frame: av.VideoFrame | None = None
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard and _is_shown(packet):
                times.append(packet.pts)
                last = max(last, (packet.pts or 0, packet.duration or 0))
            if frame is None:
                frame = next(iter(_decode(packet)[0]), None)
        if frame is None:
            raise ImageError(f"cannot read {path}: none of its frames can be decoded")
        return _described(path, stream, frame, times, last[1])


class VideoFile:
    """An opened video, whose frames are read one by one. Reading them in their order decodes each one once.

    Args:
        path: the file.

    Raises:
        ImageError: the file does not exist, or is not a video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.video = read_video(path)
        self._context: Any = None
        self._frames: Iterator[tuple[int, av.VideoFrame]] = iter(())
        self._last: av.VideoFrame | None = None  # shown before the next one
        self._ahead: tuple[int, av.VideoFrame] | None = None
        self._next = -1

    def read(self, frame: int, channels: int, *, levels: bool = False, own: bool = False) -> tuple[Tensor, Source]:
        """Read a frame and turn it upright. In place of one that cannot be decoded stands the last one before it.

        Args:
            frame: number of the frame.
            channels: channels of the result: 1 (grey) or 3 (RGB).
            levels: return frames of 8 bits in levels of 0 to 255.
            own: keep the colours of the frame in `Source.own`.

        Returns:
            The pixels, `(channels, H, W)`, float32 in [-1, 1] or levels in uint8, and the source, whose `repeated` says
            whether the frame cannot be decoded.

        Raises:
            ImageError: the file can no longer be read.
        """
        if frame != self._next:
            self._start(frame)
        time = self.video.timestamps[frame]
        while self._ahead is not None and self._ahead[0] < time:
            self._last, self._ahead = self._ahead[1], next(self._frames, None)
        self._next = frame + 1
        good = self._ahead is not None and self._ahead[0] == time
        found = self._ahead[1] if self._ahead is not None and (good or self._last is None) else self._last
        if found is None:
            raise ImageError(f"cannot read {self.path}: frame {frame + 1} cannot be decoded, and none before it")
        source = Source(format="video", depth=self.video.depth, repeated=not good)
        if own:
            source.own = to_levels(_pixels(found, self.video, 3, True), self.video.depth)
        return _pixels(found, self.video, channels, levels), source

    def close(self) -> None:
        """Close the file."""
        if self._context is not None:
            self._context.__exit__(None, None, None)
        self._context = None

    def _start(self, frame: int) -> None:
        """Open the file and begin to decode near a frame."""
        self.close()
        self._context = opened(self.path)
        container = self._context.__enter__()
        stream = main_stream(container)
        start = 0
        if frame > SEEK_MARGIN and not self.video.counted:
            container.seek(self.video.timestamps[frame - SEEK_MARGIN], stream=stream)
            start = frame
        self._frames = self._decoded(container, stream)
        self._last, self._ahead = None, next(self._frames, None)
        if start and (self._ahead is None or self._ahead[0] > self.video.timestamps[start]):  # a bad index
            container.seek(stream.start_time or 0, stream=stream)
            self._frames = self._decoded(container, stream)
            self._ahead = next(self._frames, None)

    def _decoded(
        self, container: "av.container.InputContainer", stream: "av.VideoStream"
    ) -> Iterator[tuple[int, "av.VideoFrame"]]:
        """The frames that can be decoded, and when they are shown."""
        number = 0
        for packet in container.demux(stream):
            frames, failed = _decode(packet)
            for frame in frames:
                if self.video.counted:
                    time: int | None = self.video.timestamps[min(number, len(self.video.timestamps) - 1)]
                else:
                    time = frame.pts
                number += 1
                if time is not None and not frame.is_corrupt:
                    yield time, frame
            number += failed


def turned(pixels: NDArray[Any], degrees: int) -> NDArray[Any]:
    """Turn pixels `(H, W, C)` counter-clockwise by a multiple of 90 degrees."""
    return np.ascontiguousarray(np.rot90(pixels, degrees // 90))


@contextmanager
def opened(path: Path) -> Iterator["av.container.InputContainer"]:
    """Open a video for reading.

    Raises:
        ImageError: FFmpeg cannot open or read it.
    """
    import av

    av.logging.set_level(av.logging.PANIC)  # what is wrong is said in one line
    try:
        with av.open(str(path)) as container:
            yield container
    except av.FFmpegError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error


def main_stream(container: "av.container.InputContainer") -> "av.VideoStream":
    """Return the first video stream that is not a cover.

    Raises:
        ImageError: there is none.
    """
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            return stream
    raise ImageError(f"cannot read {container.name}: it has no video stream that can be decoded")


def _decode(packet: "av.Packet[Any]") -> tuple[list["av.VideoFrame"], bool]:
    """The frames that a packet completes, and whether it is broken."""
    import av

    try:
        return [frame for frame in packet.decode() if isinstance(frame, av.VideoFrame)], False
    except av.FFmpegError:
        return [], True


def _is_shown(packet: "av.Packet[Any]") -> bool:
    """Whether a packet has a frame to show. VP8 has packets that others only refer to."""
    hidden = packet.stream.codec_context.name == "vp8" and not bytes(packet)[0] & 0x10
    return not hidden


def _described(
    path: Path, stream: "av.VideoStream", frame: "av.VideoFrame", times: list[int | None], duration: int
) -> Video:
    from av.sidedata.sidedata import Type

    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    time_base = stream.time_base or 1 / rate
    step = max(1, round(1 / (rate * time_base)))
    known = sorted(time for time in times if time is not None)
    counted = len(set(known)) != len(times)
    if counted:
        start = stream.start_time or 0
        known = [start + number * step for number in range(len(times))]
    side_data: Any = frame.side_data
    matrix = side_data.get(Type.DISPLAYMATRIX)
    return Video(
        path=path,
        size=(frame.width, frame.height),
        rotation=round(frame.rotation / 90) * 90 % 360,
        display_matrix=() if matrix is None else tuple(np.frombuffer(bytes(matrix), dtype="<i4").tolist()),
        pixel_format=frame.format.name,
        depth=8 if all(component.bits <= 8 for component in frame.format.components) else 16,
        colours=Colours(
            _FULL if frame.format.name.startswith("yuvj") else frame.color_range,
            frame.colorspace,
            frame.color_primaries,
            frame.color_trc,
        ),
        aspect=stream.sample_aspect_ratio or None,
        rate=rate,
        time_base=time_base,
        timestamps=array("q", known),
        last_duration=duration or step,
        counted=counted,
    )


def _pixels(frame: "av.VideoFrame", video: Video, channels: int, levels: bool) -> Tensor:
    """The upright pixels of a frame, `(channels, H, W)`."""
    known = video.colours.conversion(video.size[1])
    rgb = frame.reformat(
        *video.size,
        format="rgb24" if video.depth == 8 else "rgb48le",
        src_colorspace=known["colorspace"],
        src_color_range=known["color_range"],
        dst_color_range=_FULL,
        interpolation=conversion_flags(),
    )
    stored = turned(rgb.to_ndarray(), video.rotation)
    pixels = torch.from_numpy(stored if video.depth == 8 else stored.astype(np.int32)).permute(2, 0, 1)
    if levels and video.depth == 8 and channels == 3:
        return pixels.contiguous()
    tensor = pixels.float().mul_(2 / LEVELS[video.depth]).sub_(1.0)
    return with_channels(tensor.contiguous(), None, channels)


def conversion_flags() -> Any:
    """Return how FFmpeg converts between RGB and YUV: rounded rather than cut, and chroma at every pixel."""
    from av.video.reformatter import Interpolation

    return Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
