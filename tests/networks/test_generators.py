import pytest
import torch

from cyclestyle.networks import ResNetGenerator, UNetGenerator, build_generator


@pytest.mark.parametrize(
    ("name", "resample"),
    [
        ("resnet9", "transpose"),
        ("resnet6", "blur"),
        ("resnet6", "resize"),
        ("unet256", "transpose"),
        ("unet128", "transpose"),
    ],
)
@pytest.mark.parametrize(("in_channels", "out_channels"), [(3, 3), (1, 4)])
def test_shapes_and_range(name, resample, in_channels, out_channels):
    network = build_generator(name, in_channels=in_channels, out_channels=out_channels, ngf=2, resample=resample)
    side = network.min_size if name.startswith("unet") else 12
    result = network(torch.rand(2, in_channels, side, 2 * side) * 2 - 1)
    assert result.shape == (2, out_channels, side, 2 * side)
    assert result.abs().max() < 1


@pytest.mark.parametrize(("name", "side"), [("resnet6", 16), ("unet128", 128)])
@pytest.mark.parametrize(("contrast", "recompute"), [(0.9, False), (0.99, True)])
def test_a_residual_generator_adds_the_image_before_its_tanh(name, side, contrast, recompute):
    torch.manual_seed(0)
    plain = build_generator(name, ngf=2).eval()
    residual = build_generator(name, ngf=2, residual=contrast, checkpoint_activations=recompute).eval()
    residual.load_state_dict(plain.state_dict())  # the same weights, of the same names
    images = torch.rand(2, 3, side, side) * 2 - 1
    expected = torch.tanh(torch.atanh(plain(images)) + torch.atanh(contrast * images))
    assert torch.allclose(residual(images), expected, atol=1e-4)
    for weight in residual.parameters():
        torch.nn.init.zeros_(weight)
    assert torch.allclose(residual(images), contrast * images, atol=1e-6)
    assert torch.isfinite(residual(images.sign())).all()


def test_a_residual_generator_needs_the_same_channels():
    with pytest.raises(ValueError, match="same channels in both domains, got 3 and 1; set residual to 0"):
        build_generator("resnet6", ngf=2, out_channels=1, residual=0.9)


@pytest.mark.parametrize("contrast", [-0.1, 1.0, float("nan")])
def test_the_contrast_of_a_residual_generator_is_below_1(contrast):
    with pytest.raises(ValueError, match="residual must be at least 0 and below 1, got "):
        build_generator("resnet6", ngf=2, residual=contrast)


def test_residual_true_is_that_of_files_from_before_it_was_a_number():
    assert build_generator("resnet6", ngf=2, residual=True).residual == 0.99
    assert build_generator("resnet6", ngf=2, residual=False).residual == 0


def test_resnet_has_the_keys_of_the_official_checkpoints():
    layers = {1, 4, 7, 19, 22, 26}
    blocks = range(10, 19)
    names = [f"model.{n}" for n in layers] + [f"model.{n}.conv_block.{k}" for n in blocks for k in (1, 5)]
    assert set(ResNetGenerator(ngf=2).state_dict()) == {f"{n}.{p}" for n in names for p in ("weight", "bias")}
    with_dropout = set(ResNetGenerator(ngf=2, dropout=True).state_dict())
    assert "model.10.conv_block.6.weight" in with_dropout
    assert "model.10.conv_block.5.weight" not in with_dropout


def test_resnet_with_blur_has_the_keys_of_cuts_checkpoints():
    layers = {1, 4, 8, 22, 26, 30}
    names = [f"model.{n}" for n in layers] + [f"model.{n}.conv_block.{k}" for n in range(12, 21) for k in (1, 5)]
    expected = {f"{n}.{p}" for n in names for p in ("weight", "bias")} | {f"model.{n}.filt" for n in (7, 11, 21, 25)}
    assert set(ResNetGenerator(ngf=2, resample="blur").state_dict()) == expected


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


@pytest.mark.parametrize("resample", ["transpose", "resize", "blur"])
@pytest.mark.parametrize("recompute", [False, True])
def test_features_of_a_resnet_are_the_outputs_of_its_layers(resample, recompute):
    """Before the norm, and not what an in-place activation makes of them."""
    torch.manual_seed(0)
    network = ResNetGenerator(ngf=2, blocks=3, resample=resample, checkpoint_activations=recompute)
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    names = ["block0", "pixels", "down2", "down1", "block2"]
    found = dict(zip(names, network.features(images, names), strict=True))
    assert torch.equal(found["pixels"], torch.nn.functional.pad(images, (3, 3, 3, 3), mode="reflect"))
    for name, after in (("down1", "model.4"), ("down2", "model.8" if resample == "blur" else "model.7")):
        layer, caught = network.get_submodule(after), []
        handle = layer.register_forward_hook(lambda module, args, result, caught=caught: caught.append(result.clone()))
        network(images)
        handle.remove()
        assert torch.equal(found[name], caught[0]), name
    first = 12 if resample == "blur" else 10
    for name, end in (("block0", first + 1), ("block2", first + 3)):
        assert torch.equal(found[name], network.model[:end](images)), name
    for name, feature in found.items():
        assert feature.shape[1] == network.feature_channels[name], name
    sizes = {"down1": (16, 24), "down2": (8, 12)} if resample == "blur" else {"down1": (8, 12), "down2": (4, 6)}
    assert {name: tuple(found[name].shape[2:]) for name in sizes} == sizes


def test_features_of_a_unet_are_its_strided_convolutions():
    torch.manual_seed(0)
    network = UNetGenerator(ngf=2, depth=6)
    images = torch.rand(1, 3, 64, 128) * 2 - 1
    names = list(network.feature_channels)
    assert names == ["pixels", "down1", "down2", "down3", "down4", "down5"]
    caught = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda module, args, result: caught.append(result.clone()))
    network(images)
    outputs = caught[:6]  # each level's convolution, from the outside in
    for level, (name, feature) in enumerate(zip(names, network.features(images, names), strict=True)):
        assert feature.shape == (1, network.feature_channels[name], 64 >> level, 128 >> level)
        assert torch.equal(feature, images if level == 0 else outputs[level - 1])
    caught.clear()
    network.features(images, ["down2", "pixels"])
    assert len(caught) == 2  # no deeper level is run


def test_contrastive_features_exist():
    for name in ("resnet9", "resnet6", "unet256", "unet128"):
        network = build_generator(name, ngf=2)
        assert len(network.contrastive_features) == 5
        assert set(network.contrastive_features) <= set(network.feature_channels)
    assert ResNetGenerator(ngf=2, blocks=2).contrastive_features == ("pixels", "down1", "down2", "block0")


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
    assert ripple("blur") < 1e-6
