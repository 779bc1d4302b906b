import torch

from cyclestyle.translate.colour import ColourTransfer


def moments(images):
    pixels = torch.cat([image.flatten(1) for image in images], dim=1).double()
    return pixels.mean(1), torch.cov(pixels, correction=0)


def test_the_source_gets_mean_and_covariance_of_the_target():
    torch.manual_seed(0)
    mix = torch.tensor([[1.0, 0.3, 0.0], [0.0, 0.7, 0.2], [0.1, 0.0, 0.4]])
    source = [torch.randn(3, 20, 30) * 0.1 for _ in range(4)]
    target = [torch.einsum("ij,jhw->ihw", mix, torch.randn(3, 25, 10)) * 0.1 + 0.05 for _ in range(3)]
    transfer = ColourTransfer.fit(source, target)
    for result, expected in zip(moments([transfer(image) for image in source]), moments(target), strict=True):
        assert torch.allclose(result, expected, atol=2e-3)  # the little that [-1, 1] cuts off


def test_a_domain_is_mapped_onto_itself_by_the_identity():
    torch.manual_seed(0)
    images = [torch.rand(3, 8, 8) - 0.5 for _ in range(3)]
    transfer = ColourTransfer.fit(images, images)
    assert torch.allclose(transfer.matrix, torch.eye(3, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(transfer(images[0]), images[0], atol=1e-6)


def test_one_colour_pictures_stay_finite():
    transfer = ColourTransfer.fit([torch.zeros(3, 4, 4)], [torch.full((3, 4, 4), 0.5)])
    assert torch.allclose(transfer(torch.zeros(3, 4, 4)), torch.full((3, 4, 4), 0.5))
