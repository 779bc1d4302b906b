"""Adversarial losses of discriminator scores, averaged over the batch and the patches.

| mode | discriminator, real / fake | generator | source |
|---|---|---|---|
| `lsgan` | (s − 1)² / s² | (s − 1)² | Mao et al. 2017, eq. 9 with a = 0, b = c = 1 |
| `vanilla` | −log σ(s) / −log(1 − σ(s)) | −log σ(s) | Goodfellow et al. 2014, non-saturating |
| `hinge` | max(0, 1 − s) / max(0, 1 + s) | −s | Lim & Ye 2017, eq. 7 |
| `wgangp` | −s / s, and `gradient_penalty` | −s | Gulrajani et al. 2017, eq. 3 |
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclestyle.errors import DataError

GanMode = Literal["lsgan", "vanilla", "hinge", "wgangp"]
PENALTY_WEIGHT = 10.0  # λ of Gulrajani et al. 2017


def check_gan_mode(mode: str) -> None:
    """Check the name of an adversarial loss.

    Raises:
        ValueError: `mode` is unknown.
    """
    if mode not in get_args(GanMode):
        raise ValueError(f"gan_mode must be one of {', '.join(get_args(GanMode))}, got {mode!r}")


def generator_loss(scores_fake: Tensor, mode: GanMode) -> Tensor:
    """Compute the adversarial loss of the generator from the scores of its fakes.

    Shape: scores of any shape → scalar.
    """
    if mode in ("hinge", "wgangp"):
        return -scores_fake.mean()
    return _criterion(scores_fake, real=True, mode=mode)


def discriminator_loss(scores_real: Tensor, scores_fake: Tensor, mode: GanMode) -> Tensor:
    """Compute the loss of the discriminator: the mean of its losses on real and on fake images.

    `wgangp` needs half of `gradient_penalty` beside it, without which its critic has no bound.

    The factor 1/2 slows down the discriminator relative to the generator (Zhu et al. 2017, appendix 7.1).

    Shape: scores of any shape → scalar.
    """
    loss_real = _criterion(scores_real, real=True, mode=mode)
    loss_fake = _criterion(scores_fake, real=False, mode=mode)
    return 0.5 * (loss_real + loss_fake)


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, alpha: Tensor, *, centre: float = 1.0
) -> Tensor:
    """Compute the gradient penalty of a critic, λ E[(‖∇D(x)‖₂ − 1)²] with λ = 10 (Gulrajani et al. 2017, eq. 3).

    x is α · real + (1 − α) · fake. D(x) is the sum of all scores of an image and the norm is over all its pixels, as
    in `cal_gradient_penalty` of the original CycleGAN code. Gradients reach the parameters of the discriminator, but
    neither of the images. Mixed precision is off here; the norm is taken in float32 or better.

    Shape: real and fake `(N, C, H, W)`, alpha `(N,)` → scalar.

    Args:
        discriminator: returns the scores of images. It must not be compiled: compiled functions have no second
            derivative.
        real: real images.
        fake: generated images.
        alpha: the share of the real image in each mixture; drawn from U(0, 1) in the paper.
        centre: the norm that is not penalised.

    Raises:
        DataError: real and fake images differ in size.
    """
    if real.shape != fake.shape:
        sizes = " and ".join(f"{images.shape[-1]}×{images.shape[-2]}" for images in (real, fake))
        raise DataError(
            f"gan_mode wgangp mixes real with generated images, which must have the same size, got {sizes}; "
            "set data.resize to one that crops, or choose another gan_mode"
        )
    dtype = torch.promote_types(real.dtype, fake.dtype)
    share = alpha.to(dtype)[:, None, None, None]
    mixed = torch.lerp(fake.detach().to(dtype), real.detach().to(dtype), share).requires_grad_()  # (N, C, H, W)
    with torch.autocast(real.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(discriminator(mixed).sum(), mixed, create_graph=True)  # (N, C, H, W)
        norms: Tensor = gradient.to(torch.promote_types(dtype, torch.float32)).flatten(1).norm(dim=1)  # (N,)
    return PENALTY_WEIGHT * ((norms - centre) ** 2).mean()


def _criterion(scores: Tensor, *, real: bool, mode: GanMode) -> Tensor:
    if mode == "hinge":
        return F.relu(1.0 - scores if real else 1.0 + scores).mean()
    if mode == "wgangp":
        return -scores.mean() if real else scores.mean()
    target = torch.ones_like(scores) if real else torch.zeros_like(scores)
    if mode == "vanilla":
        return F.binary_cross_entropy_with_logits(scores, target)
    return F.mse_loss(scores, target)
