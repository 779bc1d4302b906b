import pytest
import torch
import torchvision.transforms.functional as TF

from cyclestyle.metrics import texture_distance


@pytest.fixture
def noise():
    torch.manual_seed(0)
    return torch.rand(2, 3, 64, 64) - 0.5


def test_equal_images_have_distance_0(noise):
    assert texture_distance(noise, noise).tolist() == [0.0, 0.0]


def test_it_is_symmetric_and_grows_with_blur(noise):
    distances = [texture_distance(noise, TF.gaussian_blur(noise, 9, [sigma, sigma])) for sigma in (0.4, 1.0, 3.0)]
    assert (distances[0] < distances[1]).all()
    assert (distances[1] < distances[2]).all()
    assert torch.allclose(texture_distance(noise, noise * 0.5), texture_distance(noise * 0.5, noise))


def test_texture_counts_and_colour_does_not(noise):
    other_noise = noise.flip(-1).roll(5, -2)
    assert texture_distance(noise, noise + 0.3).max() < 1e-4
    assert (texture_distance(noise, other_noise) < 0.3 * texture_distance(noise, torch.zeros_like(noise))).all()


def test_direction_counts():
    stripes = torch.sin(torch.arange(64) * 1.5).expand(1, 3, 64, 64)
    assert texture_distance(stripes, stripes.transpose(2, 3)) > 0.5


@pytest.mark.parametrize("size", [(3, 3), (1, 20), (130, 77)])
def test_any_size(size):
    assert texture_distance(torch.zeros(1, 3, *size), torch.ones(1, 3, *size)).isfinite().all()
