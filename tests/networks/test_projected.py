"""Projected discriminators, against the definition of Sauer et al. 2021 and the table of its sizes."""

import builtins

import pytest
import torch
import torch.nn.functional as F
from conftest import SHARED, Taps
from torch import nn

from cyclestyle.errors import CheckpointError, CycleStyleError
from cyclestyle.images import read_image, to_tensor
from cyclestyle.images.folders import find_images
from cyclestyle.networks import ProjectedDiscriminator, build_discriminators, initialise
from cyclestyle.weights.efficientnet import load_efficientnet

WEIGHTS = SHARED / "weights" / "efficientnet_lite0_imagenet.pth"


def new(features=None, **settings):
    torch.manual_seed(0)
    network = ProjectedDiscriminator(**settings)
    network.features = (features or Taps(),)
    return network


def images(*shape, dtype=torch.float32):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1).to(dtype)


@pytest.fixture(scope="module")
def lite0():
    pytest.importorskip("timm")
    if not WEIGHTS.exists():
        pytest.skip(f"the weights are not at {WEIGHTS}")
    return load_efficientnet(str(WEIGHTS))


def count(values):
    return sum(value.numel() for value in values)


def test_parameters_and_shapes_are_those_of_the_paper():
    network = new()
    assert count(network.channel_mixing.buffers()) == 200_128
    assert count(network.scale_mixing.buffers()) == 176_640
    assert count(network.parameters()) == count(network.heads.parameters()) == 10_331_328
    for size, maps, scores in ((224, (112, 56, 28, 14), 64), (256, (128, 64, 32, 16), 100)):
        shapes = [tuple(one.shape) for one in network.project(torch.zeros(1, 3, size, size))]
        assert shapes == [(1, channels, side, side) for channels, side in zip((64, 64, 128, 256), maps, strict=True)]
        assert network(torch.zeros(1, 3, size, size)).shape == (1, scores)
    assert network(torch.zeros(2, 1, 40, 40)).shape == (2, 64)  # enlarged to 224
    assert network(torch.zeros(1, 3, 231, 290)).shape[0] == 1  # no multiple of 32


def test_the_frozen_network_has_the_published_size_and_taps(lite0):
    assert count(lite0.parameters()) == 2_958_848
    shapes = [tuple(one.shape[1:]) for one in lite0(torch.zeros(1, 3, 224, 224))]
    assert shapes == [(24, 56, 56), (40, 28, 28), (112, 14, 14), (320, 7, 7)]
    assert not any(parameter.requires_grad for parameter in lite0.parameters())


def test_the_mixing_is_that_of_the_definition():
    """Channels are mixed, the map from below is added, enlarged, and mixed across scales."""
    network, x = new(size=128).double(), images(2, 3, 128, 128, dtype=torch.float64)
    expected, below = [], None
    for level, tap in reversed(list(enumerate(network.features[0].double()(x)))):
        mixed = network.channel_mixing[level](tap)
        mixed = mixed if below is None else mixed + below
        large = F.interpolate(mixed, scale_factor=2, mode="bilinear", align_corners=True)
        below = network.scale_mixing[level](large)
        expected.insert(0, below)
    for found, wanted in zip(network.project(x), expected, strict=True):
        assert torch.allclose(found, wanted, rtol=0, atol=1e-12)


def test_projections_are_drawn_as_convolutions_are_and_heads_keep_what_they_have():
    network = new()
    for mixing in (*network.channel_mixing, *network.scale_mixing):
        bound = mixing.weight.shape[1] ** -0.5
        for value in (mixing.weight, mixing.bias):
            assert 0.9 * bound < value.abs().max() <= bound
    before = {key: value.clone() for key, value in network.state_dict().items()}
    initialise(network)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not torch.equal(new().heads[0][0].bias, torch.zeros(64))


