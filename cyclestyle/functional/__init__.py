"""Pure functions of tensors: losses and colour transfer."""

from cyclestyle.functional.adversarial import GanMode, discriminator_loss, generator_loss, gradient_penalty
from cyclestyle.functional.contrastive import patch_nce

__all__ = ["GanMode", "discriminator_loss", "generator_loss", "gradient_penalty", "patch_nce"]
