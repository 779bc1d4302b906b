"""`FastConvolutions` changes how convolutions are computed, and not what they are."""

import torch
import torch.nn.functional as F
from torch import nn

from cyclestyle.networks.generators import build_generator
from cyclestyle.speed.convolutions import FastConvolutions


def test_a_generator_gives_the_same_image():
    torch.manual_seed(0)
    generator = build_generator("resnet6", ngf=32).eval().requires_grad_(False)
    images = torch.rand(1, 3, 52, 44) * 2 - 1
    plain = generator(images)
    with FastConvolutions(fixed_weights=True):
        fast = generator(images)
    assert not torch.equal(fast, plain)  # it is computed in another way
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-4)


def test_other_convolutions_are_left_alone():
    images = torch.randn(1, 128, 12, 12)
    weight = torch.randn(128, 128, 3, 3)
    calls = [
        lambda: F.conv2d(images, weight, stride=2),
        lambda: F.conv2d(images, weight, padding="same"),
        lambda: F.conv2d(images, weight, dilation=(1, 2)),
        lambda: F.conv2d(images, weight[:, :64], groups=2),
        lambda: F.conv2d(images.double(), weight.double()),
        lambda: F.conv2d(images[:, :3], weight[:, :3]),
    ]
    for call in calls:
        with FastConvolutions():
            fast = call()
        assert torch.equal(fast, call())


def test_a_changed_weight_is_noticed():
    layer = nn.Conv2d(128, 128, 3)
    images = torch.randn(1, 128, 12, 12)
    mode = FastConvolutions(fixed_weights=True)
    with torch.no_grad(), mode:
        before = layer(images)
        layer.load_state_dict({name: 2 * value for name, value in layer.state_dict().items()})
        torch.testing.assert_close(layer(images), 2 * before)
