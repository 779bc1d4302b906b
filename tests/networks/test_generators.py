import pytest
import torch

from cyclestyle.networks import ResNetGenerator, UNetGenerator, build_generator


@pytest.mark.parametrize("name", ["resnet9", "resnet6", "unet256", "unet128"])
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 3), (1, 4)])
def test_shapes_and_range(name, inputs, outputs):
    network = build_generator(name, in_channels=inputs, out_channels=outputs, ngf=2)
    side = network.min_size if name.startswith("unet") else 12
    result = network(torch.rand(2, inputs, side, 2 * side) * 2 - 1)
    assert result.shape == (2, outputs, side, 2 * side)
    assert result.abs().max() < 1


def test_resnet_has_the_keys_of_the_official_checkpoints():
    layers = {1, 4, 7, 19, 22, 26}
    blocks = range(10, 19)
    names = [f"model.{n}" for n in layers] + [f"model.{n}.conv_block.{k}" for n in blocks for k in (1, 5)]
    assert set(ResNetGenerator(ngf=2).state_dict()) == {f"{n}.{p}" for n in names for p in ("weight", "bias")}
    with_dropout = set(ResNetGenerator(ngf=2, dropout=True).state_dict())
    assert "model.10.conv_block.6.weight" in with_dropout
    assert "model.10.conv_block.5.weight" not in with_dropout


def test_unet_has_the_keys_of_the_official_checkpoints():
    keys = set(UNetGenerator(ngf=2, depth=5).state_dict())
    inner, expected = "model.model", {"0", "3"}
    assert {f"{inner}.{n}.weight" for n in expected} <= keys
    for _ in range(3):
        inner += ".1.model" if inner == "model.model" else ".3.model"
        assert {f"{inner}.{n}.weight" for n in ("1", "5")} <= keys
    inner += ".3.model"  # the innermost has no level inside
    assert {f"{inner}.{n}.weight" for n in ("1", "3")} <= keys
    assert len(keys) == 2 * 2 * 5


@pytest.mark.parametrize("name", ["resnet6", "unet128"])
def test_pictures_of_a_batch_do_not_see_each_other(name):
    """Instance norm makes one call for two batches exact, on which the training step rests."""
    torch.manual_seed(0)
    network = build_generator(name, ngf=2).double()
    images = torch.rand(3, 3, 128, 128, dtype=torch.float64) * 2 - 1
    together = network(images)
    alone = torch.cat([network(image[None]) for image in images])
    assert torch.allclose(together, alone, rtol=0, atol=1e-12)


def test_unet_skips_carry_the_rectified_input():
    """The original's in-place LeakyReLU: a skip never carries values below a fifth of what went in."""
    torch.manual_seed(0)
    block = UNetGenerator(ngf=2, depth=5).model.model[1]
    features = torch.randn(1, 2, 32, 32)
    skip = block(features)[:, :2]
    assert torch.allclose(skip, torch.nn.functional.leaky_relu(features, 0.2))


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"generator must be resnet9.*got 'vit'"):
        build_generator("vit")
