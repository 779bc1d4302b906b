"""VGG: activations equal those of torchvision and of the normalised network; deeper layers are not built."""

import pytest
import torch
from conftest import SHARED
from torch import nn
from torchvision.models import vgg16, vgg19

from cyclestyle.data.sample import write_samples
from cyclestyle.errors import CheckpointError
from cyclestyle.images import read_image, to_tensor
from cyclestyle.images.folders import find_images
from cyclestyle.networks.vgg import VGG, build_vgg, random_weights, stride
from cyclestyle.weights.vgg import load_vgg

# Index of the ReLU of each layer in `features` of torchvision.
TORCHVISION = {
    "vgg16": {"relu1_1": 1, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22, "relu5_3": 29},
    "vgg19": {"relu1_2": 3, "relu2_1": 6, "relu3_4": 17, "relu4_2": 22, "relu5_1": 29},
}


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
@pytest.mark.parametrize("pooling", ["max", "average"])
def test_activations_equal_those_of_torchvision(name, pooling):
    weights = random_weights(name)
    reference = {"vgg16": vgg16, "vgg19": vgg19}[name](weights=None).features.eval()
    numbers = [n for n, layer in enumerate(reference) if isinstance(layer, nn.Conv2d)]
    renamed = {
        f"{numbers[int(key.split('.')[1])]}.{key.split('.')[2]}": value for key, value in weights.items()
    }  # random weights are numbered without gaps, those of torchvision are not
    reference.load_state_dict(renamed)
    if pooling == "average":
        reference = nn.Sequential(*(nn.AvgPool2d(2) if isinstance(one, nn.MaxPool2d) else one for one in reference))
    network = build_vgg(TORCHVISION[name], renamed, name=name, pooling=pooling)
    image = torch.rand(1, 3, 70, 53) * 2 - 1
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    features = ((image + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    found = network(image)
    for index, layer in enumerate(reference):
        features = layer(features)
        for key in (key for key, position in TORCHVISION[name].items() if position == index):
            torch.testing.assert_close(found[key], features.clone(), rtol=1e-4, atol=1e-4)
            assert features.shape[2] == 70 // stride(key)


def test_the_network_ends_at_the_deepest_layer_is_frozen_and_in_evaluation_mode():
    network = load_vgg(["relu2_1", "relu1_1"], weights="random")
    assert len(network.convolutions) == 3
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_random_weights_are_deterministic_and_give_a_warning(caplog):
    first, second = (load_vgg(["relu3_1"], weights="random").state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert "random weights" in caplog.text


def test_the_receptive_field_is_within_reach():
    network = VGG(["relu3_1"]).eval()
    image = torch.rand(1, 3, 128, 128).requires_grad_()
    network(image)["relu3_1"][0, :, 16, 16].sum().backward()
    receptive_field = image.grad[0].abs().sum(dim=0).nonzero()
    assert receptive_field.min() >= 16 * 4 - network.reach
    assert receptive_field.max() <= 16 * 4 + network.reach


def test_the_mean_activation_is_1_after_calibration():
    network = load_vgg(["relu1_2", "relu4_1"], weights="random")
    image = torch.rand(1, 3, 64, 48) * 2 - 1
    network.calibrate([image])
    for features in network(image).values():
        assert features.mean().item() == pytest.approx(1, rel=1e-5)


def test_old_checkpoints_with_colours_are_loaded():
    """`input_transform` was called `colours`; the module may be nested, as in a task."""
    network = nn.ModuleDict({"features": load_vgg(["relu1_2"], weights="random")})
    old = {key.replace("input_transform", "colours"): value for key, value in network.state_dict().items()}
    assert {"features.colours.weight", "features.colours.bias"} < set(old)
    loaded = nn.ModuleDict({"features": VGG(["relu1_2"])})
    loaded.load_state_dict(old)
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    assert "features.colours.weight" in old  # the caller's state_dict is unchanged
    loaded.load_state_dict(network.state_dict())


@pytest.mark.parametrize("layer", ["relu6_1", "relu3_5", "conv1_1"])
def test_an_unknown_layer_raises_an_error(layer):
    with pytest.raises(ValueError, match=f"vgg19 has no layer '{layer}'"):
        VGG([layer])


def test_an_error_names_a_layer_that_the_file_does_not_contain(tmp_path):
    short = {key: value for key, value in random_weights().items() if int(key.split(".")[1]) < 5}
    torch.save(short, tmp_path / "short.pth")
    with pytest.raises(CheckpointError, match=r"short.pth ends at relu3_1 and does not contain the layer relu4_2"):
        load_vgg(["relu1_1", "relu4_2"], weights=str(tmp_path / "short.pth"))


@pytest.mark.parametrize("content", [{"x": torch.zeros(1)}, {}, random_weights("vgg16")])
def test_weights_of_another_network_raise_an_error(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other.pth does not contain vgg19"):
        load_vgg(["relu1_1"], weights=str(tmp_path / "other.pth"))


def test_weights_with_batch_norm_raise_an_error():
    with pytest.raises(CheckpointError, match="batch norm; expected a plain vgg16"):
        build_vgg(["relu1_1"], {**random_weights("vgg16"), "features.1.running_mean": torch.zeros(64)}, name="vgg16")


def test_an_error_says_where_to_put_the_weights_if_the_download_fails(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match=r"put vgg19-\w+\.pth into .*checkpoints"):
        load_vgg(["relu1_1"])


def test_the_mean_activation_of_the_normalised_weights_is_about_1(tmp_path):
    path = SHARED / "weights" / "vgg_normalised_conv3_1.pth"
    if not path.exists():
        pytest.skip(f"the weights are not at {path}")
    write_samples(tmp_path, train=2, test=1, size=128, workers=1)
    network = load_vgg(["relu1_1", "relu2_1", "relu3_1"], weights=str(path))
    assert network.normalised
    image = to_tensor(read_image(find_images(tmp_path / "trainA")[0]))[None]
    for features in network(image).values():
        assert 0.5 < features.mean().item() < 2
