import pytest
import torch

from cyclestyle.networks import ResNetGenerator, UNetGenerator, build_generator


@pytest.mark.parametrize("name", ["resnet9", "resnet6", "unet256", "unet128"])
@pytest.mark.parametrize(("in_channels", "out_channels"), [(3, 3), (1, 4)])
def test_shapes_and_range(name, in_channels, out_channels):
    network = build_generator(name, in_channels=in_channels, out_channels=out_channels, ngf=2)
    side = network.min_size if name.startswith("unet") else 12
    result = network(torch.rand(2, in_channels, side, 2 * side) * 2 - 1)
    assert result.shape == (2, out_channels, side, 2 * side)
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
    inner += ".3.model"  # the innermost level
    assert {f"{inner}.{n}.weight" for n in ("1", "3")} <= keys
    assert len(keys) == 2 * 2 * 5


@pytest.mark.parametrize("name", ["resnet6", "unet128"])
def test_images_of_a_batch_are_independent(name):
    """The training step joins two batches in one call, which is exact only with this property."""
    torch.manual_seed(0)
    network = build_generator(name, ngf=2).double()
    images = torch.rand(3, 3, 128, 128, dtype=torch.float64) * 2 - 1
    together = network(images)
    alone = torch.cat([network(image[None]) for image in images])
    assert torch.allclose(together, alone, rtol=0, atol=1e-12)


def test_unet_skips_carry_the_activated_input():
    """The LeakyReLU of the original is in-place, so negative values in a skip connection are scaled by 0.2."""
    torch.manual_seed(0)
    block = UNetGenerator(ngf=2, depth=5).model.model[1]
    features = torch.randn(1, 2, 32, 32)
    skip = block(features)[:, :2]
    assert torch.allclose(skip, torch.nn.functional.leaky_relu(features, 0.2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "vit"}, "generator must be one of resnet9, resnet6, unet256, unet128, got 'vit'"),
        ({"name": "resnet9", "depth": 0}, "at least 1 block, got 0"),
        ({"name": "unet256", "depth": 4}, "at least 5 levels, got 4"),
        ({"name": "resnet6", "resample": "bicubic"}, "resample must be one of transpose, resize, blur, got 'bicubic'"),
        ({"name": "unet128", "resample": "resize"}, "a U-Net supports only resample transpose, got 'resize'"),
    ],
)
def test_invalid_values_raise_an_error(settings, message):
    with pytest.raises(ValueError, match=message):
        build_generator(**settings)


def test_upsampling_by_resize_has_no_checkerboard():
    """A constant input stays constant inside the border, unlike with transposed convolutions (Odena et al. 2016)."""
    torch.manual_seed(0)
    flat = torch.rand(1, 8, 1, 1).expand(1, 8, 16, 16)

    def ripple(resample):
        layers = torch.nn.Sequential(*ResNetGenerator(ngf=2, blocks=1, resample=resample).model[11:])
        up = next(i for i, layer in enumerate(layers) if isinstance(layer, torch.nn.InstanceNorm2d))
        return layers[:up](flat)[..., 4:-4, 4:-4].diff(dim=-1).abs().max().item()

    assert ripple("resize") < 1e-6 < 1e-2 < ripple("transpose")
