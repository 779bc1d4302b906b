import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from forks import wait_for
from PIL import Image

from cyclestyle.images import read_image
from cyclestyle.translation.engine import Engine


@pytest.fixture
def photos(tmp_path, save_image):
    """A tree of images of several sizes, formats and modes."""
    save_image("photos/a.jpg", size=(40, 30), colour=(9, 99, 200))
    save_image("photos/b.JPG", size=(40, 30))
    save_image("photos/trip/c d.png", size=(33, 57), mode="RGBA", colour=(1, 2, 3, 128))
    save_image("photos/trip/day 1/e.webp", size=(5, 7))
    save_image("photos/trip/day 1/f.tif", size=(21, 3), mode="I;16", colour=30000)
    save_image("photos/g.bmp", size=(3, 3), mode="L")
    exif = Image.Exif()
    exif[0x0112] = 6
    save_image("photos/turned.jpg", size=(20, 10), exif=exif)
    return tmp_path / "photos"


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_every_image_comes_back_named_and_sized_as_it_was(cyclestyle, checkpoint, photos, tmp_path, direction):
    out = tmp_path / "out"
    words = ["--ckpt_path", checkpoint, "--input", photos, "--output", out, "--direction", direction]
    status, text, _ = cyclestyle("predict", *words)
    assert status == 0
    assert f"7 images written to {out}" in text
    assert tree(out) == tree(photos)
    for name in tree(photos):
        assert read_image(out / name).size == read_image(photos / name).size, name
    assert read_image(out / "a.jpg").tobytes() != read_image(photos / "a.jpg").tobytes()


def test_batches_change_nothing(cyclestyle, checkpoint, samples, tmp_path):
    for size in (1, 7):
        words = ["--input", samples / "trainA", "--output", tmp_path / str(size), "--batch_size", size]
        assert cyclestyle("predict", "--ckpt_path", checkpoint, *words)[0] == 0
    for name in tree(tmp_path / "1"):
        one, other = (read_image(tmp_path / size / name).tobytes() for size in ("1", "7"))
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) <= 1  # rounding of a float's last place


def test_one_image(cyclestyle, checkpoint, photos, tmp_path):
    words = ["--ckpt_path", checkpoint, "--input", photos / "a.jpg", "--output", tmp_path / "out"]
    assert cyclestyle("predict", *words)[0] == 0
    assert tree(tmp_path / "out") == ["a.jpg"]


def test_results_are_kept_unless_told_otherwise(cyclestyle, checkpoint, photos, tmp_path):
    out = tmp_path / "out"
    words = ["predict", "--ckpt_path", checkpoint, "--input", photos, "--output", out]
    cyclestyle(*words)
    (out / "a.jpg").write_bytes(b"mine")
    (out / "g.bmp").unlink()
    _, text, _ = cyclestyle(*words)
    assert f"1 image written to {out}, 6 kept that were there already" in text
    assert (out / "a.jpg").read_bytes() == b"mine"
    assert (out / "g.bmp").exists()
    cyclestyle(*words, "--overwrite")
    assert read_image(out / "a.jpg").size == (40, 30)


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_files_are_reported_and_the_rest_is_done(cyclestyle, checkpoint, photos, tmp_path, workers):
    (photos / "fake.jpg").write_text("text")
    cut = photos / "cut.bmp"
    Image.new("RGB", (40, 30)).save(cut)
    cut.write_bytes(cut.read_bytes()[:500])
    out = tmp_path / "out"
    words = ["--ckpt_path", checkpoint, "--input", photos, "--output", out, "--workers", workers]
    status, text, error = cyclestyle("predict", *words)
    assert status == 1
    assert "7 images written" in text
    assert "cyclestyle: error: 2 images failed:" in error
    assert f"cannot read {photos / 'fake.jpg'}" in error
    assert f"cannot read {cut}" in error
    assert set(tree(photos)) - set(tree(out)) == {"fake.jpg", "cut.bmp"}


