import pytest
import torch
from torch import nn

from cyclestyle.errors import DataError
from cyclestyle.functional import discriminator_loss, generator_loss, gradient_penalty
from cyclestyle.functional.adversarial import judged_real, r1_penalty, zero_centred_penalty
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


# Penalties without a centre


def input_slope(critic, point, *, mean):
    """The gradient of the scores of one image by differences: `(C · H · W,)`."""
    slopes = []
    for n in range(point.numel()):
        step = torch.zeros_like(point).flatten()
        step[n] = 1e-5
        difference = critic((point + step.view_as(point))[None]) - critic((point - step.view_as(point))[None])
        slopes.append((difference.mean() if mean else difference.sum()) / 2e-5)
    return torch.stack(slopes)


@pytest.mark.parametrize("scores", ["mean", "sum"])
def test_r1_equals_numeric_differences(scores):
    critic, (real, _, _) = smooth_critic(), image_pairs()
    expected = [input_slope(critic, one, mean=scores == "mean").square().sum() / 2 for one in real]
    found = r1_penalty(critic, real, scores=scores)
    assert found.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-7)


def test_the_sum_of_the_scores_is_their_number_squared_times_the_mean():
    critic, (real, _, _) = smooth_critic(), image_pairs()
    count = critic(real)[0].numel()
    assert count > 1
    assert r1_penalty(critic, real, scores="sum").item() == pytest.approx(count**2 * r1_penalty(critic, real).item())


def test_the_zero_centred_penalty_equals_numeric_differences():
    critic, (real, fake, alpha) = smooth_critic(), image_pairs()
    mixed = alpha[0] * real + (1 - alpha[0]) * fake  # one share for the batch
    expected = torch.stack([input_slope(critic, one, mean=True).square().sum() for one in mixed]).mean()
    assert zero_centred_penalty(critic, real, fake, alpha[0]).item() == pytest.approx(expected.item(), rel=1e-7)


def penalties_of(critic):
    real, fake, alpha = image_pairs()
    return {"R1": lambda f: r1_penalty(f, real), "GP": lambda f: zero_centred_penalty(f, real, fake, alpha[0])}


@pytest.mark.parametrize("name", ["R1", "GP"])
def test_the_gradients_of_the_penalties_in_the_parameters_are_exact(name):
    """Their own gradient is the second derivative of the critic; theirs the third."""
    critic = smooth_critic()
    names = [key for key, _ in critic.named_parameters()]

    def penalty(*values):
        replaced = dict(zip(names, values, strict=True))
        return penalties_of(critic)[name](lambda x: torch.func.functional_call(critic, replaced, x))

    assert torch.autograd.gradcheck(penalty, tuple(critic.parameters()))
    assert torch.autograd.gradgradcheck(penalty, tuple(critic.parameters()))


@pytest.mark.parametrize("name", ["R1", "GP"])
def test_the_penalties_are_computed_in_float32_under_autocast(name):
    critic = smooth_critic().float()
    real, fake, alpha = (value.float() for value in image_pairs())

    def penalty():
        return r1_penalty(critic, real) if name == "R1" else zero_centred_penalty(critic, real, fake, alpha[0])

    expected = penalty()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = penalty()
        found.backward()
    assert torch.equal(found, expected)
    assert all(p.grad is None or p.grad.isfinite().all() for p in critic.parameters())


@pytest.mark.parametrize("name", ["R1", "GP"])
def test_a_flat_critic_has_no_penalty_and_a_finite_gradient(name):
    critic = smooth_critic()
    with torch.no_grad():
        critic[0].weight.zero_()
    found = penalties_of(critic)[name](critic)
    found.backward()
    assert found.item() == 0
    assert critic[0].weight.grad.isfinite().all()


def test_the_zero_centred_penalty_refuses_images_of_different_sizes():
    real, fake, alpha = image_pairs()
    with pytest.raises(DataError, match=r"model.lambda_GP mixes real with generated images.*leave model.lambda_GP out"):
        zero_centred_penalty(smooth_critic(), real, fake[..., :6], alpha[0])


# Label smoothing and decisions


def test_only_the_target_of_real_images_is_smoothed():
    found = discriminator_loss(SCORES, SCORES + 0.3, "lsgan", real_target=0.9)
    assert torch.allclose(found, 0.5 * (((SCORES - 0.9) ** 2).mean() + ((SCORES + 0.3) ** 2).mean()))
    found = discriminator_loss(SCORES, SCORES + 0.3, "vanilla", real_target=0.9)
    p, q = torch.sigmoid(SCORES), torch.sigmoid(SCORES + 0.3)
    cross_entropy = -(0.9 * p.log() + 0.1 * (1 - p).log()).mean() - (1 - q).log().mean()
    assert torch.allclose(found, 0.5 * cross_entropy)


def test_scores_above_the_middle_of_the_targets_say_real():
    assert judged_real(SCORES, "lsgan").tolist() == [[False, False], [False, True]]
    for mode in ("vanilla", "hinge"):
        assert judged_real(SCORES, mode).tolist() == [[False, False], [True, True]]
    with pytest.raises(ValueError, match="the scores of wgangp do not say what is real"):
        judged_real(SCORES, "wgangp")
