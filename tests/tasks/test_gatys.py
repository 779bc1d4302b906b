"""Gatys' method as a task: settings, colours, sizes, regions, and that a seed decides everything."""

import json

import pytest
import torch
from conftest import SHARED
from safetensors.torch import load_file

from cyclestyle.errors import CycleStyleError
from cyclestyle.functional.colour import to_grey
from cyclestyle.tasks import Gatys
from cyclestyle.tasks.gatys import normalised_weights, working_size
from cyclestyle.tasks.pixel_optimisation import GramObjective


def task(**changes):
    settings = {
        "weights": "random",
        "content_layers": ["relu2_1"],
        "style_layers": ["relu1_1", "relu2_1"],
        "sizes": [32],
        "steps": [10],
    }
    return Gatys(**{**settings, **changes})


def make_image(seed=0, height=32, width=40, *, bias=(0, 0, 0)):
    generator = torch.Generator().manual_seed(seed)
    levels = 0.5 * torch.rand(3, height, width, generator=generator) + torch.tensor(bias)[:, None, None]
    return (levels.clamp(0, 1) * 2 - 1).float()


def painted(photo, style, *, masks=None, **changes):
    method = task(**changes)
    method.use_styles(style if isinstance(style, list) else [style])
    return method.paint(photo[None], masks)[0]


def test_the_result_has_the_photos_size_or_the_last_scales():
    photo, style = make_image(height=45, width=80), make_image(1)
    assert painted(photo, style).shape == (3, 45, 80)
    assert painted(photo, style, keep_size=False).shape == (3, 24, 43)
    assert painted(photo, style, keep_size=False, sizes=[16, 40], steps=[2, 2]).shape == (3, 30, 53)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((512, 512), (256, 256)), ((100, 100), (100, 100)), ((200, 4000), (57, 1145)), ((3, 3), (32, 32))],
)
def test_working_sizes_keep_the_aspect_ratio_and_enlarge_only_tiny_images(shape, expected):
    assert working_size(shape, 256, 32) == expected


@pytest.mark.parametrize("shape", [(3, 3), (1, 60), (7, 140)], ids=str)
def test_tiny_and_long_images_are_painted(shape):
    result = painted(make_image(height=shape[0], width=shape[1]), make_image(1))
    assert result.shape == (3, *shape)
    assert result.isfinite().all()


