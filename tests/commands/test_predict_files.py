"""`predict` on files of all kinds, as users call it: formats, file names, shards, the manifest, and what fails."""

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cyclestyle.images import EXTENSIONS
from cyclestyle.translation import run
from cyclestyle.translation.writer import Writer


@pytest.fixture
def predict(cyclestyle, checkpoint):
    def call(*words):
        return cyclestyle("predict", "--ckpt_path", checkpoint, *words, "--workers", 0)

    return call


def noise(size=(24, 16), seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def mixed(tmp_path, save_image):
    """One image of every kind that takes a way of its own through `predict`."""
    frames = [noise(seed=seed) for seed in range(3)]
    save_image("in/photo.jpg", size=(24, 16), colour=(9, 99, 200), quality=50)
    save_image("in/shape.png", size=(24, 16), mode="RGBA", colour=(9, 99, 200, 77))
    save_image("in/icon.ico", size=(16, 16))
    Image.fromarray(np.full((16, 24), 40000, np.uint16)).save(tmp_path / "in" / "deep.png")
    frames[0].save(tmp_path / "in" / "film.gif", save_all=True, append_images=frames[1:], duration=[50, 90, 70], loop=0)
    frames[0].save(tmp_path / "in" / "pages.tif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "in" / "noending", "WEBP")
    for name in ("notes.txt", "film.srt", ".hidden.png"):
        (tmp_path / "in" / name).write_text("text")
    return tmp_path / "in"


def test_every_kind_comes_back_as_it_was(predict, mixed, tmp_path):
    status, text, error = predict("--input", mixed, "--output", tmp_path / "out", "--batch_size", 2)
    assert (status, error) == (0, "")
    assert "7 images written" in text
    assert "3 files left out that are no images: .hidden.png, film.srt, notes.txt" in text
    out = tmp_path / "out"
    assert tree(out) == ["deep.png", "film.gif", "icon.png", "noending", "pages.tif", "photo.jpg", "shape.png"]
    with Image.open(out / "film.gif") as image:
        assert (image.n_frames, image.info["loop"], image.info["duration"]) == (3, 0, 50)
    with Image.open(out / "pages.tif") as image:
        assert image.n_frames == 3
    with Image.open(out / "noending") as image:
        assert image.format == "WEBP"
    with Image.open(out / "shape.png") as image:
        assert image.getchannel("A").getextrema() == (77, 77)
    with Image.open(out / "photo.jpg") as image, Image.open(mixed / "photo.jpg") as before:
        assert image.quantization == before.quantization
    assert (out / "deep.png").read_bytes()[24] == 16  # bits per sample


def test_photos_that_need_another_package_are_named_with_it(predict, mixed, tmp_path, monkeypatch):
    monkeypatch.setattr("cyclestyle.images.folders.EXTENSIONS", EXTENSIONS - {".heic"})
    (mixed / "phone.HEIC").write_text("text")
    status, text, _ = predict("--input", mixed, "--output", tmp_path / "out")
    assert status == 0
    assert "phone.HEIC; `pip install pillow-heif` adds HEIC" in text


def test_one_format_for_all_names_what_it_cannot_hold(predict, mixed, tmp_path):
    (mixed / "deep.png").rename(mixed / "other.png")
    (mixed / "noending").unlink()
    status, text, error = predict("--input", mixed, "--output", tmp_path / "out", "--format", "jpeg", "--quality", 30)
    assert status == 1
    assert "4 images written" in text
    assert tree(tmp_path / "out") == ["icon.jpg", "other.jpg", "photo.jpg", "shape.jpg"]
    assert "film.gif has 3 images, which jpeg cannot hold; choose --format png or webp or avif or gif" in error
    assert "pages.tif has 3 pages, which jpeg cannot hold; choose --format tiff" in error


def test_several_inputs_and_a_file_as_the_output(predict, mixed, tmp_path):
    words = ["--input", mixed / "photo.jpg", mixed / "shape.png", "--output", tmp_path / "out"]
    assert predict(*words)[0] == 0
    assert tree(tmp_path / "out") == ["photo.jpg", "shape.png"]
    status, text, _ = predict("--input", mixed / "photo.jpg", "--output", tmp_path / "new" / "painting.webp")
    assert status == 0
    assert f"1 image written to {tmp_path / 'new' / 'painting.webp'}" in text
    with Image.open(tmp_path / "new" / "painting.webp") as image:
        assert image.format == "WEBP"
    status, text, _ = predict("--input", mixed / "photo.jpg", "--output", tmp_path / "new" / "painting.webp")
    assert (status, text.split(" (")[0].split(", ")[1]) == (0, "1 kept that were there already")


def test_a_config_may_name_one_input_or_several(cyclestyle, checkpoint, mixed, tmp_path):
    for given in (str(mixed / "photo.jpg"), [str(mixed / "photo.jpg"), str(mixed / "shape.png")]):
        config = {"input": given, "output": str(tmp_path / "out"), "ckpt_path": str(checkpoint), "workers": 0}
        (tmp_path / "predict.yaml").write_text(yaml.safe_dump(config))
        status, _, error = cyclestyle("predict", "--config", tmp_path / "predict.yaml")
        assert (status, error) == (0, "")
    assert tree(tmp_path / "out") == ["photo.jpg", "shape.png"]


def test_the_manifest_lists_every_image_that_is_written(predict, checkpoint, mixed, tmp_path):
    manifest = tmp_path / "log" / "manifest.jsonl"
    words = ["--input", mixed, "--output", tmp_path / "out", "--manifest", manifest, "--direction", "BtoA"]
    assert predict(*words)[0] == 0
    (tmp_path / "out" / "photo.jpg").unlink()
    manifest.write_text(manifest.read_text() + '{"input": "half a li')  # of a power failure
    assert predict(*words)[0] == 0
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert len(lines) == 8
    assert {line["output"] for line in lines} == {str(path) for path in (tmp_path / "out").iterdir()}
    film = next(line for line in lines if line["input"] == str(mixed / "film.gif"))
    assert (film["size"], film["frames"]) == ([24, 16], 3)
    assert film["seconds"] > 0
    assert film["checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert film["settings"]["direction"] == "BtoA"
    assert film["model"]["comb_filter"] is False


def test_shards_do_each_image_once(predict, mixed, tmp_path):
    written = []
    for part in (1, 2):
        status, _, _ = predict("--input", mixed, "--output", tmp_path / str(part), "--shard", f"{part}/2")
        assert status == 0
        written += tree(tmp_path / str(part))
    assert sorted(written) == sorted(["photo.jpg", "shape.png", "icon.png", "deep.png", "film.gif", "pages.tif",
                                      "noending"])  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input", ""], "an input is empty; name an image or a folder of images"),
        (["--format", "psd"], "images cannot be written as psd; choose one of png, jpeg"),
        (["--quality", "101"], "quality must be from 1 to 100, got 101"),
        (["--format", "png", "--quality", "90"], "png is lossless and has no quality; leave --quality out"),
        (["--style_weights", "1"], "a CycleGAN mixes no styles; leave --style_weights out"),
        (["--input", "{in}/photo.jpg", "--output", "{in}/one.xyz"], "not written as .xyz; choose one of png"),
        (["--devices", "-3"], "devices must be at least 1, got -3"),
        (["--device", "x"], "cannot use the device x: "),
        (["--shard", "0/3"], "shard must be a part and the number of parts, 1/8 to 8/8 for instance, got 0/3"),
        (["--shard", "third"], "got third"),
        (["--manifest", "tests"], "tests is a folder; name a file"),
        (["--input", "{in}/photo.jpg", "{in}/shape.png", "--output", "x.png"], "x.png is the name of one image"),
        (["--format", "jpg", "--input", "{in}/deep.png", "{in}/deep.tif"], "would both be written to"),
    ],
)
def test_mistakes_get_one_line(predict, mixed, tmp_path, words, message):
    noise().save(mixed / "deep.tif")
    given = [word.replace("{in}", str(mixed)) for word in words]
    status, _, error = predict("--input", mixed, "--output", tmp_path / "out", *given)
    assert status == 1
    assert len(error.splitlines()) == 1
    assert message in error
    assert not (tmp_path / "out").exists() or tree(tmp_path / "out") == []


@pytest.mark.parametrize("workers", [0, 1])
def test_values_that_no_image_can_have_are_named(predict, tmp_path, workers):
    (tmp_path / "in").mkdir()
    ramp = np.linspace(0, 255, 400, dtype=np.float32).reshape(20, 20)
    Image.fromarray(ramp).save(tmp_path / "in" / "levels.tif")
    Image.fromarray(ramp / 255).save(tmp_path / "in" / "unit.tif")
    status, _, error = predict("--input", tmp_path / "in", "--output", tmp_path / "out", f"--workers={workers}")
    assert status == 0
    assert error == (
        "cyclestyle: warning: values outside of 0 to 1 (0 to 65535 for integers) became black or white in 1 file: "
        "levels.tif\n"
    )


def damaged_files(count):
    """Valid files of every format, with bytes that are changed, cut off, inserted and removed."""
    rng, whole = random.Random(0), {}
    for ending in sorted(EXTENSIONS):
        name = Image.registered_extensions().get(ending)
        if name not in Image.SAVE or name in ("PALM", "MPO"):
            continue
        more = {"save_all": True, "append_images": [noise(seed=1)]} if name in Image.SAVE_ALL and name != "HEIF" else {}
        for mode in ("RGB", "1"):
            content = io.BytesIO()
            try:
                noise().convert(mode).save(content, name, **more)
            except (OSError, ValueError):
                continue
            whole[ending] = content.getvalue()
            break
    for number in range(count):
        ending = sorted(whole)[number % len(whole)]
        content = bytearray(whole[ending])
        position = rng.randrange(len(content))
        kind = rng.randrange(4)
        if kind == 0:
            del content[position:]
        elif kind == 1:
            del content[position : position + rng.randrange(1, 40)]
        elif kind == 2:
            content[position:position] = rng.randbytes(20)
        else:
            for _ in range(rng.choice((1, 10))):
                content[rng.randrange(min(len(content), 300))] = rng.randrange(256)
        yield f"{number:03d}{ending}", bytes(content)


def test_damaged_files_cost_nothing_but_themselves(predict, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**5)  # a damaged size is refused rather than translated
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name, content in damaged_files(300):
        (folder / name).write_bytes(content)
    noise().save(folder / "good.png")
    status, _, error = predict("--input", folder, "--output", out, "--batch_size", 64)
    assert status == 1
    header, *lines = error.splitlines()
    failed = int(header.split()[2])
    assert header == f"cyclestyle: error: {failed} images failed:"
    assert len(lines) == failed > 50
    assert all(line.startswith("  cannot read ") for line in lines)
    written = tree(out)
    assert "good.png" in written
    assert len(written) == 301 - failed
    for name in written:
        with Image.open(out / name) as image:
            image.load()


@pytest.fixture
def small_disk(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield small
    subprocess.run(["umount", small], check=True)


def test_a_full_disk_stops_once_and_the_same_command_goes_on(predict, small_disk, tmp_path):
    for number in range(30):
        noise((48, 48), number).save(tmp_path / f"{number:02d}.png")
    words = ["--input", *tmp_path.glob("*.png"), "--output", small_disk, "--batch_size", 1]
    status, _, error = predict(*words)
    assert status == 1
    assert len(error.splitlines()) == 1
    assert "No space left on device; " in error
    assert "of 30 images are left; the same command goes on with them when there is space" in error
    first = tree(small_disk)
    assert 0 < len(first) < 30
    left = int(error.split(" of 30")[0].split()[-1])
    assert left == 30 - len(first)
    for name in first:
        with Image.open(small_disk / name) as image:
            image.load()
        shutil.move(small_disk / name, tmp_path / f"done-{name}")


def test_a_gpu_works_on_a_batch_while_the_one_before_is_written(predict, mixed, tmp_path, monkeypatch):
    calls = []

    class Event:
        """As those of CUDA: when the GPU gets to it is known once somebody has waited for it."""

        def __init__(self, enable_timing):
            self.waited = False

        def record(self):
            calls.append("given")

        def synchronize(self):
            calls.append("waited for")
            self.waited = True

        def elapsed_time(self, end):
            assert end.waited
            return 1500.0  # milliseconds

    predict("--input", mixed, "--output", tmp_path / "expected", "--batch_size", 2)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(run, "Writer", lambda **options: Writer(**{**options, "on_gpu": True}))
    words = ["--output", tmp_path / "out", "--batch_size", 2, "--stats", tmp_path / "stats.json"]
    assert predict("--input", mixed, *words)[0] == 0
    for name in tree(tmp_path / "expected"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes(), name
    batches = calls.count("waited for")
    assert batches > 3
    one = ["given", "given", "waited for"]  # the start and the end of a batch, and then the end of the one before
    assert calls == [*one[:2], *one * (batches - 1), "waited for"]
    assert json.loads((tmp_path / "stats.json").read_text())["seconds"] == 1.5 * batches


def test_two_processes_with_few_images_write_each_once(mixed, tmp_path):
    """Three files, one of them damaged: one process has one more, and the failure is reported by the other."""
    folder = tmp_path / "few"
    folder.mkdir()
    for name in ("film.gif", "photo.jpg"):
        shutil.copy(mixed / name, folder)
    (folder / "broken.png").write_text("text")
    command = [sys.executable, "-m", "cyclestyle", "predict", "--input", folder]
    command += ["--output", tmp_path / "out", "--manifest", tmp_path / "m.jsonl", "--batch_size=1"]
    command += ["--devices=2", "--device=cpu", "--oversubscribe"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 1, result.stderr
    assert result.stdout.count("2 images written") == 1
    assert result.stderr.count("broken.png: its content is not an image") == 1
    lines = [json.loads(line)["output"] for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert sorted(lines) == [str(tmp_path / "out" / name) for name in ("film.gif", "photo.jpg")]


@pytest.mark.parametrize(
    "names", [("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")]
)
def test_processes_of_torchrun_and_slurm_take_their_shares(predict, mixed, tmp_path, monkeypatch, names):
    """They need not start at the same time, because each file has its process, whatever else is there."""
    manifest = tmp_path / "m.jsonl"
    for number in (1, 0):
        for name, value in zip(names, (number, 2, number), strict=True):
            monkeypatch.setenv(name, str(value))
        status, output, error = predict("--input", mixed, "--output", tmp_path / "out", "--manifest", manifest)
        assert status == 0, error
        assert f"process {number + 1} of 2: " in output
    lines = [json.loads(line)["output"] for line in manifest.read_text().splitlines()]
    assert len(lines) == len(set(lines)) == len(tree(tmp_path / "out")) > 4
    for name in names:
        monkeypatch.delenv(name)
    assert "0 images written" in predict("--input", mixed, "--output", tmp_path / "out")[1]


@pytest.mark.parametrize("name", ["jpg", "webp", "gif"])
def test_a_format_is_chosen_by_its_name_or_ending(predict, mixed, tmp_path, name):
    status, _, error = predict("--input", mixed / "photo.jpg", "--output", tmp_path / "out", "--format", name)
    assert (status, error) == (0, "")
    assert tree(tmp_path / "out") == [f"photo.{name}"]
