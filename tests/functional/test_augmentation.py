"""DiffAugment, against its definition written out with one loop an image."""

import pytest
import torch

from cyclestyle.functional.augmentation import check_augmentations, diff_augment

SIZES = [(16, 16), (17, 11), (6, 30)]


def images(count=3, size=(16, 16), channels=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    return (torch.rand(count, channels, *size, generator=generator) * 2 - 1).to(dtype)


def test_color_is_brightness_then_saturation_then_contrast():
    x = images()
    torch.manual_seed(0)
    found = diff_augment(x, ["color"])
    torch.manual_seed(0)
    brightness, saturation, contrast = (torch.rand(3, 1, 1, 1).double() for _ in range(3))
    for n in range(3):
        y = x[n] + brightness[n].item() - 0.5
        y = (y - y.mean(dim=0)) * (2 * saturation[n].item()) + y.mean(dim=0)
        y = (y - y.mean()) * (contrast[n].item() + 0.5) + y.mean()
        assert torch.allclose(found[n], y)


@pytest.mark.parametrize("size", SIZES)
def test_translation_moves_each_image_by_its_own_shift_and_zeros_move_in(size):
    x = images(size=size)
    torch.manual_seed(0)
    found = diff_augment(x, ["translation"])
    torch.manual_seed(0)
    down, right = (
        torch.randint(-int(side / 8 + 0.5), int(side / 8 + 0.5) + 1, (3, 1)).flatten().tolist() for side in size
    )
    for n in range(3):
        expected = torch.zeros_like(x[n])
        for row in range(size[0]):
            for column in range(size[1]):
                source = row - down[n], column - right[n]
                if 0 <= source[0] < size[0] and 0 <= source[1] < size[1]:
                    expected[:, row, column] = x[n, :, source[0], source[1]]
        assert torch.equal(found[n], expected)


@pytest.mark.parametrize("size", SIZES)
def test_cutout_sets_a_block_to_zero(size):
    x = images(size=size)
    torch.manual_seed(0)
    found = diff_augment(x, ["cutout"])
    torch.manual_seed(0)
    sides = [int(side / 2 + 0.5) for side in size]
    centres = [torch.randint(0, size[n] + 1 - sides[n] % 2, (3, 1)).flatten().tolist() for n in range(2)]
    for n in range(3):
        expected = x[n].clone()
        first = [centres[axis][n] - sides[axis] // 2 for axis in range(2)]
        rows, columns = (slice(max(0, first[axis]), first[axis] + sides[axis]) for axis in range(2))
        expected[:, rows, columns] = 0
        assert torch.equal(found[n], expected)


def test_the_ranges_are_those_of_the_authors():
    """Over many draws, every value of the range occurs and none outside of it."""
    count = 4000
    torch.manual_seed(0)
    point = torch.zeros(count, 1, 32, 32)
    point[:, :, 16, 16] = 1
    moved = diff_augment(point, ["translation"]).flatten(1).argmax(dim=1)
    for places in (moved // 32, moved % 32):
        assert places.unique().tolist() == list(range(12, 21))
        assert torch.bincount(places)[12:].div(count).sub(1 / 9).abs().max() < 0.02
    kept = diff_augment(torch.ones(count, 1, 32, 32), ["cutout"])
    heights = (kept == 0).any(dim=3).sum(dim=2).flatten()
    assert (heights.min().item(), heights.max().item()) == (8, 16)
    flat = diff_augment(torch.zeros(count, 3, 4, 4), ["color"])  # brightness alone: nothing differs from the means
    assert -0.5 <= flat.min() < -0.49
    assert 0.49 < flat.max() <= 0.5
    signs = torch.tensor([1.0, -1.0]).repeat(count, 3, 4, 2)  # grey: contrast alone
    spread = diff_augment(signs, ["color"]).std(dim=(1, 2, 3), correction=0)
    assert 0.5 <= spread.min() < 0.51
    assert 1.49 < spread.max() <= 1.5 + 1e-5
    colours = torch.tensor([1.0, 0.0, -1.0])[:, None, None].repeat(count, 1, 4, 4)
    ratio = diff_augment(colours, ["color"]).diff(dim=1)[:, 0, 0, 0].abs()  # saturation times contrast
    assert ratio.min() < 0.01
    assert 2.5 < ratio.max() <= 3


def test_images_of_a_batch_and_calls_have_draws_of_their_own():
    x = images(count=1).expand(4, -1, -1, -1)
    for name in ("color", "translation", "cutout"):
        torch.manual_seed(1)
        first, second = diff_augment(x, [name]), diff_augment(x, [name])
        assert not torch.equal(first, second)
        assert not torch.equal(first, first[:1].expand_as(first))


def test_the_order_is_fixed():
    torch.manual_seed(0)
    first = diff_augment(images(), ["cutout", "color", "translation"])
    torch.manual_seed(0)
    assert torch.equal(first, diff_augment(images(), ["color", "translation", "cutout"]))
    assert (first == 0).sum() > 16  # what was cut out last has no brightness


def test_gradients_are_exact():
    def augmented(x):
        torch.manual_seed(3)
        return diff_augment(x, ["color", "translation", "cutout"]).square()

    x = images(count=2, size=(9, 8)).requires_grad_()
    assert torch.autograd.gradcheck(augmented, x)
    assert torch.autograd.gradgradcheck(augmented, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 4])
def test_type_and_shape_stay(dtype, channels):
    x = images(channels=channels, dtype=dtype)
    found = diff_augment(x, ["color", "translation", "cutout"])
    assert (found.dtype, found.shape) == (dtype, x.shape)


def test_without_a_policy_nothing_is_changed_or_drawn():
    x, before = images(), torch.get_rng_state()
    assert diff_augment(x, []) is x
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("names", [["colour"], ["color", "color"]])
def test_mistakes_are_named(names):
    with pytest.raises(ValueError, match=r"diff_augment must name some of color, translation, cutout, none twice, got"):
        check_augmentations(names)
