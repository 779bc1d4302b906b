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


def discriminator_loss(scores_real: Tensor, scores_fake: Tensor, mode: GanMode, *, real_target: float = 1.0) -> Tensor:
    """Compute the loss of the discriminator: the mean of its losses on real and on fake images.

    `wgangp` needs half of `gradient_penalty` beside it, without which its critic has no bound.

    The factor 1/2 slows down the discriminator relative to the generator (Zhu et al. 2017, appendix 7.1).

    Shape: scores of any shape → scalar.

    Args:
        scores_real: of real images.
        scores_fake: of generated images.
        mode: the adversarial loss.
        real_target: what `lsgan` and `vanilla` want for real images; below 1 is one-sided label smoothing (Salimans
            et al. 2016, section 3.4). The target of fakes stays 0. The other modes have no targets.
    """
    loss_real = _criterion(scores_real, real=True, mode=mode, target=real_target)
    loss_fake = _criterion(scores_fake, real=False, mode=mode)
    return 0.5 * (loss_real + loss_fake)


def judged_real(scores: Tensor, mode: GanMode) -> Tensor:
    """Return which scores say *real*: those above ½ for `lsgan`, above 0 for `vanilla` and `hinge`.

    Shape: any → the same, of booleans.

    Raises:
        ValueError: `mode` is `wgangp`, whose scores have no such threshold.
    """
    if mode == "wgangp":
        raise ValueError("the scores of wgangp do not say what is real")
    return scores > (0.5 if mode == "lsgan" else 0.0)


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
    mixed = _mixed(real, fake, alpha, "gan_mode wgangp")
    norms: Tensor = _input_gradients(discriminator, mixed).norm(dim=1)  # (N,)
    return PENALTY_WEIGHT * ((norms - centre) ** 2).mean()


def r1_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, *, scores: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """Compute ½ E[‖∇D(x)‖₂²] on real images, R1 without its weight γ (Mescheder et al. 2018, eq. 9).

    D(x) is the mean of all scores of an image, or their sum; the norm is over all pixels of an image. A PatchGAN has
    many scores, and the paper's discriminators have one. With the sum of n scores the penalty is n² times that of the
    mean, and grows with the size of the images. Mixed precision is off here.

    Shape: real `(N, C, H, W)` → scalar.

    Args:
        discriminator: returns the scores of images. It must not be compiled.
        real: real images, as the discriminator sees them.
        scores: whether D(x) is the `mean` or the `sum` of the scores.
    """
    gradients = _input_gradients(discriminator, real.detach().clone().requires_grad_(), scores)
    return 0.5 * gradients.square().sum(dim=1).mean()


def zero_centred_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, alpha: Tensor
) -> Tensor:
    """Compute E[‖∇D(x)‖₂²] on mixtures of real and generated images, without its weight λ.

    It is the penalty of UVCGAN v2 (Torbunov et al. 2023): x is α · real + (1 − α) · fake with one α for the whole
    batch, D(x) is the *mean* of all scores of an image, and the norm is over all its pixels. Mixed precision is off
    here.

    Shape: real and fake `(N, C, H, W)`, alpha `()` or `(1,)` → scalar.

    Args:
        discriminator: returns the scores of images. It must not be compiled.
        real: real images.
        fake: generated images.
        alpha: the share of the real images; drawn from U(0, 1) in the paper.

    Raises:
        DataError: real and fake images differ in size.
    """
    mixed = _mixed(real, fake, alpha.reshape(1), "model.lambda_GP")
    return _input_gradients(discriminator, mixed, "mean").square().sum(dim=1).mean()


def check_same_size(real: Tensor, fake: Tensor, setting: str) -> None:
    """Check that real and generated images have the same size.

    Raises:
        DataError: they differ; the message names `setting`, which asks for it.
    """
    if real.shape != fake.shape:
        sizes = " and ".join(f"{images.shape[-1]}×{images.shape[-2]}" for images in (real, fake))
        raise DataError(
            f"{setting} mixes real with generated images, which must have the same size, got {sizes}; "
            f"set data.resize to one that crops, or leave {setting} out"
        )


def _mixed(real: Tensor, fake: Tensor, alpha: Tensor, setting: str) -> Tensor:
    """Return α · real + (1 − α) · fake, detached: `(N, C, H, W)`."""
    check_same_size(real, fake, setting)
    dtype = torch.promote_types(real.dtype, fake.dtype)
    share = alpha.to(dtype)[:, None, None, None]
    return torch.lerp(fake.detach().to(dtype), real.detach().to(dtype), share).requires_grad_()


def _input_gradients(
    discriminator: Callable[[Tensor], Tensor], images: Tensor, scores: Literal["mean", "sum"] = "sum"
) -> Tensor:
    """Return the gradient of each image's scores, in float32 or better: `(N, C, H, W)` → `(N, C · H · W)`."""
    with torch.autocast(images.device.type, enabled=False):
        found = discriminator(images)
        judged = found.sum() if scores == "sum" else found.flatten(1).mean(dim=1).sum()
        (gradient,) = torch.autograd.grad(judged, images, create_graph=True)
        return gradient.to(torch.promote_types(images.dtype, torch.float32)).flatten(1)


def _criterion(scores: Tensor, *, real: bool, mode: GanMode, target: float = 1.0) -> Tensor:
    if mode == "hinge":
        return F.relu(1.0 - scores if real else 1.0 + scores).mean()
    if mode == "wgangp":
        return -scores.mean() if real else scores.mean()
    targets = torch.full_like(scores, target) if real else torch.zeros_like(scores)
    if mode == "vanilla":
        return F.binary_cross_entropy_with_logits(scores, targets)
    return F.mse_loss(scores, targets)
