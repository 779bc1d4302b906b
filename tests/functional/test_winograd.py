"""Winograd's and the narrow convolution are PyTorch's, with first and second derivatives."""

import pytest
import torch
import torch.nn.functional as F

from cyclestyle.speed.winograd import narrow_conv2d, transform_weight, winograd_conv2d

SHAPES = [(1, 3, 3), (2, 4, 9), (1, 6, 6), (2, 13, 22), (1, 300, 7)]


def tensors(count, height, width, kernel=3, channels=5, outputs=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(height * 100 + width)
    shapes = (count, channels, height, width), (outputs, channels, kernel, kernel), (outputs,)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize(("count", "height", "width"), SHAPES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_result_and_gradients_are_those_of_the_direct_convolution(count, height, width, memory_format):
    images, weight, bias = tensors(count, height, width)
    images = images.detach().contiguous(memory_format=memory_format).requires_grad_()
    found, expected = winograd_conv2d(images, weight, bias), F.conv2d(images, weight, bias)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    pull = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, (images, weight, bias), pull),
        torch.autograd.grad(expected, (images, weight, bias), pull),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_tall_images_are_computed_in_parts(monkeypatch):
    monkeypatch.setattr("cyclestyle.speed.winograd.MAX_TILES", 8)
    images, weight, bias = tensors(2, 40, 21)
    torch.testing.assert_close(winograd_conv2d(images, weight, bias), F.conv2d(images, weight, bias))
    pulled = torch.autograd.grad(winograd_conv2d(images, weight, bias).square().sum(), weight)
    torch.testing.assert_close(pulled, torch.autograd.grad(F.conv2d(images, weight, bias).square().sum(), weight))


def test_second_derivatives():
    images, weight, bias = tensors(1, 6, 7, channels=2, outputs=2)
    assert torch.autograd.gradgradcheck(winograd_conv2d, (images, weight, bias))


def test_a_transformed_weight_gives_the_same_result():
    images, weight, bias = tensors(1, 10, 11)
    with torch.no_grad():
        known = winograd_conv2d(images, weight, bias, transform_weight(weight))
        assert torch.equal(known, winograd_conv2d(images, weight, bias))


def test_float32_rounds_about_as_well_as_the_direct_convolution():
    images, weight, bias = (tensor.detach() for tensor in tensors(1, 34, 34, channels=64, outputs=32))
    exact = F.conv2d(images, weight, bias)
    single = [tensor.float() for tensor in (images, weight, bias)]
    scale = exact.abs().mean()
    direct = (F.conv2d(*single).double() - exact).abs().max() / scale
    tiled = (winograd_conv2d(*single).double() - exact).abs().max() / scale
    assert tiled < 20 * direct
    assert tiled < 5e-5


@pytest.mark.parametrize(("count", "height", "width"), [(1, 7, 7), (2, 9, 16)])
def test_narrow_convolution(count, height, width):
    images, weight, bias = tensors(count, height, width, kernel=7, outputs=3)
    found, expected = narrow_conv2d(images, weight, bias), F.conv2d(images, weight, bias)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(found.square().sum(), (images, weight, bias)),
        torch.autograd.grad(expected.square().sum(), (images, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    assert torch.autograd.gradgradcheck(narrow_conv2d, tensors(1, 8, 8, kernel=7, channels=1, outputs=2))