def test_output_inside_the_input_is_not_translated_again(cyclestyle, checkpoint, photos):
    words = ["predict", "--ckpt_path", checkpoint, "--input", photos, "--output", photos / "out"]
    before = tree(photos)
    for _ in range(2):
        assert cyclestyle(*words)[0] == 0
    assert tree(photos) == sorted([*before, *(f"out/{name}" for name in before)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--input": "nowhere"}, "input nowhere does not exist; expected an image or a folder of images"),
        ({"--ckpt_path": "nowhere.ckpt"}, "checkpoint nowhere.ckpt does not exist"),
        ({"--direction": "CtoD"}, "direction: Expected one of ['AtoB', 'BtoA'], got CtoD"),
        ({"--batch_size": "0"}, "batch_size must be at least 1, got 0"),
        ({"--output": "PHOTOS"}, "choose another folder for the output"),
        ({"--output": "/proc/nowhere"}, "cannot write into /proc/nowhere"),
        ({"--output": "PHOTOS/a.jpg"}, "is a file; the output must be a folder"),
        ({"--turbo": "1"}, "unrecognized arguments: --turbo"),
    ],
)
def test_mistakes_get_one_line(cyclestyle, checkpoint, photos, tmp_path, changes, message):
    words = {"--ckpt_path": checkpoint, "--input": photos, "--output": tmp_path / "out", **changes}
    words = [str(word).replace("PHOTOS", str(photos)) for pair in words.items() for word in pair]
    before = tree(photos)
    status, _, error = cyclestyle("predict", *words)
    assert status == 1
    assert message in error.splitlines()[-1]
    assert error.splitlines()[-1].startswith("cyclestyle: error: ")
    assert "Traceback" not in error
    assert tree(photos) == before


def test_a_folder_without_images(cyclestyle, checkpoint, tmp_path):
    (tmp_path / "empty").mkdir()
    status, _, error = cyclestyle(
        "predict", "--ckpt_path", checkpoint, "--input", tmp_path / "empty", "--output", tmp_path / "out"
    )
    assert status == 1
    assert "empty contains no images" in error


