import pytest
import torch
import torch.nn.functional as F
from waits import Waits

from cyclestyle.networks.normalisation import ConditionalInstanceNorm2d, InstanceNorm2d
from cyclestyle.networks.transform import TransformNetwork


@pytest.mark.parametrize("upsample", ["resize", "transpose"])
def test_images_keep_their_size(upsample):
    network = TransformNetwork(upsample=upsample, width=2)
    for height, width in ((8, 8), (12, 32), (40, 20)):
        assert network(torch.rand(2, 3, height, width)).shape == (2, 3, height, width)
    assert (network.multiple, network.min_size, network.in_channels) == (4, 8, 3)


@pytest.mark.parametrize("upsample", ["resize", "transpose"])
def test_the_number_of_parameters_is_that_of_the_paper(upsample):
    """c9s1-32, d64, d128, R128 × 5, u64, u32, c9s1-3, and a scale and a shift for each normalised channel."""
    convolutions = [(3, 32, 9), (32, 64, 3), (64, 128, 3), *[(128, 128, 3)] * 10, (128, 64, 3), (64, 32, 3), (32, 3, 9)]
    expected = sum(
        size * size * in_channels * out_channels + out_channels for in_channels, out_channels, size in convolutions
    )
    expected += sum(2 * out_channels for _, out_channels, _ in convolutions[:-1])
    assert sum(parameter.numel() for parameter in TransformNetwork(upsample=upsample).parameters()) == expected


def test_a_constant_image_stays_constant_at_the_border():
    torch.manual_seed(0)
    stylised = TransformNetwork(width=4)(torch.full((1, 3, 32, 32), 0.3))
    assert stylised.std(dim=(2, 3)).max() < 1e-6


def test_images_of_a_batch_are_independent():
    torch.manual_seed(0)
    network, images = TransformNetwork(width=4).double(), torch.rand(3, 3, 16, 16).double()
    assert torch.allclose(network(images)[1:2], network(images[1:2]), atol=1e-12)


def test_the_output_starts_grey_and_the_first_step_of_adam_is_small():
    """Without OUTPUT_SCALE the first step would move the output far outside [-1, 1]."""
    torch.manual_seed(0)
    network, images = TransformNetwork(), torch.rand(1, 3, 32, 32) * 2 - 1
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    before = network(images)
    assert before.abs().max() < 0.1
    before.mean().neg().backward()  # the gradient of every output pixel has the same sign
    optimiser.step()
    assert (network(images) - before).abs().max() < 0.1


def test_every_weight_has_a_gradient():
    torch.manual_seed(0)
    network = TransformNetwork(width=2)
    (network(torch.rand(1, 3, 16, 16)) * torch.rand(1, 3, 16, 16)).sum().backward()
    # A norm removes the bias of the convolution before it, so the gradient of that bias is 0.
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.any() or name.endswith("conv.bias"), name


def test_the_affine_norm_equals_the_one_of_pytorch():
    torch.manual_seed(0)
    norm, features = InstanceNorm2d(5, affine=True).double(), torch.randn(2, 5, 6, 7, dtype=torch.double)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    expected = F.instance_norm(features, weight=norm.weight, bias=norm.bias)
    assert torch.allclose(norm(features), expected, atol=1e-12)
    assert not list(InstanceNorm2d(5).parameters())


def test_the_mean_level_is_a_constant_of_the_device():
    """One that is made in each call makes the processor wait for a GPU. A saved network does not hold it."""
    network = TransformNetwork(output="tanh", width=2)
    assert "mean" not in network.state_dict()
    with torch.no_grad(), Waits() as waits:
        network(torch.zeros(1, 3, 8, 8))
        assert network.half()(torch.zeros(1, 3, 8, 8).half()).dtype == torch.float16
    assert waits.found == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"upsample": "bilinear"}, "upsample must be resize or transpose, got 'bilinear'"), ({"width": 0}, "got 0")],
)
def test_invalid_settings_raise_an_error(settings, message):
    with pytest.raises(ValueError, match=message):
        TransformNetwork(**settings)


def conditional_norm(channels=5, styles=3):
    torch.manual_seed(0)
    norm = ConditionalInstanceNorm2d(channels, styles).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    return norm


def test_the_conditional_norm_is_that_of_the_paper():
    """Dumoulin et al. 2017, eq. 5: γ (x − μ) / σ + β, with γ and β summed over the styles by their shares."""
    norm, features = conditional_norm(), torch.rand(2, 5, 6, 4).double()
    shares = torch.tensor([[0.2, 0.8, 0.0], [0.0, 0.5, 0.7]]).double()
    mean, variance = features.mean((2, 3), keepdim=True), features.var((2, 3), keepdim=True, correction=0)
    scale, shift = ((shares @ table)[:, :, None, None] for table in (norm.weight, norm.bias))
    expected = scale * (features - mean) / (variance + 1e-5).sqrt() + shift
    assert torch.allclose(norm(features, shares[:, :, None, None]), expected, atol=1e-12)
    for image in (0, 1):  # one style for all images is computed in another way
        alone = norm(features[image : image + 1], shares[image : image + 1, :, None, None])
        assert torch.allclose(alone, expected[image : image + 1], atol=1e-12)


def test_each_pixel_has_the_styles_of_its_shares():
    norm, features = conditional_norm(), torch.rand(1, 5, 4, 6).double()
    left = torch.zeros(1, 3, 4, 6).double()
    left[:, 1, :, :2], left[:, 2, :, 2:] = 1, 1
    mixed = norm(features, left)
    for style, columns in ((1, slice(0, 2)), (2, slice(2, 6))):
        whole = norm(features, torch.eye(3).double()[style][None, :, None, None])
        assert torch.allclose(mixed[..., columns], whole[..., columns], atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 3, 8, 8)])
def test_the_gradients_of_a_network_of_many_styles(shape):
    """Against finite differences, in float64."""
    torch.manual_seed(0)
    network = TransformNetwork(width=1, output="sigmoid", styles=3).double()
    images, shares = torch.rand(shape[0], 3, 8, 8).double(), torch.rand(shape).double()
    parameters = [network.first.norm.weight, network.blocks[2].second.norm.bias, network.last.conv.weight]
    output = network(images, shares)
    direction = torch.rand_like(output)
    found = torch.autograd.grad((output * direction).sum(), parameters)
    for parameter, gradient in zip(parameters, found, strict=True):
        step = torch.randn_like(parameter)
        step *= 1e-5 / step.norm()
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * step)
                values.append((network(images, shares) * direction).sum())
                parameter.sub_(sign * step)
        assert torch.isclose(values[0] - values[1], 2 * (gradient * step).sum(), rtol=1e-4, atol=1e-12)
