"""The adversarial game of a GAN task: what its generators and discriminators minimise."""

import torch
from torch import Tensor, nn

from cyclestyle.functional import GanMode, discriminator_loss, generator_loss, gradient_penalty
from cyclestyle.functional.adversarial import check_gan_mode
from cyclestyle.networks.calls import call_on_both, frozen


class Adversary:
    """Losses of generators and discriminators, the same for every GAN task.

    Args:
        gan_mode: `lsgan`, `vanilla`, `hinge` or `wgangp`.

    Raises:
        ValueError: the mode is unknown.
    """

    def __init__(self, gan_mode: GanMode) -> None:
        check_gan_mode(gan_mode)
        self.gan_mode = gan_mode

    def generator_loss(self, discriminator: nn.Module, fake: Tensor) -> Tensor:
        """Return the loss of the generator that made `fake`, `(N, C, H, W)`; it moves no discriminator."""
        with frozen(discriminator):
            return generator_loss(discriminator(fake), self.gan_mode)

    def discriminator_loss(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the loss of a discriminator, halved, on real images and detached fakes, `(N, C, H, W)` each."""
        scores_real, scores_fake = call_on_both(discriminator, real, fake)
        loss = discriminator_loss(scores_real, scores_fake, self.gan_mode)
        if self.gan_mode == "wgangp":  # the loss of Gulrajani et al. 2017, eq. 3, halved like the others
            alpha = torch.rand(len(real), device=real.device)
            # `forward` and not a call, because compiled calls have no second derivative
            loss = loss + 0.5 * gradient_penalty(discriminator.forward, real, fake, alpha)
        return loss
