import pytest
import torch
from PIL import Image

from cyclestyle.data.sample import write_samples
from cyclestyle.images import read_image, to_tensor
from cyclestyle.metrics import METRICS, checkerboard, checkerboard_spectrum, measure_images, summarise
from cyclestyle.metrics.checkerboard import FREQUENCIES, MIN_SIZE
from cyclestyle.networks import build_generator, initialise

DIRECTIONS = {"rows": (1, 0), "columns": (0, 1), "diagonal": (1, 1), "other diagonal": (1, -1)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Sample photos, `(8, 3, 128, 128)`."""
    folder = tmp_path_factory.mktemp("photos")
    write_samples(folder, train=8, test=1, size=128, workers=1)
    return torch.stack([to_tensor(read_image(path)) for path in sorted((folder / "trainA").iterdir())])


def wave(period, direction, size):
    row, column = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
    y, x = DIRECTIONS[direction]
    return torch.cos(2 * torch.pi * (y * row + x * column) / period)


@pytest.mark.parametrize("size", [(128, 128), (64, 64), (127, 101), (64, 96)])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("period", [2, 4])
def test_a_faint_pattern_raises_the_figure_of_its_frequency_alone(photos, period, direction, size):
    images = photos[..., : size[0], : size[1]] * 0.9
    before, after = (checkerboard_spectrum(one) for one in (images, images + 0.04 * wave(period, direction, size)))
    quarters = tuple(abs(part) * 4 // period for part in DIRECTIONS[direction])
    at = FREQUENCIES.index(quarters)
    assert (after[:, at] - before[:, at]).mean() > 0.5
    others = [n for n in range(len(FREQUENCIES)) if n != at]
    assert (after[:, others] - before[:, others]).abs().max() < 0.02
    assert (checkerboard(images + 0.04 * wave(period, direction, size)) > checkerboard(images)).all()


def test_the_figure_is_the_ratio_of_the_definition():
    """White noise of variance v and a wave of amplitude a: the 9 bins of the window hold a²/4 times the pixels."""
    torch.manual_seed(0)
    size, amplitude, deviation = 256, 0.2, 0.1
    noise = deviation * torch.randn(40, 1, size, size).expand(-1, 3, -1, -1)
    found = checkerboard_spectrum(noise + amplitude * wave(4, "columns", (size, size)))
    power = amplitude**2 / 4 * size**2 / 1.5**2  # at the middle bin: 2.25 is the noise bandwidth of the window
    window = 1.5**2  # the middle bin and its neighbours, (1 + 2 · ¼)², relative to the middle
    expected = torch.log10(torch.tensor((power * window / 25 + deviation**2) / deviation**2))
    assert found[:, FREQUENCIES.index((0, 1))].mean() == pytest.approx(expected.item(), abs=0.02)
    assert found[:, FREQUENCIES.index((2, 2))].mean() == pytest.approx(0, abs=0.05)


def test_natural_images_have_about_0(photos):
    assert abs(checkerboard(photos).mean()) < 0.1
    assert abs(checkerboard(photos[..., :77, :93]).mean()) < 0.15
    assert checkerboard_spectrum(photos).mean(dim=0).max() < 0.15


def test_photos_and_paintings_have_0(reference):
    for folder in ("trainA", "trainB"):
        paths = sorted((reference.parent / "data" / "monet2photo" / folder).iterdir())[:40]
        if not paths:
            pytest.skip("monet2photo is not there")
        images = torch.stack([to_tensor(read_image(path)) for path in paths])
        assert checkerboard(images).mean().item() == pytest.approx(0, abs=0.05)


def test_brightness_contrast_and_mirroring_hardly_matter(photos):
    images = photos * 0.5 + 0.1 * wave(4, "diagonal", (128, 128))
    for changed in (images + 0.3, images * 0.5, images.flip(-1), images.flip(-2), images.transpose(2, 3)):
        assert torch.allclose(checkerboard(changed), checkerboard(images), atol=0.02)


def test_flat_images_have_0_and_rounding_shows_nothing():
    assert checkerboard(torch.full((2, 3, 64, 64), 0.3)).abs().max() < 1e-3
    torch.manual_seed(0)
    rounded = (torch.rand(1, 1, 128, 128).expand(-1, 3, -1, -1) + 127).round() / 127.5 - 1
    assert checkerboard(rounded).abs().max() < 0.15


def test_small_images_have_none(photos):
    assert MIN_SIZE == 64
    for size in ((63, 128), (128, 63), (32, 32), (1, 1)):
        small = photos[..., : size[0], : size[1]]
        assert checkerboard(small).isnan().all()
        assert checkerboard_spectrum(small).isnan().all()
    assert METRICS["checkerboard"].text(checkerboard(photos[..., :32, :32])[0].item()) == "n/a"
    assert checkerboard(photos[..., :67, :64]).isfinite().all()


def test_transposed_convolutions_have_a_checkerboard_and_the_others_none(photos):
    figures = {}
    for resample in ("transpose", "resize", "blur"):
        torch.manual_seed(0)
        generator = build_generator("resnet6", ngf=8, resample=resample)
        initialise(generator)
        with torch.no_grad():
            figures[resample] = checkerboard(generator(photos)).mean().item()
    assert figures["transpose"] > 0.3
    assert max(figures["resize"], figures["blur"]) < 0.1


def test_the_table_measures_translations(photos):
    found = measure_images(lambda images: images, {"translation": photos})
    assert [one["checkerboard"] for one in found] == checkerboard(photos).tolist()
    assert [one["checkerboard_worst"] for one in found] == checkerboard_spectrum(photos).tolist()


def test_the_worst_frequency_is_that_of_all_images_together(photos):
    """What sticks out of one image alone, each time at another frequency, is no checkerboard."""
    found = summarise(measure_images(lambda images: images, {"translation": photos}))
    spectra = checkerboard_spectrum(photos)
    assert found["checkerboard"] == pytest.approx(spectra.mean().item(), abs=1e-6)
    assert found["checkerboard_worst"] == pytest.approx(spectra.mean(dim=0).max().item(), abs=1e-6)
    assert found["checkerboard_worst"] < spectra.amax(dim=1).mean() - 0.1


def test_score_shows_both_figures(cyclestyle, tmp_path):
    write_samples(tmp_path, train=2, test=2, size=64, workers=1)
    (tmp_path / "out").mkdir()
    for path in sorted((tmp_path / "testA").iterdir()):
        image = to_tensor(read_image(path)) * 0.8 + 0.2 * wave(2, "diagonal", (64, 64))
        Image.fromarray(((image.permute(1, 2, 0) + 1) * 127.5).byte().numpy()).save(tmp_path / "out" / path.name)
    words = [f"--{name}={tmp_path / folder}" for name, folder in
             (("output", "out"), ("input", "testA"), ("source", "trainA"), ("target", "trainB"))]  # fmt: skip
    status, text, _ = cyclestyle("score", *words)
    assert status == 0
    assert "checkerboard ↓" in text
    assert "worst frequency ↓" in text