def test_the_result_depends_on_the_seed_and_not_on_the_batch():
    photo, style = make_image(), make_image(1)
    first, second, other = (painted(photo, style, start="noise", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.allclose(first, other)
    method = task(start="noise")
    method.use_styles([style])
    both = method.translate(torch.stack([make_image(3), photo]), "AtoB")
    torch.testing.assert_close(both[1], first)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_does_not_change_the_result(dtype):
    """Lightning predicts under autocast; in half precision the gradients of Gram matrices would all be 0."""
    method = task()
    method.use_styles([make_image(1)])
    expected = method.paint(make_image()[None])
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(method.paint(make_image()[None]), expected)
    assert not torch.equal(expected[0], make_image())


def test_features_in_bfloat16_give_nearly_the_same_losses_and_image():
    curves, images = {}, {}
    for precision in ("fp32", "bf16"):
        method = task(features_precision=precision)
        method.use_styles([make_image(1)])
        curve = curves.setdefault(precision, [])
        method.on_evaluation = lambda done, limit, losses, curve=curve: curve.append(float(sum(losses.values())))
        images[precision] = method.paint(make_image()[None])
    assert images["bf16"].dtype == torch.float32
    assert not torch.equal(images["bf16"], images["fp32"])
    assert curves["bf16"][0] == pytest.approx(curves["fp32"][0], rel=0.02)
    assert min(curves["bf16"]) < 1.1 * min(curves["fp32"])


def test_without_style_loss_the_photo_is_reconstructed():
    photo = make_image()
    assert torch.equal(painted(photo, [], style_weight=0, sizes=[64]), photo)
    noise = painted(photo, [], style_weight=0, start="noise", sizes=[64], steps=[60])
    assert (noise - photo).square().mean() < 0.5 * (0.5 * torch.randn(3, 32, 40) - photo).square().mean()


def test_without_content_loss_the_result_does_not_depend_on_the_photo():
    first, second = (painted(make_image(seed), make_image(1), content_weight=0, start="noise") for seed in (2, 3))
    assert torch.equal(first, second)


def test_colours_come_from_the_photo_or_from_the_style():
    blue, red = make_image(bias=(0, 0, 0.5)), make_image(1, bias=(0.5, 0, 0))
    redness = {}
    for colour in ("style", "luminance", "match"):
        result = painted(blue, red, colour=colour, style_weight=100)
        redness[colour] = (result[0] - result[2]).mean().item()
    assert redness["luminance"] < 0
    assert redness["match"] < 0
    assert redness["style"] > max(redness["luminance"], redness["match"]) + 0.1


def test_luminance_leaves_the_colour_differences_of_the_photo():
    photo = 0.5 * make_image()
    result = painted(photo, 0.5 * make_image(1), colour="luminance")
    torch.testing.assert_close(result - to_grey(result[None])[0], photo - to_grey(photo[None])[0], atol=1e-5, rtol=0)


def test_a_region_takes_the_colour_of_its_style():
    photo = torch.zeros(3, 32, 64)
    left = torch.zeros(1, 1, 32, 64)
    left[..., :32] = 1
    styles = [make_image(1, bias=(0.5, 0, 0)), make_image(2, bias=(0, 0, 0.5))]
    result = painted(photo, styles, masks=torch.cat([left, 1 - left]), style_weight=100, steps=[20], sizes=[64])
    redness = result[0] - result[2]
    assert redness[:, :24].mean() > 0.1
    assert redness[:, 40:].mean() < -0.1


def test_the_presets_differ_where_the_paper_and_its_code_do():
    paper, reference = (task(preset=preset) for preset in ("paper", "reference"))
    assert (paper.features.pooling, paper.start, paper.weights.reduction) == ("average", "noise", "half_sum")
    assert (reference.features.pooling, reference.start, reference.weights.reduction) == ("max", "content", "mean")
    assert reference.weights.style == {"relu1_1": 1e3 / 64**2, "relu2_1": 1e3 / 128**2}
    assert paper.weights.style["relu1_1"] == paper.weights.style["relu2_1"] == pytest.approx(1 / 4 / 2)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"preset": "new"}, "preset must be one of paper, reference, got 'new'"),
        ({"colour": "red"}, "colour must be one of .* got 'red'"),
        ({"start": "end"}, "start must be one of .* got 'end'"),
        ({"optimiser": "sgd"}, "optimiser must be one of .* got 'sgd'"),
        ({"sizes": [1, 2], "steps": [1]}, "sizes and steps need an entry"),
        ({"tv_weight": -1.0}, "must not be below 0, got -1"),
        ({"content_weight": 0.0, "style_weight": 0.0}, "nothing is left"),
        ({"content_layers": [], "style_layers": []}, "nothing is left"),
        ({"style_layers": ["relu9_1"]}, "no layer 'relu9_1'"),
        ({"tile": 4}, "tile must be at least 16"),
    ],
)
def test_bad_settings_are_refused(changes, text):
    with pytest.raises(ValueError, match=text):
        task(**changes)


def test_styles_and_their_weights_must_fit():
    with pytest.raises(CycleStyleError, match="no style: name a painting"):
        task().use_styles([])
    with pytest.raises(CycleStyleError, match=r"style_weights \[1\] for 2 styles"):
        task().use_styles([make_image(), make_image()], [1])
    assert normalised_weights(2, [1, 3]) == [0.25, 0.75]


# The losses by their published definitions, in float64


def written_out(network, preset, layers, start, content, style):
    """Losses and gradient by the definitions of the paper (eq. 1, 4, 5) and of the authors' code, in plain PyTorch."""
    image = start.clone().requires_grad_()
    of_image, of_content, of_style = (network(one) for one in (image, content, style))
    difference = of_image[layers[0]] - of_content[layers[0]]
    content_loss = difference.square().mean() if preset == "reference" else difference.square().sum() / 2
    styles = {}
    for layer in layers[1]:
        (a, b), (channels, pixels) = (
            [one[layer].flatten(2)[0] for one in (of_image, of_style)], of_image[layer].flatten(2).shape[1:]
        )  # fmt: skip
        if preset == "reference":
            squares = (a @ a.T / pixels - b @ b.T / b.shape[1]).square()
            styles[layer] = 1e3 / channels**2 * squares.mean()
        else:
            squares = (a @ a.T - b @ b.T * (pixels / b.shape[1])).square()
            styles[layer] = squares.sum() / (4 * channels**2 * pixels**2) / len(layers[1])
    (content_loss + sum(styles.values())).backward()
    return content_loss.item(), {layer: loss.item() for layer, loss in styles.items()}, image.grad


