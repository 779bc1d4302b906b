"""ContentGAN, and the generators from which it begins."""

import pytest
import torch
from torch.nn import functional as F

from cyclestyle.errors import CheckpointError, CycleStyleError
from cyclestyle.functional.style import gram_matrix
from cyclestyle.networks import ResNetGenerator, build_generator
from cyclestyle.networks.painter import as_generator
from cyclestyle.networks.styles import shares_of
from cyclestyle.networks.transform import TransformNetwork
from cyclestyle.sharing.exporting import Exporting, export_method
from cyclestyle.tasks import ContentGAN
from cyclestyle.tasks.load import start_from
from cyclestyle.translation.opening import open_method
from cyclestyle.translation.plain import GeneratorOnly

TINY = {"generator": "resnet6", "depth": 1, "ngf": 2, "ndf": 2, "discriminator": "n_layers", "n_layers": 1}
FEATURES = {"perceptual_layers": ["relu1_2", "relu2_1"], "perceptual_features": "random"}
PAINTER = {"generator": "resnet6", "depth": 5, "ngf": 2, "resample": "resize", "norm": "none"}
STYLES = ("dots", "lines")


def images(seed, size=16):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def new(**changes):
    torch.manual_seed(0)
    task = ContentGAN(**{**TINY, **FEATURES, **changes})
    task.setup("fit")
    return task


def styled():
    """A network of two styles whose outermost weights of 9×9 are 0, as those of a generator are 7×7."""
    torch.manual_seed(0)
    network = TransformNetwork(width=2, styles=len(STYLES), output="sigmoid")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
        for conv in (network.first.conv, network.last.conv):
            conv.weight.copy_(F.pad(conv.weight[..., 1:-1, 1:-1], (1, 1, 1, 1)))
    return network


def test_the_losses_are_those_of_the_table():
    task = new(lambda_GAN=0.5, lambda_content=3.0, lambda_style=0.7, lambda_identity=2.0, style_layers=["relu1_1"])
    A, B = images(0), images(1)
    losses = task.losses({"A": A, "B": B})
    fake, same = task.G_AB(A), task.G_AB(B)
    assert losses.keys() == {"G_AB", "content", "style", "idt_B", "D_B"}
    assert torch.allclose(losses["G_AB"], 0.5 * (task.D_B(fake) - 1).square().mean())
    assert torch.allclose(losses["content"], 3 * task.feature_distance(fake, A))
    gram = {name: gram_matrix(task.features(one)["relu1_1"]).mean(0) for name, one in (("fake", fake), ("B", B))}
    assert torch.allclose(losses["style"], 0.7 * (gram["fake"] - gram["B"]).norm() ** 2 / gram["B"].norm() ** 2)
    assert torch.allclose(losses["idt_B"], 2 * (same - B).abs().mean())
    assert torch.allclose(losses["D_B"], ((task.D_B(B) - 1).square().mean() + task.D_B(fake).square().mean()) / 2)
    assert new(lambda_identity=0.0, lambda_style=0.0).losses({"A": A, "B": B}).keys() == {"G_AB", "content", "D_B"}
    with pytest.raises(ValueError, match=r"style_layers must name some of relu1_1, .* got \['relu9_1'\]"):
        new(style_layers=["relu9_1"])


def test_a_painter_without_norms_gives_every_layer_the_mean_and_deviation_of_its_norms():
    network, photos = styled(), images(0, 32)[:1]
    generator = as_generator(network, shares_of(["lines"], STYLES), photos)
    assert isinstance(generator, ResNetGenerator)
    results = []
    for module in generator.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _module, _inputs, result: results.append(result.clone()))
    generator(photos)
    norms = [module.norm for module in network.modules() if hasattr(module, "norm") and hasattr(module, "conv")]
    assert len(results) == len(norms) == 16
    halves = [1.0] * 15 + [0.5]  # 2 sigmoid(x) - 1 = tanh(x / 2)
    for result, norm, half in zip(results, norms, halves, strict=True):
        assert torch.allclose(result.mean((0, 2, 3)), half * norm.bias[1], atol=1e-4)
        assert torch.allclose(result.var((0, 2, 3), correction=0).sqrt(), half * norm.weight[1].abs(), atol=1e-2)


def test_before_features_are_enlarged_it_is_the_painter():
    network, photos = styled(), images(0, 32)[:1]
    generator = as_generator(network, shares_of(["dots"], STYLES), photos)
    first = network.first(photos, torch.tensor([[1.0, 0.0]])[:, :, None, None])
    assert torch.allclose(generator.model[:2](photos), first, atol=1e-4)


def test_a_generator_without_norms_is_exported_and_begun_with(tmp_path):
    network = as_generator(styled(), shares_of(["dots"], STYLES), images(0, 32))
    method, path = GeneratorOnly(**PAINTER), tmp_path / "painter.safetensors"
    method.network("AtoB").load_state_dict(network.state_dict())
    export_method(method, path, Exporting(format="safetensors", training={}, checks=[images(1)]))
    task = new(**PAINTER)
    start_from(task, path)
    with torch.no_grad():
        assert torch.equal(task.translate(images(2), "AtoB"), network(images(2)))
        assert torch.equal(open_method(path).translate(images(2), "AtoB"), network(images(2)))
    with pytest.raises(CheckpointError, match=r"have model.norm none, but the config says instance"):
        start_from(new(**PAINTER | {"norm": "instance"}), path)


def test_a_generator_without_norms_keeps_the_light_of_its_image():
    photos = images(0, 32)
    torch.manual_seed(0)
    plain, normed = (build_generator("resnet6", depth=1, ngf=4, norm=norm) for norm in ("none", "instance"))
    normed.load_state_dict(plain.state_dict())
    change = [(network(photos) - network(photos + 0.2)).abs().max() for network in (plain, normed)]
    assert change[0] > 20 * change[1]
    with pytest.raises(ValueError, match="norm must be one of instance, none, got 'batch'"):
        build_generator("resnet6", norm="batch")


def test_networks_of_which_no_generator_is_made_are_refused():
    for options in (
        {"styles": 2, "output": "levels"},
        {"styles": 0, "output": "sigmoid"},
        {"styles": 2, "output": "sigmoid", "upsample": "transpose"},
    ):
        with pytest.raises(CycleStyleError, match="with output sigmoid and upsample resize"):
            as_generator(TransformNetwork(width=2, **options), torch.ones(1, 2) / 2, images(0, 32))
