import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import cyclestyle
from cyclestyle.errors import CheckpointError, CycleStyleError, ImageError
from cyclestyle.images import to_image, to_tensor
from cyclestyle.tasks import Autoencoder, CycleGAN
from cyclestyle.translation.plain import GeneratorOnly
from cyclestyle.translator import Translator


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 97), (97, 5), (32, 32), (33, 30), (200, 10)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_any_size_and_mode_comes_back_in_its_size(size, mode):
    torch.manual_seed(0)
    translate = Translator(GeneratorOnly(ngf=2, depth=1))
    result = translate(Image.new(mode, size, 99))
    assert result.size == size
    assert result.mode == ("RGBA" if mode == "RGBA" else "RGB")


class Invert(GeneratorOnly):
    """A method with one pixel of context, whose results are known."""

    def translate(self, images, direction):
        return -images


@pytest.fixture
def invert():
    return Translator(Invert(ngf=2, depth=1))


def test_a_photo_is_turned_upright_and_saved_with_what_its_file_has(invert, tmp_path):
    """A phone stores its photos lying on their side, with a tag that says so."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lying = Image.new("RGBA", (20, 10), (10, 20, 30, 255))
    lying.paste((250, 0, 0, 0), (0, 0, 5, 10))
    lying.save(tmp_path / "photo.png", exif=exif, icc_profile=profile, dpi=(300, 300))
    for given in (tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.open(tmp_path / "photo.png")):
        result = invert(given)
        assert result.size == (10, 20)
        assert result.getpixel((5, 15)) == (245, 235, 225, 255)
        invert.save(result, tmp_path / "out" / "painting.png")
        with Image.open(tmp_path / "out" / "painting.png") as saved:
            assert saved.tobytes() == result.tobytes()
            assert (saved.getexif()[0x0112], saved.getexif()[0x010F]) == (1, "Maker")
            assert saved.info["icc_profile"] == profile
            assert saved.info["dpi"] == pytest.approx((300, 300), abs=0.1)
            assert saved.getpixel((5, 2))[3] == 0


@pytest.mark.parametrize(
    "move", [lambda task: Translator(task, device="meta"), lambda task: Translator(task).to("meta")]
)
def test_a_translator_translates_where_it_was_moved_to(move):
    """`meta` is the other device that every machine has."""
    translate = move(GeneratorOnly(ngf=2, depth=1))
    assert translate.engine.device == torch.device("meta")
    result = translate.translate(torch.zeros(1, 3, 16, 20, device="meta"))
    assert (result.device.type, result.shape) == ("meta", (1, 3, 16, 20))


def test_the_given_image_is_left_as_it_is(invert):
    image = Image.new("RGB", (4, 2), (1, 2, 3))
    image.getexif()[0x0112] = 6
    invert(image)
    assert image.size == (4, 2)
    assert image.getexif()[0x0112] == 6
    assert image.getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [(np.uint8, 10, 245), (np.uint16, 1000, 64535), (np.float32, 0.25, 0.75), (np.float64, 0.25, 0.75)],
)
@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 1), (6, 4, 3), (6, 4, 4), (6, 4, 2)])
def test_arrays_come_back_as_arrays_of_their_type(invert, dtype, value, expected, shape):
    result = invert(np.full(shape, value, dtype))
    alpha = shape[2:] in ((2,), (4,))
    assert result.dtype == dtype
    assert result.shape == (6, 4, 4 if alpha else 3)
    assert np.allclose(result[..., :3], expected)
    if alpha:
        assert np.allclose(result[..., 3], value)


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.full((3, 6, 4), 0.5), -0.5),
        (torch.full((2, 3, 6, 4), 0.5), -0.5),
        (torch.full((3, 6, 4), 0.5, dtype=torch.float16), -0.5),
        (torch.full((3, 6, 4), 0.5, dtype=torch.float64), -0.5),
        (torch.full((3, 6, 4), 10, dtype=torch.uint8), 245),
    ],
)
def test_tensors_come_back_as_tensors_of_their_kind(invert, tensor, expected):
    result = invert(tensor)
    assert (result.shape, result.dtype) == (tensor.shape, tensor.dtype)
    assert torch.equal(result, torch.full_like(tensor, expected))


def test_a_list_comes_back_as_a_list_in_its_order(invert, tmp_path):
    Image.new("RGB", (5, 3), (0, 0, 0)).save(tmp_path / "a.bmp")
    first, second, third = invert([tmp_path / "a.bmp", np.zeros((2, 2, 3), np.uint8), torch.zeros(3, 2, 2)])
    assert first.size == (5, 3)
    assert second.shape == (2, 2, 3)
    assert third.shape == (3, 2, 2)
    assert invert([]) == []


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (3, TypeError, "an image must be a path, a PIL image"),
        (np.zeros((2, 2, 5), np.uint8), ValueError, r"1 to 4 channels, got \(2, 2, 5\)"),
        (np.zeros((2, 2, 3), np.int64), ValueError, "got int64"),
        (np.zeros((0, 2, 3), np.uint8), ValueError, r"an array must have pixels, got \(0, 2, 3\)"),
        (torch.zeros(0, 3, 2, 2), ValueError, r"a tensor must have pixels, got \(0, 3, 2, 2\)"),
        (torch.zeros(2, 2), ValueError, r"1 to 4 channels, got \(2, 2\)"),
        (torch.zeros(3, 2, 2, dtype=torch.int64), ValueError, "got torch.int64"),
        ("nowhere.png", ImageError, "cannot read nowhere.png: No such file"),
        ("README.md", ImageError, "its content is not an image"),
    ],
)
def test_other_kinds_are_refused(invert, given, error, message):
    with pytest.raises(error, match=message):
        invert(given)


def test_a_translator_says_what_it_is(checkpoint):
    translate = Translator.load(checkpoint, direction="BtoA")
    assert str(translate).splitlines() == [
        "Translator",
        "  method: CycleGAN",
        "  direction: BtoA of AtoB, BtoA",
        f"  checkpoint: {checkpoint}",
        "  device: cpu",
        f"  parameters: {sum(value.numel() for name, value in translate.named_parameters() if '.G_' in name):,}",
    ]


def test_the_device_is_chosen(checkpoint):
    translate = Translator.load(checkpoint, device="meta")
    assert next(translate.parameters()).device.type == "meta"
    assert next(Translator(GeneratorOnly(ngf=2, depth=1), device="meta").parameters()).device.type == "meta"


def test_the_package_lists_the_translator_without_loading_torch():
    code = "import sys, cyclestyle; print('Translator' in dir(cyclestyle), 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False"]


def test_unet_takes_any_size():
    assert Translator(GeneratorOnly(generator="unet128", ngf=2, depth=5))(Image.new("RGB", (50, 33))).size == (50, 33)


def test_images_of_fitting_size_go_through_untouched():
    torch.manual_seed(0)
    task = GeneratorOnly(ngf=2, depth=1)
    batch = torch.rand(2, 3, 16, 20) * 2 - 1
    with torch.no_grad():
        assert torch.equal(Translator(task).translate(batch), task.generator(batch))


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_load_finds_the_generator_of_the_direction(checkpoint, direction):
    task = CycleGAN.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True).eval()
    image = Image.effect_mandelbrot((32, 32), (-2, -1, 1, 1), 50).convert("RGB")
    generator = task.G_AB if direction == "AtoB" else task.G_BA
    with torch.no_grad():
        expected = to_image(generator(to_tensor(image)[None])[0])
    assert cyclestyle.Translator.load(checkpoint, direction=direction)(image).tobytes() == expected.tobytes()


def test_unknown_direction(checkpoint):
    with pytest.raises(ValueError, match="direction must be AtoB or BtoA, got 'AB'"):
        Translator.load(checkpoint, direction="AB")


class Attack:
    def __reduce__(self):
        return print, ("this code must not run",)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a folder; expected a checkpoint file, or the folder of a run"),
        (lambda path: path.write_text("text"), "is not a checkpoint of plain tensors|is damaged or not a checkpoint"),
        (lambda path: path.write_bytes(b""), "is empty; copy or download it again"),
        (lambda path: torch.save(torch.zeros(1), path), "contains a Tensor, not a checkpoint"),
        (lambda path: torch.save({"state_dict": {}}, path), "holds no generator of a known kind"),
        (lambda path: torch.save({"net.0.weight": torch.zeros(1)}, path), "holds no generator of a known kind"),
        (lambda path: torch.save({1: torch.zeros(1)}, path), "holds no generator of a known kind"),
        (
            lambda path: torch.save({"1.weight": 3, "conv1.conv2d.weight": 3}, path),
            "holds no generator of a known kind",
        ),
        (lambda path: torch.save({}, path), "holds no generator of a known kind"),
        (lambda path: torch.save({"x": Attack()}, path), "it could run code"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, capsys, make, message):
    path = tmp_path / "x.ckpt"
    make(path)
    with pytest.raises(CheckpointError, match=rf"x\.ckpt.*({message})"):
        Translator.load(path)
    assert "must not run" not in capsys.readouterr().out


def test_truncated_checkpoints_are_refused(checkpoint, tmp_path):
    whole = checkpoint.read_bytes()
    for part in (100, len(whole) // 2, len(whole) - 100):
        (tmp_path / "cut.ckpt").write_bytes(whole[:part])
        with pytest.raises(CheckpointError, match=r"cut\.ckpt is damaged"):
            Translator.load(tmp_path / "cut.ckpt")


def test_a_flipped_bit_is_found(checkpoint, tmp_path):
    """`torch.load` alone would hand back wrong weights."""
    content = bytearray(checkpoint.read_bytes())
    weight = torch.load(checkpoint, weights_only=True)["state_dict"]["G_AB.model.1.weight"]
    content[content.index(weight.numpy().tobytes()) + 10] ^= 1
    (tmp_path / "flipped.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"flipped\.ckpt is damaged"):
        Translator.load(tmp_path / "flipped.ckpt")


def test_weights_that_are_missing_are_named(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    del content["state_dict"]["G_AB.model.7.bias"]
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(CheckpointError, match=r"odd\.ckpt do not fit CycleGAN: G_AB\.model\.7\.bias is missing"):
        Translator.load(tmp_path / "odd.ckpt")


def test_a_method_that_takes_styles_is_loaded_with_them(tmp_path):
    torch.manual_seed(0)
    settings = {"width": 2, "level": 1}
    task = Autoencoder(**settings)
    content = {"cyclestyle_task": "Autoencoder", "hyper_parameters": settings, "state_dict": task.state_dict()}
    torch.save(content, tmp_path / "a.ckpt")
    style, photo = Image.effect_mandelbrot((32, 24), (-2, -1, 1, 1), 50), Image.new("RGB", (20, 30), "orange")
    style.save(tmp_path / "style.png")
    by_path = Translator.load(tmp_path / "a.ckpt", style=tmp_path / "style.png")(photo)
    by_image = Translator.load(tmp_path / "a.ckpt", style=[style])(photo)
    assert by_path.size == photo.size
    assert by_path.tobytes() == by_image.tobytes()
    task.use_styles([to_tensor(style.convert("RGB"))])
    with torch.no_grad():
        assert by_path.tobytes() == to_image(task.translate(to_tensor(photo)[None], "AtoB")[0]).tobytes()
    plain = Translator.load(tmp_path / "a.ckpt", style=style, strength=0.0)(photo)
    assert plain.tobytes() != by_path.tobytes()
    with pytest.raises(CycleStyleError, match="no style"):
        Translator.load(tmp_path / "a.ckpt")
