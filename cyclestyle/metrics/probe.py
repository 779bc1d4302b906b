"""A judge that learns what tells two domains apart: which of them does an image belong to?"""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

PENALTY = 0.01  # λ
STEPS = 30  # of Newton's method, at most; a handful is enough
FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Logistic regression on embeddings, which takes an image for one of the target domain or of the source domain.

    It minimises the mean cross entropy, in which both domains weigh the same, + λ/2 ‖w‖² over the weights w of
    embeddings that are scaled to mean 0 and variance 1. Nothing is random.

    Attributes:
        mean: what is subtracted from embeddings, `(C,)`.
        scale: what they are then divided by, `(C,)`.
        weights: one for each channel, and the bias, `(C + 1,)`.
    """

    mean: Tensor
    scale: Tensor
    weights: Tensor

    @classmethod
    def fit(cls, source: Tensor, target: Tensor) -> Self:
        """Learn from embeddings `(N, C)` and `(M, C)` of both domains."""
        both = torch.cat([source, target]).cpu().double()
        probe = cls(mean=both.mean(0), scale=both.std(0).clamp(min=1e-6), weights=both.new_zeros(both.shape[1] + 1))
        inputs, signs = probe._inputs(both), torch.cat([-both.new_ones(len(source)), both.new_ones(len(target))])
        share = torch.cat([both.new_full((len(one),), 0.5 / len(one)) for one in (source, target)])
        penalty = torch.full_like(probe.weights, PENALTY)
        penalty[-1] = 0  # of the bias

        def loss(weights: Tensor) -> Tensor:
            return share @ F.softplus(-signs * (inputs @ weights)) + 0.5 * penalty @ weights.square()

        weights = probe.weights
        for _ in range(STEPS):
            wrong = torch.sigmoid(-signs * (inputs @ weights))
            slope = penalty * weights - inputs.T @ (share * signs * wrong)
            curvature = inputs.T @ (inputs * (share * wrong * (1 - wrong))[:, None]) + torch.diag(penalty + 1e-12)
            step = torch.linalg.solve(curvature, slope)
            while loss(weights - step) > loss(weights) and step.abs().max() > 1e-9:  # Newton's step may be too long
                step = step / 2
            weights = weights - step
            if step.abs().max() < 1e-9:
                break
        return cls(mean=probe.mean, scale=probe.scale, weights=weights)

    def share(self, embeddings: Tensor) -> float:
        """Return the share of images, by their embeddings `(N, C)`, that are taken for the target domain."""
        return (self._inputs(embeddings.cpu().double()) @ self.weights > 0).double().mean().item()

    def _inputs(self, embeddings: Tensor) -> Tensor:
        """Return scaled embeddings and a 1: `(N, C + 1)`."""
        return F.pad((embeddings - self.mean) / self.scale, (0, 1), value=1.0)


def held_out_shares(source: Tensor, target: Tensor) -> tuple[float, float]:
    """Return which shares of held-out images of the source and of the target domain are taken for the target.

    Each fifth of both domains is judged by a probe that learns from the others. A judge that is worth its name has a
    share near 0 and one near 1.

    Args:
        source: embeddings `(N, C)`, at least 5.
        target: embeddings `(M, C)`, at least 5.
    """
    shares: list[list[float]] = [[], []]
    for fold in range(FOLDS):
        kept, judged = [], []
        for one in (source, target):
            held_out = torch.arange(len(one)) % FOLDS == fold
            kept.append(one[~held_out])
            judged.append(one[held_out])
        probe = Probe.fit(*kept)
        for share, one in zip(shares, judged, strict=True):
            share.extend([probe.share(one)] * len(one))
    of_source, of_target = (sum(share) / len(share) for share in shares)
    return of_source, of_target