@pytest.mark.parametrize("preset", ["reference", "paper"])
@pytest.mark.parametrize("start", ["content", "noise"])
def test_losses_and_gradient_are_those_of_the_definitions(preset, start):
    layers = "relu2_2", ["relu1_1", "relu2_1", "relu3_1"]
    method = task(preset=preset, content_layers=[layers[0]], style_layers=layers[1]).double()
    content, style, noise = (make_image(seed, 48, 48).double()[None] for seed in (0, 1, 2))
    method.use_styles([style[0]])
    image = (content if start == "content" else noise).clone()
    expected = written_out(method.features, preset, layers, image, content, style)
    losses, gradient = evaluate(method, image, content, style)
    assert losses["content"].item() == pytest.approx(expected[0], rel=1e-10, abs=1e-12)
    assert losses["style"].item() == pytest.approx(sum(expected[1].values()), rel=1e-10)
    assert torch.allclose(gradient, expected[2], rtol=1e-9, atol=1e-12 * float(expected[2].abs().max()))


def evaluate(method, image, content, style):
    objective = GramObjective(method.features, method.weights)
    objective.keep_content(content)
    objective.keep_styles([style], [1.0])
    image = image.clone().requires_grad_()
    return objective(image), image.grad


def real(shared_file):
    path = SHARED / shared_file
    if not path.exists():
        pytest.skip(f"the real weights and figures are not at {path}")
    return path


@pytest.fixture(scope="module")
def published():
    folder = real("reference/gatys")
    images = {name: image.double() for name, image in load_file(folder / "pictures.safetensors").items()}
    return images, json.loads((folder / "losses.json").read_text())


@pytest.mark.parametrize(
    ("start", "preset"),
    [
        ("content", "reference"),
        ("noise", "paper"),
        pytest.param("content", "paper", marks=pytest.mark.slow),
        pytest.param("noise", "reference", marks=pytest.mark.slow),
    ],
)
def test_the_published_figures_with_the_real_network(published, preset, start):
    images, figures = published
    figures = figures[f"{preset}.{start}"]
    weights = str(real("weights/vgg16_imagenet.pth"))
    method = Gatys(network="vgg16", weights=weights, preset=preset, sizes=[128]).double()
    method.use_styles([images["style"][0]])
    losses, gradient = evaluate(method, images[start], images["content"], images["style"])
    assert losses["content"].item() == pytest.approx(figures["content"], rel=1e-6, abs=1e-6)
    assert gradient.norm().item() == pytest.approx(figures["grad_norm_of_content_plus_style"], rel=1e-6)
    for layer, expected in figures["style"].items():
        one = Gatys(network="vgg16", weights=weights, preset=preset, sizes=[128], style_layers=[layer]).double()
        share = 5 if preset == "paper" else 1  # the paper's weight is a share of the layers
        alone = evaluate(one, images[start], images["content"], images["style"])[0]["style"].item()
        assert alone / share == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_the_optimiser_is_as_fast_as_the_published_curve(published):
    images, figures = published
    weights = str(real("weights/vgg16_imagenet.pth"))
    method = Gatys(network="vgg16", weights=weights, sizes=[128], steps=[120])
    method.use_styles([images["style"][0].float()])
    totals = []
    method.on_evaluation = lambda done, limit, losses: totals.append(float(losses["content"] + losses["style"]))
    method.paint(images["content"].float())
    for evaluations in (60, 120):
        published_total = sum(figures["lbfgs"]["curve_content_style"][evaluations - 1])
        assert min(totals[:evaluations]) < 1.1 * published_total


@pytest.mark.parametrize("scale", ["of mean 1", "smaller"])
def test_the_strength_of_style_is_the_same_whatever_the_scale_of_the_activations(published, scale):
    """The ratio of style to content, which was 10² to 10⁶ times smaller with activations of mean 1."""
    images = published[0]
    weights = str(real("weights/vgg16_imagenet.pth"))

    def ratio(change):
        method = Gatys(network="vgg16", weights=weights, sizes=[128]).double()
        change(method.features)
        method.use_styles([images["style"][0]])
        losses = evaluate(method, images["noise"], images["content"], images["style"])[0]
        return float(losses["style"] / losses["content"])

    def normalise(features):
        features.calibrate([images["style"]])

    def shrink(features):  # another training of the network, with smaller activations
        normalise(features)
        features.normalised = False

    original = ratio(lambda features: None)
    assert 0.4 < ratio(normalise if scale == "of mean 1" else shrink) / original < 2.5