def test_heads_have_spectral_norm_and_group_norm_of_two_channels():
    network = new(size=128)
    for _ in range(30):  # of the power iteration
        network(images(1, 3, 128, 128))
    convolutions = [module for module in network.eval().modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 4 + 3 + 2 + 1 + 4
    for convolution in convolutions:
        assert torch.linalg.matrix_norm(convolution.weight.flatten(1), ord=2).item() == pytest.approx(1, abs=0.05)
    norms = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    assert len(norms) == 10
    assert all(2 * norm.num_groups == norm.num_channels for norm in norms)


def test_the_scores_of_an_image_do_not_depend_on_the_batch():
    network, x = new(size=128).eval(), images(3, 3, 128, 128)
    assert torch.allclose(network(x)[1], network(x[1:2])[0], atol=1e-5)


def test_the_gradient_of_the_image_equals_differences(lite0):
    network, x = new(lite0, size=128).double().eval(), images(1, 3, 48, 48, dtype=torch.float64).requires_grad_()
    direction, step = images(2, 3, 48, 48, dtype=torch.float64)[1:], 1e-6
    (gradient,) = torch.autograd.grad(network(x).mean(), x)
    with torch.no_grad():
        difference = (network(x + step * direction).mean() - network(x - step * direction).mean()) / (2 * step)
    lite0.float()
    assert (gradient * direction).sum().item() == pytest.approx(difference.item(), rel=1e-5)


def test_the_memory_format_does_not_change_the_gradients():
    found = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        network = new(size=128).double().to(memory_format=memory_format)
        x = images(1, 3, 128, 128, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
        network(x).mean().backward()
        found.append([x.grad, *(parameter.grad for parameter in network.parameters())])
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-14)


def test_features_and_heads_are_compiled_and_the_state_stays():
    network, compiled = new(size=128).eval(), []
    before, names = network(images(1, 3, 128, 128)), list(network.state_dict())
    network.compile(backend=lambda graph, _: compiled.append(graph) or graph.forward)
    assert torch.equal(network(images(1, 3, 128, 128)), before)
    assert len(compiled) == 5
    assert list(network.state_dict()) == names


def test_photos_have_the_statistics_that_the_network_has_stored(lite0):
    """Weights under wrong names, or other padding, would not."""
    folder = SHARED / "data" / "monet2photo" / "testB"
    if not folder.is_dir():
        pytest.skip(f"there are no photos at {folder}")
    photos = torch.stack([to_tensor(read_image(path).resize((224, 224))) for path in find_images(folder)[:8]])
    distances = []

    def measure(norm, inputs, output):
        deviation = (inputs[0].mean((0, 2, 3)) - norm.running_mean).abs() / (norm.running_var + norm.eps).sqrt()
        distances.append(deviation.median().item())

    hooks = [one.register_forward_hook(measure) for one in lite0.modules() if isinstance(one, nn.BatchNorm2d)]
    lite0(photos)
    for hook in hooks:
        hook.remove()
    assert len(distances) == 48
    assert max(distances) < 0.5


def test_files_of_timm_and_random_weights_are_read(tmp_path, lite0):
    torch.save({**lite0.state_dict(), "classifier.bias": torch.zeros(1000)}, tmp_path / "timm.pth")
    again = load_efficientnet(str(tmp_path / "timm.pth"))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in lite0.state_dict().items())
    before = torch.get_rng_state()
    first, second = load_efficientnet("random"), load_efficientnet("random")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())


def test_mistakes_get_one_line(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="projected discriminators need images of 1 or 3 channels, got 4"):
        ProjectedDiscriminator(in_channels=4)
    with pytest.raises(ValueError, match="projected_size must be at least 128, got 64"):
        ProjectedDiscriminator(size=64)
    for names in ([], ["basic", "basic"]):
        with pytest.raises(ValueError, match="discriminator must be a name, or a list of names, none twice"):
            build_discriminators(names)
    with pytest.raises(ValueError, match="must be basic, n_layers, pixel or projected, got 'patch'"):
        build_discriminators(["basic", "patch"])
    real_import = builtins.__import__

    def without_timm(name, *rest):
        if name == "timm":
            raise ImportError(name)
        return real_import(name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", without_timm)
        with pytest.raises(CycleStyleError, match="projected discriminators need timm; install it"):
            load_efficientnet("random")
    pytest.importorskip("timm")
    with pytest.raises(CheckpointError, match=r"missing.pth do not exist; set model.projected_weights"):
        load_efficientnet(str(tmp_path / "missing.pth"))
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other.pth does not contain tf_efficientnet_lite0"):
        load_efficientnet(str(tmp_path / "other.pth"))
