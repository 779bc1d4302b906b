import pytest
import torch

from cyclestyle.functional.colour import ColourTransfer, put_luminance, to_grey


def moments(images):
    pixels = torch.cat([image.flatten(1) for image in images], dim=1).double()
    return pixels.mean(1), torch.cov(pixels, correction=0)


def test_the_source_gets_the_mean_and_covariance_of_the_target():
    torch.manual_seed(0)
    mix = torch.tensor([[1.0, 0.3, 0.0], [0.0, 0.7, 0.2], [0.1, 0.0, 0.4]])
    source = [torch.randn(3, 20, 30) * 0.1 for _ in range(4)]
    target = [torch.einsum("ij,jhw->ihw", mix, torch.randn(3, 25, 10)) * 0.1 + 0.05 for _ in range(3)]
    transfer = ColourTransfer.fit(source, target)
    for result, expected in zip(moments([transfer(image) for image in source]), moments(target), strict=True):
        assert torch.allclose(result, expected, atol=2e-3)  # clamping to [-1, 1] changes a few pixels


def test_the_map_of_a_domain_to_itself_is_the_identity():
    torch.manual_seed(0)
    images = [torch.rand(3, 8, 8) - 0.5 for _ in range(3)]
    transfer = ColourTransfer.fit(images, images)
    assert torch.allclose(transfer.matrix, torch.eye(3, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(transfer(images[0]), images[0], atol=1e-6)


@pytest.mark.parametrize("method", ["transport", "pca", "cholesky"])
@pytest.mark.parametrize("deviation", [1e-2, 1e-3, 1e-5])
def test_the_map_of_a_nearly_grey_image_to_itself_is_the_identity(method, deviation):
    torch.manual_seed(0)
    image = 0.2 * torch.randn(1, 16, 16) + deviation * torch.randn(3, 16, 16)
    assert torch.allclose(ColourTransfer.fit([image], [image], method)(image), image, atol=1e-6)


def test_images_of_one_colour_give_finite_results():
    transfer = ColourTransfer.fit([torch.zeros(3, 4, 4)], [torch.full((3, 4, 4), 0.5)])
    assert torch.allclose(transfer(torch.zeros(3, 4, 4)), torch.full((3, 4, 4), 0.5))


@pytest.mark.parametrize("method", ["transport", "pca", "cholesky"])
def test_every_method_gives_the_mean_and_covariance_of_the_target(method):
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(3, 3, generator=generator)
    source = 0.2 * torch.randn(3, 40, 30, generator=generator)
    target = 0.1 + 0.05 * (mix @ torch.randn(3, 500, generator=generator)).reshape(3, 25, 20)
    result = ColourTransfer.fit([source], [target], method)(source)
    for moment in (lambda x: x.flatten(1).mean(dim=1), lambda x: torch.cov(x.flatten(1), correction=0)):
        torch.testing.assert_close(moment(result), moment(target), atol=1e-4, rtol=1e-3)


def test_transport_has_the_smallest_change_of_colour():
    generator = torch.Generator().manual_seed(1)
    source, target = (torch.randn(3, 20, 20, generator=generator) * torch.tensor([0.1, 0.2, 0.3])[:, None, None]
                      for _ in range(2))  # fmt: skip
    target = torch.einsum("ij,jhw->ihw", torch.linalg.qr(torch.randn(3, 3, generator=generator))[0], target)
    change = {
        method: (ColourTransfer.fit([source], [target], method)(source) - source).square().mean()
        for method in ("transport", "pca", "cholesky")
    }
    assert change["transport"] <= min(change["pca"], change["cholesky"])


def test_put_luminance_replaces_the_luminance_and_keeps_the_chrominance():
    photos, images = 0.3 * torch.rand(1, 3, 4, 4), 0.3 * torch.rand(1, 3, 4, 4)
    result = put_luminance(images, photos)
    torch.testing.assert_close(to_grey(result), to_grey(images))
    torch.testing.assert_close(result - to_grey(result), photos - to_grey(photos))
