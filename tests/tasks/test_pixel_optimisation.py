"""Painting by optimisation: tiles give the whole image's gradient, and the optimiser finds its way."""

import pytest
import torch

from cyclestyle.errors import DivergedError
from cyclestyle.networks.vgg import build_vgg, random_weights
from cyclestyle.tasks.pixel_optimisation import GramObjective, GramWeights, Painter

STYLE = {"relu1_1": 100.0, "relu2_1": 50.0, "relu3_1": 25.0}


def make_image(seed, height, width, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, height, width, generator=generator, dtype=dtype) * 2 - 1


def network(layers, dtype=torch.float64):
    return build_vgg(layers, random_weights()).to(dtype)


def objective(tile, *, photo, styles, masks=None, reduction="mean", dtype=torch.float64):
    weights = GramWeights(content={"relu3_1": 0.7}, style=STYLE, total_variation=0.1, reduction=reduction)
    result = GramObjective(network([*weights.content, *STYLE], dtype), weights, tile)
    result.keep_content(photo)
    result.keep_styles(styles, [1 / len(styles)] * len(styles), masks)
    return result


def enlarged(images):
    return torch.nn.functional.interpolate(images, (48, 48), mode="bilinear")


@pytest.mark.parametrize("size", [(96, 80), (70, 131), (65, 33)], ids=str)
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "half_sum"])
def test_tiles_give_the_losses_and_the_gradient_of_the_whole(size, regions, reduction):
    photo, styles = make_image(0, *size), [make_image(1, 50, 60), make_image(2, 64, 48)]
    masks = None
    if regions:
        left = torch.zeros(1, 1, *size, dtype=torch.float64)
        left[..., : size[1] // 2] = 1
        masks = torch.cat([left, 1 - left])
    results = []
    for tile in (1000, 32):
        image = make_image(3, *size).requires_grad_()
        goal = objective(tile, photo=photo, styles=styles, masks=masks, reduction=reduction)
        results.append((goal(image), image.grad))
    (whole, slope), (tiled, slope_tiled) = results
    for name, loss in whole.items():
        torch.testing.assert_close(tiled[name], loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(slope_tiled, slope, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format], ids=str)
def test_the_gradient_is_that_of_double_precision_in_every_memory_format(memory_format):
    found = {}
    for dtype in (torch.float32, torch.float64):
        photo, style, start = (make_image(seed, 48, 40, torch.float64).to(dtype) for seed in (0, 1, 3))
        goal = objective(1000, photo=photo, styles=[style], dtype=dtype)
        goal.features.to(memory_format=memory_format if dtype == torch.float32 else torch.contiguous_format)
        goal(image := start.requires_grad_())
        found[dtype] = image.grad.double()
    exact = found[torch.float64]
    assert (found[torch.float32] - exact).norm() / exact.norm() < 5e-3  # rounding that tips rectified units


def test_the_photo_itself_has_no_content_loss_and_the_style_no_style_loss():
    photo = make_image(0, 40, 48)
    losses = objective(1000, photo=photo, styles=[photo])(photo.clone().requires_grad_())
    assert losses["content"] == 0
    assert losses["style"].item() == pytest.approx(0, abs=1e-20)


def test_mixed_styles_have_the_mean_of_their_gradients():
    photo, styles = make_image(0, 40, 48), [make_image(1, 40, 40), make_image(2, 40, 40)]
    gradients = []
    for chosen in (styles, styles[:1], styles[1:]):
        image = make_image(3, 40, 48).requires_grad_()
        objective(1000, photo=photo, styles=chosen)(image)
        gradients.append(image.grad)
    torch.testing.assert_close(gradients[0], (gradients[1] + gradients[2]) / 2)


def test_a_region_depends_only_on_its_own_style():
    photo = make_image(0, 64, 64)
    left = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    left[..., :32] = 1
    slopes = []
    for other in (2, 3):
        image = make_image(4, 64, 64).requires_grad_()
        goal = objective(1000, photo=photo, styles=[make_image(1, 64, 64), make_image(other, 64, 64)],
                         masks=torch.cat([left, 1 - left]))  # fmt: skip
        goal(image)
        slopes.append(image.grad)
    reach = network(["relu3_1"]).reach
    torch.testing.assert_close(slopes[0][..., : 32 - reach], slopes[1][..., : 32 - reach])
    assert not torch.allclose(slopes[0][..., 32:], slopes[1][..., 32:])


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
def test_it_makes_exactly_as_many_evaluations_and_returns_the_best(optimiser):
    seen = []
    goal = objective(1000, photo=make_image(0, 32, 32), styles=[make_image(1, 32, 32)])
    painter = Painter(optimiser, on_evaluation=lambda done, all_, losses: seen.append(sum(losses.values()).item()))
    found = painter(goal, make_image(0, 32, 32), 30).requires_grad_()
    assert len(seen) == 30
    assert min(seen) < 0.3 * seen[0]
    assert sum(goal(found).values()).item() == pytest.approx(min(seen), rel=1e-12)


def test_the_memory_format_of_the_image_is_free():
    """`--speed auto` chooses it; L-BFGS views the gradient as a vector."""
    goal = objective(1000, photo=make_image(0, 32, 32), styles=[make_image(1, 32, 32)])
    start = make_image(0, 32, 32).to(memory_format=torch.channels_last)
    torch.testing.assert_close(Painter("lbfgs")(goal, start, 3), Painter("lbfgs")(goal, start.contiguous(), 3))


def test_adam_keeps_its_moments_between_scales():
    painter = Painter("adam", lr=1e-12)  # stands still: its moments are averages of one gradient
    goal = objective(1000, photo=make_image(0, 32, 32), styles=[make_image(1, 32, 32)])
    painter(goal, make_image(0, 32, 32), 3)
    before = painter._state["exp_avg"]
    after = painter._resized_state(torch.Size([1, 3, 48, 48]))
    torch.testing.assert_close(after["exp_avg"], enlarged(before))
    assert after["step"] == 3


def test_non_finite_losses_reset_to_the_best_image():
    goal = objective(1000, photo=make_image(0, 32, 32), styles=[make_image(1, 32, 32)])
    calls = []

    def broken(image):
        losses = goal(image)
        calls.append(1)
        if len(calls) in (6, 7):
            image.grad.fill_(float("nan"))
        return losses

    found = Painter()(broken, make_image(0, 32, 32), 30)
    assert found.isfinite().all()
    start = make_image(0, 32, 32).requires_grad_()
    found.requires_grad_()
    assert sum(goal(found).values()) < 0.5 * sum(goal(start).values())


def test_a_non_finite_initial_image_raises_an_error():
    goal = objective(1000, photo=make_image(0, 32, 32), styles=[make_image(1, 32, 32)])
    with pytest.raises(DivergedError, match="not finite"):
        Painter()(goal, torch.full((1, 3, 32, 32), float("nan"), dtype=torch.float64), 3)
