"""Decoders mirror their encoders, and published ones are read by their shapes."""

import pytest
import torch
import torch.nn.functional as F

from cyclestyle.errors import CheckpointError
from cyclestyle.networks.autoencoder import Decoder, read_decoder
from cyclestyle.networks.vgg import VGG

# The published decoders: places of their convolutions in a sequence with padding, ReLU and enlargement.
PUBLISHED = {
    1: {1: (64, 3)},
    2: {1: (128, 64), 5: (64, 64), 8: (64, 3)},
    3: {1: (256, 128), 5: (128, 128), 8: (128, 64), 12: (64, 64), 15: (64, 3)},
}


def published(level):
    generator = torch.Generator().manual_seed(level)
    weights = {}
    for number, (inputs, outputs) in PUBLISHED[level].items():
        weights[f"{number}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) / (3 * inputs**0.5)
        weights[f"{number}.bias"] = torch.randn(outputs, generator=generator)
    return weights


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ["vgg19", "vgg16"])
def test_the_decoder_gives_back_the_size_that_the_encoder_took(level, name):
    widths = [4, 6, 8, 10, 12]
    layer = f"relu{level}_1"
    image = torch.rand(1, 3, 64, 96)
    features = VGG([layer], name=name, widths=widths)(image)[layer]
    decoder = Decoder(level, name=name, widths=widths)
    assert decoder(features).shape == image.shape
    encoder = VGG([layer], name=name, widths=widths).convolutions
    assert [(c.out_channels, c.in_channels) for c in decoder.convolutions] == [
        (c.in_channels, c.out_channels) for c in reversed(encoder)
    ]


@pytest.mark.parametrize("level", [1, 2, 3])
def test_published_decoders_compute_what_their_layers_say(level):
    weights = published(level)
    found, state = read_decoder(weights)
    assert found == level
    decoder = Decoder(level)
    decoder.load_state_dict(state)
    features = torch.rand(1, PUBLISHED[level][1][0], 6, 5)
    expected = features
    enlarged_after = {2: {1}, 3: {1, 8}}.get(level, set())
    numbers = list(PUBLISHED[level])
    for number in numbers:
        padded = F.pad(expected, (1, 1, 1, 1), mode="reflect")
        expected = F.conv2d(padded, weights[f"{number}.weight"], weights[f"{number}.bias"])
        expected = F.relu(expected) if number != numbers[-1] else expected
        if number in enlarged_after:
            expected = expected.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(decoder(features), expected * 2 - 1)


@pytest.mark.parametrize("weights", [{}, {"1.weight": torch.zeros(3, 64, 5, 5), "1.bias": torch.zeros(3)}])
def test_other_weights_are_refused(weights):
    with pytest.raises(CheckpointError, match="holds no decoder"):
        read_decoder(weights)


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match="level must be 1 to 5, got 6"):
        Decoder(6)
