"""Decoders mirror their encoders, and published decoders are recognised by their shapes."""

import pytest
import torch
import torch.nn.functional as F

from cyclestyle.errors import CheckpointError
from cyclestyle.networks.autoencoder import Decoder, read_decoder
from cyclestyle.networks.vgg import VGG

# The published decoders: index of each convolution in a sequence with padding, ReLU and upsampling.
PUBLISHED = {
    1: {1: (64, 3)},
    2: {1: (128, 64), 5: (64, 64), 8: (64, 3)},
    3: {1: (256, 128), 5: (128, 128), 8: (128, 64), 12: (64, 64), 15: (64, 3)},
}


def published(level):
    generator = torch.Generator().manual_seed(level)
    weights = {}
    for number, (in_channels, out_channels) in PUBLISHED[level].items():
        weights[f"{number}.weight"] = torch.randn(out_channels, in_channels, 3, 3, generator=generator) / (
            3 * in_channels**0.5
        )
        weights[f"{number}.bias"] = torch.randn(out_channels, generator=generator)
    return weights


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ["vgg19", "vgg16"])
def test_the_decoder_output_has_the_size_of_the_encoder_input(level, name):
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
def test_published_decoders_match_their_layers_applied_one_by_one(level):
    weights = published(level)
    found, state = read_decoder(weights)
    assert found == level
    decoder = Decoder(level)
    decoder.load_state_dict(state)
    features = torch.rand(1, PUBLISHED[level][1][0], 6, 5)
    expected = features
    upsample_after = {2: {1}, 3: {1, 8}}.get(level, set())
    numbers = list(PUBLISHED[level])
    for number in numbers:
        padded = F.pad(expected, (1, 1, 1, 1), mode="reflect")
        expected = F.conv2d(padded, weights[f"{number}.weight"], weights[f"{number}.bias"])
        expected = F.relu(expected) if number != numbers[-1] else expected
        if number in upsample_after:
            expected = expected.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(decoder(features), expected * 2 - 1)


@pytest.mark.parametrize("weights", [{}, {"1.weight": torch.zeros(3, 64, 5, 5), "1.bias": torch.zeros(3)}])
def test_other_weights_raise_an_error(weights):
    with pytest.raises(CheckpointError, match="does not contain a decoder"):
        read_decoder(weights)


def test_an_unknown_level_raises_an_error():
    with pytest.raises(ValueError, match="level must be 1 to 5, got 6"):
        Decoder(6)
