import pytest
import torch

from cyclestyle.data.sample import write_samples
from cyclestyle.functional.comb import comb_filter
from cyclestyle.images import read_image, to_tensor
from cyclestyle.metrics import checkerboard_spectrum
from cyclestyle.networks import build_generator


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Sample photos, `(4, 3, 128, 128)`."""
    folder = tmp_path_factory.mktemp("photos")
    write_samples(folder, train=4, test=1, size=128, workers=1)
    return torch.stack([to_tensor(read_image(path)) for path in sorted((folder / "trainA").iterdir())])


def wave(period, size=(96, 80)):
    row, column = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
    return {
        "rows": torch.cos(2 * torch.pi * row / period),
        "columns": torch.sin(2 * torch.pi * column / period + 1),
        "diagonal": torch.cos(2 * torch.pi * (row + column) / period + 0.5),
    }


@pytest.mark.parametrize("period", [2, 4])
@pytest.mark.parametrize("direction", ["rows", "columns", "diagonal"])
def test_a_regular_pattern_is_removed(period, direction):
    pattern = wave(period)[direction].expand(1, 3, -1, -1) * 0.3
    left = comb_filter(pattern + 0.1) - 0.1
    inner = left[..., 26:-26, 26:-26]  # a border reflects a pattern, but not its phase
    assert inner.abs().max() < 1e-5


@pytest.mark.parametrize("period", [3, 5, 8])
def test_other_patterns_stay(period):
    for pattern in wave(period).values():
        images = pattern.expand(1, 1, -1, -1) * 0.3
        assert (comb_filter(images) - images)[..., 26:-26, 26:-26].abs().max() < 0.02


def test_areas_of_one_colour_and_slopes_stay():
    row, column = torch.meshgrid(torch.arange(90.0), torch.arange(70.0), indexing="ij")
    slopes = (0.004 * row - 0.003 * column).expand(1, 3, -1, -1)
    assert torch.allclose(comb_filter(torch.full((1, 3, 90, 70), 0.37)), torch.tensor(0.37), atol=1e-6)
    inner = (comb_filter(slopes) - slopes)[..., 27:-27, 27:-27]
    assert inner.abs().max() < 1e-5


def test_photos_change_by_less_than_two_levels(photos):
    assert (comb_filter(photos) - photos).abs().mean() < 2 / 127.5
    pattern = sum(wave(4, (128, 128)).values()) * 0.03
    filtered = comb_filter(photos * 0.9 + pattern)
    assert checkerboard_spectrum(photos * 0.9 + pattern).mean(dim=0).max() > 0.3
    assert checkerboard_spectrum(filtered).mean(dim=0).max() < 0.05


@pytest.mark.parametrize("size", [(1, 1), (26, 100), (100, 26)])
def test_small_images_stay(size):
    images = torch.rand(1, 3, *size)
    assert comb_filter(images) is images


@pytest.mark.parametrize(("name", "size"), [("resnet6", 64), ("unet128", 128)])
def test_a_generator_filters_its_results_but_not_in_training(name, size):
    torch.manual_seed(0)
    plain = build_generator(name, ngf=2)
    filtering = build_generator(name, ngf=2, comb_filter=True)
    filtering.load_state_dict(plain.state_dict())
    images = torch.rand(1, 3, size, size) * 2 - 1
    with torch.no_grad():
        expected = plain(images)
        assert torch.equal(filtering.train()(images), expected)
        assert torch.equal(filtering.eval()(images), comb_filter(expected))
