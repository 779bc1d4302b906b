"""Adversarial losses of discriminator scores, averaged over the batch and the patches.

| mode | discriminator, real / fake | generator | source |
|---|---|---|---|
| `lsgan` | (s − 1)² / s² | (s − 1)² | Mao et al. 2017, eq. 9 with a = 0, b = c = 1 |
| `vanilla` | −log σ(s) / −log(1 − σ(s)) | −log σ(s) | Goodfellow et al. 2014, non-saturating |
| `hinge` | max(0, 1 − s) / max(0, 1 + s) | −s | Lim & Ye 2017, eq. 7 |
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

GanMode = Literal["lsgan", "vanilla", "hinge"]


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
    if mode == "hinge":
        return -scores_fake.mean()
    return _criterion(scores_fake, real=True, mode=mode)


def discriminator_loss(scores_real: Tensor, scores_fake: Tensor, mode: GanMode) -> Tensor:
    """Compute the loss of the discriminator: the mean of its losses on real and on fake images.

    The factor 1/2 slows down the discriminator relative to the generator (Zhu et al. 2017, appendix 7.1).

    Shape: scores of any shape → scalar.
    """
    loss_real = _criterion(scores_real, real=True, mode=mode)
    loss_fake = _criterion(scores_fake, real=False, mode=mode)
    return 0.5 * (loss_real + loss_fake)


def _criterion(scores: Tensor, *, real: bool, mode: GanMode) -> Tensor:
    if mode == "hinge":
        return F.relu(1.0 - scores if real else 1.0 + scores).mean()
    target = torch.ones_like(scores) if real else torch.zeros_like(scores)
    if mode == "vanilla":
        return F.binary_cross_entropy_with_logits(scores, target)
    return F.mse_loss(scores, target)
