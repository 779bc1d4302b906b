import pytest
import torch
import torch.nn.functional as F

from cyclestyle.networks.normalisation import InstanceNorm2d
from cyclestyle.networks.transform import TransformNetwork


@pytest.mark.parametrize("upsample", ["resize", "transpose"])
def test_images_keep_their_size(upsample):
    network = TransformNetwork(upsample=upsample, width=2)
    for height, width in ((8, 8), (12, 32), (40, 20)):
        assert network(torch.rand(2, 3, height, width)).shape == (2, 3, height, width)
    assert (network.multiple, network.min_size, network.in_channels) == (4, 8, 3)


@pytest.mark.parametrize("upsample", ["resize", "transpose"])
def test_it_is_as_large_as_the_papers(upsample):
    """Counted by hand: c9s1-32, d64, d128, R128 × 5, u64, u32, c9s1-3, and two numbers a normalised channel."""
    convolutions = [(3, 32, 9), (32, 64, 3), (64, 128, 3), *[(128, 128, 3)] * 10, (128, 64, 3), (64, 32, 3), (32, 3, 9)]
    expected = sum(size * size * inputs * outputs + outputs for inputs, outputs, size in convolutions)
    expected += sum(2 * outputs for _, outputs, _ in convolutions[:-1])
    assert sum(parameter.numel() for parameter in TransformNetwork(upsample=upsample).parameters()) == expected


def test_a_flat_image_gets_no_frame():
    torch.manual_seed(0)
    painted = TransformNetwork(width=4)(torch.full((1, 3, 32, 32), 0.3))
    assert painted.std(dim=(2, 3)).max() < 1e-6


def test_images_of_a_batch_do_not_see_each_other():
    torch.manual_seed(0)
    network, images = TransformNetwork(width=4).double(), torch.rand(3, 3, 16, 16).double()
    assert torch.allclose(network(images)[1:2], network(images[1:2]), atol=1e-12)


def test_painting_starts_grey_and_steps_of_adam_are_small():
    """In units of [-1, 1] the last convolution's first step would leave the range of images far behind."""
    torch.manual_seed(0)
    network, images = TransformNetwork(), torch.rand(1, 3, 32, 32) * 2 - 1
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    before = network(images)
    assert before.abs().max() < 0.1
    before.mean().neg().backward()  # every gradient points the same way
    optimiser.step()
    assert (network(images) - before).abs().max() < 0.1


def test_every_weight_learns():
    torch.manual_seed(0)
    network = TransformNetwork(width=2)
    (network(torch.rand(1, 3, 16, 16)) * torch.rand(1, 3, 16, 16)).sum().backward()
    # A shift before a norm is taken away again, so biases there learn nothing.
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.any() or name.endswith("conv.bias"), name


def test_norm_with_weights_is_pytorchs():
    torch.manual_seed(0)
    norm, features = InstanceNorm2d(5, affine=True).double(), torch.randn(2, 5, 6, 7, dtype=torch.double)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    expected = F.instance_norm(features, weight=norm.weight, bias=norm.bias)
    assert torch.allclose(norm(features), expected, atol=1e-12)
    assert not list(InstanceNorm2d(5).parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"upsample": "bilinear"}, "upsample must be resize or transpose, got 'bilinear'"), ({"width": 0}, "got 0")],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TransformNetwork(**settings)
