import pytest
import torch

from cyclestyle.functional import discriminator_loss, generator_loss

SCORES = torch.tensor([[-1.5, 0.0], [0.5, 2.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("mode", "as_real", "as_fake"),
    [
        ("lsgan", lambda s: (s - 1) ** 2, lambda s: s**2),
        ("vanilla", lambda s: -torch.log(torch.sigmoid(s)), lambda s: -torch.log(1 - torch.sigmoid(s))),
        ("hinge", lambda s: torch.clamp(1 - s, min=0), lambda s: torch.clamp(1 + s, min=0)),
    ],
)
def test_discriminator_losses_equal_those_of_the_papers(mode, as_real, as_fake):
    expected = 0.5 * (as_real(SCORES).mean() + as_fake(SCORES + 0.3).mean())
    assert torch.allclose(discriminator_loss(SCORES, SCORES + 0.3, mode), expected)


def test_generator_losses_equal_those_of_the_papers():
    assert torch.allclose(generator_loss(SCORES, "lsgan"), ((SCORES - 1) ** 2).mean())
    assert torch.allclose(generator_loss(SCORES, "vanilla"), -torch.log(torch.sigmoid(SCORES)).mean())
    assert torch.allclose(generator_loss(SCORES, "hinge"), -SCORES.mean())


@pytest.mark.parametrize("mode", ["lsgan", "vanilla", "hinge"])
def test_extreme_scores_give_finite_losses_and_correct_gradients(mode):
    scores = torch.tensor([-1e4, 1e4], dtype=torch.float64, requires_grad=True)
    loss = discriminator_loss(scores, scores, mode) + generator_loss(scores, mode)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(scores.grad).all()
    small = SCORES.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: discriminator_loss(s, s * 0.7, mode), small)
