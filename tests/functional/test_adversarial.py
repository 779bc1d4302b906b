import pytest
import torch
from torch import nn

from cyclestyle.errors import DataError
from cyclestyle.functional import discriminator_loss, generator_loss, gradient_penalty
from cyclestyle.networks import build_discriminator

SCORES = torch.tensor([[-1.5, 0.0], [0.5, 2.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("mode", "as_real", "as_fake"),
    [
        ("lsgan", lambda s: (s - 1) ** 2, lambda s: s**2),
        ("vanilla", lambda s: -torch.log(torch.sigmoid(s)), lambda s: -torch.log(1 - torch.sigmoid(s))),
        ("hinge", lambda s: torch.clamp(1 - s, min=0), lambda s: torch.clamp(1 + s, min=0)),
        ("wgangp", lambda s: -s, lambda s: s),
    ],
)
def test_discriminator_losses_equal_those_of_the_papers(mode, as_real, as_fake):
    expected = 0.5 * (as_real(SCORES).mean() + as_fake(SCORES + 0.3).mean())
    assert torch.allclose(discriminator_loss(SCORES, SCORES + 0.3, mode), expected)


def test_generator_losses_equal_those_of_the_papers():
    assert torch.allclose(generator_loss(SCORES, "lsgan"), ((SCORES - 1) ** 2).mean())
    assert torch.allclose(generator_loss(SCORES, "vanilla"), -torch.log(torch.sigmoid(SCORES)).mean())
    for mode in ("hinge", "wgangp"):
        assert torch.allclose(generator_loss(SCORES, mode), -SCORES.mean())


@pytest.mark.parametrize("mode", ["lsgan", "vanilla", "hinge", "wgangp"])
def test_extreme_scores_give_finite_losses_and_correct_gradients(mode):
    scores = torch.tensor([-1e4, 1e4], dtype=torch.float64, requires_grad=True)
    loss = discriminator_loss(scores, scores, mode) + generator_loss(scores, mode)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(scores.grad).all()
    small = SCORES.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: discriminator_loss(s, s * 0.7, mode), small)


# The gradient penalty


def smooth_critic():
    """A critic without kinks, so that differences are exact."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3, stride=2), nn.Tanh(), nn.Conv2d(3, 1, 2)).double()


def image_pairs(size=8, count=3):
    generator = torch.Generator().manual_seed(1)
    real, fake = (torch.randn(count, 2, size, size, generator=generator, dtype=torch.float64) for _ in range(2))
    return real, fake, torch.rand(count, generator=generator, dtype=torch.float64)


def test_the_penalty_is_that_of_a_critic_with_known_slope():
    """D(x) = w · x for every image has the gradient w everywhere."""
    slope = torch.full((2, 8, 8), 0.5, dtype=torch.float64)
    norm = 0.5 * (2 * 8 * 8) ** 0.5
    for centre in (0.0, 1.0):
        penalty = gradient_penalty(lambda x: (slope * x).sum(dim=1, keepdim=True), *image_pairs(), centre=centre)
        assert penalty.item() == pytest.approx(10 * (norm - centre) ** 2)


def test_the_penalty_equals_numeric_differences():
    critic, (real, fake, alpha) = smooth_critic(), image_pairs()
    penalties = []
    for one, other, share in zip(real, fake, alpha, strict=True):
        point = share * one + (1 - share) * other
        slope = torch.zeros_like(point).flatten()
        for n in range(slope.numel()):
            step = torch.zeros_like(slope)
            step[n] = 1e-5
            step = step.view_as(point)
            slope[n] = (critic((point + step)[None]).sum() - critic((point - step)[None]).sum()) / 2e-5
        penalties.append((slope.norm() - 1) ** 2)
    assert gradient_penalty(critic, real, fake, alpha).item() == pytest.approx(
        10 * torch.stack(penalties).mean().item(), rel=1e-7
    )


def test_the_gradient_of_the_penalty_in_the_parameters_is_exact():
    critic, images = smooth_critic(), image_pairs()
    names = [name for name, _ in critic.named_parameters()]

    def penalty(*values):
        replaced = dict(zip(names, values, strict=True))
        return gradient_penalty(lambda x: torch.func.functional_call(critic, replaced, x), *images)

    assert torch.autograd.gradcheck(penalty, tuple(critic.parameters()))


@pytest.mark.parametrize("name", ["basic", "pixel"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_float32_and_channels_last_have_the_gradients_of_float64(name, memory_format):
    torch.manual_seed(0)
    critic = build_discriminator(name, in_channels=2, ndf=8)
    real, fake, alpha = image_pairs(size=32, count=1)
    gradients = []
    for dtype, layout in ((torch.float64, torch.contiguous_format), (torch.float32, memory_format)):
        critic = critic.to(dtype=dtype, memory_format=layout)
        images = [image.to(dtype=dtype, memory_format=layout) for image in (real, fake)]
        penalty = gradient_penalty(critic, *images, alpha.to(dtype))
        parameters = [p for p in critic.parameters() if p.ndim == 4]  # the penalty does not depend on the last bias
        gradients.append([gradient.double() for gradient in torch.autograd.grad(penalty, parameters)])
    for exact, rounded in zip(*gradients, strict=True):
        assert (exact - rounded).norm() < 1e-3 * exact.norm()


def test_the_penalty_is_computed_in_float32_under_autocast():
    critic = smooth_critic().float()
    real, fake, alpha = (value.float() for value in image_pairs())
    expected = gradient_penalty(critic, real, fake, alpha)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        penalty = gradient_penalty(critic, real, fake, alpha)
    assert penalty.dtype == torch.float32
    assert torch.equal(penalty, expected)


def test_images_of_different_sizes_are_refused():
    real, fake, alpha = image_pairs()
    with pytest.raises(DataError, match="must have the same size, got 8×8 and 6×8"):
        gradient_penalty(smooth_critic(), real, fake[..., :6], alpha)
