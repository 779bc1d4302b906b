"""`predict` on videos that the tests make."""

import os
import shutil
import signal
from fractions import Fraction

import numpy as np
import pytest
import torch
from forks import wait_for

from cyclestyle.images import VideoFile, read_image, read_video
from cyclestyle.translation.engine import Engine

av = pytest.importorskip("av")
TIME_BASE = Fraction(1, 12800)
EVEN = [512 * number for number in range(14)]
UNEVEN = [512 * number + 37 * number**2 for number in range(14)]


def make(path, *, size=(64, 48), codec="libx264", times=EVEN, rotation=0, audio="", tags=(), pixels="yuv420p"):
    """Write a video in which a gradient moves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"video_track_timescale": "12800"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.codec_context.time_base = stream.time_base = TIME_BASE
        for name, value in dict(tags).items():
            setattr(stream.codec_context, name, value)
        stream.codec_context.gop_size = 1 if codec == "ffv1" else 12
        if rotation:
            stream.set_display_rotation(rotation)
        sound = output.add_stream(audio, rate=48000) if audio else None
        y, x = np.mgrid[: size[1], : size[0]]
        for number, shown in enumerate(times):
            levels = np.stack([x * 3 + number * 4, y * 4, x + y + number], axis=2).clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(levels, format="rgb24")
            frame.pts, frame.time_base = shown, TIME_BASE
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound is not None:
            for number in range(20):
                samples = np.sin(np.arange(1024) * 0.05 * (number + 1)).astype(np.float32)[None]
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 48000, 1024 * number
                output.mux(sound.encode(frame))
            output.mux(sound.encode(None))
    return path


def packets(path, kind="audio"):
    with av.open(str(path)) as container:
        wanted = getattr(container.streams, kind)
        return [(bytes(packet), packet.pts) for packet in container.demux(wanted) if packet.size]


def times(video):
    return [float(shown * video.time_base) for shown in video.timestamps]


def frames(path):
    file = VideoFile(path)
    return [file.read(number, 3)[0] for number in range(len(file.video.timestamps))]


@pytest.fixture
def predict(cyclestyle, checkpoint):
    return lambda *words: cyclestyle("predict", "--ckpt_path", checkpoint, "--workers", 0, *words)


@pytest.fixture
def short_segments(monkeypatch):
    monkeypatch.setattr("cyclestyle.images.video.writing.SEGMENT", 5)


@pytest.mark.parametrize("shown", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_frames_times_rotation_and_audio_are_kept(predict, tmp_path, short_segments, shown):
    tags = {"color_range": 1, "colorspace": 1, "color_primaries": 1, "color_trc": 1}
    source = make(tmp_path / "in.mp4", times=shown, rotation=90, audio="aac", tags=tags)
    status, text, _ = predict("--input", source, "--output", tmp_path / "out")
    assert status == 0
    assert f"1 file written to {tmp_path / 'out'}" in text
    target = tmp_path / "out" / "in.mp4"
    before, after = read_video(source), read_video(target)
    assert list(after.timestamps) == list(before.timestamps) == shown
    assert (after.time_base, after.size) == (TIME_BASE, (64, 48))
    if shown == EVEN:  # the durations in an MP4 file are those between the times of decoding
        assert after.last_duration == before.last_duration == 512
    assert (after.rotation, after.display_matrix) == (90, before.display_matrix)
    assert after.upright_size == (48, 64)
    assert after.colours == before.colours
    assert packets(target) == packets(source) != []
    assert os.listdir(tmp_path / "out") == ["in.mp4"]
    assert len(frames(target)) == 14


@pytest.mark.parametrize(
    ("name", "codec", "words", "written", "size"),
    [
        ("a.webm", "libvpx-vp9", [], "a.webm", (35, 29)),
        ("a.mkv", "ffv1", [], "a.mkv", (35, 29)),
        ("a.mkv", "ffv1", ["--video_codec", "hevc"], "a.mkv", (67, 65)),
        ("a.avi", "ffv1", ["--video_codec", "ffv1"], "a.mkv", (35, 29)),
        ("a.webm", "libvpx-vp9", ["--video_codec", "h264", "--crf", "30"], "a.mkv", (35, 29)),
    ],
)
def test_odd_sizes_and_codecs(predict, tmp_path, name, codec, words, written, size):
    source = make(tmp_path / name, size=size, codec=codec, times=EVEN[:4])
    status, _, error = predict("--input", source, "--output", tmp_path / "out", *words)
    assert (status, error) == (0, "")
    video = read_video(tmp_path / "out" / written)
    assert video.size == size
    assert times(video) == pytest.approx(times(read_video(source)), abs=1e-3)


def test_networks_see_upright_frames_and_colours_survive(predict, tmp_path, monkeypatch):
    """With the identity in place of a network a lossless codec gives every frame back."""
    seen = []

    def unchanged(task, images):
        seen.append(tuple(images.shape[2:]))
        return images

    monkeypatch.setattr(Engine, "__call__", unchanged)
    source = make(tmp_path / "in.mp4", rotation=270, times=EVEN[:3], pixels="yuv444p10le")
    words = ["--input", source, "--output", tmp_path / "out.mkv", "--video_codec", "ffv1"]
    assert predict(*words)[0] == 0
    assert set(seen) == {(64, 48)}
    assert read_video(tmp_path / "out.mkv").pixel_format == "yuv444p10le"
    for one, other in zip(frames(source), frames(tmp_path / "out.mkv"), strict=True):
        assert (one - other).abs().max() < 2 / 255


def test_images_and_videos_of_one_folder(predict, tmp_path, save_image):
    make(tmp_path / "in" / "trip" / "film.mp4", times=EVEN[:3])
    save_image("in/photo.png", size=(20, 10))
    (tmp_path / "in" / "notes.txt").write_text("text")
    status, text, _ = predict("--input", tmp_path / "in", "--output", tmp_path / "out")
    assert status == 0
    assert "2 files written" in text
    assert "1 file left out that are no images: notes.txt" in text
    assert len(read_video(tmp_path / "out" / "trip" / "film.mp4").timestamps) == 3
    assert read_image(tmp_path / "out" / "photo.png").size == (20, 10)


def test_a_broken_frame_is_named_and_the_rest_is_done(predict, tmp_path):
    source = make(tmp_path / "in.mkv", codec="ffv1")
    content = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        broken = [bytes(packet) for packet in container.demux(video=0) if packet.size][6]
    start = content.index(broken)
    content[start : start + len(broken)] = b"\xff" * len(broken)
    source.write_bytes(content)
    status, text, error = predict("--input", source, "--output", tmp_path / "out", "--video_codec", "ffv1")
    assert status == 1
    assert "1 file written" in text
    assert f"{source} has 1 frame that cannot be decoded (number 7, at 0.24 s); the last good" in error
    made = frames(tmp_path / "out" / "in.mkv")
    assert len(made) == 14
    assert torch.equal(made[6], made[5])
    assert not torch.equal(made[7], made[6])


def test_a_video_that_cannot_be_read_leaves_no_folder(predict, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.mp4").write_text("no video")
    make(tmp_path / "in" / "film.mkv", codec="ffv1")
    assert predict("--input", tmp_path / "in", "--output", tmp_path / "out", "--video_codec", "ffv1")[0] == 1
    assert os.listdir(tmp_path / "out") == ["film.mkv"]


def test_a_killed_run_goes_on_with_the_next_segment(forks, checkpoint, predict, tmp_path, monkeypatch):
    source = make(tmp_path / "in.mp4")
    words = ["predict", "--ckpt_path", checkpoint, "--input", source, "--output", tmp_path / "out", "--workers", 0]
    code = (
        "import sys, time; import cyclestyle.images.video.writing as writing; writing.SEGMENT = 4\n"
        "from cyclestyle.translation.engine import Engine; original = Engine.__call__\n"
        "Engine.__call__ = lambda task, images: (time.sleep(0.2), original(task, images))[1]\n"
        "from cyclestyle.cli import console; console()"
    )
    process = forks.start(*words, "--batch_size", "1", code=code)
    folder = tmp_path / "out" / ".in.mp4.segments"
    wait_for(lambda: list(folder.glob("*-*4.nut")), process)
    process.kill()
    done = sum(1 for _ in folder.glob("0*.nut")) * 4
    assert 4 <= done < 14
    assert os.listdir(tmp_path / "out") == [folder.name]
    count = []
    original = Engine.__call__
    monkeypatch.setattr(Engine, "__call__", lambda task, images: (count.append(len(images)), original(task, images))[1])
    assert predict("--input", source, "--output", tmp_path / "out")[0] == 0
    assert sum(count) == 14 - done
    predict("--input", source, "--output", tmp_path / "whole")
    assert os.listdir(tmp_path / "out") == ["in.mp4"]
    for one, other in zip(frames(tmp_path / "out/in.mp4"), frames(tmp_path / "whole/in.mp4"), strict=True):
        assert (one - other).abs().mean() < 0.03


def test_a_stopped_run_keeps_what_it_has(predict, tmp_path, monkeypatch):
    source = make(tmp_path / "in.mp4")
    original, count = Engine.__call__, []

    def stopping(task, images):
        count.append(len(images))
        if sum(count) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(task, images)

    monkeypatch.setattr(Engine, "__call__", stopping)
    words = ["--input", source, "--output", tmp_path / "out", "--batch_size", 2]
    status, _, error = predict(*words)
    assert status == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; 1 of 1 files are left; the same command goes on with them" in error
    assert os.listdir(tmp_path / "out") == [".in.mp4.segments"]
    count.clear()
    count.append(100)
    assert predict(*words)[0] == 0
    assert sum(count) == 100 + 14 - 6
    assert os.listdir(tmp_path / "out") == ["in.mp4"]
    assert list(read_video(tmp_path / "out" / "in.mp4").timestamps) == EVEN


def test_a_full_disk_leaves_no_file_and_the_segments(predict, tmp_path, monkeypatch, short_segments):
    source = make(tmp_path / "in.mp4")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr("cyclestyle.images.video.writing._join", full)
        status, _, error = predict("--input", source, "--output", tmp_path / "out")
    assert status == 1
    assert "No space left on device" in error
    assert "Traceback" not in error
    assert os.listdir(tmp_path / "out") == [".in.mp4.segments"]
    assert predict("--input", source, "--output", tmp_path / "out")[0] == 0
    assert os.listdir(tmp_path / "out") == ["in.mp4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "out.png"], "is a video, but out.png is the name of an image"),
        (["--output", "out.avi"], "videos are not written as .avi"),
        (["--output", "out", "--video_codec", "hevc"], "libx265 takes no frames of less than 64 pixels, got 64×48"),
        (["--output", "out", "--crf", "70"], "crf must be from 0 to 51, got 70"),
        (["--output", "out.webm", "--video_codec", "h264"], "webm does not take h264"),
    ],
)
def test_mistakes(predict, tmp_path, monkeypatch, words, message):
    source = make(tmp_path / "in.mp4", times=EVEN[:2])
    monkeypatch.chdir(tmp_path)
    status, _, error = predict("--input", source, *words)
    assert status == 1
    assert message in error
    assert "Traceback" not in error
    assert not [path for path in tmp_path.rglob("out*") if path.is_file()]


def test_no_video(predict, tmp_path):
    (tmp_path / "fake.mp4").write_text("text")
    status, _, error = predict("--input", tmp_path / "fake.mp4", "--output", tmp_path / "out")
    assert status == 1
    assert f"cannot read {tmp_path / 'fake.mp4'}" in error
    assert "Traceback" not in error


def test_without_the_package(predict, tmp_path, save_image, monkeypatch):
    make(tmp_path / "in" / "film.mp4", times=EVEN[:2])
    save_image("in/photo.png")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, _, error = predict("--input", tmp_path / "in" / "film.mp4", "--output", tmp_path / "out")
    assert status == 1
    assert "which needs PyAV: pip install av" in error
    status, text, _ = predict("--input", tmp_path / "in", "--output", tmp_path / "out")
    assert status == 0
    assert "film.mp4; `pip install av` adds videos" in text


def test_steady(predict, tmp_path):
    pytest.importorskip("cv2")
    source = make(tmp_path / "in.mp4")
    words = ["--input", source, "--video_codec", "ffv1"]
    assert predict(*words, "--output", tmp_path / "plain")[0] == 0
    assert predict(*words, "--output", tmp_path / "steady", "--steady")[0] == 0
    plain, steady = frames(tmp_path / "plain/in.mkv"), frames(tmp_path / "steady/in.mkv")
    assert (plain[0] - steady[0]).abs().mean() < 1 / 255  # a scene begins
    assert not torch.equal(plain[-1], steady[-1])
    shutil.rmtree(tmp_path / "steady")
    streamed = ["--memory", "600KB", "--scratch", tmp_path]
    assert predict(*words, "--output", tmp_path / "steady", "--steady", *streamed)[0] == 0
    for one, other in zip(steady, frames(tmp_path / "steady/in.mkv"), strict=True):
        assert (one - other).abs().mean() < 1 / 255


@pytest.mark.parametrize(("words", "again"), [([], 8), (["--model.comb_filter", "true"], 14)])
def test_segments_of_other_settings_of_the_model_are_not_taken(predict, tmp_path, monkeypatch, words, again):
    monkeypatch.setattr("cyclestyle.images.video.writing.SEGMENT", 2)
    source = make(tmp_path / "in.mp4")
    original, count = Engine.__call__, []

    def stopping(task, images):
        count.append(len(images))
        if sum(count) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(task, images)

    monkeypatch.setattr(Engine, "__call__", stopping)
    options = ["--input", source, "--output", tmp_path / "out", "--batch_size", 2]
    assert predict(*options)[0] == 128 + signal.SIGTERM
    count[:] = [100]
    assert predict(*options, *words)[0] == 0
    assert sum(count) - 100 == again
