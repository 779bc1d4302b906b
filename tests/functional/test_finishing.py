import pytest
import torch
import torch.nn.functional as F

from cyclestyle.functional.colour import to_grey
from cyclestyle.functional.finishing import Finishing, with_fine_edges


def photo(height=48, width=64, channels=3):
    return torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def darker(images):
    return images * 0.5 - 0.25


def test_strength_is_the_share_of_the_translation():
    images = photo()
    for strength in (0.0, 0.25, 1.0):
        expected = (1 - strength) * images + strength * darker(images)
        assert torch.allclose(Finishing(strength=strength)(darker, images, 3), expected, atol=1e-6)


def test_preserved_colours_are_those_of_the_photo():
    images = photo() * 0.3
    found = Finishing(preserve_color=True)(lambda one: one.flip(1) * 0.5, images, 3)
    assert torch.allclose(found - to_grey(found), images - to_grey(images), atol=1e-5)
    assert torch.allclose(to_grey(found), to_grey(images.flip(1) * 0.5), atol=1e-5)


def test_images_are_translated_at_the_work_size():
    seen = []

    def translate(images):
        seen.append(tuple(images.shape[-2:]))
        return images

    for shape, size in (((48, 64), (24, 32)), ((64, 48), (32, 24)), ((20, 30), (20, 30))):
        assert Finishing(work_size=32)(translate, photo(*shape), 3).shape[-2:] == shape
        assert seen.pop() == size


def test_a_translation_that_follows_the_photo_gets_its_fine_edges():
    """A photo that is reduced, left as it is and enlarged comes back sharper than by enlarging alone."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.rand(1, 1, 12, 16, generator=generator).repeat_interleave(8, 2).repeat_interleave(8, 3) * 2 - 1
    images = blocks.expand(1, 3, 96, 128)  # edges are those of the luminance
    found = Finishing(work_size=64)(lambda one: one, images, 3)
    small = F.interpolate(images, (48, 64), mode="bilinear", antialias=True)
    enlarged = F.interpolate(small, (96, 128), mode="bilinear")
    assert (found - images).abs().mean() < 0.5 * (enlarged - images).abs().mean()


def test_plain_paint_gets_none_of_the_grain_of_the_photo():
    images = 0.02 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    small = F.interpolate(images, (32, 32), mode="bilinear", antialias=True)
    found = with_fine_edges(torch.full((1, 3, 32, 32), 0.4), small, images)
    assert torch.allclose(found, torch.full_like(found, 0.4), atol=1e-5)


def test_masks_are_reduced_with_the_photo_and_have_no_edges_of_their_own():
    images = torch.cat([photo(), torch.ones(1, 2, 48, 64)], dim=1)
    found = Finishing(work_size=32)(lambda one: one[:, :3], images, 3)
    assert torch.allclose(found, Finishing(work_size=32)(lambda one: one, photo(), 3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": 1.5}, "strength must be from 0 to 1, got 1.5"),
        ({"strength": float("nan")}, "strength must be from 0 to 1, got nan"),
        ({"work_size": 4}, "work_size must be at least 16, got 4"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Finishing(**settings)


def test_images_that_cannot_be_mixed_are_refused():
    with pytest.raises(ValueError, match="preserve_color is for colour images"):
        Finishing(preserve_color=True)(lambda one: one, photo(channels=1), 1)
    with pytest.raises(ValueError, match="strength mixes images of the same channels"):
        Finishing(strength=0.5)(lambda one: one, photo(channels=1)[:, [0, 0, 0, 0]], 3)
