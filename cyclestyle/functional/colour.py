"""Colour transfer by mean and covariance: the baseline that a learned translation has to beat."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

ColourMatch = Literal["transport", "pca", "cholesky"]

_LUMINANCE = (0.299, 0.587, 0.114)
_LEAST = 1e-8  # variance of a direction without any


@dataclass(frozen=True)
class ColourTransfer:
    """The affine map of colours that gives one set of images the mean and covariance of another.

    | method | of all such maps, the one |
    |---|---|
    | `transport` | that moves colours least (Pitié & Kokaram 2007, "The linear Monge-Kantorovitch colour mapping") |
    | `pca` | whose whitening and colouring are symmetric (Gatys et al. 2017, section 5.2) |
    | `cholesky` | whose whitening and colouring are triangular (the same) |
    """

    matrix: Tensor  # (3, 3), float64
    mean_source: Tensor  # (3,)
    mean_target: Tensor  # (3,)

    @classmethod
    def fit(
        cls, sources: Iterable[Tensor], targets: Iterable[Tensor], method: ColourMatch = "transport"
    ) -> "ColourTransfer":
        """Fit the map from images `(3, H, W)` of the source domain to those of the target domain."""
        mean_source, covariance_source = _moments(sources)
        mean_target, covariance_target = _moments(targets)
        return cls(_matrix(covariance_source, covariance_target, method), mean_source, mean_target)

    def __call__(self, image: Tensor) -> Tensor:
        """Map an image `(3, H, W)` in [-1, 1]; what leaves that range is cut off."""
        matrix, mean_source, mean_target = (
            part.to(image.device) for part in (self.matrix, self.mean_source, self.mean_target)
        )
        mapped = matrix @ (image.flatten(1).double() - mean_source[:, None]) + mean_target[:, None]
        return mapped.reshape(image.shape).clamp(-1, 1).to(image.dtype)


def to_grey(images: Tensor) -> Tensor:
    """The luminance (ITU-R BT.601) of `(N, 3, H, W)`, in three equal channels."""
    return (images * images.new_tensor(_LUMINANCE)[:, None, None]).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)


def put_luminance(images: Tensor, photos: Tensor) -> Tensor:
    """Give photos `(N, 3, H, W)` the luminance of `images`; their colour differences stay."""
    return (photos + to_grey(images) - to_grey(photos)).clamp(-1, 1)


def _matrix(source: Tensor, target: Tensor, method: ColourMatch) -> Tensor:
    """A matrix M with M · source · Mᵀ = target, `(3, 3)` each."""
    if method == "cholesky":
        floor = _LEAST * torch.eye(3, dtype=source.dtype)
        matrix: Tensor = torch.linalg.cholesky(target + floor) @ torch.linalg.cholesky(source + floor).inverse()
        return matrix
    if method == "pca":
        return _power(target, 0.5) @ _power(source, -0.5)
    root, inverse = _power(source, 0.5), _power(source, -0.5)
    return inverse @ _power(root @ target @ root, 0.5, _LEAST**2) @ inverse


def _moments(images: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean `(3,)` and covariance `(3, 3)` over the pixels of all images."""
    count, total, products = 0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    for image in images:
        pixels = image.flatten(1).double()  # (3, H·W)
        count += pixels.shape[1]
        total += pixels.sum(dim=1).cpu()
        products += (pixels @ pixels.T).cpu()
    mean = total / count
    return mean, products / count - torch.outer(mean, mean)


def _power(matrix: Tensor, exponent: float, least: float = _LEAST) -> Tensor:
    """A power of a symmetric positive matrix; directions without variance are left at a tiny one."""
    values, vectors = torch.linalg.eigh(matrix)
    power: Tensor = vectors @ torch.diag(values.clamp(min=least) ** exponent) @ vectors.T
    return power
