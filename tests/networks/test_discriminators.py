import pytest
import torch

from cyclestyle.errors import DataError
from cyclestyle.networks import PatchDiscriminator, PixelDiscriminator, build_discriminator, initialise


@pytest.mark.parametrize(
    ("name", "n_layers", "expected"),
    [("basic", 1, (30, 30)), ("n_layers", 3, (30, 30)), ("n_layers", 5, (6, 6)), ("pixel", 3, (256, 256))],
)
@pytest.mark.parametrize("resample", ["transpose", "blur"])
def test_shapes(name, n_layers, expected, resample):
    network = build_discriminator(name, in_channels=1, ndf=2, n_layers=n_layers, resample=resample)
    assert network(torch.zeros(2, 1, 256, 256)).shape == (2, 1, *expected)


def test_keys_of_the_official_checkpoints():
    keys = {f"model.{n}.{p}" for n in (0, 2, 5, 8, 11) for p in ("weight", "bias")}
    assert set(PatchDiscriminator(ndf=2).state_dict()) == keys
    assert set(PixelDiscriminator(ndf=2).state_dict()) == {
        f"net.{n}.{p}" for n in (0, 2, 5) for p in ("weight", "bias")
    }


def test_keys_of_cuts_checkpoints():
    keys = {f"model.{n}.{p}" for n in (0, 3, 7, 11, 14) for p in ("weight", "bias")}
    keys |= {f"model.{n}.filt" for n in (2, 6, 10)}
    assert set(PatchDiscriminator(ndf=2, resample="blur").state_dict()) == keys


def test_a_shift_by_two_pixels_moves_the_scores_less_with_blur():
    """That is what antialiasing is there for."""
    images = torch.rand(1, 3, 66, 66, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def change(resample):
        torch.manual_seed(0)
        network = PatchDiscriminator(ndf=8, resample=resample)
        with torch.no_grad():
            scores = [network(images[..., n : n + 64, n : n + 64])[..., 1:-1, 1:-1] for n in (0, 2)]
        return ((scores[0] - scores[1]).std() / scores[0].std()).item()

    assert change("blur") < change("transpose")


def test_the_receptive_field_is_70_by_70_pixels():
    image = torch.zeros(1, 3, 256, 256, requires_grad=True)
    layers = [layer for layer in PatchDiscriminator(ndf=4).model if not isinstance(layer, torch.nn.InstanceNorm2d)]
    scores = torch.nn.Sequential(*layers)(image)  # without instance norm, which depends on the whole image
    scores[0, 0, 15, 15].backward()
    receptive_field = image.grad.abs().sum(dim=(0, 1)) > 0
    assert (receptive_field.any(0).sum(), receptive_field.any(1).sum()) == (70, 70)


def test_invalid_names_raise_an_error():
    with pytest.raises(ValueError, match="discriminator must be basic, n_layers, pixel or projected, got 'huge'"):
        build_discriminator("huge")
    with pytest.raises(ValueError, match="n_layers must be at least 1, got 0"):
        build_discriminator("n_layers", n_layers=0)


@pytest.mark.parametrize("init", ["normal", "xavier", "kaiming", "orthogonal"])
def test_initialisation(init):
    torch.manual_seed(0)
    network = PatchDiscriminator(ndf=32)
    initialise(network, init, 0.02)
    assert all(not p.any() for name, p in network.named_parameters() if name.endswith("bias"))
    weight = network.model[5].weight
    fan_in, fan_out = weight[0].numel(), weight.shape[0] * 16
    expected = {
        "normal": 0.02,
        "xavier": 0.02 * (2 / (fan_in + fan_out)) ** 0.5,
        "kaiming": (2 / fan_in) ** 0.5,
        "orthogonal": 0.02 / fan_in**0.5,
    }
    assert weight.std().item() == pytest.approx(expected[init], rel=0.05)


def test_an_unknown_initialisation_raises_an_error():
    with pytest.raises(ValueError, match=r"init must be normal.*got 'zeros'"):
        initialise(PatchDiscriminator(ndf=1), "zeros")


@pytest.mark.parametrize("resample", ["transpose", "blur"])
@pytest.mark.parametrize("n_layers", [1, 3, 4])
def test_the_minimum_size_gives_one_patch(n_layers, resample):
    network = PatchDiscriminator(ndf=2, n_layers=n_layers, resample=resample)
    size = network.min_size
    assert network(torch.rand(1, 3, size, size + 5)).shape[2] == 1
    with pytest.raises(
        DataError, match=f"at least {size}×{size} pixels, got {size + 5}×{size - 1}; change data.crop_size"
    ):
        network(torch.rand(1, 3, size - 1, size + 5))
