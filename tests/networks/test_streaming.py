"""Streaming: the result of the whole image, whatever the generator, the size and the strips."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cyclestyle.networks import build_generator
from cyclestyle.networks.calls import call_at_any_size
from cyclestyle.networks.normalisation import InstanceNorm2d
from cyclestyle.networks.streaming import NotStreamableError, Room, collect_statistics, plan, stream
from cyclestyle.networks.transform import TransformNetwork

SIZES = [(64, 64), (1, 70), (70, 1), (3, 500), (133, 77), (258, 41)]


def generator(name):
    kind, _, resample = name.partition(" ")
    if kind == "transform":
        network = TransformNetwork(upsample=resample, width=4)
    elif kind == "unet":
        network = build_generator("unet128", ngf=4, depth=int(resample))
    else:
        network = build_generator("resnet9", ngf=4, depth=2, dropout=True, resample=resample)
    numbers = torch.Generator().manual_seed(5)
    for parameter in network.parameters():  # outputs that fill [-1, 1]
        size = parameter[0].numel() ** 0.5 if parameter.ndim == 4 else 5
        nn.init.normal_(parameter, std=1.4 / size, generator=numbers)
    if kind == "transform":
        network.last.weight.data.mul_(127)
    return network.eval()


def whole(function, image):
    with torch.no_grad():
        return function(image)


def streamed(function, image, memory, folder, **options):
    """Stream an image; with little memory the strips have a few rows, and activations are in the scratch file."""
    rows = []

    def write(start, strip):
        assert start == sum(part.shape[2] for part in rows)
        rows.append(strip.clone())

    read = partial(_rows, image)
    stream(function, image.shape, read, write, Room(memory=memory, folder=folder, dtype=image.dtype), **options)
    return torch.cat(rows, 2)


def _rows(image, start, stop):
    assert 0 <= start < stop <= image.shape[2]
    return image[:, :, start:stop]


def image_of(height, width, channels=3, seed=0):
    values = torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(seed))
    return values * 2 - 1


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    "name",
    ["resnet transpose", "resnet resize", "resnet blur", "unet 5", "unet 7", "transform resize", "transform transpose"],
)
def test_the_result_is_that_of_the_whole_image(name, size, tmp_path):
    function, image = partial(call_at_any_size, generator(name)), image_of(*size)
    expected = whole(function, image)
    assert expected.std() > 0.05
    for memory in (2**16, 2**19, 2**30):  # one row a strip and all in a file; some of each; one strip in memory
        result = streamed(function, image, memory, tmp_path)
        assert result.shape == expected.shape
        assert (result - expected).abs().max() < 1e-5, memory
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["resnet transpose", "resnet blur", "unet 5", "transform resize"])
@pytest.mark.parametrize("size", [(133, 77), (3, 200), (200, 3)])
def test_one_sweep_with_the_statistics_of_the_image_itself_gives_the_same(name, size, tmp_path):
    function, image = partial(call_at_any_size, generator(name)), image_of(*size)
    statistics = collect_statistics(function, image.shape, partial(_rows, image), Room(memory=2**20, folder=tmp_path))
    for memory in (2**14, 2**19):
        result = streamed(function, image, memory, tmp_path / "nowhere", statistics=statistics)
        assert (result - whole(function, image)).abs().max() < 1e-5


def test_statistics_are_those_of_the_whole_image_in_float64(tmp_path):
    """Also of activations whose mean is thousands of times their deviation, in which float32 sums lose every digit."""
    image = image_of(301, 67).double()
    shifted = (image + torch.tensor([0.0, 3000.0, -100.0])[:, None, None]).float()
    found = collect_statistics(InstanceNorm2d(3), shifted.shape, partial(_rows, shifted), Room(memory=2**14))
    (mean, variance) = found[0]
    exact = shifted.double()
    assert mean.dtype == variance.dtype == torch.float64
    torch.testing.assert_close(mean, exact.mean((0, 2, 3)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(variance, exact.var((0, 2, 3), correction=0), rtol=1e-9, atol=0)


def test_a_network_written_in_another_way(tmp_path):
    """No module, operators and functions of several names, a scale and a skip connection."""
    torch.manual_seed(0)
    weight, other = torch.randn(6, 3, 5, 5) / 9, torch.randn(6, 6, 3, 3) / 7

    def function(x):
        start = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), weight)
        y = F.instance_norm(start).sigmoid() - 0.5
        y = F.avg_pool2d(y, 2) + F.max_pool2d(y, 2)
        y = torch.cat([F.interpolate(y, scale_factor=2), start[:, :6]], dim=1)
        variance, mean = torch.var_mean(y, dim=(2, 3), keepdim=True)
        y = ((y - mean) / (variance + 1e-5).sqrt())[:, ::2].mul(0.7).clamp(-1, 2)
        y = y + F.conv2d(F.relu(y, inplace=False), other, padding=2, dilation=2)
        return torch.lerp(y, torch.tanh(y), 0.5)[..., 3:, :-2]

    image = image_of(46, 30)
    expected = whole(function, image)
    assert (streamed(function, image, 2**14, tmp_path) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.flatten(2).softmax(2).view_as(x),
        lambda x: x.flip(2),
        lambda x: x * torch.ones(1, 1, 20, 20),
        lambda x: F.group_norm(x, 1),
        lambda x: torch.zeros(1, 3, 20, 20),
    ],
    ids=["softmax", "flip", "mask", "group_norm", "constant"],
)
def test_what_needs_the_whole_image_is_refused(function):
    with pytest.raises(NotStreamableError):
        plan(function, (1, 3, 20, 20), Room())


def test_the_weights_may_have_another_type(tmp_path):
    network = generator("resnet transpose")
    image = image_of(60, 44)
    expected = whole(network, image)
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.bfloat16, 0.2)):
        result = streamed(network.to(dtype), image.to(dtype), 2**18, tmp_path)
        assert result.dtype == dtype
        assert (result - expected).abs().max() < tolerance


def test_the_plan_foresees_what_is_kept_and_the_work(tmp_path):
    """A ResNet keeps its two largest activations: 2 · ngf channels at half the size, and ngf channels at full size."""
    network, shape = build_generator("resnet9", ngf=16, depth=9), (1, 3, 256, 512)
    found = plan(network, shape, Room())
    assert found.kept_bytes == (16 + 32 / 4) * 256 * 512 * 4
    shares = []
    image = image_of(256, 512)
    streamed(network, image, 2**22, tmp_path, work=found.work, on_progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert len(shares) > 100


def test_convolutions_are_computed_once(monkeypatch, tmp_path):
    computed = 0
    original = F.conv2d

    def counted(x, weight, *others):
        nonlocal computed
        result = original(x, weight, *others)
        computed += result.numel() if type(x) is torch.Tensor else 0
        return result

    network = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()) for _ in range(5)))
    monkeypatch.setattr("cyclestyle.networks.streaming.strips.F.conv2d", counted)
    streamed(network, image_of(90, 20, channels=4), 2**15, tmp_path)
    assert computed == 5 * 4 * 90 * 20


def test_an_error_leaves_no_scratch_file(tmp_path):
    def write(start, rows):
        assert list(Path("/proc/self/fd").iterdir())
        raise RuntimeError("stopped")

    image = image_of(64, 64)
    function = generator("resnet transpose")
    with pytest.raises(RuntimeError, match="stopped"):
        stream(function, image.shape, partial(_rows, image), write, Room(memory=2**16, folder=tmp_path))
    assert list(tmp_path.iterdir()) == []
