"""Pure functions of tensors: losses and colour transfer."""

from cyclestyle.functional.adversarial import GanMode, discriminator_loss, generator_loss, gradient_penalty

__all__ = ["GanMode", "discriminator_loss", "generator_loss", "gradient_penalty"]
