"""Losses of style transfer: closed forms, invariances, and gradients compared with finite differences."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclestyle.functional.style import (
    adaptive_instance_norm,
    content_loss,
    gram_matrix,
    mean_and_covariance,
    mean_and_std,
    mean_std_loss,
    style_loss,
    total_variation,
    whiten_and_colour,
)

TWO = torch.tensor([[[[1.0, 2.0]], [[3.0, 5.0]]]])  # two channels, one row of two positions


def features(seed=0, *, channels=4, height=5, width=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, height, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("normalise", "divisor"), [("none", 1), ("pixels", 2), ("elements", 4)])
def test_gram_matrix_of_a_small_example(normalise, divisor):
    expected = torch.tensor([[[5.0, 13.0], [13.0, 34.0]]]) / divisor
    torch.testing.assert_close(gram_matrix(TWO, normalise), expected)


def test_gram_matrix_is_invariant_to_permutations_of_the_positions():
    found = features()
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    permuted = found.flatten(2)[:, :, order].reshape(found.shape)
    torch.testing.assert_close(gram_matrix(permuted), gram_matrix(found))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gram_matrices_stay_precise_in_half_precision(dtype):
    found = (60 + features().float()).to(dtype)  # sums of 3600 overflow float16 after 18 positions
    with torch.autocast("cpu", dtype=dtype):
        half = gram_matrix(found.requires_grad_(), "none")
    torch.testing.assert_close(half, gram_matrix(found.detach().float(), "none"))
    half.sum().backward()
    assert found.grad.isfinite().all()


def test_moments_of_half_precision_do_not_overflow():
    features = (300 * torch.randn(1, 2, 8, 8)).half()
    assert all(moment.isfinite().all() for moment in mean_and_std(features))
    assert adaptive_instance_norm(features, features).dtype == torch.float16


def test_the_style_loss_is_equation_4_of_the_paper():
    first, second = features(0)[:1], features(1)[:1]
    channels, positions = 4, 30
    difference = gram_matrix(first, "none") - gram_matrix(second, "none")
    expected = difference.square().sum() / (4 * channels**2 * positions**2)
    torch.testing.assert_close(0.25 * style_loss(gram_matrix(first), gram_matrix(second)), expected)


def test_the_content_loss_in_both_reductions():
    assert content_loss(TWO, torch.zeros_like(TWO), "half_sum") == 0.5 * (1 + 4 + 9 + 25)
    assert content_loss(TWO, torch.zeros_like(TWO), "mean") == (1 + 4 + 9 + 25) / 4


def test_total_variation_of_a_small_example():
    image = torch.tensor([[[[0.0, 1.0], [3.0, 3.0]]]])
    assert total_variation(image) == (1 + 0 + 9 + 4) / 4


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b: content_loss(a, b),
        lambda a, b: style_loss(gram_matrix(a), gram_matrix(b)),
        mean_std_loss,
        lambda a, b: (adaptive_instance_norm(a, b) - b).square().mean(),
    ],
)
def test_equal_inputs_give_zero(loss):
    assert loss(features(), features()).item() == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize(
    "loss",
    [
        lambda a: content_loss(a, features(1)),
        lambda a: content_loss(a, features(1), "half_sum"),
        lambda a: style_loss(gram_matrix(a, "elements"), gram_matrix(features(1), "elements")),
        lambda a: mean_std_loss(a, features(1)),
        lambda a: adaptive_instance_norm(a, features(1)).square().mean(),
        lambda a: mean_and_covariance(a)[1].square().mean(),
        total_variation,
    ],
)
def test_gradients_equal_finite_differences(loss):
    assert torch.autograd.gradcheck(loss, features().requires_grad_())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), style=st.integers(0, 1000))
def test_adain_and_wct_give_the_moments_of_the_style(seed, style):
    content, target = features(seed), features(style, height=7, width=9)
    mean, std = mean_and_std(adaptive_instance_norm(content, target))
    torch.testing.assert_close(mean, mean_and_std(target)[0])
    torch.testing.assert_close(std, mean_and_std(target)[1], rtol=1e-4, atol=1e-4)
    for found, expected in zip(
        mean_and_covariance(whiten_and_colour(content, target)), mean_and_covariance(target), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_constant_features_give_finite_results():
    flat, style = torch.full((1, 3, 4, 4), 0.5), torch.rand(1, 3, 4, 4)
    assert whiten_and_colour(flat, style).isfinite().all()
    assert adaptive_instance_norm(flat, style).isfinite().all()
    flat.requires_grad_()
    mean_std_loss(flat, style).backward()
    assert flat.grad.isfinite().all()
