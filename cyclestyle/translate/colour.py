"""Colour transfer by mean and covariance: the baseline that a learned translation has to beat."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ColourTransfer:
    """The affine map of colours that gives one set of pictures the mean and covariance of another.

    It is the optimal transport between the two sets' Gaussians (Pitié & Kokaram 2007, "The linear
    Monge-Kantorovitch linear colour mapping"), fitted once for the whole domain.
    """

    matrix: Tensor  # (3, 3), float64
    mean_source: Tensor  # (3,)
    mean_target: Tensor  # (3,)

    @classmethod
    def fit(cls, sources: Iterable[Tensor], targets: Iterable[Tensor]) -> "ColourTransfer":
        """Fit the map from pictures `(3, H, W)` of the source domain to those of the target domain."""
        mean_source, covariance_source = _moments(sources)
        mean_target, covariance_target = _moments(targets)
        root = _power(covariance_source, 0.5)
        inverse = _power(covariance_source, -0.5)
        matrix = inverse @ _power(root @ covariance_target @ root, 0.5) @ inverse
        return cls(matrix, mean_source, mean_target)

    def __call__(self, image: Tensor) -> Tensor:
        """Map a picture `(3, H, W)` in [-1, 1]; what leaves that range is cut off."""
        colours = image.flatten(1).double() - self.mean_source[:, None]
        mapped = self.matrix @ colours + self.mean_target[:, None]
        return mapped.reshape(image.shape).clamp(-1, 1).to(image.dtype)


def _moments(images: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean `(3,)` and covariance `(3, 3)` over the pixels of all pictures."""
    count, total, products = 0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    for image in images:
        pixels = image.flatten(1).double()  # (3, H·W)
        count += pixels.shape[1]
        total += pixels.sum(dim=1)
        products += pixels @ pixels.T
    mean = total / count
    return mean, products / count - torch.outer(mean, mean)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """A power of a symmetric positive matrix; directions without variance are left at a tiny one."""
    values, vectors = torch.linalg.eigh(matrix)
    power: Tensor = vectors @ torch.diag(values.clamp(min=1e-8) ** exponent) @ vectors.T
    return power
