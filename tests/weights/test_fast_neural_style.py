import pytest
import torch
import torch.nn.functional as F

from cyclestyle.errors import CheckpointError
from cyclestyle.tasks import Johnson
from cyclestyle.translator import Translator


def example_weights(width=32):
    """Random weights in the layout of PyTorch's fast_neural_style example."""
    generator = torch.Generator().manual_seed(0)
    layers = {"conv1": (width, 3, 9), "conv2": (2 * width, width, 3), "conv3": (4 * width, 2 * width, 3)}
    layers |= {f"res{n}.conv{m}": (4 * width, 4 * width, 3) for n in range(1, 6) for m in (1, 2)}
    layers |= {"deconv1": (2 * width, 4 * width, 3), "deconv2": (width, 2 * width, 3), "deconv3": (3, width, 9)}
    norms = {"in1": width, "in2": 2 * width, "in3": 4 * width, "in4": 2 * width, "in5": width}
    norms |= {f"res{n}.in{m}": 4 * width for n in range(1, 6) for m in (1, 2)}
    weights = {}
    for name, (out_channels, in_channels, size) in layers.items():
        weight = torch.randn(out_channels, in_channels, size, size, generator=generator)
        weights[f"{name}.conv2d.weight"] = weight / (in_channels * size * size) ** 0.5
        weights[f"{name}.conv2d.bias"] = torch.randn(out_channels, generator=generator)
    weights["deconv3.conv2d.weight"] *= 50  # images in [0, 255]
    weights["deconv3.conv2d.bias"] += 128
    for name, channels in norms.items():
        weights[f"{name}.weight"] = 1 + 0.3 * torch.randn(channels, generator=generator)
        weights[f"{name}.bias"] = 0.3 * torch.randn(channels, generator=generator)
    return weights


def reference(weights, levels):
    """The network of the example: `(N, 3, H, W)` in [0, 255] → `(N, 3, H, W)` in [0, 255]."""

    def convolve(x, name, stride=1):
        weight = weights[f"{name}.conv2d.weight"]
        x = F.pad(x, [weight.shape[-1] // 2] * 4, mode="reflect")
        return F.conv2d(x, weight, weights[f"{name}.conv2d.bias"], stride=stride)

    def norm(x, name):
        return F.instance_norm(x, weight=weights[f"{name}.weight"], bias=weights[f"{name}.bias"])

    x = F.relu(norm(convolve(levels, "conv1"), "in1"))
    x = F.relu(norm(convolve(x, "conv2", 2), "in2"))
    x = F.relu(norm(convolve(x, "conv3", 2), "in3"))
    for n in range(1, 6):
        y = F.relu(norm(convolve(x, f"res{n}.conv1"), f"res{n}.in1"))
        x = x + norm(convolve(y, f"res{n}.conv2"), f"res{n}.in2")
    for convolution, name in (("deconv1", "in4"), ("deconv2", "in5")):
        x = F.relu(norm(convolve(F.interpolate(x, scale_factor=2), convolution), name))
    return convolve(x, "deconv3")


def as_old_file(weights):
    """The same weights as saved by PyTorch 0.3 from a wrapped network."""
    old = {f"module.{key}": value for key, value in weights.items()}
    for key in weights:
        if ".in" in f".{key}" and key.endswith(".weight"):
            module = key.removesuffix("weight")
            old[f"module.{module}running_mean"] = torch.randn(len(weights[key]))
            old[f"module.{module}running_var"] = torch.rand(len(weights[key]))
            old[f"module.{module}num_batches_tracked"] = torch.tensor(7)
    return old


@pytest.mark.parametrize("change", [lambda weights: weights, as_old_file], ids=["new", "old"])
def test_a_file_of_the_example_gives_the_output_of_the_example(tmp_path, change):
    weights = example_weights(width=8)
    torch.save(change(weights), tmp_path / "mosaic.pth")
    translator = Translator.load(tmp_path / "mosaic.pth", direction="BtoA")  # a network of one direction ignores it
    levels = torch.randint(0, 256, (2, 3, 24, 36), generator=torch.Generator().manual_seed(1)).double()
    expected = reference({key: value.double() for key, value in weights.items()}, levels)
    assert expected.std() > 20
    # The rounding error of float32 is about 1e-3 levels; folding must not add to it.
    result = (translator.translate((levels / 127.5 - 1).float()).double() + 1) * 127.5
    assert (result - expected).abs().max() < 5e-3
    exact = (translator.double().translate(levels / 127.5 - 1) + 1) * 127.5
    assert (exact - expected).abs().max() < 1e-3


@pytest.mark.parametrize("upsample", ["resize", "transpose"])
def test_the_architecture_is_inferred_from_a_checkpoint(tmp_path, upsample):
    torch.manual_seed(0)
    settings = {"upsample": upsample, "output": "tanh", "width": 3}
    task = Johnson(**settings)
    state = task.state_dict()
    average = {key: value + 0.01 for key, value in state.items()}
    content = {"cyclestyle_task": "Johnson", "hyper_parameters": settings, "state_dict": state, "ema": average}
    torch.save(content, tmp_path / "a.ckpt")
    images = torch.rand(1, 3, 16, 20) * 2 - 1
    with torch.no_grad():
        raw = task.transform(images)
        task.load_state_dict(average)
        averaged = task.transform(images)
    for averaging, expected in (("raw", raw), ("ema", averaged), ("auto", averaged)):
        assert torch.equal(Translator.load(tmp_path / "a.ckpt", averaging=averaging).translate(images), expected)


@pytest.mark.parametrize("size", [(1, 1), (5, 97), (33, 30)])
def test_any_size_comes_back_in_its_size(size):
    assert Translator(Johnson(width=2)).translate(torch.zeros(1, 3, *size)).shape[2:] == size


def test_other_files_raise_an_error(tmp_path):
    weights = example_weights(width=2)
    for name, message in (("res3.in2.bias", r"res3\.in2\.bias is missing"), ("conv1.conv2d.bias", "conv1.conv2d.bias")):
        torch.save({key: value for key, value in weights.items() if key != name}, tmp_path / "other.pth")
        with pytest.raises(
            CheckpointError, match=rf"other\.pth looks like a network of fast style transfer.*{message}"
        ):
            Translator.load(tmp_path / "other.pth")
    torch.save({**weights, "res6.in1.bias": torch.zeros(8)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"res6\.in1\.bias is missing, unexpected"):
        Translator.load(tmp_path / "other.pth")
    torch.save({"cyclestyle_task": "Johnson", "state_dict": {}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth do not fit Johnson"):
        Translator.load(tmp_path / "other.pth")
    torch.save({"cyclestyle_task": "Johnson", "state_dict": {}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="holds no averaged weights"):
        Translator.load(tmp_path / "other.pth", averaging="ema")