@pytest.mark.slow
def test_two_processes_share_the_images(checkpoint, photos, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "cyclestyle", "predict", "--ckpt_path", checkpoint, "--input", photos]
    command += ["--output", out, "--devices=2", "--device=cpu", "--oversubscribe"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("images written") == 1
    assert "7 images written" in result.stdout
    assert tree(out) == tree(photos)


def test_a_full_disk_is_reported(cyclestyle, checkpoint, photos, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        (small / "filler").write_bytes(b"x" * 4096)
        words = ["--ckpt_path", checkpoint, "--input", photos / "a.jpg", "--output", small]
        status, _, error = cyclestyle("predict", *words)
        assert status == 1
        assert "No space left on device" in error
        assert tree(small) == ["filler"]
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.fixture
def large(tmp_path):
    """A photo of 90,000 pixels, which takes more memory than the 1 MB that tests allow."""
    path = tmp_path / "large" / "photo.png"
    path.parent.mkdir()
    Image.effect_mandelbrot((300, 300), (-2, -1, 1, 1), 50).convert("RGB").save(path)
    return path


def test_a_large_image_equals_the_whole_image(cyclestyle, checkpoint, large, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    words = ["predict", "--ckpt_path", checkpoint, "--input", large, "--output"]
    assert cyclestyle(*words, tmp_path / "whole", "--memory", "4GB")[0] == 0
    status, _, error = cyclestyle(*words, tmp_path / "streamed", "--memory", "1MB", "--scratch", scratch)
    assert status == 0, error
    whole, streamed = (read_image(tmp_path / name / "photo.png").tobytes() for name in ("whole", "streamed"))
    assert max(abs(a - b) for a, b in zip(whole, streamed, strict=True)) <= 1
    assert cyclestyle(*words, tmp_path / "reduced", "--memory", "1MB", "--statistics", "reduced")[0] == 0
    assert list(scratch.iterdir()) == []


def test_a_scratch_folder_that_is_missing(cyclestyle, checkpoint, large, tmp_path):
    words = ["--ckpt_path", checkpoint, "--input", large, "--output", tmp_path / "out", "--memory", "1MB"]
    status, text, error = cyclestyle("predict", *words, "--scratch", tmp_path / "nowhere")
    assert status == 1
    assert text == ""
    assert error.startswith(f"cyclestyle: error: the scratch folder {tmp_path / 'nowhere'} is missing")
    assert not (tmp_path / "out").exists()


def test_a_scratch_disk_that_is_too_small_is_named_and_the_rest_is_done(
    cyclestyle, checkpoint, large, photos, tmp_path, monkeypatch
):
    monkeypatch.setattr("cyclestyle.translation.large.free_room", lambda folder: 10**6)
    words = ["predict", "--ckpt_path", checkpoint, "--memory", "1MB", "--scratch", tmp_path]
    status, text, error = cyclestyle(*words, "--input", large, "--output", tmp_path / "out")
    assert status == 1
    assert error.splitlines()[-1].startswith(f"  cannot translate {large}: an image of 300×300 needs ")
    assert "in the scratch folder" in error
    shutil.copy(large, photos / "large.png")
    status, text, error = cyclestyle(*words, "--input", photos, "--output", tmp_path / "out")
    assert status == 1
    assert "7 images written" in text
    assert error.count("large.png: an image of 300×300 needs") == 1
    assert "cyclestyle: error: 1 image failed:" in error
    assert set(tree(photos)) - set(tree(tmp_path / "out")) == {"large.png"}


def test_an_image_that_exhausts_the_memory_fails_alone(cyclestyle, checkpoint, photos, tmp_path, monkeypatch):
    original = Engine.__call__

    def exhausting(task, images):
        if images.shape[-1] == 33:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory")
        return original(task, images)

    monkeypatch.setattr(Engine, "__call__", exhausting)
    words = ["--ckpt_path", checkpoint, "--input", photos, "--output", tmp_path / "out"]
    status, text, error = cyclestyle("predict", *words)
    assert status == 1
    assert "6 images written" in text
    assert "c d.png: it does not fit into memory; set a lower --memory" in error
    assert "Traceback" not in error


def test_a_killed_run_leaves_nothing_on_the_scratch_disk(forks, checkpoint, large, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    Image.open(large).resize((1600, 1600)).save(large)
    words = ["--output", tmp_path / "out", "--memory", "1MB", "--scratch", scratch]
    process = forks.start("predict", "--ckpt_path", checkpoint, "--input", large, *words)
    descriptors = Path(f"/proc/{process.pid}/fd")

    def in_use():
        try:
            return any(str(scratch) in os.readlink(link) for link in descriptors.iterdir())
        except FileNotFoundError:  # a file that has just been closed
            return False

    wait_for(in_use, process)
    process.kill()
    assert list(scratch.iterdir()) == []


def peak_memory(checkpoint, folder, size):
    """The peak of a process that translates an image with 40 MB for activations, in bytes."""
    photo = folder / f"{size}.png"
    Image.effect_noise((size, size), 50).convert("RGB").save(photo, compress_level=0)
    words = ["predict", "--ckpt_path", str(checkpoint), "--input", str(photo), "--output", str(folder / "out")]
    words += ["--memory", "40MB", "--workers", "0", "--stats", str(folder / "stats.json"), "--overwrite"]
    code = f"import sys; from cyclestyle.cli import main; sys.exit(main({words!r}))"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment, timeout=300)
    return json.loads((folder / "stats.json").read_text())["peak_memory_bytes"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_image(checkpoint, tmp_path):
    """16 times the pixels take little more than the image itself: whole, the larger one takes 300 MB or more."""
    small, large = (peak_memory(checkpoint, tmp_path, size) for size in (512, 2048))
    image_itself = 2048 * 2048 * (3 + 3 + 4 + 4)  # levels of both images, and both images of Pillow
    assert large - small < image_itself + 80e6
