"""Colour transfer by mean and covariance, a baseline for learned translation, and luminance."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cyclestyle.functional.float64 import to_float64

ColourMatch = Literal["transport", "pca", "cholesky"]

_LUMINANCE = (0.299, 0.587, 0.114)
_MIN_VARIANCE = 1e-8  # regularises variances before they are inverted


@dataclass(frozen=True)
class ColourTransfer:
    """Affine map of colours that gives one set of images the mean and covariance of another.

    The map is x → M (x − mean_source) + mean_target with M · covariance_source · Mᵀ = covariance_target. This does not
    determine M; the methods differ in the solution that they take:

    | method | solution |
    |---|---|
    | `transport` | least mean squared change (Pitié & Kokaram 2007, "The linear Monge-Kantorovitch colour mapping") |
    | `pca` | product of two symmetric matrices (Gatys et al. 2017, section 5.2) |
    | `cholesky` | product of two triangular matrices (Gatys et al. 2017, section 5.2) |
    """

    matrix: Tensor  # (3, 3), float64
    mean_source: Tensor  # (3,)
    mean_target: Tensor  # (3,)

    @classmethod
    def fit(
        cls, sources: Iterable[Tensor], targets: Iterable[Tensor], method: ColourMatch = "transport"
    ) -> "ColourTransfer":
        """Fit the map to images `(3, H, W)` of the source domain and of the target domain, of any sizes."""
        mean_source, covariance_source = _moments(sources)
        mean_target, covariance_target = _moments(targets)
        return cls(_matrix(covariance_source, covariance_target, method), mean_source, mean_target)

    def __call__(self, image: Tensor) -> Tensor:
        """Map an image `(3, H, W)` in [-1, 1]; the result is clamped to that range."""
        pixels = to_float64(image.flatten(1))  # (3, H·W)
        matrix, mean_source, mean_target = (
            part.to(pixels.device) for part in (self.matrix, self.mean_source, self.mean_target)
        )
        mapped = matrix @ (pixels - mean_source[:, None]) + mean_target[:, None]
        return mapped.reshape(image.shape).clamp(-1, 1).to(image)


def to_grey(images: Tensor) -> Tensor:
    """Compute the luminance (ITU-R BT.601) of images `(N, 3, H, W)` and repeat it in three channels."""
    return (images * images.new_tensor(_LUMINANCE)[:, None, None]).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)


def put_luminance(images: Tensor, photos: Tensor) -> Tensor:
    """Replace the luminance of `photos` by that of `images` and keep their chrominance.

    Shape: `(N, 3, H, W)` in [-1, 1] each → the same, clamped to [-1, 1].
    """
    return (photos + to_grey(images) - to_grey(photos)).clamp(-1, 1)


def _matrix(source: Tensor, target: Tensor, method: ColourMatch) -> Tensor:
    """Return a matrix M with M · source · Mᵀ = target, `(3, 3)` each."""
    if method == "cholesky":
        regularisation = _MIN_VARIANCE * torch.eye(3, dtype=source.dtype)
        matrix: Tensor = (
            torch.linalg.cholesky(target + regularisation) @ torch.linalg.cholesky(source + regularisation).inverse()
        )
        return matrix
    if method == "pca":
        return _power(target, 0.5) @ _power(source, -0.5)
    root, inverse = _power(source, 0.5), _power(source, -0.5)
    return inverse @ _power(root @ target @ root, 0.5, _MIN_VARIANCE**2) @ inverse


def _moments(images: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mean `(3,)` and covariance `(3, 3)` over the pixels of all images."""
    count, total, products = 0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    for image in images:
        pixels = to_float64(image.flatten(1))  # (3, H·W)
        count += pixels.shape[1]
        total += pixels.sum(dim=1).cpu()
        products += (pixels @ pixels.T).cpu()
    mean = total / count
    return mean, products / count - torch.outer(mean, mean)


def _power(matrix: Tensor, exponent: float, min_value: float = _MIN_VARIANCE) -> Tensor:
    """Compute a power of a symmetric positive semi-definite matrix; eigenvalues below `min_value` are raised to it."""
    values, vectors = torch.linalg.eigh(matrix)
    power: Tensor = vectors @ torch.diag(values.clamp(min=min_value) ** exponent) @ vectors.T
    return power
