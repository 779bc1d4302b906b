"""Models of the package, and what is done with a translation afterwards."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from cyclestyle import Translator
from cyclestyle.images import read_image
from cyclestyle.tasks import load
from cyclestyle.weights.shipped import SHIPPED, shipped_path


@pytest.fixture
def photo(samples):
    return samples / "trainA" / "0000.png"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(image):
    return np.asarray(image.convert("RGB")).astype(int)


def test_no_checkpoint_is_needed(cyclestyle, photo, folder):
    status, text, _ = cyclestyle("predict", "--input", photo, "--output", "painting.png")
    assert status == 0
    assert "with the model monet of the package" in text
    assert "painting at 512 pixels; --work_size 0" in text
    found = pixels(read_image(folder / "painting.png"))
    assert np.abs(found - pixels(Translator.load("monet")(photo))).max() <= 1
    status, text, _ = cyclestyle("predict", "--input", photo, "--output", "wave.png", "--style", "wave")
    assert status == 0
    assert "with the model styles of the package" in text
    assert "style: wave (of " in text


def test_models_of_the_package_are_listed_with_their_styles(cyclestyle):
    status, text, _ = cyclestyle("models")
    assert status == 0
    for name, model in SHIPPED.items():
        assert shipped_path(name).is_file()
        assert f"{name} " in text
        assert model.purpose in text
    assert "wave" in text


def test_a_file_has_precedence_over_a_model_of_its_name(cyclestyle, photo, folder):
    (folder / "styles").write_text("text")
    status, _, error = cyclestyle("predict", "--ckpt_path", "styles", "--input", photo, "--output", "out")
    assert status == 1
    assert "styles" in error
    assert not (folder / "out").exists()


def test_styles_are_named_and_mixed(cyclestyle, photo, folder):
    words = ["predict", "--input", photo, "--speed", "exact"]
    for name, style in (
        ("a", "wave"),
        ("b", "starry_night"),
        ("c", "wave:3,starry_night:1"),
        ("d", "wave, starry_night"),
    ):
        assert cyclestyle(*words, "--output", f"{name}.png", "--style", style)[0] == 0
    a, b, c, d = (pixels(read_image(folder / f"{name}.png")) for name in "abcd")
    assert np.abs(a - b).mean() > 1
    expected = Translator.load("styles", style=["wave", "starry_night"], style_weights=[0.75, 0.25], speed="exact")
    assert np.abs(c - pixels(expected(photo))).max() <= 1
    assert np.abs(c - d).mean() > 0.1


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ("nix", "there is no style 'nix'; the styles are "),
        ("monet", "monet is a model of its own, and no style; use --ckpt_path monet"),
        ("wave:much", "wave:much must be a style and its share, such as wave:0.7"),
        ("wave:1,starry_night", "give each style of wave:1,starry_night a share, or none of them"),
        ("wave:-1,starry_night:2", "give each one a weight of 0 or more"),
    ],
)
def test_mistakes_in_styles(cyclestyle, photo, folder, style, message):
    status, _, error = cyclestyle("predict", "--input", photo, "--output", "out.png", "--style", style)
    assert status == 1
    assert message in error
    assert not (folder / "out.png").exists()


def test_each_style_has_its_region(cyclestyle, samples, folder, save_image):
    photo = samples / "trainA" / "0001.png"
    for name, box in (("left", (0, 0, 16, 32)), ("right", (16, 0, 32, 32))):
        mask = Image.new("L", (32, 32))
        mask.paste(255, box)
        mask.save(folder / f"{name}.png")
    words = ["predict", "--input", photo, "--speed", "exact"]
    status, _, error = cyclestyle(
        *words, "--output", "both.png", "--style", "wave", "starry_night", "--mask", "left.png", "right.png"
    )
    assert (status, error) == (0, "")
    for name in ("wave", "starry_night"):
        assert cyclestyle(*words, "--output", f"{name}.png", "--style", name)[0] == 0
    both, wave, night = (pixels(read_image(folder / f"{name}.png")) for name in ("both", "wave", "starry_night"))
    for half, own, other in ((np.s_[:, :12], wave, night), (np.s_[:, 20:], night, wave)):
        assert np.abs(both[half] - own[half]).mean() < np.abs(both[half] - other[half]).mean()
    status, _, error = cyclestyle(*words, "--output", "no.png", "--style", "wave", "--mask", "left.png", "right.png")
    assert status == 1
    assert "2 masks for 1 styles" in error


def test_strength_and_colours(cyclestyle, photo, folder):
    words = ["predict", "--input", photo, "--speed", "exact"]
    for name, more in (("whole", []), ("half", ["--strength", 0.5]), ("kept", ["--preserve_color"])):
        assert cyclestyle(*words, "--output", f"{name}.png", *more)[0] == 0
    original, whole, half, kept = (
        pixels(read_image(path)) for path in (photo, *(folder / f"{name}.png" for name in ("whole", "half", "kept")))
    )
    assert np.abs(half - (original + whole) / 2).max() <= 1
    chrominance = [np.diff(image, axis=2) for image in (kept, original)]
    inside = ((kept > 0) & (kept < 255)).all(axis=2)  # others are clipped
    assert np.abs(chrominance[0] - chrominance[1])[inside].max() <= 2
    status, _, error = cyclestyle(*words, "--output", "no.png", "--strength", 2)
    assert status == 1
    assert "strength must be from 0 to 1, got 2" in error


def test_a_method_of_one_style_says_so(cyclestyle, checkpoint, photo, folder):
    words = ["--ckpt_path", checkpoint, "--input", photo, "--output", "no.png", "--style", "wave"]
    status, _, error = cyclestyle("predict", *words)
    assert status == 1
    assert "CycleGAN has learnt its style; leave --style out" in error


def test_large_photos_are_painted_at_the_work_size(cyclestyle, folder, save_image, checkpoint):
    save_image("large.jpg", size=(1500, 100), colour=(9, 99, 200))
    assert cyclestyle("predict", "--input", "large.jpg", "--output", "painted.jpg")[0] == 0
    assert read_image(folder / "painted.jpg").size == (1500, 100)
    status, text, _ = cyclestyle("predict", "--ckpt_path", checkpoint, "--input", "large.jpg", "--output", "out.jpg")
    assert status == 0
    assert "painting at" not in text  # checkpoints of users keep the size of the photo


def test_a_photo_goes_through_the_standard_streams(monkeypatch, capfdbinary, photo, folder):
    from cyclestyle.cli import main

    words = ["predict", "--style", "wave", "--speed", "exact"]
    assert main([*words, "--input", str(photo), "--output", "file.png"]) == 0
    capfdbinary.readouterr()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(photo.read_bytes())))
    assert main([*words, "--input", "-", "--output", "-"]) == 0
    found, error = capfdbinary.readouterr()
    assert b"with the model styles" in error
    assert b"1 image written to standard output\n" in error
    assert pixels(Image.open(io.BytesIO(found))).tolist() == pixels(read_image(folder / "file.png")).tolist()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"text")))
    assert main([*words, "--input", "-", "--output", "-"]) == 1
    found, error = capfdbinary.readouterr()
    assert found == b""
    assert b"standard input is no image in a known format" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input", "-", "a.png", "--output", "out"], "--input - is one image from standard input"),
        (["--input", ".", "--output", "-"], "--output - is one image to standard output"),
        (["--input", "a.png", "--output", "-", "--json"], "both write to standard output"),
        (["--input", "a.png"], "name the file or folder of the results with --output"),
    ],
)
def test_mistakes_with_streams(cyclestyle, folder, words, message):
    (folder / "a.png").touch()
    status, _, error = cyclestyle("predict", *words)
    assert status == 1
    assert message in error


def test_json_says_what_was_done(cyclestyle, samples, photo, folder):
    (folder / "in").mkdir()
    (folder / "in" / "a.png").write_bytes(photo.read_bytes())
    (folder / "in" / "b.png").write_text("text")
    status, text, error = cyclestyle("predict", "--input", "in", "--output", "out", "--json")
    done = json.loads(text)
    assert status == 1
    assert done["results"] == [{"input": "in/a.png", "output": "out/a.png"}]
    assert list(done["failures"]) == ["in/b.png"]
    assert "1 image written to out" in error


def test_a_sheet_shows_the_photo_in_all_styles(cyclestyle, checkpoint, photo, folder):
    status, text, _ = cyclestyle("predict", "--input", photo, "--sheet", "sheet.png")
    assert status == 0
    assert "sheet: sheet.png" in text
    names = Translator.load("styles").method.style_names
    sheet = pixels(read_image(folder / "sheet.png"))
    rows, columns = -(-(len(names) + 1) // 5), 5
    assert sheet.shape[0] > rows * 32
    assert sheet.shape[1] > columns * 32
    words = ["--ckpt_path", checkpoint, "--input", photo, "--sheet", "no.png"]
    status, _, error = cyclestyle("predict", *words)
    assert status == 1
    assert "--sheet is for networks of many styles" in error
    for more, message in (
        (["--input", photo.parent, "--sheet", "no.png"], "--sheet shows one photo"),
        (["--input", photo, "--sheet", "no.xyz"], "images are not written as .xyz"),
    ):
        status, _, error = cyclestyle("predict", *more, "--output", "out")
        assert status == 1
        assert message in error
        assert not (folder / "out").exists()  # before the work


def test_translating_and_drawing_samples_import_no_lightning(checkpoint, tmp_path, save_image):
    """It takes longer to import than a photo to translate."""
    photo = save_image("photo.png", size=(20, 16))
    task = load(checkpoint)
    torch.save(task.G_AB.state_dict(), tmp_path / "latest_net_G_A.pth")
    code = (
        "import sys; from cyclestyle.cli import main; import cyclestyle.commands.sample_data\n"
        "for name in sys.argv[3:]: assert main(['predict', '--ckpt_path', name, '--input', sys.argv[1],\n"
        "    '--output', sys.argv[2], '--overwrite', '--speed', 'exact']) == 0\n"
        "print([name for name in ('pytorch_lightning', 'torchmetrics', 'torchvision.models') if name in sys.modules])"
    )
    words = [photo, tmp_path / "out.png", "styles", checkpoint, tmp_path / "latest_net_G_A.pth"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
