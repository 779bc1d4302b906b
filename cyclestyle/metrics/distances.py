"""Distances between sets of images, and between an image and its translation."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from cyclestyle.functional.style import gram_matrix
from cyclestyle.metrics.features import Extractor

SUBSETS = 50  # of which KID's mean and deviation are taken
MAX_SUBSET = 1000
GRID = 16  # places a side that self-similarity compares


class SetDistance(NamedTuple):
    """How far two sets of images are apart, and what the figures rest on."""

    kid: float
    kid_std: float
    fid: float
    extractor: str
    reals: int
    fakes: int
    subset_size: int


def set_distance(reals: Tensor, fakes: Tensor, extractor: str) -> SetDistance:
    """Compare two sets by their embeddings `(N, C)`.

    KID is the unbiased squared maximum mean discrepancy under the kernel (x·y / C + 1)³, mean and deviation over
    random subsets (Bińkowski et al. 2018, section 4); below 0 means no difference is seen. FID is the Fréchet
    distance of the sets' Gaussians (Heusel et al. 2017, eq. 6); it is biased for small sets. The order of the
    images does not matter, and no random numbers of the caller are used.

    Raises:
        ValueError: a set has fewer than two images.
    """
    if min(len(reals), len(fakes)) < 2:
        raise ValueError(f"a distance of sets needs two images in each, got {len(reals)} and {len(fakes)}")
    subset_size = min(MAX_SUBSET, max(2, min(len(reals), len(fakes)) // 2))
    given = _Given(reals.shape[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save all")  # as it should
        kid = KernelInceptionDistance(given, subsets=SUBSETS, subset_size=subset_size)
    fid = FrechetInceptionDistance(given)
    for features, real in ((_sorted(reals), True), (_sorted(fakes), False)):
        kid.update(features, real=real)
        fid.update(features, real=real)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mean, deviation = kid.compute()
    return SetDistance(
        mean.item(), deviation.item(), fid.compute().item(), extractor, len(reals), len(fakes), subset_size
    )


def content_distance(extractor: Extractor, images: Tensor, translations: Tensor) -> Tensor:
    """How far the deep features of images and their translations are apart: `(N,)`, 0 for the same, at most 2.

    The mean over places of the distance between features of unit length (Zhang et al. 2018, eq. 1, without
    learnt weights).
    """
    first, second = (F.normalize(extractor.maps(batch), dim=1) for batch in (images, translations))
    distance: Tensor = torch.linalg.vector_norm(first - second, dim=1)  # (N, h, w)
    return distance.mean(dim=(1, 2))


def mean_gram(extractor: Extractor, images: Sequence[Tensor]) -> Tensor:
    """The mean Gram matrix `(C, C)` of the feature maps of images `(1, 3, H, W)`, over their places."""
    return torch.stack([gram_matrix(extractor.maps(image))[0] for image in images]).mean(dim=0)


def style_distance(extractor: Extractor, images: Tensor, gram: Tensor) -> Tensor:
    """How far the Gram matrices of `images` are from `gram`, relative to its norm: `(N,)`, 0 for the same.

    Gram matrices are those of Gatys et al. 2016, eq. 3, divided by the number of places.
    """
    difference = gram_matrix(extractor.maps(images)) - gram
    distance: Tensor = torch.linalg.matrix_norm(difference) / torch.linalg.matrix_norm(gram)
    return distance


def structure_distance(extractor: Extractor, images: Tensor, translations: Tensor) -> Tensor:
    """How differently the places of images and of their translations resemble each other: `(N,)`, 0 for alike.

    The mean absolute difference of the cosine distances between all pairs of places (Kolkin et al. 2019,
    section 2.2): a change of colour or stroke that is the same everywhere leaves it.
    """
    first, second = (_self_similarity(extractor.maps(batch)) for batch in (images, translations))
    return (first - second).abs().mean(dim=(1, 2))


def _self_similarity(maps: Tensor) -> Tensor:
    """Cosine similarity of all pairs of places: `(N, C, h, w)` → `(N, P, P)`, P at most GRID²."""
    height, width = maps.shape[2:]
    places = F.adaptive_avg_pool2d(maps, (min(GRID, height), min(GRID, width))).flatten(2)  # (N, C, P)
    places = F.normalize(places - places.mean(dim=2, keepdim=True), dim=1)
    return places.mT @ places


class _Given(nn.Module):
    """Stands for the network that torchmetrics would run: the features are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _sorted(features: Tensor) -> Tensor:
    """In an order of their own, so that random subsets do not depend on the order in which images came."""
    features = features.double()
    weights = torch.linspace(1, 2, features.shape[1], dtype=features.dtype, device=features.device).sqrt()
    return features[(features @ weights).argsort()]
